//! Scaled dot-product attention with shared key/value heads.

use tch::Tensor;

/// Attention of `q_BALE` to `k_BGME` and `v_BGME`, scaled by 1/√E; heads come back merged, `[B,L,A·E]`.
///
/// Query head a reads key/value head ⌊a·G/A⌋. `mask` is [additive](super::additive_mask): `[B,1,L,M]`, or with 1 for B.
pub fn attend(q_BALE: &Tensor, k_BGME: &Tensor, v_BGME: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let num_groups = k_BGME.size()[1];
    let repeats = q_BALE.size()[1] / num_groups;
    let mask = mask.map(|mask| mask.to_kind(q_BALE.kind()));
    let out_BALE = if repeats == 1 {
        product_attention(q_BALE, k_BGME, v_BGME, mask.as_ref())
    } else {
        // The heads that share keys and values stand below each other as further queries: nothing is copied per head.
        let stacked = q_BALE.unflatten(1, [num_groups, repeats]).flatten(2, 3);
        let mask = mask.map(|mask| mask.repeat([1, 1, repeats, 1]));
        product_attention(&stacked, k_BGME, v_BGME, mask.as_ref()).unflatten(2, [repeats, -1]).flatten(1, 2)
    };
    out_BALE.transpose(1, 2).flatten(2, 3)
}

fn product_attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, None, false)
}
