//! From vision tokens to image tokens of the text decoder.

use crate::{Linear, Pass, Scope};
use tch::Tensor;

/// Each block of `scale`×`scale` neighbouring vision tokens becomes one token, mapped to the text width without a bias.
pub struct Connector {
    proj: Linear,
    scale: i64,
}

impl Connector {
    /// A connector under the name `modality_projection.proj`.
    pub fn new(scope: &Scope<'_>, vision_dim: i64, text_dim: i64, scale: i64) -> Self {
        let scope = scope.child("modality_projection").child("proj");
        Self { proj: Linear::castable(&scope, vision_dim * scale * scale, text_dim, false), scale }
    }

    /// `[B,rows·columns,D_v]` to `[B,rows·columns/scale²,D]`, both row by row.
    ///
    /// Records `vision.pixel_shuffled` and `connector`.
    pub fn forward(&self, x_BND: &Tensor, rows: i64, columns: i64, pass: &Pass<'_>) -> Tensor {
        let shuffled_BNX = pixel_shuffle(x_BND, rows, columns, self.scale);
        pass.record(|| "vision.pixel_shuffled".to_owned(), &shuffled_BNX);
        let out_BND = self.proj.forward(&shuffled_BNX);
        pass.record(|| "connector".to_owned(), &out_BND);
        out_BND
    }
}

/// Space to channels: inside a block, the row comes first, then the column, then the token's own channels.
fn pixel_shuffle(x_BND: &Tensor, rows: i64, columns: i64, scale: i64) -> Tensor {
    let (batch, dim) = (x_BND.size()[0], x_BND.size()[2]);
    x_BND.reshape([batch, rows / scale, scale, columns / scale, scale, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([
        batch,
        (rows / scale) * (columns / scale),
        scale * scale * dim,
    ])
}
