//! Normalisation by the root mean square.

use crate::{Init, Scope};
use tch::{Kind, Tensor};

/// x / √(mean(x²) + ε) · weight over the last dimension, in float32.
pub struct RmsNorm {
    weight_D: Tensor,
    dim: i64,
    eps: f64,
}

impl RmsNorm {
    /// Normalises vectors of `dim` numbers.
    pub fn new(scope: &Scope<'_>, dim: i64, eps: f64) -> Self {
        Self { weight_D: scope.parameter("weight", &[dim], Init::Constant(1.0)), dim, eps }
    }

    /// `[…, dim]` to float32 `[…, dim]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        if x.device().is_cuda() {
            return x.rms_norm([self.dim], Some(&self.weight_D), self.eps);
        }
        // libtorch's kernel is for CUDA; what it does elsewhere passes over `x` twice as often as this.
        let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
        let inverse = (norm.square() / self.dim as f64 + self.eps).rsqrt();
        x * inverse * &self.weight_D
    }
}
