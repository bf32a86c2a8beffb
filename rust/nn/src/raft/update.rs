//! One refinement of the flow.

use super::RaftSize;
use super::encoder::{ConvNorm, Norm};
use crate::layers::Conv2d;
use crate::store::Scope;
use tch::Tensor;

/// Sizes of the update.
pub(super) struct UpdateShape {
    pub(super) size: RaftSize,
    pub(super) correlation_dim: i64,
    pub(super) hidden_dim: i64,
    pub(super) context_dim: i64,
}

/// Motion features, a recurrent unit, and the change of the flow.
pub(super) struct UpdateBlock {
    correlation: Vec<ConvNorm>,
    flow: [ConvNorm; 2],
    both: ConvNorm,
    units: Vec<ConvGru>,
    head: [Conv2d; 2],
}

impl UpdateBlock {
    pub(super) fn new(scope: &Scope<'_>, shape: &UpdateShape) -> Self {
        let motion = scope.child("motion_encoder");
        let conv = |name: &str, channels: [i64; 2], kernel| {
            ConvNorm::new(&motion.child(name), channels, kernel, 1, Norm::None, true)
        };
        let is_large = shape.size == RaftSize::Large;
        let (flow_dims, motion_dim, head_dim) = if is_large { ([128, 64], 128, 256) } else { ([64, 32], 82, 128) };
        let correlation = match is_large {
            true => {
                vec![conv("convcorr1", [shape.correlation_dim, 256], 1), conv("convcorr2", [256, 192], 3)]
            }
            false => vec![conv("convcorr1", [shape.correlation_dim, 96], 1)],
        };
        let correlated_dim = if is_large { 192 } else { 96 };
        let kernels: &[[i64; 2]] = if is_large { &[[1, 5], [5, 1]] } else { &[[3, 3]] };
        let unit = |(index, kernel): (usize, &[i64; 2])| {
            let scope = scope.child("recurrent_block").child(format!("convgru{}", index + 1));
            ConvGru::new(&scope, shape.context_dim + motion_dim, shape.hidden_dim, *kernel)
        };
        let head = scope.child("flow_head");
        Self {
            correlation,
            flow: [conv("convflow1", [2, flow_dims[0]], 7), conv("convflow2", flow_dims, 3)],
            both: conv("conv", [correlated_dim + flow_dims[1], motion_dim - 2], 3),
            units: kernels.iter().enumerate().map(unit).collect(),
            head: [
                Conv2d::new(&head.child("conv1"), [shape.hidden_dim, head_dim], [3, 3], 1, [1, 1]),
                Conv2d::new(&head.child("conv2"), [head_dim, 2], [3, 3], 1, [1, 1]),
            ],
        }
    }

    /// Motion features of a flow and of the correlations at its ends; the last two channels are the flow itself.
    pub(super) fn motion(&self, flow_B2HW: &Tensor, near: &Tensor) -> Tensor {
        let correlated = self.correlation.iter().fold(near.shallow_clone(), |x, conv| conv.forward(&x));
        let flow = self.flow[1].forward(&self.flow[0].forward(flow_B2HW));
        Tensor::cat(&[&self.both.forward(&Tensor::cat(&[correlated, flow], 1)), flow_B2HW], 1)
    }

    /// The next hidden state.
    pub(super) fn recurrent(&self, hidden: &Tensor, input: &Tensor) -> Tensor {
        self.units.iter().fold(hidden.shallow_clone(), |hidden, unit| unit.forward(&hidden, input))
    }

    /// The change of the flow.
    pub(super) fn delta(&self, hidden: &Tensor) -> Tensor {
        self.head[1].forward(&self.head[0].forward(hidden).relu())
    }
}

/// A gated recurrent unit whose maps are convolutions.
struct ConvGru {
    update: Conv2d,
    reset: Conv2d,
    candidate: Conv2d,
}

impl ConvGru {
    fn new(scope: &Scope<'_>, input_dim: i64, hidden_dim: i64, kernel: [i64; 2]) -> Self {
        let padding = kernel.map(|side| side / 2);
        let conv = |name| Conv2d::new(&scope.child(name), [hidden_dim + input_dim, hidden_dim], kernel, 1, padding);
        Self { update: conv("convz"), reset: conv("convr"), candidate: conv("convq") }
    }

    fn forward(&self, hidden: &Tensor, input: &Tensor) -> Tensor {
        let both = Tensor::cat(&[hidden, input], 1);
        let (update, reset) = (self.update.forward(&both).sigmoid(), self.reset.forward(&both).sigmoid());
        let candidate = self.candidate.forward(&Tensor::cat(&[&(reset * hidden), input], 1)).tanh();
        hidden * (1.0 - &update) + update * candidate
    }
}

/// Logits of the weights with which the flow is upsampled.
pub(super) struct MaskPredictor {
    hidden: ConvNorm,
    out: Conv2d,
}

impl MaskPredictor {
    /// The factor with which the published weights were trained.
    const MULTIPLIER: f64 = 0.25;

    pub(super) fn new(scope: &Scope<'_>, hidden_dim: i64) -> Self {
        Self {
            hidden: ConvNorm::new(&scope.child("convrelu"), [hidden_dim, 256], 3, 1, Norm::None, true),
            out: Conv2d::new(&scope.child("conv"), [256, super::FACTOR * super::FACTOR * 9], [1, 1], 1, [0, 0]),
        }
    }

    pub(super) fn forward(&self, hidden: &Tensor) -> Tensor {
        self.out.forward(&self.hidden.forward(hidden)) * Self::MULTIPLIER
    }
}
