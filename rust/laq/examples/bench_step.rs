//! Time of one training step with its data and without: the same engine and model, fed by the loader or by one batch again and again.
//!
//! `bench_step [OVERRIDE…]` prints one JSON object; the overrides are those of `hlrp train-laq`.
#![allow(clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::Result;
use clap::Parser;
use hlrp_config::Composed;
use hlrp_data::{Batch, Position};
use hlrp_laq::{LaqModel, LaqTask, Parts, open_pairs};
use hlrp_schema::{ConfigArgs, LaqConfig};
use hlrp_torch::World;
use hlrp_track::{RunDir, run::RunInfo};
use hlrp_train::{BatchStream, Settings, SourceRecord, StopRequest, Trainer, TrainingData, ValidationBatches};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

/// Steps that warm up libtorch and the loader, and steps that are timed.
const NUM_WARMUP: u64 = 5;
const NUM_STEPS: u64 = 25;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> Result<()> {
    let mut arguments = Args::parse();
    arguments.config.overrides.extend([
        format!("training.max_steps={}", NUM_WARMUP + NUM_STEPS),
        "training.scheduler.warmup_steps=1".into(),
        format!("training.log_every_n_steps={NUM_WARMUP}"),
        "training.checkpoint.every_n_steps=1000000".into(),
        "validation.check_interval=1000000".into(),
        "validation.limit_batches=1".into(),
        "logging.min_free_gb=0.1".into(),
    ]);
    let composed = arguments.config.compose()?;
    let config: LaqConfig = composed.extract()?;
    let batch_size = config.data.loader.batch_size;
    let mut data = open_pairs(&config, None, &|_, _, _, _| {})?;
    let with_data = step_seconds(&config, &composed, &mut data)?;
    let batch = data.train(Position::default(), &World::single())?.next_batch()?;
    let without_data = step_seconds(&config, &composed, &mut Repeated { batch, data })?;
    println!(
        "{}",
        json!({
            "experiment": config.experiment.name,
            "batch_size": batch_size,
            "step_ms": 1e3 * with_data,
            "step_without_data_ms": 1e3 * without_data,
            "pairs_per_s": batch_size as f64 / with_data,
        })
    );
    Ok(())
}

/// Mean seconds of a step after the warm-up, from the engine's own records.
fn step_seconds(config: &LaqConfig, composed: &Composed, data: &mut dyn TrainingData) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let device = hlrp_train::select_device(config.device)?;
    hlrp_torch::rng::seed(device, config.seed)?;
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, device), config, World::single());
    let settings = Settings {
        training: config.training.clone(),
        validation: config.validation.clone(),
        precision: config.precision,
        world: World::single(),
        device,
        logging: hlrp_schema::LoggingConfig { run_dir: folder.path().join("run"), ..config.logging.clone() },
        config: composed.clone(),
        accept_changed_data: false,
    };
    let info = RunInfo {
        program: "bench_step",
        experiment: &config.experiment.name,
        description: "",
        config_yaml: &composed.to_yaml(),
        overrides: composed.overrides(),
        versions: Default::default(),
        inputs: Vec::new(),
        num_threads: usize::try_from(tch::get_num_threads())?,
        metrics: Vec::new(),
        repository: Path::new("."),
    };
    let run_dir = RunDir::create(&settings.logging.run_dir, &info)?;
    Trainer::new(settings, &mut task, data)?.run(&run_dir, &StopRequest::listen()?)?;
    let rows = hlrp_track::metrics::read_metrics(&run_dir.path().join(hlrp_track::metrics::FILE_NAME))?;
    run_dir.finish(hlrp_track::run::RunStatus::Finished)?;
    let timed: Vec<f64> = rows
        .iter()
        .filter(|row| row.step > NUM_WARMUP)
        .filter_map(|row| row.get("perf/steps_per_sec"))
        .map(f64::recip)
        .collect();
    Ok(timed.iter().sum::<f64>() / timed.len() as f64)
}

/// Data that costs nothing: one batch, again and again.
struct Repeated {
    batch: Batch,
    data: hlrp_train::LoaderData,
}

impl TrainingData for Repeated {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        self.data.sources()
    }

    fn train(&mut self, _: Position, _: &World) -> Result<Box<dyn BatchStream>> {
        Ok(Box::new(OneBatch(self.batch.clone())))
    }

    fn validation(&mut self, limit_batches: Option<usize>, world: &World) -> Result<ValidationBatches> {
        self.data.validation(limit_batches, world)
    }
}

struct OneBatch(Batch);

impl BatchStream for OneBatch {
    fn next_batch(&mut self) -> Result<Batch> {
        Ok(self.0.clone())
    }

    fn position(&self) -> Position {
        Position::default()
    }
}
