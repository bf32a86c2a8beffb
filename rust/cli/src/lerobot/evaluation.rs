//! Results of `lerobot-eval`: successes of each task with their uncertainty, and the videos.

use anyhow::{Context, Result};
use hlrp_config::foreign::read_text;
use hlrp_track::{
    fs::{write_atomic, write_json},
    metrics::MetricSpec,
    table::ResultTable,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The results in a run directory.
pub(crate) const RESULTS: &str = "rollouts.json";
/// The same as a table.
const TABLE: &str = "rollouts.md";
/// LeRobot's file.
const EVAL_INFO: &str = "eval_info.json";
/// Successes of all episodes, 0 to 1.
const SUCCESS_RATE: &str = "rollout/success_rate";
/// Largest reward of an episode, averaged over the episodes.
const MAX_REWARD: &str = "rollout/max_reward";
/// Episodes of all tasks.
const NUM_EPISODES: &str = "rollout/num_episodes";
/// Quantile of the normal distribution for an interval of 95 %.
const Z_95: f64 = 1.959_963_984_540_054;

/// Results of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskResult {
    /// Suite and number, as LeRobot names them.
    pub(crate) task: String,
    /// Episodes that ended in success.
    pub(crate) num_successes: u64,
    /// Episodes.
    pub(crate) num_episodes: u64,
    /// Bounds of the success rate, 0 to 1: Wilson's score interval at 95 %.
    pub(crate) interval: [f64; 2],
    /// Largest reward of an episode, averaged over the episodes.
    pub(crate) mean_max_reward: f64,
    /// Videos of some of the episodes.
    pub(crate) videos: Vec<PathBuf>,
}

impl TaskResult {
    fn new(task: String, successes: &[bool], max_rewards: &[f64], videos: Vec<PathBuf>) -> Self {
        let num_successes = successes.iter().filter(|success| **success).count() as u64;
        let num_episodes = successes.len() as u64;
        let mean_max_reward = max_rewards.iter().sum::<f64>() / max_rewards.len().max(1) as f64;
        Self {
            task,
            num_successes,
            num_episodes,
            interval: wilson(num_successes, num_episodes),
            mean_max_reward,
            videos,
        }
    }

    /// `4 of 10`
    pub(crate) fn count(&self) -> String {
        format!("{} of {}", self.num_successes, self.num_episodes)
    }

    /// `17 – 69 %`
    pub(crate) fn interval_text(&self) -> String {
        format!("{:.0} – {:.0} %", 100.0 * self.interval[0], 100.0 * self.interval[1])
    }
}

/// Wilson's score interval at 95 % for `successes` of `total` (Wilson, 1927): unlike the normal approximation it is informative at 0
/// and at `total`.
fn wilson(successes: u64, total: u64) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let (n, p, z2) = (total as f64, successes as f64 / total as f64, Z_95 * Z_95);
    let centre = p + z2 / (2.0 * n);
    let width = Z_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    [((centre - width) / scale).clamp(0.0, 1.0), ((centre + width) / scale).clamp(0.0, 1.0)]
}

#[derive(Deserialize)]
struct EvalInfo {
    per_task: Vec<TaskInfo>,
}

#[derive(Deserialize)]
struct TaskInfo {
    task_group: String,
    task_id: u64,
    metrics: TaskMetrics,
}

#[derive(Deserialize)]
struct TaskMetrics {
    successes: Vec<bool>,
    max_rewards: Vec<f64>,
    video_paths: Option<Vec<PathBuf>>, // nothing when LeRobot records a dataset in their place
}

/// Reads what LeRobot wrote into its output folder, with a sum over all tasks if there are several.
///
/// # Errors
/// The file is missing or of another form.
pub(super) fn read_eval_info(output_dir: &Path) -> Result<Vec<TaskResult>> {
    let path = output_dir.join(EVAL_INFO);
    let text = read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let info: EvalInfo = serde_json::from_str(&text)
        .with_context(|| format!("{} does not have the form that LeRobot 0.6 writes", path.display()))?;
    let results = info.per_task.iter().map(|task| {
        let name = format!("{}/{}", task.task_group, task.task_id);
        let metrics = &task.metrics;
        TaskResult::new(name, &metrics.successes, &metrics.max_rewards, metrics.video_paths.clone().unwrap_or_default())
    });
    let mut results: Vec<_> = results.collect();
    if results.len() > 1 {
        let all = |pick: fn(&TaskMetrics) -> &[bool]| info.per_task.iter().flat_map(move |task| pick(&task.metrics));
        let successes: Vec<bool> = all(|metrics| &metrics.successes).copied().collect();
        let rewards: Vec<f64> =
            info.per_task.iter().flat_map(|task| task.metrics.max_rewards.iter().copied()).collect();
        results.push(TaskResult::new("all tasks".to_owned(), &successes, &rewards, Vec::new()));
    }
    Ok(results)
}

/// The metrics of a rollout that tables show.
pub(super) fn metrics() -> Vec<MetricSpec> {
    vec![
        MetricSpec::new(SUCCESS_RATE, "success rate").higher_is_better(),
        MetricSpec::new(MAX_REWARD, "largest reward, mean").higher_is_better(),
        MetricSpec::new(NUM_EPISODES, "episodes"),
    ]
}

/// The results as a row of `metrics.jsonl`: those of all tasks together and, where there are several, of each.
pub(super) fn scalars(results: &[TaskResult]) -> Vec<(String, f64)> {
    let Some((all, tasks)) = results.split_last() else { return Vec::new() };
    let rate = |result: &TaskResult| result.num_successes as f64 / (result.num_episodes as f64).max(1.0);
    let together =
        [(SUCCESS_RATE, rate(all)), (MAX_REWARD, all.mean_max_reward), (NUM_EPISODES, all.num_episodes as f64)];
    let of_tasks = tasks.iter().flat_map(|task| {
        let name = |metric: &str| metric.replace("rollout/", &format!("rollout/{}/", task.task));
        [(name(SUCCESS_RATE), rate(task)), (name(MAX_REWARD), task.mean_max_reward)]
    });
    together.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(of_tasks).collect()
}

/// Keeps the results in a run directory, as JSON and as a table.
///
/// # Errors
/// The files cannot be written.
pub(super) fn write_results(run_dir: &Path, results: &[TaskResult]) -> Result<()> {
    write_json(&run_dir.join(RESULTS), results)?;
    write_atomic(&run_dir.join(TABLE), table(results).to_markdown() + "\n")?;
    Ok(())
}

/// Reads back what [`write_results`] kept.
///
/// # Errors
/// The file is missing or damaged.
pub(crate) fn read_results(run_dir: &Path) -> Result<Vec<TaskResult>> {
    let path = run_dir.join(RESULTS);
    let text = read_text(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// One row for each task.
pub(super) fn table(results: &[TaskResult]) -> ResultTable {
    let empty = ResultTable::new(["task", "successes", "95 % interval", "mean of the largest reward", "first video"]);
    results.iter().fold(empty, |table, result| {
        let video = result.videos.first().map(|path| path.display().to_string()).unwrap_or_default();
        let reward = format!("{:.3}", result.mean_max_reward);
        table.row([result.task.clone(), result.count(), result.interval_text(), reward, video])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // Brown, Cai, DasGupta (2001) and R's binom::binom.confint(method = "wilson").
        for ((successes, total), bounds) in [
            ((0, 10), [0.0, 0.277_532_8]),
            ((5, 10), [0.236_593_1, 0.763_406_9]),
            ((10, 10), [0.722_467_2, 1.0]),
            ((0, 0), [0.0, 1.0]),
        ] {
            let found = wilson(successes, total);
            assert!((found[0] - bounds[0]).abs() < 1e-6 && (found[1] - bounds[1]).abs() < 1e-6, "{found:?}");
        }
    }
}
