//! The latent action model: which of K codes, S times, say what changed from frame t to frame t+k.
//!
//! Frame t and frame t+k become tokens; a spatial transformer (per frame, causal in time through its position
//! convolution) and a temporal one (per grid position, over both frames) mix them; the quantizer turns what changed
//! into codes; decoders predict frame t+k from frame t and the codes alone.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels or tokens, N tokens, D token width, S code slots, K
//! codes, Q width of a code vector, A attention heads.

use crate::decoders::{DecoderInput, Decoders, Predictions, Target};
use crate::dims::{Dims, transformer_config};
use crate::encoders::{self, AverageEncoder, Encoder, FrameTokens, dinov3};
use crate::error::LaqError;
use crate::quantizers::{Bottleneck, QuantizerStage};
use crate::step::Samples;
use crate::views::Views;
use hlrp_nn::spacetime::{AttendOver, ContinuousPositionBias, SpaceTimeTransformer};
use hlrp_nn::{Pass, Store};
use hlrp_schema::{DecoderNetwork, LaqModelConfig};
use hlrp_torch::TorchError;
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor, no_grad};

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
    /// None where no transformer over a grid reads it.
    position_bias: Option<ContinuousPositionBias>,
    encoder: Box<dyn Encoder>,
    /// None for one camera.
    views: Option<Views>,
    spatial: SpaceTimeTransformer,
    temporal: SpaceTimeTransformer,
    /// The quantizer.
    pub quantizer: QuantizerStage,
    /// The way into the quantizer and out of it.
    pub bottleneck: Bottleneck,
    /// The decoders.
    pub decoders: Decoders,
    /// What a forward model predicts features of; none where the encoder has a frozen backbone, or there is no forward model.
    average_encoder: Option<AverageEncoder>,
}

/// Result of the encoder for a batch of frame pairs.
pub struct Encoded {
    /// `[B,T,H,W,D]` tokens of both frames before any transformer.
    pub tokens_BTHWD: Tensor,
    /// `[B,T,H,W,C]` features of both frames from a frozen backbone, where the encoder has one.
    pub features_BTHWC: Option<Tensor>,
    /// `[B,S,Q]` latent change, float32.
    pub change_BSQ: Tensor,
    /// `[A,N,N]` position bias, shared by encoder and decoders.
    bias_ANN: Option<Tensor>,
}

impl LaqModel {
    /// Scope of the quantizer's tensors.
    pub const QUANTIZER: &'static str = "vq";

    /// A model of a checked configuration with fresh weights from the CPU's generator.
    pub fn new(config: &LaqModelConfig, parts: Parts, device: Device) -> Self {
        let dims = Dims::new(config);
        let store = Store::new(device);
        let root = store.root();
        let transformer = |scope: &str, name, over, depth| {
            SpaceTimeTransformer::new(&root.child(scope), name, over, transformer_config(config, depth, false))
        };
        let (bias_scope, quantizer_scope) = (root.child("spatial_rel_pos_bias"), root.child(Self::QUANTIZER));
        let attends_over_grid = config.spatial_depth > 0 || config.decoder_network == DecoderNetwork::Transformer;
        let average_encoder = || {
            let forward =
                config.decoders.forward_model().filter(|_| parts == Parts::All && config.encoder.dinov3.is_none())?;
            Some(AverageEncoder::new(&root, &dims, &config.encoder, forward.average_decay))
        };
        // Weights are drawn in this order.
        let model = Self {
            position_bias: attends_over_grid.then(|| {
                ContinuousPositionBias::new(&bias_scope, dims.dim, config.heads, dims.grid, dims.grid_columns())
            }),
            encoder: encoders::build(&root, &dims, &config.encoder),
            views: Views::new(&root, &dims, config.view_dropout),
            spatial: transformer("enc_spatial_transformer", "enc_spatial", AttendOver::Space, config.spatial_depth),
            temporal: transformer("enc_temporal_transformer", "enc_temporal", AttendOver::Time, config.temporal_depth),
            quantizer: QuantizerStage::new(&quantizer_scope, &dims, &config.quantizer),
            bottleneck: Bottleneck::new(&quantizer_scope, &dims, config.quantizer.slot_embedding),
            decoders: match parts {
                Parts::All => Decoders::new(&root, config, &dims),
                Parts::Encoder => Decoders::none(),
            },
            average_encoder: average_encoder(),
            config: config.clone(),
            dims,
            store,
        };
        let is_frozen =
            |name: &str| [dinov3::FROZEN, AverageEncoder::SCOPE].iter().any(|scope| name.starts_with(scope));
        model.store.freeze_where(is_frozen);
        model
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

    /// Checks the shape `[B,2,C,H,W]` of a batch of frame pairs; views are side by side.
    ///
    /// # Errors
    /// Any other shape.
    pub fn check_frames(&self, frames_BTCHW: &Tensor) -> Result<(), LaqError> {
        self.check_num_frames(frames_BTCHW, 2)
    }

    /// Checks the shape `[B,num_frames,C,H,W]` of a batch.
    pub(crate) fn check_num_frames(&self, frames_BTCHW: &Tensor, num_frames: i64) -> Result<(), LaqError> {
        let (side, channels) = (self.dims.image_size, self.dims.channels);
        let width = side * self.dims.num_views;
        let size = frames_BTCHW.size();
        if size.len() == 5 && size[1..] == [num_frames, channels, side, width] {
            return Ok(());
        }
        Err(LaqError::Frames { found: size, expected: format!("[B, {num_frames}, {channels}, {side}, {width}]") })
    }

    /// Float frame pairs `[B,2,C,H,W]` in [0, 1] to tokens and latent change.
    pub fn encode(&self, frames_BTCHW: &Tensor, pass: &Pass<'_>) -> Encoded {
        let FrameTokens { tokens_BTHWD, features_BTHWC } = self.tokens(frames_BTCHW, pass);
        pass.record(|| "tokens".into(), &tokens_BTHWD);
        let bias_ANN = self.position_bias.as_ref().map(ContinuousPositionBias::forward);
        if let Some(bias_ANN) = &bias_ANN {
            pass.record(|| "position_bias".into(), bias_ANN);
        }
        let seen_BTHWD = match &self.views {
            Some(views) => views.dropped(tokens_BTHWD.shallow_clone(), pass),
            None => tokens_BTHWD.shallow_clone(),
        };
        let spatial_BTHWD = self.spatial.forward(&seen_BTHWD, bias_ANN.as_ref(), None, pass);
        let temporal_BTHWD = self.temporal.forward(&spatial_BTHWD, None, None, pass);
        let change_BSQ = self.bottleneck.change(&temporal_BTHWD.flatten(2, 3), pass);
        pass.record(|| "vq.change".into(), &change_BSQ);
        Encoded { tokens_BTHWD, features_BTHWC, change_BSQ, bias_ANN }
    }

    /// Tokens of float frames `[B,T,C,H,W]` in [0, 1].
    fn tokens(&self, frames_BTCHW: &Tensor, pass: &Pass<'_>) -> FrameTokens {
        match &self.views {
            Some(views) => views.tokens(self.encoder.as_ref(), frames_BTCHW, pass),
            None => self.encoder.tokens(frames_BTCHW, pass),
        }
    }

    /// Predicts frame t+k from frame t (whose tokens are in `encoded`) and action tokens `[B,S,D]`.
    pub fn decode(
        &self,
        frames_BTCHW: &Tensor,
        encoded: &Encoded,
        action_tokens_BSD: &Tensor,
        pass: &Pass<'_>,
    ) -> Predictions {
        let canvas_B1HWD = encoded.tokens_BTHWD.narrow(1, 0, 1);
        let input = DecoderInput {
            frame_B1CHW: &frames_BTCHW.narrow(1, 0, 1),
            canvas_B1HWD: &canvas_B1HWD,
            pixel_canvas_B1HWD: &canvas_B1HWD,
            action_tokens_BSD,
            bias_ANN: encoded.bias_ANN.as_ref(),
        };
        self.decoders.predict(&input, pass)
    }

    /// Updates what targets are made with, before the first micro-batch of optimizer step `step`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub(crate) fn update_targets(&mut self, step: u64) -> Result<(), TorchError> {
        self.average_encoder.as_mut().map_or(Ok(()), |average| average.update(step))
    }

    /// Whether training step `step` does the same work as every other step for which this holds: no warm-up changes a weight, and the
    /// quantizer's own schedules ask for nothing.
    pub(crate) fn repeats(&self, step: u64) -> bool {
        self.decoders.warm_up_is_over(step) && self.quantizer.repeats(step)
    }

    /// What predictions of encoded samples are compared with.
    pub fn target<'a>(&self, samples: impl Into<Samples<'a>>, encoded: &Encoded) -> Target {
        let Samples { frames_BTCHW, flow_B2HW } = samples.into();
        Target {
            frames_BTCHW: frames_BTCHW.narrow(1, 0, 2),
            step_features_BTHWC: self.step_features(frames_BTCHW, encoded),
            tokens_BTHWD: encoded.tokens_BTHWD.detach(),
            features_BTHWC: encoded.features_BTHWC.as_ref().map(Tensor::shallow_clone),
            flow_B2HW: flow_B2HW.map_or_else(OnceCell::new, OnceCell::from),
        }
    }

    /// Features `[B,2,H,W,C]` of frame t and of the one a step later.
    fn step_features(&self, samples_BTCHW: &Tensor, encoded: &Encoded) -> Option<Tensor> {
        self.config.decoders.forward_model().filter(|_| samples_BTCHW.size()[1] > 2)?;
        let next_B1CHW = samples_BTCHW.narrow(1, 2, 1);
        if let Some(average) = &self.average_encoder {
            return Some(average.features(&Tensor::cat(&[samples_BTCHW.narrow(1, 0, 1), next_B1CHW], 1)));
        }
        let next_B1HWC = self.tokens(&next_B1CHW, &Pass::plain(false)).features_BTHWC?;
        let features_BTHWC = encoded.features_BTHWC.as_ref()?;
        Some(Tensor::cat(&[features_BTHWC.narrow(1, 0, 1), next_B1HWC], 1).to_kind(Kind::Float))
    }

    /// The pixels `[B,C,H,W]` of frame t+k by frame t `[B,C,H,W]` in [0, 1] and action tokens `[B,S,D]`, not clamped, without gradient;
    /// none where no decoder determines them.
    pub fn predicted_frame(&self, frame_BCHW: &Tensor, action_tokens_BSD: &Tensor) -> Option<Tensor> {
        no_grad(|| {
            let predictions = self.predict(&frame_BCHW.unsqueeze(1), action_tokens_BSD, &Pass::plain(false));
            self.decoders.frame(&predictions, frame_BCHW).map(|frame| frame.to_kind(Kind::Float))
        })
    }

    /// Predicts frame t+k from frame t `[B,1,C,H,W]` in [0, 1] and action tokens `[B,S,D]`, without any later frame.
    pub fn predict(&self, frame_B1CHW: &Tensor, action_tokens_BSD: &Tensor, pass: &Pass<'_>) -> Predictions {
        let FrameTokens { tokens_BTHWD, features_BTHWC } = self.tokens(frame_B1CHW, pass);
        let encoded = Encoded {
            tokens_BTHWD,
            features_BTHWC,
            change_BSQ: Tensor::new(),
            bias_ANN: self.position_bias.as_ref().map(ContinuousPositionBias::forward),
        };
        self.decode(frame_B1CHW, &encoded, action_tokens_BSD, pass)
    }
}
