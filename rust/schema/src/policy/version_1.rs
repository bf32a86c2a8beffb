//! Descriptions of version 1: what artifacts and checkpoints of older programs hold.

use crate::migrate::migrate_policy;
use serde_json::{Map, Value, json};

/// The description (`model`, `processor`, `objective`, `teacher`) of version 1 as one of this version. What version 1 did not describe
/// is taken from `settings`, the section `policy` of the run that wrote it; else it is LeRobot's default.
///
/// # Errors
/// A key too few or too many; the text names it.
pub fn from_version_1(description: &Value, settings: Option<&Value>) -> Result<Value, String> {
    let mut all = Section::new("", description)?;
    let setting = |path: &str, default: Value| {
        let found = settings.and_then(|settings| path.split('.').try_fold(settings, |value, key| value.get(key)));
        found.cloned().unwrap_or(default)
    };
    let model = model(&all.take("model")?, &setting)?;
    let camera = model["cameras"][0].clone();
    let mut converted = json!({
        "processor": processor(&all.take("processor")?, &setting)?,
        "objective": objective(&all.take("objective")?)?,
        "teacher": teacher(&all.take("teacher")?, setting("teacher.weights", json!("trained")), setting("teacher.camera", camera)),
        "model": model,
    });
    all.finish()?;
    migrate_policy(&mut converted);
    Ok(converted)
}

fn model(value: &Value, setting: &dyn Fn(&str, Value) -> Value) -> Result<Value, String> {
    let mut model = Section::new("model.", value)?;
    let arch = model.take("arch")?;
    let sizes = model.take("backbone")?;
    let (flow, latent) = (model.take("flow")?, model.take("latent")?);
    let image_size = model.take("image_size")?;
    let (cameras, empty_cameras, action_dim, own) = match arch.as_str() {
        Some("pooled") => (json!([model.take("camera")?]), json!(0), model.take("action_dim")?, json!({})),
        _ => {
            let mut action = Section::new("model.action.", &model.take("action")?)?;
            let tokens = model.take("image_special_tokens")?;
            let own = json!({
                "smolvla_checkpoint": null,
                "num_expert_layers": model.take("num_expert_layers")?,
                "expert_width_multiplier": model.take("expert_width_multiplier")?,
                "self_attn_every_n_layers": model.take("self_attn_every_n_layers")?,
                "prefix_length": model.take("prefix_length")?,
                "add_image_special_tokens": !tokens.is_null(),
                "image_special_tokens": tokens,
                "max_state_dim": model.take("max_state_dim")?,
                "max_action_dim": action.take("max_action_dim")?,
                "chunk_size": action.take("chunk_size")?,
                "train_state_proj": setting("model.arch.expert.train_state_proj", json!(true)),
            });
            let action_dim = action.take("action_dim")?;
            action.finish()?;
            (model.take("cameras")?, model.take("num_empty_cameras")?, action_dim, own)
        }
    };
    model.finish()?;
    Ok(json!({
        "backbone": {
            "vlm_model_name": null,
            "hub_cache": null,
            "load_vlm_weights": setting("model.backbone.load_vlm_weights", json!(true)),
            "num_vlm_layers": sizes["text"]["num_hidden_layers"],
            "train_expert_only": setting("model.backbone.train_expert_only", json!(true)),
            "freeze_vision_encoder": setting("model.backbone.freeze_vision_encoder", json!(true)),
            "sizes": sizes,
        },
        "cameras": cameras,
        "empty_cameras": empty_cameras,
        "resize_imgs_with_padding": [image_size[1], image_size[0]],
        "action_dim": action_dim,
        "latent": latent,
        "flow": flow,
        "arch": { arch.as_str().unwrap_or_default(): own },
    }))
}

fn processor(value: &Value, setting: &dyn Fn(&str, Value) -> Value) -> Result<Value, String> {
    let mut processor = Section::new("processor.", value)?;
    let mut prompt = Section::new("processor.prompt.", &processor.take("prompt")?)?;
    let mut layout = Section::new("processor.prompt.layout.", &prompt.take("layout")?)?;
    // Both are said by the model.
    for repeated in ["cameras", "image_size"] {
        processor.take(repeated)?;
    }
    let converted = json!({
        "image_preparation": processor.take("image_preparation")?,
        "frame_size": setting("processor.frame_size", Value::Null),
        "tokenizer": null,
        "tokenizer_max_length": layout.take("max_length")?,
        "pad_language_to": layout.take("padding")?,
        "padding_side": layout.take("padding_side")?,
        "truncation_side": layout.take("truncation_side")?,
        "system_prompt": prompt.take("system_prompt")?,
        "newline": prompt.take("newline")?,
        "state": processor.take("state")?,
        "action": processor.take("action")?,
    });
    [processor, prompt, layout].into_iter().try_for_each(Section::finish)?;
    Ok(converted)
}

fn objective(value: &Value) -> Result<Value, String> {
    let mut objective = Section::new("objective.", value)?;
    let converted = json!({
        "mode": objective.take("mode")?,
        "latent_loss_weight": objective.take("latent_weight")?,
        "action_loss_weight": objective.take("action_weight")?,
    });
    objective.finish()?;
    Ok(converted)
}

fn teacher(identity: &Value, weights: Value, camera: Value) -> Value {
    let mut teacher = json!({
        "checkpoint": null,
        "weights": weights,
        "camera": camera,
        "sha256": null,
        "codebook_size": null,
        "code_seq_len": null,
        "code_dim": null,
        "image_size": null,
        "pair": null,
    });
    for (key, value) in identity.as_object().into_iter().flatten() {
        teacher[key] = value.clone();
    }
    teacher
}

/// An object whose keys are taken one by one, none of them left.
struct Section {
    prefix: &'static str,
    map: Map<String, Value>,
}

impl Section {
    fn new(prefix: &'static str, value: &Value) -> Result<Self, String> {
        let map = value.as_object().cloned();
        Ok(Self { prefix, map: map.ok_or_else(|| format!("`{}` is not an object", prefix.trim_end_matches('.')))? })
    }

    fn take(&mut self, key: &str) -> Result<Value, String> {
        self.map.remove(key).ok_or_else(|| format!("missing field `{}{key}`", self.prefix))
    }

    fn finish(self) -> Result<(), String> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("unknown field `{}{key}`", self.prefix)),
        }
    }
}
