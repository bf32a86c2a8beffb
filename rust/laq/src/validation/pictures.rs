//! Pictures of a validation.

use super::code_use::CodeUse;
use crate::EvalStep;
use hlrp_data::SampleMeta;
use hlrp_track::plot::{BarChart, GridImage, ImageGrid, render_bars, render_grid};
use hlrp_track::sinks::NamedImage;
use tch::{Device, Kind, Tensor};

/// Image of frame pairs and their reconstructions.
const RECONSTRUCTIONS: &str = "reconstructions";
/// Image of how often each code is used.
const CODE_HISTOGRAM: &str = "code_histogram";

/// An RGB picture of one frame.
struct Picture {
    width: u32,
    height: u32,
    rgb_HWC: Vec<u8>,
}

/// One pair with what the decoders made of it.
pub(super) struct PicturedPair {
    label: String,
    columns: Vec<(&'static str, Picture)>,
}

impl PicturedPair {
    /// Copies sample `index` of a batch to the CPU.
    pub(super) fn new(frames_BTCHW: &Tensor, step: &EvalStep, index: usize, meta: &SampleMeta) -> anyhow::Result<Self> {
        let sample = i64::try_from(index)?;
        let frame = |time: i64| frames_BTCHW.select(0, sample).select(0, time);
        let mut columns = vec![("frame t", picture(&frame(0))?), ("frame t+k", picture(&frame(1))?)];
        let predictions = [("prediction", &step.predictions.pixels_BCHW), ("aux decoder", &step.predictions.aux_BCHW)];
        for (title, pixels_BCHW) in predictions {
            if let Some(pixels_BCHW) = pixels_BCHW {
                columns.push((title, picture(&pixels_BCHW.select(0, sample))?));
            }
        }
        let codes = Vec::<i64>::try_from(step.ids_BS.select(0, sample).to_device(Device::Cpu))?;
        let codes = codes.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
        Ok(Self { label: format!("ep {} frame {}\ncodes {codes}", meta.episode, meta.frame), columns })
    }
}

/// Float pixels `[3,H,W]`, clamped to [0, 1].
fn picture(pixels_CHW: &Tensor) -> anyhow::Result<Picture> {
    let size = pixels_CHW.size();
    let bytes = (pixels_CHW.to_kind(Kind::Float).clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    let rgb_HWC = Vec::<u8>::try_from(bytes.permute([1, 2, 0]).contiguous().to_device(Device::Cpu).reshape([-1]))?;
    Ok(Picture { width: u32::try_from(size[2])?, height: u32::try_from(size[1])?, rgb_HWC })
}

/// Draws [`RECONSTRUCTIONS`] and [`CODE_HISTOGRAM`] of the validation after `step`.
pub(super) fn draw(step: u64, pairs: &[PicturedPair], codes: &CodeUse) -> anyhow::Result<Vec<NamedImage>> {
    let mut images = Vec::new();
    if let Some(first) = pairs.first() {
        let grid = ImageGrid {
            title: format!("Validation pairs after step {step}"),
            column_titles: first.columns.iter().map(|(title, _)| (*title).to_owned()).collect(),
            row_labels: pairs.iter().map(|pair| pair.label.clone()).collect(),
            rows: pairs
                .iter()
                .map(|pair| pair.columns.iter().map(|(_, picture)| grid_image(picture)).collect())
                .collect(),
        };
        images.push(NamedImage { name: RECONSTRUCTIONS.to_owned(), image: render_grid(RECONSTRUCTIONS, &grid)? });
    }
    let counts = codes.counts();
    let total: u64 = counts.iter().sum();
    let chart = BarChart {
        title: format!("Codes in use after step {step}: {} of {}", codes.num_used(), counts.len()),
        x_label: "code".into(),
        y_label: "share of assignments".into(),
        values: counts.iter().map(|count| *count as f64 / total as f64).collect(),
        reference: Some(("uniform".into(), 1.0 / counts.len() as f64)),
    };
    images.push(NamedImage { name: CODE_HISTOGRAM.to_owned(), image: render_bars(CODE_HISTOGRAM, &chart)? });
    Ok(images)
}

fn grid_image(picture: &Picture) -> GridImage<'_> {
    GridImage { width: picture.width, height: picture.height, rgb_HWC: &picture.rgb_HWC }
}
