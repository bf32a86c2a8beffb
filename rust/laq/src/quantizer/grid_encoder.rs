//! Convolutions from the token grid to the code slots.

use crate::Dims;
use hlrp_nn::{Init, Pass, Scope};
use tch::Tensor;

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
        _ => unreachable!("a checked configuration has one of these grids and slots"),
    }
}

struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

/// Convolutions with ReLU between them; every layer has Q channels.
pub(super) struct GridEncoder {
    convs: Vec<Conv>,
    grid: i64,
}

impl GridEncoder {
    /// A ReLU stands between two convolutions in the sequence that checkpoints know, so names count by 2.
    const NAME_STEP: usize = 2;

    pub(super) fn new(scope: &Scope<'_>, dims: &Dims) -> Self {
        let channels = dims.quant_dim;
        let conv = |(index, ([rows, columns], stride, padding)): (usize, &ConvShape)| {
            let scope = scope.child(index * Self::NAME_STEP);
            let init = Init::FanIn(channels * rows * columns);
            Conv {
                weight: scope.parameter("weight", &[channels, channels, *rows, *columns], init),
                bias: scope.parameter("bias", &[channels], init),
                stride: *stride,
                padding: *padding,
            }
        };
        let shapes = conv_shapes(dims.grid, dims.code_seq_len);
        Self { convs: shapes.iter().enumerate().map(conv).collect(), grid: dims.grid }
    }

    /// `[B,T,N,Q]` to `[B,T,S,Q]`, slots row by row.
    pub(super) fn forward(&self, x_BTNQ: &Tensor, pass: &Pass<'_>) -> Tensor {
        let size = x_BTNQ.size();
        let mut x_FQHW = x_BTNQ.reshape([size[0] * size[1], self.grid, self.grid, size[3]]).permute([0, 3, 1, 2]);
        for (index, conv) in self.convs.iter().enumerate() {
            if index > 0 {
                x_FQHW = x_FQHW.relu();
            }
            let (stride, padding) = ([conv.stride; 2], [conv.padding; 2]);
            x_FQHW = x_FQHW.conv2d(&conv.weight, Some(&conv.bias), stride, padding, [1, 1], 1);
        }
        if pass.trace.is_some() {
            let x_BTQHW = x_FQHW.unflatten(0, [size[0], size[1]]);
            for frame in 0..size[1] {
                pass.record(|| format!("vq.cnn.frame{frame}"), &x_BTQHW.select(1, frame));
            }
        }
        x_FQHW.flatten(2, 3).transpose(1, 2).reshape([size[0], size[1], -1, size[3]])
    }
}
