//! What is a secret: by the name of its key or variable, by its form, or because the environment or the command line of this process
//! holds it under such a name. Whatever writes or prints a text passes it through [`redact`] first.
//!
//! A name is cut into parts (`AWS_SECRET_ACCESS_KEY`, `hfToken`). In upper case, as variables are written, any part decides; else the last
//! one, because `state_key` and `image_token_id` are no secrets.

use crate::node::{Node, Value, join};
use regex_lite::{Captures, Regex};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

/// What is written in the place of a secret.
pub const REDACTED: &str = "***";

/// Parts of names that say secret.
const PARTS: [&str; 10] =
    ["token", "secret", "password", "passwd", "passphrase", "pat", "credential", "credentials", "netrc", "apikey"];
/// Parts before a last `key` that make it secret; `KEY` in upper case always is.
const KINDS_OF_KEYS: [&str; 8] = ["api", "access", "secret", "private", "auth", "signing", "encryption", "wandb"];
/// Names of values that are 40 hexadecimal digits and no secrets.
const DIGESTS: [&str; 6] = ["commit", "revision", "sha", "sha1", "hash", "digest"];
/// A shorter value is not looked for in texts: it occurs by chance.
const MIN_LEN: usize = 6;

#[allow(clippy::unwrap_used)] // constant patterns
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

/// `NAME=value`, also `--name=value`; the value may be in quotes.
static ASSIGNED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"([A-Za-z_][A-Za-z0-9_.-]*)(=)("[^"]*"|'[^']*'|\$\{[^}]*\}|[^\s,;&}\])"'`]+)"#));
/// `NAME: value` in a map, a JSON text or a line of YAML.
static MAPPED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"(?m)((?:^\s*|[{,]\s*)["']?)([A-Za-z_][A-Za-z0-9_-]*)(["']?\s*:\s*)("[^"]*"|'[^']*'|[^\s,}\]"']+)"#)
});
/// `scheme://user:password@host` and `scheme://token@host`.
static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r#"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/@:"']+)(:[^\s/@"']*)?@"#));
/// Tokens whose beginning says what they are, lines of a netrc file, and headers.
static FORMS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"\bhf_[A-Za-z0-9]{8,}\b|\bgh[pousr]_[A-Za-z0-9]{16,}\b|\bgithub_pat_[A-Za-z0-9_]{16,}\b|\bglpat-[A-Za-z0-9_-]{16,}",
        r"|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[A-Z0-9]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bwandb_v1_[A-Za-z0-9_]{16,}"
    ))
});
static NETRC: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"((?:login|account)\s+\S+\s+password\s+|\b[Bb]earer\s+)(\S+)"));
/// A key of W&B, unless it is a part of a path.
static HEX_40: LazyLock<Regex> = LazyLock::new(|| pattern(r"(^|[^0-9A-Za-z/_.-])([0-9a-f]{40})([^0-9A-Za-z/_.-]|$)"));

/// Values of this process's environment and command line, and of configurations that it read, under names that say secret.
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

/// Remembers a value that is long enough to be told from other texts; a path of this machine is none.
fn insert(known: &mut BTreeSet<String>, value: &str) {
    let bare = value.trim().trim_matches(['"', '\'']);
    for value in [value, bare] {
        let is_word = value.parse::<f64>().is_ok() || ["true", "false"].contains(&value.to_lowercase().as_str());
        if value.len() >= MIN_LEN && !is_word && value != REDACTED && !Path::new(value).exists() {
            known.insert(value.to_owned());
        }
    }
}

/// Keeps a value out of every later text.
pub(crate) fn remember(value: &str) {
    insert(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner), value);
}

/// Whether the name of a key, variable or option says that its value is a secret. Of a dotted key the last name counts.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.trim_matches(['-', '+', '~', '"', '\'']);
    let name = name.rsplit(['.', '/', '@']).next().unwrap_or(name);
    let is_variable = !name.contains(|char: char| char.is_ascii_lowercase());
    let parts = parts(name);
    let is_secret = |part: &String| PARTS.contains(&part.as_str());
    match parts.as_slice() {
        all if is_variable => all.iter().any(|part| is_secret(part) || part == "key"),
        [.., kind, last] if last == "key" => KINDS_OF_KEYS.contains(&kind.as_str()),
        [.., last] => is_secret(last),
        [] => false,
    }
}

/// The words of a name in lower case: between `_`, `-` and humps.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for char in name.chars() {
        let is_hump = char.is_ascii_uppercase() && was_lower;
        if !char.is_ascii_alphanumeric() || is_hump {
            parts.push(String::new());
        }
        if let (true, Some(part)) = (char.is_ascii_alphanumeric(), parts.last_mut()) {
            part.push(char.to_ascii_lowercase());
        }
        was_lower = char.is_ascii_lowercase() || char.is_ascii_digit();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether a text contains a secret.
pub fn has_secret(text: &str) -> bool {
    redact(text) != text
}

/// The text with `***` in the place of every secret.
pub fn redact(text: &str) -> String {
    let mut text = text.to_owned();
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Of two values the longer one first: it may contain the other.
    let mut known: Vec<&String> = known.iter().filter(|value| text.contains(*value)).collect();
    known.sort_by_key(|value| std::cmp::Reverse(value.len()));
    known.into_iter().for_each(|value| text = text.replace(value, REDACTED));
    if text.contains('=') {
        text = ASSIGNED
            .replace_all(&text, |found: &Captures<'_>| {
                if is_secret_name(&found[1]) && !is_set_by_reference(&found[3]) {
                    format!("{}={}", &found[1], hidden(&found[3]))
                } else {
                    // The value may itself hold assignments, as the query of a URL does.
                    let inner = if found[3].contains('=') { redact(&found[3]) } else { found[3].to_owned() };
                    format!("{}={inner}", &found[1])
                }
            })
            .into_owned();
    }
    if text.contains(':') {
        text = MAPPED
            .replace_all(&text, |found: &Captures<'_>| {
                // `"token": {` opens a section.
                let is_section = ["{", "["].contains(&found[4].trim());
                let is_secret = is_secret_name(&found[2]) && !is_section && !is_set_by_reference(&found[4]);
                let value = if is_secret { hidden(&found[4]) } else { found[4].to_owned() };
                format!("{}{}{}{value}", &found[1], &found[2], &found[3])
            })
            .into_owned();
        text = URL
            .replace_all(&text, |found: &Captures<'_>| {
                // `ssh://git@host` names a user and no more.
                let is_user = found.get(3).is_none() && !found[1].starts_with("http");
                if is_user { found[0].to_owned() } else { format!("{}{REDACTED}@", &found[1]) }
            })
            .into_owned();
    }
    text = FORMS
        .replace_all(
            &text,
            |found: &Captures<'_>| {
                if is_token(&found[0]) { REDACTED.to_owned() } else { found[0].to_owned() }
            },
        )
        .into_owned();
    text = NETRC.replace_all(&text, |found: &Captures<'_>| format!("{}{REDACTED}", &found[1])).into_owned();
    HEX_40
        .replace_all(&text, |found: &Captures<'_>| {
            let before = &text[..found.get(2).map_or(0, |digits| digits.start())];
            let name = before.trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
            let last = parts(&name[name.rfind(char::is_whitespace).map_or(0, |at| at + 1)..]);
            if last.last().is_some_and(|part| DIGESTS.contains(&part.as_str())) {
                return found[0].to_owned();
            }
            format!("{}{REDACTED}{}", &found[1], &found[3])
        })
        .into_owned()
}

/// What is written in the place of a value, in the same quotes.
fn hidden(value: &str) -> String {
    match value.chars().next().filter(|first| ['"', '\''].contains(first)) {
        Some(quote) => format!("{quote}{REDACTED}{quote}"),
        None => REDACTED.to_owned(),
    }
}

/// `null`, flags and references say nothing about a secret.
fn is_set_by_reference(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'']);
    value.starts_with("${") || ["null", "true", "false", "None", REDACTED].contains(&value)
}

/// Folders such as `hf_datasets` begin like tokens, which are long or mix letters and digits.
fn is_token(text: &str) -> bool {
    let has = |of: fn(&char) -> bool| text.chars().skip(3).any(|char| of(&char));
    text.len() >= 20 || (has(char::is_ascii_digit) && has(char::is_ascii_alphabetic))
}

/// One argument, of which all after `=` is the value.
fn redact_argument(argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, value))
            if is_secret_name(name) && !name.contains(char::is_whitespace) && !is_set_by_reference(value) =>
        {
            format!("{name}={}", hidden(value))
        }
        _ => redact(argument),
    }
}

/// Arguments of a command line with `***` in the place of every secret: of `key=x`, `--key=x` and `--key x`.
pub fn redact_arguments(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut value_follows = false;
    let redact_one = |argument: String| {
        if std::mem::take(&mut value_follows) {
            return REDACTED.to_owned();
        }
        value_follows = argument.starts_with("--") && !argument.contains('=') && is_secret_name(&argument);
        redact_argument(&argument)
    };
    arguments.into_iter().map(redact_one).collect()
}

impl Node {
    /// The values below this one, whose key is `name`, with `***` in the place of every secret; also in what they overrode.
    pub fn redacted(&self, name: &str) -> Self {
        let value = match &self.value {
            Value::Map(map) => {
                Value::Map(map.iter().map(|(key, child)| (key.clone(), child.redacted(&join(name, key)))).collect())
            }
            Value::List(items) => Value::List(items.iter().map(|item| item.redacted(name)).collect()),
            Value::Null | Value::Bool(_) => self.value.clone(),
            Value::Str(text) if is_secret_name(name) && !is_set_by_reference(text) => Value::Str(REDACTED.to_owned()),
            Value::Str(text) if parts(name).last().is_some_and(|part| DIGESTS.contains(&part.as_str())) => {
                Value::Str(text.clone())
            }
            Value::Str(text) => Value::Str(redact_argument(text)),
            Value::Int(_) | Value::Float(_) if is_secret_name(name) => Value::Str(REDACTED.to_owned()),
            Value::Int(_) | Value::Float(_) => self.value.clone(),
        };
        Self { value, ..self.clone() }
    }

    /// Keeps the secrets in this tree out of every later text.
    pub(crate) fn remember_secrets(&self) {
        self.for_each_leaf(&mut |path, node| {
            if let (true, Some(text)) = (is_secret_name(path), node.as_str()) {
                remember(text);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_secret() {
        for name in [
            "WANDB_API_KEY",
            "HF_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_PAT",
            "DB_PASSWORD",
            "NETRC",
            "KEY",
            "MY_TOKEN_2",
            "api_key",
            "wandb.api_key",
            "--hf-token",
            "lerobot.env.SOME_KEY",
            "hfToken",
            "password",
            "+lerobot.env.X_SECRET",
            "private_key",
            "my.pat",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "state_key",
            "data.sources.a.action_key",
            "image_token_id",
            "TOKENIZERS_PARALLELISM",
            "tokenizer",
            "num_tokens",
            "PATH",
            "PWD",
            "key",
            "monkey",
            "MONKEY",
            "model.decoders.token.depth",
            "HLRP_CONFIG_DIR",
            "path",
            "pattern",
            "add_image_special_tokens",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_text_keeps_all_but_its_secrets() {
        for (text, shown) in [
            ("X=1 WANDB_API_KEY=abc hlrp", "X=1 WANDB_API_KEY=*** hlrp"),
            ("+lerobot.env={HF_TOKEN: abc, B: 2}", "+lerobot.env={HF_TOKEN: ***, B: 2}"),
            (r#"{"GITHUB_PAT": "a b", "x": 1}"#, r#"{"GITHUB_PAT": "***", "x": 1}"#),
            ("fetch https://me:pw@host/x and ssh://git@host/y", "fetch https://***@host/x and ssh://git@host/y"),
            ("https://tok@host/x", "https://***@host/x"),
            ("https://host/x?a=1&access_token=abc&b=2", "https://host/x?a=1&access_token=***&b=2"),
            ("is hf_s3cr3tTOKEN here", "is *** here"),
            ("is hf_AbCdEfGhIjKlMnOpQrStUvWxYz here", "is *** here"),
            ("/data/hf_datasets/hf_home/hf_transformers", "/data/hf_datasets/hf_home/hf_transformers"),
            ("machine api.wandb.ai login user password abc", "machine api.wandb.ai login user password ***"),
            ("0123456789abcdef0123456789abcdef01234567", "***"),
            ("a='0123456789abcdef0123456789abcdef01234567'", "a='***'"),
            ("revision=0123456789abcdef0123456789abcdef01234567", "revision=0123456789abcdef0123456789abcdef01234567"),
            (
                "/snapshots/0123456789abcdef0123456789abcdef01234567/x",
                "/snapshots/0123456789abcdef0123456789abcdef01234567/x",
            ),
            ("lerobot.env.HF_TOKEN: [1] is not a value", "lerobot.env.HF_TOKEN: [1] is not a value"),
            ("data.state_key=observation.state", "data.state_key=observation.state"),
            ("HF_TOKEN=${oc.env:HF_TOKEN} API_KEY=null", "HF_TOKEN=${oc.env:HF_TOKEN} API_KEY=null"),
        ] {
            assert_eq!(redact(text), shown);
            assert_eq!(redact(shown), shown, "once is enough");
        }
    }

    #[test]
    fn a_remembered_value_is_found_in_any_text() {
        remember("a b'c,d");
        assert_eq!(redact("cannot read 'a b'c,d' at all"), "cannot read '***' at all");
        remember("short");
        assert_eq!(redact("a short text"), "a short text", "shorter values occur by chance");
    }

    #[test]
    fn options_keep_their_names() {
        let arguments = ["hlrp", "--token", "x", "--api-key=y", "a.password='q w'", "model.token_decoder.depth=2"];
        let shown = ["hlrp", "--token", "***", "--api-key=***", "a.password='***'", "model.token_decoder.depth=2"];
        assert_eq!(redact_arguments(arguments.map(String::from)), shown);
    }
}
