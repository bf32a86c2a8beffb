//! Where the Hub is, who asks it, and where Hugging Face's clients keep what they fetch.

use crate::env;
use reqwest::Url;
use std::{fs, path::PathBuf};

/// The Hub without `HF_ENDPOINT`.
const ENDPOINT: &str = "https://huggingface.co";

/// An access token. It has no form that could be printed.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// How the Hub is reached.
#[derive(Clone)]
pub struct HubSettings {
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    pub(super) is_offline: bool,
}

impl HubSettings {
    /// Those of the environment: `HF_ENDPOINT`, `HF_HUB_OFFLINE`, and the token in `HF_TOKEN` or its file.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned());
        let endpoint = variable(env::HF_ENDPOINT).filter(|endpoint| !endpoint.is_empty());
        let offline = variable(env::HF_HUB_OFFLINE).unwrap_or_default().to_uppercase();
        Self {
            endpoint: endpoint.unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned(),
            token: token(),
            is_offline: ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()),
        }
    }

    /// Whether nothing may be fetched.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// The address below the endpoint with these parts, each of which is encoded as one.
    pub(super) fn url(&self, parts: &[&str]) -> Option<Url> {
        let mut url = Url::parse(&self.endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(parts);
        Some(url)
    }
}

/// The token: of a variable, else of the file of `hf auth login`.
fn token() -> Option<Token> {
    let word = |text: String| Some(text.trim().to_owned()).filter(|token| !token.is_empty());
    let variables = [env::HF_TOKEN, env::HUGGING_FACE_HUB_TOKEN, env::HUGGINGFACE_HUB_TOKEN];
    let of_variable = variables.iter().find_map(|name| word(std::env::var(name).ok()?));
    let files = || {
        let named = env::path(env::HF_TOKEN_PATH).or_else(|| Some(home()?.join("token")));
        named.into_iter().chain(env::path(env::HOME).map(|home| home.join(".huggingface/token")))
    };
    of_variable.or_else(|| files().find_map(|path| word(fs::read_to_string(path).ok()?))).map(Token)
}

/// The folder of Hugging Face's clients.
fn home() -> Option<PathBuf> {
    let cache = || env::path(env::XDG_CACHE_HOME).or_else(|| Some(env::path(env::HOME)?.join(".cache")));
    env::path(env::HF_HOME).or_else(|| Some(cache()?.join("huggingface")))
}

/// The folder of repositories: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in the user's cache. None where no variable names a folder.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let named = env::path(env::HF_HUB_CACHE).or_else(|| env::path(env::HUGGINGFACE_HUB_CACHE));
    named.or_else(|| Some(home()?.join("hub")))
}

/// The folder of the repositories that LeRobot fetched: `hub` in `HF_LEROBOT_HOME`.
pub(super) fn lerobot_cache_dir() -> Option<PathBuf> {
    let home = env::path(env::HF_LEROBOT_HOME).or_else(|| Some(home()?.join("lerobot")));
    home.map(|home| home.join("hub"))
}

/// Whether a variable names the folder of repositories itself, which another shell may not have.
pub(super) fn is_cache_named() -> bool {
    [env::HF_HUB_CACHE, env::HUGGINGFACE_HUB_CACHE, env::HF_HOME].iter().any(|name| env::path(name).is_some())
}
