//! What an error means for a run of several processes: all of them end, and one reports it.

use crate::{
    error::{EXIT_CODES, Result, TrainError},
    signals::StopRequest,
};
use hlrp_config::HintOf;
use hlrp_torch::{Note, TorchError, Verdict, World, named};
use hlrp_track::{console, exit_code, signals::NOTHING_TO_SAVE};
use std::{
    error::Error,
    path::Path,
    sync::{Arc, OnceLock, Weak},
    thread,
    time::{Duration, Instant},
};

/// How long a process that a signal ends waits until it has met the others, to say so.
const UNTIL_MET: Duration = Duration::from_secs(5);
/// How often it looks.
const POLL: Duration = Duration::from_millis(20);
/// What errors say instead of a checkpoint.
const NO_CHECKPOINT: &str = "none yet";

/// Where a run that loses processes can go on.
pub(crate) struct LastCheckpoint<'a> {
    /// Folder of the newest checkpoint.
    pub(crate) dir: Option<&'a Path>,
    /// Whether this session wrote it, so that trying again is progress.
    pub(crate) is_new: bool,
}

impl LastCheckpoint<'_> {
    /// None, before the first step.
    pub(crate) const NONE: Self = Self { dir: None, is_new: false };
}

/// Listens to signals. One that ends this process at once ends all of `world`, which it may still have to meet, with the same exit code.
///
/// # Errors
/// The system refuses.
pub(crate) fn listen(world: &Arc<OnceLock<World>>) -> Result<StopRequest> {
    let world = Arc::downgrade(world);
    StopRequest::listen_and(move || {
        let note = Note {
            priority: Note::OWN,
            code: exit_code::INTERRUPTED,
            can_continue: false,
            checkpoint: NO_CHECKPOINT.to_owned(),
            text: NOTHING_TO_SAVE.to_owned(),
        };
        if let Some(world) = met(&world) {
            world.end_at_once(&note);
        }
    })
}

/// The processes, as soon as this one has met them; none if it ends before, or never does.
fn met(world: &Weak<OnceLock<World>>) -> Option<World> {
    let began = Instant::now();
    while began.elapsed() < UNTIL_MET {
        match world.upgrade()?.get() {
            Some(world) => return Some(world.clone()),
            None => thread::sleep(POLL),
        }
    }
    None
}

/// The processes that are missing, where `error` is that.
pub(crate) fn missing_in<'a>(error: &'a (dyn Error + 'static)) -> &'a [usize] {
    let found = causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(TrainError::RanksLost { missing, .. }) => Some(missing.as_slice()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Ends this process's part of a run that failed with `error`. Returns the error that this process has for the user: its own if it is the one
/// that reports, else [`TrainError::OtherRank`]. Unchanged for a single process.
pub(crate) fn conclude(
    world: &World,
    error: anyhow::Error,
    hints: &[HintOf],
    checkpoint: &LastCheckpoint<'_>,
) -> anyhow::Error {
    let cause: &(dyn Error + 'static) = error.as_ref();
    let is_lost = is_of_exchange(cause);
    let note = Note {
        priority: match () {
            () if is_lost => Note::LOST,
            () if causes(cause).any(is_derived) => Note::DERIVED,
            () => Note::OWN,
        },
        code: exit_code::of(cause, EXIT_CODES),
        can_continue: checkpoint.is_new,
        checkpoint: checkpoint.dir.map_or_else(|| NO_CHECKPOINT.to_owned(), |dir| dir.display().to_string()),
        text: console::error_text(cause, hints),
    };
    let Some(Verdict { is_reporter, rank, note, missing }) = world.conclude(note) else { return error };
    match note.priority {
        _ if causes(cause).any(is_concluded) => error,
        Note::LOST => {
            let what = match missing.as_slice() {
                [] => format!("the connection between the processes failed: {error}"),
                [_] => format!("{} is gone or does not answer", named(&missing)),
                _ => format!("{} are gone or do not answer", named(&missing)),
            };
            let Note { checkpoint, can_continue, .. } = note;
            TrainError::RanksLost { what, checkpoint, can_continue, is_reporter, missing }.into()
        }
        _ if is_reporter => error,
        _ => {
            let text = note.text.lines().next().unwrap_or_default().to_owned();
            if note.code == exit_code::INTERRUPTED {
                tracing::warn!("rank {rank}: {text}"); // ranks above 0 show no such line themselves
            }
            TrainError::OtherRank { rank, code: note.code, text }.into()
        }
    }
}

/// Whether the user sees `error` from another process.
pub(crate) fn is_reported_elsewhere(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(TrainError::OtherRank { .. } | TrainError::RanksLost { is_reporter: false, .. }), _) => true,
        (_, Some(TorchError::NoMaster { is_reporter, .. })) => !is_reporter,
        _ => false,
    })
}

/// Whether `error` is one of an exchange between the processes of a run: another one is gone.
pub fn is_of_exchange(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        matches!(cause.downcast_ref(), Some(TorchError::Exchange { .. }))
            || matches!(cause.downcast_ref(), Some(TrainError::Torch(TorchError::Exchange { .. })))
    })
}

/// The gradient is the mean of all processes: where it is not finite, the loss of one of them is the cause.
fn is_derived(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(TrainError::NotFinite { quantity: "gradient norm", .. }))
}

fn is_concluded(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(TrainError::OtherRank { .. } | TrainError::RanksLost { .. }))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use hlrp_torch::{Meeting, Store};
    use std::{thread, time::Duration};

    /// What two processes that fail with the errors of `error` have for the user, by rank.
    fn concluded(error: fn(usize) -> anyhow::Error) -> [anyhow::Error; 2] {
        let folder = tempfile::tempdir().unwrap();
        [0, 1]
            .map(|rank| {
                let meeting = Meeting {
                    rank,
                    size: 2,
                    store: Store::File(folder.path().join("store")),
                    prefix: "test".to_owned(),
                    interface: None,
                    is_local: true,
                    timeout: Duration::from_secs(20),
                };
                thread::spawn(move || {
                    let world = World::open(meeting).unwrap();
                    conclude(&world, error(rank), &[], &LastCheckpoint::NONE)
                })
            })
            .map(|thread| thread.join().unwrap())
    }

    #[test]
    fn gpus_that_cannot_be_connected_are_reported_once() {
        let [first, second] = concluded(|_| {
            TrainError::Torch(TorchError::NoNccl { size: 2, message: "this libtorch has no NCCL".to_owned() }).into()
        });
        assert!(!is_reported_elsewhere(first.as_ref()) && first.to_string().contains("no NCCL"), "{first}");
        assert!(is_reported_elsewhere(second.as_ref()), "{second}");
    }

    #[test]
    fn an_error_of_the_second_process_is_its_own_to_report() {
        let [first, second] = concluded(|rank| match rank {
            0 => TrainError::Torch(TorchError::Exchange { operation: "meet", message: "ending".to_owned() }).into(),
            _ => anyhow::anyhow!("no data"),
        });
        assert!(is_reported_elsewhere(first.as_ref()) && first.to_string().starts_with("rank 1: "), "{first}");
        assert_eq!(second.to_string(), "no data");
    }
}
