//! What is said about W&B beside the records, as far as the user wants to hear it.

use super::settings::is_true;
use crate::env;

fn is_on(variable: &str) -> bool {
    env::get(variable).is_some_and(|value| is_true(&value))
}

/// Something good to know. Not with `WANDB_QUIET` or `WANDB_SILENT`.
pub(super) fn inform(text: &str) {
    if !is_on(env::WANDB_QUIET) && !is_on(env::WANDB_SILENT) {
        tracing::info!("{text}");
    }
}

/// Something to look after. Not with `WANDB_SILENT`.
pub(super) fn warn(text: &str) {
    if !is_on(env::WANDB_SILENT) {
        tracing::warn!("{text}");
    }
}
