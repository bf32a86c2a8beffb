//! Prefix and suffix in one forward pass, every layer written out: the form in which LeRobot trains.
//!
//! Training and sampling use the split form in `stack.rs`, which gives the same velocities for less work; this one states what it must
//! equal, for the conformance tests.
//!
//! Shape suffixes: as in `stack.rs`, and L = P + S tokens of both streams.

use super::prefix::Prefix;
use super::stack::{ExpertRole, ExpertStack, ROPE_WAVELENGTH};
use crate::masks;
use hlrp_nn::Pass;
use hlrp_nn::llama::{LlamaStack, Rope, additive_mask, attend};
use tch::{Kind, Tensor};

/// Runs both streams; returns the expert's after its final norm, `[B,S,X]`.
pub(crate) fn joint_forward(
    expert: &ExpertStack,
    backbone: &LlamaStack,
    prefix: &Prefix,
    suffix_BSX: &Tensor,
    pass: &Pass<'_>,
) -> Tensor {
    let (num_prefix, num_suffix) = (prefix.is_valid_BP.size()[1], suffix_BSX.size()[1]);
    let ones_BS = suffix_BSX.select(2, 0).ones_like();
    let suffix_valid_BS = ones_BS.to_kind(Kind::Bool);
    let suffix_opens_BS = ones_BS.to_kind(Kind::Int64);
    let is_valid_BL = Tensor::cat(&[&prefix.is_valid_BP, &suffix_valid_BS], 1);
    let opens_block_BL = Tensor::cat(&[&prefix.opens_block_BP, &suffix_opens_BS], 1);
    let allowed_BLL = masks::block_mask(&is_valid_BL, &opens_block_BL);
    let positions_BL = masks::positions(&is_valid_BL);
    for (name, tensor) in [
        ("prefix_pad_mask", &prefix.is_valid_BP),
        ("prefix_block_flags", &prefix.opens_block_BP),
        ("suffix_pad_mask", &suffix_valid_BS),
        ("suffix_block_flags", &suffix_opens_BS),
        ("attention_mask", &allowed_BLL),
        ("position_ids", &positions_BL),
    ] {
        pass.record(|| name.into(), tensor);
    }

    let suffix_positions_BS = positions_BL.narrow(1, num_prefix, num_suffix);
    let from_zero_BS = &suffix_positions_BS - suffix_positions_BS.amin([1].as_slice(), true);
    let head_dim = expert.head_dim;
    let rope = Rope::new(&positions_BL, head_dim, ROPE_WAVELENGTH);
    let prefix_rope = Rope::new(&positions_BL.narrow(1, 0, num_prefix), head_dim, ROPE_WAVELENGTH);
    let cross_rope = Rope::new(&from_zero_BS, head_dim, ROPE_WAVELENGTH);
    let joint_mask = additive_mask(&allowed_BLL);
    let to_prefix_BLP = allowed_BLL.narrow(2, 0, num_prefix);
    let prefix_mask = additive_mask(&to_prefix_BLP.narrow(1, 0, num_prefix));
    let cross_mask = additive_mask(&to_prefix_BLP.narrow(1, num_prefix, num_suffix));

    let mut x_BPD = prefix.tokens();
    let mut x_BSX = suffix_BSX.shallow_clone();
    for (index, (layer, role)) in backbone.layers().iter().zip(&expert.roles).enumerate() {
        pass.record(|| format!("vlm.layer{index}.in"), &x_BPD);
        let normed_BPD = layer.input_norm(&x_BPD);
        let [q_BAPE, k_BGPE, v_BGPE] = [layer.queries(&normed_BPD), layer.keys(&normed_BPD), layer.values(&normed_BPD)];
        let own = match *role {
            ExpertRole::Joint(own) => {
                let (own_layer, normed_BSX) = (&expert.layers[own], expert.layers[own].input_norm(&x_BSX));
                let both = |prefix: &Tensor, suffix: &Tensor| Tensor::cat(&[prefix, suffix], 2);
                let q_BALE = rope.rotate(&both(&q_BAPE, &own_layer.queries(&normed_BSX)));
                let k_BGLE = rope.rotate(&both(&k_BGPE, &own_layer.keys(&normed_BSX)));
                let v_BGLE = both(&v_BGPE, &own_layer.values(&normed_BSX));
                let attended_BLC = attend(&q_BALE, &k_BGLE, &v_BGLE, Some(&joint_mask));
                Some((own, attended_BLC.narrow(1, 0, num_prefix), attended_BLC.narrow(1, num_prefix, num_suffix)))
            }
            ExpertRole::Cross(own) => {
                let k_BGPE = prefix_rope.rotate(&k_BGPE);
                let attended_BPC = attend(&prefix_rope.rotate(&q_BAPE), &k_BGPE, &v_BGPE, Some(&prefix_mask));
                let [own_k_BGPE, own_v_BGPE] = expert.project(own, &k_BGPE, &v_BGPE);
                let q_BASE = cross_rope.rotate(&expert.layers[own].queries(&expert.layers[own].input_norm(&x_BSX)));
                Some((own, attended_BPC, attend(&q_BASE, &own_k_BGPE, &own_v_BGPE, Some(&cross_mask))))
            }
            ExpertRole::Absent => None,
        };
        let attended_BPC = match own {
            Some((own, attended_BPC, attended_BSC)) => {
                pass.record(|| format!("expert.layer{index}.in"), &x_BSX);
                pass.record(|| format!("expert.layer{index}.attention"), &attended_BSC);
                x_BSX = expert.layers[own].finish(&x_BSX, &attended_BSC);
                attended_BPC
            }
            None => attend(&prefix_rope.rotate(&q_BAPE), &prefix_rope.rotate(&k_BGPE), &v_BGPE, Some(&prefix_mask)),
        };
        pass.record(|| format!("vlm.layer{index}.attention"), &attended_BPC);
        x_BPD = layer.finish(&x_BPD, &attended_BPC);
    }
    pass.record(|| "vlm.last".into(), &x_BPD);
    pass.record(|| "vlm.normed".into(), &backbone.norm().forward(&x_BPD));
    pass.record(|| "expert.last".into(), &x_BSX);
    let out_BSX = expert.norm.forward(&x_BSX);
    pass.record(|| "expert.normed".into(), &out_BSX);
    out_BSX
}
