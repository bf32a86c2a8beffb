//! What older versions wrote into checkpoints is still read.
#![allow(clippy::unwrap_used)] // a test may panic

use hlrp_config::Check;
use hlrp_schema::TaskDescription;
use serde_json::{Value, json};

/// The task of a checkpoint of format version 1 whose quantizer and decoders had their keys directly under `model`.
const LAQ_V1: &str = include_str!("old/laq_checkpoint_v1.json");

#[test]
fn a_checkpoint_of_stage_1_with_flat_keys_is_migrated() {
    let old: Value = serde_json::from_str(LAQ_V1).unwrap();
    let task = TaskDescription::read(old, true, None).unwrap();
    let TaskDescription::Laq(description) = &task else { panic!("{task:?}") };
    description.model.check().unwrap();
    let task = serde_json::to_value(&task).unwrap();
    let model = &task["model"];
    assert_eq!(
        model["quantizer"],
        json!({
            "code_dim": 8, "codebook_size": 8, "code_seq_len": 4, "usage_decay": 0.98, "collapse_perplexity": 0.2,
            "normalization": "none", "normalization_decay": 0.95, "unquantized_steps": 0, "kmeans_start": false,
            "grid_width": null, "slot_embedding": false,
            "nsvq": {"discarding_threshold": 0.1, "refresh_schedule": [[10, 100], [50, 400]]},
        })
    );
    assert_eq!(
        model["decoders"]["aux"],
        json!({
            "enabled": true, "depth": 1, "loss_weight": 1.0, "warmup_steps": 0, "motion_weight": 0.0,
            "motion_threshold": null, "from_latent_only": false, "detached": true,
        })
    );
    assert_eq!((&model["encoder"], &model["decoder_network"]), (&json!({}), &json!("transformer")));
}
