//! Position from convolution.

use crate::{Init, Scope};
use tch::{IndexOp, Tensor};

/// Depth-wise 3×3×3 convolution over (T, H, W), zero-padded, causal in time: frame t sees frames t−2, t−1 and t.
pub struct Peg {
    weight: Tensor,
    bias: Tensor,
    dim: i64,
}

impl Peg {
    const TAPS: i64 = 3;

    /// A convolution over tokens of width `dim`.
    pub fn new(scope: &Scope<'_>, dim: i64) -> Self {
        let scope = scope.child("dsconv");
        let fan_in = Self::TAPS.pow(3);
        Self {
            weight: scope.parameter("weight", &[dim, 1, Self::TAPS, Self::TAPS, Self::TAPS], Init::FanIn(fan_in)),
            bias: scope.parameter("bias", &[dim], Init::FanIn(fan_in)),
            dim,
        }
    }

    /// `[B,T,H,W,D]` to the same shape; the caller adds it to the stream.
    ///
    /// Each time tap is a 2-D convolution over the frames that it can see, so taps that only meet padding cost nothing.
    pub fn forward(&self, x_BTHWD: &Tensor) -> Tensor {
        let num_frames = x_BTHWD.size()[1];
        let mut y_BTHWD = self.convolve_tap(x_BTHWD, 0, Some(&self.bias));
        for delay in 1..num_frames.min(Self::TAPS) {
            let seen = x_BTHWD.narrow(1, 0, num_frames - delay);
            let late = self.convolve_tap(&seen, delay, None);
            y_BTHWD = &y_BTHWD + late.constant_pad_nd([0, 0, 0, 0, 0, 0, delay, 0]);
        }
        y_BTHWD
    }

    /// What frame t contributes to frame t + `delay`.
    fn convolve_tap(&self, x_BTHWD: &Tensor, delay: i64, bias: Option<&Tensor>) -> Tensor {
        let size = x_BTHWD.size();
        let kernel = self.weight.i((.., .., Self::TAPS - 1 - delay));
        let frames_FDHW = x_BTHWD.reshape([size[0] * size[1], size[2], size[3], self.dim]).permute([0, 3, 1, 2]);
        let y_FDHW = frames_FDHW.conv2d(&kernel, bias, [1, 1], [1, 1], [1, 1], self.dim);
        y_FDHW.permute([0, 2, 3, 1]).reshape(&size)
    }
}
