//! What older versions wrote into checkpoints is still read.
#![allow(clippy::unwrap_used)] // a test may panic

use hlrp_config::Check;
use hlrp_schema::{Stage, TaskDescription, migrate};
use serde_json::{Value, json};

/// The task of a checkpoint of format version 1 whose quantizer and decoders had their keys directly under `model`.
const LAQ_V1: &str = include_str!("old/laq_checkpoint_v1.json");

#[test]
fn a_checkpoint_of_stage_1_with_flat_keys_is_migrated() {
    let mut task: Value = serde_json::from_str(LAQ_V1).unwrap();
    assert!(!migrate(Stage::Laq, &mut task).is_empty());
    let model = &task["model"];
    assert_eq!(
        model["quantizer"],
        json!({
            "code_dim": 8, "codebook_size": 8, "code_seq_len": 4, "usage_decay": 0.98, "collapse_perplexity": 0.2,
            "nsvq": {"discarding_threshold": 0.1, "refresh_schedule": [[10, 100], [50, 400]]},
        })
    );
    assert_eq!(model["decoders"]["aux"], json!({"enabled": true, "depth": 1, "loss_weight": 1.0, "warmup_steps": 0}));
    let TaskDescription::Laq(description) = serde_json::from_value(task.clone()).unwrap() else { panic!("{task}") };
    description.model.check().unwrap();
    assert_eq!(serde_json::to_value(TaskDescription::Laq(description)).unwrap(), task);
}
