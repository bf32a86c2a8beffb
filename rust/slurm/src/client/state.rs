//! States of a job, and what is known about one.

use serde::{Deserialize, Serialize};
use std::{convert::Infallible, fmt, str::FromStr};

macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident $name:literal $short:literal,)*) => {
        /// A job's state, by Slurm's own names.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(into = "String", from = "String")]
        pub enum State {
            $($(#[$doc])* $variant,)*
            /// One that this program does not know.
            Other(String),
        }

        impl State {
            /// Slurm's name, such as `RUNNING`.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<String> for State {
            fn from(text: String) -> Self {
                // Accounting says who cancelled (`CANCELLED by 1000`) and marks truncated names (`CANCELLED+`).
                let name = text.split_whitespace().next().unwrap_or_default().trim_end_matches('+');
                match name {
                    $($name | $short => Self::$variant,)*
                    _ => Self::Other(name.to_owned()),
                }
            }
        }
    };
}

states! {
    /// It waits for resources or for its start time, the first time or again.
    Pending "PENDING" "PD",
    /// Its nodes are being made ready.
    Configuring "CONFIGURING" "CF",
    /// It runs.
    Running "RUNNING" "R",
    /// It has its allocation and is stopped.
    Suspended "SUSPENDED" "S",
    /// It keeps its CPUs and is stopped.
    Stopped "STOPPED" "ST",
    /// Its allocation changes its size.
    Resizing "RESIZING" "RS",
    /// It is being sent a signal.
    Signaling "SIGNALING" "SI",
    /// It is writing back its files.
    StageOut "STAGE_OUT" "SO",
    /// It has ended, and its nodes clean up.
    Completing "COMPLETING" "CG",
    /// It was put back into the queue; in accounting, this start of it is over.
    Requeued "REQUEUED" "RQ",
    /// It was put back into the queue and is held there.
    RequeueHold "REQUEUE_HOLD" "RH",
    /// It was put back because of its exit code and is held.
    SpecialExit "SPECIAL_EXIT" "SE",
    /// It was held because its reservation was deleted.
    ReservationDeleted "RESV_DEL_HOLD" "RD",
    /// It ended with exit code 0.
    Completed "COMPLETED" "CD",
    /// It ended with another exit code.
    Failed "FAILED" "F",
    /// Somebody cancelled it.
    Cancelled "CANCELLED" "CA",
    /// It met its time limit.
    Timeout "TIMEOUT" "TO",
    /// A node of its allocation failed.
    NodeFail "NODE_FAIL" "NF",
    /// Another job took its nodes.
    Preempted "PREEMPTED" "PR",
    /// It needed more memory than it had asked for.
    OutOfMemory "OUT_OF_MEMORY" "OOM",
    /// Its nodes did not boot.
    BootFail "BOOT_FAIL" "BF",
    /// Its deadline passed.
    Deadline "DEADLINE" "DL",
    /// A sibling on another cluster of a federation has started.
    Revoked "REVOKED" "RV",
}

impl State {
    /// Whether the job will not run any more under its id. An unknown state is not over.
    pub fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::Failed
                | Self::Cancelled
                | Self::Timeout
                | Self::NodeFail
                | Self::Preempted
                | Self::OutOfMemory
                | Self::BootFail
                | Self::Deadline
                | Self::Revoked
        )
    }

    /// Whether the job waits, so that cancelling it stops nothing.
    pub fn is_waiting(&self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Requeued | Self::RequeueHold | Self::SpecialExit | Self::ReservationDeleted
        )
    }
}

impl From<State> for String {
    fn from(state: State) -> Self {
        state.name().to_owned()
    }
}

impl FromStr for State {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text.to_owned()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a batch script ended, as Slurm writes it: `code:signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code.
    pub code: u8,
    /// Number of the signal that ended it, else 0.
    pub signal: u8,
}

impl FromStr for Exit {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (code, signal) = text.split_once(':').unwrap_or((text, "0"));
        Ok(Self { code: code.trim().parse()?, signal: signal.trim().parse()? })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.code, self.signal))
    }
}

/// What is known about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It waits or runs.
    Active {
        /// Its state.
        state: State,
        /// How often it was put back into the queue, where the controller says so.
        restarts: Option<u32>,
    },
    /// It is over.
    Ended {
        /// Its last state.
        state: State,
        /// How its script ended, where Slurm says so.
        exit: Option<Exit>,
    },
    /// The controller answers that it does not know the id, and accounting, where there is one, does not either.
    Unknown,
    /// There is no answer: no command, no controller, no reply in time, or a contradiction. The job may be running.
    Silent {
        /// Why.
        reason: String,
    },
}

impl Answer {
    pub(super) fn new(state: State, exit: Option<Exit>, restarts: Option<u32>) -> Self {
        if state.is_over() { Self::Ended { state, exit } } else { Self::Active { state, restarts } }
    }

    /// The least finished of an array's members: one that is active, else one that nothing is known of, else the worst end.
    pub(super) fn of_members(answers: impl Iterator<Item = Self>) -> Self {
        let rank = |answer: &Self| match answer {
            Self::Unknown => 0,
            Self::Ended { state: State::Completed, .. } => 1,
            Self::Ended { .. } => 2,
            Self::Silent { .. } => 3,
            Self::Active { state, .. } if state.is_waiting() => 4,
            Self::Active { .. } => 5,
        };
        answers.max_by_key(rank).unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(text: &str) -> State {
        text.parse().unwrap()
    }

    #[test]
    fn states_have_long_and_short_names_and_notes() {
        for (text, expected) in [
            ("RUNNING", State::Running),
            ("R", State::Running),
            ("CANCELLED by 1000", State::Cancelled),
            ("CANCELLED+", State::Cancelled),
            ("OUT_OF_ME+", State::Other("OUT_OF_ME".to_owned())),
            ("DREAMING", State::Other("DREAMING".to_owned())),
        ] {
            assert_eq!(state(text), expected, "{text}");
        }
        assert_eq!(serde_json::to_string(&State::NodeFail).unwrap(), "\"NODE_FAIL\"");
    }

    #[test]
    fn an_unknown_state_or_a_requeued_job_is_not_over() {
        for name in ["PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "COMPLETING", "SUSPENDED", "DREAMING", ""] {
            assert!(!state(name).is_over(), "{name}");
        }
        for name in ["COMPLETED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"] {
            assert!(state(name).is_over(), "{name}");
        }
    }

    #[test]
    fn an_array_is_as_far_as_its_least_finished_member() {
        let answer = |name: &str| Answer::new(state(name), None, Some(0));
        let of = |names: &[&str]| Answer::of_members(names.iter().map(|name| answer(name)));
        assert_eq!(of(&["COMPLETED", "PENDING", "RUNNING", "FAILED"]), answer("RUNNING"));
        assert_eq!(of(&["COMPLETED", "PENDING", "FAILED"]), answer("PENDING"));
        assert_eq!(of(&["COMPLETED", "FAILED", "COMPLETED"]), answer("FAILED"));
        assert_eq!(of(&[]), Answer::Unknown);
    }

    #[test]
    fn an_exit_is_a_code_and_a_signal() {
        assert_eq!("3:0".parse(), Ok(Exit { code: 3, signal: 0 }));
        assert_eq!("0:15".parse::<Exit>().unwrap().to_string(), "0:15");
        assert!("".parse::<Exit>().is_err());
    }
}
