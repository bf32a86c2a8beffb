//! No quantizer: latents are the changes themselves.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector.

use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass};
use crate::dims::Dims;
use crate::moments::RunningMoments;
use hlrp_nn::Scope;
use hlrp_torch::TorchError;
use tch::{Kind, Tensor};

/// Keeps a dimension finite that does not vary.
const MIN_STD: f64 = 1e-6;

/// What training saw of the latents.
pub(super) struct Continuous {
    /// Of `[Q]`, over samples and slots.
    moments: RunningMoments,
}

impl Continuous {
    /// `decay` is the fraction of the old average per step in the running mean and variance.
    pub(super) fn new(scope: &Scope<'_>, dims: &Dims, decay: f64) -> Self {
        Self { moments: RunningMoments::new(&scope.child("latent_moments"), &[dims.code_dim], decay) }
    }
}

impl Quantizer for Continuous {
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        self.moments.update(&change_BSQ.flatten(0, 1), context.world)?;
        let std = self.moments.variance().mean(Kind::Float).sqrt();
        let latent = Latent { vectors_BSQ: change_BSQ.shallow_clone(), ids_BS: None };
        Ok(TrainPass { latent, loss: None, metrics: vec![("latent_std", std)], row_resets: Vec::new() })
    }

    fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        Latent { vectors_BSQ: change_BSQ.shallow_clone(), ids_BS: None }
    }

    fn scale(&self) -> Scale {
        Scale { mean_Q: self.moments.mean().shallow_clone(), std_Q: self.moments.variance().sqrt().clamp_min(MIN_STD) }
    }

    fn codes(&self) -> Option<&dyn Codes> {
        None
    }
}
