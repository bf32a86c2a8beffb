//! An artifact comes back as it was written, or not at all.

use crate::fixtures::{FixedDraws, batch, distance, expert, processor_config, tokenizer_folder};
use hlrp_nn::{Pass, read_tensors};
use hlrp_schema::DeltaUnit;
use hlrp_track::fs::OnExisting;
use hlrp_train::DeviceBatch;
use hlrp_vla::{
    Artifact, Description, Mode, ModelConfig, Objective, PairSpacing, Prediction, Present, Processor, Provenance,
    TeacherIdentity, VlaError, VlaModel,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

const OBJECTIVE: Objective = Objective { mode: Mode::Multitask, latent_weight: 0.1, action_weight: 1.0 };

/// An artifact in a folder of its own.
struct Saved {
    _parent: tempfile::TempDir,
    dir: PathBuf,
    model: VlaModel,
}

fn teacher() -> TeacherIdentity {
    TeacherIdentity {
        sha256: "ab".repeat(32),
        codebook_size: 8,
        code_seq_len: 4,
        code_dim: 2,
        image_size: 64,
        pair: PairSpacing { unit: DeltaUnit::Frames, image_deltas: vec![0.0, 5.0] },
    }
}

fn save(dir: &Path, model: &VlaModel) -> Result<(), VlaError> {
    let description = Description {
        model: &ModelConfig::Expert(expert()),
        processor: &processor_config(),
        objective: OBJECTIVE,
        teacher: Some(&teacher()),
        provenance: Provenance { experiment: "vla_tiny".to_owned(), step: 7 },
    };
    Artifact::save(dir, OnExisting::Refuse, 0.0, model, &description, &tokenizer_folder())
}

fn saved() -> Saved {
    tch::manual_seed(10);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("artifact");
    let model = VlaModel::new(&ModelConfig::Expert(expert()), Device::Cpu).unwrap();
    save(&dir, &model).unwrap();
    Saved { _parent: parent, dir, model }
}

impl Saved {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn edit_manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest: Value =
            serde_json::from_str(&fs::read_to_string(self.path("manifest.json")).unwrap()).unwrap();
        change(&mut manifest);
        fs::write(self.path("manifest.json"), manifest.to_string()).unwrap();
    }

    /// Rewrites the weights and lists them anew, as somebody would who forges an artifact.
    fn edit_weights(&self, change: impl FnOnce(&mut Vec<(String, Tensor)>)) {
        let path = self.path("model.safetensors");
        let mut weights = read_tensors(&path).unwrap();
        change(&mut weights);
        Tensor::write_safetensors(&weights, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        self.edit_manifest(|manifest| {
            manifest["files"]["model.safetensors"] =
                json!({"size": bytes.len(), "sha256": hex::encode(Sha256::digest(&bytes))});
        });
    }

    /// Reading must fail with one text that holds all of `parts` and a way out.
    fn must_be_refused(&self, parts: &[&str]) {
        let error = Artifact::load(&self.dir, Device::Cpu).err().expect("the artifact was accepted").to_string();
        for part in parts.iter().chain(&["hint:"]) {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
}

fn predict(model: &VlaModel, processor: &Processor, batch: &DeviceBatch) -> Prediction {
    let observation = processor.observe(batch, Present { image: 0, state: 0 }).unwrap();
    model.sample(&observation, Mode::Multitask, &mut FixedDraws::new(0), &Pass::plain(false)).unwrap()
}

#[test]
fn a_policy_comes_back_bit_for_bit() {
    let saved = saved();
    let artifact = Artifact::load(&saved.dir, Device::Cpu).unwrap();
    assert_eq!(artifact.manifest.teacher, Some(teacher()));
    assert_eq!(artifact.manifest.model, ModelConfig::Expert(expert()));
    assert_eq!(artifact.processor.config(), &processor_config());
    let batch = batch();
    let ours = predict(&saved.model, &Processor::new(&processor_config(), &tokenizer_folder()).unwrap(), &batch);
    let theirs = predict(&artifact.model, &artifact.processor, &batch);
    assert_eq!(distance(&ours.actions_BTA.unwrap(), &theirs.actions_BTA.unwrap()), 0.0);
    assert_eq!(distance(&ours.latents_BSD.unwrap(), &theirs.latents_BSD.unwrap()), 0.0);
}

#[test]
fn an_existing_artifact_is_not_overwritten() {
    let saved = saved();
    let before = fs::read(saved.path("manifest.json")).unwrap();
    assert!(save(&saved.dir, &saved.model).is_err());
    assert_eq!(fs::read(saved.path("manifest.json")).unwrap(), before);
}

#[test]
fn a_failed_save_leaves_nothing() {
    let saved = saved();
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("artifact");
    let description = Description {
        model: &ModelConfig::Expert(expert()),
        processor: &processor_config(),
        objective: OBJECTIVE,
        teacher: None,
        provenance: Provenance { experiment: "vla_tiny".to_owned(), step: 7 },
    };
    let error =
        Artifact::save(&dir, OnExisting::Refuse, 0.0, &saved.model, &description, &tokenizer_folder()).unwrap_err();
    assert!(error.to_string().contains("teacher is missing"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn refuses_a_manifest_that_is_missing() {
    let saved = saved();
    fs::remove_file(saved.path("manifest.json")).unwrap();
    saved.must_be_refused(&["manifest.json"]);
}

#[test]
fn refuses_a_manifest_that_is_no_json() {
    let saved = saved();
    fs::write(saved.path("manifest.json"), "{\"format\":").unwrap();
    saved.must_be_refused(&["manifest.json", "no JSON"]);
}

#[test]
fn refuses_a_missing_key() {
    let saved = saved();
    saved.edit_manifest(|manifest| drop(manifest["model"].as_object_mut().unwrap().remove("max_state_dim")));
    saved.must_be_refused(&["manifest.json", "max_state_dim"]);
}

#[test]
fn refuses_an_extra_key() {
    let saved = saved();
    saved.edit_manifest(|manifest| manifest["model"]["dropout"] = json!(0.1));
    saved.must_be_refused(&["manifest.json", "dropout"]);
}

#[test]
fn refuses_another_format_version() {
    let saved = saved();
    saved.edit_manifest(|manifest| manifest["format_version"] = json!(2));
    saved.must_be_refused(&["manifest.json", "version 2", "reads \"hlrp-vla-artifact\" version 1"]);
}

#[test]
fn refuses_sizes_other_than_those_of_the_weights() {
    let saved = saved();
    saved.edit_manifest(|manifest| manifest["model"]["max_state_dim"] = json!(9));
    saved.must_be_refused(&["model.safetensors", "model.state_proj.weight"]);
}

#[test]
fn refuses_a_teacher_of_other_sizes() {
    let saved = saved();
    saved.edit_manifest(|manifest| manifest["teacher"]["code_dim"] = json!(3));
    saved.must_be_refused(&["manifest.json", "4 codes of 3 numbers", "4 of 2"]);
}

#[test]
fn refuses_cameras_other_than_the_models() {
    let saved = saved();
    saved.edit_manifest(|manifest| manifest["processor"]["cameras"] = json!(["wrist", "front"]));
    saved.must_be_refused(&["manifest.json", "processor.cameras"]);
}

#[test]
fn refuses_another_image_preparation() {
    let saved = saved();
    saved.edit_manifest(|manifest| manifest["processor"]["image_preparation"] = json!("squash"));
    saved.must_be_refused(&["image_preparation", "squash"]);
}

#[test]
fn refuses_truncated_weights() {
    let saved = saved();
    let path = saved.path("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    saved.must_be_refused(&["model.safetensors", "bytes instead of"]);
}

#[test]
fn refuses_a_flipped_bit() {
    let saved = saved();
    let path = saved.path("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    saved.must_be_refused(&["model.safetensors", "sha256"]);
}

#[test]
fn refuses_a_missing_tensor() {
    let saved = saved();
    saved.edit_weights(|weights| weights.retain(|(name, _)| name != "model.latent_in_proj.bias"));
    saved.must_be_refused(&["model.safetensors", "model.latent_in_proj.bias"]);
}

#[test]
fn refuses_an_extra_tensor() {
    let saved = saved();
    saved.edit_weights(|weights| weights.push(("model.extra".to_owned(), Tensor::from(1.0_f32))));
    saved.must_be_refused(&["model.safetensors", "model.extra"]);
}

#[test]
fn refuses_a_tensor_of_another_shape() {
    let saved = saved();
    saved.edit_weights(|weights| {
        let (_, tensor) = weights.iter_mut().find(|(name, _)| name == "model.state_proj.weight").unwrap();
        *tensor = tensor.transpose(0, 1).contiguous();
    });
    saved.must_be_refused(&["model.safetensors", "model.state_proj.weight"]);
}

#[test]
fn refuses_a_file_name_that_leads_outside() {
    let saved = saved();
    fs::write(saved.dir.parent().unwrap().join("outside"), "").unwrap();
    for name in ["../outside", "/etc/hostname", "sub/../manifest.json", ".."] {
        saved.edit_manifest(|manifest| {
            let files = manifest["files"].as_object_mut().unwrap();
            files.retain(|name, _| !name.contains(".."));
            files.insert(name.to_owned(), json!({"size": 0, "sha256": ""}));
        });
        saved.must_be_refused(&["manifest.json", name]);
        saved.edit_manifest(|manifest| drop(manifest["files"].as_object_mut().unwrap().remove(name)));
    }
}

#[test]
fn refuses_a_missing_tokenizer() {
    let saved = saved();
    fs::remove_file(saved.path("tokenizer.json")).unwrap();
    saved.must_be_refused(&["tokenizer.json"]);
}

#[test]
fn refuses_a_manifest_that_does_not_list_a_needed_file() {
    let saved = saved();
    saved.edit_manifest(|manifest| drop(manifest["files"].as_object_mut().unwrap().remove("model.safetensors")));
    saved.must_be_refused(&["manifest.json", "`model.safetensors` is not listed"]);
}
