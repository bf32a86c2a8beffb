//! Positions on the token grid: a convolution, and a bias on attention logits.

use crate::layers::Linear;
use crate::store::{Init, Scope};
use tch::{Device, IndexOp, Kind, Tensor};

/// Position encoding generator ([CPVT](https://arxiv.org/abs/2102.10882)): a depth-wise 3×3×3 convolution over (T, H, W), zero-padded, causal in time: frame t sees frames t−2, t−1 and t.
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
    /// Each time tap is a 2-D convolution over the frames that it can see, so taps that only see padding cost nothing.
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

/// An MLP from the offset between two tokens to one logit bias per head.
///
/// Offsets enter as sign(Δ)·ln(|Δ|+1) per axis. The MLP runs once per distinct offset; the table is then spread over all token pairs.
pub struct ContinuousPositionBias {
    hidden: [Linear; 2],
    out: Linear,
    /// `[U,2]` distinct offsets, U = (2H−1)·(2W−1).
    offsets_U2: Tensor,
    /// `[N·N]` row of `offsets_U2` for each pair (query, key).
    offset_of_pair: Tensor,
    num_tokens: i64,
}

impl ContinuousPositionBias {
    const NEGATIVE_SLOPE: f64 = 0.1;

    /// The bias of `heads` heads over a grid of `height`×`width` tokens, with an MLP of width `dim`.
    pub fn new(scope: &Scope<'_>, dim: i64, heads: i64, height: i64, width: i64) -> Self {
        let net = scope.child("net");
        Self {
            hidden: [
                Linear::new(&net.child(0).child(0), 2, dim, true),
                Linear::new(&net.child(1).child(0), dim, dim, true),
            ],
            out: Linear::new(&net.child(2), dim, heads, true),
            offsets_U2: distinct_offsets(height, width).to_device(scope.device()),
            offset_of_pair: offset_of_pair(height, width).to_device(scope.device()),
            num_tokens: height * width,
        }
    }

    /// `[A,N,N]`: added to the logit of each (query, key).
    pub fn forward(&self) -> Tensor {
        let mut x_UD = self.offsets_U2.shallow_clone();
        for layer in &self.hidden {
            let y_UD = layer.forward(&x_UD);
            x_UD = y_UD.maximum(&(&y_UD * Self::NEGATIVE_SLOPE));
        }
        let bias_UA = self.out.forward(&x_UD);
        // An embedding look-up: its backward pass sums in a fixed order on every device.
        let bias_PA = Tensor::embedding(&bias_UA, &self.offset_of_pair, -1, false, false);
        bias_PA.view([self.num_tokens, self.num_tokens, -1]).permute([2, 0, 1]).contiguous()
    }
}

/// `[U,2]`: sign(Δ)·ln(|Δ|+1) of row and column offset.
fn distinct_offsets(height: i64, width: i64) -> Tensor {
    let axis = |size: i64| Tensor::arange_start(1 - size, size, (Kind::Float, Device::Cpu));
    let rows = axis(height).unsqueeze(1).expand([-1, 2 * width - 1], false);
    let columns = axis(width).unsqueeze(0).expand([2 * height - 1, -1], false);
    let delta_U2 = Tensor::stack(&[rows, columns], -1).reshape([-1, 2]);
    delta_U2.sign() * (delta_U2.abs() + 1.0).log()
}

/// `[N·N]`: index into [`distinct_offsets`] of query minus key.
fn offset_of_pair(height: i64, width: i64) -> Tensor {
    let tokens = || (0..height * width).map(move |token| (token / width, token % width));
    let pairs: Vec<i64> = tokens()
        .flat_map(|(query_row, query_column)| {
            tokens().map(move |(key_row, key_column)| {
                (query_row - key_row + height - 1) * (2 * width - 1) + query_column - key_column + width - 1
            })
        })
        .collect();
    Tensor::from_slice(&pairs)
}
