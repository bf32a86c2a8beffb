//! The decoder as transformers runs it.

use super::super::TextConfig;
use super::{LlamaLayer, LlamaLayerConfig, RmsNorm, Rope, attend};
use crate::{Pass, Scope};
use tch::Tensor;

/// Decoder layers and the final norm.
pub struct LlamaStack {
    layers: Vec<LlamaLayer>,
    norm: RmsNorm,
    head_dim: i64,
    rope_theta: f64,
}

impl LlamaStack {
    /// A stack under the names `layers.N` and `norm`.
    pub fn new(scope: &Scope<'_>, config: &TextConfig) -> Self {
        let layer = LlamaLayerConfig {
            dim: config.hidden_size,
            mlp_dim: config.intermediate_size,
            num_heads: config.num_attention_heads,
            num_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            kv_in_dim: config.hidden_size,
            norm_eps: config.rms_norm_eps,
        };
        let layers = scope.child("layers");
        Self {
            layers: (0..config.num_hidden_layers).map(|index| LlamaLayer::new(&layers.child(index), &layer)).collect(),
            norm: RmsNorm::new(&scope.child("norm"), config.hidden_size, config.rms_norm_eps),
            head_dim: config.head_dim,
            rope_theta: config.rope_theta,
        }
    }

    /// Its layers, for who runs them step by step.
    pub fn layers(&self) -> &[LlamaLayer] {
        &self.layers
    }

    /// The final norm; [`LlamaStack::forward`] ends before it.
    pub fn norm(&self) -> &RmsNorm {
        &self.norm
    }

    /// The residual stream after the last layer, `[B,L,D]` to `[B,L,D]`, with the positions' rotation at `rope_theta` and an
    /// [additive mask](super::additive_mask).
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
