//! The numbers in what `lerobot-train` logs, as rows of `metrics.jsonl`.

use hlrp_track::metrics::{Curve, MetricSpec};
use hlrp_track::run::RunStatus;
use hlrp_track::sinks::Sinks;

/// LeRobot's short names and ours; other numbers come from the policy and keep their names below `train/`.
const NAMES: [(&str, &str); 6] = [
    ("grdn", "train/grad_norm"),
    ("epch", "train/epoch"),
    ("updt_s", "time/update"),
    ("data_s", "time/data_wait"),
    ("smp/s", "perf/samples_per_sec"),
    ("mem_gb", "perf/gpu_memory_gb"),
];
/// Rounded counts; the step is exact.
const LEFT_OUT: [&str; 3] = ["step", "smpl", "ep"];
/// LeRobot's line about its run on W&B, before the address.
const TRACKED: &str = "Track this run --> ";
/// What every report has.
const LOSS: &str = "train/loss";

/// The metrics of a training that tables and plots show.
pub(super) fn metrics() -> Vec<MetricSpec> {
    let losses = Curve::new("loss.png", "Loss of the policy", "loss").log();
    vec![
        MetricSpec::new(LOSS, "training loss").lower_is_better().drawn_in(&losses),
        MetricSpec::new("val/loss", "held-out loss").lower_is_better().drawn_in(&losses),
        MetricSpec::new("perf/samples_per_sec", "samples/s").higher_is_better(),
    ]
}

/// Writes a row for each line in which LeRobot reports its training.
pub(super) struct TrainingLog {
    /// None after the end.
    sinks: Option<Sinks>,
    log_freq: u64,
    /// Step of the newest report. LeRobot abbreviates its own number (`2K`), so it is counted.
    step: u64,
    /// Page of LeRobot's own run on W&B.
    page: Option<String>,
}

impl TrainingLog {
    /// Rows for a training that continues after `start` steps (0 = from the beginning) and reports every `log_freq`.
    pub(super) fn new(sinks: Sinks, start: u64, log_freq: u64) -> Self {
        Self { sinks: Some(sinks), log_freq, step: start / log_freq * log_freq, page: None }
    }

    /// Waits until every row is recorded, and how the run ended.
    ///
    /// # Errors
    /// A row that cannot be written.
    pub(super) fn finish(&mut self, status: RunStatus) -> hlrp_track::Result<()> {
        self.sinks.take().map_or(Ok(()), |sinks| sinks.finish(status))
    }

    /// Page of LeRobot's own run on W&B, where it has one.
    pub(super) fn page(&self) -> Option<&str> {
        self.page.as_deref()
    }

    /// Reads a line of LeRobot's output.
    pub(super) fn read(&mut self, line: &str) {
        self.page = address(line).or(self.page.take());
        let row = if let Some(values) = report(line) {
            self.step += self.log_freq;
            Some((self.step, values))
        } else {
            held_out(line).map(|(step, loss)| (step, vec![("val/loss".to_owned(), loss)]))
        };
        if let (Some((step, values)), Some(sinks)) = (row, &mut self.sinks)
            && let Err(error) = sinks.scalars(step, values)
        {
            tracing::warn!("{error}");
        }
    }
}

/// The values in `… step:2K smpl:8K ep:1 epch:0.31 loss:0.123 grdn:1.000 lr:1.0e-04 …`.
fn report(line: &str) -> Option<Vec<(String, f64)>> {
    let words = line.split_whitespace().skip_while(|word| !word.starts_with("step:"));
    let values: Vec<_> = words.filter_map(value).collect();
    values.iter().any(|(name, _)| name == LOSS).then_some(values)
}

/// The address in `… Track this run --> https://…`, without the codes that colour it on a terminal.
fn address(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(TRACKED)?;
    let start = rest.find("http")?;
    Some(rest[start..].chars().take_while(|char| !char.is_whitespace() && !char.is_control()).collect())
}

fn value(word: &str) -> Option<(String, f64)> {
    let (short, value) = word.split_once(':').filter(|(short, _)| !LEFT_OUT.contains(short))?;
    let known = NAMES.into_iter().find(|(known, _)| *known == short);
    Some((known.map_or_else(|| format!("train/{short}"), |(_, name)| name.to_owned()), value.parse().ok()?))
}

/// The loss on held-out episodes in `… step 40: eval_loss=0.1234`.
fn held_out(line: &str) -> Option<(u64, f64)> {
    let (head, loss) = line.split_once(": eval_loss=")?;
    Some((head.rsplit(' ').next()?.parse().ok()?, loss.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hlrp_track::metrics::{FILE_NAME, read_metrics, series};
    use hlrp_track::sinks::SinkSetup;

    #[test]
    fn reports_become_rows_with_counted_steps() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let setup = SinkSetup::new(dir.path(), 0, 1100);
        let mut log = TrainingLog::new(Sinks::open(&setup, &false)?, 950, 100);
        for line in [
            "INFO 2026-01-31 12:00:00 n_train.py:641 step:1K smpl:8K ep:12 epch:0.31 loss:0.125 grdn:2.500 lr:1.0e-04 updt_s:0.2 l1_loss:0.9",
            "INFO 2026-01-31 12:00:00 n_train.py:687 Checkpoint policy after step 1000",
            "INFO 2026-01-31 12:00:00 n_train.py:673 step 1050: eval_loss=0.5000",
            "INFO 2026-01-31 12:00:00 n_train.py:641 step:1K smpl:9K ep:13 epch:0.33 loss:nan grdn:2.500 lr:1.0e-04 updt_s:0.2",
        ] {
            log.read(line);
        }
        log.finish(RunStatus::Finished)?;
        let rows = read_metrics(&dir.path().join(FILE_NAME))?;
        assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1000, 1050, 1100]);
        assert_eq!(series(&rows, "train/loss")[0], (1000, 0.125));
        assert_eq!(rows[0].get("train/lr"), Some(1e-4));
        assert_eq!((rows[0].get("train/l1_loss"), rows[0].get("train/smpl")), (Some(0.9), None));
        assert_eq!(rows[1].get("val/loss"), Some(0.5));
        assert_eq!(log.page(), None);
        log.read(
            "INFO wandb_utils.py:110 Track this run --> \u{1b}[1m\u{1b}[33mhttps://wandb.example/me/p/runs/a1\u{1b}[0m",
        );
        log.read("INFO another line");
        assert_eq!(log.page(), Some("https://wandb.example/me/p/runs/a1"));
        Ok(())
    }
}
