//! From arguments to a trained model.

use super::{args::Arguments, closing};
use anyhow::Context;
use hlrp_config::Composed;
use hlrp_config::schema::{LaqConfig, LogLevel};
use hlrp_laq::{LaqModel, LaqTask, PairData, Parts};
use hlrp_track::run::{Artifact, RunInfo, RunStatus};
use hlrp_track::{RunDir, console, host};
use hlrp_train::{Outcome, Settings, StopRequest, Trainer};
use std::path::{Path, PathBuf};
use tracing::level_filters::LevelFilter;

/// Trains; gives nothing when only the configuration was asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Option<Outcome>> {
    let composed = arguments.compose()?;
    let config: LaqConfig = composed.extract()?;
    if arguments.print_config {
        console::print(&composed.to_yaml());
        return Ok(None);
    }
    console::init(level(config.logging.level), 0)?;
    host::refuse_login_node("hlrp-train-laq", &[], arguments.allow_login_node)?;

    let stop = StopRequest::listen()?;
    let device = hlrp_torch::select_device(&config.device)?;
    tch::set_num_threads(i32::try_from(num_threads(&config))?);
    hlrp_torch::rng::seed(device, config.seed)?;

    let mut data = PairData::open(&config, &report_cache)?;
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, device)?, &config);
    let settings = settings(arguments, &config, &composed, device);
    let run_path = settings.run_dir.clone();
    let inputs = inputs(&settings);
    let trainer = Trainer::new(settings, &mut task, &mut data)?;

    let yaml = composed.to_yaml();
    let info = RunInfo {
        program: "hlrp-train-laq",
        experiment: &config.experiment.name,
        description: &config.experiment.description,
        config_yaml: &yaml,
        overrides: composed.overrides(),
        versions: [("hlrp", env!("CARGO_PKG_VERSION")), ("libtorch", hlrp_torch::LIBTORCH_VERSION)]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        inputs,
        num_threads: num_threads(&config),
        repository: Path::new("."),
    };
    let run_dir = match &arguments.resume {
        Some(path) => RunDir::resume(path, trainer.step(), &info)?,
        None => RunDir::create(&run_path, &info)?,
    };
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_dir.path().display());
    finish(trainer.run(&run_dir, &stop), run_dir, config.model.codebook_size)
}

/// Records how the run ended, draws its curves and prints its table.
fn finish(outcome: hlrp_train::Result<Outcome>, run_dir: RunDir, num_codes: i64) -> anyhow::Result<Option<Outcome>> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            run_dir.finish(RunStatus::Failed { reason: console::error_text(&error) })?;
            return Err(error.into());
        }
    };
    let pictures = closing::draw_curves(&run_dir).context("the curves of the run cannot be drawn")?;
    let path = run_dir.path().to_owned();
    let status = match &outcome {
        Outcome::Finished(_) => RunStatus::Finished,
        Outcome::Interrupted(_) => RunStatus::Interrupted,
    };
    run_dir.finish(status)?;
    console::print(&closing::table(&outcome, &path, num_codes, &pictures));
    Ok(Some(outcome))
}

fn settings(arguments: &Arguments, config: &LaqConfig, composed: &Composed, device: tch::Device) -> Settings {
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
        device,
        run_dir,
        min_free_gb: config.logging.min_free_gb,
        config: composed.clone(),
    }
}

/// What the run starts from.
fn inputs(settings: &Settings) -> Vec<Artifact> {
    let training = &settings.training;
    let given: [(&str, &Option<PathBuf>); 2] = [
        ("resume_from_checkpoint", &training.resume_from_checkpoint),
        ("load_weights_from", &training.load_weights_from),
    ];
    given
        .into_iter()
        .filter_map(|(role, path)| Some(Artifact { role: role.into(), path: path.clone()?, sha256: None }))
        .collect()
}

fn num_threads(config: &LaqConfig) -> usize {
    let all_cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.num_threads.unwrap_or_else(all_cores)
}

fn report_cache(source: &str, role: &str, num_done: u64, num_total: u64) {
    tracing::info!("frame cache of {source}/{role}: {num_done} of {num_total} episodes");
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
