//! Which anchor comes when: a pure function of (seed, epoch, rank), without state and without a stored order.
//!
//! Training walks an endless stream: epoch 0's anchors in an order that (seed, 0) fixes, then epoch 1's in the order of (seed, 1), and so on.
//! Every anchor occurs exactly once in every epoch, so starts are uniform over anchors. Rank `r` of `w` takes the positions `r, r + w, r + 2w, …`:
//! ranks are disjoint and equally long, nothing is dropped or repeated at an epoch's end (a batch may have the end of one epoch and the start of
//! the next), and a run with the same global batch sees the same samples in each step whatever its number of ranks.
//! Neighbouring anchors may be grouped into clips ([`Clips`]), so that their frames are decoded once; the order then depends on the size of the
//! global batch, too.
//! Anchors of labelled and of other episodes may be drawn in fixed shares ([`Balance`]): two such streams, interleaved evenly. So may sources
//! ([`Mixing`]), exactly within blocks of draws.

mod mixing;
mod order;
mod permutation;

pub use mixing::{Mixing, Pool};
pub use order::{Clips, Draw};
pub use permutation::Permutation;

use crate::error::{DataError, LoadError};
use crate::source::Split;
use hlrp_config::Problem;
use order::EpochOrder;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One process of a distributed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Rank of this process.
    pub rank: u64,
    /// Number of processes.
    pub world: u64,
}

impl Shard {
    /// The only process.
    pub const SINGLE: Self = Self { rank: 0, world: 1 };
}

/// A position in the training stream, between two global batches. Belongs in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epoch of the next sample.
    pub epoch: u64,
    /// Samples of that epoch that all ranks together have consumed.
    pub sample: u64,
    /// Samples so far that could not be decoded and were replaced: of all ranks before the start, and of this rank since then.
    pub num_bad_samples: u64,
}

/// Anchors of two kinds in fixed shares: the first `num_labelled` anchors are drawn with the share `fraction`, the others with the rest. Each
/// kind has epochs of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    /// Anchors of the first kind; at least one, and one of the other unless `fraction` is 1.
    pub num_labelled: u64,
    /// Above 0; 1 at most.
    pub fraction: f64,
}

impl Balance {
    /// Draws of the first kind among the first `num_draws` of a stream.
    fn labelled_before(self, num_draws: u64) -> u64 {
        (num_draws as f64 * self.fraction) as u64
    }

    /// The anchor at a position of the whole stream.
    fn anchor(self, num_anchors: u64, seed: u64, position: u64) -> u64 {
        let labelled = self.labelled_before(position);
        let (first, num, nth) = if self.labelled_before(position + 1) > labelled {
            (0, self.num_labelled, labelled)
        } else {
            (self.num_labelled, num_anchors - self.num_labelled, position - labelled)
        };
        first + EpochOrder::new(num, Clips::SINGLE, [seed, nth / num]).get(nth % num).anchor
    }
}

/// Whether anchors of different kinds have shares of their own.
#[derive(Debug, Clone)]
enum Kinds {
    /// Every anchor once in each epoch.
    One,
    Labels(Balance),
    Sources(Arc<Mixing>),
}

/// The order of training samples on one rank.
#[derive(Debug, Clone)]
pub struct TrainSampler {
    num_anchors: u64,
    clips: Clips,
    kinds: Kinds,
    seed: u64,
    shard: Shard,
    start: Position,
}

impl TrainSampler {
    /// The stream over `num_anchors` anchors, at least one, from `start` on.
    ///
    /// # Errors
    /// There is not even one window of clips, the rank is not below the number of ranks, or `start` is outside the epoch.
    pub fn new(num_anchors: u64, clips: Clips, seed: u64, shard: Shard, start: Position) -> Result<Self, DataError> {
        if clips.window() > num_anchors {
            let window = format!(
                "clips are spread over {} samples (anchors of a clip times batch size times processes)",
                clips.window()
            );
            let hint = "lower it, or data.loader.batch_size; 1 draws every anchor alone";
            let problem = format!("{window}, an epoch has {num_anchors}");
            return Err(Problem::new("data.loader.anchors_per_clip", problem, hint).into());
        }
        if shard.rank >= shard.world {
            return Err(LoadError::Shard { rank: shard.rank, world: shard.world }.into());
        }
        if start.sample >= num_anchors {
            return Err(LoadError::Position { sample: start.sample, num_anchors }.into());
        }
        Ok(Self { num_anchors, clips, kinds: Kinds::One, seed, shard, start })
    }

    /// The same stream with anchors of two kinds in fixed shares; every anchor is drawn alone. An epoch is still as many draws as there are anchors.
    #[must_use]
    pub fn balanced(self, balance: Balance) -> Self {
        Self { clips: Clips::SINGLE, kinds: Kinds::Labels(balance), ..self }
    }

    /// The same stream with sources in fixed shares; every anchor is drawn alone. An epoch is still as many draws as there are anchors.
    #[must_use]
    pub fn mixed(self, mixing: Arc<Mixing>) -> Self {
        Self { clips: Clips::SINGLE, kinds: Kinds::Sources(mixing), ..self }
    }

    /// The draw with this index on this rank, counted from the start position.
    #[must_use]
    pub fn draw(&self, draw: u64) -> Draw {
        self.after(draw, 0)
    }

    /// The draw that comes so many places after this rank's draw `draw` in the stream of all ranks.
    fn after(&self, draw: u64, num_places: u64) -> Draw {
        let position = self.start.sample + self.shard.rank + draw * self.shard.world + num_places;
        let epoch = self.start.epoch + position / self.num_anchors;
        let in_stream = self.start.epoch * self.num_anchors + position;
        match &self.kinds {
            Kinds::Labels(balance) => Draw::single(balance.anchor(self.num_anchors, self.seed, in_stream)),
            Kinds::Sources(mixing) => Draw::single(mixing.anchor(self.seed, in_stream)),
            Kinds::One => {
                EpochOrder::new(self.num_anchors, self.clips, [self.seed, epoch]).get(position % self.num_anchors)
            }
        }
    }

    /// Epoch and sample after every rank has made `num_draws` draws.
    #[must_use]
    pub fn position(&self, num_draws: u64, num_bad_samples: u64) -> Position {
        let position = self.start.sample + num_draws * self.shard.world;
        Position {
            epoch: self.start.epoch + position / self.num_anchors,
            sample: position % self.num_anchors,
            num_bad_samples,
        }
    }
}

/// The fixed order of validation samples on one rank: all anchors, or an evenly spaced subset of them, dealt out over the batches of all ranks,
/// whose samples go to the ranks in turn. Every batch is spread over the whole split, so that what compares the samples of a batch compares
/// different scenes, and ranks with the same global batch have together the batches that one rank alone has.
#[derive(Debug, Clone)]
pub struct ValidationSampler {
    num_anchors: u64,
    num_samples: u64,
    /// Of all ranks together.
    batch_size: u64,
    shard: Shard,
}

impl ValidationSampler {
    /// All anchors, or `limit` of them over all ranks together, in batches of `batch_size` on each.
    ///
    /// # Errors
    /// The rank is not below the number of ranks.
    pub fn new(num_anchors: u64, limit: Option<u64>, batch_size: u64, shard: Shard) -> Result<Self, DataError> {
        if shard.rank >= shard.world {
            return Err(LoadError::Shard { rank: shard.rank, world: shard.world }.into());
        }
        let num_samples = limit.unwrap_or(num_anchors).min(num_anchors);
        let batch_size = batch_size.max(1).saturating_mul(shard.world);
        Ok(Self { num_anchors, num_samples, batch_size, shard })
    }

    /// Draws of this rank. Ranks differ by at most one.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.num_samples + self.shard.world - 1 - self.shard.rank) / self.shard.world
    }

    /// Whether this rank has nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of the anchor of this rank's draw `draw`.
    #[must_use]
    pub fn anchor(&self, draw: u64) -> u64 {
        self.after(draw, 0)
    }

    /// Number of the anchor that comes so many places after this rank's draw `draw` in the order of all ranks; the first follows the last.
    fn after(&self, draw: u64, num_places: u64) -> u64 {
        let position = self.dealt((self.shard.rank + draw * self.shard.world + num_places) % self.num_samples);
        // Exact in 128 bits; the middle of each of `num_samples` equal stretches.
        let index = (2 * u128::from(position) + 1) * u128::from(self.num_anchors) / (2 * u128::from(self.num_samples));
        index as u64
    }

    /// Where the sample at a place of the order of all ranks is among the samples in their natural order: for n batches first every n-th sample
    /// from the first on, then every n-th from the second on, and so on.
    fn dealt(&self, place: u64) -> u64 {
        let num_batches = self.num_samples.div_ceil(self.batch_size);
        let (least, num_longer) = (self.num_samples / num_batches, self.num_samples % num_batches);
        let in_longer = num_longer * (least + 1);
        let (hand, nth) = if place < in_longer {
            (place / (least + 1), place % (least + 1))
        } else {
            (num_longer + (place - in_longer) / least, (place - in_longer) % least)
        };
        hand + nth * num_batches
    }
}

/// The draws of one loader, numbered from 0.
pub(crate) enum Plan {
    /// Endless.
    Train(TrainSampler),
    /// One pass.
    Validation(ValidationSampler),
}

impl Plan {
    /// The split that is drawn from.
    pub(crate) fn split(&self) -> Split {
        match self {
            Self::Train(_) => Split::Train,
            Self::Validation(_) => Split::Validation,
        }
    }

    /// Number of draws.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Train(_) => u64::MAX,
            Self::Validation(sampler) => sampler.len(),
        }
    }

    /// The anchor of a draw and its clip.
    pub(crate) fn draw(&self, draw: u64) -> Draw {
        self.substitute(draw, 0)
    }

    /// What replaces `draw` when it and its substitutes before this `attempt` cannot be decoded; itself at attempt 0. It is the next sample in
    /// the order of all ranks, so that any number of them replaces alike.
    pub(crate) fn substitute(&self, draw: u64, attempt: u64) -> Draw {
        match self {
            Self::Train(sampler) => sampler.after(draw, attempt),
            Self::Validation(sampler) => Draw::single(sampler.after(draw, attempt)),
        }
    }
}
