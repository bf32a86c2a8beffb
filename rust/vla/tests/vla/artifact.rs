//! An artifact comes back as it was written, or not at all.

use crate::fixtures::{FixedNoise, batch, distance, expert, processor_spec, tokenizer_folder};
use hlrp_config::with_hint;
use hlrp_nn::{Pass, read_tensors};
use hlrp_schema::policy::{Mode, ObjectiveSpec, TeacherIdentity, TeacherSpec, TeacherWeights};
use hlrp_schema::{DeltaUnit, PairSpacing, PolicySpec};
use hlrp_track::fs::{DiskRules, OnExisting, sha256_of};
use hlrp_train::DeviceBatch;
use hlrp_vla::{Artifact, Prediction, Processor, Provenance, SaveOptions, TimeIndices, VlaError, VlaModel};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

const OBJECTIVE: ObjectiveSpec =
    ObjectiveSpec { mode: Mode::Multitask, latent_loss_weight: 0.1, action_loss_weight: 1.0 };

/// An artifact in a folder of its own.
struct Saved {
    _parent: tempfile::TempDir,
    dir: PathBuf,
    model: VlaModel,
}

fn teacher() -> TeacherIdentity {
    TeacherIdentity {
        sha256: "ab".repeat(32),
        codebook_size: Some(8),
        code_seq_len: 4,
        code_dim: 2,
        image_size: 64,
        pair: PairSpacing { unit: DeltaUnit::Frames, image_deltas: vec![0.0, 5.0] },
    }
}

fn policy() -> PolicySpec {
    let mut spec = TeacherSpec::none(TeacherWeights::Trained, "front".to_owned());
    spec.resolve(Some(&teacher())).unwrap();
    PolicySpec { model: expert(), processor: processor_spec(), objective: OBJECTIVE, teacher: spec }
}

fn save(dir: &Path, model: &VlaModel, policy: &PolicySpec) -> Result<(), VlaError> {
    let provenance = Provenance { experiment: "vla_tiny".to_owned(), step: 7 };
    let options = SaveOptions { on_existing: OnExisting::Refuse, disk: &DiskRules::unlimited(), is_stopped: &|| false };
    Artifact::save(dir, &options, model, policy, &provenance, &tokenizer_folder())
}

fn saved() -> Saved {
    tch::manual_seed(10);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("artifact");
    let model = VlaModel::new(&expert(), Device::Cpu).unwrap();
    save(&dir, &model, &policy()).unwrap();
    Saved { _parent: parent, dir, model }
}

impl Saved {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn edit_record(&self, change: impl FnOnce(&mut Value)) {
        let mut record: Value = serde_json::from_str(&fs::read_to_string(self.path("artifact.json")).unwrap()).unwrap();
        change(&mut record);
        fs::write(self.path("artifact.json"), record.to_string()).unwrap();
    }

    /// Rewrites the weights and lists them anew, as somebody would who forges an artifact.
    fn edit_weights(&self, change: impl FnOnce(&mut Vec<(String, Tensor)>)) {
        let path = self.path("model.safetensors");
        let mut weights = read_tensors(&path).unwrap();
        change(&mut weights);
        Tensor::write_safetensors(&weights, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        self.edit_record(|record| {
            record["files"]["model.safetensors"] = json!({"size": bytes.len(), "sha256": sha256_of(&bytes)});
        });
    }

    /// Reading must fail with one text that holds all of `parts` and a way out.
    fn must_be_refused(&self, parts: &[&str]) {
        let error = Artifact::load(&self.dir, Device::Cpu).err().expect("the artifact was accepted");
        let error = with_hint(&error);
        for part in parts.iter().chain(&["hint:"]) {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
}

fn predict(model: &VlaModel, processor: &Processor, batch: &DeviceBatch) -> Prediction {
    let observation = processor.observe(batch, TimeIndices { image: 0, state: 0, action: 0, label: 0 }).unwrap();
    model.sample(&observation, Mode::Multitask, None, &mut FixedNoise::new(0), &Pass::plain(false)).unwrap()
}

#[test]
fn a_policy_comes_back_bit_for_bit() {
    let saved = saved();
    let artifact = Artifact::load(&saved.dir, Device::Cpu).unwrap();
    assert_eq!(artifact.record.policy, policy());
    assert_eq!(artifact.record.policy.teacher.identity(), Some(teacher()));
    assert_eq!(artifact.processor.spec(), &processor_spec());
    let batch = batch();
    let ours =
        predict(&saved.model, &Processor::new(&expert(), &processor_spec(), &tokenizer_folder()).unwrap(), &batch);
    let theirs = predict(&artifact.model, &artifact.processor, &batch);
    assert_eq!(distance(&ours.actions_BTA.unwrap(), &theirs.actions_BTA.unwrap()), 0.0);
    assert_eq!(distance(&ours.latents_BSD.unwrap(), &theirs.latents_BSD.unwrap()), 0.0);
}

#[test]
fn an_artifact_of_version_1_is_migrated() {
    let saved = saved();
    fs::remove_file(saved.path("artifact.json")).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vla/manifest_version_1.json");
    let mut record: Value = serde_json::from_str(&fs::read_to_string(fixture).unwrap()).unwrap();
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let bytes = fs::read(saved.path(name)).unwrap();
        record["files"][name] = json!({"size": bytes.len(), "sha256": sha256_of(&bytes)});
    }
    fs::write(saved.path("manifest.json"), record.to_string()).unwrap();
    let mut migrated = Artifact::load(&saved.dir, Device::Cpu).unwrap().record;
    assert_eq!(migrated.format_version, 3);
    // Version 1 did not describe what trains.
    migrated.policy.model.backbone.train_expert_only = false;
    migrated.policy.model.backbone.freeze_vision_encoder = false;
    let mut expected = policy();
    expected.model.backbone.load_vlm_weights = true;
    expected.model.backbone.num_vlm_layers = Some(4);
    if let hlrp_schema::policy::ArchSpec::Expert(section) = &mut expected.model.arch {
        section.num_expert_layers = Some(4);
    }
    assert_eq!(migrated.policy, expected);
}

#[test]
fn an_existing_artifact_is_not_overwritten() {
    let saved = saved();
    let before = fs::read(saved.path("artifact.json")).unwrap();
    assert!(save(&saved.dir, &saved.model, &policy()).is_err());
    assert_eq!(fs::read(saved.path("artifact.json")).unwrap(), before);
}

#[test]
fn a_failed_save_leaves_nothing() {
    let saved = saved();
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("artifact");
    let untaught = PolicySpec { teacher: TeacherSpec::none(TeacherWeights::Trained, "front".to_owned()), ..policy() };
    let error = save(&dir, &saved.model, &untaught).unwrap_err();
    assert!(error.to_string().contains("teacher.sha256: null"), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn refuses_a_record_that_is_missing() {
    let saved = saved();
    fs::remove_file(saved.path("artifact.json")).unwrap();
    saved.must_be_refused(&["artifact.json"]);
}

#[test]
fn refuses_a_record_that_is_no_json() {
    let saved = saved();
    fs::write(saved.path("artifact.json"), "{\"format\":").unwrap();
    saved.must_be_refused(&["artifact.json", "invalid JSON"]);
}

/// The section of the architecture.
fn expert_of(record: &mut Value) -> &mut Value {
    &mut record["policy"]["model"]["arch"]["expert"]
}

#[test]
fn refuses_a_missing_key() {
    let saved = saved();
    saved.edit_record(|record| drop(expert_of(record).as_object_mut().unwrap().remove("max_state_dim")));
    saved.must_be_refused(&["artifact.json", "max_state_dim"]);
}

#[test]
fn refuses_an_extra_key() {
    let saved = saved();
    saved.edit_record(|record| record["policy"]["model"]["dropout"] = json!(0.1));
    saved.must_be_refused(&["artifact.json", "dropout"]);
}

#[test]
fn an_artifact_of_version_2_is_migrated() {
    let saved = saved();
    let written = Artifact::load(&saved.dir, Device::Cpu).unwrap().record.policy;
    saved.edit_record(|record| {
        record["format_version"] = json!(2);
        for key in ["latent_head", "latent_dropout"] {
            expert_of(record).as_object_mut().unwrap().remove(key);
        }
        record["policy"]["model"]["latent"].as_object_mut().unwrap().remove("codebook_size");
    });
    assert_eq!(Artifact::load(&saved.dir, Device::Cpu).unwrap().record.policy, written);
}

#[test]
fn refuses_another_format_version() {
    let saved = saved();
    saved.edit_record(|record| record["format_version"] = json!(4));
    saved.must_be_refused(&["artifact.json", "version 4", "reads \"hlrp-vla-artifact\" up to version 3"]);
}

#[test]
fn refuses_sizes_other_than_those_of_the_weights() {
    let saved = saved();
    saved.edit_record(|record| expert_of(record)["max_state_dim"] = json!(9));
    saved.must_be_refused(&["model.safetensors", "model.state_proj.weight"]);
}

#[test]
fn refuses_a_teacher_of_other_sizes() {
    let saved = saved();
    saved.edit_record(|record| record["policy"]["teacher"]["code_dim"] = json!(3));
    saved.must_be_refused(&["artifact.json", "4 codes of 3 dimensions", "4 of 2"]);
}

#[test]
fn refuses_an_invalid_description() {
    let saved = saved();
    saved.edit_record(|record| record["policy"]["model"]["empty_cameras"] = json!(2));
    saved.must_be_refused(&["artifact.json", "policy.model.empty_cameras", "2 of 2"]);
}

#[test]
fn refuses_two_architectures() {
    let saved = saved();
    saved.edit_record(|record| record["policy"]["model"]["arch"]["pooled"] = json!({}));
    saved.must_be_refused(&["artifact.json", "one architecture"]);
}

#[test]
fn refuses_another_image_preparation() {
    let saved = saved();
    saved.edit_record(|record| record["policy"]["processor"]["image_preparation"] = json!("squash"));
    saved.must_be_refused(&["artifact.json", "squash"]);
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
    for name in ["../outside", "/etc/hostname", "sub/../artifact.json", ".."] {
        saved.edit_record(|record| {
            let files = record["files"].as_object_mut().unwrap();
            files.retain(|name, _| !name.contains(".."));
            files.insert(name.to_owned(), json!({"size": 0, "sha256": ""}));
        });
        saved.must_be_refused(&["artifact.json", name]);
        saved.edit_record(|record| drop(record["files"].as_object_mut().unwrap().remove(name)));
    }
}

#[test]
fn refuses_a_missing_tokenizer() {
    let saved = saved();
    fs::remove_file(saved.path("tokenizer.json")).unwrap();
    saved.must_be_refused(&["tokenizer.json"]);
}

#[test]
fn refuses_a_record_that_does_not_list_a_needed_file() {
    let saved = saved();
    saved.edit_record(|record| drop(record["files"].as_object_mut().unwrap().remove("model.safetensors")));
    saved.must_be_refused(&["artifact.json", "`model.safetensors` is not listed"]);
}
