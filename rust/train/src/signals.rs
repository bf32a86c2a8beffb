//! Signals that ask a run to stop.

use crate::error::{Result, TrainError};
use hlrp_torch::World;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tch::Tensor;

/// Exit code when a second SIGINT ends the program at once, as a shell reports it.
const EXIT_SECOND_SIGINT: i32 = 128 + SIGINT;

/// Remembers that SIGTERM, SIGINT or SIGUSR1 came. The training finishes its step, writes a checkpoint and returns.
#[derive(Debug, Clone, Default)]
pub struct StopRequest {
    requested: Arc<AtomicBool>,
}

impl StopRequest {
    /// Listens from now on. A second SIGINT ends the process at once.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self> {
        let request = Self::default();
        let refused = |source: io::Error| TrainError::io("listen for signals in", Path::new("this process"))(source);
        // Registered before the flag is raised by the same signal, this acts from the second one on.
        let armed = Arc::clone(&request.requested);
        signal_hook::flag::register_conditional_shutdown(SIGINT, EXIT_SECOND_SIGINT, armed).map_err(refused)?;
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&request.requested)).map_err(refused)?;
        }
        Ok(request)
    }

    /// Asks for the stop from within the program.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Whether this process was asked to stop.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
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
}
