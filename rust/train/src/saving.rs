//! Validation, scores and checkpoints of a running training.

use crate::{
    DeviceBatch, ExportContext, Result, TrainError, Trainer, ValidationContext,
    checkpoint::{self, BEST, BestScore, LAST, RngStates, Score},
    precision,
    recorder::Recorder,
};
use hlrp_schema::MonitorMode;
use hlrp_torch::HostToDevice;
use hlrp_track::RunDir;
use hlrp_track::sinks::{PngSink, Sink};

impl Trainer<'_> {
    /// Validates the weights of this step, averaged ones where averages are kept, and gives their score. Training cannot tell that
    /// it happened: random states and parameters are afterwards what they were.
    ///
    /// # Errors
    /// Data or a model that fails. Without the monitored metric a checkpoint is written first.
    pub(crate) fn validate(&mut self, run: &RunDir, recorder: &mut Recorder) -> Result<Score> {
        self.ensure_finite()?;
        let device = self.settings.device;
        let rng = RngStates::capture(device)?;
        let context = ValidationContext { step: self.step, world: &self.settings.world };
        let (limit, world) = (self.settings.validation.limit_batches, &self.settings.world);
        let batches = self.data.validation(limit, world).map_err(TrainError::Data)?;
        let transfer = HostToDevice::new(device)?;
        let mut batches = batches.map(|batch| Ok(DeviceBatch::from_host(batch?, &transfer)?));
        let (task, precision) = (&mut *self.task, self.settings.precision);
        let mut evaluate = || {
            let _autocast = precision::guard(precision, device)?;
            tch::no_grad(|| task.validate(&mut batches, &context)).map_err(TrainError::Task)
        };
        let validation = match &self.ema {
            Some(ema) => ema.with_averages(evaluate)?,
            None => evaluate()?,
        };
        rng.restore(device)?;
        let score = self.score_of(&validation.metrics);
        PngSink::new(run.path()).images(self.step, &validation.images)?;
        recorder.validation(self.step, validation.metrics)?;
        if score.is_err() {
            self.save(run, recorder, None, false)?; // the steps since the last checkpoint are not lost
        }
        score
    }

    /// Lets the task write the artifact `name` of this step's weights, averaged ones where averages are kept.
    pub(crate) fn export(&self, run: &RunDir, name: &str) -> Result<()> {
        let dir = run.artifacts().join(name);
        let context = ExportContext { step: self.step, dir: &dir, min_free_gb: self.settings.min_free_gb };
        let export = || self.task.export(&context).map_err(TrainError::Task);
        match &self.ema {
            Some(ema) => ema.with_averages(export),
            None => export(),
        }
    }

    /// Remembers a score if it is the best so far, and tells whether it is.
    pub(crate) fn take_score(&mut self, score: &Score) -> bool {
        if !score.value.is_finite() {
            let (step, metric, value) = (self.step, &score.metric, score.value);
            tracing::warn!("step {step}: {metric} is {value}; these weights cannot become the best");
            return false;
        }
        let is_better = |best: BestScore| match self.settings.training.checkpoint.mode {
            MonitorMode::Min => score.value < best.value,
            MonitorMode::Max => score.value > best.value,
        };
        let is_best = self.best.is_none_or(is_better);
        if is_best {
            self.best = Some(BestScore { value: score.value, step: self.step });
        }
        is_best
    }

    /// Writes the checkpoint of this step, with its score if that is a finite number, and moves the pointers; removes old ones if the configuration asks for it.
    pub(crate) fn save(
        &mut self,
        run: &RunDir,
        recorder: &Recorder,
        score: Option<Score>,
        is_best: bool,
    ) -> Result<()> {
        self.ensure_finite()?;
        recorder.sync()?;
        let checkpoints = run.checkpoints();
        let contents = self.contents(score.filter(|score| score.value.is_finite()))?;
        let dir = checkpoint::write(&checkpoints, &contents, self.settings.min_free_gb)?;
        checkpoint::point_to(&checkpoints, LAST, self.step)?;
        if is_best {
            checkpoint::point_to(&checkpoints, BEST, self.step)?;
        }
        tracing::info!("checkpoint {}{}", dir.display(), if is_best { ", the best so far" } else { "" });
        self.last_checkpoint = Some(dir);
        match self.settings.training.checkpoint.keep_last {
            Some(keep_last) => checkpoint::prune(&checkpoints, keep_last),
            None => Ok(()),
        }
    }
}
