//! Cosine-similarity attention.

use crate::layers::{GammaNorm, Linear};
use crate::store::{Init, Scope};
use tch::Tensor;

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy)]
pub struct CosineAttentionConfig {
    /// Token width.
    pub dim: i64,
    /// Attention heads.
    pub heads: i64,
    /// Width of a head.
    pub dim_head: i64,
    /// Whether keys and values come from a context instead of the tokens themselves.
    pub cross: bool,
    /// Fraction of attention weights dropped in training.
    pub dropout: f64,
}

/// Attention whose logits are 8·cos(q, k), with learned scales per channel; no linear map has a bias.
///
/// Self-attention takes its keys and values from the tokens before normalisation. Cross-attention normalises its context and
/// prepends [`CosineAttention::NUM_NULL`] learned keys and values to it.
pub struct CosineAttention {
    config: CosineAttentionConfig,
    norm: GammaNorm,
    context: Option<ContextInput>,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    q_scale_E: Tensor,
    k_scale_E: Tensor,
}

/// What only cross-attention has.
struct ContextInput {
    norm: GammaNorm,
    /// `[A, 2·NUM_NULL, E]`: even rows keys, odd rows values.
    null_kv: Tensor,
}

impl CosineAttention {
    /// Learned keys (and values) before those of the context.
    pub const NUM_NULL: i64 = 2;
    /// Fixed factor on the cosine.
    const LOGIT_SCALE: f64 = 8.0;
    /// Smallest norm that a vector is divided by.
    const MIN_NORM: f64 = 1e-12;

    /// A layer under the names `norm`, `to_q`, `to_kv`, `to_out`, `q_scale`, `k_scale` and, with a context, `context_norm`, `null_kv`.
    pub fn new(scope: &Scope<'_>, config: CosineAttentionConfig) -> Self {
        let inner = config.heads * config.dim_head;
        let ones = Init::Constant(1.0);
        Self {
            config,
            context: config.cross.then(|| ContextInput {
                null_kv: scope.parameter("null_kv", &[config.heads, 2 * Self::NUM_NULL, config.dim_head], Init::Normal),
                norm: GammaNorm::new(&scope.child("context_norm"), config.dim),
            }),
            q_scale_E: scope.parameter("q_scale", &[config.dim_head], ones),
            k_scale_E: scope.parameter("k_scale", &[config.dim_head], ones),
            norm: GammaNorm::new(&scope.child("norm"), config.dim),
            to_q: Linear::new(&scope.child("to_q"), config.dim, inner, false),
            to_kv: Linear::new(&scope.child("to_kv"), config.dim, 2 * inner, false),
            to_out: Linear::new(&scope.child("to_out"), inner, config.dim, false),
        }
    }

    /// Attention of the tokens of each group to each other. `bias_ANN` is added to the logits.
    pub fn attend_to_self(&self, x_GND: &Tensor, bias_ANN: Option<&Tensor>, train: bool) -> Tensor {
        assert!(self.context.is_none(), "this layer was built for a context");
        let (k_GANE, v_GANE) = self.keys_and_values(x_GND);
        self.attend(x_GND, &k_GANE, &v_GANE, bias_ANN, train)
    }

    /// Attention of the tokens of each group to that group's context `[G,M,D]`.
    pub fn attend_to_context(&self, x_GND: &Tensor, context_GMD: &Tensor, train: bool) -> Tensor {
        let input = self.context.as_ref().expect("this layer was built without a context");
        let (k_GAME, v_GAME) = self.keys_and_values(&input.norm.forward(context_GMD));
        let null = input.null_kv.view([self.config.heads, Self::NUM_NULL, 2, self.config.dim_head]);
        let prepend = |row: i64, x_GAME: &Tensor| {
            let null_GAME = null.select(2, row).unsqueeze(0).expand([x_GAME.size()[0], -1, -1, -1], false);
            Tensor::cat(&[null_GAME.to_kind(x_GAME.kind()), x_GAME.shallow_clone()], 2)
        };
        self.attend(x_GND, &prepend(0, &k_GAME), &prepend(1, &v_GAME), None, train)
    }

    fn keys_and_values(&self, input_GMD: &Tensor) -> (Tensor, Tensor) {
        let kv = self.to_kv.forward(input_GMD).chunk(2, -1);
        (self.split_heads(&kv[0]), self.split_heads(&kv[1]))
    }

    fn attend(
        &self,
        x_GND: &Tensor,
        k_GAME: &Tensor,
        v_GAME: &Tensor,
        bias_ANN: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let q_GANE = self.split_heads(&self.to_q.forward(&self.norm.forward(x_GND)));
        let out_GANE = Tensor::scaled_dot_product_attention(
            &(unit(&q_GANE) * &self.q_scale_E),
            &(unit(k_GAME) * &self.k_scale_E),
            v_GAME,
            bias_ANN.map(|bias| bias.unsqueeze(0)),
            if train { self.config.dropout } else { 0.0 },
            false,
            Self::LOGIT_SCALE,
            false,
        );
        self.to_out.forward(&out_GANE.transpose(1, 2).flatten(2, 3))
    }

    /// `[G,N,A·E]` to `[G,A,N,E]`.
    fn split_heads(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        x.view([size[0], size[1], self.config.heads, self.config.dim_head]).transpose(1, 2)
    }
}

/// Vectors of the last dimension at length 1.
fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2.0, [-1].as_slice(), true).clamp_min(CosineAttention::MIN_NORM)
}
