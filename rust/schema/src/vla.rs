//! The whole tree of stage 2.

use crate::data::DataConfig;
use crate::policy::PolicySpec;
use crate::rules::{Checked, at_least, require, section};
use crate::run::{TrainingRun, check_training, stage_config};
use crate::training::{TrainingConfig, ValidationConfig};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};

stage_config! {
    /// Everything that `hlrp train-vla` reads.
    VlaConfig of Vla {
        /// The policy and its teacher.
        policy: PolicySpec,
        /// The data.
        data: DataConfig,
        /// The optimization.
        training: TrainingConfig,
        /// The validation.
        validation: VlaValidationConfig,
    }
}

/// Section `validation` of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlaValidationConfig {
    /// Training steps between validations.
    pub check_interval: u64,
    /// Most batches of one validation; all when null.
    pub limit_batches: Option<usize>,
    /// Samples in the images.
    pub num_fixed_samples: usize,
    /// Samples of the flow whose mean is compared with the truth.
    pub num_flow_samples: usize,
}

impl VlaValidationConfig {
    /// What the engine reads.
    pub fn shared(&self) -> ValidationConfig {
        ValidationConfig {
            check_interval: self.check_interval,
            limit_batches: self.limit_batches,
            num_fixed_samples: self.num_fixed_samples,
        }
    }
}

impl Check for VlaConfig {
    fn check(&self) -> Checked {
        check_training(&self.run())?;
        section("policy", self.policy.check())?;
        section("policy", self.check_start())?;
        section("validation", at_least("num_flow_samples", self.validation.num_flow_samples, 1))?;
        self.check_request()?;
        require(
            !self.training.cuda_graph,
            "training.cuda_graph",
            "the instructions of stage 2 differ in length from batch to batch, and a graph has one shape",
            "set it to false: it is for stage 1",
        )?;
        let role = &self.policy.teacher.camera;
        require(
            !self.policy.objective.mode.with_latents()
                || self.policy.teacher.label_prefix.is_some()
                || self.data.sources.values().any(|source| source.cameras.contains_key(role)),
            "policy.teacher.camera",
            format!("no source of data has a camera '{role}'"),
            "name a role of data.sources.<name>.cameras",
        )
    }
}

impl VlaConfig {
    /// Names a backbone, a tokenizer and, where latent actions are learned, a teacher. Keys are relative to the policy.
    fn check_start(&self) -> Checked {
        let PolicySpec { model, processor, objective, teacher } = &self.policy;
        require(
            model.backbone.vlm_model_name.is_some() || model.backbone.sizes.is_some(),
            "model.backbone.vlm_model_name",
            "null, and there are no sizes for fresh weights either",
            "give the folder or Hugging Face name of a SmolVLM, or policy.model.backbone.sizes",
        )?;
        require(
            processor.tokenizer.is_some() || model.backbone.vlm_model_name.is_some(),
            "processor.tokenizer",
            "null, and there is no backbone folder that has one",
            "give a folder with tokenizer.json and tokenizer_config.json",
        )?;
        require(
            teacher.checkpoint.is_some() || teacher.label_prefix.is_some() || !objective.mode.with_latents(),
            "teacher.checkpoint",
            "null, but this mode learns latent actions",
            "give a run directory or checkpoint folder of `hlrp train-laq`, policy.teacher.label_prefix for the labels of `hlrp label`, or \
             set policy.objective.mode=actions",
        )
        .map_err(Problem::unset)
    }

    fn check_request(&self) -> Checked {
        let request = &self.data.request;
        require(
            request.image_deltas.first() == Some(&0.0) && request.image_deltas.len() <= 2,
            "data.request.image_deltas",
            "a policy sees the present, and its teacher one later frame",
            "set it to [0], or to the teacher's pair such as [0,5]",
        )?;
        require(
            request.state_deltas.contains(&0.0),
            "data.request.state_deltas",
            "the policy sees the state of the present",
            "let the list contain 0",
        )?;
        let num_actions = request.action_deltas.len() as i64;
        let chunk_size = self.policy.model.arch.get().chunk_size();
        require(
            num_actions == 0 || num_actions == chunk_size || !self.policy.objective.mode.with_actions(),
            "data.request.action_deltas",
            format!("{num_actions} offsets for an action chunk of {chunk_size} steps"),
            "give one offset per step, or [] for the frames from the present on",
        )
    }
}
