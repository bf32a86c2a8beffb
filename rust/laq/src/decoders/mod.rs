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
mod forward;
mod motion;
mod network;
mod pixel;
mod running_square;
mod set;
mod token;

pub(crate) use flow::{flow_colors, mean_flow};
pub use motion::PixelWeights;
pub use set::{ByDecoder, DecoderLosses, Decoders, Predictions, weight_at};

use crate::dims::Dims;
use crate::error::LaqError;
use hlrp_nn::{Pass, Scope};
use hlrp_schema::{DecoderConfig, DecodersConfig, LaqModelConfig};
use hlrp_torch::{TorchError, World};
use hlrp_track::metrics::{Curve, MetricSpec};
use network::Network;
use std::cell::OnceCell;
use tch::{Device, Tensor};

/// Every decoder, in the order in which they are built, run and reported.
const REGISTERED: &[Registration] = &[
    token::REGISTRATION,
    pixel::REGISTRATION,
    difference::REGISTRATION,
    flow::REGISTRATION,
    forward::REGISTRATION,
    aux::REGISTRATION,
];

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
    /// The network of a decoder under `name`: canvas in, tokens of frame t+k out.
    fn network(&self, name: &'static str, depth: i64) -> Network {
        Network::new(&self.root.child(name), name, self.config, self.dims, depth)
    }
}

/// A term of the loss beside the losses of the decoders.
pub struct Term {
    /// Name of its metric, such as `reversal_loss`.
    pub metric: &'static str,
    /// Float32 scalar, unweighted.
    pub value: Tensor,
    /// Its factor; 0 = only to be seen.
    pub weight: f64,
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
pub struct Target {
    /// `[B,2,C,H,W]` both frames as floats in [0, 1].
    pub frames_BTCHW: Tensor,
    /// `[B,2,H,W,D]` encoder tokens of both frames, without gradient.
    pub tokens_BTHWD: Tensor,
    /// `[B,2,H,W,C]` features of both frames from a frozen backbone, where the encoder has one.
    pub features_BTHWC: Option<Tensor>,
    /// `[B,2,H,W,C]` features of frame t and of the frame one step later, float32 without gradient; only where a forward model asks for
    /// them, and the sample has that frame.
    pub step_features_BTHWC: Option<Tensor>,
    /// `[B,2,H,W]` a teacher's flow, once a decoder has asked for it.
    pub(crate) flow_B2HW: OnceCell<Tensor>,
}

impl Target {
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
    fn observe(&self, _target: &Target, _world: &World) -> Result<(), TorchError> {
        Ok(())
    }

    /// Loss of a prediction without the decoder's factor, a float32 scalar; none if its target is not available.
    /// `weights` say how much each pixel counts.
    ///
    /// # Errors
    /// Another process is gone.
    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError>;

    /// What is trained beside its loss, with factors beside that of the loss.
    fn terms(&self, _prediction: &Tensor, _target: &Target) -> Vec<Term> {
        Vec::new()
    }

    /// Whether its loss reaches the encoder through the tokens of frame t.
    fn trains_canvas(&self) -> bool {
        true
    }

    /// Whether it starts from patches of frame t.
    fn reads_patches(&self) -> bool {
        false
    }

    /// What it would predict if nothing changed between the frames.
    fn no_change(&self, target: &Target) -> Tensor;

    /// The pixels of frame t+k by a prediction, `[B,C,H,W]` in [0, 1], not clamped; none if it does not determine them.
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
    fn load_teacher(&mut self, _device: Device) -> Result<(), LaqError> {
        Ok(())
    }

    /// The flow `[B,2,H,W]` in pixels of the pairs `frames_BTCHW`, as its teacher sees it; none where it has no such teacher.
    fn teacher_flow(&self, _frames_BTCHW: &Tensor) -> Option<Tensor> {
        None
    }

    /// Whether the prediction is the pixels of frame t+k and the loss their mean squared error.
    fn predicts_frame(&self) -> bool {
        false
    }
}

/// The plot of pixel losses.
pub(crate) fn pixel_curve() -> Curve {
    Curve::new("pixel_loss.png", "Pixel loss beside the copy-frame baseline", "mean squared error").log()
}
