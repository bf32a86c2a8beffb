//! The boundary around libtorch, whose bindings panic where it throws: inside it a panic is an error like others, and an error that says
//! out of memory says also when, and what to do.

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

/// Runs `work`.
///
/// # Errors
/// Those of `work`; its panics; [`TrainError::OutOfMemory`] in the place of either.
pub(crate) fn within<T>(work: impl FnOnce() -> anyhow::Result<T>, scene: impl FnOnce() -> Scene) -> anyhow::Result<T> {
    let is_thrown = |text: &str| TorchError::from_panic(text).is_some();
    let error = match console::catch_panic(is_thrown, work) {
        Ok(Ok(result)) => return Ok(result),
        Ok(Err(error)) => error,
        Err(panic) => match TorchError::from_panic(&panic) {
            Some(thrown) => thrown.into(),
            None => TrainError::Panic(panic).into(),
        },
    };
    let Some(message) = error.chain().map(ToString::to_string).find(|text| is_out_of_memory(text)) else {
        return Err(error);
    };
    let message = message.lines().next().unwrap_or_default().to_owned();
    let Scene { when, sizes, checkpoint } = scene();
    Err(TrainError::OutOfMemory { when, message, sizes, checkpoint }.into())
}
