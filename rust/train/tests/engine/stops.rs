//! A request to stop, wherever a run is: within a second, and without anything lost.

use crate::common::{Numbers, Regression, alone, assert_same_run, checkpoint, metrics, settings, train, train_until};
use hlrp_data::{Batch, Position};
use hlrp_torch::World;
use hlrp_train::{BatchStream, Checkpoint, Outcome, SourceRecord, StopRequest, TrainingData, ValidationBatches};
use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Data that never comes.
const FOR_EVER: Duration = Duration::from_secs(600);

/// [`Numbers`], some of which never come.
struct Stuck {
    numbers: Numbers,
    /// Batches of the training that come.
    num_train: usize,
    /// Batches of each validation that come.
    num_validation: usize,
}

struct StuckStream {
    stream: Box<dyn BatchStream>,
    left: usize,
}

impl BatchStream for StuckStream {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        if self.left == 0 {
            thread::sleep(FOR_EVER);
        }
        self.left -= 1;
        self.stream.next_batch()
    }

    fn position(&self) -> Position {
        self.stream.position()
    }
}

impl TrainingData for Stuck {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        self.numbers.sources()
    }

    fn train(&mut self, position: Position, world: &World) -> anyhow::Result<Box<dyn BatchStream>> {
        Ok(Box::new(StuckStream { stream: self.numbers.train(position, world)?, left: self.num_train }))
    }

    fn validation(&mut self, limit_batches: Option<usize>, world: &World) -> anyhow::Result<ValidationBatches> {
        let batches = self.numbers.validation(limit_batches, world)?;
        let mut left = self.num_validation;
        Ok(Box::new(batches.inspect(move |_| {
            if left == 0 {
                thread::sleep(FOR_EVER);
            }
            left -= 1;
        })))
    }
}

/// Trains on data that gets stuck, asks for the stop, and returns what came of it.
fn stopped(run_dir: &Path, num_train: usize, num_validation: usize) -> Outcome {
    let stop = StopRequest::default();
    let request = stop.clone();
    let asked = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        request.request();
        Instant::now()
    });
    let mut data = Stuck { numbers: Numbers::default(), num_train, num_validation };
    let outcome = train_until(settings(run_dir, &[]), &stop, &mut Regression::default(), &mut data);
    let asked = asked.join().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    outcome.unwrap()
}

/// Continues the run, and one that nobody stopped, to their ends.
fn ends_as_if_nothing_had_happened(folder: &Path, run_dir: &Path) {
    let resume = format!("training.resume_from_checkpoint={}", run_dir.display());
    train(settings(run_dir, &[&resume])).unwrap();
    let whole = folder.join("whole");
    train(settings(&whole, &[])).unwrap();
    assert_same_run(run_dir, &whole, 12);
}

#[test]
fn a_run_that_waits_for_data_saves_its_last_step() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    assert!(matches!(stopped(&run_dir, 7, usize::MAX), Outcome::Interrupted(summary) if summary.step == 7));
    assert_eq!(Checkpoint::open(&run_dir).unwrap().state().step, 7);
    ends_as_if_nothing_had_happened(folder.path(), &run_dir);
}

#[test]
fn a_run_that_waits_for_its_first_batch_can_be_resumed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    assert!(matches!(stopped(&run_dir, 0, usize::MAX), Outcome::Interrupted(summary) if summary.step == 0));
    ends_as_if_nothing_had_happened(folder.path(), &run_dir);
}

#[test]
fn a_validation_is_given_up_and_done_again() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    assert!(matches!(stopped(&run_dir, usize::MAX, 1), Outcome::Interrupted(summary) if summary.step == 5));
    let saved = Checkpoint::open(&run_dir).unwrap();
    assert!(saved.manifest().score.is_none() && saved.state().is_unfinished && saved.state().best.is_none());
    assert!(metrics(&run_dir).iter().flat_map(|(_, row)| row).all(|(name, _)| !name.starts_with("val/")));
    ends_as_if_nothing_had_happened(folder.path(), &run_dir);
    assert!(
        Checkpoint::open(&checkpoint(&run_dir, 5)).unwrap().manifest().score.is_some(),
        "the second time it has a score"
    );
}

#[test]
fn a_step_that_was_stopped_before_it_had_a_checkpoint_has_one_afterwards() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let stop = StopRequest::default();
    let request = stop.clone();
    let mut task = Regression::default().calling(move |step| {
        if step == 3 {
            request.request();
        }
    });
    let outcome = train_until(settings(&run_dir, &[]), &stop, &mut task, &mut Numbers::default()).unwrap();
    assert!(matches!(outcome, Outcome::Interrupted(summary) if summary.step == 3));
    ends_as_if_nothing_had_happened(folder.path(), &run_dir);
}
