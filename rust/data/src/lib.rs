//! Robot datasets to batches of plain bytes: reading, decoding, sampling, loading.
//!
//! Shape suffixes: B samples, T time steps, C channels, H rows, W columns, N vector entries.
#![allow(non_snake_case)]

mod anchors;
mod batch;
mod cache;
pub mod check;
mod error;
mod frames;
mod image;
pub mod lerobot;
mod loader;
mod lock;
mod lru;
mod request;
mod resize;
mod sampler;
pub mod show;
mod source;
#[cfg(feature = "ffmpeg")]
pub mod video;

pub use anchors::{Anchor, AnchorTable, held_out_positions};
pub use batch::{Batch, ImageStream, SampleMeta, VectorStream};
pub use cache::{BuildOptions, CacheSpec, FrameCache};
pub use error::DataError;
pub use frames::{FrameReader, FrameSize, FrameStore};
pub use loader::{LoadError, Loader, LoaderStats, ValidationLoader};
pub use request::{EpisodeSpan, Request, TOLERANCE_S};
pub use resize::{PREPROCESS_ID, resize_planes};
pub use sampler::{Clips, Draw, Permutation, Position, Shard, TrainSampler, ValidationSampler};
pub use source::{CacheProgress, Mixture, SampleLayout, SampleRows, Source, Split};

/// Release of FFmpeg that this program runs with; none where it is built without.
#[must_use]
pub fn ffmpeg_release() -> Option<String> {
    #[cfg(feature = "ffmpeg")]
    return Some(video::ffmpeg_info().ffmpeg);
    #[cfg(not(feature = "ffmpeg"))]
    None
}
