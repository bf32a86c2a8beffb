//! Rotary positions.

use tch::{Kind, Tensor};

/// Cosines and sines for a batch of positions; made once for all layers.
///
/// Channel r of the first half of a head and channel r of the second half turn together, by position / wavelength^(r/R)
/// ([RoFormer](https://arxiv.org/abs/2104.09864), in the half-split layout of Llama).
pub struct Rope {
    cos_B1LR: Tensor,
    sin_B1LR: Tensor,
}

impl Rope {
    /// The table for integer `positions_BL` and heads of width `head_dim`, in float32.
    pub fn new(positions_BL: &Tensor, head_dim: i64, wavelength: f64) -> Self {
        let options = (Kind::Float, positions_BL.device());
        let exponent_R = Tensor::arange_start_step(0, head_dim, 2, options) / head_dim as f64;
        let frequency_R = Tensor::pow_scalar(wavelength, &exponent_R).reciprocal();
        let angle_B1LR = positions_BL.to_kind(Kind::Float).unsqueeze(1).unsqueeze(-1) * frequency_R;
        Self { cos_B1LR: angle_B1LR.cos(), sin_B1LR: angle_B1LR.sin() }
    }

    /// `x_BALE` turned to its positions, in float32 arithmetic and in the number format it came in.
    pub fn rotate(&self, x_BALE: &Tensor) -> Tensor {
        let halves = x_BALE.to_kind(Kind::Float).chunk(2, -1);
        let (first, second) = (&halves[0], &halves[1]);
        let turned =
            [first * &self.cos_B1LR - second * &self.sin_B1LR, second * &self.cos_B1LR + first * &self.sin_B1LR];
        Tensor::cat(&turned, -1).to_kind(x_BALE.kind())
    }

    /// Cosines `[B,1,L,R]`.
    pub fn cos(&self) -> &Tensor {
        &self.cos_B1LR
    }

    /// Sines `[B,1,L,R]`.
    pub fn sin(&self) -> &Tensor {
        &self.sin_B1LR
    }
}
