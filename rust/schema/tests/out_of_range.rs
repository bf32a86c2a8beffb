//! Every number of every stage, set to values out of range: each is accepted, or refused with one problem that names the key.
#![allow(clippy::unwrap_used)]

mod common;

use common::our_root;
use hlrp_config::{Composed, Hint, Node, Problem, ProblemKind, Value, compose};
use hlrp_schema::{PROJECT, Stage, check};

/// Values that are out of range somewhere. NaN and infinity are text in the tree.
const VALUES: [&str; 8] = ["-1", "0", "0.5", "nan", "inf", "4611686018427387904", "1e300", "text"];
/// 2^62: products with it overflow.
const HUGE: &str = VALUES[5];

/// Numbers whose invalid values are reported for another key: one that takes its value from them, or one that must fit.
const PARTNERS: [(&str, &str); 3] = [
    ("seed", "lerobot.seed"),
    ("policy.model.flow.min_period", "policy.model.flow.max_period"),
    ("data.filter.motion.high", "data.filter.motion.low"),
];

/// Whole numbers that may be as large as 64 bits hold: nothing is multiplied with them. A step after which something begins may lie
/// after the end of the run.
const UNBOUNDED: [&str; 6] =
    ["seed", "update_after_step", "max_bad_samples", "num_val_episodes", "refresh_schedule", "warmup_steps"];

/// Sections whose fields are passed on to LeRobot, which checks them.
const PASSED_ON: [&str; 8] = [
    "lerobot.policy.",
    "lerobot.dataset.",
    "lerobot.optimizer.",
    "lerobot.scheduler.",
    "lerobot.eval.",
    "lerobot.wandb.",
    ".env_settings.",
    ".env.",
];

/// The smallest experiment of each stage.
const EXPERIMENTS: [(&str, Stage); 6] = [
    ("laq_tiny", Stage::Laq),
    ("vla_tiny", Stage::Vla),
    ("lerobot_tiny", Stage::LerobotTrain),
    ("lerobot_cotrain_tiny", Stage::LerobotTrain),
    ("rollout_tiny", Stage::LerobotRollout),
    ("pipeline_tiny", Stage::Pipeline),
];

fn composed(overrides: &[String]) -> Result<Composed, Problem> {
    let composed = compose(&PROJECT, &our_root(), "config", overrides)?;
    check(&composed).map(|()| composed)
}

/// The experiment with what only the user can provide.
fn valid(experiment: &str) -> (Vec<String>, Composed) {
    let mut overrides = vec![format!("experiment={experiment}")];
    loop {
        match composed(&overrides) {
            Ok(composed) => return (overrides, composed),
            Err(problem) if matches!(problem.kind(), ProblemKind::Unset | ProblemKind::MissingKey) => {
                overrides.push(format!("++{}=/given", problem.key().unwrap()));
            }
            Err(problem) => panic!("{experiment}: {problem}"),
        }
    }
}

/// The dotted paths of all numbers, also of those in lists, and whether each is a whole one.
fn numbers(node: &Node, path: &str, found: &mut Vec<(String, bool)>) {
    for (path, node) in node.values(path) {
        match &node.value {
            Value::Int(_) => found.push((path, true)),
            Value::Float(_) => found.push((path, false)),
            Value::List(items) => {
                items.iter().enumerate().for_each(|(index, item)| numbers(item, &format!("{path}.{index}"), found));
            }
            _ => {}
        }
    }
}

fn is_about(key: &str, number: &str) -> bool {
    let is_in = |key: &str| number == key || number.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    is_in(key) || PARTNERS.iter().any(|(set, named)| number.ends_with(set) && key.ends_with(named))
}

/// What is wrong with how `value` is treated; nothing where it is right.
fn fault(base: &[String], number: &str, is_whole: bool, value: &str) -> Option<String> {
    let overrides = [base, &[format!("++{number}={value}")]].concat();
    let is_passed_on = PASSED_ON.iter().any(|section| number.contains(section));
    let Err(problem) = composed(&overrides) else {
        let is_number = !matches!(value, "nan" | "inf" | "text");
        let is_unbounded = !is_whole || value != HUGE || UNBOUNDED.iter().any(|name| number.contains(name));
        return (!(is_passed_on || is_number && is_unbounded)).then(|| "it is accepted".to_owned());
    };
    let Some(key) = problem.key() else { return Some(format!("the problem has no key: {problem}")) };
    if !is_about(key, number) {
        return Some(format!("it is reported for another key: {problem}"));
    }
    Hint::hint(&problem).is_none_or(|hint| hint.is_empty()).then(|| format!("there is no hint: {problem}"))
}

#[test]
fn a_number_out_of_range_is_refused_with_its_key_and_a_hint() {
    let mut faults = Vec::new();
    for (experiment, stage) in EXPERIMENTS {
        let (base, valid) = valid(experiment);
        assert_eq!(Stage::of(&valid).unwrap(), stage);
        let mut found = Vec::new();
        numbers(valid.tree(), "", &mut found);
        assert!(!found.is_empty(), "{experiment} has numbers");
        for (number, is_whole) in &found {
            let treated = VALUES.iter().filter_map(|value| Some((value, fault(&base, number, *is_whole, value)?)));
            faults.extend(treated.map(|(value, fault)| format!("{experiment} {number}={value}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
