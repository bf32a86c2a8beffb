//! How many processes train one model together.

use crate::rules::{Checked, within};
use hlrp_config::Check;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
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
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NumProcesses;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a whole number of at least 1 or {AUTO}")
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<NumProcesses, E> {
                let refused = |_| E::invalid_value(de::Unexpected::Unsigned(count), &self);
                usize::try_from(count).map(NumProcesses::Count).map_err(refused)
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> Result<NumProcesses, E> {
                let refused = |_| E::invalid_value(de::Unexpected::Signed(count), &self);
                usize::try_from(count).map(NumProcesses::Count).map_err(refused)
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<NumProcesses, E> {
                let refused = || E::invalid_value(de::Unexpected::Str(word), &self);
                (word == AUTO).then_some(NumProcesses::Auto).ok_or_else(refused)
            }
        }
        deserializer.deserialize_any(Visitor)
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
