//! Every recorded case of `tests/golden` passes.
#![allow(clippy::unwrap_used)] // a test may panic

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::Tensor;

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn golden(cases: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hlrp-golden")).arg(recorded()).args(["--cases", cases]).output().unwrap()
}

/// Runs the cases that match `glob` and expects `num_cases` lines, all of them ok.
fn assert_all_pass(glob: &str, num_cases: usize) {
    let output = golden(glob);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report.lines().filter(|line| line.contains(" ok ")).count(), num_cases, "{report}");
}

#[test]
fn the_quantizer() {
    assert_all_pass("nsvq_*", 7);
}

#[test]
fn the_pixel_model() {
    assert_all_pass("laq_pixel*", 2);
}

#[test]
fn the_models_with_a_frozen_backbone() {
    assert_all_pass("dinov3*", 2);
    assert_all_pass("laq_dino*", 3);
}

#[test]
fn optical_flow_and_the_model_that_learns_from_it() {
    assert_all_pass("raft_*", 1);
    assert_all_pass("laq_flow*", 1);
}

#[test]
fn ten_optimizer_steps() {
    assert_all_pass("laq_train", 1);
}

#[test]
fn learning_rates() {
    assert_all_pass("schedules", 1);
}

#[test]
fn the_backbone() {
    assert_all_pass("smolvlm", 1);
}

#[test]
fn texts_and_pictures() {
    assert_all_pass("tokenizer", 1);
    assert_all_pass("image_preprocess", 1);
}

#[test]
fn the_expert_policy() {
    assert_all_pass("smolvla_expert_*", 3);
}

#[test]
fn the_pooled_policy() {
    assert_all_pass("vla_pooled", 1);
}

#[test]
fn models_under_bf16_autocast() {
    for cases in ["laq_*", "dinov3*", "smolvl*", "vla_pooled"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hlrp-golden"));
        command.arg(recorded()).args(["--cases", cases, "--precision", "bf16-mixed"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_case_that_cannot_be_computed_leaves_the_others_alone() {
    let root = tempfile::tempdir().unwrap();
    for name in ["nsvq_g8_s1", "nsvq_g8_s2", "schedules"] {
        fs::create_dir(root.path().join(name)).unwrap();
        for entry in fs::read_dir(recorded().join(name)).unwrap().flatten() {
            fs::copy(entry.path(), root.path().join(name).join(entry.file_name())).unwrap();
        }
    }
    fs::remove_file(root.path().join("nsvq_g8_s1/weights.safetensors")).unwrap();
    let inputs = root.path().join("nsvq_g8_s2/inputs.safetensors");
    let shapeless: Vec<(String, Tensor)> = Tensor::read_safetensors(&inputs).unwrap();
    let shapeless: Vec<(String, Tensor)> =
        shapeless.into_iter().map(|(name, tensor)| (name, tensor.reshape([-1]))).collect();
    Tensor::write_safetensors(&shapeless, &inputs).unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_hlrp-golden")).arg(root.path()).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    let lines: Vec<&str> = report.lines().collect();
    assert!(lines[0].starts_with("nsvq_g8_s1") && lines[0].contains("weights.safetensors"), "{report}");
    assert!(lines[1].starts_with("nsvq_g8_s2") && lines[1].contains(" FAIL "), "{report}");
    assert!(lines[2].starts_with("schedules") && lines[2].contains(" ok "), "{report}");
}

#[test]
fn a_case_that_does_not_exist_fails() {
    let output = golden("no_such_case");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no case that matches `no_such_case`"));
}

/// A recorded case that is changed in a consistent way.
struct Varied {
    dir: PathBuf,
    config: Value,
    scalars: Value,
    inputs: BTreeMap<String, Tensor>,
    outputs: BTreeMap<String, Tensor>,
}

impl Varied {
    fn of(root: &Path, name: &str) -> Self {
        let recorded = recorded().join(name);
        let dir = root.join(name);
        fs::create_dir_all(&dir).unwrap();
        for entry in fs::read_dir(&recorded).unwrap().flatten() {
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        let noise: Value =
            serde_json::from_str(&fs::read_to_string(recorded.with_file_name("noise.json")).unwrap()).unwrap();
        fs::write(root.join("noise.json"), noise.to_string()).unwrap();
        let read = |file: &str| serde_json::from_str(&fs::read_to_string(dir.join(file)).unwrap()).unwrap();
        let tensors = |file: &str| Tensor::read_safetensors(dir.join(file)).unwrap().into_iter().collect();
        let (config, scalars) = (read("config.json"), read("outputs.json"));
        let (inputs, outputs) = (tensors("inputs.safetensors"), tensors("outputs.safetensors"));
        Self { dir, config, scalars, inputs, outputs }
    }

    fn passes(self) {
        fs::write(self.dir.join("config.json"), self.config.to_string()).unwrap();
        fs::write(self.dir.join("outputs.json"), self.scalars.to_string()).unwrap();
        for (file, tensors) in [("inputs.safetensors", &self.inputs), ("outputs.safetensors", &self.outputs)] {
            let tensors: Vec<(&String, &Tensor)> = tensors.iter().collect();
            Tensor::write_safetensors(&tensors, self.dir.join(file)).unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_hlrp-golden")).arg(self.dir.parent().unwrap()).output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && report.contains(" ok "),
            "{report}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn weights_and_prompts_are_those_of_the_case() {
    let root = tempfile::tempdir().unwrap();
    let mut case = Varied::of(root.path(), "vla_pooled");
    let (latent, action) = (0.25, 3.0);
    case.config["backend"]["latent_loss_weight"] = json!(latent);
    case.config["backend"]["action_loss_weight"] = json!(action);
    case.config["backend"].as_object_mut().unwrap().remove("system_prompt");
    case.scalars["prompt_strings"] = case.config["instructions"].clone();
    let mean = |case: &Varied, name: &str| case.outputs[name].shallow_clone();
    let (latents, actions) = (
        mean(&case, "mode.multitask.metric.latent_loss") * latent,
        mean(&case, "mode.multitask.metric.action_loss") * action,
    );
    let own = mean(&case, "mode.latent_flow.metric.latent_loss") * latent;
    for (mode, total) in [("multitask", &latents + &actions), ("latent_flow", own), ("actions", actions)] {
        for name in ["total", "metric.loss"] {
            case.outputs.insert(format!("mode.{mode}.{name}"), total.shallow_clone());
        }
    }
    // Recorded with the former weight of 0.5.
    for (name, gradient) in &mut case.outputs {
        if name.starts_with("grad_actions.") {
            *gradient = gradient.shallow_clone() * (action / 0.5);
        }
    }
    case.passes();
}

#[test]
fn images_are_found_whatever_their_names() {
    let root = tempfile::tempdir().unwrap();
    let mut case = Varied::of(root.path(), "smolvlm");
    let renamed = |tensors: BTreeMap<String, Tensor>| -> BTreeMap<String, Tensor> {
        let new = |name: String| name.replacen("img64.", "native.", 1).replacen("img96.", "large.", 1);
        tensors.into_iter().map(|(name, tensor)| (new(name), tensor)).collect()
    };
    (case.inputs, case.outputs) = (renamed(case.inputs), renamed(case.outputs));
    case.passes();
}
