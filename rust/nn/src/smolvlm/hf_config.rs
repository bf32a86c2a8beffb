//! Reading the `config.json` that transformers saves beside a SmolVLM.

use crate::NnError;
use hlrp_config::{Check, foreign::read_text};
use hlrp_schema::policy::{BackboneSizes, TextSizes, VisionSizes};
use serde_json::Value;
use std::path::Path;

/// Name of the file in a model folder.
const FILE: &str = "config.json";

/// Values that transformers' `SmolVLMVisionConfig` has when the file leaves them out, as published checkpoints do.
mod omitted {
    pub(super) const VISION_INTERMEDIATE_SIZE: i64 = 3072;
    pub(super) const VISION_NUM_HIDDEN_LAYERS: i64 = 12;
    pub(super) const VISION_LAYER_NORM_EPS: f64 = 1e-6;
}

/// The sizes in the `config.json` of a model folder; needs no weights.
///
/// # Errors
/// A missing file, invalid JSON, a model of another kind, a missing or contradictory size.
pub fn read_sizes(folder: &Path) -> Result<BackboneSizes, NnError> {
    const HINT: &str =
        "give the folder of a SmolVLM model as transformers saves it, or its snapshot in the Hugging Face cache";
    let path = &folder.join(FILE);
    let file_error = |problem: String| NnError::file(path, problem, HINT);
    let content = read_text(path).map_err(|error| file_error(error.to_string()))?;
    let value: Value = serde_json::from_str(&content).map_err(|error| file_error(error.to_string()))?;

    let root = Section { path, name: "", value: &value };
    root.must_be("model_type", "smolvlm", Presence::Required)?;
    let sizes = BackboneSizes {
        vision: vision(&root.section("vision_config")?)?,
        text: text(&root.section("text_config")?)?,
        scale_factor: root.integer("scale_factor")?,
        image_token_id: root.integer("image_token_id")?,
        tie_word_embeddings: root.optional("tie_word_embeddings", "true or false", Value::as_bool)?.unwrap_or(false),
    };
    sizes.check().map_err(|problem| NnError::Sizes { path: path.clone(), problem: Box::new(problem) })?;
    Ok(sizes)
}

fn vision(section: &Section<'_>) -> Result<VisionSizes, NnError> {
    section.must_be("hidden_act", "gelu_pytorch_tanh", Presence::Optional)?;
    Ok(VisionSizes {
        hidden_size: section.integer("hidden_size")?,
        intermediate_size: section.optional_integer("intermediate_size")?.unwrap_or(omitted::VISION_INTERMEDIATE_SIZE),
        num_hidden_layers: section.optional_integer("num_hidden_layers")?.unwrap_or(omitted::VISION_NUM_HIDDEN_LAYERS),
        num_attention_heads: section.integer("num_attention_heads")?,
        image_size: section.integer("image_size")?,
        patch_size: section.integer("patch_size")?,
        layer_norm_eps: section.optional_number("layer_norm_eps")?.unwrap_or(omitted::VISION_LAYER_NORM_EPS),
    })
}

fn text(section: &Section<'_>) -> Result<TextSizes, NnError> {
    section.must_be("model_type", "llama", Presence::Optional)?;
    section.must_be("hidden_act", "silu", Presence::Optional)?;
    section.must_be("attention_bias", false, Presence::Optional)?;
    section.must_be("mlp_bias", false, Presence::Optional)?;
    section.must_be("rope_scaling", Value::Null, Presence::Optional)?;
    // transformers 5 keeps the wavelength in `rope_parameters`, transformers 4 beside the sizes.
    let rope_theta = if section.value.get("rope_parameters").is_some_and(Value::is_object) {
        let rope = section.section("rope_parameters")?;
        rope.must_be("rope_type", "default", Presence::Optional)?;
        rope.number("rope_theta")?
    } else {
        section.number("rope_theta")?
    };
    let hidden_size = section.integer("hidden_size")?;
    let num_attention_heads = section.integer("num_attention_heads")?;
    Ok(TextSizes {
        hidden_size,
        intermediate_size: section.integer("intermediate_size")?,
        num_hidden_layers: section.integer("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: section.optional_integer("num_key_value_heads")?.unwrap_or(num_attention_heads),
        head_dim: section.optional_integer("head_dim")?.unwrap_or(hidden_size / num_attention_heads.max(1)),
        rms_norm_eps: section.number("rms_norm_eps")?,
        rope_theta,
        vocab_size: section.integer("vocab_size")?,
    })
}

/// Whether a key may be absent.
#[derive(PartialEq)]
enum Presence {
    Required,
    Optional,
}

/// One object of the file, and how to name its keys in an error.
struct Section<'a> {
    path: &'a Path,
    name: &'a str,
    value: &'a Value,
}

impl<'a> Section<'a> {
    fn section(&self, key: &'a str) -> Result<Section<'a>, NnError> {
        match self.value.get(key) {
            Some(value) if value.is_object() => Ok(Section { path: self.path, name: key, value }),
            _ => Err(self.error(key, "is missing")),
        }
    }

    fn integer(&self, key: &str) -> Result<i64, NnError> {
        self.optional_integer(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    fn number(&self, key: &str) -> Result<f64, NnError> {
        self.optional_number(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    fn optional_integer(&self, key: &str) -> Result<Option<i64>, NnError> {
        self.optional(key, "an integer", Value::as_i64)
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>, NnError> {
        self.optional(key, "a number", Value::as_f64)
    }

    /// A value of a certain type; `null` counts as absent.
    fn optional<T>(&self, key: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, NnError> {
        match self.value.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.error(key, &format!("is {value}, not {what}"))),
        }
    }

    fn must_be(&self, key: &str, wanted: impl Into<Value>, presence: Presence) -> Result<(), NnError> {
        let wanted = wanted.into();
        match self.value.get(key).filter(|value| !value.is_null()) {
            None if presence == Presence::Optional => Ok(()),
            None => Err(self.error(key, "is missing")),
            Some(found) if *found == wanted => Ok(()),
            Some(found) => Err(self.error(key, &format!("is {found}, not {wanted}"))),
        }
    }

    fn error(&self, key: &str, problem: &str) -> NnError {
        let key = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        NnError::file(
            self.path,
            format!("`{key}` {problem}"),
            "this backbone reads SmolVLM models as transformers saves them",
        )
    }
}
