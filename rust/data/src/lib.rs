//! Robot datasets to batches of plain bytes: reading, decoding, sampling, loading.
//!
//! Shape suffixes: B samples, T time steps, C channels, H rows, W columns, N vector entries.
#![allow(non_snake_case)]

mod batch;
mod error;
mod frames;

pub use batch::{Batch, ImageStream, SampleMeta, VectorStream};
pub use error::DataError;
pub use frames::{FrameReader, FrameSize, FrameStore};
