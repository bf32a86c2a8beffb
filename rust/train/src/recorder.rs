//! What a running training tells: `metrics.jsonl`, log lines, progress.

use crate::{Result, timers::Spans};
use hlrp_track::{
    RunDir,
    console::{Progress, format_value},
    metrics::MetricsWriter,
};
use std::collections::BTreeMap;
use tch::Device;

const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;

/// Writes metrics and shows progress.
pub(crate) struct Recorder {
    metrics: MetricsWriter,
    progress: Option<Progress>,
    last_validation: Option<BTreeMap<String, f64>>,
}

impl Recorder {
    /// Opens the metrics of a run that starts or continues after `step`.
    pub(crate) fn open(run: &RunDir, step: u64, max_steps: u64) -> Result<Self> {
        let metrics = match step {
            0 => MetricsWriter::create(run.path())?,
            _ => MetricsWriter::resume(run.path(), step)?,
        };
        Ok(Self { metrics, progress: Some(Progress::new(max_steps, step)), last_validation: None })
    }

    /// A step is done.
    pub(crate) fn advance(&self, step: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(step);
        }
    }

    /// Records the numbers of a training step and where the time since the last record went.
    pub(crate) fn training(
        &mut self,
        step: u64,
        mut values: Vec<(String, f64)>,
        spans: &Spans,
        device: Device,
    ) -> Result<()> {
        let of = |name: &str| values.iter().find(|(known, _)| known == name).map_or(f64::NAN, |(_, value)| *value);
        let bottleneck = format!("bottleneck {}, data wait", spans.bottleneck());
        let shown = [
            ("loss", of("train/loss")),
            ("lr", of("train/lr")),
            ("grad norm", of("train/grad_norm")),
            ("samples/s", spans.samples_per_sec()),
            (bottleneck.as_str(), spans.data_wait_share()),
        ];
        if let Some(progress) = &mut self.progress {
            progress.set(step, &shown);
        }
        values.extend(spans.metrics());
        if let Some(bytes) = hlrp_torch::memory::peak(device) {
            values.push(("perf/peak_memory_gib".to_owned(), bytes as f64 / BYTES_PER_GIB));
        }
        Ok(self.metrics.write(step, values)?)
    }

    /// Records the metrics of a validation.
    pub(crate) fn validation(&mut self, step: u64, metrics: BTreeMap<String, f64>) -> Result<()> {
        let shown: Vec<String> =
            metrics.iter().map(|(name, value)| format!("{name}={}", format_value(name, *value))).collect();
        tracing::info!("[Validation] step={step}, {}", shown.join(", "));
        self.metrics.write(step, metrics.iter().map(|(name, value)| (name, *value)))?;
        self.last_validation = Some(metrics);
        Ok(())
    }

    /// Metrics of the newest validation.
    pub(crate) fn last_validation(&self) -> Option<BTreeMap<String, f64>> {
        self.last_validation.clone()
    }

    /// Brings all metrics to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.metrics.sync()?)
    }

    /// Removes the progress bar.
    pub(crate) fn finish(&mut self) {
        self.progress = None;
    }
}
