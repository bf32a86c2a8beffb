//! What a validation measures: losses beside the copy-frame baseline, whether the decoder uses the codes, how the codes are used.

mod code_use;
mod pictures;

use crate::task::pairs_of;
use crate::{DecoderLosses, EvalStep, LaqModel, eval_step, other_samples};
use code_use::CodeUse;
use hlrp_nn::Pass;
use hlrp_track::metrics::{Curve, MetricSpec};
use hlrp_train::validation::{EvenSamples, Sums};
use hlrp_train::{DeviceBatch, Validation, ValidationContext};
use pictures::{PicturedPair, draw};
use tch::{Reduction, Tensor, no_grad};

/// Evaluates `model` on `batches` with hard codes and every decoder at full weight, and draws `num_pictured` pairs.
///
/// # Errors
/// Data that cannot be read, or pictures that cannot be written.
pub(crate) fn run(
    model: &LaqModel,
    batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
    num_pictured: usize,
    context: &ValidationContext<'_>,
) -> anyhow::Result<Validation> {
    let mut sums = Sums::default();
    let mut codes = CodeUse::new(model.dims());
    let mut pictured = EvenSamples::new(num_pictured);
    for batch in batches {
        let batch = batch?;
        let frames_BTCHW = pairs_of(&batch, model)?;
        let step = eval_step(model, &frames_BTCHW);
        add_losses(&mut sums, model, &frames_BTCHW, &step);
        codes.add(&step.ids_BS)?;
        for (index, meta) in batch.meta.iter().enumerate() {
            pictured.offer(|| PicturedPair::new(&frames_BTCHW, &step, index, meta))?;
        }
    }
    anyhow::ensure!(!sums.is_empty(), "the validation set is empty\nhint: raise data.sources.<name>.num_val_episodes");
    let mut metrics = sums.means(context.world)?;
    if let (Some(own), Some(other)) =
        (metrics.get("val/permuted_latent_self_recon_mse"), metrics.get("val/permuted_latent_mse"))
    {
        let ratio = other / own.max(f64::MIN_POSITIVE);
        metrics.insert("val/permuted_latent_ratio".into(), ratio);
    }
    let codes = codes.of_all(context.world)?;
    metrics.extend(codes.metrics());
    Ok(Validation { metrics, images: draw(context.step, &pictured.take(), &codes)? })
}

/// The metrics of a model that trains and validates on batches of `batch_size` pairs.
pub(crate) fn metrics(model: &LaqModel, batch_size: usize) -> Vec<MetricSpec> {
    let config = model.config();
    let pixels = Curve::new("pixel_loss.png", "Pixel loss beside the copy-frame baseline", "mean squared error").log();
    let codes = Curve::new("codes.png", "Codes in use", "codes");
    let mut specs = vec![MetricSpec::detail("val/loss").lower_is_better()];
    if config.token_decoder.enabled {
        specs.push(MetricSpec::detail("val/dino_loss").lower_is_better());
    }
    if config.pixel_decoder.enabled {
        specs.extend([
            MetricSpec::detail("train/pixel_loss").drawn_in(&pixels),
            MetricSpec::new("val/pixel_loss", "validation pixel loss").lower_is_better().drawn_in(&pixels),
        ]);
    }
    if config.aux_decoder.enabled {
        specs.push(MetricSpec::detail("val/aux_loss").lower_is_better());
    }
    specs.push(MetricSpec::new("val/copy_frame_loss", "pixel loss, first frame copied").drawn_in(&pixels));
    if batch_size > 1 && (config.pixel_decoder.enabled || config.aux_decoder.enabled) {
        specs.extend([
            MetricSpec::detail("val/permuted_latent_self_recon_mse").lower_is_better(),
            MetricSpec::detail("val/permuted_latent_mse"),
            MetricSpec::new("val/permuted_latent_ratio", "pixel loss with another pair's codes / with its own")
                .higher_is_better(),
        ]);
    }
    specs.extend(
        ["train/num_unique_codes", "train/codebook_window_perplexity"]
            .map(|name| MetricSpec::detail(name).higher_is_better().drawn_in(&codes)),
    );
    specs.extend(code_use::metrics(model.dims(), &codes));
    specs
}

fn add_losses(sums: &mut Sums, model: &LaqModel, frames_BTCHW: &Tensor, step: &EvalStep) {
    let num_samples = frames_BTCHW.size()[0];
    sums.add("val/loss", &step.losses.total(model, None), num_samples);
    for (name, loss) in step.losses.by_name() {
        sums.add(&format!("val/{name}"), &loss, num_samples);
    }
    let copy_loss = frames_BTCHW.select(1, 0).mse_loss(&frames_BTCHW.select(1, 1), Reduction::Mean);
    sums.add("val/copy_frame_loss", &copy_loss, num_samples);
    if num_samples > 1 {
        add_permuted_losses(sums, model, frames_BTCHW, step);
    }
}

/// How much worse the prediction gets with another sample's codes: 1 = the decoder ignores them.
fn add_permuted_losses(sums: &mut Sums, model: &LaqModel, frames_BTCHW: &Tensor, step: &EvalStep) {
    let num_samples = frames_BTCHW.size()[0];
    let permuted = no_grad(|| {
        let tokens_BSD = other_samples(&step.action_tokens_BSD);
        let predictions = model.decode(frames_BTCHW, &step.encoded, &tokens_BSD, &Pass::plain(false));
        DecoderLosses::new(frames_BTCHW, &step.encoded, &predictions)
    });
    let of_pixels = |losses: &DecoderLosses| losses.pixel.as_ref().or(losses.aux.as_ref()).map(Tensor::shallow_clone);
    if let (Some(own), Some(other)) = (of_pixels(&step.losses), of_pixels(&permuted)) {
        sums.add("val/permuted_latent_self_recon_mse", &own, num_samples);
        sums.add("val/permuted_latent_mse", &other, num_samples);
    }
}
