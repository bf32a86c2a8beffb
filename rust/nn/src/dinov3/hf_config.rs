//! Reading the `config.json` that transformers saves beside a DINOv3 ViT.

use crate::NnError;
use hlrp_config::{Check, foreign::read_text};
use hlrp_schema::Dinov3Sizes;
use serde_json::Value;
use std::path::Path;

/// Name of the file in a model folder.
const FILE: &str = "config.json";
/// How to name a model.
pub const FOLDER_HINT: &str =
    "give the folder of a DINOv3 ViT as transformers saves it, or its name on the Hugging Face Hub";
/// What files call the kind of model.
const MODEL_TYPE: &str = "dinov3_vit";
/// What has no counterpart here: its value in every published model.
const FIXED: [(&str, bool); 3] = [("query_bias", true), ("value_bias", true), ("proj_bias", true)];

/// The sizes in the `config.json` of a model folder; needs no weights.
///
/// # Errors
/// A missing file, invalid JSON, a model of another kind, a missing or invalid size.
pub fn read_sizes(folder: &Path) -> Result<Dinov3Sizes, NnError> {
    let path = folder.join(FILE);
    let error = |problem: String| NnError::file(&path, problem, FOLDER_HINT);
    let text = read_text(&path).map_err(|cause| error(cause.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|cause| error(cause.to_string()))?;
    if value["model_type"] != MODEL_TYPE {
        return Err(error(format!("`model_type` is {}, not {MODEL_TYPE}", value["model_type"])));
    }
    for (key, wanted) in FIXED {
        if value.get(key).is_some_and(|found| *found != wanted) {
            return Err(error(format!("`{key}` is {}, not {wanted}", value[key])));
        }
    }
    // The keys of both are the same; the file has more.
    let keys = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "patch_size",
        "num_register_tokens",
        "layer_norm_eps",
        "rope_theta",
        "hidden_act",
        "use_gated_mlp",
        "key_bias",
        "mlp_bias",
    ];
    let own: serde_json::Map<String, Value> =
        keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(*key)?.clone()))).collect();
    let sizes: Dinov3Sizes = serde_json::from_value(own.into()).map_err(|cause| error(cause.to_string()))?;
    sizes.check().map_err(|problem| NnError::Sizes { path: path.clone(), problem: Box::new(problem) })?;
    Ok(sizes)
}
