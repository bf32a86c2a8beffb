//! The model as the engine sees it.

use crate::data::{pairs_of, relative_actions, training_frames_of};
use crate::draws::WorldDraws;
use crate::flow_teachers::{FlowCache, known_flow};
use crate::health::{self, Watch};
use crate::label_head::{self, LabelHead};
use crate::model::LaqModel;
use crate::probes::Probes;
use crate::step::{Samples, train_step};
use crate::validation::{Beside, TrainingPairs, Validations};
use crate::views::{join_views, split_views};
use hlrp_data::Mixture;
use hlrp_nn::Pass;
use hlrp_schema::{LaqConfig, LaqDescription, PairSpacing, RequestConfig, TaskDescription};
use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::{Augmentation, DeviceBatch, LossOutput, RowReset, Task, Validation, ValidationContext};
use std::collections::BTreeMap;
use std::rc::Rc;
use tch::Tensor;

/// Scalars of a step by name.
type Metrics = Vec<(&'static str, Tensor)>;

/// Training and validation of a [`LaqModel`].
pub struct LaqTask {
    model: LaqModel,
    world: World,
    augmentation: Option<Augmentation>,
    request: RequestConfig,
    validations: Validations,
    probes: Option<Probes>,
    label_head: Option<LabelHead>,
    flow_cache: Option<FlowCache>,
    training_pairs: Option<Rc<TrainingPairs>>,
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
            label_head: None,
            flow_cache: None,
            training_pairs: None,
            batch_size: config.data.loader.batch_size,
            augmentation: Augmentation::new(&config.training.augmentation, &world),
            model,
            world,
            row_resets: Vec::new(),
            watch: Watch::new(config.training.scheduler.warmup_steps, config.model.quantizer.unquantized_steps),
        }
    }

    /// Probes the latents at each validation.
    #[must_use]
    pub fn with_probes(self, probes: Option<Probes>) -> Self {
        Self { watch: self.watch.with_probes(probes.is_some()), probes, ..self }
    }

    /// Trains the model on labelled pairs as well.
    #[must_use]
    pub fn with_label_head(self, label_head: Option<LabelHead>) -> Self {
        Self { label_head, ..self }
    }

    /// Reads flows of the teacher that are known, and keeps the others.
    #[must_use]
    pub fn with_flow_cache(self, flow_cache: Option<FlowCache>) -> Self {
        Self { flow_cache, ..self }
    }

    /// Shows pairs of the training episodes of `mixture` at each validation, where `config` asks for them.
    ///
    /// # Errors
    /// Sources that cannot be split.
    pub fn with_training_pairs(self, config: &LaqConfig, mixture: &Mixture) -> anyhow::Result<Self> {
        let training_pairs = TrainingPairs::new(config, mixture, self.model.store().device())?;
        Ok(Self { training_pairs, ..self })
    }

    /// Frames `[B,T,C,H,W]` of training, changed at random where the run asks for it.
    fn augmented(&self, frames_BTCHW: Tensor) -> Tensor {
        let Some(augmentation) = &self.augmentation else { return frames_BTCHW };
        let num_views = self.model.dims().num_views;
        join_views(&augmentation.apply(&split_views(&frames_BTCHW, num_views)), num_views)
    }

    /// The weighted loss of the label head over its own batch of step `step`, and its metrics; none where the step has no such batch.
    fn label_loss(&mut self, step: u64, pass: &Pass<'_>) -> anyhow::Result<Option<(Tensor, Metrics)>> {
        let Some(batch) = self.label_head.as_mut().map(|head| head.next_batch(step)).transpose()?.flatten() else {
            return Ok(None);
        };
        let Some((head, actions_BA)) = self.label_head.as_ref().zip(relative_actions(&batch)) else { return Ok(None) };
        let frames_BTCHW = self.augmented(pairs_of(&batch, &self.model)?);
        let vectors_BSQ = self.model.quantizer.normalised(&self.model.encode(&frames_BTCHW, pass).change_BSQ);
        let loss = head.network().loss(&vectors_BSQ, &actions_BA, &self.world)?;
        let metrics = vec![("label_mse", loss.mse.detach()), ("label_r2", loss.r2)];
        Ok(Some((loss.mse * head.weight(), metrics)))
    }

    /// The model.
    pub fn model(&self) -> &LaqModel {
        &self.model
    }
}

impl Task for LaqTask {
    fn parameters(&self) -> Vec<(String, Tensor)> {
        let of_head = self.label_head.iter().flat_map(|head| head.store().parameters());
        self.model.store().parameters().into_iter().chain(of_head).collect()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        let of_head = self.label_head.iter().flat_map(|head| head.store().buffers());
        self.model.store().buffers().into_iter().chain(of_head).collect()
    }

    fn loss(&mut self, batch: &DeviceBatch, step: u64) -> anyhow::Result<LossOutput> {
        let frames_BTCHW = self.augmented(training_frames_of(batch, &self.model, &self.world)?);
        let pass = Pass::plain(true);
        let flow_B2HW = known_flow(self.flow_cache.as_ref(), &self.model, batch, &frames_BTCHW)?;
        let samples = Samples { frames_BTCHW: &frames_BTCHW, flow_B2HW };
        let mut result = train_step(&mut self.model, samples, step, &self.world, &mut WorldDraws(&self.world), &pass)?;
        self.row_resets.extend(result.row_resets);
        if let Some((loss, metrics)) = self.label_loss(step, &pass)? {
            result.loss = result.loss.g_add(&loss);
            result.metrics.extend(metrics);
        }
        // The third frame of triplets is not that of a forward model.
        let num_seen = if self.model.config().decoders.forward_model().is_some() { 3 } else { 2 };
        self.watch.check(&self.model, &frames_BTCHW.narrow(1, 0, num_seen), step, &self.world)?;
        Ok(LossOutput { loss: result.loss, masked: Vec::new(), metrics: result.metrics })
    }

    fn repeats(&self, step: u64) -> bool {
        self.flow_cache.is_none()
            && !self.watch.looks_at(step)
            && !self.label_head.as_ref().is_some_and(|head| head.has_batch(step))
            && self.model.repeats(step)
    }

    fn take_row_resets(&mut self) -> Vec<RowReset> {
        std::mem::take(&mut self.row_resets)
    }

    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        let beside = Beside {
            label_head: self.label_head.as_ref(),
            flow_cache: self.flow_cache.as_ref(),
            training_pairs: self.training_pairs.as_ref(),
        };
        let mut validation = self.validations.run(&self.model, beside, batches, context)?;
        if let Some(probes) = &mut self.probes {
            validation.metrics.extend(probes.run(&self.model, context.step, context.world)?);
        }
        self.watch.learn(&validation.metrics);
        Ok(validation)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        let of_probes = self.probes.iter().flat_map(|probes| probes.metrics(&self.model));
        let of_head = self.label_head.iter().flat_map(|_| label_head::specs());
        self.validations.metrics(&self.model, self.batch_size).into_iter().chain(of_head).chain(of_probes).collect()
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
