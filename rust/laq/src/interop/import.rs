//! Weights of the Python predecessor as a checkpoint of this project.

use super::predecessor::from_lightning_names;
use crate::error::LaqError;
use crate::model::{LaqModel, Parts};
use crate::pretrained::Backbone;
use hlrp_config::Composed;
use hlrp_nn::foreign::{load_converted, read_converted};
use hlrp_schema::{LaqConfig, LaqDescription, LaqModelConfig, PairSpacing, StageConfig, TaskDescription};
use hlrp_track::console;
use hlrp_train::checkpoint::publish_weights;
use hlrp_train::disk_rules;
use std::path::Path;
use tch::Device;

/// Reads the weights of the safetensors file `path`, which have the predecessor's layout, into the model that the composed experiment
/// describes, and publishes them as the checkpoint folder `out`. Says in what the two programs differ.
///
/// # Errors
/// An invalid setting, a file of another format, or one that lacks tensors of the model, has others, or has them in other shapes: the
/// text names them.
pub fn import(composed: &Composed, path: &Path, out: &Path) -> anyhow::Result<()> {
    let config = LaqConfig::of_run(composed)?;
    let found = read_converted(path).map_err(LaqError::from)?;
    let mut model_config = config.model.clone();
    // The weights of a frozen backbone are in the file.
    Backbone::resolve(&mut model_config)?;
    let model = LaqModel::new(&model_config, Parts::All, Device::Cpu);
    let named = from_lightning_names(found, &model.store().state()).map_err(LaqError::from)?;
    load_converted(path, model.store(), &named, |_| false).map_err(LaqError::from)?;
    let request = &config.data.request;
    let description = LaqDescription {
        model: model_config.clone(),
        pair: PairSpacing { unit: request.unit, image_deltas: request.image_deltas.clone() },
        preprocess: hlrp_data::PREPROCESS_ID.to_owned(),
    };
    let disk = disk_rules(&config.cluster, &config.logging);
    let yaml = composed.to_yaml();
    publish_weights(out, model.store().state(), TaskDescription::Laq(description), yaml, config.precision, &disk)?;
    console::print(&format!("checkpoint: {}", out.display()));
    notes(&model_config).iter().for_each(|note| console::print(&format!("note: {note}")));
    Ok(())
}

/// What the same weights do differently here.
fn notes(config: &LaqModelConfig) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if config.temporal_depth > 0 {
        notes.push(
            "the position convolution of the temporal transformer is applied to (frame, row, column); the predecessor mixes these axes, so \
             that codes can differ from its own: train on for some steps",
        );
    }
    if config.quantizer.code_seq_len > 1 {
        notes.push(
            "each action token comes from one code; the predecessor's decoders read components of all codes in each token, so that \
             decoders need further training",
        );
    }
    if config.decoders.aux.as_ref().is_some_and(|aux| aux.enabled) {
        notes.push(
            "the decoder aux has a position bias and a canvas of its own; both start as copies of the shared ones",
        );
    }
    notes
}
