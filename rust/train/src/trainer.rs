//! A run before it starts: everything that can be refused is refused here, and nothing is written.

use crate::{
    Checkpoint, Ema, Optimizer, Result, RunState, Schedule, Settings, Task, TrainError, TrainingData,
    checkpoint::{About, BestScore, Contents, RngStates, ScheduleState, Score, load_weights},
    loss_watch::LossWatch,
    resume::{ensure_same_model, ensure_same_run, ensure_same_stage},
};
use hlrp_data::Position;
use hlrp_track::metrics::MetricSpec;
use std::path::PathBuf;
use tch::Tensor;

/// A model, its data and its optimizer, ready to run.
///
/// [`Trainer::new`] checks and loads; [`Trainer::run`] trains.
pub struct Trainer<'a> {
    pub(crate) settings: Settings,
    pub(crate) task: &'a mut dyn Task,
    pub(crate) data: &'a mut dyn TrainingData,
    pub(crate) schedule: Schedule,
    pub(crate) optimizer: Optimizer,
    pub(crate) ema: Option<Ema>,
    pub(crate) watch: LossWatch,
    /// Optimizer steps done.
    pub(crate) step: u64,
    /// The step at which this process began.
    pub(crate) start_step: u64,
    pub(crate) position: Position,
    pub(crate) best: Option<BestScore>,
    pub(crate) last_checkpoint: Option<PathBuf>,
    /// Random states that the first step must find.
    pub(crate) rng: Option<RngStates>,
}

impl<'a> Trainer<'a> {
    /// Prepares a run: a new one, one from given weights (`training.load_weights_from`), or the continuation of a checkpoint
    /// (`training.resume_from_checkpoint`), which overwrites the task's parameters and buffers.
    ///
    /// # Errors
    /// A setting out of range, a checkpoint that is damaged or belongs to other settings, weights that do not fit, too little
    /// free space for a checkpoint. Nothing is written to the disk.
    pub fn new(settings: Settings, task: &'a mut dyn Task, data: &'a mut dyn TrainingData) -> Result<Self> {
        settings.check()?;
        ensure_monitored(&settings.training.checkpoint.monitor, &task.metrics())?;
        let training = &settings.training;
        let schedule = Schedule::new(&training.scheduler, training.optimizer.lr, training.max_steps)?;
        let checkpoint = training.resume_from_checkpoint.as_deref().map(Checkpoint::open).transpose()?;
        if let Some(checkpoint) = &checkpoint {
            let model = task.description();
            ensure_same_stage(checkpoint, &model)?;
            ensure_same_run(checkpoint, &settings.config)?;
            ensure_same_model(checkpoint, &model)?;
            checkpoint.load_model(&model_tensors(task))?;
        }
        if let Some(path) = &training.load_weights_from {
            load_weights(path, &model_tensors(task))?;
        }
        let parameters = task.parameters();
        let optimizer = Optimizer::new(&parameters, &training.optimizer)?;
        let ema = training.ema.enabled.then(|| Ema::new(&parameters, &training.ema)).transpose()?;
        let mut trainer = Self {
            schedule,
            optimizer,
            ema,
            watch: LossWatch::default(),
            step: 0,
            start_step: 0,
            position: Position::default(),
            best: None,
            last_checkpoint: None,
            rng: None,
            settings,
            task,
            data,
        };
        if let Some(checkpoint) = checkpoint {
            trainer.continue_from(&checkpoint)?;
        }
        let num_bytes = trainer.contents(None)?.num_bytes();
        hlrp_track::fs::ensure_free(&trainer.settings.run_dir, num_bytes, trainer.settings.min_free_gb)?;
        Ok(trainer)
    }

    /// Optimizer steps done; where the run starts.
    pub fn step(&self) -> u64 {
        self.step
    }

    fn continue_from(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let state = checkpoint.state();
        checkpoint.load_optimizer(&self.optimizer.state())?;
        if let Some(ema) = &mut self.ema {
            checkpoint.load_ema(&ema.averages())?;
            ema.set_num_updates(state.num_ema_updates);
        }
        (self.step, self.start_step) = (state.step, state.step);
        self.position = state.position;
        self.best = state.best;
        self.rng = Some(state.rng.clone());
        self.last_checkpoint = Some(checkpoint.dir().to_path_buf());
        let manifest = checkpoint.manifest();
        let (device, num_threads) = (self.settings.device_name(), num_threads());
        if (manifest.device.as_str(), manifest.num_threads) != (device.as_str(), num_threads) {
            tracing::warn!(
                "the checkpoint was computed on {} with {} CPU threads, this run uses {device} with {num_threads}: \
                 it continues with the same samples, but not to the last bit",
                manifest.device,
                manifest.num_threads,
            );
        }
        Ok(())
    }

    /// What a checkpoint of this moment holds.
    pub(crate) fn contents(&self, score: Option<Score>) -> Result<Contents> {
        Ok(Contents {
            model: model_tensors(self.task),
            optimizer: self.optimizer.state(),
            ema: self.ema.as_ref().map(Ema::averages),
            state: RunState {
                step: self.step,
                position: self.position,
                rng: RngStates::capture(self.settings.device)?,
                schedule: ScheduleState { num_done: self.step, next_lr: self.schedule.lr(self.step) },
                best: self.best,
                num_ema_updates: self.ema.as_ref().map_or(0, Ema::num_updates),
            },
            config_yaml: self.settings.config.to_yaml(),
            score,
            about: About {
                device: self.settings.device_name(),
                num_threads: num_threads(),
                precision: self.settings.precision_name().to_owned(),
                optimizer_groups: self.optimizer.groups(),
                task: self.task.description(),
            },
        })
    }

    /// The newest checkpoint, for an error text.
    pub(crate) fn way_back(last_checkpoint: Option<&PathBuf>) -> String {
        last_checkpoint.map_or_else(|| "none yet".to_owned(), |dir| dir.display().to_string())
    }

    /// The value of the monitored metric.
    pub(crate) fn score_of(&self, metrics: &std::collections::BTreeMap<String, f64>) -> Result<Score> {
        let monitor = &self.settings.training.checkpoint.monitor;
        let known = || metrics.keys().cloned().collect::<Vec<_>>();
        let value = metrics.get(monitor).copied().ok_or_else(|| no_such_metric(monitor, &known()))?;
        Ok(Score { metric: monitor.clone(), value })
    }
}

/// Refuses a monitored metric that the validation does not give.
fn ensure_monitored(monitor: &str, metrics: &[MetricSpec]) -> Result<()> {
    let of_validation = metrics.iter().map(|spec| &spec.name).filter(|name| name.starts_with("val/"));
    let known: Vec<String> = of_validation.cloned().collect();
    known.iter().any(|name| name == monitor).then_some(()).ok_or_else(|| no_such_metric(monitor, &known))
}

fn no_such_metric(monitor: &str, known: &[String]) -> TrainError {
    TrainError::NoSuchMetric { monitor: monitor.to_owned(), known: known.join(", ") }
}

/// Parameters and buffers: what `model.safetensors` holds.
pub(crate) fn model_tensors(task: &dyn Task) -> Vec<(String, Tensor)> {
    let mut tensors = task.parameters();
    tensors.extend(task.buffers());
    tensors
}

pub(crate) fn num_threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}
