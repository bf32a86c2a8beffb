//! A run before it starts: everything that can be refused is refused here, and nothing is written.

use crate::{
    agreement::Agreement,
    checkpoint::{BestScore, Checkpoint, Contents, Publisher, RngStates, RunState, ScheduleState, Score, load_weights},
    data::TrainingData,
    error::{Result, TrainError},
    realised_shares::RealisedShares,
    resume::{RESUME_KEY, changed_data, ensure_same_model, ensure_same_run, ensure_same_stage},
    signals::StopRequest,
    step_graph::StepGraph,
    task::Task,
    throughput::Throughput,
    timers::Timers,
    update::{Ema, Optimizer, Schedule},
    watch::LossWatch,
};
use hlrp_config::{Composed, Hint, Problem};
use hlrp_data::{Position, disk_rules};
use hlrp_schema::{LoggingConfig, MonitorMode, Precision, RunConfig, TrainingConfig, ValidationConfig};
use hlrp_torch::{BUCKET_BYTES, Reducer, World};
use hlrp_track::{
    RunDir,
    fs::{DiskRules, ensure_free},
    metrics::{Better, MetricSpec},
    sinks::{SinkSetup, Sinks, wandb},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::{Device, Tensor};

/// Settings of a run, from a checked configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Section `training`.
    pub training: TrainingConfig,
    /// Section `validation`.
    pub validation: ValidationConfig,
    /// Section `logging`.
    pub logging: LoggingConfig,
    /// How the run is recorded on W&B, if it is.
    pub wandb: Option<wandb::Settings>,
    /// How the run uses its disk.
    pub disk: DiskRules,
    /// Number format of the forward pass.
    pub precision: Precision,
    /// Samples of a batch of each process.
    pub batch_size: u64,
    /// Samples of a run that may fail to decode, in all processes together.
    pub max_bad_samples: u64,
    /// The processes that train together.
    pub world: World,
    /// Device of the model's parameters.
    pub device: Device,
    /// The whole configuration: stored in every checkpoint, compared when a run resumes.
    pub config: Composed,
    /// Whether a run may resume although a dataset has changed.
    pub accept_changed_data: bool,
}

impl Settings {
    /// Settings of `run`, whose whole configuration is `config`: it writes to `run_dir` and trains on `device` as one process of `world`, without
    /// W&B.
    pub fn new(run: &RunConfig<'_>, config: Composed, run_dir: &Path, device: Device, world: World) -> Self {
        let logging = LoggingConfig { run_dir: run_dir.to_path_buf(), ..run.logging.clone() };
        Self {
            training: run.training.clone(),
            validation: run.validation.clone(),
            disk: disk_rules(run.cluster, &logging),
            logging,
            wandb: None,
            precision: run.precision,
            batch_size: run.data.loader.batch_size as u64,
            max_bad_samples: run.data.loader.max_bad_samples as u64,
            world,
            device,
            config,
            accept_changed_data: false,
        }
    }

    /// Samples of an optimizer step: of the batches that it accumulates, in all processes.
    fn samples_per_step(&self) -> u64 {
        let num_batches = self.training.gradient.accumulate_steps.saturating_mul(self.world.size() as u64);
        self.batch_size.saturating_mul(num_batches)
    }

    /// The device as people and configurations name it.
    pub(crate) fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(index) => match hlrp_torch::cuda::device_name(index) {
                Ok(name) => format!("cuda:{index} ({name})"),
                Err(_) => format!("cuda:{index}"),
            },
            _ => "cpu".to_owned(),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished(Summary),
    /// A signal stopped it; its last checkpoint has everything.
    Interrupted(Summary),
}

impl Outcome {
    /// What the run leaves behind.
    pub fn summary(&self) -> &Summary {
        match self {
            Self::Finished(summary) | Self::Interrupted(summary) => summary,
        }
    }
}

/// What a run leaves behind, for a closing table.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Optimizer steps done, those before a resume included.
    pub step: u64,
    /// Optimizer steps of this process; none when the run to resume had finished.
    pub num_steps: u64,
    /// Best score so far and the step that reached it.
    pub best: Option<BestScore>,
    /// Metrics of the newest validation in this process, by full name.
    pub validation: Option<BTreeMap<String, f64>>,
    /// [`Task::verdict`] of that validation.
    pub verdict: Option<String>,
    /// Newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Samples per second of training time in this process, validation and checkpoints left out.
    pub samples_per_sec: f64,
    /// Fraction of the training time spent waiting for data, 0 to 1.
    pub data_wait_fraction: f64,
    /// Peak memory in bytes: device memory on a GPU, resident memory on the CPU.
    pub peak_memory_bytes: Option<u64>,
}

/// A model, its data and its optimizer, ready to run.
///
/// [`Trainer::new`] checks and loads; [`Trainer::run`] trains.
pub struct Trainer<'a> {
    pub(crate) settings: Settings,
    pub(crate) task: &'a mut dyn Task,
    pub(crate) data: &'a mut dyn TrainingData,
    pub(crate) schedule: Schedule,
    pub(crate) optimizer: Optimizer,
    pub(crate) reducer: Reducer,
    pub(crate) graph: Option<StepGraph>,
    pub(crate) ema: Option<Ema>,
    pub(crate) watch: LossWatch,
    pub(crate) shares: RealisedShares,
    pub(crate) throughput: Throughput,
    /// Optimizer steps done.
    pub(crate) step: u64,
    /// The step at which this process began.
    pub(crate) start_step: u64,
    /// Position after the last batch. Its bad samples are those of all processes until this session began, and of this process since then.
    pub(crate) position: Position,
    /// Bad samples of the run when this process began.
    pub(crate) num_bad_before: u64,
    pub(crate) best: Option<BestScore>,
    pub(crate) last_validation: Option<BTreeMap<String, f64>>,
    pub(crate) publisher: Publisher,
    /// Random states to restore before the first step.
    pub(crate) rng: Option<RngStates>,
    /// Whether validation, artifacts and checkpoint of the last step are still to be done.
    pub(crate) is_unfinished: bool,
}

impl<'a> Trainer<'a> {
    /// Prepares a run: a new one, one from given weights (`training.load_weights_from`), or the continuation of a checkpoint
    /// (`training.resume_from_checkpoint`), which overwrites the task's parameters and buffers.
    ///
    /// # Errors
    /// A checkpoint that is damaged or belongs to other settings or data, weights that do not fit, an unknown metric to monitor, too little
    /// free space for a checkpoint. Nothing is written to the disk.
    pub fn new(settings: Settings, task: &'a mut dyn Task, data: &'a mut dyn TrainingData) -> Result<Self> {
        let training = &settings.training;
        ensure_monitored(&training.checkpoint.monitor, training.checkpoint.mode, &task.metrics())?;
        let checkpoint = training.resume_from_checkpoint.as_deref().map(Checkpoint::open).transpose();
        let checkpoint = checkpoint.map_err(|error| of_key(RESUME_KEY, error))?;
        let changes = match &checkpoint {
            Some(checkpoint) => load_model(checkpoint, &settings, task, data)?,
            None => Changes::default(),
        };
        if let Some(path) = &training.load_weights_from {
            load_weights(path, &model_tensors(task)).map_err(|error| of_key("training.load_weights_from", error))?;
        }
        for (_, tensor) in model_tensors(task) {
            settings.world.broadcast(&tensor)?;
        }
        let parameters = task.parameters();
        let optimizer = Optimizer::new(&parameters, &training.optimizer)?;
        let mut trainer = Self {
            schedule: Schedule::new(&training.scheduler, training.optimizer.lr, training.max_steps)
                .scaled(training.scheduler.lr_factor(settings.samples_per_step())),
            reducer: Reducer::new(&settings.world, &optimizer.params(), BUCKET_BYTES)?,
            graph: StepGraph::of(&settings)?,
            optimizer,
            ema: training.ema.enabled.then(|| Ema::new(&parameters, &training.ema)),
            watch: LossWatch::default(),
            shares: RealisedShares::new(data.target_shares()),
            throughput: Throughput::of(settings.device),
            step: 0,
            start_step: 0,
            position: Position::default(),
            num_bad_before: 0,
            best: None,
            last_validation: None,
            publisher: Publisher::default(),
            rng: None,
            is_unfinished: false,
            settings,
            task,
            data,
        };
        if let Some(checkpoint) = checkpoint {
            trainer.continue_from(&checkpoint, changes)?;
        }
        let num_bytes = trainer.contents(None)?.num_bytes();
        let Settings { logging, disk, .. } = &trainer.settings;
        ensure_free(&logging.run_dir, num_bytes, disk)?;
        Ok(trainer)
    }

    /// Optimizer steps done; where the run starts.
    pub fn step(&self) -> u64 {
        self.step
    }

    fn continue_from(&mut self, checkpoint: &Checkpoint, changes: Changes) -> Result<()> {
        let state = checkpoint.state();
        checkpoint.load_optimizer(&self.optimizer.state())?;
        if let Some(ema) = &mut self.ema {
            checkpoint.load_ema(&ema.averages())?;
            ema.set_num_updates(state.num_ema_updates);
        }
        (self.step, self.start_step) = (state.step, state.step);
        self.position = state.position;
        self.num_bad_before = state.position.num_bad_samples;
        self.best = state.best;
        if changes.of_data {
            let Position { epoch, num_bad_samples, .. } = self.position;
            self.position = Position { epoch: epoch + 1, sample: 0, num_bad_samples };
        }
        if changes.of_data || changes.of_validation {
            tracing::info!("the validation set has changed: the best score so far no longer counts");
            self.best = None;
        }
        self.is_unfinished = state.is_unfinished;
        // The generators of all processes are alike, so that a run continues with the same draws on any number of them.
        self.rng = state.rng.get(self.settings.world.rank()).or(state.rng.first()).cloned();
        self.publisher = Publisher::from(checkpoint.dir().to_path_buf());
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

    /// What a checkpoint of this step contains; `score` is that of exactly these weights.
    pub(crate) fn contents(&self, score: Option<Score>) -> Result<Contents> {
        Ok(Contents {
            model: model_tensors(self.task),
            optimizer: self.optimizer.state(),
            ema: self.ema.as_ref().filter(|ema| ema.num_updates() > 0).map(Ema::averages),
            state: RunState {
                step: self.step,
                position: self.position_of_all()?,
                rng: RngStates::capture(self.settings.device)?.of_all(&self.settings.world)?,
                schedule: ScheduleState { num_done: self.step, next_lr: self.schedule.lr(self.step) },
                best: self.best,
                num_ema_updates: self.ema.as_ref().map_or(0, Ema::num_updates),
                is_unfinished: self.is_unfinished,
                sources: Some(self.data.sources()),
            },
            config_yaml: self.settings.config.to_yaml(),
            score,
            device: self.settings.device_name(),
            num_threads: num_threads(),
            precision: self.settings.precision,
            optimizer_groups: self.optimizer.groups(),
            task: self.task.description(),
        })
    }

    /// What all processes agree on after a step; its bad samples are those of the run.
    ///
    /// # Errors
    /// Another process is gone.
    pub(crate) fn agree(&self, is_stop_requested: bool) -> Result<Agreement> {
        let num_bad_samples = self.position.num_bad_samples - self.num_bad_before;
        let agreed = Agreement { is_stop_requested, num_bad_samples }.of_all(&self.settings.world)?;
        Ok(Agreement { num_bad_samples: self.num_bad_before + agreed.num_bad_samples, ..agreed })
    }

    /// Where the stream continues, with the bad samples of all processes.
    fn position_of_all(&self) -> Result<Position> {
        let num_bad_samples = self.agree(false)?.num_bad_samples;
        Ok(Position { num_bad_samples, ..self.position })
    }

    /// Remembers a score if it is the best so far, and returns whether it is.
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

    /// The destinations of metrics and images; only the first process has any.
    pub(crate) fn open_sinks(&self, run: &RunDir, stop: &StopRequest) -> Result<Sinks> {
        if !self.settings.world.is_main() {
            return Ok(Sinks::none());
        }
        let max_steps = self.settings.training.max_steps;
        let wandb = self.settings.wandb.as_ref();
        let setup = SinkSetup { wandb, stop: Some(stop.signals()), ..SinkSetup::new(run.path(), self.step, max_steps) };
        Ok(Sinks::open(&setup, &self.settings.logging.sinks)?)
    }

    /// Says what is about to be optimized.
    pub(crate) fn announce(&self) {
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
        let num_processes = self.settings.world.size();
        if num_processes > 1 {
            let per_process = self.settings.batch_size;
            tracing::info!(
                "{num_processes} processes with {per_process} samples per batch each: {} together",
                per_process * num_processes as u64
            );
        }
        let TrainingConfig { scheduler, optimizer, .. } = &self.settings.training;
        if let Some(base_size) = scheduler.lr_base_size {
            let num_samples = self.settings.samples_per_step();
            let lr = optimizer.lr * scheduler.lr_factor(num_samples);
            tracing::info!(
                "a step has {num_samples} samples: training.optimizer.lr={} of {base_size} samples becomes {lr:.3e}",
                optimizer.lr
            );
        }
    }

    /// What the run leaves behind.
    pub(crate) fn summary(&self, timers: &Timers) -> Summary {
        let total = timers.total();
        Summary {
            step: self.step,
            num_steps: self.step - self.start_step,
            best: self.best,
            validation: self.last_validation.clone(),
            verdict: self.last_validation.as_ref().and_then(|validation| self.task.verdict(validation)),
            checkpoint: self.publisher.whole().map(Path::to_path_buf),
            samples_per_sec: total.samples_per_sec(),
            data_wait_fraction: total.data_wait_fraction(),
            peak_memory_bytes: hlrp_torch::memory::peak(self.settings.device),
        }
    }
}

/// What is different from the run that a checkpoint continues.
#[derive(Clone, Copy, Default)]
struct Changes {
    /// A dataset.
    of_data: bool,
    /// The settings of the validation.
    of_validation: bool,
}

/// Loads the parameters and buffers of a checkpoint, whose run must be this one.
fn load_model(
    checkpoint: &Checkpoint,
    settings: &Settings,
    task: &dyn Task,
    data: &dyn TrainingData,
) -> Result<Changes> {
    let description = task.description();
    ensure_same_stage(checkpoint, &description)?;
    let of_validation = ensure_same_run(checkpoint, &settings.config, settings.world.size())?;
    let changed = changed_data(checkpoint, &data.sources());
    let of_data = !changed.is_empty();
    for problem in changed {
        if !settings.accept_changed_data {
            return Err(problem.into());
        }
        tracing::warn!("{problem}; accepted: a new epoch begins, and held-out episodes stay held out");
    }
    ensure_same_model(checkpoint, &description)?;
    checkpoint.load_model(&model_tensors(task))?;
    Ok(Changes { of_data, of_validation })
}

/// A path that is not a checkpoint, as a problem of the key that names it.
pub(crate) fn of_key(key: &str, error: TrainError) -> TrainError {
    match &error {
        TrainError::NotACheckpoint { .. } => {
            Problem::new(key, error.to_string(), error.hint().unwrap_or_default()).into()
        }
        _ => error,
    }
}

/// Names the samples of a batch of each process.
pub(crate) const BATCH_SIZE: &str = "data.loader.batch_size";

/// The settings of a configuration that decide how much memory a run needs, for an error.
pub(crate) fn sizes(config: &Composed) -> String {
    const KEYS: [&str; 5] = [
        BATCH_SIZE,
        "training.gradient.accumulate_steps",
        "data.loader.memory_budget_mb",
        "data.loader.num_workers",
        "precision",
    ];
    let value = |key: &str| Some(format!("{key}={}", config.tree().get(key)?.summary()));
    KEYS.into_iter().filter_map(value).collect::<Vec<_>>().join(" ")
}

/// Refuses a monitored metric that the validation does not return.
fn ensure_monitored(monitor: &str, mode: MonitorMode, metrics: &[MetricSpec]) -> Result<()> {
    let of_validation = || metrics.iter().filter(|spec| spec.name.starts_with("val/"));
    let Some(spec) = of_validation().find(|spec| spec.name == monitor) else {
        return Err(unknown_metric(monitor, of_validation().map(|spec| spec.name.as_str())).into());
    };
    if matches!((spec.better, mode), (Some(Better::Lower), MonitorMode::Max) | (Some(Better::Higher), MonitorMode::Min))
    {
        tracing::warn!("training.checkpoint.mode: the best checkpoint will be the one with the worst {monitor}");
    }
    Ok(())
}

/// No validation returns the metric `monitor`, but those in `known`.
pub(crate) fn unknown_metric<'a>(monitor: &str, known: impl IntoIterator<Item = &'a str>) -> Problem {
    let message = format!("the validation has no metric '{monitor}'");
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    Problem::new("training.checkpoint.monitor", message, format!("choose one of {known}"))
}

/// Parameters and buffers: the content of `model.safetensors`.
fn model_tensors(task: &dyn Task) -> Vec<(String, Tensor)> {
    let mut tensors = task.parameters();
    tensors.extend(task.buffers());
    tensors
}

fn num_threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}
