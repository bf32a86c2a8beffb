//! Scalars as progress and log lines.

use super::{Sink, SinkSetup};
use crate::{
    Result,
    console::{Progress, format_value},
    run::RunStatus,
};
use serde_json::Value;

/// Fraction of the training time above which waiting for data, not computing, is called the bottleneck: with the batches prepared
/// ahead, a loader that keeps up makes nobody wait.
const DATA_BOUND_FRACTION: f64 = 0.1;

/// Scalars of a progress line, with their names in it.
const SHOWN: [(&str, &str); 4] = [
    ("train/loss", "loss"),
    ("train/lr", "lr"),
    ("train/grad_norm", "grad norm"),
    ("perf/samples_per_sec", "samples/s"),
];
/// Fraction of the training time spent waiting for data.
const DATA_WAIT: &str = "perf/data_wait_fraction";
/// Names of a validation's scalars begin with this.
const VALIDATION: &str = "val/";

/// Shows progress, a line for each logged step and one for each validation.
struct ConsoleSink {
    progress: Option<Progress>,
}

/// The sink of the run that `setup` describes, if `options` is `true`.
pub(super) fn open(setup: &SinkSetup<'_>, options: &Value) -> Result<Option<Box<dyn Sink>>> {
    let progress = || Progress::new(setup.max_steps, setup.step);
    Ok((*options == true).then(|| Box::new(ConsoleSink { progress: Some(progress()) }) as Box<dyn Sink>))
}

impl Sink for ConsoleSink {
    fn step(&mut self, step: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(step);
        }
    }

    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        if scalars.iter().any(|(name, _)| name.starts_with(VALIDATION)) {
            let shown: Vec<String> =
                scalars.iter().map(|(name, value)| format!("{name}={}", format_value(name, *value))).collect();
            tracing::info!("[Validation] step={step}, {}", shown.join(", "));
        } else if let Some(progress) = &mut self.progress {
            progress.set(step, &of_step(scalars));
        }
        Ok(())
    }

    fn finish(&mut self, _outcome: &RunStatus) -> Result<()> {
        self.progress = None;
        Ok(())
    }
}

/// The values of a progress line.
fn of_step(scalars: &[(String, f64)]) -> Vec<(&str, f64)> {
    let of = |name: &str| scalars.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let mut shown: Vec<(&str, f64)> = SHOWN.iter().filter_map(|(name, label)| Some((*label, of(name)?))).collect();
    shown.extend(of(DATA_WAIT).map(|fraction| {
        let is_data_bound = fraction > DATA_BOUND_FRACTION;
        (if is_data_bound { "bottleneck data, data wait" } else { "bottleneck compute, data wait" }, fraction)
    }));
    shown
}

#[cfg(test)]
mod tests {
    use super::of_step;

    #[test]
    fn a_progress_line_has_loss_rates_and_the_bottleneck() {
        let scalars = [("train/loss", 0.5), ("train/mse", 0.1), ("train/lr", 1e-4), ("perf/data_wait_fraction", 0.2)];
        let scalars = scalars.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(of_step(&scalars), [("loss", 0.5), ("lr", 1e-4), ("bottleneck data, data wait", 0.2)]);
    }
}
