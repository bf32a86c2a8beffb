//! What a model starts from besides random weights: the frozen backbone of its encoder, the teachers of its decoders.

use crate::encoders::dinov3::BACKBONE;
use crate::error::LaqError;
use crate::model::LaqModel;
use hlrp_config::Problem;
use hlrp_nn::dinov3::{FOLDER_HINT, read_sizes, read_weights};
use hlrp_nn::{NnError, hub};
use hlrp_schema::hub::model_download_hint;
use hlrp_schema::{Dinov3Config, LaqModelConfig, is_hub_name};
use std::path::{Path, PathBuf};
use tch::Tensor;

const MODEL_KEY: &str = "model.encoder.dinov3.model";
const SIZES_KEY: &str = "model.encoder.dinov3.sizes";

/// Where the pretrained backbone of an encoder is.
pub struct Backbone {
    folder: PathBuf,
}

impl Backbone {
    /// Looks for the backbone that `config` names, if it names one, and fills in its sizes. What a checkpoint says of the
    /// model then needs no other file.
    ///
    /// # Errors
    /// No such model on this machine, one of another kind, or one of other sizes than the given ones.
    pub fn resolve(config: &mut LaqModelConfig) -> anyhow::Result<Option<Self>> {
        let Some(dinov3) = &mut config.encoder.dinov3 else { return Ok(None) };
        let backbone = match &dinov3.model {
            Some(name) => {
                let folder = folder(name, dinov3)?;
                let sizes = read_sizes(&folder).map_err(LaqError::from)?;
                if dinov3.sizes.as_ref().is_some_and(|given| *given != sizes) {
                    let message = format!("the model in {} has other sizes", folder.display());
                    return Err(Problem::new(SIZES_KEY, message, "set it to null to take those of the model").into());
                }
                dinov3.sizes = Some(sizes);
                Some(Self { folder })
            }
            None => None,
        };
        (dinov3.model, dinov3.hub_cache) = (None, None);
        Ok(backbone)
    }

    /// Reads the weights into `model`.
    ///
    /// # Errors
    /// Weights that are missing, damaged or of other sizes.
    pub fn load(&self, model: &LaqModel) -> Result<(), LaqError> {
        let prefix = format!("{BACKBONE}.");
        let own: Vec<(String, Tensor)> = model
            .store()
            .state()
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor)))
            .collect();
        let mismatch = |cause| NnError::Weights { path: self.folder.clone(), cause: Box::new(cause) };
        hlrp_nn::load_strict(&own, &read_weights(&self.folder)?).map_err(|cause| mismatch(NnError::from(cause)))?;
        Ok(())
    }
}

/// The folder of a model that the configuration names.
fn folder(name: &str, config: &Dinov3Config) -> Result<PathBuf, Problem> {
    let hub_cache = config.hub_cache.as_deref().unwrap_or(Path::new(""));
    match hub::locate(name, hub_cache) {
        Ok(folder) => Ok(folder),
        Err(NnError::NotFound { model, hub_cache }) if is_hub_name(Path::new(&model)) => {
            let problem = format!("{model} is neither a folder nor in the Hugging Face cache {}", hub_cache.display());
            let access =
                "its weights are gated: accept the terms on its page, and set HF_TOKEN or log in with `hf auth login`";
            let hint = format!("{access}; then {}", model_download_hint(&model, &hub_cache));
            Err(Problem::new(MODEL_KEY, problem, hint))
        }
        Err(_) => Err(Problem::new(MODEL_KEY, format!("there is no folder {name}"), FOLDER_HINT)),
    }
}

/// Reads the teachers of the decoders that learn from one.
///
/// # Errors
/// Weights that are missing, damaged or of another network.
pub fn load_teachers(model: &mut LaqModel) -> Result<(), LaqError> {
    let device = model.store().device();
    model.decoders.load_teachers(device)
}
