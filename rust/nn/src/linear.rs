//! The affine map.

use crate::{Init, Scope};
use tch::Tensor;

/// `x·weightᵀ + bias` over the last dimension.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map from `in_dim` to `out_dim` numbers.
    pub fn new(scope: &Scope<'_>, in_dim: i64, out_dim: i64, with_bias: bool) -> Self {
        Self {
            weight: scope.parameter("weight", &[out_dim, in_dim], Init::FanIn(in_dim)),
            bias: with_bias.then(|| scope.parameter("bias", &[out_dim], Init::FanIn(in_dim))),
        }
    }

    /// `[…, in_dim]` to `[…, out_dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
