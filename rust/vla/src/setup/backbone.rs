//! The backbone's sizes, weights and tokenizer, from the folders that the configuration names.

use super::problem_at;
use crate::archs::VlaModel;
use crate::backbone::facts as backbone_facts;
use hlrp_config::Problem;
use hlrp_nn::NnError;
use hlrp_nn::hub::locate;
use hlrp_nn::smolvlm::SmolVlmFolder;
use hlrp_schema::PolicySpec;
use hlrp_schema::hub::{is_hub_name, model_download_hint};
use hlrp_schema::policy::{BackboneFacts, BackboneSpec};
use std::path::{Path, PathBuf};

const MODEL_NAME: &str = "policy.model.backbone.vlm_model_name";

/// Looks for the backbone, if it has a folder.
///
/// # Errors
/// There is no such folder, nor a model of this name in the Hugging Face cache.
pub fn preflight(policy: &PolicySpec) -> anyhow::Result<()> {
    folder(&policy.model.backbone)?;
    Ok(())
}

/// The folder of the backbone, if it has one.
fn folder(spec: &BackboneSpec) -> Result<Option<PathBuf>, Problem> {
    let Some(name) = &spec.vlm_model_name else { return Ok(None) };
    let hub_cache = spec.hub_cache.as_deref().unwrap_or(Path::new(""));
    match locate(name, hub_cache) {
        Ok(folder) => Ok(Some(folder)),
        Err(NnError::NotFound { model, hub_cache }) if is_hub_name(Path::new(&model)) => {
            let problem = format!("{model} is neither a folder nor in the Hugging Face cache {}", hub_cache.display());
            Err(Problem::new(MODEL_NAME, problem, model_download_hint(&model, &hub_cache)))
        }
        Err(_) => {
            let hint = "give the folder of a SmolVLM as transformers saves it, or its name on the Hugging Face Hub";
            Err(Problem::new(MODEL_NAME, format!("there is no folder {name}"), hint))
        }
    }
}

/// The folder with the tokenizer.
pub(super) fn tokenizer_folder(policy: &PolicySpec) -> Result<PathBuf, Problem> {
    match &policy.processor.tokenizer {
        Some(folder) if !folder.join("tokenizer.json").is_file() => {
            let problem = format!("{}: there is no tokenizer.json in it", folder.display());
            let hint = "give a folder with tokenizer.json and tokenizer_config.json";
            Err(Problem::new("policy.processor.tokenizer", problem, hint))
        }
        Some(folder) => Ok(folder.clone()),
        None => Ok(folder(&policy.model.backbone)?.unwrap_or_default()),
    }
}

/// What the backbone's folder and the tokenizer say.
///
/// # Errors
/// A folder that is not a SmolVLM, or a tokenizer that cannot be read.
pub(super) fn facts(policy: &PolicySpec, tokenizer_folder: &Path) -> anyhow::Result<BackboneFacts> {
    let backbone = &policy.model.backbone;
    let open = |path: PathBuf| SmolVlmFolder::open(&path).map_err(|error| problem_at(MODEL_NAME, &error));
    let whole = folder(backbone)?.map(open).transpose()?;
    Ok(backbone_facts(whole.map(|folder| folder.sizes().clone()), tokenizer_folder)?)
}

/// Reads the backbone's weights, or those of a whole LeRobot policy; without either the fresh ones stay.
///
/// # Errors
/// Weights that cannot be read or do not fit.
pub(super) fn load_weights(policy: &PolicySpec, model: &VlaModel) -> anyhow::Result<()> {
    if let Some((key, path)) = policy.model.arch.get().smolvla_checkpoint() {
        let done = model.init_from_smolvla(path).map_err(|error| problem_at(&format!("policy.model.{key}"), &error))?;
        let (fresh, ignored) = (&done.fresh, &done.ignored);
        tracing::info!("{} tensors from {}; fresh: {fresh:?}; left out: {ignored:?}", done.num_loaded, path.display());
        return Ok(());
    }
    let Some(path) = folder(&policy.model.backbone)?.filter(|_| policy.model.backbone.load_vlm_weights) else {
        return Ok(());
    };
    model.load_backbone(&SmolVlmFolder::open(&path)?)?;
    tracing::info!("backbone {}", path.display());
    Ok(())
}
