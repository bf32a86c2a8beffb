//! Signals that ask this program to stop.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The newest signal that has not been handled yet.
#[derive(Debug)]
pub(crate) struct Signals {
    newest: Arc<AtomicUsize>,
}

impl Signals {
    /// Listens from now on; none of the signals ends this process any more.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let newest = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            let number = usize::try_from(signal).context("signals have positive numbers")?;
            signal_hook::flag::register_usize(signal, Arc::clone(&newest), number)
                .context("cannot listen for signals")?;
        }
        Ok(Self { newest })
    }

    /// The signal that came since the last call.
    pub(crate) fn take(&self) -> Option<i32> {
        let number = self.newest.swap(0, Ordering::SeqCst);
        i32::try_from(number).ok().filter(|number| *number > 0)
    }
}
