//! From a frame to features at 1/8 of its resolution.

use crate::layers::Conv2d;
use crate::store::{Init, Scope};
use tch::{Device, Kind, Tensor};

/// PyTorch's ε of normalisation.
const EPS: f64 = 1e-5;

/// What follows a convolution.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    /// Nothing.
    None,
    /// Each channel of each sample to mean 0 and variance 1.
    Instance,
    /// By the statistics of the training.
    Batch,
}

/// Sizes of an encoder.
#[derive(Clone, Copy)]
pub(super) struct EncoderShape {
    /// After the first convolution and after each pair of blocks.
    pub(super) channels: [i64; 4],
    pub(super) out: i64,
    pub(super) bottleneck: bool,
    pub(super) norm: Norm,
}

/// A convolution with its norm, and ReLU where `activates`; named `0` and `1` as in torchvision's sequence.
pub(super) struct ConvNorm {
    conv: Conv2d,
    norm: BuiltNorm,
    activates: bool,
}

enum BuiltNorm {
    None,
    Instance,
    Batch { weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor },
}

impl ConvNorm {
    pub(super) fn new(
        scope: &Scope<'_>,
        channels: [i64; 2],
        kernel: i64,
        stride: i64,
        norm: Norm,
        activates: bool,
    ) -> Self {
        let padding = [(kernel - 1) / 2; 2];
        Self {
            conv: Conv2d::new(&scope.child(0), channels, [kernel; 2], stride, padding),
            norm: BuiltNorm::new(&scope.child(1), channels[1], norm),
            activates,
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.norm.forward(self.conv.forward(x));
        if self.activates { y.relu() } else { y }
    }
}

impl BuiltNorm {
    fn new(scope: &Scope<'_>, dim: i64, norm: Norm) -> Self {
        match norm {
            Norm::None => Self::None,
            Norm::Instance => Self::Instance,
            Norm::Batch => {
                let options = (Kind::Float, Device::Cpu);
                let built = Self::Batch {
                    weight: scope.parameter("weight", &[dim], Init::Constant(1.0)),
                    bias: scope.parameter("bias", &[dim], Init::Constant(0.0)),
                    mean: scope.buffer("running_mean", &Tensor::zeros([dim], options)),
                    variance: scope.buffer("running_var", &Tensor::ones([dim], options)),
                };
                let _ = scope.buffer("num_batches_tracked", &Tensor::zeros([], (Kind::Int64, Device::Cpu)));
                built
            }
        }
    }

    fn forward(&self, x: Tensor) -> Tensor {
        const UNUSED_MOMENTUM: f64 = 0.1;
        let none = None::<&Tensor>;
        match self {
            Self::None => x,
            Self::Instance => x.instance_norm(none, none, none, none, true, UNUSED_MOMENTUM, EPS, false),
            Self::Batch { weight, bias, mean, variance } => {
                x.batch_norm(Some(weight), Some(bias), Some(mean), Some(variance), false, UNUSED_MOMENTUM, EPS, false)
            }
        }
    }
}

/// Convolutions beside a shortcut.
struct Block {
    convs: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn new(scope: &Scope<'_>, [in_dim, out_dim]: [i64; 2], stride: i64, shape: &EncoderShape) -> Self {
        let conv = |number: i64, channels, kernel, stride| {
            ConvNorm::new(&scope.child(format!("convnormrelu{number}")), channels, kernel, stride, shape.norm, true)
        };
        let inner = out_dim / 4;
        Self {
            convs: match shape.bottleneck {
                true => vec![
                    conv(1, [in_dim, inner], 1, 1),
                    conv(2, [inner, inner], 3, stride),
                    conv(3, [inner, out_dim], 1, 1),
                ],
                false => vec![conv(1, [in_dim, out_dim], 3, stride), conv(2, [out_dim, out_dim], 3, 1)],
            },
            shortcut: (stride != 1)
                .then(|| ConvNorm::new(&scope.child("downsample"), [in_dim, out_dim], 1, stride, shape.norm, false)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let shortcut = self.shortcut.as_ref().map_or_else(|| x.shallow_clone(), |conv| conv.forward(x));
        let y = self.convs.iter().fold(x.shallow_clone(), |y, conv| conv.forward(&y));
        (shortcut + y).relu()
    }
}

/// A convolution, three pairs of blocks of which the last two halve the resolution, and a linear map.
pub(super) struct Encoder {
    first: ConvNorm,
    blocks: Vec<Block>,
    last: Conv2d,
}

impl Encoder {
    pub(super) fn new(scope: &Scope<'_>, shape: EncoderShape) -> Self {
        let channels = shape.channels;
        let pair = |layer: usize| {
            let scope = scope.child(format!("layer{layer}"));
            let stride = if layer == 1 { 1 } else { 2 };
            let dims = [channels[layer - 1], channels[layer]];
            [Block::new(&scope.child(0), dims, stride, &shape), Block::new(&scope.child(1), [dims[1]; 2], 1, &shape)]
        };
        Self {
            first: ConvNorm::new(&scope.child("convnormrelu"), [3, channels[0]], 7, 2, shape.norm, true),
            blocks: (1..channels.len()).flat_map(pair).collect(),
            last: Conv2d::new(&scope.child("conv"), [channels[3], shape.out], [1, 1], 1, [0, 0]),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.blocks.iter().fold(self.first.forward(x), |y, block| block.forward(&y));
        self.last.forward(&y)
    }
}
