//! How many processes train one model together.

use crate::rules::{Checked, within};
use hlrp_config::Check;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;

/// Processes of a run above which the number is an oversight.
const MAX_PROCESSES: i128 = 1024;
/// One process for each GPU.
const AUTO: &str = "auto";

/// `num_processes`: a number, or one for each visible GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumProcesses {
    /// `auto`: one for each visible GPU, at least one.
    Auto,
    /// This many.
    Count(usize),
}

impl NumProcesses {
    /// Whether it is 1: the process trains alone, or with those that another program starts.
    pub fn is_one(self) -> bool {
        self == Self::Count(1)
    }
}

impl Check for NumProcesses {
    fn check(&self) -> Checked {
        match self {
            Self::Auto => Ok(()),
            Self::Count(count) => within("num_processes", *count, 1, MAX_PROCESSES),
        }
    }
}

impl fmt::Display for NumProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

impl<'de> Deserialize<'de> for NumProcesses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(usize),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) => Ok(Self::Count(count)),
            Written::Word(word) if word == AUTO => Ok(Self::Auto),
            Written::Word(word) => Err(D::Error::custom(format!("'{word}' is neither a number nor {AUTO}"))),
        }
    }
}

impl Serialize for NumProcesses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Count(count) => serializer.serialize_u64(*count as u64),
        }
    }
}
