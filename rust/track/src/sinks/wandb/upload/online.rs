//! The upload of a run while it goes on: a thread that nobody waits for before the end of the run.

use super::{Next, Upload};
use crate::{
    TrackError,
    sinks::wandb::{PageStop, notice, settings::Settings},
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Pause before a log without news is read again.
const POLL: Duration = Duration::from_millis(250);
/// Pause before the lock of another upload is tried again.
const LOCK_POLL: Duration = Duration::from_secs(5);

/// The thread.
pub(in crate::sinks::wandb) struct Uploader {
    closing: Arc<Closing>,
    /// Closed when the thread ends.
    ended: Receiver<()>,
    run_dir: PathBuf,
}

/// Whether the run has ended, so that everything is to be sent now.
#[derive(Default)]
struct Closing {
    is_closing: Mutex<bool>,
    changed: Condvar,
}

impl Closing {
    fn is_closing(&self) -> bool {
        *self.is_closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        *self.is_closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits, but not longer than until the run ends, if it has not ended.
    fn wait(&self, pause: Duration) {
        let is_closing = self.is_closing.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_closing {
            drop(is_closing);
            thread::sleep(pause);
        } else {
            drop(self.changed.wait_timeout(is_closing, pause));
        }
    }
}

impl Uploader {
    /// Starts to upload the run in `run_dir`.
    ///
    /// # Errors
    /// The system starts no thread.
    pub(in crate::sinks::wandb) fn start(
        run_dir: &Path,
        settings: &Settings,
        stop: PageStop,
    ) -> Result<Self, TrackError> {
        let closing = Arc::new(Closing::default());
        let (alive, ended) = channel();
        let (dir, settings, shared) = (run_dir.to_path_buf(), settings.clone(), Arc::clone(&closing));
        let work = move || work(&dir, &settings, &stop, &shared, alive);
        let thread = thread::Builder::new().name("wandb-upload".to_owned()).spawn(work);
        thread.map_err(TrackError::io("start a thread for", Path::new("the upload to W&B")))?;
        Ok(Self { closing, ended, run_dir: run_dir.to_path_buf() })
    }

    /// Waits until everything is sent, but no longer than `timeout`.
    pub(in crate::sinks::wandb) fn finish(self, timeout: Duration) {
        self.closing.close();
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(timeout) {
            let run_dir = self.run_dir.display();
            notice::warn(&format!(
                "W&B does not have everything of this run yet; upload the rest with: hlrp runs sync {run_dir}"
            ));
        }
    }
}

fn work(run_dir: &Path, settings: &Settings, stop: &PageStop, closing: &Closing, _alive: Sender<()>) {
    let Some(mut upload) = take_over(run_dir, settings, stop, closing) else { return };
    let (mut is_announced, mut is_hurried) = (false, false);
    loop {
        let is_closing = closing.is_closing();
        if is_closing && !is_hurried {
            upload.hurry();
            is_hurried = true;
        }
        let next = upload.pump(is_closing);
        if let Some(url) = upload.url().filter(|_| !is_announced) {
            notice::inform(&format!("W&B: {url}"));
            is_announced = true;
        }
        match next {
            Ok(Next::Finished) => return,
            Ok(Next::Wait(time)) => closing.wait(time.saturating_duration_since(Instant::now())),
            Ok(Next::UpToDate) => closing.wait(POLL),
            Err(error) => {
                let run_dir = run_dir.display();
                tracing::error!(
                    "{error}; nothing more is sent, everything is kept; upload it with: hlrp runs sync {run_dir}"
                );
                return;
            }
        }
    }
}

/// The upload, as soon as no other process has it; none if the run ends before, or if it cannot be started.
fn take_over(run_dir: &Path, settings: &Settings, stop: &PageStop, closing: &Closing) -> Option<Upload> {
    let mut is_reported = false;
    loop {
        match Upload::new(run_dir, settings.server.clone(), settings.timing, Some(stop.clone())) {
            Ok(upload) => return Some(upload),
            Err(error @ TrackError::RunLocked { .. }) => {
                if !is_reported {
                    notice::warn(&format!("{error}, which uploads this run to W&B meanwhile"));
                    is_reported = true;
                }
                if closing.is_closing() {
                    return None;
                }
                closing.wait(LOCK_POLL);
            }
            Err(error) => {
                tracing::error!("{error}; nothing is sent to W&B");
                return None;
            }
        }
    }
}
