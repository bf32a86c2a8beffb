//! Images of a validation.

use super::code_use::CodeUse;
use crate::model::LaqModel;
use crate::step::EvalStep;
use hlrp_data::SampleMeta;
use hlrp_track::plot::{BarChart, GridImage, ImageGrid, render_bars, render_grid};
use hlrp_track::sinks::NamedImage;
use tch::{Device, Kind, Tensor};

/// Frame pairs and what the decoders predict.
const RECONSTRUCTIONS: &str = "reconstructions";
/// How often each code is used.
const CODE_HISTOGRAM: &str = "code_histogram";

/// An RGB image of one frame.
struct FrameImage {
    width: u32,
    height: u32,
    rgb_HWC: Vec<u8>,
}

/// One pair with the decoders' predictions.
pub(super) struct ShownPair {
    label: String,
    columns: Vec<(&'static str, FrameImage)>,
}

impl ShownPair {
    /// Copies sample `index` of a batch to the CPU.
    pub(super) fn new(
        model: &LaqModel,
        frames_BTCHW: &Tensor,
        step: &EvalStep,
        index: usize,
        meta: &SampleMeta,
    ) -> anyhow::Result<Self> {
        let sample = i64::try_from(index)?;
        let frame = |time: i64| frame_image(&frames_BTCHW.select(0, sample).select(0, time));
        let mut columns = vec![("frame t", frame(0)?), ("frame t+k", frame(1)?)];
        let earlier_BCHW = frames_BTCHW.select(1, 0);
        for (name, prediction) in step.predictions.iter() {
            let image = model.decoders.get(name).and_then(|decoder| decoder.image(prediction, &earlier_BCHW));
            if let Some((title, image_BCHW)) = image {
                columns.push((title, frame_image(&image_BCHW.select(0, sample))?));
            }
        }
        let mut label = format!("ep {} frame {}", meta.episode, meta.frame);
        if let Some(ids_BS) = &step.latent.ids_BS {
            let codes = Vec::<i64>::try_from(ids_BS.select(0, sample).to_device(Device::Cpu))?;
            let codes = codes.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
            label = format!("{label}\ncodes {codes}");
        }
        Ok(Self { label, columns })
    }
}

/// Float pixels `[3,H,W]`, clamped to [0, 1].
fn frame_image(pixels_CHW: &Tensor) -> anyhow::Result<FrameImage> {
    let size = pixels_CHW.size();
    let bytes = (pixels_CHW.to_kind(Kind::Float).clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    let rgb_HWC = Vec::<u8>::try_from(bytes.permute([1, 2, 0]).contiguous().to_device(Device::Cpu).reshape([-1]))?;
    Ok(FrameImage { width: u32::try_from(size[2])?, height: u32::try_from(size[1])?, rgb_HWC })
}

/// [`RECONSTRUCTIONS`] of the validation after `step`; nothing without pairs.
pub(super) fn reconstructions(step: u64, pairs: &[ShownPair]) -> anyhow::Result<Vec<NamedImage>> {
    let Some(first) = pairs.first() else { return Ok(Vec::new()) };
    let grid = ImageGrid {
        title: format!("Validation pairs after step {step}"),
        column_titles: first.columns.iter().map(|(title, _)| (*title).to_owned()).collect(),
        row_labels: pairs.iter().map(|pair| pair.label.clone()).collect(),
        rows: pairs.iter().map(|pair| pair.columns.iter().map(|(_, image)| image.in_grid()).collect()).collect(),
    };
    Ok(vec![NamedImage { name: RECONSTRUCTIONS.to_owned(), image: render_grid(RECONSTRUCTIONS, &grid)? }])
}

/// [`CODE_HISTOGRAM`] of the validation after `step`.
pub(super) fn code_histogram(step: u64, codes: &CodeUse) -> anyhow::Result<NamedImage> {
    let counts = codes.counts();
    let total: u64 = counts.iter().sum();
    let chart = BarChart {
        title: format!("Codes in use after step {step}: {} of {}", codes.num_used(), counts.len()),
        x_label: "code".into(),
        y_label: "fraction of assignments".into(),
        values: counts.iter().map(|count| *count as f64 / total as f64).collect(),
        reference: Some(("uniform".into(), 1.0 / counts.len() as f64)),
    };
    Ok(NamedImage { name: CODE_HISTOGRAM.to_owned(), image: render_bars(CODE_HISTOGRAM, &chart)? })
}

impl FrameImage {
    fn in_grid(&self) -> GridImage<'_> {
        GridImage { width: self.width, height: self.height, rgb_HWC: &self.rgb_HWC }
    }
}
