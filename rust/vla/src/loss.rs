//! Losses and how they add up.
//!
//! Shape suffixes: B samples, T steps, D dimensions per step.

use crate::VlaError;
use crate::flow::FlowNoise;
use crate::observation::{ActionTarget, LatentTarget, Targets};
use hlrp_schema::policy::ObjectiveSpec;
use hlrp_train::MaskedMean;
use tch::{Kind, Tensor};

/// A mean squared error over what is supervised.
pub struct SupervisedLoss {
    /// Mean over every supervised value of the batch; 0 where nothing is supervised.
    pub mean: Tensor,
    /// `[B]` mean over the supervised values of each sample.
    pub per_sample_B: Tensor,
    /// Samples with at least one supervised value.
    pub num_supervised: Tensor,
    /// Supervised values.
    pub num_values: Tensor,
}

impl SupervisedLoss {
    /// From squared errors `[B,T,D]` and supervision `bool [B,T,D]`, or `[B,T,1]` where it is the same for all dimensions.
    pub fn new(squared_error_BTD: &Tensor, is_supervised_BTD: &Tensor) -> Self {
        let num_repeats = squared_error_BTD.size()[2] / is_supervised_BTD.size()[2];
        // Not a product: a value that does not count may be NaN.
        let counted_BTD = squared_error_BTD.masked_fill(&is_supervised_BTD.logical_not(), 0.0);
        let sum_B = counted_BTD.sum_dim_intlist([1, 2].as_slice(), false, Kind::Float);
        let count_B = is_supervised_BTD.sum_dim_intlist([1, 2].as_slice(), false, Kind::Float) * num_repeats as f64;
        let num_values = count_B.sum(Kind::Float);
        Self {
            mean: sum_B.sum(Kind::Float) / num_values.clamp_min(1.0),
            num_supervised: count_B.gt(0.0).sum(Kind::Float),
            per_sample_B: sum_B / count_B.clamp_min(1.0),
            num_values,
        }
    }
}

/// Names of the two losses among the metrics.
pub(crate) const LATENT: &str = "latent_loss";
pub(crate) const ACTION: &str = "action_loss";

/// The weights of the two losses by their names, the latent one first.
pub(crate) fn weights(objective: &ObjectiveSpec) -> [(&'static str, f64); 2] {
    [(LATENT, objective.latent_loss_weight), (ACTION, objective.action_loss_weight)]
}

/// Losses of a batch.
pub struct VlaLoss {
    /// Weighted sum: what is differentiated.
    pub total: Tensor,
    /// On latent actions.
    pub latent: Option<SupervisedLoss>,
    /// On real actions.
    pub action: Option<SupervisedLoss>,
}

impl VlaLoss {
    /// The losses of the objective's mode, the latent one first (both take noise), and their weighted sum.
    ///
    /// # Errors
    /// Whatever one of the losses returns.
    pub(crate) fn of(
        objective: &ObjectiveSpec,
        noise: &mut dyn FlowNoise,
        latent: impl FnOnce(&mut dyn FlowNoise) -> Result<SupervisedLoss, VlaError>,
        action: impl FnOnce(&mut dyn FlowNoise) -> Result<SupervisedLoss, VlaError>,
    ) -> Result<Self, VlaError> {
        let latent = objective.mode.with_latents().then(|| latent(noise)).transpose()?;
        let action = objective.mode.with_actions().then(|| action(noise)).transpose()?;
        Ok(Self::new(objective, latent, action))
    }

    /// The weighted sum of the losses that there are.
    pub(crate) fn new(
        objective: &ObjectiveSpec,
        latent: Option<SupervisedLoss>,
        action: Option<SupervisedLoss>,
    ) -> Self {
        let weighted = [&latent, &action]
            .into_iter()
            .zip(weights(objective))
            .filter_map(|(loss, (_, weight))| loss.as_ref().map(|loss| &loss.mean * weight));
        let total = weighted.reduce(|sum, term| sum + term).unwrap_or_else(|| Tensor::from(0.0_f32));
        Self { total, latent, action }
    }

    /// The losses as the engine combines them over batches, the latent one first.
    pub(crate) fn masked(&self, objective: &ObjectiveSpec) -> Vec<MaskedMean> {
        let losses = [&self.latent, &self.action].into_iter().zip(weights(objective));
        losses
            .filter_map(|(loss, (metric, weight))| {
                Some(MaskedMean { metric, mean: loss.as_ref()?.mean.shallow_clone(), weight })
            })
            .collect()
    }

    /// Scalars by name, left on the device. The names are the same in every mode; an absent loss is 0 over 0 samples.
    pub fn metrics(&self) -> Vec<(&'static str, Tensor)> {
        let detached = |loss: Option<&SupervisedLoss>| match loss {
            Some(loss) => (loss.mean.detach(), loss.num_supervised.shallow_clone()),
            None => (self.total.detach().zeros_like(), self.total.detach().zeros_like()),
        };
        let (latent_loss, num_latent) = detached(self.latent.as_ref());
        let (action_loss, num_action) = detached(self.action.as_ref());
        vec![
            (LATENT, latent_loss),
            (ACTION, action_loss),
            ("num_latent_samples", num_latent),
            ("num_action_samples", num_action),
        ]
    }
}

impl Targets {
    /// Vectors `[B,S,D]` of the latent target and the validity `[B]` of each, checked against `[*, code_seq_len, code_dim]`; 0 where a
    /// masked value is not finite.
    pub(crate) fn latent_vectors(&self, code_seq_len: i64, code_dim: i64) -> Result<(Tensor, Tensor), VlaError> {
        let (vectors_BSD, is_valid_B) = self.latent_target(|target| target.vectors_BSD.as_ref())?;
        check_latent(vectors_BSD, &[code_seq_len, code_dim])?;
        let is_masked_B11 = is_valid_B.logical_not().view([-1, 1, 1]);
        Ok((finite_where_masked(vectors_BSD, &is_masked_B11), is_valid_B.shallow_clone()))
    }

    /// Codes `[B,S]` of the latent target and the validity `[B]` of each, checked against `[*, code_seq_len]`; 0 where masked.
    pub(crate) fn latent_codes(&self, code_seq_len: i64) -> Result<(Tensor, Tensor), VlaError> {
        let (codes_BS, is_valid_B) = self.latent_target(|target| target.codes_BS.as_ref())?;
        check_latent(codes_BS, &[code_seq_len])?;
        Ok((codes_BS.masked_fill(&is_valid_B.logical_not().unsqueeze(1), 0), is_valid_B.shallow_clone()))
    }

    fn latent_target<'a>(
        &'a self,
        part: impl FnOnce(&'a LatentTarget) -> Option<&'a Tensor>,
    ) -> Result<(&'a Tensor, &'a Tensor), VlaError> {
        let target = self.latent.as_ref().and_then(|target| Some((part(target)?, &target.is_valid_B)));
        target.ok_or_else(|| {
            let hint = "give a teacher, or train with policy.objective.mode = actions";
            VlaError::input("latent actions", "the batch has none of the kind that the latent head predicts", hint)
        })
    }

    /// The action target, checked against `[*, chunk_size, action_dim]`; 0 where a masked value is not finite.
    pub(crate) fn action(&self, chunk_size: i64, action_dim: i64) -> Result<ActionTarget, VlaError> {
        let target = self.action.as_ref().ok_or_else(|| {
            VlaError::input(
                "actions",
                "the batch has none",
                "give a source an action key, or train with policy.objective.mode = latent",
            )
        })?;
        let size = target.chunk_BTA.size();
        if size.len() != 3 || size[1..] != [chunk_size, action_dim] {
            let problem = format!("shape {size:?} where [B, {chunk_size}, {action_dim}] is needed");
            return Err(VlaError::input(
                "actions",
                problem,
                "set the data request's action chunk and policy.model to the same sizes",
            ));
        }
        let target = target.steps(0, chunk_size);
        let chunk_BTA = finite_where_masked(&target.chunk_BTA, &target.is_pad_BT.unsqueeze(2));
        Ok(ActionTarget { chunk_BTA: real_dims(&chunk_BTA, target.is_pad_dim_BA.as_ref()), ..target })
    }
}

/// Every latent has the shape that the model was built for.
fn check_latent(latents: &Tensor, shape: &[i64]) -> Result<(), VlaError> {
    let size = latents.size();
    if size.get(1..) == Some(shape) {
        return Ok(());
    }
    let wanted: Vec<String> = shape.iter().map(i64::to_string).collect();
    let problem = format!("shape {size:?} where [B, {}] is needed", wanted.join(", "));
    Err(VlaError::input("latent actions", problem, "use the teacher that the model was built for"))
}

/// `x` with 0 in the dimensions that the robot of a sample lacks, whatever they hold. `is_pad_dim` is `bool [B,D]`, `x` `[B,…,D]`.
pub(crate) fn real_dims(x: &Tensor, is_pad_dim_BD: Option<&Tensor>) -> Tensor {
    let Some(is_pad_dim_BD) = is_pad_dim_BD else { return x.shallow_clone() };
    let is_pad = if x.dim() == 3 { is_pad_dim_BD.unsqueeze(1) } else { is_pad_dim_BD.shallow_clone() };
    x.masked_fill(&is_pad, 0.0)
}

/// `x` with 0 where it is masked and not finite: the flow feeds masked steps to the model, and a NaN there would reach every gradient.
fn finite_where_masked(x: &Tensor, is_masked: &Tensor) -> Tensor {
    x.masked_fill(&x.isfinite().logical_not().logical_and(is_masked), 0.0)
}
