//! Which frames may be anchors of a sample, and the mapping from an index to an anchor.
//!
//! A frame is an anchor when every image that must be real is inside its episode: with offsets reaching from `-r` to `+s` around the
//! anchor, an episode `[a, b)` has the anchors `[a + r, b - s)`. Other images, states and actions do not count: they are padded.
//! Anchors are numbered in the order in which episodes were pushed, frame by frame; nothing is stored per anchor.

use crate::request::EpisodeSpan;
use std::ops::Range;

/// One anchor frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Anchor {
    /// Index of the source in the mixture.
    pub source: usize,
    /// Its episode.
    pub span: EpisodeSpan,
    /// Global row of the anchor in its dataset.
    pub row: u64,
}

/// Anchors of episodes of one source: 40 bytes an episode, or for each stretch of its anchors where a filter leaves some out.
#[derive(Debug, Clone)]
struct SourceAnchors {
    /// Index of the source in the mixture.
    source: usize,
    /// Anchors before these.
    num_before: u64,
    /// Stretches of at least one anchor.
    stretches: Vec<Stretch>,
}

/// Neighbouring anchors of an episode, and the number of its source's anchors before them.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    num_before: u64,
    /// Row of the first.
    first_row: u64,
    span: EpisodeSpan,
}

/// All anchors of a mixture, numbered from 0.
#[derive(Debug, Clone, Default)]
pub struct AnchorTable {
    parts: Vec<SourceAnchors>,
    num_anchors: u64,
}

impl AnchorTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends episodes of a source, whose index in the mixture is `source`. `reach` is [`crate::request::Request::anchor_reach`].
    pub fn push(&mut self, source: usize, spans: impl IntoIterator<Item = EpisodeSpan>, reach: (i64, i64)) {
        self.push_rows(source, spans.into_iter().map(|span| (span, span.rows())), reach);
    }

    /// Appends episodes of a source, of each of which only the anchors in some stretches of rows count, in their order.
    pub fn push_rows(
        &mut self,
        source: usize,
        spans: impl IntoIterator<Item = (EpisodeSpan, Vec<Range<u64>>)>,
        reach: (i64, i64),
    ) {
        let (reach_back, reach_on) = (reach.0.unsigned_abs(), reach.1.unsigned_abs());
        let mut num_anchors = 0;
        let mut stretches = Vec::new();
        for (span, rows) in spans {
            for rows in rows {
                let first_row = rows.start.max(span.from_row.saturating_add(reach_back));
                let in_stretch = rows.end.min(span.to_row.saturating_sub(reach_on)).saturating_sub(first_row);
                if in_stretch > 0 {
                    stretches.push(Stretch { num_before: num_anchors, first_row, span });
                    num_anchors += in_stretch;
                }
            }
        }
        stretches.shrink_to_fit();
        self.parts.push(SourceAnchors { source, num_before: self.num_anchors, stretches });
        self.num_anchors += num_anchors;
    }

    /// Indices of the anchors of a source whose episodes were pushed at once, and the first of each episode.
    pub(crate) fn of_source(&self, source: usize) -> (Range<u64>, impl Iterator<Item = u64>) {
        let part = self.parts.iter().position(|part| part.source == source);
        let first = part.map_or(0, |part| self.parts[part].num_before);
        let next = part.and_then(|part| self.parts.get(part + 1));
        let end = part.map_or(0, |_| next.map_or(self.num_anchors, |next| next.num_before));
        let stretches = part.map_or(&[][..], |part| &self.parts[part].stretches);
        let episodes = stretches.chunk_by(|a, b| a.span == b.span);
        (first..end, episodes.map(move |stretches| first + stretches[0].num_before))
    }

    /// Fraction of the draws of each of `num_sources` sources, where the first anchors of the table are drawn with one share and the others with
    /// another: numbers of anchors and shares.
    pub(crate) fn fractions(&self, num_sources: usize, kinds: [(u64, f64); 2]) -> Vec<f64> {
        let mut fractions = vec![0.0; num_sources];
        let ends = self.parts.iter().skip(1).map(|part| part.num_before).chain([self.num_anchors]);
        for (part, end) in self.parts.iter().zip(ends) {
            let (num_anchors, share) = kinds[usize::from(part.num_before >= kinds[0].0)];
            if num_anchors > 0 {
                fractions[part.source] += share * (end - part.num_before) as f64 / num_anchors as f64;
            }
        }
        fractions
    }

    /// Number of anchors.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.num_anchors
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.num_anchors == 0
    }

    /// The anchor with this index; none beyond the last. Two binary searches.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<Anchor> {
        if index >= self.num_anchors {
            return None;
        }
        // Parts without anchors share their index with the next one: the last that begins at or before `index` has it.
        let anchors = &self.parts[self.parts.partition_point(|part| part.num_before <= index) - 1];
        let within_part = index - anchors.num_before;
        let at = anchors.stretches.partition_point(|stretch| stretch.num_before <= within_part) - 1;
        let Stretch { num_before, first_row, span } = anchors.stretches[at];
        Some(Anchor { source: anchors.source, span, row: first_row + (within_part - num_before) })
    }
}

/// Positions of `num_held_out` out of `num_episodes` episodes, spread evenly: the middles of as many equal stretches, ascending.
pub fn held_out_positions(num_episodes: usize, num_held_out: usize) -> impl Iterator<Item = usize> {
    (0..num_held_out).map(move |k| (2 * k + 1) * num_episodes / (2 * num_held_out))
}
