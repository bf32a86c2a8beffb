//! Decoders: from frame t and the action tokens to frame t+k, one per file.
//!
//! To add one: a file here with its `REGISTRATION`, a line in [`REGISTERED`], its entry in `decoders!` of `hlrp_schema`'s
//! `laq/decoders.rs` and its defaults in `config/model/laq_pixel.yaml`.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels or tokens, D token width, S code slots, A attention
//! heads, N = H·W.

mod aux;
mod difference;
mod flow;
mod motion;
mod network;
mod pixel;
mod running_square;
mod token;

use crate::dims::Dims;
use crate::encoders::PatchTokens;
use crate::error::LaqError;
use hlrp_nn::{Init, Pass, Scope};
use hlrp_schema::{DecoderConfig, DecodersConfig, LaqModelConfig};
use hlrp_torch::{TorchError, World};
use hlrp_track::metrics::{Curve, MetricSpec};
use motion::motion_weight;
use network::Network;
use std::cell::OnceCell;
use tch::{Device, Tensor};

/// Every decoder, in the order in which they are built, run and reported.
const REGISTERED: &[Registration] =
    &[token::REGISTRATION, pixel::REGISTRATION, difference::REGISTRATION, flow::REGISTRATION, aux::REGISTRATION];

/// How a decoder is found and built.
struct Registration {
    /// First parts of the names of its tensors.
    scopes: &'static [&'static str],
    /// Its keys that all decoders share; none where it has no section.
    config: fn(&DecodersConfig) -> Option<DecoderConfig>,
    /// A decoder with fresh weights.
    build: Build,
}

/// What a decoder is built from.
struct BuildContext<'a> {
    /// The root of all names.
    root: &'a Scope<'a>,
    config: &'a LaqModelConfig,
    dims: &'a Dims,
}

impl BuildContext<'_> {
    /// The network of a decoder under `name`: canvas in, tokens of frame t+k out.
    fn network(&self, name: &'static str, depth: i64) -> Network {
        Network::new(&self.root.child(name), name, self.config, self.dims, depth)
    }
}

/// What every decoder sees.
pub struct DecoderInput<'a> {
    /// `[B,1,C,H,W]` frame t as floats in [0, 1].
    pub frame_B1CHW: &'a Tensor,
    /// `[B,1,H,W,D]` encoder tokens of frame t.
    pub canvas_B1HWD: &'a Tensor,
    /// `[B,1,H,W,D]` tokens of frame t for what predicts pixels: patches where the encoder's tokens are features.
    pub pixel_canvas_B1HWD: &'a Tensor,
    /// `[B,S,D]`.
    pub action_tokens_BSD: &'a Tensor,
    /// `[A,N,N]` position bias of the encoder; none where no decoder reads it.
    pub bias_ANN: Option<&'a Tensor>,
}

/// What a decoder may compare its prediction with.
pub struct Target<'a> {
    /// `[B,2,C,H,W]` both frames as floats in [0, 1].
    pub frames_BTCHW: &'a Tensor,
    /// `[B,2,H,W,D]` encoder tokens of both frames, without gradient.
    pub tokens_BTHWD: Tensor,
    /// `[B,2,H,W,C]` features of both frames from a frozen backbone, where the encoder has one.
    pub features_BTHWC: Option<Tensor>,
    /// `[B,2,H,W]` a teacher's flow, once a decoder has asked for it.
    pub(crate) flow_B2HW: OnceCell<Tensor>,
}

impl Target<'_> {
    /// Pixels of frame t, `[B,C,H,W]`.
    pub fn earlier_frame(&self) -> Tensor {
        self.frames_BTCHW.select(1, 0)
    }

    /// Pixels of frame t+k, `[B,C,H,W]`.
    pub fn later_frame(&self) -> Tensor {
        self.frames_BTCHW.select(1, 1)
    }
}

/// One decoder.
pub trait Decoder: Send {
    /// Its section below `model.decoders`.
    fn name(&self) -> &'static str;

    /// Name of its loss among the metrics, such as `pixel_loss`.
    fn metric(&self) -> &'static str;

    /// Its metrics: the loss in validation, and in training where it is drawn.
    fn metrics(&self) -> Vec<MetricSpec> {
        vec![MetricSpec::detail(format!("val/{}", self.metric())).lower_is_better()]
    }

    /// What it predicts of frame t+k. Where it does not train the codes, the action tokens carry no gradient.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor;

    /// Updates what it knows of its targets, before the losses of a training step; without waiting for the device.
    ///
    /// # Errors
    /// Another process of `world` is gone.
    fn observe(&self, _target: &Target<'_>, _world: &World) -> Result<(), TorchError> {
        Ok(())
    }

    /// Loss of a prediction without the decoder's factor, a float32 scalar; none where its target is not at hand.
    /// `weight_B1HW` says how much each pixel counts.
    fn loss(&self, prediction: &Tensor, target: &Target<'_>, weight_B1HW: Option<&Tensor>) -> Option<Tensor>;

    /// Whether it starts from patches of frame t.
    fn reads_patches(&self) -> bool {
        false
    }

    /// What it would predict if nothing changed between the frames.
    fn no_change(&self, target: &Target<'_>) -> Tensor;

    /// The pixels of frame t+k that a prediction means, `[B,C,H,W]` in [0, 1], not clamped; none where it means none.
    /// `frame_BCHW` is frame t.
    fn frame(&self, prediction: &Tensor, _frame_BCHW: &Tensor) -> Option<Tensor> {
        self.predicts_frame().then(|| prediction.shallow_clone())
    }

    /// A prediction as an image `[B,3,H,W]` in [0, 1], not clamped, with its title; none where it cannot be shown.
    /// `frame_BCHW` is frame t.
    fn image(&self, _prediction: &Tensor, _frame_BCHW: &Tensor) -> Option<(&'static str, Tensor)> {
        None
    }

    /// Reads the network that makes its targets, if it learns from one.
    ///
    /// # Errors
    /// Weights that are missing, damaged or of another network.
    fn load_teacher(&mut self, _config: &DecodersConfig, _device: Device) -> Result<(), LaqError> {
        Ok(())
    }

    /// Whether the prediction is the pixels of frame t+k and the loss their mean squared error.
    fn predicts_frame(&self) -> bool {
        false
    }
}

/// One tensor per decoder, in the order of registration.
pub struct ByDecoder(Vec<(&'static str, Tensor)>);

impl ByDecoder {
    /// That of the decoder `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor)
    }

    /// Name and tensor of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (*name, tensor))
    }
}

/// What the decoders expect of frame t+k.
pub type Predictions = ByDecoder;

/// Unweighted losses, float32 scalars.
pub type DecoderLosses = ByDecoder;

/// The decoders of a model.
pub struct Decoders {
    built: Vec<Built>,
    /// Patches of frame t as tokens, where the encoder's tokens are features.
    pixel_canvas: Option<PatchTokens>,
}

/// A decoder in its model.
struct Built {
    config: DecoderConfig,
    /// `[H,W,D]` learned canvas of a decoder that does not see frame t.
    blank_HWD: Option<Tensor>,
    decoder: Box<dyn Decoder>,
}

impl Built {
    fn predict(&self, input: &DecoderInput<'_>, detached: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        let input = if self.config.trains_codes { input } else { detached };
        let Some(blank_HWD) = &self.blank_HWD else { return self.decoder.predict(input, pass) };
        let canvas_B1HWD = blank_HWD.expand_as(input.canvas_B1HWD);
        let black_B1CHW = input.frame_B1CHW.zeros_like();
        let blank = DecoderInput {
            frame_B1CHW: &black_B1CHW,
            canvas_B1HWD: &canvas_B1HWD,
            pixel_canvas_B1HWD: &canvas_B1HWD,
            ..*input
        };
        self.decoder.predict(&blank, pass)
    }
}

impl Decoders {
    /// First part of the names of the canvases of decoders that do not see frame t.
    const BLANK: &'static str = "blank_canvas";
    /// First part of the names of the patches as tokens.
    const PIXEL_CANVAS: &'static str = "decoder_context_projection";
    /// Std of fresh blank canvases.
    const BLANK_STD: f64 = 0.02;

    /// None.
    pub(crate) fn none() -> Self {
        Self { built: Vec::new(), pixel_canvas: None }
    }

    /// Those that `config` enables, with fresh weights below `root`.
    pub(crate) fn new(root: &Scope<'_>, config: &LaqModelConfig, dims: &Dims) -> Self {
        let context = BuildContext { root, config, dims };
        let build = |(config, build): (DecoderConfig, Build)| {
            let decoder = build(&context, &config);
            let blank_HWD = config.from_latent_only.then(|| {
                let shape = [dims.grid, dims.grid, dims.dim];
                root.child(Self::BLANK).parameter(decoder.name(), &shape, Init::ScaledNormal(Self::BLANK_STD))
            });
            Built { config, blank_HWD, decoder }
        };
        let enabled = REGISTERED
            .iter()
            .filter_map(|registration| Some(((registration.config)(&config.decoders)?, registration.build)))
            .filter(|(shared, _)| shared.enabled);
        let built: Vec<Built> = enabled.map(build).collect();
        let needs_patches = config.encoder.dinov3.is_some() && built.iter().any(|built| built.decoder.reads_patches());
        let pixel_canvas = needs_patches.then(|| PatchTokens::new(&root.child(Self::PIXEL_CANVAS), dims));
        Self { built, pixel_canvas }
    }

    /// Whether the tensor `name` of a model belongs to a decoder.
    pub fn owns(name: &str) -> bool {
        let first = name.split('.').next().unwrap_or_default();
        [Self::BLANK, Self::PIXEL_CANVAS].contains(&first)
            || REGISTERED.iter().any(|registration| registration.scopes.contains(&first))
    }

    /// The decoders.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Decoder> {
        self.built.iter().map(|built| built.decoder.as_ref())
    }

    /// Those whose loss reaches the codes.
    pub fn training(&self) -> impl Iterator<Item = &dyn Decoder> {
        self.built.iter().filter(|built| built.config.trains_codes).map(|built| built.decoder.as_ref())
    }

    /// The decoder `name`.
    pub fn get(&self, name: &str) -> Option<&dyn Decoder> {
        self.iter().find(|decoder| decoder.name() == name)
    }

    /// The first decoder that predicts the pixels of frame t+k.
    pub fn of_frames(&self) -> Option<&dyn Decoder> {
        self.iter().find(|decoder| decoder.predicts_frame())
    }

    /// Every decoder's prediction.
    pub fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Predictions {
        let patches_B1HWD = self.pixel_canvas.as_ref().map(|patches| patches.forward(input.frame_B1CHW));
        let pixel_canvas_B1HWD = patches_B1HWD.as_ref().unwrap_or(input.pixel_canvas_B1HWD);
        let input = &DecoderInput { pixel_canvas_B1HWD, ..*input };
        let action_tokens_BSD = input.action_tokens_BSD.detach();
        let (canvas_B1HWD, bias_ANN) = (input.canvas_B1HWD.detach(), input.bias_ANN.map(Tensor::detach));
        let pixel_canvas_B1HWD = input.pixel_canvas_B1HWD.detach();
        let detached = DecoderInput {
            frame_B1CHW: input.frame_B1CHW,
            canvas_B1HWD: &canvas_B1HWD,
            pixel_canvas_B1HWD: &pixel_canvas_B1HWD,
            action_tokens_BSD: &action_tokens_BSD,
            bias_ANN: bias_ANN.as_ref(),
        };
        ByDecoder(
            self.built.iter().map(|built| (built.decoder.name(), built.predict(input, &detached, pass))).collect(),
        )
    }

    /// Reads the networks that make targets.
    ///
    /// # Errors
    /// As [`Decoder::load_teacher`].
    pub(crate) fn load_teachers(&mut self, config: &DecodersConfig, device: Device) -> Result<(), LaqError> {
        self.built.iter_mut().try_for_each(|built| built.decoder.load_teacher(config, device))
    }

    /// What every decoder would predict if nothing changed.
    pub fn no_change(&self, target: &Target<'_>) -> Predictions {
        ByDecoder(self.iter().map(|decoder| (decoder.name(), decoder.no_change(target))).collect())
    }

    /// Updates what the decoders know of their targets; see [`Decoder::observe`].
    ///
    /// # Errors
    /// Another process of `world` is gone.
    pub fn observe(&self, target: &Target<'_>, world: &World) -> Result<(), TorchError> {
        self.iter().try_for_each(|decoder| decoder.observe(target, world))
    }

    /// Every decoder's loss.
    pub fn losses(&self, predictions: &Predictions, target: &Target<'_>) -> DecoderLosses {
        let loss = |built: &Built| {
            let name = built.decoder.name();
            let weight_B1HW = motion_weight(&built.config, target.frames_BTCHW);
            Some((name, built.decoder.loss(predictions.get(name)?, target, weight_B1HW.as_ref())?))
        };
        ByDecoder(self.built.iter().filter_map(loss).collect())
    }

    /// Losses under their metric names.
    pub fn metrics(&self, losses: &DecoderLosses) -> Vec<(&'static str, Tensor)> {
        let metric = |decoder: &dyn Decoder| Some((decoder.metric(), losses.get(decoder.name())?.shallow_clone()));
        self.iter().filter_map(metric).collect()
    }

    /// Weighted sum of losses: with warm-ups at optimizer step `step`, or at full weight.
    pub fn total(&self, losses: &DecoderLosses, step: Option<u64>) -> Tensor {
        let weighted = self
            .built
            .iter()
            .filter_map(|built| Some(losses.get(built.decoder.name())? * weight_at(&built.config, step)));
        weighted.reduce(|sum, term| sum + term).expect("a trained model has at least one decoder")
    }

    /// The pixels of frame t+k by the predictions, `[B,C,H,W]`; `frame_BCHW` is frame t.
    pub fn frame(&self, predictions: &Predictions, frame_BCHW: &Tensor) -> Option<Tensor> {
        let shown = |decoder: &dyn Decoder| decoder.frame(predictions.get(decoder.name())?, frame_BCHW);
        self.of_frames().and_then(shown).or_else(|| self.iter().find_map(shown))
    }
}

/// Weight of a decoder's loss: rises linearly to its full value at `warmup_steps`; `None` stands for the full value.
pub fn weight_at(decoder: &DecoderConfig, step: Option<u64>) -> f64 {
    match step {
        Some(step) if step < decoder.warmup_steps => decoder.loss_weight * step as f64 / decoder.warmup_steps as f64,
        _ => decoder.loss_weight,
    }
}

/// Builds a decoder with fresh weights.
type Build = fn(&BuildContext<'_>, &DecoderConfig) -> Box<dyn Decoder>;

/// The plot of pixel losses.
pub(crate) fn pixel_curve() -> Curve {
    Curve::new("pixel_loss.png", "Pixel loss beside the copy-frame baseline", "mean squared error").log()
}
