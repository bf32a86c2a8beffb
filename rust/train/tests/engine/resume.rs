//! A run that stops and continues is the run that never stopped, to the last bit.

use crate::common::{
    Numbers, Regression, alone, assert_same_run, checkpoint, metrics, settings, tensors, train, train_until,
};
use hlrp_train::{Outcome, StopRequest};
use std::path::Path;

/// Trains and asks for a stop during step `stop_at`.
fn train_and_stop(run_dir: &Path, words: &[&str], stop_at: u64) -> Vec<(u64, u64)> {
    let stop = StopRequest::default();
    let request = stop.clone();
    let on_loss = move |step| {
        if step == stop_at {
            request.request();
        }
    };
    let mut task = Regression::default().calling(on_loss);
    let mut data = Numbers::default();
    let outcome = train_until(settings(run_dir, words), &stop, &mut task, &mut data).unwrap();
    assert!(matches!(outcome, Outcome::Interrupted(_)), "{outcome:?}");
    assert_eq!(outcome.summary().step, stop_at, "the step is finished, no further one begun");
    assert_eq!(outcome.summary().checkpoint.as_deref(), Some(checkpoint(run_dir, stop_at).as_path()));
    data.order.lock().unwrap().clone()
}

fn with_resume<'a>(words: &[&'a str], resume: &'a str) -> Vec<&'a str> {
    words.iter().copied().chain([resume]).collect()
}

/// Stops at each of `stops` in turn and compares the run in the end with one that went through.
fn stops_leave_no_trace(words: &[&str], stops: &[u64]) {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(settings(&whole, words)).unwrap();
    let resume = format!("training.resume_from_checkpoint={}", parts.display());
    for (number, stop) in stops.iter().enumerate() {
        let words = if number == 0 { words.to_vec() } else { with_resume(words, &resume) };
        train_and_stop(&parts, &words, *stop);
    }
    train(settings(&parts, &with_resume(words, &resume))).unwrap();
    assert_same_run(&parts, &whole, 12);
}

#[test]
fn at_a_checkpoint_before_and_after_it_and_at_a_validation() {
    stops_leave_no_trace(&[], &[1, 4, 5, 7, 11]);
}

#[test]
fn in_the_middle_of_an_accumulation() {
    stops_leave_no_trace(&["training.gradient.accumulate_steps=3"], &[2, 6]);
}

#[test]
fn with_averaged_weights() {
    let ema = ["training.ema.enabled=true", "training.ema.decay=0.8", "training.ema.update_every_n_steps=2"];
    stops_leave_no_trace(&ema, &[3, 9]);
}

#[test]
fn in_bf16() {
    stops_leave_no_trace(&["precision=bf16-mixed"], &[6]);
}

#[test]
fn the_sample_order_continues_where_it_stopped() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let mut data = Numbers::default();
    train_until(settings(&whole, &[]), &StopRequest::default(), &mut Regression::default(), &mut data).unwrap();
    let expected: Vec<_> = data.order.lock().unwrap()[..12 * 4].to_vec();

    let mut order = train_and_stop(&parts, &[], 7);
    order.truncate(7 * 4); // the rest was prepared ahead and never used
    let resume = format!("training.resume_from_checkpoint={}", parts.display());
    let mut data = Numbers::default();
    train_until(settings(&parts, &[&resume]), &StopRequest::default(), &mut Regression::default(), &mut data).unwrap();
    order.extend_from_slice(&data.order.lock().unwrap()[..5 * 4]);
    assert_eq!(order, expected);
}

#[test]
fn from_an_older_checkpoint_of_the_same_run() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, again) = (folder.path().join("whole"), folder.path().join("again"));
    train(settings(&whole, &[])).unwrap();
    train(settings(&again, &[])).unwrap();
    let resume = format!("training.resume_from_checkpoint={}", checkpoint(&again, 4).display());
    train(settings(&again, &[&resume])).unwrap();
    assert_same_run(&again, &whole, 12);
    let superseded = again.join("checkpoints/step-000012.superseded-1/model.safetensors");
    assert!(superseded.is_file(), "the former checkpoint of the step is kept under another name");
}

#[test]
fn in_a_run_directory_of_its_own() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
    train(settings(&whole, &[])).unwrap();
    let resume = format!("training.resume_from_checkpoint={}", checkpoint(&whole, 8).display());
    train(settings(&part, &[&resume])).unwrap();
    assert_eq!(metrics(&part), metrics(&whole).into_iter().filter(|(step, _)| *step > 8).collect::<Vec<_>>());
    assert_eq!(tensors(&part, 12, "model.safetensors"), tensors(&whole, 12, "model.safetensors"));
}

#[test]
fn a_finished_run_has_nothing_left_to_do() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    train(settings(&run_dir, &[])).unwrap();
    let before = metrics(&run_dir);
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    let outcome = train(settings(&run_dir, &[&resume])).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    assert_eq!(metrics(&run_dir), before);
}
