//! A tiny backbone on disk, as transformers would save it.

use hlrp_nn::Store;
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_schema::policy::{BackboneSizes, TextSizes, VisionSizes};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Tensor};

/// Sizes of the tiny backbone.
pub(crate) fn tiny_config() -> BackboneSizes {
    BackboneSizes {
        vision: VisionSizes {
            hidden_size: 12,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 3,
            image_size: 16,
            patch_size: 4,
            layer_norm_eps: 1e-6,
        },
        text: TextSizes {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            rms_norm_eps: 1e-5,
            rope_theta: 1e5,
            vocab_size: 20,
        },
        scale_factor: 2,
        image_token_id: 19,
        tie_word_embeddings: false,
    }
}

/// The same sizes as a `config.json` of transformers.
pub(crate) fn hf_config() -> Value {
    let config = tiny_config();
    let mut text = serde_json::to_value(&config.text).unwrap();
    let rope_theta = text.as_object_mut().unwrap().remove("rope_theta").unwrap();
    text["model_type"] = json!("llama");
    text["hidden_act"] = json!("silu");
    text["rope_parameters"] = json!({ "rope_theta": rope_theta, "rope_type": "default" });
    let mut vision = serde_json::to_value(&config.vision).unwrap();
    vision["hidden_act"] = json!("gelu_pytorch_tanh");
    json!({
        "model_type": "smolvlm",
        "vision_config": vision,
        "text_config": text,
        "scale_factor": config.scale_factor,
        "image_token_id": config.image_token_id,
        "tie_word_embeddings": false,
    })
}

/// A backbone with fresh weights, and the store that names them.
pub(crate) fn fresh(config: &BackboneSizes) -> (Store, SmolVlm) {
    let store = Store::new(Device::Cpu);
    let model = SmolVlm::new(&store.root(), config);
    (store, model)
}

/// Writes `config.json` and `model.safetensors`.
pub(crate) fn save(folder: &Path, config: &Value, tensors: &[(String, Tensor)]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    Tensor::write_safetensors(tensors, folder.join("model.safetensors")).unwrap();
}

/// Whether both sides hold the same names with exactly the same values.
pub(crate) fn identical(left: &[(String, Tensor)], right: &[(String, Tensor)]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && left.1.equal(&right.1))
}
