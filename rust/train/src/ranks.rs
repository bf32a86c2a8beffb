//! What an error means for a run of several processes: all of them end, and one reports it.

use crate::error::{EXIT_CODES, TrainError};
use hlrp_config::HintOf;
use hlrp_torch::{Note, TorchError, World, named};
use hlrp_track::{console, exit_code};
use std::{error::Error, path::Path};

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
        text: console::error_text(cause, hints),
    };
    let Some(verdict) = world.conclude(note) else { return error };
    let is_reporter = verdict.reporter == world.rank();
    match verdict.note.priority {
        _ if causes(cause).any(is_concluded) => error,
        Note::LOST => {
            let missing = &verdict.missing;
            let what = match missing.as_slice() {
                [] => format!("the connection between the processes failed: {error}"),
                [_] => format!("{} is gone or does not answer", named(missing)),
                _ => format!("{} are gone or do not answer", named(missing)),
            };
            let dir = checkpoint.dir.map_or_else(|| "none yet".to_owned(), |dir| dir.display().to_string());
            let can_continue = checkpoint.is_new;
            TrainError::RanksLost { what, checkpoint: dir, can_continue, is_reporter }.into()
        }
        _ if is_reporter => error,
        _ => {
            let text = verdict.note.text.lines().next().unwrap_or_default().to_owned();
            TrainError::OtherRank { rank: verdict.reporter, code: verdict.note.code, text }.into()
        }
    }
}

/// Whether the user sees `error` from another process.
pub(crate) fn is_reported_elsewhere(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(TrainError::OtherRank { .. } | TrainError::RanksLost { is_reporter: false, .. }), _) => true,
        (_, Some(TorchError::NotJoined { is_reporter, .. } | TorchError::NoMaster { is_reporter, .. })) => !is_reporter,
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
