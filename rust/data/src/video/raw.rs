//! Decoded pictures as the codec gives them, before any conversion.

use super::{VideoDecoder, VideoStore};
use crate::DataError;
use std::path::PathBuf;

/// A decoded picture.
#[derive(Debug, Clone, PartialEq)]
pub struct RawFrame {
    /// The video file.
    pub file: PathBuf,
    /// Number of the picture in the file, in the order of presentation.
    pub number: usize,
    /// Time of the picture in the file, seconds.
    pub time_s: f64,
    /// FFmpeg's name of the pixel format, such as `yuv420p`.
    pub pixel_format: String,
    /// All planes one after the other, rows without padding.
    pub planes: Vec<u8>,
}

impl VideoStore {
    /// Decodes the picture of a row without converting it.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn raw_frame(&self, row: u64) -> Result<RawFrame, DataError> {
        let (file, time_s) = self.locate(row)?;
        let video = self.video(file)?;
        let packet = video.index().nearest(time_s);
        let (number, time_s) = (video.index().number(packet), video.index().time(packet));
        let (mut planes, mut pixel_format) = (Vec::new(), String::new());
        let decoded = VideoDecoder::open(video)?.decode(&[packet], |_, frame| {
            let format = frame.format().descriptor();
            pixel_format = format.map_or_else(String::new, |format| format.name().to_owned());
            for plane in 0..frame.planes() {
                let width = frame.plane_width(plane) as usize;
                let rows = frame.data(plane).chunks(frame.stride(plane)).take(frame.plane_height(plane) as usize);
                rows.for_each(|row| planes.extend_from_slice(&row[..width]));
            }
            Ok(())
        });
        let path = self.path(file).to_owned();
        decoded.map_err(|(_, what)| DataError::file(&path, what, "the video is damaged: fetch or record it again"))?;
        Ok(RawFrame { file: path, number, time_s, pixel_format, planes })
    }
}
