//! Writes checkpoints while the training goes on: the loop waits for a copy of the tensors, a thread does the rest.

use super::{
    BEST, LAST,
    location::{checkpoint_name, point_to, prune},
    writer::{Contents, write},
};
use crate::{
    boundary::caught,
    error::{Result, TrainError},
};
use hlrp_track::fs::DiskRules;
use std::{
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Instant,
};

/// A checkpoint to write, and what becomes of the pointers and of older ones.
pub(crate) struct Publication {
    /// Folder of the run's checkpoints.
    pub(crate) checkpoints: PathBuf,
    /// A snapshot ([`Contents::snapshot`]): the training changes its own tensors meanwhile.
    pub(crate) contents: Contents,
    /// Whether it has the best score so far.
    pub(crate) is_best: bool,
    /// `training.checkpoint.keep_last`.
    pub(crate) keep_last: Option<usize>,
    /// How the run uses its disk.
    pub(crate) disk: DiskRules,
}

impl Publication {
    /// Writes the checkpoint, moves the pointers, puts away old ones.
    fn publish(self) -> Result<()> {
        let Self { checkpoints, contents, is_best, keep_last, disk } = self;
        let start = Instant::now();
        let dir = write(&checkpoints, &contents, &disk)?;
        let step = contents.state.step;
        drop(contents);
        point_to(&checkpoints, LAST, step)?;
        if is_best {
            point_to(&checkpoints, BEST, step)?;
        }
        let best = if is_best { ", the best so far" } else { "" };
        tracing::info!("checkpoint {}{best} (written in {:.1} s)", dir.display(), start.elapsed().as_secs_f64());
        keep_last.map_or(Ok(()), |keep_last| prune(&checkpoints, keep_last, &disk.superseded))
    }
}

/// The checkpoints of a run as one of its processes knows them. One is written at a time, by the first process.
#[derive(Default)]
pub(crate) struct Publisher {
    whole: Option<PathBuf>,
    pending: Option<Pending>,
}

/// A checkpoint that is not known to be whole yet.
struct Pending {
    dir: PathBuf,
    /// Writes it; in the first process only.
    thread: Option<JoinHandle<Result<()>>>,
}

impl Publisher {
    /// Of a run that continues from a whole checkpoint.
    pub(crate) fn from(dir: PathBuf) -> Self {
        Self { whole: Some(dir), pending: None }
    }

    /// The newest checkpoint that is whole.
    pub(crate) fn whole(&self) -> Option<&Path> {
        self.whole.as_deref()
    }

    /// The newest checkpoint, after waiting for the one being written: for the report of a run that fails.
    pub(crate) fn settled(&mut self) -> Option<&Path> {
        if let Err(error) = self.settle() {
            tracing::error!("the last checkpoint could not be written: {error}");
        }
        self.whole()
    }

    /// The newest checkpoint, which may still be being written; the same in all processes.
    pub(crate) fn newest(&self) -> Option<&Path> {
        self.pending.as_ref().map(|pending| pending.dir.as_path()).or(self.whole())
    }

    /// Begins to write a checkpoint. The one before must have [settled](Self::settle).
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(&mut self, publication: Publication) -> Result<()> {
        let dir = publication.checkpoints.join(checkpoint_name(publication.contents.state.step));
        let thread = thread::Builder::new().name("checkpoint".to_owned());
        let thread = thread.spawn(|| caught(|| publication.publish())).map_err(TrainError::io("write", &dir))?;
        self.pending = Some(Pending { dir, thread: Some(thread) });
        Ok(())
    }

    /// Takes note of the checkpoint `dir` that another process begins to write.
    pub(crate) fn expect(&mut self, dir: PathBuf) {
        self.pending = Some(Pending { dir, thread: None });
    }

    /// Whether this process has finished writing a checkpoint and has not [settled](Self::settle) it.
    pub(crate) fn has_finished(&self) -> bool {
        self.pending.as_ref().and_then(|pending| pending.thread.as_ref()).is_some_and(JoinHandle::is_finished)
    }

    /// Waits until the checkpoint that this process writes is whole. One that another process writes is, once its folder exists.
    ///
    /// # Errors
    /// Too little space, or the system's refusal: the checkpoints before are whole, and the pointers name them.
    pub(crate) fn settle(&mut self) -> Result<()> {
        match self.pending.take() {
            Some(Pending { dir, thread: None }) if !dir.is_dir() => self.expect(dir),
            Some(Pending { dir, thread }) => {
                if let Some(thread) = thread {
                    thread.join().unwrap_or_else(|_| Err(TrainError::Panic("the checkpoint's writer".to_owned())))?;
                }
                self.whole = Some(dir);
            }
            None => {}
        }
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.settled();
    }
}
