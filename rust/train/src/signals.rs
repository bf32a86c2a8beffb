//! The request to stop a run, and the error of the work that it interrupts.

use crate::error::Result;
use hlrp_torch::World;
use hlrp_track::signals::{OnSignal, StopSignals};

/// Whether SIGTERM, SIGINT, SIGUSR1 or SIGHUP asked the run to stop. The training finishes its step, writes a checkpoint and returns.
#[derive(Debug, Clone, Default)]
pub struct StopRequest(StopSignals);

impl StopRequest {
    /// Listens from now on. Until [`StopRequest::save_first`] the first signal ends the process at once, because nothing is lost.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self> {
        Ok(Self(StopSignals::listen()?))
    }

    /// [Listens](StopRequest::listen), and does `before_end` before a signal ends the process at once.
    ///
    /// # Errors
    /// As [`StopRequest::listen`].
    pub(crate) fn listen_and(before_end: impl FnOnce() + Send + 'static) -> Result<Self> {
        Ok(Self(StopSignals::listen_and(before_end)?))
    }

    /// From now on a signal is a request to save the work and stop; only a second SIGINT ends the process at once.
    pub fn save_first(&self) {
        self.0.on_signal(OnSignal::Save);
    }

    /// Asks for the stop from within the program.
    pub fn request(&self) {
        self.0.request();
    }

    /// Whether this process was asked to stop.
    pub fn is_requested(&self) -> bool {
        self.0.is_requested()
    }

    /// What a sink requests the stop through.
    pub(crate) fn signals(&self) -> &StopSignals {
        &self.0
    }

    /// Whether this process was asked to stop and may do so in the middle of a step, because no other process waits for it.
    pub(crate) fn is_requested_alone(&self, world: &World) -> bool {
        world.size() == 1 && self.is_requested()
    }
}

/// The error of a validation or an export that a signal interrupts.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped;
