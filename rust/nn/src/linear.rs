//! The affine map.

use crate::{Init, Scope};
use tch::Tensor;

/// `x·weightᵀ + bias` over the last dimension.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map from `in_dim` to `out_dim` numbers, in float32.
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

    /// `x` in the number format of the weights, to be called once for what several maps of one format read. What carries a gradient stays as
    /// it is: the maps' gradients then add up in its own format.
    pub fn cast(&self, x: &Tensor) -> Tensor {
        if x.requires_grad() { x.shallow_clone() } else { x.to_kind(self.weight.kind()) }
    }

    /// `[…, in_dim]` to `[…, out_dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}
