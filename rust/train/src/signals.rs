//! The request to stop a run, and how work in progress ends on it.

use crate::error::Result;
use hlrp_torch::World;
use hlrp_track::signals::{Heed, StopSignals};
use tch::Tensor;

/// Remembers that SIGTERM, SIGINT or SIGUSR1 came. The training finishes its step, writes a checkpoint and returns.
#[derive(Debug, Clone, Default)]
pub struct StopRequest(StopSignals);

impl StopRequest {
    /// Listens from now on. Until [`StopRequest::save`] the first signal ends the process at once, because nothing is lost.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self> {
        Ok(Self(StopSignals::listen()?))
    }

    /// From now on there is something to save: a signal is a request, and a second SIGINT ends the process at once.
    pub fn save(&self) {
        self.0.heed(Heed::Save);
    }

    /// Asks for the stop from within the program.
    pub fn request(&self) {
        self.0.request();
    }

    /// Whether this process was asked to stop.
    pub fn is_requested(&self) -> bool {
        self.0.is_requested()
    }

    /// Whether any process of `world` was asked to stop: all of them stop after the same step.
    pub(crate) fn is_requested_in(&self, world: &World) -> Result<bool> {
        if world.size() == 1 {
            return Ok(self.is_requested());
        }
        let num_requests = Tensor::from(i64::from(self.is_requested()));
        world.all_reduce(&num_requests)?;
        Ok(i64::try_from(num_requests)? > 0)
    }

    /// Whether this process may stop in the middle of something: others would wait for it.
    pub(crate) fn is_requested_alone(&self, world: &World) -> bool {
        world.size() == 1 && self.is_requested()
    }
}

/// What ends a validation or an export that a signal interrupts.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped;
