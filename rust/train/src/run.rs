//! The training loop.

use crate::{
    Outcome, Result, StopRequest, Summary, TrainError, Trainer,
    feeder::Feeder,
    gradient,
    micro_batches::StepMeans,
    precision,
    recorder::Recorder,
    timers::{Phase, Timers},
};
use hlrp_track::RunDir;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Name of the artifact of the best score.
const BEST_ARTIFACT: &str = "best";
/// Name of the artifact of the last step.
const FINAL_ARTIFACT: &str = "final";

impl Trainer<'_> {
    /// Trains until `training.max_steps` steps are done or `stop` is requested, and records everything in `run`.
    ///
    /// # Errors
    /// Whatever stops a run; the newest checkpoint is whole.
    pub fn run(mut self, run: &RunDir, stop: &StopRequest) -> Result<Outcome> {
        let max_steps = self.settings.training.max_steps;
        let mut recorder = Recorder::open(run, self.step, max_steps)?;
        let stream = self.data.train(self.position, &self.settings.world).map_err(TrainError::Data)?;
        let mut feeder = Feeder::start(stream, self.settings.device)?;
        if let Some(rng) = self.rng.take() {
            rng.restore(self.settings.device)?;
        }
        if self.step < max_steps {
            self.announce();
        }
        let mut timers = Timers::start();
        while self.step < max_steps {
            let step = self.step + 1;

            // Gradient of one step, over one or several batches.
            self.optimizer.clear_gradients()?;
            let mut means = StepMeans::default();
            let mut samples = Vec::new();
            for _ in 0..self.settings.training.gradient.accumulate_steps {
                let fed = feeder.next()?;
                timers.lap(Phase::DataWait);
                timers.batch(fed.batch.num_samples(), fed.transfer);
                let output = {
                    let _autocast = precision::guard(self.settings.precision, self.settings.device)?;
                    self.task.loss(&fed.batch, step).map_err(TrainError::Task)?
                };
                let share = self.settings.training.gradient.accumulate_steps as f64;
                output.loss.f_div_scalar(share)?.f_backward()?;
                means.add(&output)?;
                self.watch.watch(step, "loss", &output.loss, &Arc::new(fed.batch.meta.clone()));
                samples.extend(fed.batch.meta);
                self.position = fed.position;
            }

            // Update. Rows that the model rewrote take no part in it.
            let resets = self.task.take_row_resets();
            for reset in &resets {
                self.optimizer.reset_rows(reset)?;
            }
            let clip_norm = self.settings.training.gradient.clip_norm;
            let grad_norm = gradient::norm_and_clip(&self.optimizer.gradients(), clip_norm, self.settings.device)?;
            self.watch.watch(step, "gradient norm", &grad_norm, &Arc::new(samples));
            if self.settings.device == Device::Cpu {
                self.ensure_finite()?; // nothing to wait for: stop before the weights are spoilt
            }
            let lr = self.schedule.lr(self.step);
            self.optimizer.step(lr)?;
            self.step = step;
            if let Some(ema) = &mut self.ema {
                ema.update(step)?;
                for reset in &resets {
                    ema.reset_rows(reset)?;
                }
            }
            timers.step();
            timers.lap(Phase::Compute);
            recorder.advance(step);

            // What is due after this step.
            let is_last = step == max_steps;
            if is_last || step.is_multiple_of(self.settings.training.log_every_n_steps) {
                self.log(&mut recorder, &mut timers, &means, &grad_norm, lr)?;
            }
            let mut score = None;
            let mut is_best = false;
            if is_last || step.is_multiple_of(self.settings.validation.check_interval) {
                let validated = self.validate(run, &mut recorder)?;
                is_best = self.take_score(&validated);
                score = Some(validated);
                timers.lap(Phase::Validation);
            }
            let is_stopping = stop.is_requested() && !is_last;
            let is_due = is_last || step.is_multiple_of(self.settings.training.checkpoint.every_n_steps);
            // Before the checkpoint that remembers the score: a kill in between repeats both.
            if is_best {
                self.export(run, BEST_ARTIFACT)?;
            }
            if is_last {
                self.export(run, FINAL_ARTIFACT)?;
            }
            if is_due || is_best || is_stopping {
                self.save(run, &recorder, score, is_best)?;
                timers.lap(Phase::Checkpoint);
            }
            if is_stopping {
                recorder.finish();
                return Ok(Outcome::Interrupted(self.summary(&recorder, &timers)));
            }
        }
        recorder.finish();
        Ok(Outcome::Finished(self.summary(&recorder, &timers)))
    }

    /// Says what is about to be optimized.
    fn announce(&self) {
        let [decayed, rest] = self.optimizer.groups();
        let num_values: usize = self.task.parameters().iter().map(|(_, parameter)| parameter.numel()).sum();
        tracing::info!(
            "training {num_values} parameters on {}: {} tensors with weight decay {}, {} without; steps {} to {}",
            self.settings.device_name(),
            decayed.names.len(),
            decayed.weight_decay,
            rest.names.len(),
            self.step + 1,
            self.settings.training.max_steps,
        );
    }

    /// Fetches the step's numbers, the only wait for a GPU between validations, and records them.
    fn log(
        &mut self,
        recorder: &mut Recorder,
        timers: &mut Timers,
        means: &StepMeans,
        grad_norm: &Tensor,
        lr: f64,
    ) -> Result<()> {
        self.ensure_finite()?;
        let mut values = means.fetch(&[("train/grad_norm", grad_norm)])?;
        timers.lap(Phase::Compute);
        values.push(("train/lr".to_owned(), lr));
        values.push(("train/epoch".to_owned(), self.position.epoch as f64));
        recorder.training(self.step, values, &timers.take(), self.settings.device)
    }

    /// Stops at the first loss or gradient norm since the last call that is not finite.
    pub(crate) fn ensure_finite(&mut self) -> Result<()> {
        let last_checkpoint = self.last_checkpoint.as_ref();
        self.watch.check(|| Self::way_back(last_checkpoint))
    }

    fn summary(&self, recorder: &Recorder, timers: &Timers) -> Summary {
        let total = timers.total();
        Summary {
            step: self.step,
            num_steps: self.step - self.start_step,
            best: self.best,
            validation: recorder.last_validation(),
            checkpoint: self.last_checkpoint.clone(),
            samples_per_sec: total.samples_per_sec(),
            data_wait_fraction: total.data_wait_share(),
            peak_memory_bytes: hlrp_torch::memory::peak(self.settings.device),
        }
    }
}
