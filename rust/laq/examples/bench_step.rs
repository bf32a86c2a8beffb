//! Time of one training step with its data and without: the same engine and model, fed by the loader or by one batch again and again.
//!
//! `bench_step [--steps N] [OVERRIDE…]` prints one JSON object; the overrides are those of `hlrp train-laq`.
#![allow(clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::Result;
use clap::Parser;
use hlrp_config::Composed;
use hlrp_data::{Batch, Position};
use hlrp_laq::{LaqModel, LaqTask, Parts, open_pairs};
use hlrp_schema::{ConfigArgs, LaqConfig};
use hlrp_torch::World;
use hlrp_torch::count::{OperatorCounts, count};
use hlrp_torch::profile::{KernelTime, profile};
use hlrp_track::{RunDir, metrics::MetricsRow, run::RunInfo};
use hlrp_train::{BatchStream, Settings, SourceRecord, StopRequest, Trainer, TrainingData, ValidationBatches};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Steps that warm up libtorch and the loader, and steps between two records of time.
const NUM_WARMUP: u64 = 5;
/// Metric with the fraction of the time in which the training thread waits for data.
const WAIT_FRACTION: &str = "perf/data_wait_fraction";

#[derive(Parser)]
struct Args {
    /// Steps that are timed, a multiple of five.
    #[arg(long, default_value_t = 25)]
    steps: u64,
    /// Also the distribution of the time of single steps without data, each of which waits for the device.
    #[arg(long)]
    percentiles: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> Result<()> {
    let mut arguments = Args::parse();
    arguments.config.overrides.extend([
        "training.scheduler.warmup_steps=1".into(),
        "training.checkpoint.every_n_steps=1000000".into(),
        "validation.check_interval=1000000".into(),
        "validation.limit_batches=1".into(),
        "logging.min_free_gb=0.1".into(),
    ]);
    let num_steps = arguments.steps;
    let of_steps = |num_steps: u64, log_every: u64| -> Result<(Composed, LaqConfig)> {
        let mut config = arguments.config.clone();
        config.overrides.push(format!("training.max_steps={num_steps}"));
        config.overrides.push(format!("training.log_every_n_steps={log_every}"));
        let composed = config.compose()?;
        let config = composed.extract()?;
        Ok((composed, config))
    };
    let (composed, config) = of_steps(NUM_WARMUP + num_steps, NUM_WARMUP)?;
    let batch_size = config.data.loader.batch_size;
    let mut data = open_pairs(&config, None, &|_, _, _, _| {})?;
    let rows = train(&config, &composed, &mut data)?;
    let (with_data, wait_fraction) = (mean_seconds(&rows), rows.last().and_then(|row| row.get(WAIT_FRACTION)));
    let batch = data.train(Position::default(), &World::single())?.next_batch()?;
    let mut repeated = Repeated { batch, data };
    let without_data = mean_seconds(&train(&config, &composed, &mut repeated)?);
    let single_steps = match arguments.percentiles {
        true => {
            let (composed, config) = of_steps(NUM_WARMUP + num_steps, 1)?;
            let mut seconds = seconds_per_step(&train(&config, &composed, &mut repeated)?);
            seconds.sort_by(f64::total_cmp);
            seconds
        }
        false => Vec::new(),
    };
    // A run of one step more: what it does beyond the shorter one is a step.
    let mut observed = |num_steps: u64| -> Result<(OperatorCounts, Vec<KernelTime>)> {
        let (composed, config) = of_steps(num_steps, 1_000_000)?;
        let ((), counts) = count(|| train(&config, &composed, &mut repeated).map(|_| ()))?;
        let ((), kernels) = profile(|| train(&config, &composed, &mut repeated).map(|_| ()))?;
        Ok((counts, kernels))
    };
    let (short, long) = (observed(2)?, observed(3)?);
    let kernels = hlrp_torch::profile::difference(&long.1, &short.1);
    let device = hlrp_train::select_device(config.device)?;
    println!(
        "{}",
        json!({
            "experiment": config.experiment.name,
            "batch_size": batch_size,
            "step_ms": 1e3 * with_data,
            "step_without_data_ms": 1e3 * without_data,
            "step_p50_ms": percentile(&single_steps, 50).map(|seconds| 1e3 * seconds),
            "step_p99_ms": percentile(&single_steps, 99).map(|seconds| 1e3 * seconds),
            "data_wait_fraction": wait_fraction,
            "pairs_per_s": batch_size as f64 / with_data,
            "peak_gb": hlrp_torch::memory::peak(device).unwrap_or(0) as f64 / 1e9,
            "flops": long.0.flops - short.0.flops,
            "operators": long.0.operators - short.0.operators,
            "host_waits": long.0.host_waits - short.0.host_waits,
            "kernels": seconds_of(&kernels),
        })
    );
    Ok(())
}

/// Name, executions and seconds of each kernel.
fn seconds_of(kernels: &[KernelTime]) -> Vec<Value> {
    kernels.iter().map(|kernel| json!([kernel.name, kernel.calls, kernel.time.as_secs_f64()])).collect()
}

/// Seconds of a step after the warm-up, from each of the engine's own records.
fn seconds_per_step(rows: &[MetricsRow]) -> Vec<f64> {
    let timed = rows.iter().filter(|row| row.step > NUM_WARMUP);
    timed.filter_map(|row| row.get("perf/steps_per_sec")).map(f64::recip).collect()
}

/// Their mean.
fn mean_seconds(rows: &[MetricsRow]) -> f64 {
    let seconds = seconds_per_step(rows);
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

/// The value that so many percent of `sorted` are not above; none of no value.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

/// Trains as the configuration says; returns the rows of metrics.
fn train(config: &LaqConfig, composed: &Composed, data: &mut dyn TrainingData) -> Result<Vec<MetricsRow>> {
    let folder = tempfile::tempdir()?;
    let device = hlrp_train::select_device(config.device)?;
    hlrp_torch::rng::seed(device, config.seed)?;
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, device), config, World::single());
    let logging = hlrp_schema::LoggingConfig { run_dir: folder.path().join("run"), ..config.logging.clone() };
    let settings = Settings {
        disk: hlrp_train::disk_rules(&config.cluster, &logging),
        logging,
        training: config.training.clone(),
        validation: config.validation.shared(),
        precision: config.precision,
        world: World::single(),
        device,
        wandb: None,
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
        data: BTreeMap::new(),
        num_threads: usize::try_from(tch::get_num_threads())?,
        metrics: Vec::new(),
        repository: Path::new("."),
    };
    let run_dir = RunDir::create(&settings.logging.run_dir, &info)?;
    Trainer::new(settings, &mut task, data)?.run(&run_dir, &StopRequest::listen()?)?;
    let rows = hlrp_track::metrics::read_metrics(&run_dir.path().join(hlrp_track::metrics::FILE_NAME))?;
    run_dir.finish(hlrp_track::run::RunStatus::Finished)?;
    Ok(rows)
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
