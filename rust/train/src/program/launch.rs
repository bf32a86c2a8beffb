//! From arguments to a trained model.

use super::{
    Program,
    args::Arguments,
    nodes, processes,
    rendezvous::{Launcher, Rendezvous, refuse_shared_gpu},
    report,
    same_for_all::{ensure_same_checkpoint, ensure_same_inputs, ensure_same_settings},
};
use crate::{
    boundary::{self, Scene},
    data::{SourceRecord, TrainingData},
    disk_rules,
    error::TrainError,
    ranks::{self, LastCheckpoint},
    resume::{RESUME_KEY, Resumed},
    signals::StopRequest,
    task::Task,
    trainer::{Outcome, Settings, Trainer, of_key, sizes},
};
use anyhow::Context;
use hlrp_config::{Composed, Problem};
use hlrp_data::hub::recorded;
use hlrp_schema::{RunConfig, StageConfig, TrainingRun};
use hlrp_torch::World;
use hlrp_track::run::{Artifact, DataSource, RunInfo, RunStatus};
use hlrp_track::{RunDir, TrackError, console, exit_code, host, sinks::wandb};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tch::Device;

/// What a stage may use when it builds its model and data.
pub struct Setup {
    /// Device of the model.
    pub device: Device,
    /// The processes that train together.
    pub world: World,
    /// Whether the weights will come from a checkpoint: the initial ones do not matter.
    pub overwrites_weights: bool,
    /// The checkpoint that will be resumed.
    pub resumed: Option<Resumed>,
}

/// How long a process whose settings are wrong waits for the others, to report it once: `training.distributed.timeout_s` is one of them.
const WAIT_WITHOUT_SETTINGS: Duration = Duration::from_secs(60);

/// Runs the program: alone, as one of several processes, or as the one that starts them. Returns its exit code, after it has reported an
/// error: of several processes one does.
pub(super) fn run<P: Program>(arguments: &Arguments) -> u8 {
    let place = match Rendezvous::of_environment() {
        Ok(place) => place,
        Err(problem) => {
            let speaks = hlrp_torch::speaks_for_machine(&Rendezvous::start_name());
            return report_failure::<P>(&problem.into(), speaks);
        }
    };
    let is_first = place.as_ref().is_none_or(|place| place.rank == 0);
    let is_printed = arguments.print_config;
    let code = match &place {
        Some(place) if !is_printed => start_as::<P>(arguments, place),
        _ => start_alone::<P>(arguments, is_first),
    };
    code.unwrap_or_else(|error| report_failure::<P>(&error, is_first || !is_printed))
}

/// Reports an error if this process `speaks` and no other one does it; returns its exit code.
fn report_failure<P: Program>(error: &anyhow::Error, speaks: bool) -> u8 {
    if speaks && !ranks::is_reported_elsewhere(error.as_ref()) {
        console::report_error(error.as_ref(), P::HINTS);
        hlrp_torch::linger();
    }
    exit_code::of(error.as_ref(), crate::EXIT_CODES)
}

/// The checked configuration.
fn compose<P: Program>(arguments: &Arguments) -> anyhow::Result<Composed> {
    let composed = arguments.compose(None)?;
    let config: P::Config = P::Config::of_run(&composed)?;
    match &arguments.resume {
        Some(run_dir) if !arguments.print_config => config.run().cluster.refuse_output("--resume", run_dir)?,
        _ => {}
    }
    Ok(composed)
}

/// Prints the configuration, trains, or starts the processes that do; `is_first` unless another process prints.
fn start_alone<P: Program>(arguments: &Arguments, is_first: bool) -> anyhow::Result<u8> {
    let composed = compose::<P>(arguments)?;
    if arguments.print_config {
        if is_first {
            console::print(&composed.to_yaml());
        }
        return Ok(0);
    }
    let config: P::Config = P::Config::of_run(&composed)?;
    let common = config.run();
    let count = processes::count(common.num_processes, common.device);
    let count = count.map_err(|problem| composed.locate(problem))?;
    if count > 1 {
        return processes::run(count, timeout_of(&common));
    }
    console::init(common.logging.level.into(), 0)?;
    let stop = StopRequest::listen()?;
    train::<P>(arguments, &composed, &World::single(), None, &stop).map(|outcome| code_of(&outcome))
}

/// Trains as one of several processes. An error of one, whatever it is, ends all: once the store is open, each says how it ends.
fn start_as<P: Program>(arguments: &Arguments, place: &Rendezvous) -> anyhow::Result<u8> {
    let met = Arc::new(OnceLock::new());
    let stop = ranks::listen(&met)?;
    let followed = if place.launcher == Launcher::Own { processes::follow_launcher() } else { Ok(()) };
    let prepared = followed.and_then(|()| prepare_as::<P>(arguments, place));
    let timeout = prepared.as_ref().map_or(WAIT_WITHOUT_SETTINGS, |(_, timeout)| *timeout);
    let (world, prepared) = match (World::open(place.meeting(timeout)), prepared) {
        (Ok(world), prepared) => (world, prepared),
        // Nobody can be asked who else has the error.
        (Err(error), Err(own)) => return Ok(report_failure::<P>(&own, !ranks::is_reported_elsewhere(&error))),
        (Err(error), _) => return Err(error.into()),
    };
    let world = met.get_or_init(|| world);
    let outcome = prepared.and_then(|(composed, _)| {
        world.connect()?;
        join_run::<P>(arguments, composed, world, place, &stop)
    });
    let outcome = outcome.map_err(|error| ranks::conclude(world, error, P::HINTS, &LastCheckpoint::NONE));
    let code = match outcome {
        Ok(outcome) => code_of(&outcome),
        Err(error) => {
            processes::name_missing(ranks::missing_in(error.as_ref()));
            report_failure::<P>(&error, true)
        }
    };
    world.leave();
    Ok(code)
}

/// What a process does before it meets the others: its configuration, and how long it waits for them.
fn prepare_as<P: Program>(arguments: &Arguments, place: &Rendezvous) -> anyhow::Result<(Composed, Duration)> {
    let composed = compose::<P>(arguments)?;
    let config: P::Config = P::Config::of_run(&composed)?;
    let common = config.run();
    place.refuse_processes(common.num_processes).map_err(|problem| composed.locate(problem))?;
    console::init(common.logging.level.into(), place.rank)?;
    let timeout = timeout_of(&common);
    Ok((composed, timeout))
}

fn timeout_of(config: &RunConfig<'_>) -> Duration {
    Duration::from_secs_f64(config.training.distributed.timeout_s)
}

fn code_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Finished(_) => 0,
        Outcome::Interrupted(_) => exit_code::INTERRUPTED,
    }
}

/// Makes sure that all processes are of one run, with the run directory of the first, and trains.
fn join_run<P: Program>(
    arguments: &Arguments,
    composed: Composed,
    world: &World,
    place: &Rendezvous,
    stop: &StopRequest,
) -> anyhow::Result<Outcome> {
    let own = P::Config::of_run(&composed)?.run().logging.run_dir.display().to_string();
    let run_dirs = world.all_gather_text(&own)?;
    let composed = if run_dirs[0] == own { composed } else { arguments.compose(Some(&run_dirs[0]))? };
    let device = place.device(P::Config::of_run(&composed)?.run().device);
    let device = ensure_same_settings(world, &composed, device)?;
    let gpu = match device {
        Device::Cuda(index) => hlrp_torch::cuda::device_uuid(index)?,
        _ => format!("cpu {}", world.rank()),
    };
    let gpus = world.all_gather_text(&format!("{} {gpu}", host::hostname()))?;
    refuse_shared_gpu(&gpus, place.local_size)?;
    world.prepare(device)?;
    let backend = if device.is_cuda() { "NCCL" } else { "Gloo" };
    tracing::info!("number of processes: {}, exchange through {backend}", world.size());
    train::<P>(arguments, &composed, world, Some((place, device)), stop)
}

/// Trains.
fn train<P: Program>(
    arguments: &Arguments,
    composed: &Composed,
    world: &World,
    place: Option<(&Rendezvous, Device)>,
    stop: &StopRequest,
) -> anyhow::Result<Outcome> {
    let config: P::Config = P::Config::of_run(composed)?;
    let common = config.run();
    host::refuse_login_node(P::NAME, common.cluster.login_nodes.as_deref(), arguments.allow_login_node)?;
    let located = |error| locate(composed, error);
    hlrp_data::preflight(&common.data.sources, &common.data.cache.dir).map_err(|error| located(error.into()))?;
    P::preflight(&config).map_err(located)?;

    let mut wandb = wandb_settings(arguments, &common, world.is_main()).map_err(located)?;
    let sampling_interval = nodes::sampling_interval(world, wandb.as_mut())?;
    hlrp_track::fs::ensure_free(&common.logging.run_dir, 0, &disk_rules(common.cluster, common.logging))?;
    let (device, num_cores) = match place {
        Some((place, device)) => (device, place.num_cores()),
        None => (crate::select_device(common.device)?, host::num_cores()),
    };
    let num_threads = common.num_threads.unwrap_or(num_cores);
    // Float32 means float32: also the quantizer's under bf16 autocast.
    hlrp_torch::cuda::allow_tf32(false)?;
    tch::set_num_threads(i32::try_from(num_threads)?);
    hlrp_torch::rng::seed(device, common.seed)?;

    let settings = settings(arguments, &common, composed, wandb, device, world.clone())?;
    let training = &settings.training;
    let overwrites_weights = training.resume_from_checkpoint.is_some() || training.load_weights_from.is_some();
    let resumed = training.resume_from_checkpoint.as_deref().map(Resumed::read).transpose();
    let resumed = resumed.map_err(|error| located(of_setting(of_key(RESUME_KEY, error))))?;
    ensure_same_checkpoint(world, resumed.as_ref())?;
    let setup = Setup { device, world: world.clone(), overwrites_weights, resumed };
    let scene = || scene_before_start(composed);
    let (mut task, mut data) = boundary::within(|| P::prepare(&config, &setup), scene).map_err(located)?;
    let run_path = settings.logging.run_dir.clone();
    let inputs = inputs::<P>(&settings, &config);
    ensure_same_inputs(world, &data.sources(), &inputs)?;
    let sources = sources(&common, &data);
    let metrics = task.metrics();
    let trainer = boundary::within(|| Trainer::new(settings, &mut task, &mut data).map_err(of_setting), scene);
    let trainer = trainer.map_err(located)?;

    let yaml = composed.to_yaml();
    let info = RunInfo {
        description: &common.experiment.description,
        overrides: composed.overrides(),
        versions: versions(P::COMMIT),
        inputs,
        data: sources,
        num_threads,
        metrics,
        ..RunInfo::new(P::NAME, &common.experiment.name, &yaml)
    };
    stop.save_first();
    let run_dir = open_run(arguments, &run_path, trainer.step(), &info, world)?;
    let outcome = run_in(&run_dir, composed, trainer, sampling_interval, stop)?;
    finish::<P>(outcome, run_dir, &config, world)
}

/// Trains in an open run directory, whose log it writes; measures the machine meanwhile where W&B wants that.
fn run_in(
    run_dir: &RunDir,
    composed: &Composed,
    trainer: Trainer<'_>,
    sampling_interval: Option<Duration>,
    stop: &StopRequest,
) -> anyhow::Result<crate::Result<Outcome>> {
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_dir.path().display());
    if !composed.migrated().is_empty() {
        let changes = composed.migrated().join(", ");
        tracing::info!("this run was written by an older version; its configuration was migrated: {changes}");
    }
    let sampler = sampling_interval.map(|interval| wandb::NodeSampler::start(run_dir.path(), interval)).transpose()?;
    let outcome = trainer.run(run_dir, stop);
    drop(sampler);
    Ok(outcome)
}

/// How the first process records the run on W&B: a missing or wrong key is an error before anything is written.
fn wandb_settings(
    arguments: &Arguments,
    config: &RunConfig<'_>,
    is_main: bool,
) -> anyhow::Result<Option<wandb::Settings>> {
    if !config.logging.use_wandb || !is_main {
        return Ok(None);
    }
    let settings = wandb::Settings::of_run(&config.logging.wandb, arguments.resume.as_deref());
    settings.map_err(|error| match error {
        TrackError::Problem(problem) => problem.into(),
        other => anyhow::Error::from(other),
    })
}

/// What an out-of-memory error reports before the first step.
fn scene_before_start(composed: &Composed) -> Scene {
    Scene { when: "before the first step".to_owned(), sizes: sizes(composed), checkpoint: "none is changed".to_owned() }
}

/// The run directory: the first process creates it or resumes it, the others follow.
fn open_run(
    arguments: &Arguments,
    path: &Path,
    step: u64,
    info: &RunInfo<'_>,
    world: &World,
) -> anyhow::Result<RunDir> {
    let own = match &arguments.resume {
        _ if !world.is_main() => None,
        Some(path) => Some(RunDir::resume(path, step, info)?),
        None => Some(RunDir::create(path, info)?),
    };
    world.barrier()?;
    Ok(own.map_or_else(|| RunDir::follow(path), Ok)?)
}

/// The invalid setting in an error of the engine. A checkpoint of another run is not the fault of the one value that names it.
fn of_setting(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Problem(problem) if problem.key() != Some(RESUME_KEY) => problem.into(),
        other => other.into(),
    }
}

/// An invalid setting that shows only here names what set the value.
fn locate(composed: &Composed, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Problem>() {
        Ok(problem) => composed.locate(problem).into(),
        Err(other) => other,
    }
}

/// What computes: the same versions give the same bits.
fn versions(commit: Option<&str>) -> BTreeMap<String, String> {
    let own = [("hlrp", env!("CARGO_PKG_VERSION").to_owned()), ("libtorch", hlrp_torch::LIBTORCH_VERSION.to_owned())];
    let ffmpeg = hlrp_data::ffmpeg_release().map(|release| ("ffmpeg", release));
    let build = commit.map(|commit| ("build", commit.to_owned()));
    own.into_iter().chain(ffmpeg).chain(build).map(|(name, version)| (name.to_owned(), version)).collect()
}

/// Records how the run ended, draws its curves and prints its table.
fn finish<P: Program>(
    outcome: crate::Result<Outcome>,
    mut run_dir: RunDir,
    config: &P::Config,
    world: &World,
) -> anyhow::Result<Outcome> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let exit_code = Some(exit_code::of(&error, crate::EXIT_CODES));
            run_dir.finish(RunStatus::Failed { reason: console::error_text(&error, P::HINTS), exit_code })?;
            return Err(error.into());
        }
    };
    if !world.is_main() {
        return Ok(outcome);
    }
    let curves = report::draw_curves(&run_dir).context("the curves of the run cannot be drawn")?;
    let metrics = run_dir.manifest().metrics.clone();
    let path = run_dir.path().to_owned();
    let status = match &outcome {
        Outcome::Finished(_) => RunStatus::Finished,
        Outcome::Interrupted(_) => RunStatus::Interrupted,
    };
    if let Some(verdict) = &outcome.summary().verdict {
        run_dir.set_verdict(verdict);
    }
    run_dir.finish(status)?;
    let text = match &outcome {
        Outcome::Finished(summary) if summary.num_steps == 0 => {
            report::nothing_to_do::<P>(summary.step, &path, &config.run().training.scheduler.kind)
        }
        _ => report::table::<P>(&outcome, &path, &metrics, &curves),
    };
    console::print(&text);
    Ok(outcome)
}

fn settings(
    arguments: &Arguments,
    config: &RunConfig<'_>,
    composed: &Composed,
    wandb: Option<wandb::Settings>,
    device: Device,
    world: World,
) -> Result<Settings, Problem> {
    let run_dir = arguments.resume.as_ref().unwrap_or(&config.logging.run_dir);
    let mut settings = Settings::new(config, composed.clone(), run_dir, device, world);
    settings.wandb = wandb;
    settings.accept_changed_data = arguments.accept_changed_data;
    if let Some(run_dir) = &arguments.resume {
        let training = &mut settings.training;
        let typed = composed.changed_by(RESUME_KEY).and(training.resume_from_checkpoint.take());
        training.resume_from_checkpoint = Some(checkpoint_of(run_dir, typed)?);
        training.load_weights_from = None;
    }
    Ok(settings)
}

/// The checkpoint to resume: the one that the command line names, which must belong to this run, else the newest.
fn checkpoint_of(run_dir: &Path, typed: Option<PathBuf>) -> Result<PathBuf, Problem> {
    let Some(checkpoint) = typed else { return Ok(run_dir.to_path_buf()) };
    let folder = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if folder(&checkpoint).starts_with(folder(run_dir)) {
        return Ok(checkpoint);
    }
    let message = format!("{} is not a checkpoint of the run {}", checkpoint.display(), run_dir.display());
    let hint = "choose one in its folder checkpoints/, or omit --resume to start a new run from that checkpoint";
    Err(Problem::new(RESUME_KEY, message, hint))
}

/// What the run starts from.
fn inputs<P: Program>(settings: &Settings, config: &P::Config) -> Vec<Artifact> {
    let training = &settings.training;
    let given: [(&str, &Option<PathBuf>); 2] = [
        ("resume_from_checkpoint", &training.resume_from_checkpoint),
        ("load_weights_from", &training.load_weights_from),
    ];
    let of_engine = given.into_iter().filter_map(|(role, path)| Some((role, path.clone()?)));
    of_engine.chain(P::inputs(config)).map(|(role, path)| Artifact::of(role, path)).collect()
}

/// The datasets that the run reads.
fn sources(config: &RunConfig<'_>, data: &impl TrainingData) -> BTreeMap<String, DataSource> {
    let labels = data.label_shares();
    let source = |(name, record): (String, SourceRecord)| {
        let SourceRecord { fingerprint, num_episodes, .. } = record;
        let found = recorded(&name, config.data.sources.get(&name), fingerprint, num_episodes);
        let labels = labels.get(&name).copied();
        (name, DataSource { labels, ..found })
    };
    data.sources().into_iter().map(source).collect()
}
