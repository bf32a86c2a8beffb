//! What a policy sees and what it learns from.
//!
//! An observation is of one time, frame t: no later frame can reach the model through it.
//!
//! Shape suffixes: B samples, C channels, H×W pixels, L language tokens, N dimensions of a state, T steps of a chunk, A dimensions of an action,
//! S code slots, D dimensions of a code vector.

use crate::VlaError;
use crate::flow::FlowNoise;
use hlrp_schema::policy::Mode;
use tch::Tensor;

/// Images of one camera at time t.
pub struct CameraImages {
    /// `[B,3,H,W]` float32 in [−1, 1], at the model's image size.
    pub pixels_BCHW: Tensor,
    /// `bool [B]`: false where the sample lacks this camera.
    pub is_real_B: Tensor,
}

impl CameraImages {
    pub(crate) fn shallow_clone(&self) -> Self {
        Self { pixels_BCHW: self.pixels_BCHW.shallow_clone(), is_real_B: self.is_real_B.shallow_clone() }
    }
}

/// Instructions as tokens.
pub struct Language {
    /// `int64 [B,L]` ids, padded on the right.
    pub ids_BL: Tensor,
    /// `bool [B,L]`: true = real token.
    pub is_valid_BL: Tensor,
}

/// What a policy sees at time t, prepared and normalised.
pub struct Observation {
    /// One entry per configured camera, in that order; none where the whole batch lacks the camera.
    pub cameras: Vec<Option<CameraImages>>,
    /// The instructions.
    pub language: Language,
    /// `[B,N]` normalised states; a robot without one is seen as a zero vector.
    pub state_BN: Option<Tensor>,
}

/// Normalised actions to learn.
pub struct ActionTarget {
    /// `[B,T,A]` float32.
    pub chunk_BTA: Tensor,
    /// `bool [B,T]`: true where the step is outside the episode or has no label.
    pub is_pad_BT: Tensor,
    /// `bool [B,A]`: true where the robot of the sample has no such dimension; none where every robot has all of them.
    pub is_pad_dim_BA: Option<Tensor>,
}

impl ActionTarget {
    /// `bool [B,T,A]`, or `[B,T,1]` where every robot has all dimensions: true for the values to learn.
    pub fn is_supervised_BTA(&self) -> Tensor {
        let is_real_BT1 = self.is_pad_BT.logical_not().unsqueeze(2);
        match &self.is_pad_dim_BA {
            Some(is_pad_dim_BA) => is_real_BT1.logical_and(&is_pad_dim_BA.logical_not().unsqueeze(1)),
            None => is_real_BT1,
        }
    }

    /// The same dimensions of `num_steps` steps from `first` on.
    pub(crate) fn steps(&self, first: i64, num_steps: i64) -> Self {
        let [chunk_BTA, is_pad_BT] = [&self.chunk_BTA, &self.is_pad_BT].map(|x| x.narrow(1, first, num_steps));
        Self { chunk_BTA, is_pad_BT, is_pad_dim_BA: self.is_pad_dim_BA.as_ref().map(Tensor::shallow_clone) }
    }
}

/// Latent actions to learn.
pub struct LatentTarget {
    /// `[B,S,D]` float32 vectors of the teacher, for heads that predict vectors.
    pub vectors_BSD: Option<Tensor>,
    /// `int64 [B,S]` codes of the teacher, for a head that predicts codes.
    pub codes_BS: Option<Tensor>,
    /// `bool [B]`: false where the frame pair is not real.
    pub is_valid_B: Tensor,
}

/// The targets of a batch; a loss that lacks its target is an error.
#[derive(Default)]
pub struct Targets {
    /// For modes with actions.
    pub action: Option<ActionTarget>,
    /// For modes with latents.
    pub latent: Option<LatentTarget>,
}

/// What a policy predicts.
#[derive(Default)]
pub struct Prediction {
    /// `[B,T,A]` normalised actions.
    pub actions_BTA: Option<Tensor>,
    /// `[B,S,D]` latent actions.
    pub latents_BSD: Option<Tensor>,
    /// `int64 [B,S]` codes of latent actions, from a head that predicts codes.
    pub codes_BS: Option<Tensor>,
}

/// What a latent head predicts.
pub(crate) enum Latents {
    /// `[B,S,D]`.
    Vectors(Tensor),
    /// `int64 [B,S]`.
    Codes(Tensor),
}

impl Prediction {
    /// What `mode` predicts, latent actions first: both take noise.
    ///
    /// # Errors
    /// Whatever one of the predictions returns.
    pub(crate) fn of(
        mode: Mode,
        noise: &mut dyn FlowNoise,
        latents: impl FnOnce(&mut dyn FlowNoise) -> Result<Latents, VlaError>,
        actions: impl FnOnce(&mut dyn FlowNoise) -> Result<Tensor, VlaError>,
    ) -> Result<Self, VlaError> {
        let latents = mode.with_latents().then(|| latents(noise)).transpose()?;
        let actions_BTA = mode.with_actions().then(|| actions(noise)).transpose()?;
        let (latents_BSD, codes_BS) = match latents {
            Some(Latents::Vectors(latents_BSD)) => (Some(latents_BSD), None),
            Some(Latents::Codes(codes_BS)) => (None, Some(codes_BS)),
            None => (None, None),
        };
        Ok(Self { actions_BTA, latents_BSD, codes_BS })
    }
}
