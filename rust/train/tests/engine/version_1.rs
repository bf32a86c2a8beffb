//! Runs and checkpoints of format version 1 are read and resumed.

use crate::common::{assert_same_run, checkpoint, settings, train};
use hlrp_schema::TaskDescription;
use hlrp_track::{
    fs::FileDigest,
    run::{Manifest as RunManifest, RunStatus},
};
use hlrp_train::checkpoint::{Checkpoint, Manifest};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A run directory that version 1 wrote: everything but tensors.
fn old_run(stage: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/version_1").join(stage)
}

#[test]
fn an_old_run_is_read() {
    for stage in ["laq", "vla"] {
        let run = RunManifest::read(&old_run(stage)).unwrap();
        assert_eq!((run.program, run.metrics.len()), (format!("hlrp-train-{stage}"), 0));
        assert_eq!(run.sessions[0].status, RunStatus::Finished);
    }
}

#[test]
fn an_old_checkpoint_describes_its_task_as_a_new_one_does() {
    let manifest = |stage: &str| Manifest::read(&old_run(stage).join("checkpoints/step-000010")).unwrap();
    let TaskDescription::Laq(laq) = manifest("laq").task else { panic!("stage 1") };
    assert_eq!((laq.model.dim, laq.pair.image_deltas.as_slice()), (128, [0.0, 20.0].as_slice()));
    let TaskDescription::Vla(vla) = manifest("vla").task else { panic!("stage 2") };
    assert!(vla.objective.mode.with_latents() && vla.teacher.sha256.is_some());
}

#[test]
fn an_old_run_resumes_to_the_same_bits() {
    let _alone = crate::common::alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, run_dir) = (folder.path().join("whole"), folder.path().join("run"));
    train(settings(&whole, &[])).unwrap();
    train(settings(&run_dir, &[])).unwrap();
    for step in [12, 10, 8] {
        fs::remove_dir_all(checkpoint(&run_dir, step)).ok();
    }
    let newest = if checkpoint(&run_dir, 5).exists() { 5 } else { 4 };
    fs::write(run_dir.join("checkpoints/last"), format!("step-{newest:06}\n")).unwrap();
    make_old(&run_dir, &checkpoint(&run_dir, newest));

    assert_eq!(Checkpoint::open(&run_dir).unwrap().state().step, newest);
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    train(settings(&run_dir, &[&resume])).unwrap();
    assert_same_run(&run_dir, &whole, 12);
    assert!(run_dir.join("run.json").exists() && !run_dir.join("manifest.json").exists());
    assert!(run_dir.join("manifest.superseded.json").exists(), "nothing is deleted");
}

/// Writes the files of format version 1 in the place of those of this one.
fn make_old(run_dir: &Path, checkpoint: &Path) {
    edit(&run_dir.join("run.json"), &run_dir.join("manifest.json"), |run| {
        run["format"] = json!(1);
        run.as_object_mut().unwrap().remove("metrics");
    });
    let state = checkpoint.join("state.json");
    edit(&state, &state, |state| state["rng"] = state["rng"][0].take());
    let digest = FileDigest::of(&state).unwrap();
    edit(&checkpoint.join("checkpoint.json"), &checkpoint.join("manifest.json"), |manifest| {
        manifest["format_version"] = json!(1);
        manifest["files"]["state.json"] = serde_json::to_value(&digest).unwrap();
    });
}

fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(from).unwrap()).unwrap();
    change(&mut value);
    fs::remove_file(from).unwrap();
    fs::write(to, serde_json::to_string_pretty(&value).unwrap()).unwrap();
}
