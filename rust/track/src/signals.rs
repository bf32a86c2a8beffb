//! Signals that ask a program to stop: SIGTERM, SIGINT and SIGUSR1.
//!
//! A thread of its own takes them, so that they are heeded whatever the program does at that moment.

use crate::{Result, TrackError, exit_code};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
    low_level,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
};

/// Exit code when a second SIGINT ends the program at once, as a shell reports it.
const EXIT_SECOND_SIGINT: i32 = 128 + SIGINT;

/// What a program does about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// Nothing is lost: the first signal ends the program at once, with [`exit_code::INTERRUPTED`].
    EndAtOnce,
    /// The first signal is noted, so that the program saves its work and ends. Only a second SIGINT ends it at once: Slurm sends SIGTERM
    /// after SIGUSR1, and neither must cut the saving short.
    Save,
    /// Every signal is noted, for a child process.
    PassOn,
}

/// The signals that came; clones share them.
#[derive(Debug, Clone, Default)]
pub struct StopSignals(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    is_requested: AtomicBool,
    /// Not taken yet; 0 = none.
    newest: AtomicI32,
    /// Whether work would be lost.
    is_working: AtomicBool,
    is_passed_on: AtomicBool,
}

impl StopSignals {
    /// Listens from now on, as [`Heed::EndAtOnce`] says.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self> {
        let listening = Self::default();
        let refused = || TrackError::io("listen for signals in", Path::new("this process"));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(refused())?;
        let noted = Arc::clone(&listening.0);
        let take = move || {
            let mut num_sigints = 0;
            for signal in signals.forever() {
                num_sigints += u32::from(signal == SIGINT);
                if !noted.is_working.load(Ordering::SeqCst) {
                    eprintln!("interrupted before there was anything to save; run it again");
                    low_level::exit(exit_code::INTERRUPTED.into());
                }
                if num_sigints > 1 && !noted.is_passed_on.load(Ordering::SeqCst) {
                    low_level::exit(EXIT_SECOND_SIGINT);
                }
                noted.newest.store(signal, Ordering::SeqCst);
                noted.is_requested.store(true, Ordering::SeqCst);
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(take).map_err(refused())?;
        Ok(listening)
    }

    /// What the next signal does.
    pub fn heed(&self, how: Heed) {
        self.0.is_passed_on.store(how == Heed::PassOn, Ordering::SeqCst);
        self.0.is_working.store(how != Heed::EndAtOnce, Ordering::SeqCst);
    }

    /// Asks for the stop from within the program.
    pub fn request(&self) {
        self.0.is_requested.store(true, Ordering::SeqCst);
    }

    /// Whether the program was asked to stop.
    pub fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::SeqCst)
    }

    /// The newest signal since the last call.
    pub fn take(&self) -> Option<i32> {
        Some(self.0.newest.swap(0, Ordering::SeqCst)).filter(|signal| *signal > 0)
    }
}
