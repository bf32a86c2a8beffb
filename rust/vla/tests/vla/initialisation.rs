//! LeRobot's SmolVLA checkpoints as initialisation.

use crate::fixtures::{FLOAT, distance, expert};
use hlrp_config::with_hint;
use hlrp_schema::policy::ModelSpec;
use hlrp_vla::{Architecture, ExpertModel, VlaError};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What LeRobot would save: no latent head, a backbone in bfloat16.
fn checkpoint() -> Vec<(String, Tensor)> {
    tch::manual_seed(8);
    let model = ExpertModel::new(&ModelSpec { latent: None, ..expert() }, Device::Cpu).unwrap();
    let published = |(name, tensor): (String, Tensor)| {
        let kind = if name.contains(".vlm.") { Kind::BFloat16 } else { Kind::Float };
        (name, tensor.detach().to_kind(kind))
    };
    model.store().state().into_iter().map(published).collect()
}

fn initialise(model: &ExpertModel, tensors: &[(String, Tensor)]) -> Result<hlrp_vla::Initialised, VlaError> {
    let folder = tempfile::tempdir().unwrap();
    Tensor::write_safetensors(tensors, folder.path().join("model.safetensors")).unwrap();
    model.init_from_smolvla(folder.path())
}

#[test]
fn takes_over_every_weight_and_leaves_the_latent_head_fresh() {
    let mut published = checkpoint();
    published.push(("normalize_inputs.buffer_observation_state.mean".to_owned(), Tensor::zeros([4], FLOAT)));
    let model = ExpertModel::new(&expert(), Device::Cpu).unwrap();
    let initialised = initialise(&model, &published).unwrap();
    assert_eq!(initialised.num_loaded, published.len() - 1);
    assert_eq!(initialised.ignored, ["normalize_inputs.buffer_observation_state.mean"]);
    assert!(initialised.fresh.iter().all(|name| name.starts_with("model.latent_")) && initialised.fresh.len() == 4);
    let ours = model.store().state();
    for (name, tensor) in &published[..published.len() - 1] {
        let (_, loaded) = ours.iter().find(|(ours, _)| ours == name).unwrap();
        assert_eq!(distance(&loaded.detach(), &tensor.to_kind(Kind::Float)), 0.0, "{name}");
    }
}

#[test]
fn refuses_what_does_not_fit_and_stays_as_it_was() {
    let model = ExpertModel::new(&expert(), Device::Cpu).unwrap();
    let before: Vec<Tensor> = model.store().state().iter().map(|(_, tensor)| tensor.detach().copy()).collect();
    let refuse = |tensors: &[(String, Tensor)], what: &str| {
        let error = with_hint(&initialise(&model, tensors).unwrap_err());
        assert!(error.contains(what) && error.contains("hint:"), "{error}");
    };
    let mut missing = checkpoint();
    missing.retain(|(name, _)| name != "model.state_proj.weight");
    refuse(&missing, "model.state_proj.weight");
    let mut unknown = checkpoint();
    unknown.push(("model.other.weight".to_owned(), Tensor::zeros([1], FLOAT)));
    refuse(&unknown, "model.other.weight");
    let mut misshapen = checkpoint();
    for (name, tensor) in &mut misshapen {
        if name == "model.action_in_proj.weight" {
            *tensor = Tensor::zeros([24, 32], FLOAT);
        }
    }
    refuse(&misshapen, "model.action_in_proj.weight");
    let error = with_hint(&model.init_from_smolvla(Path::new("/nowhere")).unwrap_err());
    assert!(error.contains("/nowhere") && error.contains("hint:"), "{error}");
    for ((name, tensor), before) in model.store().state().iter().zip(before) {
        assert_eq!(distance(&tensor.detach(), &before), 0.0, "{name}");
    }
}
