//! The latent action model: which of K codes, S times, say what changed from frame t to frame t+k.
//!
//! Frame t and frame t+k become tokens; a spatial transformer (per frame, causal in time through its position convolution) and a temporal
//! one (per grid position, over both frames) mix them; the quantizer turns what changed into codes; decoders predict frame t+k from frame t
//! and the codes alone.
//!
//! Shape suffixes: B samples, T = 2 frames, C colours, H×W pixels or tokens, N tokens, D token width, S code slots, K codes,
//! Q width of a code vector, A attention heads.

use crate::decoders::{AuxDecoder, DecoderInput, PixelDecoder, decode_tokens, decoder_transformer};
use crate::dims::transformer_config;
use crate::patches::PatchTokens;
use crate::{Dims, LaqError, Quantizer};
use hlrp_nn::spacetime::{AttendOver, ContinuousPositionBias, SpaceTimeTransformer};
use hlrp_nn::{Pass, Store};
use hlrp_schema::LaqModelConfig;
use tch::{Device, Tensor};

/// Which parts of a model to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Everything that the configuration enables.
    All,
    /// What codes need: no decoders.
    Encoder,
}

/// The latent action model over a store of named tensors.
pub struct LaqModel {
    store: Store,
    dims: Dims,
    config: LaqModelConfig,
    position_bias: ContinuousPositionBias,
    patch_tokens: PatchTokens,
    spatial: SpaceTimeTransformer,
    temporal: SpaceTimeTransformer,
    /// The quantizer.
    pub quantizer: Quantizer,
    token_decoder: Option<SpaceTimeTransformer>,
    pixel_decoder: Option<PixelDecoder>,
    aux_decoder: Option<AuxDecoder>,
}

/// What the encoder knows about a batch of frame pairs.
pub struct Encoded {
    /// `[B,T,H,W,D]` tokens of both frames before any transformer.
    pub tokens_BTHWD: Tensor,
    /// `[B,S,Q]` latent change, float32.
    pub change_BSQ: Tensor,
    /// `[A,N,N]` position bias, shared by encoder and decoders.
    bias_ANN: Tensor,
}

/// What the decoders expect of frame t+k; none where a decoder does not exist.
pub struct Predictions {
    /// `[B,1,H,W,D]` encoder tokens.
    pub tokens_B1HWD: Option<Tensor>,
    /// `[B,C,H,W]` pixels in [0, 1], not clamped.
    pub pixels_BCHW: Option<Tensor>,
    /// The same from the aux decoder.
    pub aux_BCHW: Option<Tensor>,
}

impl LaqModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A configuration that makes no model.
    pub fn new(config: &LaqModelConfig, parts: Parts, device: Device) -> Result<Self, LaqError> {
        let dims = Dims::new(config)?;
        let store = Store::new(device);
        let root = store.root();
        let encoder = |place: &str, name, over, depth| {
            SpaceTimeTransformer::new(&root.child(place), name, over, transformer_config(config, depth, false))
        };
        let enabled = |decoder_enabled: bool| decoder_enabled && parts == Parts::All;
        Ok(Self {
            position_bias: ContinuousPositionBias::new(
                &root.child("spatial_rel_pos_bias"),
                dims.dim,
                config.heads,
                dims.grid,
                dims.grid,
            ),
            patch_tokens: PatchTokens::new(&root.child("pixel_projection"), &dims),
            spatial: encoder("enc_spatial_transformer", "enc_spatial", AttendOver::Space, config.spatial_depth),
            temporal: encoder("enc_temporal_transformer", "enc_temporal", AttendOver::Time, config.temporal_depth),
            quantizer: Quantizer::new(&root.child(Self::QUANTIZER), &dims, config.usage_decay),
            token_decoder: enabled(config.token_decoder.enabled).then(|| {
                decoder_transformer(&root.child("dino_decoder"), "dino_decoder", config.token_decoder.depth, config)
            }),
            pixel_decoder: enabled(config.pixel_decoder.enabled).then(|| {
                PixelDecoder::new(&root, "pixel_decoder", "pixel_to_pixels", config.pixel_decoder.depth, config, &dims)
            }),
            aux_decoder: enabled(config.aux_decoder.enabled)
                .then(|| AuxDecoder::new(&root, config.aux_decoder.depth, config, &dims)),
            config: config.clone(),
            dims,
            store,
        })
    }

    /// Name of the quantizer's part of the state.
    const QUANTIZER: &'static str = "vq";

    /// Full name of the codebook.
    pub fn codebook_name() -> String {
        format!("{}.{}", Self::QUANTIZER, Quantizer::CODEBOOK)
    }

    /// The sizes.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// The configuration that the model was built from.
    pub fn config(&self) -> &LaqModelConfig {
        &self.config
    }

    /// Parameters and buffers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Checks the shape `[B,2,C,H,W]` of a batch of frame pairs.
    ///
    /// # Errors
    /// Any other shape.
    pub fn check_frames(&self, frames_BTCHW: &Tensor) -> Result<(), LaqError> {
        let (side, channels) = (self.dims.image_size, self.dims.channels);
        let size = frames_BTCHW.size();
        if size.len() == 5 && size[1..] == [2, channels, side, side] {
            return Ok(());
        }
        Err(LaqError::Frames { found: size, expected: format!("[B, 2, {channels}, {side}, {side}]") })
    }

    /// Float frame pairs `[B,2,C,H,W]` in [0, 1] to tokens and latent change.
    pub fn encode(&self, frames_BTCHW: &Tensor, pass: &Pass<'_>) -> Encoded {
        let tokens_BTHWD = self.patch_tokens.forward(frames_BTCHW);
        pass.record(|| "tokens".into(), &tokens_BTHWD);
        let bias_ANN = self.position_bias.forward();
        pass.record(|| "position_bias".into(), &bias_ANN);
        let spatial_BTHWD = self.spatial.forward(&tokens_BTHWD, Some(&bias_ANN), None, pass);
        let temporal_BTHWD = self.temporal.forward(&spatial_BTHWD, None, None, pass);
        let change_BSQ = self.quantizer.change(&temporal_BTHWD.flatten(2, 3), pass);
        pass.record(|| "vq.change".into(), &change_BSQ);
        Encoded { tokens_BTHWD, change_BSQ, bias_ANN }
    }

    /// Predicts frame t+k from frame t (of which `encoded` holds the tokens) and action tokens `[B,S,D]`.
    pub fn decode(
        &self,
        frames_BTCHW: &Tensor,
        encoded: &Encoded,
        action_tokens_BSD: &Tensor,
        pass: &Pass<'_>,
    ) -> Predictions {
        let canvas_B1HWD = encoded.tokens_BTHWD.narrow(1, 0, 1);
        pass.record(|| "context".into(), &canvas_B1HWD);
        let input = DecoderInput { canvas_B1HWD: &canvas_B1HWD, action_tokens_BSD, bias_ANN: &encoded.bias_ANN };
        Predictions {
            tokens_B1HWD: self.token_decoder.as_ref().map(|decoder| decode_tokens(decoder, &input, pass)),
            pixels_BCHW: self.pixel_decoder.as_ref().map(|decoder| decoder.forward(&input, pass)),
            aux_BCHW: self
                .aux_decoder
                .as_ref()
                .map(|decoder| decoder.forward(&frames_BTCHW.narrow(1, 0, 1), action_tokens_BSD, pass)),
        }
    }

    /// Predicts frame t+k from frame t `[B,1,C,H,W]` in [0, 1] and action tokens `[B,S,D]`, without any later frame.
    pub fn predict(&self, frame_B1CHW: &Tensor, action_tokens_BSD: &Tensor, pass: &Pass<'_>) -> Predictions {
        let encoded = Encoded {
            tokens_BTHWD: self.patch_tokens.forward(frame_B1CHW),
            change_BSQ: Tensor::new(),
            bias_ANN: self.position_bias.forward(),
        };
        self.decode(frame_B1CHW, &encoded, action_tokens_BSD, pass)
    }
}
