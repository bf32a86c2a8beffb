//! The frame cache: decoded, resized frames of one camera of one dataset in a memory-mapped file.
//!
//! One file `<cache dir>/<dataset>-<key>.frames` holds the frames of the chosen episodes behind one another, so that reading a frame is a copy out
//! of the page cache. It is built once by all decode threads as `….partial`, episode by episode, with a checksum for each; a build that was
//! killed goes on from there. When all episodes are checked the file is renamed. A lock file keeps a second process waiting until the first
//! is done. Nothing is ever deleted.
//!
//! Layout (integers are little-endian): [`format`] header, frames `uint8 [F,3,H,W]`, one status byte per frame, one 16-byte record per episode.

mod build;
mod format;
mod spec;
mod store;

pub use build::BuildOptions;
pub use spec::CacheSpec;
pub use store::FrameCache;

use std::path::PathBuf;

/// A cache file that cannot be used.
pub(crate) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> crate::DataError {
    let hint = "move the file away; it is then built again from the dataset";
    crate::DataError::File { path: path.into(), what: what.into(), hint: hint.to_owned() }
}
