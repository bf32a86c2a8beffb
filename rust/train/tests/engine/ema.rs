//! The averaged weights: their rule, their use in validation, their place in a checkpoint.

use crate::common::{Numbers, Regression, alone, checkpoint, settings, tensors, train, train_until};
use hlrp_schema::EmaConfig;
use hlrp_train::{Ema, StopRequest, Task, checkpoint::read_weights};
use tch::{Device, Kind, Tensor};

fn config(decay: f64, update_every_n_steps: u64, update_after_step: u64) -> EmaConfig {
    EmaConfig { enabled: true, decay, update_every_n_steps, update_after_step }
}

/// The average after steps in which the only weight was 1, 2, 3, ...
fn averages(config: &EmaConfig, num_steps: u64) -> Vec<f64> {
    let weight = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    let mut ema = Ema::new(&[("w".to_owned(), weight.shallow_clone())], config);
    let mut after = |step: u64| {
        let _ = weight.shallow_clone().fill_(step as f64);
        ema.update(step).unwrap();
        ema.averages()[0].1.double_value(&[0])
    };
    (1..=num_steps).map(&mut after).collect()
}

#[test]
fn the_first_update_copies_and_later_ones_decay() {
    assert_eq!(averages(&config(0.5, 1, 0), 4), [1.0, 1.5, 2.25, 3.125]);
}

#[test]
fn only_the_steps_that_count_are_taken_in() {
    assert_eq!(averages(&config(0.5, 2, 2), 6), [0.0, 0.0, 0.0, 4.0, 4.0, 5.0]);
}

#[test]
fn validation_sees_the_averages_and_training_goes_on_as_if_it_had_not_happened() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let on = ["training.ema.enabled=true", "training.ema.decay=0.9"];
    let (with, without) = (folder.path().join("with"), folder.path().join("without"));
    let mut task = Regression::default();
    train_until(settings(&with, &on), &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap();
    train(settings(&without, &[])).unwrap();
    assert_eq!(tensors(&with, 12, "model.safetensors"), tensors(&without, 12, "model.safetensors"));

    let averages = tensors(&with, 12, "ema.safetensors");
    let seen = task.validated_with.take().unwrap();
    assert_eq!(seen, averages);
    assert_ne!(seen["first.weight"], task.param("first.weight").detach());
    assert_eq!(averages["codes"].get(5), task.param("codes").detach().get(5), "a rewritten row is taken over");
    assert!(!checkpoint(&without, 12).join("ema.safetensors").exists());
}

#[test]
fn the_exported_weights_are_the_averages_and_the_buffers() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(settings(&run_dir, &["training.ema.enabled=true"])).unwrap();
    let exported = read_weights(&run_dir).unwrap();
    assert_eq!(exported["first.weight"], tensors(&run_dir, 12, "ema.safetensors")["first.weight"]);
    assert_eq!(exported["num_calls"].int64_value(&[]), 12);
    assert_eq!(exported.len(), Regression::default().parameters().len() + 1);
}

/// The first update comes after step 8: 5 and 8 are validated, 4 is not.
#[test]
fn a_checkpoint_from_before_the_first_update_has_no_averages_and_resumes() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "training.ema.enabled=true",
        "training.ema.update_after_step=7",
        "training.checkpoint.every_n_steps=1",
        "validation.check_interval=1",
    ];
    let run_dir = folder.path().join("run");
    let mut task = Regression::default();
    train_until(settings(&run_dir, &words), &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap();
    for step in 1..=12 {
        let has_averages = checkpoint(&run_dir, step).join("ema.safetensors").exists();
        assert_eq!(has_averages, step >= 8, "step {step}");
        let exported = read_weights(&checkpoint(&run_dir, step)).unwrap();
        let file = if step < 8 { "model.safetensors" } else { "ema.safetensors" };
        assert_eq!(exported["first.weight"], tensors(&run_dir, step, file)["first.weight"], "step {step}");
    }
    for step in [7, 8] {
        let part = folder.path().join(format!("from-{step}"));
        let resume = format!("training.resume_from_checkpoint={}", checkpoint(&run_dir, step).display());
        let all: Vec<&str> = words.iter().copied().chain([resume.as_str()]).collect();
        train(settings(&part, &all)).unwrap();
        for file in ["model.safetensors", "ema.safetensors"] {
            assert_eq!(tensors(&part, 12, file), tensors(&run_dir, 12, file), "{file} after step {step}");
        }
    }
}
