//! The whole tree of stage 1.

mod analysis;
mod decoders;
mod encoder;
mod label_head;
mod quantizer;
mod triplets;
mod validation;

pub use analysis::*;
pub use decoders::*;
pub use encoder::*;
pub use label_head::LabelHeadConfig;
pub use quantizer::*;
pub use triplets::TripletsConfig;
pub use validation::*;

use crate::data::{DataConfig, DeltaUnit, RequestConfig};
use crate::rules::{Checked, at_least, fraction, require, section};
use crate::run::{TrainingRun, check_training, stage_config};
use crate::training::TrainingConfig;
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};

stage_config! {
    /// Everything that `hlrp train-laq` reads.
    LaqConfig of Laq {
        /// The model.
        model: LaqModelConfig,
        /// The data.
        data: DataConfig,
        /// The optimization.
        training: TrainingConfig,
        /// The validation.
        validation: LaqValidationConfig,
    }
}

/// Section `model` of stage 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/model/laq_pixel.yaml
pub struct LaqModelConfig {
    pub name: String,
    pub image_size: i64,
    pub patch_size: i64,
    pub channels: i64,
    pub cameras: Vec<String>,
    pub view_dropout: f64,
    pub dim: i64,
    pub heads: i64,
    pub dim_head: i64,
    pub spatial_depth: i64,
    pub temporal_depth: i64,
    pub attn_dropout: f64,
    pub ff_dropout: f64,
    pub encoder: EncoderConfig,
    pub quantizer: QuantizerConfig,
    pub decoder_network: DecoderNetwork,
    pub decoders: DecodersConfig,
    pub triplets: TripletsConfig,
    pub label_head: LabelHeadConfig,
    pub latent_ablation: LatentAblation,
}

/// How a decoder brings frame t and the action tokens together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderNetwork {
    /// A transformer over the grid whose tokens attend to the action tokens.
    Transformer,
    /// Convolutions over the grid that the action tokens modulate.
    Conv,
}

/// Whether the decoders see the sample's own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentAblation {
    /// Own codes.
    None,
    /// Another sample's codes: a control.
    PermuteBatch,
}

/// Smallest side of an image for RAFT: its coarsest correlation needs two positions of 64 pixels.
const MIN_FLOW_SIDE: i64 = 128;

impl FlowTeacherKind {
    /// Whether it can read the images of `model`.
    fn reads(self, model: &LaqModelConfig) -> bool {
        let side = model.image_size;
        !self.is_raft() || (side >= MIN_FLOW_SIDE && side % 8 == 0)
    }
}

/// What to say of a teacher that cannot read the images of `model`.
fn unreadable(model: &LaqModelConfig) -> String {
    let side = model.image_size;
    format!("a RAFT cannot read {side}x{side} images: their side is a multiple of 8 and at least {MIN_FLOW_SIDE}")
}

/// Most cameras of a model.
const MAX_CAMERAS: usize = 3;

/// Patches per side that the grid encoder supports, each with the numbers of code slots that it can produce.
const CODES_OF_GRID: [(i64, &[i64]); 2] = [(8, &[1, 2, 4]), (16, &[1, 4, 16, 64])];

impl Check for LaqConfig {
    fn check(&self) -> Checked {
        check_training(&self.run())?;
        section("model", self.model.check())?;
        section("validation", self.validation.check())?;
        self.check_roles()?;
        let deltas = &self.data.request.image_deltas;
        require(
            deltas.len() == 2 && deltas[0] < deltas[1],
            "data.request.image_deltas",
            "a latent action needs two frames, the earlier one first",
            "give two ascending offsets, for example [0,5]",
        )?;
        require(
            self.model.quantizer.normalization != Normalization::BatchNorm || self.data.loader.batch_size > 1,
            "data.loader.batch_size",
            "model.quantizer.normalization=batch_norm needs more than one sample",
            "raise it, or set model.quantizer.normalization to layer_norm",
        )?;
        require(
            !self.model.triplets.is_on() || self.data.loader.batch_size > 1,
            "data.loader.batch_size",
            "model.triplets compares with the variance over a batch: it needs more than one sample",
            "raise it, or set both weights of model.triplets to 0",
        )?;
        require(
            self.model.latent_ablation == LatentAblation::None || self.data.loader.batch_size > 1,
            "data.loader.batch_size",
            "model.latent_ablation=permute_batch needs another sample",
            "raise it, or set model.latent_ablation to none",
        )?;
        require(
            self.model.quantizer.unquantized_steps < self.training.max_steps,
            "model.quantizer.unquantized_steps",
            format!("no step of training.max_steps={} is quantized", self.training.max_steps),
            "lower it, or choose model/quantizer=none",
        )?;
        self.check_steps()?;
        self.check_flow_cache()?;
        self.check_graph()?;
        self.check_labels()
    }
}

impl LaqConfig {
    /// The steps of a forward model are whole frames; a source with a span of its own rounds them.
    fn check_steps(&self) -> Checked {
        let Some(forward) = self.model.decoders.forward_model() else { return Ok(()) };
        let (request, num_steps) = (&self.data.request, forward.num_steps);
        let has_spans = self.data.sources.values().all(|source| source.span.is_some());
        let frames = request.image_deltas[1] - request.image_deltas[0];
        require(
            request.unit == DeltaUnit::Seconds || has_spans || frames % num_steps as f64 == 0.0,
            "model.decoders.forward.num_steps",
            format!("{frames} frames from frame t to frame t+k are not {num_steps} steps of whole frames"),
            "set it to a divisor of the spacing of data.request.image_deltas",
        )
    }

    /// The flow of a pair is always the same.
    fn check_flow_cache(&self) -> Checked {
        const KEY: &str = "model.decoders.flow.cache.enabled";
        if self.model.decoders.flow_cache().is_none() {
            return Ok(());
        }
        require(
            !self.training.augmentation.is_on(),
            KEY,
            "training.augmentation changes the frames at every epoch, and their flow with them",
            "set it to false, or all of training.augmentation to 0",
        )?;
        require(
            self.model.decoders.forward_model().is_none(),
            KEY,
            "model.decoders.forward trains on pairs of random spans",
            "set it to false, or disable model.decoders.forward",
        )
    }

    /// What is recorded reads nothing from the disk.
    fn check_graph(&self) -> Checked {
        require(
            !self.training.cuda_graph || self.model.decoders.flow_cache().is_none(),
            "training.cuda_graph",
            "model.decoders.flow.cache reads the flows of each batch from the disk",
            "set it to false, or model.decoders.flow.cache.enabled to false",
        )?;
        require(
            !self.training.cuda_graph || !self.model.label_head.is_on() || self.model.label_head.every_n_steps > 1,
            "training.cuda_graph",
            "model.label_head reads a batch of its own at every step, so that no two steps are alike",
            "set it to false, or raise model.label_head.every_n_steps",
        )
    }

    /// Every source has the actions that a label head learns from.
    fn check_labels(&self) -> Checked {
        let without = self.data.sources.iter().find(|(_, source)| source.action_key.is_none());
        let Some((name, _)) = without.filter(|_| self.model.label_head.is_on()) else { return Ok(()) };
        let hint = "name the feature, or set model.label_head.weight=0";
        Err(Problem::new(format!("data.sources.{name}.action_key"), "model.label_head needs actions", hint))
    }

    /// Every source has the cameras of the model.
    fn check_roles(&self) -> Checked {
        for (name, source) in &self.data.sources {
            let is_missing = |role: &&String| !source.cameras.contains_key(*role);
            if let Some(role) = self.model.cameras.iter().find(is_missing) {
                let roles: Vec<&str> = source.cameras.keys().map(String::as_str).collect();
                let message =
                    format!("`{role}` is no role of data.sources.{name}.cameras, which has {}", roles.join(", "));
                let hint = format!("map a feature of the dataset to `{role}` there, or leave it out");
                return Err(Problem::new("model.cameras", message, hint));
            }
        }
        Ok(())
    }
}

impl Check for LaqModelConfig {
    fn check(&self) -> Checked {
        let counts = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("channels", self.channels),
            ("dim", self.dim),
            ("heads", self.heads),
            ("dim_head", self.dim_head),
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least(key, value, 1))?;
        let hint = "the images of every source have three: set it to 3";
        require(self.channels == 3, "channels", format!("{} channels", self.channels), hint)?;
        self.check_cameras()?;
        at_least("spatial_depth", self.spatial_depth, 0)?;
        at_least("temporal_depth", self.temporal_depth, 0)?;
        fraction("attn_dropout", self.attn_dropout, true)?;
        fraction("ff_dropout", self.ff_dropout, true)?;
        section("quantizer", self.quantizer.check())?;
        self.check_grid()?;
        self.check_encoder()?;
        section("decoders", self.decoders.check())?;
        section("label_head", self.label_head.check())?;
        self.check_codes_are_trained()?;
        self.check_targets()?;
        section("triplets", self.triplets.check())?;
        require(
            self.triplets.num_frames() == 2 || self.decoders.forward_model().is_none(),
            "triplets.additivity_weight",
            "model.decoders.forward trains on pairs of random spans, to which frame t+2k does not belong",
            "set it to 0, or disable model.decoders.forward",
        )?;
        require(
            !self.triplets.is_on() || self.quantizer.normalization != Normalization::None,
            "quantizer.normalization",
            "nothing keeps the variance of the changes: changes that are all 0 would serve model.triplets best",
            "set it to batch_norm or layer_norm, or both weights of model.triplets to 0",
        )
    }
}

impl LaqModelConfig {
    /// What a training sample holds: the pair of `request`, and the images between or after its two that losses need.
    #[must_use]
    pub fn training_request(&self, request: &RequestConfig) -> RequestConfig {
        match self.decoders.forward_model() {
            Some(forward) => request.with_steps(forward.num_steps, 1..forward.num_steps),
            None if self.triplets.num_frames() == 3 => request.with_third_image(),
            None => request.clone(),
        }
    }

    /// Something sends a gradient to the codes: a decoder, or the label head.
    fn check_codes_are_trained(&self) -> Checked {
        let all = self.decoders.all();
        let has_no_weight =
            all.iter().find(|(_, decoder)| decoder.enabled && decoder.trains_codes && decoder.loss_weight == 0.0);
        let key = has_no_weight
            .map_or("decoders.pixel.enabled".to_owned(), |(name, _)| format!("decoders.{name}.loss_weight"));
        let names: Vec<_> = all.iter().map(|(name, _)| *name).filter(|name| *name != "aux").collect();
        require(
            self.label_head.is_on()
                || all.iter().any(|(_, decoder)| decoder.enabled && decoder.trains_codes && decoder.loss_weight > 0.0),
            &key,
            "no decoder trains the codes, and there is no label head",
            format!(
                "enable one of model.decoders.{{{}}} that has a loss_weight and is not detached (the others send no gradient to the codes), or \
                 set model.label_head.weight",
                names.join(",")
            ),
        )
    }

    /// What decoders need of the rest of the model.
    fn check_targets(&self) -> Checked {
        let wants_backbone = |token: &TokenDecoderConfig| token.enabled && token.target == TokenTarget::Backbone;
        require(
            self.encoder.dinov3.is_some() || !self.decoders.token.as_ref().is_some_and(wants_backbone),
            "decoders.token.target",
            "the encoder has no pretrained backbone",
            "set it to projected, or choose model/encoder=dinov3",
        )?;
        let is_readable = |flow: &FlowDecoderConfig| !flow.enabled || flow.teacher.reads(self);
        require(
            self.decoders.flow.as_ref().is_none_or(is_readable),
            "image_size",
            format!("decoders.flow: {}", unreadable(self)),
            format!(
                "use images whose side is a multiple of 8 and at least {MIN_FLOW_SIDE}, or model.decoders.flow.teacher=lucas_kanade"
            ),
        )
    }

    fn check_cameras(&self) -> Checked {
        let cameras = &self.cameras;
        require(
            (1..=MAX_CAMERAS).contains(&cameras.len()),
            "cameras",
            format!("{} cameras", cameras.len()),
            format!("name 1 to {MAX_CAMERAS} roles of data.sources.<name>.cameras"),
        )?;
        let twice = cameras.iter().enumerate().find(|(index, role)| cameras[..*index].contains(role));
        if let Some((_, role)) = twice {
            return Err(Problem::new("cameras", format!("`{role}` is named twice"), "name each role once"));
        }
        fraction("view_dropout", self.view_dropout, true)?;
        require(
            self.view_dropout == 0.0 || cameras.len() > 1,
            "view_dropout",
            "the model has one camera, which is never left out",
            "set it to 0, or name several roles in model.cameras",
        )
    }

    fn check_encoder(&self) -> Checked {
        let is_power_of_2 = self.patch_size > 1 && self.patch_size & (self.patch_size - 1) == 0;
        match self.encoder.method().map_err(|problem| problem.inside("encoder"))? {
            EncoderMethod::Conv(conv) => {
                section("encoder.conv", conv.check())?;
                require(
                    is_power_of_2,
                    "patch_size",
                    format!("{} is not a power of 2: each layer of encoder.conv halves the image", self.patch_size),
                    "set it to 2, 4, 8, 16 or 32",
                )
            }
            EncoderMethod::Dinov3(dinov3) => section("encoder.dinov3", dinov3.check()),
            EncoderMethod::Pixel => Ok(()),
        }
    }

    fn check_grid(&self) -> Checked {
        let (image, patch, num_slots) = (self.image_size, self.patch_size, self.quantizer.code_seq_len);
        let grid = if image % patch == 0 { image / patch } else { 0 };
        let Some((_, known)) = CODES_OF_GRID.into_iter().find(|(known, _)| *known == grid) else {
            let message = format!("{image} pixels in patches of {patch} are not 8 or 16 patches per side");
            let hint = format!("set it to {} or {}", 8 * patch, 16 * patch);
            return Err(Problem::new("image_size", message, hint));
        };
        let names: Vec<String> = known.iter().map(i64::to_string).collect();
        require(
            known.contains(&num_slots),
            "quantizer.code_seq_len",
            format!("{num_slots} codes do not fit {grid}x{grid} patches"),
            format!("with this image_size and patch_size use {}", names.join(", ")),
        )
    }
}
