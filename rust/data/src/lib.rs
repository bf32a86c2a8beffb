//! Robot datasets to batches of plain bytes: reading, decoding, sampling, loading.
//!
//! | question | module |
//! |---|---|
//! | How is a dataset stored, and what does it say about itself? | [`formats`] |
//! | Where is the dataset of a source, and how is one of the Hub fetched? | [`hub`] |
//! | Which episodes, cameras and vectors of it are used? | `source`, `mixture`, `preflight` |
//! | Which statistics normalise states and actions? | `normalization`, `statistics` |
//! | Where do decoded frames come from? | `frames`, `video`, `images`, `cache` |
//! | Where are numbers kept that were computed of frame pairs? | `pair_cache` |
//! | Which anchors show something? | `filter` |
//! | Whose actions may be seen? | `labelled` |
//! | Which sample comes when? | `anchors`, `shares`, `sampler` |
//! | How do samples become batches? | `loader` |
//! | What does loading cost? | [`measure`] |
//! | Is a dataset damaged, and what is in it? | [`check`], [`show`] |
//!
//! Shape suffixes: B samples, T time steps, C channels, H rows, W columns, N vector entries.
#![allow(non_snake_case)]

mod anchors;
mod batch;
mod cache;
pub mod check;
mod disk;
mod env;
mod error;
mod filter;
pub mod formats;
mod frames;
pub mod hub;
mod images;
mod labelled;
mod loader;
mod lock;
mod lru;
pub mod measure;
mod mixture;
mod normalization;
mod pair_cache;
mod parallel;
mod preflight;
#[cfg_attr(not(feature = "ffmpeg"), allow(dead_code, unreachable_pub))] // only videos are read in this way
mod read_at;
mod request;
mod resize;
mod sampler;
mod shares;
pub mod show;
mod source;
mod statistics;
#[cfg(feature = "ffmpeg")]
pub mod video;

pub use anchors::{Anchor, AnchorTable, held_out_positions};
pub use batch::{Batch, ImageStream, SampleMeta, VectorStream};
pub use cache::{BuildOptions, CacheSpec, FrameCache};
pub use disk::disk_rules;
pub use error::{DataError, LoadError, exit_code_of};
pub use filter::{Filter, FilterScores, Verdict, VerdictCounts};
pub use formats::{Dataset, Description};
pub use frames::{FrameReader, FrameSize, FrameStore};
pub use hlrp_track::fs::DiskRules;
pub use loader::{Loader, LoaderStats, ValidationLoader};
pub use mixture::{CacheProgress, Mixture, SampleLayout, log_cache_progress};
pub use normalization::VectorStatistics;
pub use pair_cache::{PairCache, PairCacheSpec};
pub use preflight::{describe_sources, preflight};
pub use request::{EpisodeSpan, LabelRequest, Request, TOLERANCE_S, Timing};
pub use resize::{PREPROCESS_ID, resize_planes};
pub use sampler::{Balance, Clips, Draw, Mixing, Permutation, Pool, Position, Shard, TrainSampler, ValidationSampler};
pub use source::{Source, Split};

/// Release of FFmpeg that this program runs with; none where it is built without.
#[must_use]
pub fn ffmpeg_release() -> Option<String> {
    #[cfg(feature = "ffmpeg")]
    return Some(video::ffmpeg_info().ffmpeg);
    #[cfg(not(feature = "ffmpeg"))]
    None
}
