//! Environment variables of LeRobot.

use super::passed_on::text;
use crate::{env, programs::waiting};
use hlrp_schema::PassedOn;
use std::collections::BTreeMap;

/// The variables of the section `env` that are set, and those that follow from the rest of the configuration.
pub(super) fn variables(section: &PassedOn, num_threads: Option<usize>) -> BTreeMap<String, String> {
    let waiting = waiting().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let threads = num_threads.map(|threads| (env::OMP_NUM_THREADS.to_owned(), threads.to_string()));
    let given = section.iter().filter(|(_, value)| !value.is_null());
    // What the user sets comes last and wins.
    waiting.chain(threads).chain(given.map(|(name, value)| (name.clone(), text(value)))).collect()
}
