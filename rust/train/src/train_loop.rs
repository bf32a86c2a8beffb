//! The training loop, from the first step to the last checkpoint.

use crate::{
    agreement::refuse_bad_samples,
    boundary::{self, Scene},
    checkpoint::{self, Publication, RngStates, Score},
    device::autocast,
    error::{Result, TrainError},
    prefetch::{DeviceBatch, DevicePrefetcher, interruptible},
    ranks::{self, LastCheckpoint},
    signals::{StopRequest, Stopped},
    task::{ExportContext, RowReset, Validation, ValidationContext},
    timers::{Phase, Timers},
    trainer::{Outcome, Summary, Trainer, sizes, unknown_metric},
    watch::StepRecord,
};
use hlrp_torch::{Allocator, HostToDevice};
use hlrp_track::{RunDir, exit_code, run::RunStatus, sinks::Sinks};
use std::{cell::RefCell, path::Path, rc::Rc};
use tch::Device;

const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;

/// Name of the artifact of the best score.
const BEST_ARTIFACT: &str = "best";
/// Name of the artifact of the last step.
const FINAL_ARTIFACT: &str = "final";

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another step.
    Step,
    /// A checkpoint, then the end, because a signal asked for it.
    Stop,
    /// The end: this step was the last.
    Finish,
}

/// The outcome of validation and export after a step, and what follows.
struct Results {
    validation: Option<Validation>,
    score: Option<Score>,
    is_best: bool,
    next: Next,
}

impl Trainer<'_> {
    /// Trains until `training.max_steps` steps are done or `stop` is requested, and records everything in `run`.
    ///
    /// # Errors
    /// Whatever stops a run; the newest checkpoint is whole.
    pub fn run(mut self, run: &RunDir, stop: &StopRequest) -> Result<Outcome> {
        stop.save_first();
        let mut sinks = self.open_sinks(run, stop)?;
        let outcome = self.train_within(run, stop, &mut sinks);
        let status = match &outcome {
            Ok(Outcome::Finished(_)) => RunStatus::Finished,
            Ok(Outcome::Interrupted(_)) => RunStatus::Interrupted,
            Err(error) => {
                let exit_code = Some(exit_code::of(error, crate::EXIT_CODES));
                RunStatus::Failed { reason: error.to_string(), exit_code }
            }
        };
        let finished = sinks.finish(status);
        let outcome = outcome?;
        finished?;
        Ok(outcome)
    }

    /// Trains inside the boundary around libtorch.
    fn train_within(&mut self, run: &RunDir, stop: &StopRequest, sinks: &mut Sinks) -> Result<Outcome> {
        let trainer = RefCell::new(self);
        let train = || Ok(trainer.borrow_mut().train(run, stop, sinks)?);
        let outcome = boundary::within(train, || trainer.borrow_mut().scene());
        outcome.map_err(|error| {
            let trainer = trainer.into_inner();
            trainer.settings.world.begin_end(); // the others need not wait for the checkpoint
            let dir = trainer.publisher.settled();
            let of_start = checkpoint::checkpoint_name(trainer.start_step);
            let is_new = dir.is_some_and(|dir| !dir.ends_with(&of_start));
            let checkpoint = LastCheckpoint { dir, is_new };
            let error = ranks::conclude(&trainer.settings.world, error, crate::HINTS, &checkpoint);
            error.downcast().unwrap_or_else(TrainError::Task)
        })
    }

    /// What an out-of-memory error reports about the current step.
    fn scene(&mut self) -> Scene {
        Scene {
            when: format!("in step {}", self.step + 1),
            sizes: sizes(&self.settings.config),
            checkpoint: shown(self.publisher.settled()),
        }
    }

    /// Gives the allocator the same facts: where it fails, nothing can be computed any more.
    fn set_scene(&mut self) {
        let Scene { when, sizes, checkpoint } = self.scene();
        Allocator::set_scene(format!(" {when} or later\n  {sizes}\n  last checkpoint: {checkpoint}"));
    }

    fn train(&mut self, run: &RunDir, stop: &StopRequest, sinks: &mut Sinks) -> Result<Outcome> {
        self.set_scene();
        let training = self.settings.training.clone();
        let stream = self.data.train(self.position, &self.settings.world).map_err(TrainError::Data)?;
        let mut batches = DevicePrefetcher::start(stream, self.settings.device)?;
        if let Some(rng) = self.rng.take() {
            rng.restore(self.settings.device)?;
        }
        if self.step < training.max_steps {
            self.announce();
        }
        let mut timers = Timers::start();
        while self.is_unfinished || self.step < training.max_steps {
            if !self.is_unfinished {
                let (mut throughput, num_done) = (self.throughput, self.step - self.start_step);
                let gradient = throughput.observe(num_done, || self.compute_gradient(&mut batches, stop))?;
                self.throughput = throughput;
                let Some((record, resets)) = gradient else {
                    return self.stop_before_step(run, sinks, timers);
                };
                let record = Rc::new(record);
                self.watch.add(&record);
                self.shares.add(record.samples());
                if self.settings.device == Device::Cpu {
                    self.ensure_finite()?; // nothing to wait for: stop before the weights are spoilt
                }
                let lr = self.update(&resets)?;
                timers.step(&batches.take_usage().of_all(&self.settings.world));
                sinks.step(self.step)?;
                if self.publisher.has_finished() {
                    self.settle()?;
                }
                if self.is_due(training.log_every_n_steps) {
                    self.log(&record, lr, &mut timers, sinks)?;
                }
            }
            if self.finish_step(run, stop, sinks, &mut timers)? == Next::Stop {
                return self.end(timers).map(Outcome::Interrupted);
            }
        }
        self.end(timers).map(Outcome::Finished)
    }

    /// What follows a step: validation, artifacts, checkpoint. If a signal interrupts them, the checkpoint has no score, and the resumed run
    /// repeats all of them.
    fn finish_step(
        &mut self,
        run: &RunDir,
        stop: &StopRequest,
        sinks: &mut Sinks,
        timers: &mut Timers,
    ) -> Result<Next> {
        let former_best = self.best;
        let Some(results) = self.assess(run, stop, sinks, timers)? else {
            self.best = former_best;
            self.is_unfinished = true;
            timers.measure(Phase::Checkpoint, || self.save(run, sinks, None, false))?;
            return Ok(Next::Stop);
        };
        self.is_unfinished = false;
        let Results { validation, score, is_best, next } = results;
        if let Some(validation) = validation {
            self.record(validation, sinks)?;
        }
        if is_best || next != Next::Step || self.is_due(self.settings.training.checkpoint.every_n_steps) {
            timers.measure(Phase::Checkpoint, || self.save(run, sinks, score, is_best))?;
        }
        Ok(next)
    }

    /// Validates and exports what is due after a step; none if a signal interrupts it.
    ///
    /// # Errors
    /// Data or a model that fails. Without the monitored metric a checkpoint is written first.
    fn assess(
        &mut self,
        run: &RunDir,
        stop: &StopRequest,
        sinks: &mut Sinks,
        timers: &mut Timers,
    ) -> Result<Option<Results>> {
        let (mut validation, mut score) = (None, None);
        if self.is_due(self.settings.validation.check_interval) {
            let Some(result) = timers.measure(Phase::Validation, || self.validate(stop))? else { return Ok(None) };
            score = match self.score(&result) {
                Ok(score) => Some(score),
                Err(error) => {
                    self.record(result, sinks)?;
                    self.save(run, sinks, None, false)?; // the steps since the last checkpoint are not lost
                    return Err(error);
                }
            };
            validation = Some(result);
        }
        let is_best = score.as_ref().is_some_and(|score| self.take_score(score));
        let next = self.next(stop)?;
        // Artifacts come before the checkpoint that remembers the score: a kill in between repeats both.
        let wanted = [(is_best, BEST_ARTIFACT), (next == Next::Finish, FINAL_ARTIFACT)];
        for (_, name) in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted) {
            if !self.export(run, name, stop)? {
                return Ok(None);
            }
        }
        Ok(Some(Results { validation, score, is_best, next }))
    }

    /// Records what a validation returned.
    fn record(&mut self, validation: Validation, sinks: &mut Sinks) -> Result<()> {
        let Validation { metrics, images, histograms } = validation;
        sinks.images(self.step, images)?;
        sinks.histograms(self.step, histograms)?;
        sinks.scalars(self.step, metrics.iter().map(|(name, value)| (name.clone(), *value)).collect())?;
        self.last_validation = Some(metrics);
        Ok(())
    }

    /// Ends a run that was stopped while it waited for data; writes a checkpoint unless this step has one.
    fn stop_before_step(&mut self, run: &RunDir, sinks: &mut Sinks, mut timers: Timers) -> Result<Outcome> {
        let own = run.checkpoints().join(checkpoint::checkpoint_name(self.step));
        if self.publisher.newest() != Some(&own) {
            timers.measure(Phase::Checkpoint, || self.save(run, sinks, None, false))?;
        }
        self.end(timers).map(Outcome::Interrupted)
    }

    /// Waits in every process until the newest checkpoint is whole.
    fn end(&mut self, mut timers: Timers) -> Result<Summary> {
        timers.measure(Phase::Checkpoint, || {
            self.settle()?;
            self.settings.world.barrier()?;
            self.settle()
        })?;
        Ok(self.summary(&timers))
    }

    /// Changes the weights, and their average, by the gradient of a step; returns the learning rate.
    fn update(&mut self, resets: &[RowReset]) -> Result<f64> {
        let lr = self.schedule.lr(self.step);
        self.optimizer.step(lr)?;
        self.step += 1;
        if let Some(ema) = &mut self.ema {
            ema.update(self.step)?;
            for reset in resets {
                ema.reset_rows(reset)?;
            }
        }
        Ok(lr)
    }

    /// Whether something that happens every `interval` steps, and after the last one, is due.
    fn is_due(&self, interval: u64) -> bool {
        self.step == self.settings.training.max_steps || self.step.is_multiple_of(interval)
    }

    /// What follows this step, the same in all processes.
    ///
    /// # Errors
    /// All processes together have more bad samples than allowed, or one is gone.
    fn next(&self, stop: &StopRequest) -> Result<Next> {
        let agreed = self.agree(stop.is_requested())?;
        refuse_bad_samples(agreed.num_bad_samples, self.settings.max_bad_samples)?;
        Ok(match () {
            () if self.step == self.settings.training.max_steps => Next::Finish,
            () if agreed.is_stop_requested => Next::Stop,
            () => Next::Step,
        })
    }

    /// Fetches the numbers of a step, the only wait for a GPU between validations, and records them.
    fn log(&mut self, record: &StepRecord, lr: f64, timers: &mut Timers, sinks: &mut Sinks) -> Result<()> {
        self.ensure_finite()?;
        let mut values = timers.measure(Phase::Compute, || record.fetch(&self.settings.world))?;
        values.push(("train/lr".to_owned(), lr));
        values.push(("train/epoch".to_owned(), self.position.epoch as f64));
        let spans = timers.take();
        values.extend(spans.metrics());
        values.extend(self.throughput.metrics(spans.steps_per_sec()));
        values.extend(self.shares.take(&self.settings.world, self.settings.device)?);
        if let Some(bytes) = hlrp_torch::memory::peak(self.settings.device) {
            values.push(("perf/peak_memory_gib".to_owned(), bytes as f64 / BYTES_PER_GIB));
        }
        Ok(sinks.scalars(self.step, values)?)
    }

    /// Validates the weights of this step, averaged ones where averages are kept. Training is as if it had not happened: random states and
    /// parameters are afterwards what they were. None if a signal interrupts it.
    fn validate(&mut self, stop: &StopRequest) -> Result<Option<Validation>> {
        self.ensure_finite()?;
        let device = self.settings.device;
        let rng = RngStates::capture(device)?;
        let world = &self.settings.world;
        let batches = self.data.validation(self.settings.validation.limit_batches, world).map_err(TrainError::Data)?;
        let batches = interruptible(batches, || stop.is_requested_alone(world))?;
        let transfer = HostToDevice::new(device)?;
        let mut batches = batches.map(|batch| Ok(DeviceBatch::from_host(batch?, &transfer)?));
        let context = ValidationContext { step: self.step, world };
        let (task, precision) = (&mut *self.task, self.settings.precision);
        let mut evaluate = || {
            let _autocast = autocast(precision, device)?;
            unless_stopped(tch::no_grad(|| task.validate(&mut batches, &context)))
        };
        let validation = match &self.ema {
            Some(ema) => ema.with_averages(evaluate)?,
            None => evaluate()?,
        };
        rng.restore(device)?;
        Ok(validation)
    }

    /// The monitored metric of a validation.
    ///
    /// # Errors
    /// The validation has no such metric.
    fn score(&self, validation: &Validation) -> Result<Score> {
        let monitor = &self.settings.training.checkpoint.monitor;
        let value = validation.metrics.get(monitor);
        let unknown = || unknown_metric(monitor, validation.metrics.keys().map(String::as_str));
        let value = value.copied().ok_or_else(unknown)?;
        Ok(Score { metric: monitor.clone(), value })
    }

    /// Lets the task write the artifact `name` of this step's weights, averaged ones where averages are kept. False if a signal interrupts
    /// it.
    fn export(&self, run: &RunDir, name: &str, stop: &StopRequest) -> Result<bool> {
        let world = &self.settings.world;
        if !world.is_main() {
            return Ok(true);
        }
        let dir = run.artifacts().join(name);
        let is_stopped = || stop.is_requested_alone(world);
        let disk = &self.settings.disk;
        let context = ExportContext { step: self.step, dir: &dir, disk, is_stopped: &is_stopped };
        let export = || unless_stopped(self.task.export(&context));
        let exported = match &self.ema {
            Some(ema) => ema.with_averages(export)?,
            None => export()?,
        };
        Ok(exported.is_some())
    }

    /// Begins to write the checkpoint of this step, with its score if that is finite; the loop waits for a copy of the tensors, and for the
    /// checkpoint before. The first process writes.
    fn save(&mut self, run: &RunDir, sinks: &mut Sinks, score: Option<Score>, is_best: bool) -> Result<()> {
        self.ensure_finite()?;
        self.settle()?;
        let checkpoints = run.checkpoints();
        let contents = self.contents(score.filter(|score| score.value.is_finite()))?;
        if !self.settings.world.is_main() {
            self.settle()?; // the first process has: the contents are exchanged
            self.publisher.expect(checkpoints.join(checkpoint::checkpoint_name(self.step)));
            return Ok(());
        }
        sinks.flush()?;
        let disk = self.settings.disk.clone();
        let keep_last = self.settings.training.checkpoint.keep_last;
        self.publisher.start(Publication { checkpoints, contents: contents.snapshot()?, is_best, keep_last, disk })
    }

    /// Waits until the checkpoint that this process writes is whole.
    fn settle(&mut self) -> Result<()> {
        self.publisher.settle()?;
        self.set_scene();
        Ok(())
    }

    /// Stops at the first loss or gradient norm since the last call that is not finite.
    fn ensure_finite(&mut self) -> Result<()> {
        let Self { watch, publisher, settings, .. } = self;
        let checked = watch.check(|| shown(publisher.settled()));
        settings.world.check()?; // the GPU has done these steps, and what it computed without the others means nothing
        checked
    }
}

/// The newest checkpoint, as errors name it.
fn shown(checkpoint: Option<&Path>) -> String {
    checkpoint.map_or_else(|| "none yet".to_owned(), |dir| dir.display().to_string())
}

/// None if a signal ended the task's work.
fn unless_stopped<T>(result: anyhow::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(result) => Ok(Some(result)),
        Err(error) if error.is::<Stopped>() => Ok(None),
        Err(error) => Err(TrainError::Task(error)),
    }
}
