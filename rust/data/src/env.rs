//! Every environment variable that this crate reads. They are those of `huggingface_hub` and LeRobot, with their meanings.

use std::path::PathBuf;

/// Address of the Hub.
pub(crate) const HF_ENDPOINT: &str = "HF_ENDPOINT";
/// Whether nothing may be fetched.
pub(crate) const HF_HUB_OFFLINE: &str = "HF_HUB_OFFLINE";
/// Access token; never shown.
pub(crate) const HF_TOKEN: &str = "HF_TOKEN";
/// The token's former name.
pub(crate) const HUGGING_FACE_HUB_TOKEN: &str = "HUGGING_FACE_HUB_TOKEN";
/// The token's name in jobs of this project, for older clients.
pub(crate) const HUGGINGFACE_HUB_TOKEN: &str = "HUGGINGFACE_HUB_TOKEN";
/// File with the token.
pub(crate) const HF_TOKEN_PATH: &str = "HF_TOKEN_PATH";
/// Folder of everything that Hugging Face's clients keep.
pub(crate) const HF_HOME: &str = "HF_HOME";
/// Folder of repositories.
pub(crate) const HF_HUB_CACHE: &str = "HF_HUB_CACHE";
/// The former name of that folder.
pub(crate) const HUGGINGFACE_HUB_CACHE: &str = "HUGGINGFACE_HUB_CACHE";
/// Folder of everything that LeRobot keeps.
pub(crate) const HF_LEROBOT_HOME: &str = "HF_LEROBOT_HOME";
/// The user's cache folder.
pub(crate) const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
/// The user's home.
pub(crate) const HOME: &str = "HOME";

/// The path in a variable; none where it is unset or empty.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from)
}
