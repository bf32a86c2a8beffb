//! A loss that is not a number stops the run at once and says where it came from.

use crate::common::{Numbers, Regression, alone, checkpoint, settings, tensors, train_until};
use hlrp_data::Position;
use hlrp_train::{StopRequest, TrainError};

/// Sample 26 of the first epoch; with batches of four it comes in step 7.
const POISON: Position = Position { epoch: 0, sample: 26, num_bad_samples: 0 };

fn poisoned(words: &[&str], poisoned: Position) -> (tempfile::TempDir, TrainError) {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let mut data = Numbers { poisoned: Some(poisoned), ..Numbers::default() };
    let result = train_until(settings(&run_dir, words), &StopRequest::default(), &mut Regression::default(), &mut data);
    (folder, result.unwrap_err())
}

#[test]
fn the_report_names_step_samples_and_the_last_good_checkpoint() {
    let _alone = alone();
    let (folder, error) = poisoned(&["validation.check_interval=100"], POISON);
    let TrainError::NotFinite { step, quantity, value, samples, checkpoint: way_back } = &error else {
        panic!("{error}");
    };
    assert_eq!((*step, *quantity, value.is_nan()), (7, "loss", true));
    assert_eq!(samples, "numbers: episode 0 frame 24, 25, 26, 27");
    let good = checkpoint(&folder.path().join("run"), 4);
    assert_eq!(way_back, &good.display().to_string());
    assert!(hlrp_config::Hint::hint(&error).is_some(), "{error}");
    let weights = tensors(&folder.path().join("run"), 4, "model.safetensors");
    assert_eq!(weights["first.weight"].isfinite().all().int64_value(&[]), 1);
}

#[test]
fn the_step_is_exact_with_rare_log_lines() {
    let _alone = alone();
    let (_folder, error) = poisoned(&["training.log_every_n_steps=100"], POISON);
    assert!(error.to_string().starts_with("step 7: the loss is NaN"), "{error}");
}

#[test]
fn the_samples_are_those_of_the_micro_batch() {
    let _alone = alone();
    let (_folder, error) = poisoned(&["training.gradient.accumulate_steps=3"], POISON);
    let text = error.to_string();
    assert!(text.starts_with("step 3: the loss is NaN"), "{text}");
    assert!(text.contains("samples: numbers: episode 0 frame 24, 25, 26, 27"), "{text}");
}

#[test]
fn before_the_first_checkpoint_there_is_none_to_name() {
    let _alone = alone();
    let (_folder, error) = poisoned(&[], Position { sample: 1, ..POISON });
    assert!(error.to_string().contains("last good checkpoint: none yet"), "{error}");
}
