//! Which positions see which.

use tch::{Kind, Tensor};

/// What a hidden pair gets instead of its logit: finite in float32 and bfloat16, and so large that it absorbs any logit. A query that
/// sees nothing therefore weighs all positions alike, as in LeRobot's SmolVLA, and nothing becomes NaN.
pub const HIDDEN_LOGIT: f64 = -1e30;

/// Added to attention logits: 0 where the bool `allowed_BLM` is true, [`HIDDEN_LOGIT`] elsewhere; float32 `[B,1,L,M]`.
pub fn additive_mask(allowed_BLM: &Tensor) -> Tensor {
    let zeros = Tensor::zeros(allowed_BLM.size(), (Kind::Float, allowed_BLM.device()));
    zeros.masked_fill(&allowed_BLM.logical_not(), HIDDEN_LOGIT).unsqueeze(1)
}

/// The additive mask `[B,1,L,L]` under which a position sees itself and what comes before, as far as the bool `valid_BL` is true.
pub fn causal_mask(valid_BL: &Tensor) -> Tensor {
    let length = valid_BL.size()[1];
    let causal_LL = Tensor::ones([length, length], (Kind::Bool, valid_BL.device())).tril(0);
    additive_mask(&valid_BL.unsqueeze(1).logical_and(&causal_LL))
}
