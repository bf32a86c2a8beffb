//! The one description of a policy: the section `policy` of the configuration, and what an artifact, a checkpoint, `hlrp_rs` and the LeRobot
//! plugin know of it. Keys that LeRobot has too have LeRobot's names.
//!
//! In a configuration `null` means "from the data, the backbone or the teacher"; [`PolicySpec::resolve`] fills it. A resolved description has
//! no paths: it says what a policy is, not where its first weights came from.

mod archs;
mod backbone;
mod labels;
mod learning;
mod processor;
mod smolvla;
mod version_1;

pub use crate::migrate::migrate_policy;
pub use archs::*;
pub use backbone::{BackboneSizes, BackboneSpec, TextSizes, VisionSizes};
pub use labels::{LabelDescription, LabelScale, LabelSource, LabelVectors, label_columns};
pub use learning::{Mode, ObjectiveSpec, TeacherIdentity, TeacherSpec, TeacherWeights};
pub use processor::{ImagePreparation, Padding, ProcessorSpec, Scaling, ScalingMode, Side};
pub use smolvla::SmolVlaFields;
pub use version_1::from_version_1;

use crate::rules::{Checked, at_least, positive, require, section};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A policy: its network, how its inputs are prepared, what it learns and the teacher of its latent actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// The network.
    pub model: ModelSpec,
    /// How inputs are prepared.
    pub processor: ProcessorSpec,
    /// What is learned.
    pub objective: ObjectiveSpec,
    /// The latent action model that labels frame pairs.
    pub teacher: TeacherSpec,
}

/// The network: what every architecture has, and the section of one architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained next to its default in config/policy/
pub struct ModelSpec {
    pub backbone: BackboneSpec,
    pub cameras: Vec<String>,
    pub empty_cameras: usize,
    /// Width and height in pixels, in LeRobot's order.
    pub resize_imgs_with_padding: [i64; 2],
    pub action_dim: Option<i64>,
    pub latent: Option<LatentShape>,
    pub flow: FlowSpec,
    pub arch: ArchSpec,
}

/// Shape of a latent action: that of the teacher's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentShape {
    /// Code slots S.
    pub code_seq_len: i64,
    /// Dimensions D of a code vector.
    pub code_dim: i64,
    /// Codes K; none for continuous latents.
    pub codebook_size: Option<i64>,
}

/// Constants of the flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// Euler steps of a sample.
    pub num_steps: i64,
    /// Shortest period of the time embedding.
    pub min_period: f64,
    /// Longest period of the time embedding.
    pub max_period: f64,
    /// First parameter of the Beta distribution of training times.
    pub time_beta_alpha: f64,
    /// Second parameter.
    pub time_beta_beta: f64,
}

/// What the data says of a policy's vectors.
#[derive(Debug, Clone, Default)]
pub struct DataFacts {
    /// The state, if the data has one.
    pub state: Option<FeatureFacts>,
    /// The action, if the data has one.
    pub action: Option<FeatureFacts>,
}

/// One vector of the data.
#[derive(Debug, Clone)]
pub struct FeatureFacts {
    /// Its dimensions.
    pub dim: usize,
    /// Statistics over all sources, by their names in LeRobot's `stats.json`.
    pub statistics: BTreeMap<String, Vec<f64>>,
}

/// What the backbone's folder and the tokenizer say.
#[derive(Debug, Clone)]
pub struct BackboneFacts {
    /// Sizes of the whole backbone in its folder; none without a folder.
    pub sizes: Option<BackboneSizes>,
    /// Tokens that the tokenizer knows.
    pub num_tokens: usize,
    /// Its tokens around an image, if it has them.
    pub image_special_tokens: Option<ImageSpecialTokens>,
}

impl Check for PolicySpec {
    fn check(&self) -> Checked {
        section("model", self.model.check())?;
        section("processor", self.processor.check())?;
        section("objective", self.objective.check())?;
        section("teacher", self.teacher.check())?;
        self.processor.check_dims(&self.model)?;
        self.check_teacher_shape()
    }
}

impl PolicySpec {
    /// Checks that nothing is left to be filled, besides [`Check::check`].
    ///
    /// # Errors
    /// The first value that is null and must not be, or that is invalid.
    pub fn check_resolved(&self) -> Checked {
        self.check()?;
        section("model", self.model.check_resolved())?;
        section("processor", self.processor.check_resolved())?;
        let mode = self.objective.mode;
        require(
            !mode.with_latents() || self.teacher.identity().is_some(),
            "teacher.sha256",
            "null, but the policy learns latent actions",
            UNRESOLVED,
        )?;
        require(
            !mode.with_actions() || self.processor.action.is_some(),
            "processor.action",
            "null, but the policy learns actions",
            UNRESOLVED,
        )
    }

    /// Fills everything that is null with what the data, the backbone and the teacher say, checks what is given against it, and drops the paths.
    ///
    /// # Errors
    /// A value that contradicts one of them, or that none of them says. Keys are relative to the policy.
    pub fn resolve(
        mut self,
        data: &DataFacts,
        backbone: &BackboneFacts,
        teacher: Option<&TeacherIdentity>,
    ) -> Result<Self, Problem> {
        let mode = self.objective.mode;
        self.teacher.resolve(teacher).map_err(|problem| problem.inside("teacher"))?;
        self.model.resolve_backbone(backbone).map_err(|problem| problem.inside("model"))?;
        let action_dim = self.action_dim(data)?;
        let latent = teacher.map(TeacherIdentity::latent).or(self.model.latent);
        (self.model.action_dim, self.model.latent) = self.model.arch.get().heads(mode, action_dim, latent);
        let sees_state = self.model.arch.get().max_state_dim().is_some();
        self.processor.resolve(data, sees_state).map_err(|problem| problem.inside("processor"))?;
        self.check_vocabulary(backbone.num_tokens)?;
        self.check_prefix_length()?;
        self.check_resolved()?;
        Ok(self)
    }

    /// Every token has a row in the embedding table.
    fn check_vocabulary(&self, num_tokens: usize) -> Checked {
        let num_rows = self.model.backbone.sizes().map_err(|problem| problem.inside("model"))?.text.vocab_size;
        require(
            num_tokens as i64 <= num_rows,
            "processor.tokenizer",
            format!("{num_tokens} tokens, but the backbone's embedding table has {num_rows} rows"),
            "use the backbone's own tokenizer, or raise the vocabulary's size",
        )
    }

    /// A prefix of fixed length has room for every camera, the longest instruction and the state.
    fn check_prefix_length(&self) -> Checked {
        let arch = self.model.arch.get();
        let Some((key, length)) = arch.prefix_length() else { return Ok(()) };
        let num_image_tokens = self.model.num_image_tokens().map_err(|problem| problem.inside("model"))?;
        let of_camera = num_image_tokens + arch.num_tokens_around_image();
        let needed = self.model.cameras.len() as i64 * of_camera + self.processor.tokenizer_max_length as i64 + 1;
        require(
            needed <= length,
            &format!("model.arch.{}.{key}", self.model.arch.name()),
            format!("the prefix needs {needed} tokens (images + tokenizer_max_length + state), {key} is {length}"),
            format!("set it to {needed} or more, or to null"),
        )
    }

    /// Dimensions of an action: the data's, which the description may confirm. None when there are no actions to learn.
    fn action_dim(&self, data: &DataFacts) -> Result<Option<i64>, Problem> {
        let configured = self.model.action_dim;
        let Some(action) = &data.action else {
            let hint = "set data.sources.<name>.action_key, or policy.objective.mode=latent";
            require(!self.objective.mode.with_actions(), "objective.mode", "the data has no actions to learn", hint)?;
            return Ok(configured);
        };
        let dim = action.dim as i64;
        require(
            configured.is_none_or(|configured| configured == dim),
            "model.action_dim",
            format!("the data's actions have {dim} dimensions"),
            "set it to null",
        )?;
        Ok(Some(dim))
    }

    /// The latent head has the shape of the teacher's codes.
    fn check_teacher_shape(&self) -> Checked {
        let (Some(teacher), Some(latent)) = (self.teacher.identity(), self.model.latent) else { return Ok(()) };
        let own = teacher.latent();
        let hint = "set it to null to take the teacher's";
        require(
            (own.code_seq_len, own.code_dim) == (latent.code_seq_len, latent.code_dim),
            "model.latent",
            format!(
                "the teacher has {} codes of {} dimensions, the model's latent head {} of {}",
                own.code_seq_len, own.code_dim, latent.code_seq_len, latent.code_dim
            ),
            hint,
        )?;
        let size = |size: Option<i64>| size.map_or("no".to_owned(), |size| size.to_string());
        require(
            latent.codebook_size.is_none() || latent.codebook_size == own.codebook_size,
            "model.latent.codebook_size",
            format!(
                "the teacher has a codebook of {} codes, not {}",
                size(own.codebook_size),
                size(latent.codebook_size)
            ),
            hint,
        )
    }
}

/// What to do about a description that says too little.
pub(crate) const UNRESOLVED: &str = "a complete description has this value; the artifact.json of an artifact shows one";

impl Check for ModelSpec {
    fn check(&self) -> Checked {
        section("backbone", self.backbone.check())?;
        self.check_cameras()?;
        self.resize_imgs_with_padding.into_iter().try_for_each(|side| at_least("resize_imgs_with_padding", side, 1))?;
        if self.backbone.sizes.is_some() {
            self.num_image_tokens()?;
        }
        at_least("action_dim", self.action_dim.unwrap_or(1), 1)?;
        if let Some(latent) = self.latent {
            section("latent", at_least("code_seq_len", latent.code_seq_len, 1))?;
            section("latent", at_least("code_dim", latent.code_dim, 1))?;
            section("latent", at_least("codebook_size", latent.codebook_size.unwrap_or(1), 1))?;
        }
        section("flow", self.flow.check())?;
        let arch = self.arch.get();
        arch.check(self)?;
        let (dim, most) = (self.action_dim, arch.max_action_dim());
        require(
            dim.zip(most).is_none_or(|(dim, most)| dim <= most),
            &format!("arch.{}.max_action_dim", self.arch.name()),
            format!("{}, but actions have {} dimensions", most.unwrap_or_default(), dim.unwrap_or_default()),
            format!("raise it to at least {}", dim.unwrap_or_default()),
        )
    }
}

impl ModelSpec {
    /// Checks that nothing is left to be filled.
    ///
    /// # Errors
    /// The first value that is null and must not be.
    pub fn check_resolved(&self) -> Checked {
        self.backbone.sizes()?;
        self.arch.get().check_resolved(self)
    }

    /// The part of [`PolicySpec::resolve`] that depends on the backbone alone.
    ///
    /// # Errors
    /// A value that contradicts the backbone; its key is relative to the model.
    pub fn resolve_backbone(&mut self, backbone: &BackboneFacts) -> Checked {
        section("backbone", self.backbone.resolve(backbone.sizes.as_ref()))?;
        let Self { backbone: spec, arch, .. } = self;
        arch.get_mut().resolve(spec.sizes()?, backbone)
    }

    /// Height and width of prepared images.
    pub fn image_size(&self) -> [i64; 2] {
        let [width, height] = self.resize_imgs_with_padding;
        [height, width]
    }

    /// Tokens of one image.
    ///
    /// # Errors
    /// An image size that does not divide into blocks of the backbone, or a backbone without sizes.
    pub fn num_image_tokens(&self) -> Result<i64, Problem> {
        let [height, width] = self.image_size();
        self.backbone.sizes()?.num_image_tokens(height, width)
    }

    fn check_cameras(&self) -> Checked {
        let cameras = &self.cameras;
        require(!cameras.is_empty(), "cameras", "no camera", "name at least one role, such as [primary]")?;
        let twice = cameras.iter().enumerate().find(|(index, role)| cameras[..*index].contains(role));
        if let Some((_, role)) = twice {
            return Err(Problem::new("cameras", format!("'{role}' is named twice"), "name each role once"));
        }
        require(
            cameras.iter().all(|role| !role.is_empty()),
            "cameras",
            "an empty role",
            "name roles of data.sources.<name>.cameras",
        )?;
        require(
            self.empty_cameras < cameras.len(),
            "empty_cameras",
            format!("{} of {} cameras leave none to see", self.empty_cameras, cameras.len()),
            "keep at least one camera",
        )
    }
}

impl Check for FlowSpec {
    fn check(&self) -> Checked {
        at_least("num_steps", self.num_steps, 1)?;
        positive("min_period", self.min_period)?;
        positive("max_period", self.max_period)?;
        require(
            self.min_period < self.max_period,
            "max_period",
            format!("{:?} does not exceed the shortest period {:?}", self.max_period, self.min_period),
            "0.004 and 4.0 are usual",
        )?;
        positive("time_beta_alpha", self.time_beta_alpha)?;
        positive("time_beta_beta", self.time_beta_beta)
    }
}
