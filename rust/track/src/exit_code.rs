//! Exit codes of this project's programs.

use hlrp_config::Problem;
use std::error::Error;

/// An error that is not an invalid setting.
pub const ERROR: u8 = 1;
/// An invalid setting, as [`Problem`] reports it.
pub const INVALID_SETTING: u8 = 2;
/// Stopped by a signal with a checkpoint to continue from (`EX_TEMPFAIL`: run it again).
pub const INTERRUPTED: u8 = 75;

/// The exit code of a program that ends with `error`: [`INVALID_SETTING`] wherever a [`Problem`] is in its chain of causes, else
/// [`ERROR`].
///
/// For an `anyhow::Error` pass `error.as_ref()`.
pub fn of(error: &(dyn Error + 'static)) -> u8 {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<Problem>() {
            return INVALID_SETTING;
        }
        next = cause.source();
    }
    ERROR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrackError;

    #[test]
    fn an_invalid_setting_anywhere_in_the_chain_decides() {
        let problem = Problem::new("logging.run_dir", "not empty", "choose another");
        assert_eq!(of(&TrackError::from(problem)), INVALID_SETTING);
        assert_eq!(of(&TrackError::ConsoleTwice), ERROR);
    }
}
