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

/// Values that are invalid only together with another key, which is the one that is named.
const PARTNERS: [(&str, &str); 7] = [
    ("training.max_steps", "training.scheduler.warmup_steps"),
    ("num_layers", "num_layers"),
    ("hidden_size", "num_attention_heads"),
    ("hidden_size", "width_multiplier"),
    ("num_attention_heads", "num_key_value_heads"),
    ("vocab_size", "image_token_id"),
    ("min_period", "max_period"),
];

/// Whole numbers that may be as large as 64 bits hold: nothing is multiplied with them. A step after which something begins may lie
/// after the end of the run.
const UNBOUNDED: [&str; 7] = [
    "seed",
    "update_after_step",
    "max_bad_samples",
    "num_val_episodes",
    "codebook_replace_schedule",
    "warmup_steps",
    "save_freq",
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

#[test]
fn a_number_out_of_range_is_refused_with_its_key_and_a_hint() {
    for (experiment, stage) in EXPERIMENTS {
        let (base, valid) = valid(experiment);
        assert_eq!(Stage::of(&valid).unwrap(), stage);
        let mut found = Vec::new();
        numbers(valid.tree(), "", &mut found);
        assert!(found.len() > 5, "{experiment} has numbers");
        for (number, is_whole) in found {
            // Fields that are passed on to LeRobot are for LeRobot to check.
            let is_passed_on = ["policy", "dataset", "env_settings", "eval", "optimizer", "scheduler", "wandb", "env"]
                .iter()
                .any(|section| {
                    number.contains(&format!("lerobot.{section}."))
                        || number.contains(&format!("lerobot_eval.{section}."))
                });
            for value in VALUES {
                let overrides = [base.as_slice(), &[format!("++{number}={value}")]].concat();
                let refused = match composed(&overrides) {
                    Ok(_) => false,
                    Err(problem) => {
                        let key = problem.key().unwrap_or_else(|| panic!("{number}={value}: no key in: {problem}"));
                        assert!(
                            is_about(key, &number),
                            "{experiment}: {number}={value} is reported for {key}: {problem}"
                        );
                        let hint = Hint::hint(&problem).unwrap_or_default();
                        assert!(!hint.is_empty(), "{experiment}: {number}={value}: no hint for: {problem}");
                        true
                    }
                };
                let is_number = !matches!(value, "nan" | "inf" | "text");
                assert!(refused || is_number || is_passed_on, "{experiment}: {number}={value} is accepted");
                let is_unbounded = UNBOUNDED.iter().any(|name| number.contains(name));
                let is_large = is_whole && value == HUGE && !is_unbounded && !is_passed_on;
                assert!(refused || !is_large, "{experiment}: {number}={value} is accepted");
            }
        }
    }
}
