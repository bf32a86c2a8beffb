//! The order of anchors within one epoch: clips in random order, each spread over successive batches.
//!
//! A clip is `anchors_per_clip` neighbouring anchors, whose frames are decoded together. A global batch of G samples has G slots, and each slot
//! walks through clips of its own, one anchor a batch: a batch never has two anchors that were decoded together, and the clips of a batch are a
//! random draw. Slots begin their clips at different batches, so that batches cost about the same. Anchors that do not fill `anchors_per_clip` batches
//! come last, in random order, each on its own. With one anchor per clip this is a plain permutation.

use super::permutation::Permutation;
use std::ops::Range;

/// How anchors are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clips {
    /// Neighbouring anchors that are decoded together.
    anchors_per_clip: u64,
    /// Samples of a batch over all ranks: the distance in the order between the anchors of a clip.
    global_batch: u64,
}

impl Clips {
    /// Every anchor on its own.
    pub const SINGLE: Self = Self { anchors_per_clip: 1, global_batch: 1 };

    /// Clips of so many anchors, spread over batches of so many samples; neither is 0. The size of a batch matters to clips alone.
    #[must_use]
    pub const fn new(anchors_per_clip: u64, global_batch: u64) -> Self {
        if anchors_per_clip == 1 { Self::SINGLE } else { Self { anchors_per_clip, global_batch } }
    }

    /// Samples of the batches over which one clip is spread. An epoch must have as many, or no clip fits into it.
    #[must_use]
    pub fn window(self) -> u64 {
        self.anchors_per_clip.saturating_mul(self.global_batch)
    }
}

/// One entry of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// Index of the anchor.
    pub anchor: u64,
    /// Indices of the anchors that are decoded with it: those of its clip, or itself alone.
    pub clip: Range<u64>,
}

impl Draw {
    /// An anchor on its own.
    pub(crate) fn single(anchor: u64) -> Self {
        Self { anchor, clip: anchor..anchor + 1 }
    }

    /// Whether no other anchor is decoded with it.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.clip.end - self.clip.start == 1
    }
}

/// The order of one epoch.
pub(super) struct EpochOrder {
    num_anchors: u64,
    clips: Clips,
    key: [u64; 2],
    num_clips: u64,
    /// Anchor with which the first clip begins: another one in each epoch.
    first_anchor: u64,
    /// Batches with an anchor of a clip in every slot.
    num_full_batches: u64,
}

impl EpochOrder {
    /// The order of `num_anchors` anchors that belongs to `key`.
    pub(super) fn new(num_anchors: u64, clips: Clips, key: [u64; 2]) -> Self {
        let Clips { anchors_per_clip, global_batch } = clips;
        let first_anchor = Permutation::new(anchors_per_clip.min(num_anchors), key).get(0);
        let num_clips = (num_anchors - first_anchor) / anchors_per_clip;
        let num_full_batches = num_clips / global_batch * anchors_per_clip;
        Self { num_anchors, clips, key, num_clips, first_anchor, num_full_batches }
    }

    /// The entry at `position`, which is less than the number of anchors.
    pub(super) fn get(&self, position: u64) -> Draw {
        let Clips { anchors_per_clip, global_batch } = self.clips;
        let num_full = self.num_full_batches * global_batch;
        if position < num_full {
            let (batch, slot) = (position / global_batch, position % global_batch);
            let turn = (batch + slot * anchors_per_clip / global_batch) % self.num_full_batches;
            let clip = self.clip(turn / anchors_per_clip * global_batch + slot);
            return Draw { anchor: self.member(&clip, turn % anchors_per_clip), clip };
        }
        // Clips that do not fill a batch, and the anchors before the first and after the last clip.
        let (num_rest, num_in_clips) = (self.num_anchors - num_full, self.num_clips * anchors_per_clip);
        let rest = num_full + Permutation::new(num_rest, self.key).get(position - num_full);
        if rest < num_in_clips {
            return Draw::single(self.clip(rest / anchors_per_clip).start + rest % anchors_per_clip);
        }
        let outside = rest - num_in_clips;
        Draw::single(if outside < self.first_anchor { outside } else { outside + num_in_clips })
    }

    /// Anchors of the clip at a position in the order of clips.
    fn clip(&self, position: u64) -> Range<u64> {
        let index = Permutation::new(self.num_clips, self.key).get(position);
        let first = self.first_anchor + index * self.clips.anchors_per_clip;
        first..first + self.clips.anchors_per_clip
    }

    /// The anchor of a clip that comes at its `turn`-th batch.
    fn member(&self, clip: &Range<u64>, turn: u64) -> u64 {
        let order = Permutation::new(self.clips.anchors_per_clip, [self.key[0] ^ clip.start, self.key[1]]);
        clip.start + order.get(turn)
    }
}
