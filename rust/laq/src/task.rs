//! The model as the engine sees it.

use crate::data::ROLE;
use crate::quantizer::{RefreshSchedule, perplexity};
use crate::{LaqError, LaqModel, RefreshPlan, TorchDraws, train_step, unit_frames, validation};
use hlrp_nn::Pass;
use hlrp_schema::{LaqConfig, LaqDescription, PairSpacing, RequestConfig, TaskDescription};
use hlrp_track::metrics::MetricSpec;
use hlrp_train::{DeviceBatch, LossOutput, RowReset, Task, Validation, ValidationContext};
use tch::Tensor;

/// Training and validation of a [`LaqModel`].
pub struct LaqTask {
    model: LaqModel,
    schedule: RefreshSchedule,
    request: RequestConfig,
    num_pictured: usize,
    batch_size: usize,
    /// The optimizer step that refreshed the codebook last: its further micro-batches do not refresh again.
    refreshed_at: Option<u64>,
    row_resets: Vec<RowReset>,
    has_warned_of_collapse: bool,
}

impl LaqTask {
    /// Steps between looks at the code use, each of which waits for the device.
    const COLLAPSE_CHECK_INTERVAL: u64 = 50;
    /// Steps before the first look: the first refreshes act within them.
    const COLLAPSE_CHECK_START: u64 = 100;

    /// Trains `model` as `config` says.
    pub fn new(model: LaqModel, config: &LaqConfig) -> Self {
        Self {
            schedule: RefreshSchedule::new(&config.model.codebook_replace_schedule),
            request: config.data.request.clone(),
            num_pictured: config.validation.num_fixed_samples,
            batch_size: config.data.loader.batch_size,
            model,
            refreshed_at: None,
            row_resets: Vec::new(),
            has_warned_of_collapse: false,
        }
    }

    /// The model.
    pub fn model(&self) -> &LaqModel {
        &self.model
    }

    /// Names a collapse of the codebook once, and again after it recovered.
    fn watch_for_collapse(&mut self, step: u64) {
        if step < Self::COLLAPSE_CHECK_START || !step.is_multiple_of(Self::COLLAPSE_CHECK_INTERVAL) {
            return;
        }
        let num_codes = self.model.dims().codebook_size;
        let in_use = perplexity(self.model.quantizer.usage.recent()).double_value(&[]);
        let limit = self.model.config().collapse_perplexity * num_codes as f64;
        let has_collapsed = in_use < limit;
        if has_collapsed && !self.has_warned_of_collapse {
            tracing::warn!(
                "step {step}: the codebook has collapsed: the last steps used as many as {in_use:.2} of {num_codes} codes \
                 (perplexity; the limit is {limit:.2})\nhint: refresh more often (model.codebook_replace_schedule), lower \
                 training.optimizer.lr, or take more of the change per pair (data.request.image_deltas)"
            );
        }
        self.has_warned_of_collapse = has_collapsed;
    }
}

/// Frame pairs of a batch as floats, `[B,2,C,H,W]` in [0, 1].
pub(crate) fn pairs_of(batch: &DeviceBatch, model: &LaqModel) -> Result<Tensor, LaqError> {
    let stream = batch
        .images
        .get(ROLE)
        .ok_or_else(|| LaqError::Stream { role: ROLE.into(), available: batch.images.keys().cloned().collect() })?;
    model.check_frames(&stream.pixels_BTCHW)?;
    Ok(unit_frames(&stream.pixels_BTCHW))
}

impl Task for LaqTask {
    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.store().parameters()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.model.store().buffers()
    }

    fn loss(&mut self, batch: &DeviceBatch, step: u64) -> anyhow::Result<LossOutput> {
        let frames_BTCHW = pairs_of(batch, &self.model)?;
        let plan = RefreshPlan { schedule: &self.schedule, done: self.refreshed_at == Some(step) };
        let result = train_step(&mut self.model, &frames_BTCHW, step, &plan, &mut TorchDraws, &Pass::plain(true));
        if self.schedule.is_due(step) {
            self.refreshed_at = Some(step);
        }
        if let Some(rows) = result.rewritten {
            self.row_resets.push(RowReset { parameter: LaqModel::codebook_name(), rows });
        }
        self.watch_for_collapse(step);
        Ok(LossOutput { loss: result.loss, metrics: result.metrics })
    }

    fn take_row_resets(&mut self) -> Vec<RowReset> {
        std::mem::take(&mut self.row_resets)
    }

    fn validate(
        &mut self,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        validation::run(&self.model, batches, self.num_pictured, context)
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        validation::metrics(&self.model, self.batch_size)
    }

    fn description(&self) -> TaskDescription {
        TaskDescription::Laq(LaqDescription {
            model: self.model.config().clone(),
            pair: PairSpacing { unit: self.request.unit, image_deltas: self.request.image_deltas.clone() },
            camera: ROLE.to_owned(),
            preprocess: hlrp_data::PREPROCESS_ID.to_owned(),
        })
    }
}
