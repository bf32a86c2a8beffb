//! Which anchor is which draw.

use crate::sampler::{Draw, TrainSampler, ValidationSampler};

/// The draws of one loader, numbered from 0.
pub(super) enum Plan {
    /// Endless.
    Train(TrainSampler),
    /// One pass.
    Validation(ValidationSampler),
}

impl Plan {
    /// Number of draws.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Train(_) => u64::MAX,
            Self::Validation(sampler) => sampler.len(),
        }
    }

    /// The anchor of a draw and its clip.
    pub(super) fn draw(&self, draw: u64) -> Draw {
        match self {
            Self::Train(sampler) => sampler.draw(draw),
            Self::Validation(sampler) => Draw::single(sampler.anchor(draw)),
        }
    }

    /// The draw that stands in for `draw` when it and its substitutes before this `attempt` cannot be decoded; itself at attempt 0.
    pub(super) fn substitute(&self, draw: u64, attempt: u64) -> u64 {
        match self {
            Self::Train(_) => draw + attempt,
            Self::Validation(sampler) => (draw + attempt) % sampler.len(),
        }
    }
}
