//! Time of one training step with its data and without: the same engine and model, fed by the loader or by one batch again and again.
//!
//! `bench_step [--steps N] [OVERRIDE…]` prints one JSON object, and the log of the engine on standard error; the overrides are those of
//! `hlrp train-laq`.
#![allow(clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::{Context, Result, bail};
use clap::Parser;
use hlrp_config::Composed;
use hlrp_data::{Batch, Position};
use hlrp_laq::{LaqModel, LaqTask, Parts, open_pairs};
use hlrp_schema::{ConfigArgs, LaqConfig, TrainingRun};
use hlrp_torch::count::{OperatorCounts, count};
use hlrp_torch::profile::{KernelTime, profile};
use hlrp_torch::{HostToDevice, World, cuda};
use hlrp_track::{RunDir, console, metrics::MetricsRow, run::RunInfo};
use hlrp_train::{
    BatchStream, DeviceBatch, LoaderData, Optimizer, Settings, SourceRecord, StopRequest, Task, TrainError, Trainer,
    TrainingData, ValidationBatches, autocast, norm_and_clip, select_device,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Steps that warm up libtorch and the loader, and steps between two records of time.
const NUM_WARMUP: u64 = 5;
/// Metric with the fraction of the time in which the training thread waits for data.
const WAIT_FRACTION: &str = "perf/data_wait_fraction";

#[derive(Parser)]
struct Args {
    /// Steps that are timed, a multiple of five.
    #[arg(long, default_value_t = 25)]
    steps: u64,
    /// Also the distribution of the times of steps without data: each of them then waits for the device.
    #[arg(long)]
    percentiles: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> Result<()> {
    let mut arguments = Args::parse();
    let num_steps = NUM_WARMUP + arguments.steps;
    arguments.config.overrides.extend([
        // The data ends before: no step is the last, which would be validated and saved.
        format!("training.max_steps={}", num_steps + 1),
        "training.scheduler.warmup_steps=1".into(),
        "training.checkpoint.every_n_steps=1000000".into(),
        "validation.check_interval=1000000".into(),
        "logging.min_free_gb=0.1".into(),
    ]);
    let logging_every = |num_steps: u64| -> Result<(Composed, LaqConfig)> {
        let mut config = arguments.config.clone();
        config.overrides.push(format!("training.log_every_n_steps={num_steps}"));
        let composed = config.compose()?;
        let config = composed.extract()?;
        Ok((composed, config))
    };
    let (composed, config) = logging_every(NUM_WARMUP)?;
    console::init(config.logging.level.into(), 0)?;
    let device = select_device(config.device)?;
    hlrp_torch::rng::seed(device, config.seed)?;
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, device), &config, World::single());
    let repeating_step = (1..10_000)
        .find(|step| task.repeats(*step))
        .context("no step below 10,000 repeats: see the refresh schedule and the warm-up steps")?;
    let data = open_pairs(&config, None, &|_, _, _, _| {})?;
    let num_batches = num_steps * config.training.gradient.accumulate_steps;
    let mut data = LimitedData { data, repeated: None, num_batches };
    let rows = train(&config, &composed, &mut task, &mut data)?;
    let (with_data, wait_fraction) = (mean(&seconds_per_step(&rows)), last(&rows, WAIT_FRACTION));
    let batch = data.data.train(Position::default(), &World::single())?.next_batch()?;
    data.repeated = Some(batch.clone());
    let (composed, config) = logging_every(if arguments.percentiles { 1 } else { NUM_WARMUP })?;
    let mut seconds = seconds_per_step(&train(&config, &composed, &mut task, &mut data)?);
    seconds.sort_by(f64::total_cmp);
    let percentile_ms =
        |percent| arguments.percentiles.then(|| percentile(&seconds, percent)).flatten().map(|seconds| 1e3 * seconds);
    let peak = hlrp_torch::memory::peak(device).unwrap_or(0);
    let (counts, kernels) = observe(&config, &mut task, batch, repeating_step)?;
    let batch_size = config.data.loader.batch_size;
    println!(
        "{}",
        json!({
            "experiment": config.experiment.name,
            "batch_size": batch_size,
            "step_ms": 1e3 * with_data,
            "step_without_data_ms": 1e3 * mean(&seconds),
            "step_p50_ms": percentile_ms(50),
            "step_p99_ms": percentile_ms(99),
            "data_wait_fraction": wait_fraction,
            "pairs_per_s": batch_size as f64 / with_data,
            "peak_gb": peak as f64 / 1e9,
            "flops": counts.flops,
            "operators": counts.operators,
            "host_waits": counts.host_waits,
            "kernels": seconds_of(&kernels),
        })
    );
    Ok(())
}

/// What one step over `batch` asks for, and what a GPU executes for it: a step like most others, not recorded as a CUDA graph. The profiler
/// runs once, because a later session of a process may see no kernels.
fn observe(
    config: &LaqConfig,
    task: &mut LaqTask,
    batch: Batch,
    number: u64,
) -> Result<(OperatorCounts, Vec<KernelTime>)> {
    let device = select_device(config.device)?;
    let batch = DeviceBatch::from_host(batch, &HostToDevice::new(device)?)?;
    let optimizer = Optimizer::new(&task.parameters(), &config.training.optimizer)?;
    let gradient = &config.training.gradient;
    let mut step = || -> Result<()> {
        optimizer.clear_gradients()?;
        for _ in 0..gradient.accumulate_steps {
            let output = {
                let _autocast = autocast(config.precision, device)?;
                task.loss(&batch, number)?
            };
            output.loss.f_div_scalar(gradient.accumulate_steps as f64)?.f_backward()?;
        }
        let _norm = norm_and_clip(&optimizer.gradients(), gradient.clip_norm, device)?;
        optimizer.step(config.training.optimizer.lr)?;
        Ok(cuda::synchronize(device)?)
    };
    let ((), counts) = count(&mut step)?;
    let ((), kernels) = profile(&mut step)?;
    Ok((counts, kernels))
}

/// Name, executions and seconds of each kernel.
fn seconds_of(kernels: &[KernelTime]) -> Vec<Value> {
    kernels.iter().map(|kernel| json!([kernel.name, kernel.calls, kernel.time.as_secs_f64()])).collect()
}

/// The newest value of a metric.
fn last(rows: &[MetricsRow], metric: &str) -> Option<f64> {
    rows.iter().rev().find_map(|row| row.get(metric))
}

/// Seconds of a step after the warm-up, from each of the engine's own records.
fn seconds_per_step(rows: &[MetricsRow]) -> Vec<f64> {
    let timed = rows.iter().filter(|row| row.step > NUM_WARMUP);
    timed.filter_map(|row| row.get("perf/steps_per_sec")).map(f64::recip).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The value that so many percent of `sorted` are not above; none of no value.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

/// Trains until `data` ends; returns the rows of metrics. Nothing is validated or saved.
fn train(
    config: &LaqConfig,
    composed: &Composed,
    task: &mut LaqTask,
    data: &mut LimitedData,
) -> Result<Vec<MetricsRow>> {
    let folder = tempfile::tempdir()?;
    let (run_dir, device) = (folder.path().join("run"), select_device(config.device)?);
    let settings = Settings::new(&config.run(), composed.clone(), &run_dir, device, World::single());
    let yaml = composed.to_yaml();
    let info = RunInfo::new("bench_step", &config.experiment.name, &yaml);
    let run_dir = RunDir::create(&settings.logging.run_dir, &info)?;
    let outcome = Trainer::new(settings, task, data)?.run(&run_dir, &StopRequest::listen()?);
    match outcome {
        Err(TrainError::Data(error)) if error.is::<OutOfBatches>() => {}
        other => {
            other?;
            bail!("the training ended before its data");
        }
    }
    let rows = hlrp_track::metrics::read_metrics(&run_dir.path().join(hlrp_track::metrics::FILE_NAME))?;
    run_dir.finish(hlrp_track::run::RunStatus::Finished)?;
    Ok(rows)
}

/// The end of [`LimitedData`]. A training that ends with an error writes no checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("all batches are used up")]
struct OutOfBatches;

/// Data that ends.
struct LimitedData {
    data: LoaderData,
    /// This batch again and again, which costs nothing, in the place of the data.
    repeated: Option<Batch>,
    num_batches: u64,
}

impl TrainingData for LimitedData {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        self.data.sources()
    }

    fn train(&mut self, position: Position, world: &World) -> Result<Box<dyn BatchStream>> {
        let stream: Box<dyn BatchStream> = match &self.repeated {
            Some(batch) => Box::new(OneBatch(batch.clone())),
            None => self.data.train(position, world)?,
        };
        Ok(Box::new(LimitedStream { stream, num_left: self.num_batches }))
    }

    fn validation(&mut self, limit_batches: Option<usize>, world: &World) -> Result<ValidationBatches> {
        self.data.validation(limit_batches, world)
    }
}

struct LimitedStream {
    stream: Box<dyn BatchStream>,
    num_left: u64,
}

impl BatchStream for LimitedStream {
    fn next_batch(&mut self) -> Result<Batch> {
        self.num_left = self.num_left.checked_sub(1).ok_or(OutOfBatches)?;
        self.stream.next_batch()
    }

    fn position(&self) -> Position {
        self.stream.position()
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
