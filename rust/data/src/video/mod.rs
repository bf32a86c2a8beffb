//! Frames of videos, at random and fast.
//!
//! A video file is a chain of coded frames, most of which depend on others; decoding starts at a keyframe. A frame
//! of a dataset is identified by its time in the file. To read one: find its packet in the table of the container's
//! header (`container`, `index`), decode from the keyframe before it unless the decoder is between the two already (`file`),
//! convert it to RGB planes and resize it (`rgb`, `pixels`, `yuv420`). Packets are read by offset and go to the decoder directly;
//! nothing seeks, and no frame is decoded that the wanted one does not depend on, where the codec marks it.

mod container;
mod file;
mod index;
mod opening;
mod pixels;
mod probe;
mod rgb;
mod store;
mod yuv420;

pub use crate::read_at::ReadAt;
pub use probe::{FfmpegInfo, VideoInfo, ffmpeg_info, probe};
pub use store::{RawFrame, VideoStore, VideoTable};
