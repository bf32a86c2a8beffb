//! One decoder layer, step by step.

use super::RmsNorm;
use crate::{Linear, Scope};
use tch::Tensor;

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
    /// Width of what keys and values are made from: `dim`, or that of another stream.
    pub kv_in_dim: i64,
    /// ε of the norms.
    pub norm_eps: f64,
}

/// RMS norm, attention, residual, RMS norm, gated SiLU feed-forward, residual; no biases.
///
/// The caller owns what lies between the projections: rotation, cache and [attention](super::attend).
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

    /// The stream `[B,L,D]` as attention reads it.
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

    /// All that follows attention: output projection, residual, feed-forward, residual.
    pub fn finish(&self, residual_BLD: &Tensor, attended_BLX: &Tensor) -> Tensor {
        self.feed_forward(&(residual_BLD + self.project_out(attended_BLX)))
    }

    fn split_heads(&self, x_BLX: &Tensor) -> Tensor {
        x_BLX.unflatten(-1, [-1, self.head_dim]).transpose(1, 2)
    }
}
