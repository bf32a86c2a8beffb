//! The model as the engine sees it.

use crate::data::training_frames_of;
use crate::draws::WorldDraws;
use crate::health::{self, Watch};
use crate::model::LaqModel;
use crate::probes::Probes;
use crate::step::train_step;
use crate::validation::Validations;
use crate::views::{join_views, split_views};
use hlrp_nn::Pass;
use hlrp_schema::{LaqConfig, LaqDescription, PairSpacing, RequestConfig, TaskDescription};
use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::{Augmentation, DeviceBatch, LossOutput, RowReset, Task, Validation, ValidationContext};
use std::collections::BTreeMap;
use tch::Tensor;

/// Training and validation of a [`LaqModel`].
pub struct LaqTask {
    model: LaqModel,
    world: World,
    augmentation: Option<Augmentation>,
    request: RequestConfig,
    validations: Validations,
    probes: Option<Probes>,
    batch_size: usize,
    row_resets: Vec<RowReset>,
    watch: Watch,
}

impl LaqTask {
    /// Trains `model` as `config` says, together with the other processes of `world`.
    pub fn new(model: LaqModel, config: &LaqConfig, world: World) -> Self {
        Self {
            request: config.data.request.clone(),
            validations: Validations::new(config),
            probes: None,
            batch_size: config.data.loader.batch_size,
            augmentation: Augmentation::new(&config.training.augmentation, &world),
            model,
            world,
            row_resets: Vec::new(),
            watch: Watch::new(config.training.scheduler.warmup_steps),
        }
    }

    /// Probes the latents at each validation.
    #[must_use]
    pub fn with_probes(self, probes: Option<Probes>) -> Self {
        Self { probes, ..self }
    }

    /// The model.
    pub fn model(&self) -> &LaqModel {
        &self.model
    }
}

impl Task for LaqTask {
    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.store().parameters()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.model.store().buffers()
    }

    fn loss(&mut self, batch: &DeviceBatch, step: u64) -> anyhow::Result<LossOutput> {
        let mut frames_BTCHW = training_frames_of(batch, &self.model)?;
        if let Some(augmentation) = &self.augmentation {
            let num_views = self.model.dims().num_views;
            frames_BTCHW = join_views(&augmentation.apply(&split_views(&frames_BTCHW, num_views)), num_views);
        }
        let pass = Pass::plain(true);
        let result =
            train_step(&mut self.model, &frames_BTCHW, step, &self.world, &mut WorldDraws(&self.world), &pass)?;
        self.row_resets.extend(result.row_resets);
        self.watch.check(&self.model, &frames_BTCHW.narrow(1, 0, 2), step, &self.world)?;
        Ok(LossOutput { loss: result.loss, masked: Vec::new(), metrics: result.metrics })
    }

    fn take_row_resets(&mut self) -> Vec<RowReset> {
        std::mem::take(&mut self.row_resets)
    }

    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        let mut validation = self.validations.run(&self.model, batches, context)?;
        if let Some(probes) = &mut self.probes {
            validation.metrics.extend(probes.run(&self.model, context.step, context.world)?);
        }
        self.watch.learn(&validation.metrics);
        Ok(validation)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        let of_probes = self.probes.iter().flat_map(|probes| probes.metrics(&self.model));
        self.validations.metrics(&self.model, self.batch_size).into_iter().chain(of_probes).collect()
    }

    fn verdict(&self, validation: &BTreeMap<String, f64>) -> Option<String> {
        health::verdict(validation, &self.model)
    }

    fn description(&self) -> TaskDescription {
        TaskDescription::Laq(LaqDescription {
            model: self.model.config().clone(),
            pair: PairSpacing { unit: self.request.unit, image_deltas: self.request.image_deltas.clone() },
            preprocess: hlrp_data::PREPROCESS_ID.to_owned(),
        })
    }
}
