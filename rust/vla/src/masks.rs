//! Who may look at whom.
//!
//! A sequence is cut into blocks: a token with block flag 1 opens a new one. A token sees the valid tokens of its own and of earlier blocks,
//! so tokens of one block see each other and a run of flags 1 is causal.
//!
//! Shape suffixes: B samples, L tokens, Q queries, K keys.

use tch::{Kind, Tensor};

/// `bool [B,L,L]`: query × key, from validity `bool [B,L]` and block flags `int64 [B,L]`.
pub fn block_mask(is_valid_BL: &Tensor, opens_block_BL: &Tensor) -> Tensor {
    let block_BL = opens_block_BL.cumsum(1, Kind::Int64);
    let reaches_BLL = block_BL.unsqueeze(1).le_tensor(&block_BL.unsqueeze(2));
    let both_valid_BLL = is_valid_BL.unsqueeze(1).logical_and(&is_valid_BL.unsqueeze(2));
    reaches_BLL.logical_and(&both_valid_BLL)
}

/// Rotary positions `int64 [B,L]`: a token's index among the valid ones (−1 before the first).
pub fn positions(is_valid_BL: &Tensor) -> Tensor {
    is_valid_BL.cumsum(1, Kind::Int64) - 1
}

/// `bool [S,S]`: each of S tokens sees itself and those before it.
pub(crate) fn causal(num_tokens: i64, device: tch::Device) -> Tensor {
    Tensor::ones([num_tokens, num_tokens], (Kind::Bool, device)).tril(0)
}

/// The validity `bool [B]` of samples as that of all dimensions of their slots, `[B,S,1]`.
pub(crate) fn by_slot(is_valid_B: &Tensor, num_slots: i64) -> Tensor {
    is_valid_B.view([-1, 1, 1]).expand([-1, num_slots, 1], false)
}
