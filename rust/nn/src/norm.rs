//! Layer normalisation with and without a shift.

use crate::{Init, Scope};
use tch::Tensor;

const EPS: f64 = 1e-5;

/// Layer normalisation over the last dimension, with scale and shift.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    dim: i64,
    eps: f64,
}

impl LayerNorm {
    /// Normalises vectors of `dim` numbers, with PyTorch's usual ε.
    pub fn new(scope: &Scope<'_>, dim: i64) -> Self {
        Self::with_eps(scope, dim, EPS)
    }

    /// Normalises vectors of `dim` numbers.
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
    /// Normalises vectors of `dim` numbers.
    pub fn new(scope: &Scope<'_>, dim: i64) -> Self {
        Self { gamma: scope.parameter("gamma", &[dim], Init::Constant(1.0)), dim }
    }

    /// `[…, dim]` to `[…, dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm([self.dim], Some(&self.gamma), None, EPS, true)
    }
}
