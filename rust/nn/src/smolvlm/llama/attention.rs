//! Scaled dot-product attention with shared key/value heads.

use tch::Tensor;

/// Attention of `q_BALE` to `k_BGME` and `v_BGME`, scaled by 1/√E; heads come back merged, `[B,L,A·E]`.
///
/// Query head a reads key/value head ⌊a·G/A⌋. `mask` is [additive](super::additive_mask): `[B,1,L,M]`, or any shape that spreads to
/// it.
pub fn attend(q_BALE: &Tensor, k_BGME: &Tensor, v_BGME: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let repeats = q_BALE.size()[1] / k_BGME.size()[1];
    let out_BALE = Tensor::scaled_dot_product_attention(
        q_BALE,
        &repeat_heads(k_BGME, repeats),
        &repeat_heads(v_BGME, repeats),
        mask.map(|mask| mask.to_kind(q_BALE.kind())),
        0.0,
        false,
        None,
        false,
    );
    out_BALE.transpose(1, 2).flatten(2, 3)
}

/// Each head `repeats` times in a row.
fn repeat_heads(x_BGME: &Tensor, repeats: i64) -> Tensor {
    if repeats == 1 {
        return x_BGME.shallow_clone();
    }
    x_BGME.unsqueeze(2).expand([-1, -1, repeats, -1, -1], false).flatten(1, 2)
}
