//! What every quantizer shares: from the tokens of both frames to the latent change, and from its vectors to action
//! tokens.
//!
//! Shape suffixes: B samples, T = 2 frames, F = B·T, H×W token grid of a view, N tokens of all views, D token width, S code slots, Q width of
//! a code vector.

use super::in_float32;
use crate::dims::Dims;
use hlrp_nn::{Conv2d, Init, Linear, Pass, Scope};
use tch::{Device, Kind, Tensor};

/// The way into the quantizer and out of it.
pub struct Bottleneck {
    project_in: Linear,
    project_out: Linear,
    grid_encoder: GridEncoder,
    /// `[S,D]`, added to the action tokens.
    slot_embedding_SD: Option<Tensor>,
    device: Device,
}

/// Std of fresh slot embeddings.
const SLOT_STD: f64 = 0.5;

impl Bottleneck {
    /// With fresh weights in `scope`; `slot_embedding` = whether a learned vector for each slot is added to its action
    /// token.
    pub fn new(scope: &Scope<'_>, dims: &Dims, slot_embedding: bool) -> Self {
        Self {
            project_in: Linear::new(&scope.child("project_in"), dims.dim, dims.grid_width, true),
            project_out: Linear::new(&scope.child("project_out"), dims.code_dim, dims.dim, true),
            grid_encoder: GridEncoder::new(&scope.child("cnn_encoder"), dims),
            slot_embedding_SD: slot_embedding.then(|| {
                scope.parameter("slot_embedding", &[dims.code_seq_len, dims.dim], Init::ScaledNormal(SLOT_STD))
            }),
            device: scope.device(),
        }
    }

    /// The latent change between the two frames of `features_BTND`, `[B,S,Q]` float32.
    pub fn change(&self, features_BTND: &Tensor, pass: &Pass<'_>) -> Tensor {
        let record = |name: &str, x_BTND: &Tensor| {
            for frame in 0..if pass.trace.is_some() { 2 } else { 0 } {
                pass.record(|| format!("vq.{name}.frame{frame}"), &x_BTND.select(1, frame));
            }
        };
        in_float32(self.device, || {
            let features_BTND = features_BTND.to_kind(Kind::Float);
            record("in", &features_BTND);
            let projected_BTNQ = self.project_in.forward(&features_BTND);
            record("project_in", &projected_BTNQ);
            let slots_BTSQ = self.grid_encoder.forward(&projected_BTNQ, pass);
            slots_BTSQ.select(1, 1) - slots_BTSQ.select(1, 0)
        })
    }

    /// Vectors `[B,S,Q]` to the tokens `[B,S,D]` that every decoder attends to: the one way from a quantizer to the
    /// decoders.
    pub fn action_tokens(&self, vectors_BSQ: &Tensor) -> Tensor {
        in_float32(self.device, || {
            let tokens_BSD = self.project_out.forward(vectors_BSQ);
            self.slot_embedding_SD.as_ref().map_or(tokens_BSD.shallow_clone(), |slots_SD| &tokens_BSD + slots_SD)
        })
    }
}

/// Kernel (rows, columns), stride, padding.
type ConvShape = ([i64; 2], i64, i64);

/// The stack for each (side of the grid, code slots).
fn conv_shapes(grid: i64, num_slots: i64) -> &'static [ConvShape] {
    match (grid, num_slots) {
        (8, 1) => &[([3, 3], 2, 1), ([4, 4], 1, 0)],
        (8, 2) => &[([3, 3], 2, 1), ([3, 4], 1, 0)],
        (8, 4) => &[([3, 3], 2, 1), ([3, 3], 1, 0)],
        (16, 1) => &[([3, 3], 2, 1), ([3, 3], 2, 1), ([4, 4], 1, 0)],
        (16, 4) => &[([3, 3], 2, 1), ([3, 3], 2, 1), ([3, 3], 1, 0)],
        (16, 16) => &[([3, 3], 2, 1), ([3, 3], 2, 1)],
        (16, 64) => &[([3, 3], 2, 1)],
        _ => unreachable!("a checked configuration has one of these grids and numbers of slots"),
    }
}

/// Convolutions with ReLU between them; the last one has Q channels. The first one sees the views as channels.
struct GridEncoder {
    convs: Vec<Conv2d>,
    grid: i64,
    num_views: i64,
}

impl GridEncoder {
    /// In checkpoints the sequence holds a ReLU after each convolution, so the names of convolutions count by 2.
    const NAME_STEP: usize = 2;

    fn new(scope: &Scope<'_>, dims: &Dims) -> Self {
        let shapes = conv_shapes(dims.grid, dims.code_seq_len);
        let channels = dims.grid_width;
        let conv = |(index, ([rows, columns], stride, padding)): (usize, &ConvShape)| {
            let out_channels = if index + 1 == shapes.len() { dims.code_dim } else { channels };
            let in_channels = if index == 0 { dims.num_views * channels } else { channels };
            let scope = scope.child(index * Self::NAME_STEP);
            Conv2d::new(&scope, [in_channels, out_channels], [*rows, *columns], *stride, [*padding; 2])
        };
        let convs = shapes.iter().enumerate().map(conv).collect();
        Self { convs, grid: dims.grid, num_views: dims.num_views }
    }

    /// `[B,T,N,Q]` to `[B,T,S,Q]`, slots row by row.
    fn forward(&self, x_BTNQ: &Tensor, pass: &Pass<'_>) -> Tensor {
        let size = x_BTNQ.size();
        let by_view = x_BTNQ.reshape([size[0] * size[1], self.grid, self.num_views, self.grid, size[3]]);
        let mut x_FQHW = by_view.permute([0, 2, 4, 1, 3]).flatten(1, 2);
        for (index, conv) in self.convs.iter().enumerate() {
            if index > 0 {
                x_FQHW = x_FQHW.relu();
            }
            x_FQHW = conv.forward(&x_FQHW);
        }
        if pass.trace.is_some() {
            let x_BTQHW = x_FQHW.unflatten(0, [size[0], size[1]]);
            for frame in 0..size[1] {
                pass.record(|| format!("vq.cnn.frame{frame}"), &x_BTQHW.select(1, frame));
            }
        }
        x_FQHW.flatten(2, 3).transpose(1, 2).unflatten(0, [size[0], size[1]])
    }
}
