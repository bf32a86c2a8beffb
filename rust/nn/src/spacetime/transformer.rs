//! Transformer layers over a token grid in space and time.

use super::attention::{CosineAttention, CosineAttentionConfig};
use super::position::Peg;
use crate::layers::{GammaNorm, GegluFeedForward};
use crate::store::Scope;
use crate::trace::Pass;
use tch::Tensor;

/// Sizes of a transformer.
#[derive(Debug, Clone, Copy)]
pub struct SpaceTimeConfig {
    /// Token width.
    pub dim: i64,
    /// CosineAttention heads.
    pub heads: i64,
    /// Width of a head.
    pub dim_head: i64,
    /// Layers.
    pub depth: i64,
    /// Whether layers also attend to a context.
    pub cross_attention: bool,
    /// Fraction of attention weights dropped in training.
    pub attn_dropout: f64,
    /// Fraction of feed-forward activations dropped in training.
    pub ff_dropout: f64,
}

/// Which tokens see each other in self-attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttendOver {
    /// Those of one frame.
    Space,
    /// Those of one grid position.
    Time,
}

/// Per layer: position convolution, self-attention, attention to a context when there is one, feed-forward; a norm at the end.
pub struct SpaceTimeTransformer {
    name: &'static str,
    attend_over: AttendOver,
    layers: Vec<Layer>,
    norm_out: GammaNorm,
}

struct Layer {
    peg: Peg,
    self_attention: CosineAttention,
    cross_attention: Option<CosineAttention>,
    feed_forward: GegluFeedForward,
}

impl SpaceTimeTransformer {
    /// A transformer that records its intermediate results as `name.l{layer}.{peg,self_attn,cross_attn,out}` and `name.norm_out`.
    pub fn new(scope: &Scope<'_>, name: &'static str, attend_over: AttendOver, config: SpaceTimeConfig) -> Self {
        let attention = |cross| CosineAttentionConfig {
            dim: config.dim,
            heads: config.heads,
            dim_head: config.dim_head,
            cross,
            dropout: config.attn_dropout,
        };
        let layer = |index| {
            let scope = scope.child("layers").child(index);
            Layer {
                peg: Peg::new(&scope.child(0), config.dim),
                self_attention: CosineAttention::new(&scope.child(1), attention(false)),
                cross_attention: config.cross_attention.then(|| CosineAttention::new(&scope.child(2), attention(true))),
                feed_forward: GegluFeedForward::new(&scope.child(3), config.dim, config.ff_dropout),
            }
        };
        Self {
            name,
            attend_over,
            layers: (0..config.depth).map(layer).collect(),
            norm_out: GammaNorm::new(&scope.child("norm_out"), config.dim),
        }
    }

    /// `[B,T,H,W,D]` to the same shape. `bias_ANN` is the position bias, `context_BMD` the context of cross-attention
    /// (with a context, T is 1).
    pub fn forward(
        &self,
        x_BTHWD: &Tensor,
        bias_ANN: Option<&Tensor>,
        context_BMD: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Tensor {
        let record = |index: usize, what: &str, tensor: &Tensor| {
            pass.record(|| format!("{}.l{index}.{what}", self.name), tensor);
        };
        let mut x_BTHWD = x_BTHWD.shallow_clone();
        for (index, layer) in self.layers.iter().enumerate() {
            let peg = layer.peg.forward(&x_BTHWD);
            record(index, "peg", &peg);
            x_BTHWD = &x_BTHWD + peg;

            let attended = self.self_attention(layer, &x_BTHWD, bias_ANN, pass.train);
            record(index, "self_attn", &attended);
            x_BTHWD = &x_BTHWD + attended;

            if let (Some(attention), Some(context_BMD)) = (&layer.cross_attention, context_BMD) {
                let attended =
                    attention.attend_to_context(&x_BTHWD.flatten(1, 3), context_BMD, pass.train).view_as(&x_BTHWD);
                record(index, "cross_attn", &attended);
                x_BTHWD = &x_BTHWD + attended;
            }

            x_BTHWD = &x_BTHWD + layer.feed_forward.forward(&x_BTHWD, pass.train);
            record(index, "out", &x_BTHWD);
        }
        let out = self.norm_out.forward(&x_BTHWD);
        pass.record(|| format!("{}.norm_out", self.name), &out);
        out
    }

    fn self_attention(&self, layer: &Layer, x_BTHWD: &Tensor, bias_ANN: Option<&Tensor>, train: bool) -> Tensor {
        match self.attend_over {
            AttendOver::Space => {
                let x_GND = x_BTHWD.flatten(2, 3).flatten(0, 1);
                layer.self_attention.attend_to_self(&x_GND, bias_ANN, train).view_as(x_BTHWD)
            }
            AttendOver::Time => {
                let x_BHWTD = x_BTHWD.permute([0, 2, 3, 1, 4]).contiguous();
                let y_BHWTD =
                    layer.self_attention.attend_to_self(&x_BHWTD.flatten(0, 2), bias_ANN, train).view_as(&x_BHWTD);
                y_BHWTD.permute([0, 3, 1, 2, 4]).contiguous()
            }
        }
    }
}
