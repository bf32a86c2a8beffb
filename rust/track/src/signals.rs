//! Signals that ask a program to stop: SIGTERM, SIGINT, SIGUSR1, and SIGHUP, which a closed terminal sends.
//!
//! A thread of its own receives them, so they take effect whatever the program is doing. The console must be set up first.

use crate::{Result, TrackError, exit_code};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
    low_level,
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    thread,
};

/// Exit code after a second SIGINT, as a shell reports it.
const EXIT_SECOND_SIGINT: i32 = 128 + SIGINT;

/// What a program says that [ends at once](OnSignal::EndAtOnce).
pub const NOTHING_TO_SAVE: &str = "interrupted before there was anything to save; run it again";

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSignal {
    /// There is nothing to save: the first signal ends the program at once, with [`exit_code::INTERRUPTED`].
    #[default]
    EndAtOnce,
    /// The first signal asks the program to save its work and end. Only a second SIGINT ends it at once: Slurm sends SIGTERM after SIGUSR1, and
    /// neither may interrupt the saving.
    Save,
    /// Every signal is recorded, for a child process.
    PassOn,
}

/// The signals that were received; clones share them.
#[derive(Debug, Clone, Default)]
pub struct StopSignals(Arc<Received>);

#[derive(Debug, Default)]
struct Received {
    is_requested: AtomicBool,
    /// Not taken yet; 0 = none.
    newest: AtomicI32,
    on_signal: Mutex<OnSignal>,
}

impl Received {
    fn lock(&self) -> MutexGuard<'_, OnSignal> {
        self.on_signal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StopSignals {
    /// Listens from now on, as [`OnSignal::EndAtOnce`] says. A SIGHUP that `nohup` has this program ignore stays ignored.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self> {
        Self::listen_and(|| {})
    }

    /// [Listens](StopSignals::listen), and does `before_end` before a signal ends the program at once. Meanwhile
    /// [`StopSignals::on_signal`] waits.
    ///
    /// # Errors
    /// As [`StopSignals::listen`].
    pub fn listen_and(before_end: impl FnOnce() + Send + 'static) -> Result<Self> {
        let listening = Self::default();
        let refused = || TrackError::io("listen for signals in", Path::new("this process"));
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1].into_iter().chain(hangup)).map_err(refused())?;
        let received = Arc::clone(&listening.0);
        let take = move || {
            let mut num_sigints = 0;
            for signal in signals.forever() {
                num_sigints += u32::from(signal == SIGINT);
                let on_signal = received.lock();
                match *on_signal {
                    OnSignal::EndAtOnce => {
                        tracing::warn!("{NOTHING_TO_SAVE}");
                        before_end();
                        low_level::exit(exit_code::INTERRUPTED.into());
                    }
                    OnSignal::Save if num_sigints > 1 => low_level::exit(EXIT_SECOND_SIGINT),
                    OnSignal::Save | OnSignal::PassOn => {}
                }
                received.newest.store(signal, Ordering::SeqCst);
                received.is_requested.store(true, Ordering::SeqCst);
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(take).map_err(refused())?;
        Ok(listening)
    }

    /// What a signal does from now on.
    pub fn on_signal(&self, how: OnSignal) {
        *self.0.lock() = how;
    }

    /// Asks the program to stop, as a signal does.
    pub fn request(&self) {
        // A signal that has arrived already says how.
        let _ = self.0.newest.compare_exchange(0, SIGTERM, Ordering::SeqCst, Ordering::SeqCst);
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

/// Whether the program that started this one has it ignore `signal`.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (signal - 1)) & 1 == 1)
}
