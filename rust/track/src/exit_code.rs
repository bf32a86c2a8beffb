//! Exit codes of this project's programs; `docs/exit_codes.md` has the same table.

use crate::TrackError;
use hlrp_config::Problem;
use std::{error::Error, io};

/// Any other error.
pub const ERROR: u8 = 1;
/// An invalid setting, as [`Problem`] reports it, or an invalid command line.
pub const INVALID_SETTING: u8 = 2;
/// A dataset that is damaged or unusable (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// A run cannot be reproduced: an input, a dataset or a version is not that of then (`EX_NOINPUT`).
pub const CANNOT_REPRODUCE: u8 = 66;
/// A process of the run was lost before there was a checkpoint to go on from (`EX_UNAVAILABLE`).
pub const RANK_LOST: u8 = 69;
/// A reproduced run recorded something else (`EX_SOFTWARE`).
pub const DRIFT: u8 = 70;
/// Out of memory, on the machine or on a GPU (`EX_OSERR`).
pub const OUT_OF_MEMORY: u8 = 71;
/// Another process has the run (`EX_CANTCREAT`).
pub const LOST_RACE: u8 = 73;
/// Too little space on a disk (`EX_IOERR`).
pub const DISK: u8 = 74;
/// Stopped by a signal (`EX_TEMPFAIL`): run it again, or resume it where there is a checkpoint.
pub const INTERRUPTED: u8 = 75;
/// Training was refused on a login node (`EX_NOPERM`).
pub const LOGIN_NODE: u8 = 77;

/// The exit code of an error type of another crate; none for any other error.
pub type CodeOf = fn(&(dyn Error + 'static)) -> Option<u8>;

/// The exit code of a program that ends with `error`: [`INVALID_SETTING`] if a [`Problem`] is anywhere in its chain of causes, else that of the
/// first cause that has one, in this crate or in `codes`, else [`ERROR`].
///
/// For an `anyhow::Error` pass `error.as_ref()`.
pub fn of(error: &(dyn Error + 'static), codes: &[CodeOf]) -> u8 {
    if causes(error).any(|cause| cause.is::<Problem>()) {
        return INVALID_SETTING;
    }
    let code = |cause| own_code(cause).or_else(|| codes.iter().find_map(|code_of| code_of(cause)));
    causes(error).find_map(code).unwrap_or(ERROR)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

fn own_code(error: &(dyn Error + 'static)) -> Option<u8> {
    match error.downcast_ref::<TrackError>() {
        Some(TrackError::NoSpace { .. } | TrackError::NoFiles { .. }) => return Some(DISK),
        Some(TrackError::LoginNode { .. }) => return Some(LOGIN_NODE),
        Some(TrackError::RunLocked { .. }) => return Some(LOST_RACE),
        Some(TrackError::Problem(_)) => return Some(INVALID_SETTING),
        _ => {}
    }
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    error.downcast_ref::<io::Error>().filter(|error| full.contains(&error.kind())).map(|_| DISK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_setting_anywhere_in_the_chain_decides() {
        let problem = Problem::new("logging.run_dir", "not empty", "choose another");
        assert_eq!(of(&TrackError::from(problem), &[|_| Some(DATA)]), INVALID_SETTING);
        assert_eq!(of(&TrackError::ConsoleTwice, &[]), ERROR);
        assert_eq!(of(&TrackError::ConsoleTwice, &[|_| Some(DATA)]), DATA);
    }

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(of(&full(), &[]), DISK);
        assert_eq!(of(&TrackError::io("write", std::path::Path::new("x"))(full()), &[]), DISK);
        assert_eq!(of(&io::Error::from(io::ErrorKind::NotFound), &[]), ERROR);
    }
}
