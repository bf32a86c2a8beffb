//! What happens when a sample cannot be decoded, a thread panics, or a loader is dropped early.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{Behaviour, ids, loader_config, mixture};
use hlrp_config::with_hint;
use hlrp_data::{Batch, DataError, LoadError, Loader, Mixture, Position, Shard};
use hlrp_schema::LoaderConfig;
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

const LENGTHS: [u64; 3] = [10, 10, 10];
const SEED: u64 = 3;

fn with(behaviour: Behaviour, max_bad_samples: usize, num_workers: usize) -> Arc<Mixture> {
    mixture(&LENGTHS, behaviour, LoaderConfig { max_bad_samples, ..loader_config(num_workers) })
}

fn broken(rows: &[u64]) -> Behaviour {
    Behaviour { broken_rows: rows.iter().copied().collect(), ..Behaviour::default() }
}

fn start(mixture: &Arc<Mixture>) -> Loader {
    Loader::train(mixture, SEED, Shard::SINGLE, Position::default()).unwrap()
}

/// Batches up to the first error, and the error.
fn until_error(loader: &mut Loader, at_most: usize) -> (Vec<Batch>, Option<DataError>) {
    let mut batches = Vec::new();
    for _ in 0..at_most {
        match loader.next_batch() {
            Ok(batch) => batches.push(batch),
            Err(error) => return (batches, Some(error)),
        }
    }
    (batches, None)
}

/// Source, episode and frame of a sample.
type Id = (String, u64, u64);

/// Whether row 13, frame 3 of episode 1, is one of the two images of a sample.
fn shows_row_13(id: &Id) -> bool {
    id.1 == 1 && (id.2 == 1 || id.2 == 3)
}

/// The first batches of a healthy dataset.
fn healthy_batches() -> Vec<Batch> {
    until_error(&mut start(&with(Behaviour::default(), 0, 1)), 6).0
}

/// Batches before the one with the `n`-th sample that shows row 13.
fn num_batches_before(n: usize) -> usize {
    let mut num_seen = 0;
    let batches = healthy_batches();
    batches
        .iter()
        .take_while(|batch| {
            num_seen += ids(batch).iter().filter(|id| shows_row_13(id)).count();
            num_seen < n
        })
        .count()
}

#[test]
fn a_bad_sample_is_replaced_by_its_neighbour_in_the_plan() {
    let plan: Vec<_> = healthy_batches().iter().flat_map(ids).collect();
    let wanted: Vec<_> =
        (0..plan.len()).map(|i| plan[i..].iter().find(|id| !shows_row_13(id)).unwrap().clone()).collect();
    for num_workers in [1, 4] {
        let mut loader = start(&with(broken(&[13]), 2, num_workers));
        let (batches, error) = until_error(&mut loader, 6);
        assert!(error.is_none());
        assert_eq!(batches.iter().flat_map(ids).collect::<Vec<_>>(), wanted);
        assert_eq!((loader.stats().num_bad_samples, loader.position().num_bad_samples), (2, 2));
    }
}

#[test]
fn any_number_of_ranks_replaces_the_same_samples_alike() {
    let behaviour = || Behaviour { broken_rows: [2, 13, 14, 25].into(), ..Behaviour::default() };
    let with = |batch_size| {
        mixture(&LENGTHS, behaviour(), LoaderConfig { batch_size, max_bad_samples: 100, ..loader_config(2) })
    };
    let mut alone = start(&with(12));
    let half = with(4);
    let mut ranks: Vec<_> =
        (0..3).map(|rank| Loader::train(&half, SEED, Shard { rank, world: 3 }, Position::default()).unwrap()).collect();
    for _ in 0..4 {
        let whole = ids(&alone.next_batch().unwrap());
        let parts: Vec<_> = ranks.iter_mut().map(|loader| ids(&loader.next_batch().unwrap())).collect();
        let in_turn: Vec<_> = (0..12).map(|place| parts[place % 3][place / 3].clone()).collect();
        assert_eq!(in_turn, whole);
    }
    let num_bad = alone.position().num_bad_samples;
    assert_eq!(ranks.iter().map(|loader| loader.position().num_bad_samples).sum::<u64>(), num_bad);
    assert!(num_bad > 0);
}

#[test]
fn a_broken_image_of_a_clip_costs_the_samples_that_show_it_and_no_other() {
    let run = |behaviour| {
        let config = LoaderConfig { anchors_per_clip: 4, max_bad_samples: 2, ..loader_config(2) };
        let mut loader = start(&mixture(&[30], behaviour, config));
        let batches = until_error(&mut loader, 6).0;
        (batches.iter().flat_map(ids).collect::<Vec<_>>(), loader.position().num_bad_samples)
    };
    let in_row_13 = |id: &Id| id.2 == 11 || id.2 == 13;
    let (plan, _) = run(Behaviour::default());
    let (samples, num_bad) = run(broken(&[13]));
    assert_eq!(num_bad, plan.iter().filter(|id| in_row_13(id)).count() as u64);
    assert_eq!((plan.len(), samples.len()), (24, 24));
    for (planned, sample) in plan.iter().zip(&samples) {
        assert_eq!(planned == sample, !in_row_13(planned), "{planned:?} gave {sample:?}");
    }
}

#[test]
fn beyond_the_budget_the_error_comes_once_at_its_batch_and_names_the_sample() {
    for num_workers in [1, 4] {
        let mut loader = start(&with(broken(&[13]), 1, num_workers));
        let (batches, error) = until_error(&mut loader, 6);
        assert_eq!(batches.len(), num_batches_before(2));
        let text = with_hint(&error.unwrap());
        assert!(text.starts_with("2 samples could not be decoded, data.loader.max_bad_samples allows 1"), "{text}");
        assert!(text.contains("source `fake`, episode 1, frame") && text.contains("row 13 is broken"), "{text}");
        assert!(text.contains("hint: "), "{text}");
        assert!(matches!(loader.next_batch(), Err(DataError::Load(LoadError::Stopped))));
    }
}

#[test]
fn bad_samples_count_on_after_a_resume() {
    let mixture = with(broken(&[13]), 1, 2);
    let mut loader = start(&with(broken(&[13]), 2, 2));
    while loader.position().num_bad_samples < 1 {
        loader.next_batch().unwrap();
    }
    let mut resumed = Loader::train(&mixture, SEED, Shard::SINGLE, loader.position()).unwrap();
    let (_, error) = until_error(&mut resumed, 6);
    assert!(error.unwrap().to_string().starts_with("2 samples"));
}

#[test]
fn when_nothing_can_be_decoded_the_loader_gives_up() {
    let everything: Vec<u64> = (0..30).collect();
    let error = start(&with(broken(&everything), 5, 2)).next_batch().unwrap_err().to_string();
    assert!(error.starts_with("6 samples could not be decoded, data.loader.max_bad_samples allows 5"), "{error}");
}

#[test]
fn a_panic_in_a_thread_becomes_an_error_at_its_batch() {
    let behaviour = Behaviour { panic_rows: [13].into(), ..Behaviour::default() };
    let (batches, error) = until_error(&mut start(&with(behaviour, 100, 2)), 6);
    assert_eq!(batches.len(), num_batches_before(1));
    let text = error.unwrap().to_string();
    assert!(text.contains("episode 1, frame") && text.contains("row 13 makes the decoder panic"), "{text}");
}

#[test]
fn a_panic_over_an_image_of_a_clip_becomes_an_error_at_the_sample_that_shows_it() {
    let config = LoaderConfig { anchors_per_clip: 4, ..loader_config(2) };
    let run = |behaviour| until_error(&mut start(&mixture(&[30], behaviour, config.clone())), 6);
    let shows_it = |batch: &Batch| ids(batch).iter().any(|id| id.2 == 11 || id.2 == 13);
    let num_before = run(Behaviour::default()).0.iter().take_while(|batch| !shows_it(batch)).count();
    let (batches, error) = run(Behaviour { panic_rows: [13].into(), ..Behaviour::default() });
    let text = error.unwrap().to_string();
    assert_eq!(batches.len(), num_before, "{text}");
    assert!(text.contains("episode 0, frame 11") || text.contains("episode 0, frame 13"), "{text}");
}

#[test]
fn validation_ends_after_its_error() {
    let mixture = mixture(&[10; 5], broken(&[25]), loader_config(2));
    let results: Vec<_> = Loader::validation(&mixture, None, Shard::SINGLE).unwrap().collect();
    assert!(results.len() < 3 && results.last().unwrap().is_err());
    assert!(results[..results.len() - 1].iter().all(Result::is_ok));
}

/// Runs `action` and fails when it takes longer than ten seconds.
fn in_time(action: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        action();
        done.send(()).unwrap();
    });
    assert!(wait.recv_timeout(Duration::from_secs(10)).is_ok(), "the loader does not end");
    thread.join().unwrap();
}

#[test]
fn a_loader_can_be_dropped_at_any_time() {
    in_time(|| {
        for num_batches in 0..20 {
            let mut loader = start(&with(Behaviour::default(), 0, 4));
            (0..num_batches).for_each(|_| drop(loader.next_batch().unwrap()));
        }
    });
}

#[test]
fn a_loader_can_be_dropped_with_a_full_queue() {
    in_time(|| {
        let loader = start(&with(Behaviour::default(), 0, 4));
        while loader.stats().num_samples < 12 {
            thread::yield_now();
        }
        drop(loader);
    });
}

#[test]
fn a_loader_can_be_dropped_after_a_failure_and_a_panic() {
    in_time(|| {
        for behaviour in [broken(&[13]), Behaviour { panic_rows: [13].into(), ..Behaviour::default() }] {
            let mut loader = start(&with(behaviour, 0, 4));
            assert!(until_error(&mut loader, 10).1.is_some());
            drop(loader);
        }
    });
}
