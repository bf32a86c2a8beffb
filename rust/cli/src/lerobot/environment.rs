//! Environment variables of LeRobot.

use super::passed_on::text;
use crate::{env, programs::waiting};
use hlrp_config::{Problem, secret::REDACTED};
use hlrp_schema::PassedOn;
use std::collections::BTreeMap;

/// # Errors
/// A secret that the run directory does not contain is not in the environment either.
pub(super) fn refuse_left_out(section_name: &str, section: &PassedOn) -> Result<(), Problem> {
    match section.iter().find(|(name, value)| is_left_out(value) && !env::is_set(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let message = "it is a secret, which the run directory does not contain";
            let hint = format!("export {name}, which LeRobot inherits, or give {section_name}.env.{name}=... again");
            Err(Problem::new(format!("{section_name}.env.{name}"), message, hint))
        }
    }
}

/// Whether this is what a run directory has in place of a secret.
fn is_left_out(value: &serde_json::Value) -> bool {
    value == REDACTED
}

/// The variables of the section `env` that are set, and those that follow from the rest of the configuration.
pub(super) fn variables(section: &PassedOn, num_threads: Option<usize>) -> BTreeMap<String, String> {
    let waiting = waiting().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let threads = num_threads.map(|threads| (env::OMP_NUM_THREADS.to_owned(), threads.to_string()));
    let given = section.iter().filter(|(_, value)| !value.is_null() && !is_left_out(value));
    // What the user sets comes last and wins.
    waiting.chain(threads).chain(given.map(|(name, value)| (name.clone(), text(value)))).collect()
}
