//! Environment variables of LeRobot.

use super::flags;
use crate::programs::waiting;
use hlrp_schema::PassedOn;
use std::collections::BTreeMap;

/// Whether Python buffers what it prints.
pub(super) const UNBUFFERED: (&str, &str) = ("PYTHONUNBUFFERED", "1");
/// CPU threads of tensor work.
const NUM_THREADS: &str = "OMP_NUM_THREADS";
/// Whether anything may be fetched from the Hub.
pub(super) const OFFLINE: &str = "HF_HUB_OFFLINE";

/// The variables of the section `env` that are set, and those that follow from the rest of the configuration.
pub(super) fn variables(section: &PassedOn, num_threads: Option<usize>) -> BTreeMap<String, String> {
    let waiting = waiting().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let threads = num_threads.map(|threads| (NUM_THREADS.to_owned(), threads.to_string()));
    let given = section.iter().filter(|(_, value)| !value.is_null());
    // What the user sets comes last and wins.
    waiting.chain(threads).chain(given.map(|(name, value)| (name.clone(), flags::text(value)))).collect()
}
