//! The policy as the engine sees it.

use crate::VlaError;
use crate::archs::VlaModel;
use crate::artifact::{Artifact, Provenance, SaveOptions};
use crate::flow::WorldNoise;
use crate::policy::Policy;
use crate::processor::TimeIndices;
use crate::validation;
use hlrp_nn::Pass;
use hlrp_schema::TaskDescription;
use hlrp_torch::World;
use hlrp_track::fs::OnExisting;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::{Augmentation, DeviceBatch, ExportContext, LossOutput, Task, Validation, ValidationContext};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Training and validation of a policy.
pub struct VlaTask {
    pub(crate) policy: Policy,
    /// The processes that train together.
    pub(crate) world: World,
    /// Random changes of what the policy sees.
    pub(crate) augmentation: Option<Augmentation>,
    /// Where training samples hold what.
    pub(crate) indices: TimeIndices,
    pub(crate) tokenizer_folder: PathBuf,
    pub(crate) experiment: String,
    pub(crate) validation: validation::Options,
}

impl VlaTask {
    /// The network.
    pub fn model(&self) -> &VlaModel {
        &self.policy.model
    }
}

impl Task for VlaTask {
    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.policy.model.store().parameters()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.policy.model.store().buffers()
    }

    fn loss(&mut self, batch: &DeviceBatch, _step: u64) -> anyhow::Result<LossOutput> {
        let Policy { spec, model, .. } = &self.policy;
        let labelled = self.policy.label(batch, self.indices, self.augmentation.as_ref())?;
        let (observation, targets) = (&labelled.observation, &labelled.targets);
        let loss =
            model.loss(observation, targets, &spec.objective, &mut WorldNoise::new(&self.world), &Pass::plain(true))?;
        let (masked, metrics) = (loss.masked(&spec.objective), loss.metrics());
        Ok(LossOutput { loss: loss.total, masked, metrics })
    }

    fn num_supervised(&self, batch: &DeviceBatch) -> anyhow::Result<Vec<Tensor>> {
        Ok(self.policy.num_supervised(batch, self.indices)?)
    }

    fn take_row_resets(&mut self) -> Vec<hlrp_train::RowReset> {
        Vec::new()
    }

    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        validation::run(&self.policy, self.indices.in_validation(), self.validation, batches, context)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        let spec = &self.policy.spec;
        let latent = self.policy.teacher.as_ref().map(|teacher| teacher.identity().latent());
        let action_dim = spec.model.action_dim.filter(|_| spec.objective.mode.with_actions());
        validation::metrics(latent, action_dim)
    }

    fn description(&self) -> TaskDescription {
        TaskDescription::Vla(Box::new(self.policy.spec.clone()))
    }

    fn export(&self, context: &ExportContext<'_>) -> anyhow::Result<()> {
        let folder = context.dir.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)
            .map_err(|error| VlaError::file(folder, error.to_string(), "check the permissions of the run directory"))?;
        let provenance = Provenance { experiment: self.experiment.clone(), step: context.step };
        let options =
            SaveOptions { on_existing: OnExisting::Replace, disk: context.disk, is_stopped: context.is_stopped };
        let (dir, Policy { spec, model, .. }) = (context.dir, &self.policy);
        match Artifact::save(dir, &options, model, spec, &provenance, &self.tokenizer_folder) {
            Err(VlaError::Stopped(stopped)) => return Err(stopped.into()),
            saved => saved?,
        }
        tracing::info!("artifact {}", dir.display());
        Ok(())
    }
}
