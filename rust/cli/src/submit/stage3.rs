//! What a stop costs in stage 3: LeRobot saves every `save_freq` steps, not when it is told to.

use anyhow::Result;
use hlrp_config::{Composed, Problem};
use hlrp_schema::{LerobotTrainConfig, RunBasics, Stage, seconds_of_time};

/// What a stop can cost, in words; none in other stages, which save when they are stopped.
pub(super) fn cost(composed: &Composed, basics: &RunBasics) -> Option<String> {
    if basics.stage != Stage::LerobotTrain {
        return None;
    }
    let config: LerobotTrainConfig = composed.extract().ok()?;
    let steps = config.lerobot.save_freq.min(config.lerobot.steps);
    let time = basics.submit.seconds_per_step.map(|seconds| {
        let minutes = seconds * steps as f64 / 60.0;
        format!(", {minutes:.0} minutes")
    });
    let unknown = || "; set submit.seconds_per_step to compare it with the time limit".to_owned();
    let advice = if time.is_none() { unknown() } else { String::new() };
    Some(format!("a stop costs up to {steps} steps{} (lerobot.save_freq){advice}", time.unwrap_or_default()))
}

/// Refuses a training that its time limit would stop before its first save.
///
/// # Errors
/// `lerobot.save_freq` comes too late.
pub(super) fn check(composed: &Composed, basics: &RunBasics) -> Result<()> {
    let limit = basics.cluster.compute.time_limit.as_deref().filter(|_| basics.cluster.slurm.enabled);
    let (Stage::LerobotTrain, Some(limit), Some(seconds)) = (basics.stage, limit, basics.submit.seconds_per_step)
    else {
        return Ok(());
    };
    let config: LerobotTrainConfig = composed.extract()?;
    let steps = config.lerobot.save_freq.min(config.lerobot.steps);
    let needed = seconds * steps as f64;
    if needed < seconds_of_time(limit).unwrap_or(u64::MAX) as f64 {
        return Ok(());
    }
    let message =
        format!("{} steps of {seconds} s take longer than the time limit {limit}: a job would never save", steps);
    let hint = "lower lerobot.save_freq or raise cluster.compute.time_limit";
    Err(composed.locate(Problem::new("lerobot.save_freq", message, hint)).into())
}
