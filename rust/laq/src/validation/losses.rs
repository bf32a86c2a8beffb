//! Losses beside the copy-frame baseline, and whether the decoders use the codes.

use crate::decoders::{DecoderLosses, Term, pixel_curve};
use crate::model::LaqModel;
use crate::quantizers::SignalToNoise;
use crate::step::{EvalStep, other_samples};
use hlrp_nn::Pass;
use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::validation::Sums;
use std::collections::BTreeMap;
use tch::{Reduction, Tensor, no_grad};

/// Name of the ratio of signal to noise.
pub(crate) const SIGNAL_TO_NOISE: &str = "val/latent_signal_to_noise";
/// Sums of a decoder's loss: with a pair's own codes, with another pair's, and of predicting no change.
const OWN: &str = "own";
const OTHER: &str = "other";
const COPY: &str = "copy";

/// Sums over the batches.
pub(super) struct Losses {
    sums: Sums,
    /// How near the codes are to the changes; none where the latent is continuous.
    signal_to_noise: Option<SignalToNoise>,
}

impl Losses {
    /// Of no batch yet, for `model`.
    pub(super) fn of(model: &LaqModel) -> Self {
        let noise = || SignalToNoise::new(model.dims(), model.store().device());
        Self { sums: Sums::default(), signal_to_noise: model.quantizer.codes().map(|_| noise()) }
    }

    /// Adds a batch of pairs `[B,2,C,H,W]` and its evaluation.
    pub(super) fn add(&mut self, model: &LaqModel, frames_BTCHW: &Tensor, step: &EvalStep) {
        let sums = &mut self.sums;
        let num_samples = frames_BTCHW.size()[0];
        let terms = model.decoders.terms(&step.predictions, &step.target, None);
        let loss = model.decoders.total(&step.losses, None);
        let weighted = |term: &Term| (term.weight > 0.0).then(|| &term.value * term.weight);
        sums.add("val/loss", &terms.iter().filter_map(weighted).fold(loss, |sum, term| sum + term), num_samples);
        for Term { metric, value, .. } in &terms {
            sums.add(&format!("val/{metric}"), value, num_samples);
        }
        for (name, loss) in model.decoders.metrics(&step.losses) {
            sums.add(&format!("val/{name}"), &loss, num_samples);
        }
        let copy_loss = frames_BTCHW.select(1, 0).mse_loss(&frames_BTCHW.select(1, 1), Reduction::Mean);
        sums.add("val/copy_frame_loss", &copy_loss, num_samples);
        if let Some(ratio) = &mut self.signal_to_noise {
            ratio.add(&model.quantizer.normalised(&step.encoded.change_BSQ), &step.latent.vectors_BSQ);
        }
        let no_change = no_grad(|| model.decoders.losses(&model.decoders.no_change(&step.target), &step.target));
        let permuted = (num_samples > 1).then(|| permuted_losses(model, frames_BTCHW, step));
        for decoder in model.decoders.training() {
            let name = decoder.name();
            let parts = [(OWN, Some(&step.losses)), (OTHER, permuted.as_ref()), (COPY, Some(&no_change))];
            for (part, losses) in parts {
                if let Some(loss) = losses.and_then(|losses| losses.get(name)) {
                    sums.add(&format!("val/{name}_{part}"), loss, num_samples);
                }
            }
        }
        if let (Some(decoder), Some(permuted)) = (model.decoders.of_frames(), &permuted)
            && let (Some(own), Some(other)) = (step.losses.get(decoder.name()), permuted.get(decoder.name()))
        {
            sums.add("val/permuted_latent_self_recon_mse", own, num_samples);
            sums.add("val/permuted_latent_mse", other, num_samples);
        }
    }

    /// Means over what all processes added, by full name; empty where none of them had a batch.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn metrics(self, model: &LaqModel, world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut metrics = self.sums.means(world, model.store().device())?;
        let ratio = self.signal_to_noise.map(|ratio| ratio.of_all(world)).transpose()?.flatten();
        metrics.extend(ratio.map(|ratio| (SIGNAL_TO_NOISE.to_owned(), ratio)));
        for decoder in model.decoders.training() {
            let name = decoder.name();
            let [own, other, copy] = [OWN, OTHER, COPY].map(|part| metrics.remove(&format!("val/{name}_{part}")));
            if let (Some(own), Some(copy)) = (own, copy) {
                let copy = copy.max(f64::MIN_POSITIVE);
                metrics.insert(format!("val/{name}_own_to_copy"), own / copy);
                if let Some(other) = other {
                    metrics.insert(format!("val/{name}_permuted_ratio"), other / own.max(f64::MIN_POSITIVE));
                    metrics.insert(format!("val/{name}_code_gain"), (other - own) / copy);
                }
            }
        }
        if let (Some(own), Some(other)) =
            (metrics.get("val/permuted_latent_self_recon_mse"), metrics.get("val/permuted_latent_mse"))
        {
            let ratio = other / own.max(f64::MIN_POSITIVE);
            metrics.insert("val/permuted_latent_ratio".into(), ratio);
        }
        Ok(metrics)
    }
}

/// The losses with another sample's codes: equal to those with the own codes if the decoders ignore them.
fn permuted_losses(model: &LaqModel, frames_BTCHW: &Tensor, step: &EvalStep) -> DecoderLosses {
    no_grad(|| {
        let tokens_BSD = other_samples(&step.action_tokens_BSD);
        let predictions = model.decode(frames_BTCHW, &step.encoded, &tokens_BSD, &Pass::plain(false));
        model.decoders.losses(&predictions, &step.target)
    })
}

/// The metrics that [`Losses::metrics`] returns for a model that validates on batches of `batch_size` pairs.
pub(super) fn metrics(model: &LaqModel, batch_size: usize) -> Vec<MetricSpec> {
    let mut specs = vec![MetricSpec::detail("val/loss").lower_is_better()];
    specs.extend(model.decoders.iter().flat_map(|decoder| decoder.metrics()));
    specs.push(MetricSpec::new("val/copy_frame_loss", "pixel loss, first frame copied").drawn_in(&pixel_curve()));
    if model.decoders.of_frames().is_some() && batch_size > 1 {
        specs.extend([
            MetricSpec::detail("val/permuted_latent_self_recon_mse").lower_is_better(),
            MetricSpec::detail("val/permuted_latent_mse"),
            MetricSpec::detail("val/permuted_latent_ratio").higher_is_better(),
        ]);
    }
    for decoder in model.decoders.training() {
        let name = decoder.name();
        specs.push(MetricSpec::detail(format!("val/{name}_own_to_copy")).lower_is_better());
        if batch_size > 1 {
            let label = format!("gain from the codes, {name} (of the loss of no change)");
            specs.push(MetricSpec::new(format!("val/{name}_code_gain"), label).higher_is_better());
            let label = format!("{name} loss with another pair's codes / with its own");
            specs.push(MetricSpec::new(format!("val/{name}_permuted_ratio"), label).higher_is_better());
        }
    }
    if model.quantizer.codes().is_some() {
        specs.push(MetricSpec::detail(SIGNAL_TO_NOISE).higher_is_better());
    }
    specs
}
