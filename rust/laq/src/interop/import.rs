//! Weights of the Python predecessor as a checkpoint of this project.

use super::advice::advice;
use super::predecessor::from_lightning_names;
use crate::error::LaqError;
use crate::model::{LaqModel, Parts};
use crate::pretrained::Backbone;
use hlrp_config::{Composed, Problem};
use hlrp_nn::NnError;
use hlrp_nn::foreign::{load_converted, read_converted};
use hlrp_schema::{DeltaUnit, LaqConfig, LaqDescription, LaqModelConfig, PairSpacing, StageConfig, TaskDescription};
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
    resolve_backbone(&mut model_config, path)?;
    let model = LaqModel::new(&model_config, Parts::All, Device::Cpu);
    let state = model.store().state();
    let named = from_lightning_names(found, &state).map_err(LaqError::from)?;
    load_converted(path, model.store(), &named, |_| false).map_err(|cause| match advice(&state, &named) {
        Some(overrides) if matches!(cause, NnError::Layout { .. }) => LaqError::Import { cause, overrides },
        _ => cause.into(),
    })?;
    let request = &config.data.request;
    let pair = PairSpacing { unit: request.unit, image_deltas: request.image_deltas.clone() };
    let spacing = format!(
        "frame pairs: {}, from data.request, because the file does not say it: labels, stage 2 and analyses use it; set \
         data.request.image_deltas and data.request.unit to what the model was trained with",
        pair_text(&pair)
    );
    let description =
        LaqDescription { model: model_config.clone(), pair, preprocess: hlrp_data::PREPROCESS_ID.to_owned() };
    let disk = disk_rules(&config.cluster, &config.logging);
    let yaml = composed.to_yaml();
    publish_weights(out, model.store().state(), TaskDescription::Laq(description), yaml, config.precision, &disk)?;
    console::print(&format!("checkpoint: {}", out.display()));
    let notes = std::iter::once(spacing.as_str()).chain(notes(&model_config));
    notes.for_each(|note| console::print(&format!("note: {note}")));
    Ok(())
}

/// A pair as the configuration has it, such as `[0, 5] frames`.
fn pair_text(pair: &PairSpacing) -> String {
    let unit = match pair.unit {
        DeltaUnit::Frames => "frames",
        DeltaUnit::Seconds => "seconds",
    };
    let deltas: Vec<String> = pair.image_deltas.iter().map(ToString::to_string).collect();
    format!("[{}] {unit}", deltas.join(", "))
}

/// Fills in the sizes of the frozen backbone. Its weights are in the file `path`, so that its folder is read only where its sizes are not set.
fn resolve_backbone(config: &mut LaqModelConfig, path: &Path) -> anyhow::Result<()> {
    if let Some(dinov3) = config.encoder.dinov3.as_mut().filter(|dinov3| dinov3.sizes.is_some()) {
        dinov3.model = None;
    }
    Backbone::resolve(config).map(drop).map_err(|error| match error.downcast::<Problem>() {
        Ok(problem) => problem
            .hint(format!(
                "{} has its weights, only its sizes are needed: model/encoder=dinov3_vits16 has those of ViT-S/16, \
             model.encoder.dinov3.sizes={{…}} takes others",
                path.display()
            ))
            .into(),
        Err(error) => error,
    })
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
