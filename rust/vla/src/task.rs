//! The policy as the engine sees it.

use crate::setup::Plan;
use crate::{
    Artifact, Description, LatentTarget, Objective, Observation, Present, Processor, Provenance, Targets, Teacher,
    TorchFlowDraws, VlaError, VlaModel, validation,
};
use hlrp_nn::Pass;
use hlrp_schema::{TaskDescription, VlaConfig};
use hlrp_track::fs::OnExisting;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::{DeviceBatch, ExportContext, LossOutput, Task, Validation, ValidationContext};
use serde_json::json;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Training and validation of a policy.
pub struct VlaTask {
    pub(crate) model: VlaModel,
    pub(crate) objective: Objective,
    pub(crate) processor: Processor,
    pub(crate) teacher: Option<Teacher>,
    /// Role whose frames the teacher sees.
    pub(crate) teacher_camera: String,
    plan: Plan,
    moments: Moments,
    tokenizer_folder: PathBuf,
    experiment: String,
    pub(crate) num_pictured: usize,
    pub(crate) num_flow_samples: usize,
}

/// Where a batch holds what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    /// Position of the present among the images.
    pub(crate) image: i64,
    /// Position of the present among the states.
    pub(crate) state: i64,
    /// Position of the first action of the chunk.
    pub(crate) action: i64,
}

impl Moments {
    /// The same in a validation sample, which holds one image and one action more before the others.
    fn in_validation(self) -> Self {
        Self { image: self.image + 1, action: self.action + 1, ..self }
    }
}

/// What a batch shows and teaches.
pub(crate) struct Lesson {
    pub(crate) observation: Observation,
    pub(crate) targets: Targets,
    /// `int64 [B,S]` the teacher's codes.
    pub(crate) codes_BS: Option<Tensor>,
}

impl VlaTask {
    /// Trains `model` as `config` says; its parameters are frozen already where they stay as they are.
    #[allow(clippy::too_many_arguments)] // the parts of one run, put together in one place
    pub(crate) fn new(
        model: VlaModel,
        plan: Plan,
        objective: Objective,
        processor: Processor,
        teacher: Option<Teacher>,
        moments: Moments,
        tokenizer_folder: PathBuf,
        config: &VlaConfig,
    ) -> Self {
        Self {
            model,
            objective,
            processor,
            teacher,
            teacher_camera: config.model.laq.camera.clone(),
            plan,
            moments,
            tokenizer_folder,
            experiment: config.experiment.name.clone(),
            num_pictured: config.validation.num_fixed_samples,
            num_flow_samples: config.validation.num_flow_samples,
        }
    }

    /// The policy.
    pub fn model(&self) -> &VlaModel {
        &self.model
    }

    /// What `batch` shows at the present and teaches. The frames behind the present reach the teacher alone.
    pub(crate) fn lesson(&self, batch: &DeviceBatch, moments: Moments) -> Result<Lesson, VlaError> {
        let present = Present { image: moments.image, state: moments.state };
        let mut targets = Targets::default();
        let mut codes_BS = None;
        if self.objective.mode.with_latents() {
            let codes = self.codes(batch, moments.image)?;
            targets.latent = Some(codes.0);
            codes_BS = Some(codes.1);
        }
        if self.objective.mode.with_actions() {
            let mut target = self.processor.actions(batch)?;
            let num_steps = target.chunk_BTA.size()[1] - moments.action;
            target.chunk_BTA = target.chunk_BTA.narrow(1, moments.action, num_steps);
            target.is_pad_BT = target.is_pad_BT.narrow(1, moments.action, num_steps);
            targets.action = Some(target);
        }
        Ok(Lesson { observation: self.processor.observe(batch, present)?, targets, codes_BS })
    }

    /// The teacher's view of the frame pair that begins at `first`: targets and codes.
    pub(crate) fn codes(&self, batch: &DeviceBatch, first: i64) -> Result<(LatentTarget, Tensor), VlaError> {
        let (teacher, role) = self
            .teacher
            .as_ref()
            .map(|teacher| (teacher, &self.teacher_camera))
            .ok_or_else(|| VlaError::input("latent actions", "there is no teacher", "give model.laq.checkpoint"))?;
        let stream = batch.images.get(role).ok_or_else(|| {
            VlaError::input(format!("camera `{role}`"), "the batch lacks it", "map a camera of every source to it")
        })?;
        let codes_BS = teacher.codes(&stream.pixels_BTCHW.narrow(1, first, 2))?;
        let is_valid_B = stream.is_real_BT.narrow(1, first, 2).all_dim(1, false);
        Ok((LatentTarget { codes_BSD: teacher.vectors(&codes_BS), is_valid_B }, codes_BS))
    }
}

impl Task for VlaTask {
    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.store().parameters()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.model.store().buffers()
    }

    fn loss(&mut self, batch: &DeviceBatch, _step: u64) -> anyhow::Result<LossOutput> {
        let lesson = self.lesson(batch, self.moments)?;
        let loss = self.model.loss(
            &lesson.observation,
            &lesson.targets,
            &self.objective,
            &mut TorchFlowDraws,
            &Pass::plain(true),
        )?;
        let metrics = loss.metrics();
        Ok(LossOutput { loss: loss.total, metrics })
    }

    fn take_row_resets(&mut self) -> Vec<hlrp_train::RowReset> {
        Vec::new()
    }

    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        validation::run(self, self.moments.in_validation(), batches, context)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        let code_dim = self.teacher.as_ref().map(|teacher| teacher.latent().code_dim);
        let action_dim = self.plan.model.action_dim().filter(|_| self.objective.mode.with_actions());
        validation::metrics(code_dim, action_dim)
    }

    fn description(&self) -> TaskDescription {
        TaskDescription::Other(json!({
            "stage": "vla",
            "model": self.plan.model,
            "processor": self.plan.processor,
            "objective": self.objective,
            "teacher": self.teacher.as_ref().map(Teacher::identity),
        }))
    }

    fn export(&self, context: &ExportContext<'_>) -> anyhow::Result<()> {
        let folder = context.dir.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .map_err(|error| VlaError::file(folder, error.to_string(), "check the permissions of the run directory"))?;
        let description = Description {
            model: &self.plan.model,
            processor: &self.plan.processor,
            objective: self.objective,
            teacher: self.teacher.as_ref().map(Teacher::identity),
            provenance: Provenance { experiment: self.experiment.clone(), step: context.step },
        };
        let (dir, free) = (context.dir, context.min_free_gb);
        Artifact::save(dir, OnExisting::Replace, free, &self.model, &description, &self.tokenizer_folder)?;
        tracing::info!("artifact {}", dir.display());
        Ok(())
    }
}
