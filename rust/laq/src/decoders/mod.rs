//! Decoders: from frame t and the action tokens to frame t+k, one per file.
//!
//! To add one: a file here with its `REGISTRATION`, a line in [`REGISTERED`], its entry in `decoders!` of `hlrp_schema`'s
//! `laq.rs` and its defaults in `config/model/laq_pixel.yaml`.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels or tokens, D token width, S code slots, A attention
//! heads, N = H·W.

mod aux;
mod pixel;
mod token;

use crate::dims::{Dims, transformer_config};
use hlrp_nn::spacetime::{AttendOver, SpaceTimeTransformer};
use hlrp_nn::{Pass, Scope};
use hlrp_schema::{DecoderConfig, DecodersConfig, LaqModelConfig};
use hlrp_track::metrics::{Curve, MetricSpec};
use tch::{Kind, Reduction, Tensor};

/// Every decoder, in the order in which they are built, run and reported.
const REGISTERED: &[Registration] = &[token::REGISTRATION, pixel::REGISTRATION, aux::REGISTRATION];

/// How a decoder is found and built.
struct Registration {
    /// First parts of the names of its tensors.
    scopes: &'static [&'static str],
    /// Its keys that all decoders share; none where it has no section.
    config: fn(&DecodersConfig) -> Option<DecoderConfig>,
    /// A decoder with fresh weights.
    build: fn(&BuildContext<'_>, &DecoderConfig) -> Box<dyn Decoder>,
}

/// What a decoder is built from.
struct BuildContext<'a> {
    /// The root of all names.
    root: &'a Scope<'a>,
    config: &'a LaqModelConfig,
    dims: &'a Dims,
}

impl BuildContext<'_> {
    /// The transformer of a decoder under `name`: canvas in, tokens of frame t+k out.
    fn transformer(&self, name: &'static str, depth: i64) -> SpaceTimeTransformer {
        let config = transformer_config(self.config, depth, true);
        SpaceTimeTransformer::new(&self.root.child(name), name, AttendOver::Space, config)
    }
}

/// What every decoder sees.
pub struct DecoderInput<'a> {
    /// `[B,1,C,H,W]` frame t as floats in [0, 1].
    pub frame_B1CHW: &'a Tensor,
    /// `[B,1,H,W,D]` encoder tokens of frame t.
    pub canvas_B1HWD: &'a Tensor,
    /// `[B,S,D]`.
    pub action_tokens_BSD: &'a Tensor,
    /// `[A,N,N]` position bias of the encoder.
    pub bias_ANN: &'a Tensor,
}

/// What a decoder may compare its prediction with.
pub struct Target<'a> {
    /// `[B,2,C,H,W]` both frames as floats in [0, 1].
    pub frames_BTCHW: &'a Tensor,
    /// `[B,2,H,W,D]` encoder tokens of both frames, without gradient.
    pub tokens_BTHWD: Tensor,
}

impl Target<'_> {
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

    /// Unweighted loss of a prediction, a float32 scalar.
    fn loss(&self, prediction: &Tensor, target: &Target<'_>) -> Tensor;

    /// A prediction as an image `[B,C,H,W]` in [0, 1], not clamped, with its title; none where it cannot be shown.
    fn image(&self, _prediction: &Tensor) -> Option<(&'static str, Tensor)> {
        None
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
pub struct Decoders(Vec<(DecoderConfig, Box<dyn Decoder>)>);

impl Decoders {
    /// None.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Those that `config` enables, with fresh weights below `root`.
    pub(crate) fn new(root: &Scope<'_>, config: &LaqModelConfig, dims: &Dims) -> Self {
        let context = BuildContext { root, config, dims };
        let enabled = REGISTERED
            .iter()
            .filter_map(|registration| Some(((registration.config)(&config.decoders)?, registration.build)))
            .filter(|(shared, _)| shared.enabled);
        Self(enabled.map(|(shared, build)| (shared, build(&context, &shared))).collect())
    }

    /// Whether the tensor `name` of a model belongs to a decoder.
    pub fn owns(name: &str) -> bool {
        let first = name.split('.').next().unwrap_or_default();
        REGISTERED.iter().any(|registration| registration.scopes.contains(&first))
    }

    /// The decoders.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Decoder> {
        self.0.iter().map(|(_, decoder)| decoder.as_ref())
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
        let detached_BSD = input.action_tokens_BSD.detach();
        let predict = |(config, decoder): &(DecoderConfig, Box<dyn Decoder>)| {
            let action_tokens_BSD = if config.trains_codes { input.action_tokens_BSD } else { &detached_BSD };
            (decoder.name(), decoder.predict(&DecoderInput { action_tokens_BSD, ..*input }, pass))
        };
        ByDecoder(self.0.iter().map(predict).collect())
    }

    /// Every decoder's loss.
    pub fn losses(&self, predictions: &Predictions, target: &Target<'_>) -> DecoderLosses {
        let loss = |(name, prediction): (&'static str, &Tensor)| Some((name, self.get(name)?.loss(prediction, target)));
        ByDecoder(predictions.iter().filter_map(loss).collect())
    }

    /// Losses under their metric names.
    pub fn metrics(&self, losses: &DecoderLosses) -> Vec<(&'static str, Tensor)> {
        let metric = |decoder: &dyn Decoder| Some((decoder.metric(), losses.get(decoder.name())?.shallow_clone()));
        self.iter().filter_map(metric).collect()
    }

    /// Weighted sum of losses: with warm-ups at optimizer step `step`, or at full weight.
    pub fn total(&self, losses: &DecoderLosses, step: Option<u64>) -> Tensor {
        let weighted =
            self.0.iter().filter_map(|(config, decoder)| Some(losses.get(decoder.name())? * weight_at(config, step)));
        weighted.reduce(|sum, term| sum + term).expect("a trained model has at least one decoder")
    }

    /// The pixels of frame t+k among predictions, `[B,C,H,W]`.
    pub fn frame<'a>(&self, predictions: &'a Predictions) -> Option<&'a Tensor> {
        predictions.get(self.of_frames()?.name())
    }
}

/// Weight of a decoder's loss: rises linearly to its full value at `warmup_steps`; `None` stands for the full value.
pub fn weight_at(decoder: &DecoderConfig, step: Option<u64>) -> f64 {
    match step {
        Some(step) if step < decoder.warmup_steps => decoder.loss_weight * step as f64 / decoder.warmup_steps as f64,
        _ => decoder.loss_weight,
    }
}

/// The plot of pixel losses.
pub(crate) fn pixel_curve() -> Curve {
    Curve::new("pixel_loss.png", "Pixel loss beside the copy-frame baseline", "mean squared error").log()
}

/// Mean squared error in float32.
fn mean_squared_error(prediction: &Tensor, target: &Tensor) -> Tensor {
    prediction.to_kind(Kind::Float).mse_loss(&target.to_kind(Kind::Float), Reduction::Mean)
}
