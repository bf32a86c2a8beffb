//! Frames of videos, at random and fast.
//!
//! A video file is a chain of coded pictures, most of which build on others; decoding starts at a key picture. A frame
//! of a dataset is named by its time in the file. Reading one is: find its packet in the table that the container's
//! header gives (`index`), decode from the key picture before it unless the decoder stands between the two already
//! (`file`), convert it to RGB planes and resize it (`rgb`). Packets are read by position and given to the decoder
//! directly; nothing seeks, and no picture is decoded that the wanted one does not build on, where the codec tells.

mod file;
mod index;
mod probe;
mod rgb;
mod store;

pub use probe::{FfmpegInfo, VideoInfo, ffmpeg_info, probe};
pub use store::{RawFrame, VideoStore, VideoTable};
