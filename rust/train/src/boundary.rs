//! The boundary around libtorch, whose bindings panic when it throws: a panic becomes an error, and an out-of-memory error reports the
//! step, the settings that decide how much memory is needed, and the newest checkpoint.

use crate::error::TrainError;
use hlrp_torch::{TorchError, is_out_of_memory};
use hlrp_track::console;

/// What a run was doing when memory ran out.
pub(crate) struct Scene {
    /// `in step 12`, or `before the first step`.
    pub(crate) when: String,
    /// Settings that decide about memory.
    pub(crate) sizes: String,
    /// Folder of the newest checkpoint, or that there is none.
    pub(crate) checkpoint: String,
}

/// Runs `work`; a panic becomes the error that libtorch threw, or [`TrainError::Panic`].
///
/// # Errors
/// Those of `work`, and its panics.
pub(crate) fn caught<T, E: From<TrainError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let is_thrown = |text: &str| TorchError::from_panic(text).is_some();
    console::catch_panic(is_thrown, work).unwrap_or_else(|panic| {
        let error = TorchError::from_panic(&panic).map_or_else(|| TrainError::Panic(panic), TrainError::Torch);
        Err(error.into())
    })
}

/// Runs `work` as [`caught`] does. An error that says out of memory becomes [`TrainError::OutOfMemory`] with the `scene`.
///
/// # Errors
/// As [`caught`].
pub(crate) fn within<T>(work: impl FnOnce() -> anyhow::Result<T>, scene: impl FnOnce() -> Scene) -> anyhow::Result<T> {
    let error = match caught(work) {
        Ok(result) => return Ok(result),
        Err(error) => error,
    };
    let Some(message) = error.chain().map(ToString::to_string).find(|text| is_out_of_memory(text)) else {
        return Err(error);
    };
    let message = message.lines().next().unwrap_or_default().to_owned();
    let Scene { when, sizes, checkpoint } = scene();
    Err(TrainError::OutOfMemory { when, message, sizes, checkpoint }.into())
}
