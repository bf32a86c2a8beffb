//! One training step and one evaluation step of the model.

use crate::quantizer::{RefreshSchedule, count_codes, cutoff, is_unused, perplexity};
use crate::{DecoderLosses, Draws, Encoded, LaqModel, Predictions};
use hlrp_nn::Pass;
use hlrp_schema::LatentAblation;
use tch::{Kind, Tensor, no_grad};

/// Result of a training forward pass.
pub struct TrainStep {
    /// Weighted sum of the decoders' losses.
    pub loss: Tensor,
    /// The decoders' losses.
    pub losses: DecoderLosses,
    /// `int64 [B,S]` codes.
    pub ids_BS: Tensor,
    /// What the decoders predicted.
    pub predictions: Predictions,
    /// Scalars on the device, by name.
    pub metrics: Vec<(&'static str, Tensor)>,
    /// `int64 [R]` codebook rows that this pass rewrote.
    pub rewritten: Option<Tensor>,
}

/// When and how strictly a training step refreshes the codebook.
pub struct RefreshPlan<'a> {
    /// When.
    pub schedule: &'a RefreshSchedule,
    /// Whether this optimizer step already refreshed (an earlier micro-batch of it).
    pub done: bool,
}

/// Forward pass of training at optimizer step `step` (1-based) over float frame pairs `[B,2,C,H,W]` in [0, 1].
///
/// The codebook changes after everything that depends on it was computed. Only a pass that refreshes waits for the device.
pub fn train_step(
    model: &mut LaqModel,
    frames_BTCHW: &Tensor,
    step: u64,
    refresh: &RefreshPlan<'_>,
    draws: &mut dyn Draws,
    pass: &Pass<'_>,
) -> TrainStep {
    let encoded = model.encode(frames_BTCHW, pass);
    let distances_BSK = model.quantizer.distances(&encoded.change_BSQ);
    pass.record(|| "vq.distances".into(), &distances_BSK);
    let ids_BS = distances_BSK.argmin(-1, false);
    let noisy_BSQ = model.quantizer.substitute_noise(&encoded.change_BSQ, &ids_BS, draws);
    pass.record(|| "vq.before_project_out".into(), &noisy_BSQ);
    let action_tokens_BSD = model.quantizer.action_tokens(&noisy_BSQ);
    pass.record(|| "vq.action_tokens".into(), &action_tokens_BSD);

    let counts_K = count_codes(&ids_BS, model.dims().codebook_size);
    model.quantizer.usage.add(&counts_K);
    let mut metrics = code_metrics(model, &counts_K);
    let rewritten = refresh_if_due(model, step, refresh, draws, &mut metrics);

    let seen_BSD = ablate(&action_tokens_BSD, model.config().latent_ablation, draws);
    let predictions = model.decode(frames_BTCHW, &encoded, &seen_BSD, pass);
    let losses = DecoderLosses::new(frames_BTCHW, &encoded, &predictions);
    metrics.extend(losses.by_name().into_iter().map(|(name, loss)| (name, loss.detach())));
    TrainStep { loss: losses.total(model, Some(step)), losses, ids_BS, predictions, metrics, rewritten }
}

/// Result of an evaluation forward pass.
pub struct EvalStep {
    /// What the encoder found.
    pub encoded: Encoded,
    /// `int64 [B,S]` codes.
    pub ids_BS: Tensor,
    /// `[B,S,D]` tokens of the codes.
    pub action_tokens_BSD: Tensor,
    /// What the decoders predicted.
    pub predictions: Predictions,
    /// The decoders' losses.
    pub losses: DecoderLosses,
}

/// Forward pass of evaluation: hard codes, no noise, no gradient, no change of state.
pub fn eval_step(model: &LaqModel, frames_BTCHW: &Tensor) -> EvalStep {
    no_grad(|| {
        let pass = Pass::plain(false);
        let encoded = model.encode(frames_BTCHW, &pass);
        let ids_BS = model.quantizer.nearest(&encoded.change_BSQ);
        let action_tokens_BSD = model.quantizer.action_tokens(&model.quantizer.lookup(&ids_BS));
        let seen_BSD = match model.config().latent_ablation {
            LatentAblation::None => action_tokens_BSD.shallow_clone(),
            LatentAblation::PermuteBatch => other_samples(&action_tokens_BSD),
        };
        let predictions = model.decode(frames_BTCHW, &encoded, &seen_BSD, &pass);
        let losses = DecoderLosses::new(frames_BTCHW, &encoded, &predictions);
        EvalStep { encoded, ids_BS, action_tokens_BSD, predictions, losses }
    })
}

/// Each sample's tokens replaced by those of the sample half a batch away: a fixed permutation without fixed points.
pub fn other_samples(tokens_BSD: &Tensor) -> Tensor {
    let half = (tokens_BSD.size()[0] / 2).max(1);
    tokens_BSD.roll([half], [0])
}

fn ablate(action_tokens_BSD: &Tensor, ablation: LatentAblation, draws: &mut dyn Draws) -> Tensor {
    let num_samples = action_tokens_BSD.size()[0];
    if ablation == LatentAblation::PermuteBatch && num_samples > 1 {
        let order = draws.permutation(num_samples, action_tokens_BSD.device());
        return action_tokens_BSD.index_select(0, &order);
    }
    action_tokens_BSD.shallow_clone()
}

/// Code statistics of a batch and of the window, without waiting for the device. `codebook_replaced_count` is what a refresh at this
/// step rewrites or would rewrite; `codebook_replaced` tells whether it happened.
fn code_metrics(model: &LaqModel, counts_K: &Tensor) -> Vec<(&'static str, Tensor)> {
    no_grad(|| {
        let usage = &model.quantizer.usage;
        let threshold = model.config().vq_discarding_threshold;
        let num_codes = model.dims().codebook_size;
        let unused_K = is_unused(usage.window(), threshold);
        let num_unused = unused_K.sum(Kind::Float);
        vec![
            ("vq_perplexity", perplexity(counts_K)),
            ("num_unique_codes", counts_K.gt(0).sum(Kind::Float)),
            ("codebook_replaced", num_unused.zeros_like()),
            ("codebook_replaced_count", num_unused.shallow_clone()),
            ("codebook_used_count", unused_K.logical_not().sum(Kind::Float)),
            ("codebook_min_count", cutoff(usage.window(), threshold)),
            ("codebook_window_total", usage.window().sum(Kind::Int64).to_kind(Kind::Float)),
            ("codebook_window_perplexity", perplexity(usage.recent())),
            ("codebook_dead_fraction", num_unused / num_codes as f64),
        ]
    })
}

/// Refreshes when the schedule says so and notes it in `metrics`.
fn refresh_if_due(
    model: &mut LaqModel,
    step: u64,
    plan: &RefreshPlan<'_>,
    draws: &mut dyn Draws,
    metrics: &mut [(&'static str, Tensor)],
) -> Option<Tensor> {
    if plan.done || !plan.schedule.is_due(step) {
        return None;
    }
    let threshold = model.config().vq_discarding_threshold;
    let refresh = model.quantizer.refresh(threshold, draws);
    let (num_unused, num_used) = (refresh.unused.size()[0], refresh.used.size()[0]);
    tracing::info!(
        step,
        rewritten = num_unused,
        used = num_used,
        assignments = refresh.num_assignments,
        cutoff = refresh.cutoff,
        "codebook refreshed"
    );
    for (name, value) in metrics {
        if *name == "codebook_replaced" {
            *value = value.ones_like();
        }
    }
    (num_unused > 0).then_some(refresh.unused)
}
