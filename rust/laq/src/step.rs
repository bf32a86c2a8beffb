//! One training step and one evaluation step of the model.

use crate::decoders::{DecoderLosses, Predictions, Target, Term};
use crate::draws::Draws;
use crate::model::{Encoded, LaqModel};
use crate::quantizers::{Latent, TrainContext, TrainPass};
use crate::triplets;
use hlrp_nn::Pass;
use hlrp_schema::LatentAblation;
use hlrp_torch::{TorchError, World};
use hlrp_train::RowReset;
use tch::{Tensor, no_grad};

/// What a forward pass sees.
pub struct Samples<'a> {
    /// `[B,2,C,H,W]` float frame pairs in [0, 1], or `[B,3,C,H,W]` with frame t+2k (the additivity loss of `model.triplets`) or with the frame one
    /// step after frame t (a forward model).
    pub frames_BTCHW: &'a Tensor,
    /// `[B,2,H,W]` the flow teacher's flow, where it is known.
    pub flow_B2HW: Option<Tensor>,
}

impl<'a> From<&'a Tensor> for Samples<'a> {
    fn from(frames_BTCHW: &'a Tensor) -> Self {
        Self { frames_BTCHW, flow_B2HW: None }
    }
}

/// Result of a training forward pass.
pub struct TrainStep {
    /// Weighted sum of the decoders' losses, of the quantizer's own and of those of triplets.
    pub loss: Tensor,
    /// The decoders' losses.
    pub losses: DecoderLosses,
    /// `int64 [B,S]` codes; none where the latent is continuous or the step unquantized.
    pub ids_BS: Option<Tensor>,
    /// What the decoders predicted.
    pub predictions: Predictions,
    /// Scalars on the device, by name.
    pub metrics: Vec<(&'static str, Tensor)>,
    /// Rows of parameters that this pass rewrote.
    pub row_resets: Vec<RowReset>,
}

/// Forward pass of training at optimizer step `step` (1-based).
///
/// # Errors
/// Another process of `world` is gone.
pub fn train_step<'a>(
    model: &mut LaqModel,
    samples: impl Into<Samples<'a>>,
    step: u64,
    world: &World,
    draws: &mut dyn Draws,
    pass: &Pass<'_>,
) -> Result<TrainStep, TorchError> {
    let samples = samples.into();
    let frames_BTCHW = &samples.frames_BTCHW.narrow(1, 0, 2);
    model.update_targets(step)?;
    let encoded = model.encode(frames_BTCHW, pass);
    let triplets = triplets::losses(model, samples.frames_BTCHW, &encoded.change_BSQ, world, pass)?;
    let TrainPass { latent, loss: quantizer_loss, mut metrics, mut row_resets } =
        model.quantizer.train_pass(&encoded.change_BSQ, &mut TrainContext { step, world, draws, pass })?;
    for reset in &mut row_resets {
        reset.parameter = format!("{}.{}", LaqModel::QUANTIZER, reset.parameter);
    }
    let action_tokens_BSD = model.bottleneck.action_tokens(&latent.vectors_BSQ);
    pass.record(|| "vq.action_tokens".into(), &action_tokens_BSD);

    let seen_BSD = ablate(&action_tokens_BSD, model.config().latent_ablation, draws);
    let predictions = model.decode(frames_BTCHW, &encoded, &seen_BSD, pass);
    let target = model.target(samples, &encoded);
    model.decoders.observe(&target, world)?;
    let losses = model.decoders.losses_in(world, &predictions, &target)?;
    metrics.extend(model.decoders.metrics(&losses).into_iter().map(|(name, loss)| (name, loss.detach())));
    let mut loss = model.decoders.total(&losses, Some(step));
    if let Some(quantizer_loss) = quantizer_loss {
        loss = loss.g_add(&quantizer_loss);
    }
    for Term { metric, value, weight } in
        triplets.into_iter().chain(model.decoders.terms(&predictions, &target, Some(step)))
    {
        if weight > 0.0 {
            loss = loss.g_add(&(&value * weight));
        }
        metrics.push((metric, value.detach()));
    }
    Ok(TrainStep { loss, losses, ids_BS: latent.ids_BS, predictions, metrics, row_resets })
}

/// Result of an evaluation forward pass.
pub struct EvalStep {
    /// Result of the encoder.
    pub encoded: Encoded,
    /// Vectors and codes.
    pub latent: Latent,
    /// `[B,S,D]` tokens of the latent.
    pub action_tokens_BSD: Tensor,
    /// What the decoders predicted.
    pub predictions: Predictions,
    /// What the predictions are compared with.
    pub target: Target,
    /// The decoders' losses.
    pub losses: DecoderLosses,
}

/// Forward pass of evaluation: hard codes, no noise, no gradient, no change of state.
pub fn eval_step<'a>(model: &LaqModel, samples: impl Into<Samples<'a>>) -> EvalStep {
    let samples = samples.into();
    no_grad(|| {
        let pass = Pass::plain(false);
        let frames_BTCHW = &samples.frames_BTCHW.narrow(1, 0, 2);
        let encoded = model.encode(frames_BTCHW, &pass);
        let latent = model.quantizer.quantize(&encoded.change_BSQ);
        let action_tokens_BSD = model.bottleneck.action_tokens(&latent.vectors_BSQ);
        let seen_BSD = match model.config().latent_ablation {
            LatentAblation::None => action_tokens_BSD.shallow_clone(),
            LatentAblation::PermuteBatch => other_samples(&action_tokens_BSD),
        };
        let predictions = model.decode(frames_BTCHW, &encoded, &seen_BSD, &pass);
        let target = model.target(samples, &encoded);
        let losses = model.decoders.losses(&predictions, &target);
        EvalStep { encoded, latent, action_tokens_BSD, predictions, target, losses }
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
