//! Whose mistake an error is: that of the configuration, or another.

use crate::TrainError;
use hlrp_config::Problem;

/// Anything that is no mistake in the configuration.
pub(super) const ERROR: u8 = 1;
/// A mistake in the configuration.
const CONFIG: u8 = 2;

/// The exit code of a program that ends with `error`.
pub(super) fn of(error: &anyhow::Error) -> u8 {
    let is_mistake = error.chain().any(|cause| cause.is::<Problem>()) || error.downcast_ref().is_some_and(is_setting);
    if is_mistake { CONFIG } else { ERROR }
}

/// A value that the engine refuses, or one that a continued run may not change.
fn is_setting(error: &TrainError) -> bool {
    use TrainError::{Conflict, NoSuchMetric, Setting};
    matches!(error, Setting { .. } | NoSuchMetric { .. } | Conflict { .. })
}
