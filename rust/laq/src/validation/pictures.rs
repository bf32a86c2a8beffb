//! Frames and predictions as images in rows.

use super::observed::Observed;
use hlrp_data::SampleMeta;
use hlrp_track::plot::{GridImage, ImageGrid, RgbImage, render_grid};
use tch::{Device, Kind, Tensor};

/// An RGB image of one frame.
#[derive(Clone)]
pub(crate) struct FrameImage {
    width: u32,
    height: u32,
    rgb_HWC: Vec<u8>,
}

impl FrameImage {
    /// As a grid of images reads it.
    pub(crate) fn in_grid(&self) -> GridImage<'_> {
        GridImage { width: self.width, height: self.height, rgb_HWC: &self.rgb_HWC }
    }

    /// A white image of this one's size.
    pub(crate) fn blank(&self) -> Self {
        Self { rgb_HWC: vec![255; self.rgb_HWC.len()], ..*self }
    }
}

/// Float pixels `[3,H,W]`, clamped to [0, 1]; one channel `[1,H,W]` becomes grey.
pub(crate) fn frame_image(pixels_CHW: &Tensor) -> anyhow::Result<FrameImage> {
    let size = pixels_CHW.size();
    let pixels_CHW =
        if size[0] == 1 { pixels_CHW.expand([3, size[1], size[2]], false) } else { pixels_CHW.shallow_clone() };
    let bytes = (pixels_CHW.to_kind(Kind::Float).clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    let rgb_HWC = Vec::<u8>::try_from(bytes.permute([1, 2, 0]).contiguous().to_device(Device::Cpu).reshape([-1]))?;
    Ok(FrameImage { width: u32::try_from(size[2])?, height: u32::try_from(size[1])?, rgb_HWC })
}

/// A row of images with its label.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) images: Vec<FrameImage>,
}

/// Rows of images below column titles (none = without titles); `name` is for errors.
pub(crate) fn render_rows(name: &str, title: String, columns: &[&str], rows: &[Row]) -> anyhow::Result<RgbImage> {
    let grid = ImageGrid {
        title,
        column_titles: columns.iter().map(|title| (*title).to_owned()).collect(),
        row_labels: rows.iter().map(|row| row.label.clone()).collect(),
        rows: rows.iter().map(|row| row.images.iter().map(FrameImage::in_grid).collect()).collect(),
    };
    Ok(render_grid(name, &grid)?)
}

/// Where a sample comes from, and its codes.
pub(super) fn label(meta: &SampleMeta, codes_S: &[i64]) -> String {
    let label = format!("ep {} frame {}", meta.episode, meta.frame);
    if codes_S.is_empty() {
        return label;
    }
    format!("{label}\ncodes {}", codes_S.iter().map(i64::to_string).collect::<Vec<_>>().join(" "))
}

/// Frame t and frame t+k of a sample.
pub(super) fn both_frames(batch: &Observed<'_>, index: usize) -> anyhow::Result<Vec<FrameImage>> {
    let frames_TCHW = batch.frames_BTCHW.select(0, index as i64);
    [0, 1].map(|time| frame_image(&frames_TCHW.select(0, time))).into_iter().collect()
}
