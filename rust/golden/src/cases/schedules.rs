//! Learning-rate schedules.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_schema::{SchedulerConfig, SchedulerType};
use hlrp_train::Schedule;
use hlrp_vla::LerobotCosine;
use serde_json::Value;
use tch::Tensor;

/// Updates that LeRobot's schedules were recorded for.
const NUM_RECORDED: u64 = 30;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    for (name, settings) in case.config["laq"].as_object().context("config.json has no `laq`")? {
        let key = format!("laq.{name}.lr");
        let recorded = case.outputs.get(&key).with_context(|| format!("outputs.safetensors has no `{key}`"))?;
        warm_up_and_cosine(&key, settings, recorded, comparison)?;
    }
    for (name, settings) in case.config["lerobot"].as_object().context("config.json has no `lerobot`")? {
        lerobot_cosine(name, settings, comparison)?;
    }
    Ok(())
}

/// LeRobot's cosine decay with warm-up: the factor and the rate itself.
fn lerobot_cosine(name: &str, settings: &Value, comparison: &mut Comparison) -> anyhow::Result<()> {
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
        Tensor::from_slice(&(0..NUM_RECORDED).map(|num_done| schedule.multiplier(num_done)).collect::<Vec<_>>());
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
    };
    let schedule = Schedule::new(&config, number("lr"), max_steps);
    if config.kind == SchedulerType::Cosine && config.warmup_steps > max_steps {
        comparison.meant_difference(key, schedule.is_err(), "a warm-up longer than the run must be refused");
        return Ok(());
    }
    let schedule = schedule?;
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
