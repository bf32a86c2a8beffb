//! What may change when a run continues, and what may not.

use crate::common::{Numbers, Regression, alone, checkpoint, settings, train, train_until};
use hlrp_config::Hint;
use hlrp_train::{StopRequest, TrainError, Trainer};
use std::path::Path;

/// What continuing `run_dir` with `words` says.
fn resume(run_dir: &Path, words: &[&str]) -> Result<(), TrainError> {
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    let words: Vec<&str> = words.iter().copied().chain([resume.as_str()]).collect();
    Trainer::new(settings(run_dir, &words), &mut Regression::default(), &mut Numbers::default()).map(drop)
}

#[test]
fn every_key_that_changes_the_computation_is_named_with_both_values() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(settings(&run_dir, &[])).unwrap();
    for (word, line) in [
        ("model.dim=64", "model.dim was 128, is 64"),
        ("seed=7", "seed was 42, is 7"),
        ("precision=bf16-mixed", "precision was 32-true, is bf16-mixed"),
        ("data.request.image_deltas=[0,9]", "data.request.image_deltas was "),
        ("data.sources.metaworld_mt5.num_val_episodes=4", "data.sources.metaworld_mt5.num_val_episodes was 5, is 4"),
        ("training.max_steps=20", "training.max_steps was 12, is 20"),
        ("training.optimizer.lr=5e-4", "training.optimizer.lr was "),
        ("training.ema.enabled=true", "training.ema.enabled was false, is true"),
        ("training.checkpoint.mode=max", "training.checkpoint.mode was min, is max"),
    ] {
        let error = resume(&run_dir, &[word]).unwrap_err();
        let TrainError::Problem(problem) = error else { panic!("{error}") };
        assert_eq!(problem.key(), Some("training.resume_from_checkpoint"));
        assert!(problem.to_string().contains(line) && Hint::hint(&problem).is_some(), "{problem}");
    }
    let error = resume(&run_dir, &["model.dim=64", "seed=7"]).unwrap_err().to_string();
    assert!(error.contains("model.dim") && error.contains("seed"), "{error}");
}

#[test]
fn what_changes_only_speed_places_and_cadence_is_free() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(settings(&run_dir, &[])).unwrap();
    resume(
        &run_dir,
        &[
            "data.loader.num_workers=7",
            "data.cache.enabled=true",
            "data.sources.metaworld_mt5.root=/elsewhere",
            "logging.level=debug",
            "paths.root=/elsewhere",
            "training.log_every_n_steps=3",
            "training.checkpoint.every_n_steps=5",
            "validation.check_interval=2",
        ],
    )
    .unwrap();
}

#[test]
fn a_run_with_a_constant_rate_may_be_lengthened() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let constant = "training.scheduler.type=none";
    train(settings(&run_dir, &[constant])).unwrap();
    resume(&run_dir, &[constant, "training.max_steps=20"]).unwrap();
}

#[test]
fn a_monitor_that_the_validation_does_not_give_is_named_with_those_that_it_does() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let error = train(settings(&run_dir, &["training.checkpoint.monitor=val/accuracy"])).unwrap_err();
    assert!(error.to_string().contains("'val/accuracy'"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("choose one of val/loss"));
    assert!(!run_dir.exists(), "it is refused before the first step");
}

#[test]
fn a_promised_metric_that_is_missing_stops_the_run_with_a_checkpoint_of_that_step() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let settings = settings(&run_dir, &["training.checkpoint.monitor=val/accuracy"]);
    let mut task = Regression::default().promising(&["val/accuracy"]);
    let error = train_until(settings, &StopRequest::default(), &mut task, &mut Numbers::default()).unwrap_err();
    assert!(error.to_string().contains("'val/accuracy'"), "{error}");
    assert!(checkpoint(&run_dir, 5).join("model.safetensors").exists());
}
