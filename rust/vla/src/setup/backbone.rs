//! The backbone's sizes, weights and tokenizer.

use super::mistake::{mistake, mistake_in};
use crate::{BACKBONE, POOLED_BACKBONE, VlaModel};
use hlrp_nn::llama::TextConfig;
use hlrp_nn::siglip::VisionConfig;
use hlrp_nn::smolvlm::{SmolVlmConfig, SmolVlmFolder};
use hlrp_nn::{NnError, hub::locate};
use hlrp_schema::{BackboneConfig, BackboneSizes, TextSizes, VisionSizes, VlaModelConfig, is_hub_name};
use std::path::{Path, PathBuf};

/// The folder of the backbone, if it has one.
fn folder(config: &BackboneConfig) -> anyhow::Result<Option<PathBuf>> {
    Ok(config.path.as_ref().map(|path| locate(path, &config.hub_cache)).transpose()?)
}

/// Looks for the backbone, if it has a folder.
///
/// # Errors
/// [`hlrp_config::Problem`] when there is no such folder, nor a model of this name in the Hugging Face cache.
pub fn preflight(config: &BackboneConfig) -> anyhow::Result<()> {
    let located = config.path.as_ref().map(|path| locate(path, &config.hub_cache));
    let Some(Err(NnError::NotFound { model, hub_cache })) = located else { return Ok(()) };
    let (problem, hint) = if is_hub_name(Path::new(&model)) {
        let problem = format!("{model} is neither a folder nor in the Hugging Face cache {}", hub_cache.display());
        let download = format!("run `hf download {model}` on a machine with network access");
        (problem, format!("{download}, or give the path of a folder"))
    } else {
        let hint = "give the folder of a SmolVLM as transformers saves it, or its name on the Hugging Face Hub";
        (format!("there is no folder {model}"), hint.to_owned())
    };
    Err(mistake("model.backbone.path", problem, hint))
}

/// The folder with the tokenizer.
pub(super) fn tokenizer_folder(config: &VlaModelConfig) -> anyhow::Result<PathBuf> {
    match &config.tokenizer {
        Some(folder) if !folder.join("tokenizer.json").is_file() => {
            let problem = format!("{}: there is no tokenizer.json in it", folder.display());
            Err(mistake("model.tokenizer", problem, "give a folder with tokenizer.json and tokenizer_config.json"))
        }
        Some(folder) => Ok(folder.clone()),
        None => Ok(folder(&config.backbone)?.unwrap_or_default()),
    }
}

/// Sizes of the backbone, with as many text layers as are kept.
///
/// # Errors
/// A folder that holds no SmolVLM with weights, or one of other sizes than the configuration confirms.
pub(super) fn sizes(config: &BackboneConfig) -> anyhow::Result<SmolVlmConfig> {
    let configured = config.sizes.as_ref().map(convert);
    let whole = match (folder(config)?, configured) {
        (Some(path), configured) => {
            let folder = SmolVlmFolder::open(&path).map_err(|error| mistake_in("model.backbone.path", &error))?;
            let found = folder.config().clone();
            if configured.is_some_and(|configured| configured != found) {
                let problem = format!("the backbone in {} has other sizes", path.display());
                return Err(mistake("model.backbone.sizes", problem, "set it to null to take the folder's"));
            }
            found
        }
        (None, Some(configured)) => configured,
        (None, None) => {
            return Err(mistake("model.backbone.path", "there is neither a folder nor sizes", "give one of the two"));
        }
    };
    let Some(num_layers) = config.num_text_layers else { return Ok(whole) };
    let available = whole.text.num_hidden_layers;
    whole.with_text_layers(num_layers).map_err(|_| {
        let problem = format!("{num_layers} of {available} text layers cannot be kept");
        mistake("model.backbone.num_text_layers", problem, format!("take 1 to {available}, or null for all"))
    })
}

/// Reads the backbone's weights, or those of a whole LeRobot policy; without either the fresh ones stay.
///
/// # Errors
/// Weights that cannot be read or do not fit.
pub(super) fn load_weights(config: &VlaModelConfig, model: &VlaModel) -> anyhow::Result<()> {
    if let (Some(path), VlaModel::Expert(expert)) = (&config.init_from, model) {
        let done = expert.init_from_lerobot(path).map_err(|error| mistake_in("model.init_from", &error))?;
        tracing::info!("{} tensors from {}; fresh: {:?}", done.num_loaded, path.display(), done.fresh);
        return Ok(());
    }
    let Some(path) = folder(&config.backbone)? else { return Ok(()) };
    let (name, sizes) = match model {
        VlaModel::Expert(model) => (BACKBONE, &model.config().backbone),
        VlaModel::Pooled(model) => (POOLED_BACKBONE, &model.config().backbone),
    };
    SmolVlmFolder::open(&path)?.load_into(&model.store().root().child(name), sizes)?;
    tracing::info!("backbone {}", path.display());
    Ok(())
}

fn convert(sizes: &BackboneSizes) -> SmolVlmConfig {
    let VisionSizes {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        image_size,
        patch_size,
        layer_norm_eps,
    } = sizes.vision;
    let vision = VisionConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        image_size,
        patch_size,
        layer_norm_eps,
    };
    let TextSizes {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        rms_norm_eps,
        rope_theta,
        vocab_size,
    } = sizes.text;
    SmolVlmConfig {
        vision,
        text: TextConfig {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps,
            rope_theta,
            vocab_size,
        },
        scale_factor: sizes.scale_factor,
        image_token_id: sizes.image_token_id,
        tie_word_embeddings: sizes.tie_word_embeddings,
    }
}
