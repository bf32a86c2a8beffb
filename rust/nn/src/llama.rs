//! The Llama text decoder, top to bottom: norm, rotary positions, masks, attention, key/value cache, layer, stack.
//!
//! A caller either runs the decoder as a [`LlamaStack`], or its [`LlamaLayer`]s step by step, interleaved with layers of its own. That is
//! why projections, rotation, attention and feed-forward are separate public steps.
//!
//! Shape suffixes: B samples, L query positions, M key positions, P prefix and S suffix positions, D token width, A query heads,
//! G key/value heads (each serves A/G query heads), E width of a head, R half of E, X any width.

use crate::layers::Linear;
use crate::store::{Init, Scope};
use crate::trace::Pass;
use hlrp_schema::policy::TextSizes;
use tch::{Kind, Tensor};

/// x / √(mean(x²) + ε) · weight over the last dimension, in float32.
pub struct RmsNorm {
    weight_D: Tensor,
    dim: i64,
    eps: f64,
}

impl RmsNorm {
    /// Normalises vectors of `dim` channels.
    pub fn new(scope: &Scope<'_>, dim: i64, eps: f64) -> Self {
        Self { weight_D: scope.parameter("weight", &[dim], Init::Constant(1.0)), dim, eps }
    }

    /// `[…, dim]` to float32 `[…, dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        if x.device().is_cuda() {
            return x.rms_norm([self.dim], Some(&self.weight_D), self.eps);
        }
        // libtorch's kernel is for CUDA; its fallback elsewhere reads `x` twice as often as this.
        let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
        let inverse = (norm.square() / self.dim as f64 + self.eps).rsqrt();
        x * inverse * &self.weight_D
    }
}

/// Cosines and sines for a batch of positions; made once for all layers.
///
/// Channel r of the first half of a head and channel r of the second half turn together, by position / wavelength^(r/R)
/// ([RoFormer](https://arxiv.org/abs/2104.09864), in the half-split layout of Llama).
pub struct Rope {
    cos_B1LR: Tensor,
    sin_B1LR: Tensor,
}

impl Rope {
    /// The table for integer `positions_BL` and heads of width `head_dim`, in float32.
    pub fn new(positions_BL: &Tensor, head_dim: i64, wavelength: f64) -> Self {
        let options = (Kind::Float, positions_BL.device());
        let exponent_R = Tensor::arange_start_step(0, head_dim, 2, options) / head_dim as f64;
        let frequency_R = Tensor::pow_scalar(wavelength, &exponent_R).reciprocal();
        let angle_B1LR = positions_BL.to_kind(Kind::Float).unsqueeze(1).unsqueeze(-1) * frequency_R;
        Self { cos_B1LR: angle_B1LR.cos(), sin_B1LR: angle_B1LR.sin() }
    }

    /// `x_BALE` turned to its positions, in float32 arithmetic and in the number format it came in.
    pub fn rotate(&self, x_BALE: &Tensor) -> Tensor {
        let halves = x_BALE.to_kind(Kind::Float).chunk(2, -1);
        let (first, second) = (&halves[0], &halves[1]);
        let turned =
            [first * &self.cos_B1LR - second * &self.sin_B1LR, second * &self.cos_B1LR + first * &self.sin_B1LR];
        Tensor::cat(&turned, -1).to_kind(x_BALE.kind())
    }

    /// Cosines `[B,1,L,R]`.
    pub fn cos(&self) -> &Tensor {
        &self.cos_B1LR
    }

    /// Sines `[B,1,L,R]`.
    pub fn sin(&self) -> &Tensor {
        &self.sin_B1LR
    }
}

/// Added to the logit of a hidden pair: finite in float32 and bfloat16, and so large that it absorbs any logit. A query that
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

/// Attention of `q_BALE` to `k_BGME` and `v_BGME`, scaled by 1/√E; the heads are returned merged, `[B,L,A·E]`.
///
/// Query head a reads key/value head ⌊a·G/A⌋. `mask` is [additive](additive_mask): `[B,1,L,M]`, or with 1 for B.
pub fn attend(q_BALE: &Tensor, k_BGME: &Tensor, v_BGME: &Tensor, mask: Option<&Tensor>) -> Tensor {
    let num_groups = k_BGME.size()[1];
    let repeats = q_BALE.size()[1] / num_groups;
    let mask = mask.map(|mask| mask.to_kind(q_BALE.kind()));
    let out_BALE = if repeats == 1 {
        product_attention(q_BALE, k_BGME, v_BGME, mask.as_ref())
    } else {
        // The heads that share keys and values are stacked as further queries: nothing is copied per head.
        let stacked = q_BALE.unflatten(1, [num_groups, repeats]).flatten(2, 3);
        let mask = mask.map(|mask| mask.repeat([1, 1, repeats, 1]));
        product_attention(&stacked, k_BGME, v_BGME, mask.as_ref()).unflatten(2, [repeats, -1]).flatten(1, 2)
    };
    out_BALE.transpose(1, 2).flatten(2, 3)
}

fn product_attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, false, None, false)
}

/// Keys and values of a prefix, kept while a suffix is computed many times.
///
/// Per layer, one buffer `[B,G,P+S,E]` each for keys and values: the prefix is written once, the suffix in place at every step, so
/// that a step allocates nothing and addresses never change. For inference; gradients do not flow through it.
pub struct KvCache {
    layers: Vec<[Tensor; 2]>,
    num_prefix: i64,
    num_suffix: i64,
}

impl KvCache {
    /// An empty cache for `num_prefix` positions and at most `num_suffix` further ones.
    pub fn new(num_prefix: i64, num_suffix: i64) -> Self {
        Self { layers: Vec::new(), num_prefix, num_suffix }
    }

    /// Layers written so far.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Keeps the prefix's keys and values of the next layer, `[B,G,P,E]` each.
    ///
    /// # Panics
    /// On another number of positions than announced.
    pub fn push_layer(&mut self, k_BGPE: &Tensor, v_BGPE: &Tensor) {
        let buffer = |x_BGPE: &Tensor| {
            let (batch, groups, positions, width) = x_BGPE.size4().expect("keys and values are [B,G,P,E]");
            assert_eq!(positions, self.num_prefix, "positions of the prefix");
            let options = (x_BGPE.kind(), x_BGPE.device());
            let buffer = Tensor::zeros([batch, groups, positions + self.num_suffix, width], options);
            buffer.narrow(2, 0, positions).copy_(&x_BGPE.detach());
            buffer
        };
        let layer = [buffer(k_BGPE), buffer(v_BGPE)];
        self.layers.push(layer);
    }

    /// The prefix's keys and values `[B,G,P,E]` of a layer.
    pub fn prefix(&self, layer: usize) -> (Tensor, Tensor) {
        let [k, v] = &self.layers[layer];
        (k.narrow(2, 0, self.num_prefix), v.narrow(2, 0, self.num_prefix))
    }

    /// Keys and values `[B,G,P+s,E]` of a layer, those of the prefix and then of a suffix (`[B,G,s,E]`, s ≤ S). The result is a
    /// view that lasts until the next call for this layer.
    pub fn with_suffix(&self, layer: usize, k_BGSE: &Tensor, v_BGSE: &Tensor) -> (Tensor, Tensor) {
        let extended = |buffer: &Tensor, x_BGSE: &Tensor| {
            let positions = x_BGSE.size()[2];
            buffer.narrow(2, self.num_prefix, positions).copy_(&x_BGSE.detach());
            buffer.narrow(2, 0, self.num_prefix + positions)
        };
        let [k, v] = &self.layers[layer];
        (extended(k, k_BGSE), extended(v, v_BGSE))
    }
}

/// Sizes of a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LlamaLayerConfig {
    /// Token width.
    pub dim: i64,
    /// Width inside the feed-forward block.
    pub mlp_dim: i64,
    /// Query heads.
    pub num_heads: i64,
    /// Key/value heads.
    pub num_kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Input width of the key and value projections: `dim`, or that of another stream.
    pub kv_in_dim: i64,
    /// ε of the norms.
    pub norm_eps: f64,
}

/// RMS norm, attention, residual, RMS norm, gated SiLU feed-forward, residual; no biases.
///
/// The caller runs what comes between the projections: rotation, cache and [attention](attend).
pub struct LlamaLayer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    head_dim: i64,
}

impl LlamaLayer {
    /// A layer under the names `input_layernorm`, `self_attn.{q,k,v,o}_proj`, `post_attention_layernorm` and
    /// `mlp.{gate,up,down}_proj`.
    pub fn new(scope: &Scope<'_>, config: &LlamaLayerConfig) -> Self {
        let attention = scope.child("self_attn");
        let mlp = scope.child("mlp");
        let linear =
            |scope: &Scope<'_>, name, in_dim, out_dim| Linear::castable(&scope.child(name), in_dim, out_dim, false);
        let (dim, heads_dim) = (config.dim, config.num_heads * config.head_dim);
        let kv_dim = config.num_kv_heads * config.head_dim;
        Self {
            q_proj: linear(&attention, "q_proj", dim, heads_dim),
            k_proj: linear(&attention, "k_proj", config.kv_in_dim, kv_dim),
            v_proj: linear(&attention, "v_proj", config.kv_in_dim, kv_dim),
            o_proj: linear(&attention, "o_proj", heads_dim, dim),
            gate_proj: linear(&mlp, "gate_proj", dim, config.mlp_dim),
            up_proj: linear(&mlp, "up_proj", dim, config.mlp_dim),
            down_proj: linear(&mlp, "down_proj", config.mlp_dim, dim),
            input_layernorm: RmsNorm::new(&scope.child("input_layernorm"), dim, config.norm_eps),
            post_attention_layernorm: RmsNorm::new(&scope.child("post_attention_layernorm"), dim, config.norm_eps),
            head_dim: config.head_dim,
        }
    }

    /// The input of attention: the stream `[B,L,D]`, normed.
    pub fn input_norm(&self, x_BLD: &Tensor) -> Tensor {
        self.q_proj.cast(&self.input_layernorm.forward(x_BLD))
    }

    /// Queries `[B,A,L,E]` of a normed stream, not rotated.
    pub fn queries(&self, normed_BLD: &Tensor) -> Tensor {
        self.split_heads(&self.q_proj.forward(normed_BLD))
    }

    /// Keys `[B,G,M,E]` of `[B,M,kv_in_dim]`, not rotated.
    pub fn keys(&self, x_BMX: &Tensor) -> Tensor {
        self.split_heads(&self.k_proj.forward(x_BMX))
    }

    /// Values `[B,G,M,E]` of `[B,M,kv_in_dim]`.
    pub fn values(&self, x_BMX: &Tensor) -> Tensor {
        self.split_heads(&self.v_proj.forward(x_BMX))
    }

    /// The output projection of attention: `[B,L,A·E]` to `[B,L,D]`.
    pub fn project_out(&self, attended_BLX: &Tensor) -> Tensor {
        self.o_proj.forward(attended_BLX)
    }

    /// The second half of the layer, residual included: `[B,L,D]` to `[B,L,D]`.
    pub fn feed_forward(&self, x_BLD: &Tensor) -> Tensor {
        let normed_BLD = self.up_proj.cast(&self.post_attention_layernorm.forward(x_BLD));
        let gated = self.gate_proj.forward(&normed_BLD).silu() * self.up_proj.forward(&normed_BLD);
        x_BLD + self.down_proj.forward(&gated)
    }

    /// Everything after attention: output projection, residual, feed-forward, residual.
    pub fn finish(&self, residual_BLD: &Tensor, attended_BLX: &Tensor) -> Tensor {
        self.feed_forward(&(residual_BLD + self.project_out(attended_BLX)))
    }

    fn split_heads(&self, x_BLX: &Tensor) -> Tensor {
        x_BLX.unflatten(-1, [-1, self.head_dim]).transpose(1, 2)
    }
}

/// Decoder layers and the final norm.
pub struct LlamaStack {
    layers: Vec<LlamaLayer>,
    norm: RmsNorm,
    head_dim: i64,
    rope_theta: f64,
}

impl LlamaStack {
    /// A stack under the names `layers.N` and `norm`.
    pub fn new(scope: &Scope<'_>, sizes: &TextSizes) -> Self {
        let layer = LlamaLayerConfig {
            dim: sizes.hidden_size,
            mlp_dim: sizes.intermediate_size,
            num_heads: sizes.num_attention_heads,
            num_kv_heads: sizes.num_key_value_heads,
            head_dim: sizes.head_dim,
            kv_in_dim: sizes.hidden_size,
            norm_eps: sizes.rms_norm_eps,
        };
        let layers = scope.child("layers");
        Self {
            layers: (0..sizes.num_hidden_layers).map(|index| LlamaLayer::new(&layers.child(index), &layer)).collect(),
            norm: RmsNorm::new(&scope.child("norm"), sizes.hidden_size, sizes.rms_norm_eps),
            head_dim: sizes.head_dim,
            rope_theta: sizes.rope_theta,
        }
    }

    /// The layers, for a caller that runs them step by step.
    pub fn layers(&self) -> &[LlamaLayer] {
        &self.layers
    }

    /// The final norm; [`LlamaStack::forward`] ends before it.
    pub fn norm(&self) -> &RmsNorm {
        &self.norm
    }

    /// The residual stream after the last layer, `[B,L,D]` to `[B,L,D]`, with the positions' rotation at `rope_theta` and an
    /// [additive mask](additive_mask).
    ///
    /// Records `rope_{cos,sin}` and `layer{i}.{input_layernorm,self_attn}`, `layer{i}`.
    pub fn forward(&self, x_BLD: &Tensor, positions_BL: &Tensor, mask_B1LL: &Tensor, pass: &Pass<'_>) -> Tensor {
        let rope = Rope::new(positions_BL, self.head_dim, self.rope_theta);
        pass.record(|| "rope_cos".to_owned(), rope.cos());
        pass.record(|| "rope_sin".to_owned(), rope.sin());
        let mut x_BLD = x_BLD.shallow_clone();
        for (index, layer) in self.layers.iter().enumerate() {
            let normed_BLD = layer.input_norm(&x_BLD);
            pass.record(|| format!("layer{index}.input_layernorm"), &normed_BLD);
            let q_BALE = rope.rotate(&layer.queries(&normed_BLD));
            let k_BGLE = rope.rotate(&layer.keys(&normed_BLD));
            let v_BGLE = layer.values(&normed_BLD);
            let attended_BLD = layer.project_out(&attend(&q_BALE, &k_BGLE, &v_BGLE, Some(mask_B1LL)));
            pass.record(|| format!("layer{index}.self_attn"), &attended_BLD);
            x_BLD = layer.feed_forward(&(x_BLD + attended_BLD));
            pass.record(|| format!("layer{index}"), &x_BLD);
        }
        x_BLD
    }
}
