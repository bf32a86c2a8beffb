//! The frame cache: decoded, resized frames of one camera of one dataset in a memory-mapped file.
//!
//! One file `<cache dir>/<dataset>-<key>.frames` contains the frames of the chosen episodes one after the other, so that reading a frame is a
//! copy out of the page cache. It is built once by all decode threads as `….partial`, episode by episode, with a checksum for each; a build that was
//! killed continues from there. When all episodes are checked the file is renamed. A lock file keeps a second process waiting until the first
//! is done. Nothing is ever deleted.
//!
//! Layout (`format`; integers are little-endian): header, frames `uint8 [F,3,H,W]`, one status byte per frame, one 16-byte record per episode.

mod build;
mod format;
mod spec;
mod store;

pub use build::BuildOptions;
pub use spec::CacheSpec;
pub use store::FrameCache;
