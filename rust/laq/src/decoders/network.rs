//! The network of a decoder: brings the canvas and the action tokens together.
//!
//! Shape suffixes: B samples, H×W token grid, D token width, S code slots, A attention heads, N = H·W.

use super::DecoderInput;
use crate::dims::{Dims, transformer_config};
use hlrp_nn::spacetime::{AttendOver, SpaceTimeTransformer};
use hlrp_nn::{Conv2d, Init, LayerNorm, Linear, Pass, Scope};
use hlrp_schema::{DecoderNetwork, LaqModelConfig};
use tch::Tensor;

/// Canvas in, tokens of frame t+k out.
pub(super) enum Network {
    /// Tokens attend to each other and to the action tokens.
    Transformer(SpaceTimeTransformer),
    /// Convolutions that the action tokens modulate.
    Conv(ConvNetwork),
}

impl Network {
    /// With fresh weights in `scope`; a transformer records its intermediate results under `name`.
    pub(super) fn new(scope: &Scope<'_>, name: &'static str, config: &LaqModelConfig, dims: &Dims, depth: i64) -> Self {
        match config.decoder_network {
            DecoderNetwork::Transformer => {
                let sizes = transformer_config(config, depth, true);
                Self::Transformer(SpaceTimeTransformer::new(scope, name, AttendOver::Space, sizes))
            }
            DecoderNetwork::Conv => Self::Conv(ConvNetwork::new(scope, dims, depth)),
        }
    }

    /// `[B,1,H,W,D]`, from one of the canvases of `input`.
    pub(super) fn forward(&self, canvas_B1HWD: &Tensor, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let action_tokens_BSD = input.action_tokens_BSD;
        match self {
            Self::Transformer(transformer) => {
                transformer.forward(canvas_B1HWD, input.bias_ANN, Some(action_tokens_BSD), pass)
            }
            Self::Conv(network) => network.forward(canvas_B1HWD, action_tokens_BSD),
        }
    }
}

/// Residual blocks: norm, 3×3 convolution, a scale and a shift of each channel by the action tokens (FiLM, Perez et al.
/// 2018), GELU, linear map.
pub(super) struct ConvNetwork {
    /// `[H,W,D]`, added to the canvas.
    position_HWD: Tensor,
    blocks: Vec<Block>,
    norm_out: LayerNorm,
}

struct Block {
    norm: LayerNorm,
    conv: Conv2d,
    modulate: Linear,
    out: Linear,
}

impl ConvNetwork {
    /// Std of fresh position vectors.
    const POSITION_STD: f64 = 0.02;

    fn new(scope: &Scope<'_>, dims: &Dims, depth: i64) -> Self {
        let (dim, num_slots) = (dims.dim, dims.code_seq_len);
        let block = |index| {
            let scope = scope.child("blocks").child(index);
            Block {
                norm: LayerNorm::new(&scope.child("norm"), dim),
                conv: Conv2d::new(&scope.child("conv"), [dim, dim], [3, 3], 1, [1, 1]),
                modulate: Linear::new(&scope.child("modulate"), num_slots * dim, 2 * dim, true),
                out: Linear::new(&scope.child("out"), dim, dim, true),
            }
        };
        let shape = [dims.grid, dims.grid_columns(), dim];
        Self {
            position_HWD: scope.parameter("position", &shape, Init::ScaledNormal(Self::POSITION_STD)),
            blocks: (0..depth).map(block).collect(),
            norm_out: LayerNorm::new(&scope.child("norm_out"), dim),
        }
    }

    fn forward(&self, canvas_B1HWD: &Tensor, action_tokens_BSD: &Tensor) -> Tensor {
        let action_BX = action_tokens_BSD.flatten(1, 2);
        let mut x_BHWD = canvas_B1HWD.squeeze_dim(1) + &self.position_HWD;
        for block in &self.blocks {
            let y_BHWD = block.norm.forward(&x_BHWD).permute([0, 3, 1, 2]);
            let y_BHWD = block.conv.forward(&y_BHWD).permute([0, 2, 3, 1]);
            let modulation = block.modulate.forward(&action_BX).unsqueeze(1).unsqueeze(1).chunk(2, -1);
            let y_BHWD = y_BHWD * (&modulation[0] + 1.0) + &modulation[1];
            x_BHWD = x_BHWD.g_add(&block.out.forward(&y_BHWD.gelu("none")));
        }
        self.norm_out.forward(&x_BHWD).unsqueeze(1)
    }
}
