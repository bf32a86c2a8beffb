//! Descriptions of version 2: what artifacts of version 2 and checkpoints up to version 4 hold.

use serde_json::{Value, json};

/// Adds to the description of a policy (`model`, `teacher`, …) of version 2 what this version describes too. Latent actions were predicted by a
/// flow of their own, from a teacher with codes.
pub fn from_version_2(description: &mut Value) {
    let codebook_size = description["teacher"]["codebook_size"].clone();
    if let Some(latent) = description.pointer_mut("/model/latent").and_then(Value::as_object_mut) {
        latent.entry("codebook_size").or_insert(codebook_size);
    }
    if let Some(expert) = description.pointer_mut("/model/arch/expert").and_then(Value::as_object_mut) {
        expert.entry("latent_head").or_insert(json!("vector_flow"));
        expert.entry("latent_dropout").or_insert(json!(0.0));
    }
}
