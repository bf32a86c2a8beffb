//! Secrets that this process knows by their values: those of its environment and command line, and of the configurations that it composed.

use super::REDACTED;
use super::name::is_secret_name;
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    path::Path,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

/// Shorter values are not searched for: they occur in texts by chance.
const MIN_LEN: usize = 6;

static KNOWN: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(|| {
    let mut known = BTreeSet::new();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables.filter(|(name, _)| is_secret_name(name)).for_each(|(_, value)| insert(&mut known, &value));
    let mut value_follows = false;
    for argument in std::env::args_os().filter_map(|argument| argument.into_string().ok()) {
        match argument.split_once('=') {
            _ if std::mem::take(&mut value_follows) => insert(&mut known, &argument),
            Some((name, value)) if is_secret_name(name) => insert(&mut known, value),
            None => value_follows = argument.starts_with("--") && is_secret_name(&argument),
            _ => {}
        }
    }
    Mutex::new(known)
});

fn known() -> MutexGuard<'static, BTreeSet<String>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a value, with and without its quotes, unless it is short, a number, a flag or a path of this machine.
fn insert(known: &mut BTreeSet<String>, value: &str) {
    let bare = value.trim().trim_matches(['"', '\'']);
    for value in [value, bare] {
        let is_word = value.parse::<f64>().is_ok() || ["true", "false"].contains(&value.to_lowercase().as_str());
        if value.len() >= MIN_LEN && !is_word && value != REDACTED && !Path::new(value).exists() {
            known.insert(value.to_owned());
        }
    }
}

/// From now on the value is a secret in every text.
pub(super) fn remember(value: &str) {
    insert(&mut known(), value);
}

/// The text with `***` in place of every known secret.
pub(super) fn redact(text: &str) -> String {
    let known = known();
    let mut found: Vec<&String> = known.iter().filter(|value| text.contains(value.as_str())).collect();
    // The longer of two values first: it may contain the other.
    found.sort_by_key(|value| Reverse(value.len()));
    found.into_iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), REDACTED))
}
