//! The decoders of a model: which ones it has, what they see, and what their losses add up to.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels or tokens, D token width.

use super::{BuildContext, Decoder, DecoderInput, PixelWeights, REGISTERED, Registration, Target, Term};
use crate::dims::Dims;
use crate::encoders::PatchTokens;
use crate::error::LaqError;
use hlrp_nn::{Init, Pass, Scope};
use hlrp_schema::{DecoderConfig, LaqModelConfig};
use hlrp_torch::{TorchError, World};
use tch::{Device, Tensor};

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

/// What the decoders predict of frame t+k.
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
        let canvas_only = DecoderInput {
            canvas_B1HWD: detached.canvas_B1HWD,
            pixel_canvas_B1HWD: detached.pixel_canvas_B1HWD,
            ..*input
        };
        let input = if self.decoder.trains_canvas() { input } else { &canvas_only };
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
        let enabled = REGISTERED.iter().filter_map(|registration| {
            let shared = (registration.config)(&config.decoders)?;
            shared.enabled.then_some((registration, shared))
        });
        let build = |(registration, shared): (&Registration, DecoderConfig)| {
            let decoder = (registration.build)(&context, &shared);
            let blank_HWD = shared.from_latent_only.then(|| {
                let shape = [dims.grid, dims.grid_columns(), dims.dim];
                root.child(Self::BLANK).parameter(decoder.name(), &shape, Init::ScaledNormal(Self::BLANK_STD))
            });
            Built { config: shared, blank_HWD, decoder }
        };
        let built: Vec<Built> = enabled.map(build).collect();
        let reads_patches = |built: &Built| built.blank_HWD.is_none() && built.decoder.reads_patches();
        let needs_patches = config.encoder.dinov3.is_some() && built.iter().any(reads_patches);
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
    pub(crate) fn load_teachers(&mut self, device: Device) -> Result<(), LaqError> {
        self.built.iter_mut().try_for_each(|built| built.decoder.load_teacher(device))
    }

    /// As [`Decoder::teacher_flow`].
    pub(crate) fn teacher_flow(&self, frames_BTCHW: &Tensor) -> Option<Tensor> {
        self.iter().find_map(|decoder| decoder.teacher_flow(frames_BTCHW))
    }

    /// What every decoder would predict if nothing changed.
    pub fn no_change(&self, target: &Target) -> Predictions {
        ByDecoder(self.iter().map(|decoder| (decoder.name(), decoder.no_change(target))).collect())
    }

    /// Updates what the decoders know of their targets; see [`Decoder::observe`].
    ///
    /// # Errors
    /// Another process of `world` is gone.
    pub fn observe(&self, target: &Target, world: &World) -> Result<(), TorchError> {
        self.iter().try_for_each(|decoder| decoder.observe(target, world))
    }

    /// Every decoder's loss over a batch by itself.
    pub fn losses(&self, predictions: &Predictions, target: &Target) -> DecoderLosses {
        self.losses_in(&World::single(), predictions, target).expect("a single process exchanges nothing")
    }

    /// Every decoder's loss over this process's part of a global batch: their mean over the processes of `world` is that of the whole.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn losses_in(
        &self,
        world: &World,
        predictions: &Predictions,
        target: &Target,
    ) -> Result<DecoderLosses, TorchError> {
        let mut losses = Vec::new();
        for Built { config, decoder, .. } in &self.built {
            let Some(prediction) = predictions.get(decoder.name()) else { continue };
            let weights = PixelWeights::new(config, &target.frames_BTCHW, world)?;
            losses.extend(decoder.loss(prediction, target, weights.as_ref())?.map(|loss| (decoder.name(), loss)));
        }
        Ok(ByDecoder(losses))
    }

    /// What is trained beside the losses: with warm-ups at optimizer step `step`, or at full weight.
    pub fn terms(&self, predictions: &Predictions, target: &Target, step: Option<u64>) -> Vec<Term> {
        let of_decoder = |built: &Built| {
            let weight = weight_at(&built.config, step);
            let prediction = predictions.get(built.decoder.name());
            let terms = prediction.map(|prediction| built.decoder.terms(prediction, target)).unwrap_or_default();
            terms.into_iter().map(move |term| Term { weight: term.weight * weight, ..term })
        };
        self.built.iter().flat_map(of_decoder).collect()
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

    /// Whether every decoder has its full weight at optimizer step `step`.
    pub(crate) fn warm_up_is_over(&self, step: u64) -> bool {
        self.built.iter().all(|built| step >= built.config.warmup_steps)
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
