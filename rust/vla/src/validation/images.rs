//! Images of a validation.

use super::Compared;
use crate::policy::Policy;
use crate::processor::TimeIndices;
use hlrp_track::plot::{GridImage, ImageGrid, PanelGrid, PanelLine, render_grid, render_panels};
use hlrp_track::sinks::NamedImage;
use hlrp_train::DeviceBatch;
use tch::{Device, Kind, Tensor};

/// Image with frames, instruction and prediction of each sample.
const SAMPLES: &str = "samples";
/// Image with predicted action chunks over the true ones.
const CHUNKS: &str = "chunks";

/// Characters of an instruction on one line.
const LINE_LENGTH: usize = 34;
/// Columns of a grid of charts at most.
const MAX_DIMS: usize = 8;

/// One sample and the policy's prediction, on the CPU.
pub(super) struct SampleImage {
    label: String,
    prediction: String,
    frames: Vec<(&'static str, Frame)>,
    chunk: Option<Chunk>,
}

/// An RGB frame.
struct Frame {
    width: u32,
    height: u32,
    rgb_HWC: Vec<u8>,
}

/// Actions at the robot's scale, by dimension and step.
struct Chunk {
    truth: Vec<Vec<f64>>,
    predicted: Vec<Vec<f64>>,
    repeated: Vec<Vec<f64>>,
}

impl SampleImage {
    /// Copies sample `index` of a batch.
    pub(super) fn new(
        policy: &Policy,
        indices: TimeIndices,
        batch: &DeviceBatch,
        compared: &Compared,
        index: usize,
    ) -> anyhow::Result<Self> {
        let sample = i64::try_from(index)?;
        let meta = &batch.meta[index];
        let mut frames = Vec::new();
        let shown = policy.processor.cameras().iter().find_map(|role| batch.images.get(role));
        if let Some(stream) = shown {
            let frames_TCHW = stream.pixels_BTCHW.select(0, sample);
            frames.push(("frame t", Frame::new(&frames_TCHW.select(0, indices.image))?));
            if frames_TCHW.size()[0] > indices.image + 1 {
                frames.push(("frame t+k", Frame::new(&frames_TCHW.select(0, indices.image + 1))?));
            }
        }
        let mut prediction = Vec::new();
        let true_codes = compared.labelled.targets.latent.as_ref().map_or(&None, |latent| &latent.codes_BS);
        let codes = |codes_BS: &Option<Tensor>| -> anyhow::Result<Option<String>> {
            let Some(codes_BS) = codes_BS else { return Ok(None) };
            let codes = Vec::<i64>::try_from(codes_BS.select(0, sample).to_device(Device::Cpu))?;
            Ok(Some(codes.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")))
        };
        if let (Some(truth), Some(predicted)) = (codes(true_codes)?, codes(&compared.predicted.codes_BS)?) {
            prediction.push(format!("teacher's codes {truth}"));
            prediction.push(format!("predicted codes {predicted}"));
        }
        let chunk = Chunk::new(policy, indices, batch, compared, sample)?;
        if let Some(chunk) = &chunk {
            prediction.push(format!("first action {}", values(&chunk.truth)));
            prediction.push(format!("predicted {}", values(&chunk.predicted)));
        }
        let instruction = wrapped(&batch.task[index]);
        Ok(Self {
            label: format!("{instruction}\nep {} frame {}", meta.episode, meta.frame),
            prediction: prediction.join("\n"),
            frames,
            chunk,
        })
    }
}

impl Frame {
    /// From `uint8 [3,H,W]`.
    fn new(pixels_CHW: &Tensor) -> anyhow::Result<Self> {
        let size = pixels_CHW.size();
        let rgb_HWC =
            Vec::<u8>::try_from(pixels_CHW.permute([1, 2, 0]).contiguous().to_device(Device::Cpu).view([-1]))?;
        Ok(Self { width: u32::try_from(size[2])?, height: u32::try_from(size[1])?, rgb_HWC })
    }
}

impl Chunk {
    fn new(
        policy: &Policy,
        indices: TimeIndices,
        batch: &DeviceBatch,
        compared: &Compared,
        sample: i64,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(predicted_BTA), Some(target), Some(stream)) =
            (&compared.predicted.actions_BTA, &compared.labelled.targets.action, &batch.action)
        else {
            return Ok(None);
        };
        let of_sample = |x_BTA: &Tensor| x_BTA.select(0, sample);
        // What the robot lacks is not drawn.
        let is_pad_A = of_sample(&stream.is_pad_dim_BN);
        let actions_TA = of_sample(&stream.values_BTN).masked_fill(&is_pad_A, f64::NAN);
        // Steps after the end of the episode have no truth.
        let is_known_TA = of_sample(&target.is_supervised_BTA());
        let num_steps = is_known_TA.size()[0];
        let truth_TA =
            actions_TA.narrow(0, indices.action, num_steps).masked_fill(&is_known_TA.logical_not(), f64::NAN);
        let last_1A = actions_TA.narrow(0, indices.action - 1, 1);
        let predicted_TA =
            of_sample(&policy.processor.unnormalize_actions(predicted_BTA)?).masked_fill(&is_pad_A, f64::NAN);
        Ok(Some(Self {
            truth: columns(&truth_TA)?,
            predicted: columns(&predicted_TA)?,
            repeated: columns(&last_1A.expand_as(&truth_TA))?,
        }))
    }
}

/// Draws [`SAMPLES`] and [`CHUNKS`] of the validation after `step`.
pub(super) fn draw(step: u64, samples: &[SampleImage]) -> anyhow::Result<Vec<NamedImage>> {
    Ok([draw_samples(step, samples)?, draw_chunks(step, samples)?].into_iter().flatten().collect())
}

fn draw_samples(step: u64, samples: &[SampleImage]) -> anyhow::Result<Option<NamedImage>> {
    let Some(first) = samples.first().filter(|sample| !sample.frames.is_empty()) else { return Ok(None) };
    let grid = ImageGrid {
        title: format!("Predictions after step {step}"),
        column_titles: first.frames.iter().map(|(title, _)| (*title).to_owned()).collect(),
        row_labels: samples.iter().map(|sample| format!("{}\n{}", sample.label, sample.prediction)).collect(),
        rows: samples.iter().map(|sample| sample.frames.iter().map(|(_, frame)| grid_image(frame)).collect()).collect(),
    };
    Ok(Some(NamedImage { name: SAMPLES.to_owned(), image: render_grid(SAMPLES, &grid)? }))
}

fn draw_chunks(step: u64, samples: &[SampleImage]) -> anyhow::Result<Option<NamedImage>> {
    let chunks: Vec<&Chunk> = samples.iter().filter_map(|sample| sample.chunk.as_ref()).collect();
    let Some(num_dims) = chunks.first().map(|chunk| chunk.truth.len().min(MAX_DIMS)) else { return Ok(None) };
    let line = |name: &str, of: fn(&Chunk) -> &Vec<Vec<f64>>| PanelLine {
        name: name.to_owned(),
        values: chunks.iter().map(|chunk| of(chunk)[..num_dims].to_vec()).collect(),
    };
    let grid = PanelGrid {
        title: format!("Action chunks after step {step}"),
        x_label: "frames from the present".to_owned(),
        column_titles: (0..num_dims).map(|dim| format!("action {dim}")).collect(),
        row_labels: samples.iter().filter(|sample| sample.chunk.is_some()).map(|sample| sample.label.clone()).collect(),
        lines: vec![
            line("last action repeated", |chunk| &chunk.repeated),
            line("true", |chunk| &chunk.truth),
            line("predicted", |chunk| &chunk.predicted),
        ],
    };
    Ok(Some(NamedImage { name: CHUNKS.to_owned(), image: render_panels(CHUNKS, &grid)? }))
}

/// `[T,A]` as one list of T values for each of A.
fn columns(x_TA: &Tensor) -> anyhow::Result<Vec<Vec<f64>>> {
    let x_AT = x_TA.to_kind(Kind::Double).to_device(Device::Cpu).transpose(0, 1).contiguous();
    Ok(Vec::<Vec<f64>>::try_from(x_AT)?)
}

/// The first step of a chunk, in the dimensions that there are.
fn values(chunk: &[Vec<f64>]) -> String {
    let first = chunk.iter().take(MAX_DIMS).filter_map(|steps| steps.first()).filter(|value| !value.is_nan());
    first.map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ")
}

/// Lines of at most [`LINE_LENGTH`] characters, broken between words.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let length = lines.last().map_or(0, |line| line.chars().count());
        if length > 0 && length + 1 + word.chars().count() > LINE_LENGTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

fn grid_image(frame: &Frame) -> GridImage<'_> {
    GridImage { width: frame.width, height: frame.height, rgb_HWC: &frame.rgb_HWC }
}
