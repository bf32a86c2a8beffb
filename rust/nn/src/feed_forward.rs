//! The gated feed-forward block.

use crate::{LayerNorm, Linear, Scope};
use tch::Tensor;

/// LayerNorm, a doubled linear map, GEGLU (value · GELU(gate), exact GELU), dropout, and the map back.
///
/// The names `0`, `1` and `4` are the positions of norm and maps in the sequence that checkpoints know.
pub struct FeedForward {
    norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    dropout: f64,
}

impl FeedForward {
    /// Factor on the width inside: two thirds of 4, because the gate takes the third third.
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
