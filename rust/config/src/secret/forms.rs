//! Secrets in a text, recognised by their form or by the name before them.

use super::name::{is_digest_name, is_secret_name};
use super::{REDACTED, hidden, is_harmless};
use regex_lite::{Captures, Regex};
use std::sync::LazyLock;

#[allow(clippy::unwrap_used)] // constant patterns
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

/// `NAME=value`, also `--name=value`; the value may be in quotes.
static ASSIGNED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"([A-Za-z_][A-Za-z0-9_.-]*)(=)("[^"]*"|'[^']*'|\$\{[^}]*\}|[^\s,;&}\])"'`]+)"#));
/// `name: value` in a map, a JSON text or a line of YAML.
static MAPPED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"(?m)((?:^\s*|[{,]\s*)["']?)([A-Za-z_][A-Za-z0-9_-]*)(["']?\s*:\s*)("[^"]*"|'[^']*'|[^\s,}\]"']+)"#)
});
/// `scheme://user:password@host` and `scheme://token@host`.
static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r#"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/@:"']+)(:[^\s/@"']*)?@"#));
/// Tokens that are recognised by their prefix.
static TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"\bhf_[A-Za-z0-9]{8,}\b|\bgh[pousr]_[A-Za-z0-9]{16,}\b|\bgithub_pat_[A-Za-z0-9_]{16,}\b|\bglpat-[A-Za-z0-9_-]{16,}",
        r"|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[A-Z0-9]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bwandb_v1_[A-Za-z0-9_]{16,}"
    ))
});
/// Lines of a netrc file, and authorization headers.
static LOGINS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"((?:login|account)\s+\S+\s+password\s+|\b[Bb]earer\s+)(\S+)"));
/// An API key of W&B, unless it is part of a path.
static HEX_40: LazyLock<Regex> = LazyLock::new(|| pattern(r"(^|[^0-9A-Za-z/_.-])([0-9a-f]{40})([^0-9A-Za-z/_.-]|$)"));

/// The text with `***` in place of every secret. The patterns run only on texts that they can match.
pub(super) fn redact(text: &str) -> String {
    let mut text = text.to_owned();
    if text.contains('=') {
        text = redact_assignments(&text);
    }
    if text.contains(':') {
        text = redact_urls(&redact_maps(&text));
    }
    text = redact_tokens(&text);
    if ["password", "earer"].iter().any(|word| text.contains(word)) {
        text = LOGINS.replace_all(&text, |found: &Captures<'_>| format!("{}{REDACTED}", &found[1])).into_owned();
    }
    if text.len() >= 40 { redact_hex(&text) } else { text }
}

fn redact_assignments(text: &str) -> String {
    let replace = |found: &Captures<'_>| {
        if is_secret_name(&found[1]) && !is_harmless(&found[3]) {
            return format!("{}={}", &found[1], hidden(&found[3]));
        }
        // The value may contain assignments, as the query of a URL does.
        let inner = if found[3].contains('=') { redact(&found[3]) } else { found[3].to_owned() };
        format!("{}={inner}", &found[1])
    };
    ASSIGNED.replace_all(text, replace).into_owned()
}

fn redact_maps(text: &str) -> String {
    let replace = |found: &Captures<'_>| {
        // `"token": {` opens a section.
        let is_section = ["{", "["].contains(&found[4].trim());
        let is_secret = is_secret_name(&found[2]) && !is_section && !is_harmless(&found[4]);
        let value = if is_secret { hidden(&found[4]) } else { found[4].to_owned() };
        format!("{}{}{}{value}", &found[1], &found[2], &found[3])
    };
    MAPPED.replace_all(text, replace).into_owned()
}

fn redact_urls(text: &str) -> String {
    let replace = |found: &Captures<'_>| {
        // `ssh://git@host` has a user name only.
        let is_user = found.get(3).is_none() && !found[1].starts_with("http");
        if is_user { found[0].to_owned() } else { format!("{}{REDACTED}@", &found[1]) }
    };
    URL.replace_all(text, replace).into_owned()
}

fn redact_tokens(text: &str) -> String {
    let replace = |found: &Captures<'_>| if is_token(&found[0]) { REDACTED.to_owned() } else { found[0].to_owned() };
    TOKENS.replace_all(text, replace).into_owned()
}

/// Names of folders such as `hf_datasets` begin like tokens, but tokens are long or mix letters and digits.
fn is_token(text: &str) -> bool {
    let has = |of: fn(&char) -> bool| text.chars().skip(3).any(|char| of(&char));
    text.len() >= 20 || (has(char::is_ascii_digit) && has(char::is_ascii_alphabetic))
}

fn redact_hex(text: &str) -> String {
    let replace = |found: &Captures<'_>| {
        let before = &text[..found.get(2).map_or(0, |digits| digits.start())];
        let name = before.trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
        if is_digest_name(&name[name.rfind(char::is_whitespace).map_or(0, |at| at + 1)..]) {
            return found[0].to_owned();
        }
        format!("{}{REDACTED}{}", &found[1], &found[3])
    };
    HEX_40.replace_all(text, replace).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
