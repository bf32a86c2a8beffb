//! From arguments to a trained model.

use super::{Program, args::Arguments, num_threads, report};
use crate::{Outcome, Settings, StopRequest, Task, Trainer};
use anyhow::Context;
use hlrp_config::{Composed, Problem};
use hlrp_schema::{RunConfig, StageConfig, TrainingRun};
use hlrp_torch::World;
use hlrp_track::run::{Artifact, RunInfo, RunStatus};
use hlrp_track::{RunDir, console, host};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::Device;

/// What a stage may use when it builds its model and data.
pub struct Setup {
    /// Device of the model.
    pub device: Device,
    /// The processes that train together.
    pub world: World,
    /// Whether the weights will come from a checkpoint: those that the model starts with do not matter.
    pub overwrites_weights: bool,
}

/// Trains; gives nothing when only the configuration was asked for.
pub(super) fn run<P: Program>(arguments: &Arguments) -> anyhow::Result<Option<Outcome>> {
    let composed = arguments.compose()?;
    let config: P::Config = P::Config::of_run(&composed)?;
    if arguments.print_config {
        console::print(&composed.to_yaml());
        return Ok(None);
    }
    let common = config.run();
    if let Some(run_dir) = &arguments.resume {
        common.cluster.refuse_outside("--resume", run_dir)?;
    }
    console::init(common.logging.level.into(), 0)?;
    host::refuse_login_node(P::NAME, common.cluster.login_nodes.as_deref(), arguments.allow_login_node)?;
    let located = |error| locate(&composed, error);
    hlrp_data::preflight(&common.data.sources).map_err(|error| located(error.into()))?;
    P::preflight(&config).map_err(located)?;

    let stop = StopRequest::listen()?;
    let device = crate::select_device(common.device)?;
    tch::set_num_threads(i32::try_from(num_threads(&common))?);
    hlrp_torch::rng::seed(device, common.seed)?;

    let settings = settings(arguments, &common, &composed, device, World::single());
    let training = &settings.training;
    let overwrites_weights = training.resume_from_checkpoint.is_some() || training.load_weights_from.is_some();
    let setup = Setup { device, world: World::single(), overwrites_weights };
    let (mut task, mut data) = P::prepare(&config, &setup).map_err(located)?;
    let run_path = settings.run_dir.clone();
    let inputs = inputs::<P>(&settings, &config);
    let metrics = task.metrics();
    let trainer = Trainer::new(settings, &mut task, &mut data)?;

    let yaml = composed.to_yaml();
    let info = RunInfo {
        program: P::NAME,
        experiment: &common.experiment.name,
        description: &common.experiment.description,
        config_yaml: &yaml,
        overrides: composed.overrides(),
        versions: versions(),
        inputs,
        num_threads: num_threads(&common),
        metrics,
        repository: Path::new("."),
    };
    let run_dir = match &arguments.resume {
        Some(path) => RunDir::resume(path, trainer.step(), &info)?,
        None => RunDir::create(&run_path, &info)?,
    };
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_dir.path().display());
    finish::<P>(trainer.run(&run_dir, &stop), run_dir, &config)
}

/// An invalid setting that shows only here names what set the value.
fn locate(composed: &Composed, error: anyhow::Error) -> anyhow::Error {
    match error.chain().find_map(|cause| cause.downcast_ref::<Problem>()) {
        Some(problem) => composed.locate(problem.clone()).into(),
        None => error,
    }
}

/// What computes: the same versions give the same bits.
fn versions() -> BTreeMap<String, String> {
    let own = [("hlrp", env!("CARGO_PKG_VERSION").to_owned()), ("libtorch", hlrp_torch::LIBTORCH_VERSION.to_owned())];
    let ffmpeg = hlrp_data::ffmpeg_release().map(|release| ("ffmpeg", release));
    own.into_iter().chain(ffmpeg).map(|(name, version)| (name.to_owned(), version)).collect()
}

/// Records how the run ended, draws its curves and prints its table.
fn finish<P: Program>(
    outcome: crate::Result<Outcome>,
    run_dir: RunDir,
    config: &P::Config,
) -> anyhow::Result<Option<Outcome>> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            run_dir.finish(RunStatus::Failed { reason: console::error_text(&error, P::HINTS) })?;
            return Err(error.into());
        }
    };
    let curves = report::draw_curves(&run_dir).context("the curves of the run cannot be drawn")?;
    let metrics = run_dir.manifest().metrics.clone();
    let path = run_dir.path().to_owned();
    let status = match &outcome {
        Outcome::Finished(_) => RunStatus::Finished,
        Outcome::Interrupted(_) => RunStatus::Interrupted,
    };
    run_dir.finish(status)?;
    let text = match outcome.summary().num_steps {
        0 => report::nothing_to_do::<P>(outcome.summary().step, &path, &config.run().training.scheduler.kind),
        _ => report::table::<P>(&outcome, &path, &metrics, &curves),
    };
    console::print(&text);
    Ok(Some(outcome))
}

fn settings(
    arguments: &Arguments,
    config: &RunConfig<'_>,
    composed: &Composed,
    device: Device,
    world: World,
) -> Settings {
    let mut training = config.training.clone();
    let run_dir = match &arguments.resume {
        Some(run_dir) => {
            training.resume_from_checkpoint = Some(run_dir.clone());
            training.load_weights_from = None;
            run_dir.clone()
        }
        None => config.logging.run_dir.clone(),
    };
    Settings {
        training,
        validation: config.validation.clone(),
        precision: config.precision,
        world,
        device,
        run_dir,
        min_free_gb: config.logging.min_free_gb,
        config: composed.clone(),
    }
}

/// What the run starts from.
fn inputs<P: Program>(settings: &Settings, config: &P::Config) -> Vec<Artifact> {
    let training = &settings.training;
    let given: [(&str, &Option<PathBuf>); 2] = [
        ("resume_from_checkpoint", &training.resume_from_checkpoint),
        ("load_weights_from", &training.load_weights_from),
    ];
    let of_engine = given.into_iter().filter_map(|(role, path)| Some((role, path.clone()?)));
    of_engine
        .chain(P::inputs(config))
        .map(|(role, path)| Artifact { role: role.to_owned(), path, sha256: None })
        .collect()
}
