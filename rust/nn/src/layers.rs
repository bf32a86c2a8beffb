//! Layers that more than one family uses.

use crate::store::{Init, Scope};
use tch::Tensor;

/// PyTorch's ε of layer normalisation.
const EPS: f64 = 1e-5;

/// `x·weightᵀ + bias` over the last dimension.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map from `in_dim` to `out_dim` channels, in float32.
    pub fn new(scope: &Scope<'_>, in_dim: i64, out_dim: i64, with_bias: bool) -> Self {
        Self::of(|name, shape| scope.parameter(name, shape, Init::FanIn(in_dim)), in_dim, out_dim, with_bias)
    }

    /// The same, of a part that always runs under the caller's autocast: [castable](Scope::castable).
    pub fn castable(scope: &Scope<'_>, in_dim: i64, out_dim: i64, with_bias: bool) -> Self {
        Self::of(|name, shape| scope.castable(name, shape, Init::FanIn(in_dim)), in_dim, out_dim, with_bias)
    }

    fn of(register: impl Fn(&str, &[i64]) -> Tensor, in_dim: i64, out_dim: i64, with_bias: bool) -> Self {
        Self { weight: register("weight", &[out_dim, in_dim]), bias: with_bias.then(|| register("bias", &[out_dim])) }
    }

    /// `x` in the number format of the weights, to be called once for an input of several maps of one format. A tensor with a gradient
    /// is returned as it is: the maps' gradients then add up in its own format.
    pub fn cast(&self, x: &Tensor) -> Tensor {
        if x.requires_grad() { x.shallow_clone() } else { x.to_kind(self.weight.kind()) }
    }

    /// `[…, in_dim]` to `[…, out_dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// A 2-D convolution with a bias over `[B,C,H,W]`.
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: [i64; 2],
}

impl Conv2d {
    /// From `in_dim` to `out_dim` channels; `kernel` and zero `padding` are rows and columns.
    pub fn new(
        scope: &Scope<'_>,
        [in_dim, out_dim]: [i64; 2],
        kernel: [i64; 2],
        stride: i64,
        padding: [i64; 2],
    ) -> Self {
        let init = Init::FanIn(in_dim * kernel[0] * kernel[1]);
        Self {
            weight: scope.parameter("weight", &[out_dim, in_dim, kernel[0], kernel[1]], init),
            bias: scope.parameter("bias", &[out_dim], init),
            stride,
            padding,
        }
    }

    /// `[B,C,H,W]` to `[B,C',H',W']`.
    pub fn forward(&self, x_BCHW: &Tensor) -> Tensor {
        x_BCHW.conv2d(&self.weight, Some(&self.bias), [self.stride; 2], self.padding, [1, 1], 1)
    }
}

/// Layer normalisation over the last dimension, with scale and shift.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    dim: i64,
    eps: f64,
}

impl LayerNorm {
    /// Normalises vectors of `dim` channels, with PyTorch's usual ε.
    pub fn new(scope: &Scope<'_>, dim: i64) -> Self {
        Self::with_eps(scope, dim, EPS)
    }

    /// Normalises vectors of `dim` channels.
    pub fn with_eps(scope: &Scope<'_>, dim: i64, eps: f64) -> Self {
        Self {
            weight: scope.parameter("weight", &[dim], Init::Constant(1.0)),
            bias: scope.parameter("bias", &[dim], Init::Constant(0.0)),
            dim,
            eps,
        }
    }

    /// `[…, dim]` to `[…, dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.dim], Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// Layer normalisation over the last dimension with a scale `gamma` and no shift.
pub struct GammaNorm {
    gamma: Tensor,
    dim: i64,
}

impl GammaNorm {
    /// Normalises vectors of `dim` channels.
    pub fn new(scope: &Scope<'_>, dim: i64) -> Self {
        Self { gamma: scope.parameter("gamma", &[dim], Init::Constant(1.0)), dim }
    }

    /// `[…, dim]` to `[…, dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.dim], Some(&self.gamma), None, EPS, true)
    }
}

/// The gated feed-forward block GEGLU: LayerNorm, a doubled linear map, value · GELU(gate) with the exact GELU, dropout, and the map back.
///
/// The names `0`, `1` and `4` are the indices of norm and maps in the reference `nn.Sequential`.
pub struct GegluFeedForward {
    norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    dropout: f64,
}

impl GegluFeedForward {
    /// Factor on the width inside: two thirds of 4, because the gate takes the last third.
    const EXPANSION: f64 = 4.0 * (2.0 / 3.0);

    /// A block over tokens of width `dim`.
    pub fn new(scope: &Scope<'_>, dim: i64, dropout: f64) -> Self {
        let inner = (Self::EXPANSION * dim as f64) as i64;
        Self {
            norm: LayerNorm::new(&scope.child(0), dim),
            widen: Linear::new(&scope.child(1), dim, 2 * inner, false),
            narrow: Linear::new(&scope.child(4), inner, dim, false),
            dropout,
        }
    }

    /// `[…, dim]` to `[…, dim]`.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let halves = self.widen.forward(&self.norm.forward(x)).chunk(2, -1);
        let gated = &halves[0] * halves[1].gelu("none");
        self.narrow.forward(&gated.dropout(self.dropout, train && self.dropout > 0.0))
    }
}
