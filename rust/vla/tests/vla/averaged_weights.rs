//! Every reader of a checkpoint gets the weights that its score belongs to: the trained ones before the first update of the averages, the
//! averages from then on.

use crate::fixtures::distance;
use crate::stage_1::{StageOne, pairs, train_stage_1};
use hlrp_laq::{LaqInference, Parts};
use hlrp_track::fs::FileDigest;
use hlrp_train::checkpoint::{Checkpoint, load_weights, read_weights};
use hlrp_vla::{Teacher, TeacherInit};
use std::collections::BTreeMap;
use tch::{Device, Tensor};

/// The averages are first updated after step 2.
const OVERRIDES: [&str; 4] = [
    "training.ema.enabled=true",
    "training.ema.update_after_step=1",
    "training.ema.decay=0.5",
    "training.checkpoint.every_n_steps=1",
];

#[test]
fn every_reader_at_the_steps_before_at_and_after_the_first_update() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    let overrides = [&OVERRIDES[..], &["training.max_steps=3"]].concat();
    let StageOne { tensors, .. } = train_stage_1(&run_dir, &overrides);
    let initial: BTreeMap<String, Tensor> = train_stage_1(
        &parent.path().join("untrained"),
        &["training.max_steps=1", "training.optimizer.lr=1e-30", "training.scheduler.type=none"],
    )
    .tensors
    .into_iter()
    .collect();
    for (step, file) in [(1, "model.safetensors"), (2, "ema.safetensors"), (3, "ema.safetensors")] {
        let folder = run_dir.join(format!("checkpoints/step-{step:06}"));
        assert_eq!(folder.join("ema.safetensors").exists(), file == "ema.safetensors", "step {step}");
        let wanted: BTreeMap<String, Tensor> =
            Tensor::read_safetensors(folder.join(file)).unwrap().into_iter().collect();
        let name = wanted.keys().find(|name| name.ends_with("weight") && wanted[*name].dim() == 2).unwrap();
        let is_wanted = |found: &Tensor, reader: &str| {
            assert_eq!(distance(&found.to_device(Device::Cpu), &wanted[name]), 0.0, "{reader} at step {step}");
        };
        assert!(distance(&wanted[name], &initial[name]) > 0.0, "step {step} exports what was learned");

        is_wanted(&read_weights(&folder).unwrap()[name], "read_weights");
        is_wanted(&Checkpoint::open(&folder).unwrap().weights().unwrap()[name], "Checkpoint::weights");
        let target: Vec<(String, Tensor)> =
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        load_weights(&folder, &target).unwrap();
        is_wanted(&target.iter().find(|(known, _)| known == name).unwrap().1, "load_weights");

        // What starts from the checkpoint learns next to nothing more.
        let start = format!("training.load_weights_from={}", folder.display());
        let still = ["training.max_steps=1", "training.optimizer.lr=1e-30", "training.scheduler.type=none", &start];
        let started = train_stage_1(&parent.path().join(format!("from-{step}")), &still).tensors;
        is_wanted(&started.iter().find(|(known, _)| known == name).unwrap().1, "training.load_weights_from");

        // A teacher labels with these weights and is named after their file.
        let digest = FileDigest::of(&folder.join(file)).unwrap();
        let laq = LaqInference::load(&folder, Parts::Encoder, Device::Cpu).unwrap();
        assert_eq!(laq.weights_sha256(), Some(digest.sha256.as_str()), "step {step}");
        let teacher = Teacher::load(&folder, TeacherInit::Trained, Device::Cpu).unwrap();
        assert_eq!(teacher.identity().sha256, digest.sha256, "step {step}");
        let pairs = pairs();
        assert_eq!(teacher.codes(&pairs).unwrap(), laq.codes(&pairs).unwrap());
    }
}
