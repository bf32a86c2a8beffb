//! Decoders: from a canvas of frame t's tokens and the action tokens to frame t+k.
//!
//! Shape suffixes: B samples, H×W token grid, D token width, S code slots, A attention heads, N = H·W.

use crate::{
    Dims,
    dims::transformer_config,
    patches::{PatchTokens, unpatchify},
};
use hlrp_nn::spacetime::{AttendOver, ContinuousPositionBias, SpaceTimeTransformer};
use hlrp_nn::{Linear, Pass, Scope};
use hlrp_schema::LaqModelConfig;
use tch::{Kind, Tensor};

/// What every decoder sees.
pub(crate) struct DecoderInput<'a> {
    /// `[B,1,H,W,D]` tokens of frame t.
    pub(crate) canvas_B1HWD: &'a Tensor,
    /// `[B,S,D]`.
    pub(crate) action_tokens_BSD: &'a Tensor,
    /// `[A,N,N]`.
    pub(crate) bias_ANN: &'a Tensor,
}

/// A decoder's transformer, canvas in, tokens of frame t+k out.
pub(crate) fn decoder_transformer(
    scope: &Scope<'_>,
    name: &'static str,
    depth: i64,
    config: &LaqModelConfig,
) -> SpaceTimeTransformer {
    SpaceTimeTransformer::new(scope, name, AttendOver::Space, transformer_config(config, depth, true))
}

/// Runs a decoder's transformer, `[B,1,H,W,D]`.
pub(crate) fn decode_tokens(transformer: &SpaceTimeTransformer, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
    transformer.forward(input.canvas_B1HWD, Some(input.bias_ANN), Some(input.action_tokens_BSD), pass)
}

/// Predicts the pixels of frame t+k.
pub(crate) struct PixelDecoder {
    name: &'static str,
    transformer: SpaceTimeTransformer,
    to_pixels: Linear,
    patch_size: i64,
}

impl PixelDecoder {
    /// A decoder whose transformer lies at `name` and whose head lies at `head`.
    pub(crate) fn new(
        root: &Scope<'_>,
        name: &'static str,
        head: &str,
        depth: i64,
        config: &LaqModelConfig,
        dims: &Dims,
    ) -> Self {
        Self {
            name,
            transformer: decoder_transformer(&root.child(name), name, depth, config),
            to_pixels: Linear::new(&root.child(head).child(0), dims.dim, dims.patch_dim(), true),
            patch_size: dims.patch_size,
        }
    }

    /// `[B,C,H·p,W·p]` float32, not clamped.
    pub(crate) fn forward(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let tokens_BHWD = decode_tokens(&self.transformer, input, pass).squeeze_dim(1);
        let frame = unpatchify(&self.to_pixels.forward(&tokens_BHWD).to_kind(Kind::Float), self.patch_size);
        pass.record(|| format!("{}.pixels", self.name), &frame);
        frame
    }
}

/// Predicts pixels for people to look at. It learns from detached action tokens through a canvas and a position bias of its own,
/// so that no gradient leaves it.
pub(crate) struct AuxDecoder {
    canvas: PatchTokens,
    position_bias: ContinuousPositionBias,
    decoder: PixelDecoder,
}

impl AuxDecoder {
    pub(crate) fn new(root: &Scope<'_>, depth: i64, config: &LaqModelConfig, dims: &Dims) -> Self {
        Self {
            canvas: PatchTokens::new(&root.child("aux_context_projection"), dims),
            position_bias: ContinuousPositionBias::new(
                &root.child("aux_rel_pos_bias"),
                dims.dim,
                config.heads,
                dims.grid,
                dims.grid,
            ),
            decoder: PixelDecoder::new(root, "aux_decoder", "aux_to_pixels", depth, config, dims),
        }
    }

    /// `frame_B1CHW` is frame t as floats; the result is `[B,C,H,W]` float32, not clamped.
    pub(crate) fn forward(&self, frame_B1CHW: &Tensor, action_tokens_BSD: &Tensor, pass: &Pass<'_>) -> Tensor {
        let input = DecoderInput {
            canvas_B1HWD: &self.canvas.forward(frame_B1CHW),
            action_tokens_BSD: &action_tokens_BSD.detach(),
            bias_ANN: &self.position_bias.forward(),
        };
        self.decoder.forward(&input, pass)
    }
}
