//! Whether the backbone that the configuration names exists.

use hlrp_config::Problem;
use hlrp_nn::smolvlm::{SmolVlmError, locate};
use hlrp_schema::is_hub_name;
use hlrp_schema::BackboneConfig;
use std::path::Path;

/// Looks for the backbone, if it has a folder.
///
/// # Errors
/// [`Problem`] when there is no such folder, nor a model of this name in the Hugging Face cache.
pub(super) fn check_backbone(backbone: &BackboneConfig) -> anyhow::Result<()> {
    let located = backbone.path.as_ref().map(|path| locate(path, &backbone.hub_cache));
    let Some(Err(SmolVlmError::NotFound { model, hub_cache })) = located else { return Ok(()) };
    let (problem, hint) = if is_hub_name(Path::new(&model)) {
        let problem = format!("{model} is neither a folder nor in the Hugging Face cache {}", hub_cache.display());
        let download = format!("run `hf download {model}` on a machine with network access");
        (problem, format!("{download}, or give the path of a folder"))
    } else {
        let hint = "give the folder of a SmolVLM as transformers saves it, or its name on the Hugging Face Hub";
        (format!("there is no folder {model}"), hint.to_owned())
    };
    Err(Problem::new("model.backbone.path", problem, hint).into())
}
