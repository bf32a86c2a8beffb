//! The latent of one pair, decoded on the first frame of another: what it says apart from where the scene is.
//!
//! Shape suffixes: P pairs of samples, T = 2 frames, C channels, H×W pixels, S code slots, D token width.

use super::observed::Observed;
use super::pictures::{Row, frame_image, render_rows};
use super::samples::KeyedSamples;
use super::{Found, Scene, Strategy, sequence_name};
use crate::model::LaqModel;
use crate::patches::unit_frames;
use hlrp_schema::LatentTransferConfig;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::validation::Sums;
use tch::{Reduction, Tensor};

/// Pairs that are decoded at once.
const CHUNK: usize = 16;
/// Pairs in the image.
const NUM_SHOWN: usize = 4;
/// Keeps the ratio finite.
const MIN_LOSS: f64 = 1e-8;
const COLUMNS: [&str; 6] = ["source t", "source t+k", "target t", "transferred", "own latent", "target t+k"];

struct Kept {
    /// `uint8 [2,C,H,W]`.
    pixels_TCHW: Tensor,
    tokens_SD: Tensor,
    codes_S: Vec<i64>,
}

struct LatentTransfer {
    samples: KeyedSamples<Kept>,
    num_seen: usize,
}

/// Measures pairs of all `num_processes` processes. None where no decoder predicts a frame.
pub(super) fn new(config: &LatentTransferConfig, model: &LaqModel, num_processes: usize) -> Option<Box<dyn Strategy>> {
    let samples = KeyedSamples::new(2 * config.num_pairs.div_ceil(num_processes), 0);
    predicts_frames(model).then(|| Box::new(LatentTransfer { samples, num_seen: 0 }) as Box<dyn Strategy>)
}

/// Whether a decoder's prediction determines the pixels of frame t+k.
fn predicts_frames(model: &LaqModel) -> bool {
    model.decoders.iter().any(|decoder| decoder.predicts_frame() || decoder.name() == "difference")
}

/// The metrics of a model, each name with `suffix`.
pub(super) fn metrics(model: &LaqModel, suffix: &str) -> Vec<MetricSpec> {
    let detail = |name: &str| MetricSpec::detail(format!("val/{name}{suffix}")).lower_is_better();
    let names = ["latent_transfer_mse", "self_recon_mse", "transfer_ratio"];
    if predicts_frames(model) { names.map(detail).into() } else { Vec::new() }
}

impl Strategy for LatentTransfer {
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()> {
        self.num_seen += chosen.len();
        for &index in chosen {
            self.samples.offer(batch.meta(index), || {
                Ok(Kept {
                    pixels_TCHW: batch.pixels(index)?,
                    tokens_SD: batch.step.action_tokens_BSD.select(0, index as i64).copy(),
                    codes_S: batch.codes(index).to_vec(),
                })
            })?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found> {
        if !scene.has_enough(self.num_seen)? {
            return Ok(Found::default());
        }
        let samples = self.samples.take();
        let (sources, targets) = samples.split_at(samples.len() / 2);
        let (mut sums, mut rows) = (Sums::default(), Vec::new());
        for (sources, targets) in sources.chunks(CHUNK).zip(targets.chunks(CHUNK)) {
            transfer(scene.model, sources, &targets[..sources.len()], &mut sums, &mut rows)?;
        }
        let means = sums.means(scene.world, scene.model.store().device())?;
        let [transferred, own] = [TRANSFERRED, OWN].map(|name| means.get(name).copied().unwrap_or_default());
        let ratio = transferred / (own + MIN_LOSS);
        let named = [("latent_transfer_mse", transferred), ("self_recon_mse", own), ("transfer_ratio", ratio)];
        let mut found = Found::default();
        found.metrics.extend(named.map(|(name, value)| (format!("val/{name}{}", scene.suffix), value)));
        if !rows.is_empty() {
            let title = format!("Latents of one pair on the frame of another after step {}", scene.step);
            found.images.push(scene.image(render_rows(&scene.name, title, &COLUMNS, &rows)?));
        }
        Ok(found)
    }
}

/// Squared errors with the source's latent, and with the target's own.
const TRANSFERRED: &str = "transferred";
const OWN: &str = "own";

/// Decodes each source's latent, and the target's own, on the target's first frame.
fn transfer(
    model: &LaqModel,
    sources: &[Kept],
    targets: &[Kept],
    sums: &mut Sums,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let device = model.store().device();
    let frames = |kept: &[Kept]| {
        let pixels: Vec<_> = kept.iter().map(|kept| kept.pixels_TCHW.shallow_clone()).collect();
        unit_frames(&Tensor::stack(&pixels, 0).to_device(device))
    };
    let (sources_PTCHW, targets_PTCHW) = (frames(sources), frames(targets));
    let earlier_PCHW = targets_PTCHW.select(1, 0);
    let decoded = |kept: &[Kept]| {
        let tokens: Vec<_> = kept.iter().map(|kept| kept.tokens_SD.shallow_clone()).collect();
        let frame = model.predicted_frame(&earlier_PCHW, &Tensor::stack(&tokens, 0));
        frame.ok_or_else(|| anyhow::anyhow!("no decoder predicts a frame"))
    };
    let (transferred_PCHW, own_PCHW) = (decoded(sources)?, decoded(targets)?);
    let truth_PCHW = targets_PTCHW.select(1, 1);
    for (name, frame_PCHW) in [(TRANSFERRED, &transferred_PCHW), (OWN, &own_PCHW)] {
        sums.add(name, &frame_PCHW.mse_loss(&truth_PCHW, Reduction::Mean), sources.len() as i64);
    }
    for (index, (source, target)) in sources.iter().zip(targets).enumerate().take(NUM_SHOWN.saturating_sub(rows.len()))
    {
        let columns = [
            &sources_PTCHW.select(1, 0),
            &sources_PTCHW.select(1, 1),
            &earlier_PCHW,
            &transferred_PCHW,
            &own_PCHW,
            &truth_PCHW,
        ];
        let images = columns.iter().map(|frames| frame_image(&frames.select(0, index as i64)));
        let label = [("source", source), ("target", target)]
            .map(|(what, kept)| format!("{what} {}", sequence_name(&kept.codes_S)).trim().to_owned())
            .join("\n");
        rows.push(Row { label, images: images.collect::<anyhow::Result<_>>()? });
    }
    Ok(())
}
