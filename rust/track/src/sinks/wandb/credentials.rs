//! The API key: found as the official client finds it, and shown nowhere.

use super::settings::SettingsFiles;
use crate::env;
use hlrp_config::Problem;
use std::{fmt, fs, path::PathBuf};

/// Fewest characters of a key, without the prefix of a self-hosted server.
const MIN_KEY: usize = 40;
/// Two names of W&B's own service: a login under either is one for both.
const OWN_HOSTS: [&str; 2] = ["api.wandb.ai", "api.forge.coreweave.com"];

/// An API key of W&B.
#[derive(Clone)]
pub(super) struct ApiKey(String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

impl ApiKey {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// The key for the server `authority` (host and port): from `WANDB_API_KEY`, the netrc file, or a settings file for the same server.
/// `setting` is what needs it.
///
/// # Errors
/// There is none, or it does not have the form of a key.
pub(super) fn find_key(
    base_url: &str,
    authority: &str,
    files: &SettingsFiles,
    setting: &str,
) -> Result<ApiKey, Problem> {
    let offline = "or record offline with logging.wandb.mode=offline and upload later with `hlrp runs sync`";
    let of_files = || {
        let url = files.get("base_url");
        let is_same = url.as_deref().is_none_or(|url| url.trim_end_matches('/') == base_url);
        files.get("api_key").filter(|_| is_same)
    };
    let found = env::get(env::WANDB_API_KEY).map(|key| (key, env::WANDB_API_KEY));
    let found = found.or_else(|| Some((netrc_key(authority)?, "the netrc file")));
    let Some((key, source)) = found.or_else(|| Some((of_files()?, "W&B's settings file"))) else {
        let message = format!("there is no W&B API key for {authority}");
        let hint = format!("set {}, or run `wandb login`, {offline}", env::WANDB_API_KEY);
        return Err(Problem::new(setting, message, hint));
    };
    let key = key.trim();
    if !has_form(key) {
        let message = format!("the key in {source} does not have the form of a W&B API key");
        let hint = format!("copy the whole key (at least {MIN_KEY} characters), {offline}");
        return Err(Problem::new(env::WANDB_API_KEY, message, hint));
    }
    Ok(ApiKey(key.to_owned()))
}

/// Whether `key` may be one: at least 40 letters, digits, `_` and `-`; or a JSON web token.
fn has_form(key: &str) -> bool {
    let good = |text: &str| text.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
    let parts: Vec<&str> = key.split('.').collect();
    let is_token = parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && good(part));
    is_token || (key.len() >= MIN_KEY && good(key))
}

fn netrc_key(authority: &str) -> Option<String> {
    let home = || env::get(env::HOME).map(PathBuf::from);
    let path = match env::get(env::NETRC) {
        Some(path) => PathBuf::from(path),
        None => {
            [".netrc", "_netrc"].into_iter().find_map(|name| Some(home()?.join(name)).filter(|path| path.exists()))?
        }
    };
    let text = fs::read_to_string(path).ok()?;
    let is_own = OWN_HOSTS.contains(&authority);
    let names = [authority].into_iter().chain(OWN_HOSTS.into_iter().filter(|name| is_own && *name != authority));
    names.map(Some).chain([None]).find_map(|machine| password(&text, machine))
}

/// The password of `machine` in the text of a netrc file; that of `default` where it is none.
fn password(text: &str, machine: Option<&str>) -> Option<String> {
    let lines = text.lines().map(|line| if line.trim_start().starts_with('#') { "" } else { line });
    let mut words = lines.flat_map(str::split_whitespace);
    let mut is_wanted = false;
    while let Some(word) = words.next() {
        match word {
            "machine" => is_wanted = words.next().is_some_and(|name| Some(name) == machine),
            "default" => is_wanted = machine.is_none(),
            "password" => match words.next() {
                Some(password) if is_wanted => return Some(password.to_owned()),
                _ => {}
            },
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_generation_have_the_form() {
        let hex = "0123456789abcdef".repeat(3);
        for key in
            [&hex[..40], &format!("local-{}", &hex[..40]), &format!("wandb_v1_{}", "aB3_x-z".repeat(11)), "a.b-c.d"]
        {
            assert!(has_form(key), "{key}");
        }
        for key in ["", "short", &format!("{} {}", &hex[..20], &hex[..20]), "a..c"] {
            assert!(!has_form(key), "{key}");
        }
        assert_eq!(format!("{:?}", ApiKey(hex)), "ApiKey(***)");
    }

    #[test]
    fn a_netrc_file_has_a_password_for_a_machine_with_its_port_and_a_default() {
        let text = "# machine a password no\nmachine a:80 login user password one\n\
                    machine b\n  login user\n  password two\ndefault login user password three";
        let found = [Some("a:80"), Some("a"), Some("b"), None].map(|machine| password(text, machine));
        assert_eq!(found, [Some("one"), None, Some("two"), Some("three")].map(|word| word.map(str::to_owned)));
    }
}
