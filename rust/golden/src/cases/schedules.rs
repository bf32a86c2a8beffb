//! Learning-rate schedules.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_schema::{LrScale, SchedulerConfig, SchedulerType};
use hlrp_train::Schedule;
use serde_json::Value;
use std::f64::consts::PI;
use tch::Tensor;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    for (name, settings) in case.config["laq"].as_object().context("config.json has no `laq`")? {
        let key = format!("laq.{name}.lr");
        let recorded = case.outputs.get(&key).with_context(|| format!("outputs.safetensors has no `{key}`"))?;
        warm_up_and_cosine(&key, settings, recorded, comparison)?;
    }
    for (name, settings) in case.config["lerobot"].as_object().context("config.json has no `lerobot`")? {
        let key = format!("lerobot.{name}.multiplier");
        let recorded = case.outputs.get(&key).with_context(|| format!("outputs.safetensors has no `{key}`"))?;
        lerobot_cosine(name, settings, recorded.size()[0].unsigned_abs(), comparison)?;
    }
    Ok(())
}

/// LeRobot's cosine decay with warm-up: the factor and the rate itself.
fn lerobot_cosine(name: &str, settings: &Value, num_recorded: u64, comparison: &mut Comparison) -> anyhow::Result<()> {
    let steps = |key: &str| settings[key].as_u64().with_context(|| format!("schedule `{name}` has no {key}"));
    let rate = |key: &str| settings[key].as_f64().with_context(|| format!("schedule `{name}` has no {key}"));
    let (peak_lr, num_training_steps) = (rate("peak_lr")?, steps("num_training_steps")?);
    let schedule = LerobotCosine::new(
        steps("num_warmup_steps")?,
        steps("num_decay_steps")?,
        peak_lr,
        rate("decay_lr")?,
        num_training_steps,
    );
    let multipliers =
        Tensor::from_slice(&(0..num_recorded).map(|num_done| schedule.multiplier(num_done)).collect::<Vec<_>>());
    comparison.check(&format!("lerobot.{name}.multiplier"), &multipliers, Tolerance::Formula);
    comparison.check(&format!("lerobot.{name}.lr"), &(multipliers * peak_lr), Tolerance::Formula);
    Ok(())
}

/// Two meant differences: a warm-up longer than the run is refused, and after the end the rate stays at its minimum.
fn warm_up_and_cosine(
    key: &str,
    settings: &Value,
    recorded: &Tensor,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let number = |name: &str| settings[name].as_f64().unwrap_or(0.0);
    let max_steps = settings["max_steps"].as_u64().context("a schedule has no max_steps")?;
    let min_lr = number("min_lr");
    let config = SchedulerConfig {
        kind: if settings["type"] == "cosine" { SchedulerType::Cosine } else { SchedulerType::None },
        warmup_steps: settings["warmup_steps"].as_u64().unwrap_or(0),
        // The reference takes the minimum for a start of 0.
        warmup_start_lr: if number("warmup_start_lr") == 0.0 { min_lr } else { number("warmup_start_lr") },
        min_lr,
        lr_base_size: None,
        lr_base_scale: LrScale::Sqrt,
    };
    if config.kind == SchedulerType::Cosine && config.warmup_steps > max_steps {
        let checked = config.check(max_steps, number("lr"));
        comparison.meant_difference(key, checked.is_err(), "a warm-up longer than the run must be refused");
        return Ok(());
    }
    let schedule = Schedule::new(&config, number("lr"), max_steps);
    let num_recorded = recorded.size()[0];
    let num_comparable = if config.kind == SchedulerType::Cosine {
        num_recorded.min(i64::try_from(max_steps)? + 1)
    } else {
        num_recorded
    };
    let ours: Vec<f64> = (0..num_recorded.unsigned_abs()).map(|num_done| schedule.lr(num_done)).collect();
    let ours = Tensor::from_slice(&ours);
    comparison.check_part(
        key,
        &ours.narrow(0, 0, num_comparable),
        &recorded.narrow(0, 0, num_comparable),
        Tolerance::Formula,
    );
    let after_end = ours.narrow(0, num_comparable, num_recorded - num_comparable);
    let stays = config.kind == SchedulerType::None || bool::try_from(after_end.eq(min_lr).all())?;
    comparison.meant_difference(key, stays, "the rate must stay at its minimum after the end");
    Ok(())
}

/// LeRobot's learning-rate schedule for SmolVLA: cosine decay with warm-up, as its preset of that name computes it.
///
/// The cosine counts from step 0, not from the end of the warm-up, so the peak itself is reached only without a warm-up.
/// A run shorter than the decay shrinks warm-up and decay in proportion.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LerobotCosine {
    num_warmup_steps: u64,
    num_decay_steps: u64,
    end_ratio: f64,
}

impl LerobotCosine {
    /// The schedule of a run of `num_training_steps`; rates in units of each other.
    fn new(num_warmup_steps: u64, num_decay_steps: u64, peak_lr: f64, decay_lr: f64, num_training_steps: u64) -> Self {
        let end_ratio = decay_lr / peak_lr;
        if num_training_steps >= num_decay_steps {
            return Self { num_warmup_steps, num_decay_steps, end_ratio };
        }
        let shrink = num_training_steps as f64 / num_decay_steps as f64;
        Self {
            num_warmup_steps: (num_warmup_steps as f64 * shrink) as u64,
            num_decay_steps: num_training_steps,
            end_ratio,
        }
    }

    /// Factor on the peak rate for the update that follows `num_done` finished updates.
    fn multiplier(&self, num_done: u64) -> f64 {
        if num_done < self.num_warmup_steps {
            let first = 1.0 / (self.num_warmup_steps + 1) as f64;
            let remaining = 1.0 - num_done as f64 / self.num_warmup_steps as f64;
            return (first - 1.0) * remaining + 1.0;
        }
        let progress = num_done.min(self.num_decay_steps) as f64 / self.num_decay_steps as f64;
        let cosine = 0.5 * (1.0 + (PI * progress).cos());
        (1.0 - self.end_ratio) * cosine + self.end_ratio
    }
}
