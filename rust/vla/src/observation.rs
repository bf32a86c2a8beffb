//! What a policy sees and what it is taught.
//!
//! An observation holds one moment, frame t: no later frame can reach the model through it.
//!
//! Shape suffixes: B samples, C colours, H×W pixels, L language tokens, N numbers of a state, T steps of a chunk, A numbers of an action,
//! S code slots, D numbers of a code vector.

use tch::Tensor;

/// Pictures of one camera at time t.
pub struct CameraImages {
    /// `[B,3,H,W]` float32 in [−1, 1], at the model's image size.
    pub pixels_BCHW: Tensor,
    /// `bool [B]`: false where the sample lacks this camera.
    pub is_real_B: Tensor,
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
    /// `bool [B,T]`: true where the step lies outside the episode or carries no label.
    pub is_pad_BT: Tensor,
}

/// Latent actions to learn.
pub struct LatentTarget {
    /// `[B,S,D]` float32 code vectors of the teacher.
    pub codes_BSD: Tensor,
    /// `bool [B]`: false where the frame pair is not real.
    pub is_valid_B: Tensor,
}

/// What a batch teaches; a loss that lacks its target is an error.
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
}
