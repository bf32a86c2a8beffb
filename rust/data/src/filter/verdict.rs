//! Which anchors of an episode are kept.

use super::motion::box_mean;
use crate::request::EpisodeSpan;
use hlrp_schema::{ActionFilterConfig, FilterConfig, MotionFilterConfig};
use std::{fmt, ops::Range};

/// What becomes of the anchors of one episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The episode.
    pub span: EpisodeSpan,
    /// Smoothed motion scores, 0 to 1, where motion counts.
    pub motion: Option<Vec<f32>>,
    /// Action scores, where actions count.
    pub action: Option<Vec<f32>>,
    /// Whether each anchor is kept.
    pub is_kept: Vec<bool>,
    /// How many are dropped for what.
    pub counts: VerdictCounts,
}

/// How many anchors are dropped for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    /// Anchors.
    pub num_anchors: u64,
    /// Those that are kept.
    pub num_kept: u64,
    /// Idle ends, of anchors that are otherwise kept.
    pub num_trimmed: u64,
    /// Too little motion, enough action.
    pub num_by_motion: u64,
    /// Too little action, enough motion.
    pub num_by_action: u64,
    /// Too little of both.
    pub num_by_both: u64,
}

impl fmt::Display for VerdictCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { num_anchors, num_kept, num_trimmed, num_by_motion, num_by_action, num_by_both } = self;
        write!(
            formatter,
            "{num_kept} of {num_anchors} anchors kept; dropped: {num_trimmed} at idle ends, {num_by_motion} for motion alone, \
             {num_by_action} for action alone, {num_by_both} for both"
        )
    }
}

impl VerdictCounts {
    /// Adds those of another episode.
    pub fn add(&mut self, other: &Self) {
        self.num_anchors += other.num_anchors;
        self.num_kept += other.num_kept;
        self.num_trimmed += other.num_trimmed;
        self.num_by_motion += other.num_by_motion;
        self.num_by_action += other.num_by_action;
        self.num_by_both += other.num_by_both;
    }
}

impl Verdict {
    /// What follows from raw motion scores, and from action scores with the fraction of steps that have an action.
    pub(super) fn of(span: EpisodeSpan, motion: Option<&[f32]>, action: Option<&[f32]>, config: &FilterConfig) -> Self {
        let motion = motion.map(|scores| box_mean(scores, config.motion.smooth / 2));
        let action = action.map(|scores| scores.as_chunks::<2>().0);
        let num_anchors = motion.as_ref().map_or_else(|| action.map_or(0, <[_]>::len), Vec::len);
        let moves = motion.as_ref().map_or_else(|| vec![true; num_anchors], |scores| connected(scores, &config.motion));
        let acts: Vec<bool> = action.map_or_else(
            || vec![true; num_anchors],
            |scores| scores.iter().map(|s| acts(*s, &config.action)).collect(),
        );
        let is_strong = |anchor: usize| {
            let high = motion.as_ref().is_none_or(|scores| f64::from(scores[anchor]) >= config.motion.high);
            high && acts[anchor]
        };
        let strong: Vec<bool> = (0..num_anchors).map(is_strong).collect();
        let busy = between_runs(&strong, config.trim_run as usize);
        let mut counts = VerdictCounts { num_anchors: num_anchors as u64, ..VerdictCounts::default() };
        let keep = |anchor: usize| {
            let count = match (moves[anchor], acts[anchor], busy.contains(&anchor)) {
                (true, true, true) => &mut counts.num_kept,
                (true, true, false) => &mut counts.num_trimmed,
                (false, true, _) => &mut counts.num_by_motion,
                (true, false, _) => &mut counts.num_by_action,
                (false, false, _) => &mut counts.num_by_both,
            };
            *count += 1;
            moves[anchor] && acts[anchor] && busy.contains(&anchor)
        };
        let is_kept = (0..num_anchors).map(keep).collect();
        let action = action.map(|scores| scores.iter().map(|[score, _]| *score).collect());
        Self { span, motion, action, is_kept, counts }
    }

    /// Kept anchors, as stretches of frames counted from the episode's first.
    #[must_use]
    pub fn kept(&self) -> Vec<Range<u64>> {
        stretches(&self.is_kept, true)
    }

    /// Dropped anchors, in the same way.
    #[must_use]
    pub fn dropped(&self) -> Vec<Range<u64>> {
        stretches(&self.is_kept, false)
    }

    /// Kept anchors as rows of the dataset. Frames after the last anchor belong to it.
    #[must_use]
    pub fn kept_rows(&self) -> Vec<Range<u64>> {
        let last = self.is_kept.len() as u64;
        let rows = self.kept().into_iter().map(|kept| {
            let to_row = if kept.end == last { self.span.to_row } else { self.span.from_row + kept.end };
            self.span.from_row + kept.start..to_row
        });
        rows.collect()
    }
}

/// Whether the score of each anchor is above the low threshold, as are all between it and one above the high threshold.
fn connected(scores: &[f32], config: &MotionFilterConfig) -> Vec<bool> {
    let is_low = |score: &f32| f64::from(*score) >= config.low;
    let runs = scores.chunk_by(|a, b| is_low(a) == is_low(b));
    let keeps = |run: &[f32]| is_low(&run[0]) && run.iter().any(|score| f64::from(*score) >= config.high);
    runs.flat_map(|run| std::iter::repeat_n(keeps(run), run.len())).collect()
}

fn acts([score, nonzero_ratio]: [f32; 2], config: &ActionFilterConfig) -> bool {
    f64::from(score) >= config.threshold && f64::from(nonzero_ratio) >= config.min_nonzero_ratio
}

/// From the first to the last of at least `length` strong anchors in a row; all where there are none, or `length` is 0.
fn between_runs(strong: &[bool], length: usize) -> Range<usize> {
    let runs = stretches(strong, true).into_iter().filter(|run| run.end - run.start >= length as u64);
    let whole = 0..strong.len();
    if length == 0 {
        return whole;
    }
    runs.reduce(|all, run| all.start..run.end).map_or(whole, |all| all.start as usize..all.end as usize)
}

/// Stretches of flags with one value.
fn stretches(flags: &[bool], wanted: bool) -> Vec<Range<u64>> {
    let mut from = 0;
    let stretches = flags.chunk_by(|a, b| a == b).filter_map(|run| {
        let stretch = from..from + run.len() as u64;
        from = stretch.end;
        (run[0] == wanted).then_some(stretch)
    });
    stretches.collect()
}
