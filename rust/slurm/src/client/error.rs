//! What can go wrong between this process and Slurm.

use hlrp_config::Hint;
use std::{io, time::Duration};

/// A command of Slurm that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlurmError {
    /// The command is not installed here.
    #[error("{program} is not on PATH")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// The system did not start the command, or lost it.
    #[error("cannot run {program}: {source}")]
    Io {
        /// Its name.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The command did not end in time and was killed. What it asked for may have happened.
    #[error("{program} did not answer within {} s", limit.as_secs_f64())]
    TimedOut {
        /// Its name.
        program: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The command failed; unless it [is unsure](Self::is_unsure), nothing happened.
    #[error("{program}: {message}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// Its own message.
        message: String,
    },
    /// The command succeeded and printed something else than expected.
    #[error("cannot read what {program} printed: {output:?}")]
    Unreadable {
        /// Its name.
        program: &'static str,
        /// What it printed.
        output: String,
    },
    /// Not the id of a job.
    #[error("invalid job id {id:?}")]
    InvalidId {
        /// The text.
        id: String,
    },
}

/// What Slurm's commands say when the controller took too long: it may have done what they asked.
const LATE_ANSWERS: [&str; 3] = ["Socket timed out", "Zero Bytes were transmitted", "Unexpected message received"];

impl SlurmError {
    /// Whether what was asked for may have happened all the same.
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Unreadable { .. } => true,
            Self::Refused { message, .. } => LATE_ANSWERS.iter().any(|answer| message.contains(answer)),
            Self::Missing { .. } | Self::Io { .. } | Self::InvalidId { .. } => false,
        }
    }
}

impl Hint for SlurmError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } => "this is not a host of a Slurm cluster; log in to one, or use --remote",
            Self::TimedOut { program: "sbatch", .. }
            | Self::Refused { program: "sbatch", .. }
            | Self::Unreadable { program: "sbatch", .. }
                if self.is_unsure() =>
            {
                "the job may have been taken: look at `hlrp jobs list` before you submit it again"
            }
            Self::TimedOut { .. } => "the controller is busy or in maintenance (sinfo, scontrol ping); try again later",
            Self::Refused { message, .. } if message.contains("nable to contact slurm controller") => {
                "the controller is down or in maintenance (scontrol ping); try again later"
            }
            Self::Refused { message, .. } if message.contains("for --cluster") => {
                "`sacctmgr show clusters` lists the names for --clusters"
            }
            Self::Refused { program: "sbatch", message } if message.contains("container-") => {
                "this Slurm has no plugin for containers (Pyxis); set cluster.container.runtime to apptainer or none"
            }
            Self::Refused { program: "sbatch", message } if message.to_lowercase().contains("partition") => {
                "`sinfo -s` lists the partitions; set cluster.slurm.partition"
            }
            Self::InvalidId { .. } => "ids are numbers such as 12345, or 12345_7 for a member of an array",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
