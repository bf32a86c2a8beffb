//! Which FFmpeg is used, and what is in a video file.

use super::file::{VideoDecoder, VideoFile, decoder_of};
use crate::error::DataError;
use crate::frames::FrameSize;
use ffmpeg::codec::Id;
use ffmpeg_next as ffmpeg;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// The FFmpeg libraries that this program runs with.
#[derive(Debug, Clone, Serialize)]
pub struct FfmpegInfo {
    /// Release of FFmpeg that the libraries belong to.
    pub ffmpeg: String,
    /// Codec to the name of its decoder; none where there is no decoder.
    pub decoders: BTreeMap<&'static str, Option<String>>,
}

/// The FFmpeg libraries that this program runs with.
#[must_use]
pub fn ffmpeg_info() -> FfmpegInfo {
    let codecs = [("av1", Id::AV1), ("h264", Id::H264), ("hevc", Id::HEVC)];
    let decoder = |id| decoder_of(id).map(|codec| codec.name().to_owned());
    FfmpegInfo {
        ffmpeg: release(ffmpeg::codec::version()),
        decoders: codecs.into_iter().map(|(name, id)| (name, decoder(id))).collect(),
    }
}

/// The release of FFmpeg that a version of libavcodec belongs to.
fn release(avcodec: u32) -> String {
    let (major, minor) = (avcodec >> 16, (avcodec >> 8) & 0xff);
    let release = match (major, minor) {
        (58, _) => "4",
        (59, ..=18) => "5.0",
        (59, _) => "5.1",
        (60, ..=3) => "6.0",
        (60, _) => "6.1",
        (61, ..=3) => "7.0",
        (61, _) => "7.1",
        (62, ..=11) => "8.0",
        (62, _) => "8.1",
        _ => return format!("with libavcodec {major}.{minor}"),
    };
    release.to_owned()
}

/// Header of a video file.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Size of a frame as it is shown.
    pub size: FrameSize,
    /// Number of frames that are shown.
    pub num_frames: usize,
    /// Time of the first frame, seconds.
    pub first_frame_s: f64,
    /// Time of the last frame, seconds.
    pub last_frame_s: f64,
    /// Number of frames from one keyframe to the next.
    pub group_size: usize,
}

impl VideoInfo {
    /// Frames per second, from the first frame to the last; none where there is one frame only.
    #[must_use]
    pub fn fps(&self) -> Option<f64> {
        (self.num_frames > 1).then(|| (self.num_frames - 1) as f64 / (self.last_frame_s - self.first_frame_s))
    }
}

/// Reads the header of a video file.
///
/// # Errors
/// When the file is missing, cut off, not a video, or one that cannot be decoded.
pub fn probe(path: &Path) -> Result<VideoInfo, DataError> {
    let video = Arc::new(VideoFile::open_local(path)?);
    let size = VideoDecoder::open(Arc::clone(&video))?.shown_size();
    let index = video.index();
    let (first_frame_s, last_frame_s) = index.shown_span();
    Ok(VideoInfo {
        codec: video.codec_id().name().to_owned(),
        size,
        num_frames: index.num_shown(),
        first_frame_s,
        last_frame_s,
        group_size: index.group_size(),
    })
}
