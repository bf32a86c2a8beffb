//! A run that resumes on other data than its checkpoint saw, or with another validation set.

use crate::common::{Numbers, Regression, alone, settings, train_until};
use hlrp_config::with_hint;
use hlrp_train::{Checkpoint, Settings, SourceRecord, StopRequest, Trainer};
use std::{collections::BTreeMap, path::Path};

/// Data of one source.
fn numbers(fingerprint: &str, num_episodes: u64) -> Numbers {
    let record = SourceRecord { fingerprint: fingerprint.to_owned(), num_episodes, held_out: vec![1] };
    Numbers { sources: BTreeMap::from([("robot".to_owned(), record)]), ..Numbers::default() }
}

/// A run that was stopped after step 7, whose best score no later one reaches.
fn stopped_run(run_dir: &Path) {
    let stop = StopRequest::default();
    let request = stop.clone();
    let mut task = Regression::default().scoring(-1.0).calling(move |step| {
        if step == 7 {
            request.request();
        }
    });
    train_until(settings(run_dir, &[]), &stop, &mut task, &mut numbers("a", 3)).unwrap();
}

fn resumed(run_dir: &Path, words: &[&str]) -> Settings {
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    let words: Vec<&str> = words.iter().copied().chain([resume.as_str()]).collect();
    settings(run_dir, &words)
}

#[test]
fn the_source_that_changed_is_named_and_how() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    stopped_run(&run_dir);
    assert_eq!(Checkpoint::open(&run_dir).unwrap().state().sources, Some(numbers("a", 3).sources));
    let error = |mut data: Numbers| {
        let refused = Trainer::new(resumed(&run_dir, &[]), &mut Regression::default(), &mut data).err();
        refused.map(|error| with_hint(&error))
    };
    assert_eq!(error(numbers("a", 3)), None);
    let grown = error(numbers("b", 5)).unwrap();
    assert!(grown.starts_with("data.sources.robot.root: the dataset of source `robot` has changed"), "{grown}");
    assert!(grown.contains("it has 5 episodes; it had 3 when the checkpoint was written"), "{grown}");
    assert!(grown.contains("--accept-changed-data"), "{grown}");
    let replaced = error(numbers("b", 3)).unwrap();
    assert!(replaced.contains("its files differ from those that the checkpoint saw"), "{replaced}");
}

#[test]
fn accepted_data_begins_a_new_epoch_and_judges_the_best_anew() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    stopped_run(&run_dir);
    let mut data = numbers("b", 5);
    let settings = Settings { accept_changed_data: true, ..resumed(&run_dir, &[]) };
    let mut task = Regression::default().scoring(7.0);
    train_until(settings, &StopRequest::default(), &mut task, &mut data).unwrap();
    assert_eq!(data.order.lock().unwrap()[0], (1, 0), "the first sample of the next epoch");
    let state = Checkpoint::open(&run_dir).unwrap().state().clone();
    assert_eq!(state.best.map(|best| (best.step, best.value)), Some((10, 7.0)));
    assert_eq!(state.sources, Some(data.sources));
}

#[test]
fn another_validation_set_judges_the_best_anew_and_the_same_one_keeps_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for (name, words, best) in [
        ("same", &["validation.check_interval=2"][..], (5, -1.0)),
        ("smaller", &["validation.limit_batches=1"][..], (10, 7.0)),
        ("divided", &["data.loader.batch_size=8", "training.gradient.accumulate_steps=2"][..], (10, 7.0)),
    ] {
        let run_dir = folder.path().join(name);
        stopped_run(&run_dir);
        let mut task = Regression::default().scoring(7.0);
        let settings = resumed(&run_dir, words);
        train_until(settings, &StopRequest::default(), &mut task, &mut numbers("a", 3)).unwrap();
        let state = Checkpoint::open(&run_dir).unwrap().state().clone();
        assert_eq!(state.best.map(|best| (best.step, best.value)), Some(best), "{name}");
    }
}
