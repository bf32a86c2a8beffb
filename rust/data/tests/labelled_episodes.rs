//! Actions of episodes without a label are nowhere: not in samples, not in statistics. Batches hold both kinds in a fixed share.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{FakeDataset, SIZE, ids, loader_config, source, source_config};
use hlrp_config::with_hint;
use hlrp_data::{Balance, Clips, LabelRequest, Loader, Mixture, Position, Shard, Split, TrainSampler};
use hlrp_schema::{LoaderConfig, SourceConfig};
use hlrp_track::run::LabelShare;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Episodes 1 and 4 of two sources are labelled; episode 3 of six is held out.
fn mixture(loader: LoaderConfig) -> Arc<Mixture> {
    let config = SourceConfig { labelled_episodes: Some(vec![4, 1]), ..source_config(1) };
    let sources = ["a", "b"].map(|name| source(name, FakeDataset::new(&[9, 5, 7, 20, 6, 11]), &config).unwrap());
    Arc::new(Mixture::new(sources.into(), SIZE, loader).unwrap())
}

fn balanced(num_workers: usize) -> LoaderConfig {
    LoaderConfig { labelled_fraction: Some(0.25), ..loader_config(num_workers) }
}

#[test]
fn only_labelled_and_held_out_episodes_show_actions() {
    let mixture = mixture(loader_config(2));
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    let mut kinds = BTreeSet::new();
    for _ in 0..40 {
        let batch = loader.next_batch().unwrap();
        let action = batch.action.as_ref().unwrap();
        for (meta, (values, is_pad)) in
            batch.meta.iter().zip(action.values_BTN.chunks(6).zip(action.is_pad_BT.chunks(3)))
        {
            let is_labelled = [1, 4].contains(&meta.episode);
            kinds.insert(is_labelled);
            assert_eq!(is_pad[1], !is_labelled, "the action at the anchor itself, of {meta:?}");
            assert!(is_labelled || values.iter().all(|value| *value == 0.0) && is_pad.iter().all(|is_pad| *is_pad));
        }
        let state = batch.state.as_ref().unwrap();
        assert!(state.is_pad_BT.iter().all(|is_pad| !is_pad), "states are seen in every episode");
    }
    assert_eq!(kinds.len(), 2);
    for batch in Loader::validation(&mixture, None, Shard::SINGLE).unwrap() {
        let action = batch.unwrap().action.unwrap();
        assert!(action.is_pad_BT.chunks(3).all(|is_pad| !is_pad[1]));
    }
}

#[test]
fn statistics_of_actions_are_those_of_labelled_episodes() {
    let mixture = mixture(loader_config(1));
    let [state, action] =
        [mixture.state_statistics(), mixture.action_statistics()].map(|found| found.unwrap().unwrap());
    // Of each source 9 + 5 + 7 + 6 + 11 rows are for training, and 5 + 6 of them are labelled.
    assert_eq!((state.values["count"][0], action.values["count"][0]), (76.0, 22.0));
    // A row's value is its number: episode 1 begins at row 9, episode 4 ends at row 46.
    assert_eq!((action.values["min"][0], action.values["max"][0]), (9.0, 46.0));
}

#[test]
fn statistics_of_states_count_labelled_episodes_as_often_as_they_are_drawn() {
    let mean = |loader| mixture(loader).state_statistics().unwrap().unwrap().values["mean"][0];
    let rows = |ranges: &[std::ops::Range<u64>]| {
        let rows: Vec<f64> = ranges.iter().cloned().flatten().map(|row| row as f64).collect();
        rows.iter().sum::<f64>() / rows.len() as f64
    };
    let (labelled, others) = (rows(&[9..14, 41..47]), rows(&[0..9, 14..21, 47..58]));
    assert!((mean(balanced(1)) - (0.25 * labelled + 0.75 * others)).abs() < 1e-5);
    assert!((mean(loader_config(1)) - (11.0 * labelled + 27.0 * others) / 38.0).abs() < 1e-5, "every row once");
}

#[test]
fn every_batch_has_its_share_of_labelled_episodes_and_each_kind_has_epochs_of_its_own() {
    let mixture = mixture(balanced(2));
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    // Anchors of each source: two images, two frames apart. (5 - 2) + (6 - 2) are labelled, (9 - 2) + (7 - 2) + (11 - 2) are not.
    let (num_labelled, num_other) = (14, 42);
    let (mut labelled, mut other): (BTreeMap<_, u64>, BTreeMap<_, u64>) = Default::default();
    for _ in 0..3 * num_labelled {
        let batch = loader.next_batch().unwrap();
        let (of_labels, of_others): (Vec<_>, Vec<_>) =
            ids(&batch).into_iter().partition(|(_, episode, _)| [1, 4].contains(episode));
        assert_eq!((of_labels.len(), of_others.len()), (1, 3));
        of_labels.into_iter().for_each(|id| *labelled.entry(id).or_default() += 1);
        of_others.into_iter().for_each(|id| *other.entry(id).or_default() += 1);
    }
    assert_eq!((labelled.len(), other.len()), (num_labelled, num_other));
    let all_times: BTreeSet<u64> = labelled.into_values().chain(other.into_values()).collect();
    assert_eq!(all_times, BTreeSet::from([3]), "three epochs of each kind");
}

#[test]
fn a_balanced_stream_resumes_anywhere_on_any_number_of_ranks() {
    let balance = Balance { num_labelled: 9, fraction: 0.3 };
    let start = |rank, world, position| {
        TrainSampler::new(100, Clips::SINGLE, 3, Shard { rank, world }, position).unwrap().balanced(balance)
    };
    let single = start(0, 1, Position::default());
    let whole: Vec<u64> = (0..1000).map(|draw| single.draw(draw).anchor).collect();
    for (nth, block) in whole.chunks(10).enumerate() {
        assert_eq!(block.iter().filter(|anchor| **anchor < 9).count(), 3, "block {nth}");
    }
    for num_draws in [0, 1, 99, 100, 101, 640] {
        let position = single.position(num_draws, 0);
        for world in [1, 2, 4] {
            let ranks: Vec<_> = (0..world).map(|rank| start(rank, world, position)).collect();
            let found: Vec<u64> =
                (0..40 / world).flat_map(|draw| ranks.iter().map(move |rank| rank.draw(draw).anchor)).collect();
            assert_eq!(found, whole[num_draws as usize..][..40], "from {num_draws} on {world} ranks");
        }
    }
}

#[test]
fn what_cannot_be_labelled_or_balanced_is_named() {
    let refuse = |labelled: Vec<u64>| {
        let config = SourceConfig { labelled_episodes: Some(labelled), ..source_config(1) };
        with_hint(&source("robot", FakeDataset::new(&[10; 4]), &config).err().unwrap())
    };
    let held_out = refuse(vec![0, 2]);
    assert!(
        held_out.starts_with("data.sources.robot.labelled_episodes: episode 2 is no training episode\nhint:"),
        "{held_out}"
    );
    assert!(refuse(vec![9]).contains("episode 9"));

    let all = source("robot", FakeDataset::new(&[10; 4]), &source_config(1)).unwrap();
    let mixture = Mixture::new(vec![all], SIZE, balanced(1)).unwrap();
    let error = with_hint(&Loader::check(&mixture, Split::Train, Shard::SINGLE).unwrap_err());
    assert!(
        error.starts_with("data.loader.labelled_fraction: every training sample is of a labelled episode"),
        "{error}"
    );
}

#[test]
fn a_whole_batch_may_be_of_labelled_episodes() {
    let mixture = mixture(LoaderConfig { labelled_fraction: Some(1.0), ..loader_config(1) });
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    let seen: BTreeSet<_> = (0..28).flat_map(|_| ids(&loader.next_batch().unwrap())).collect();
    assert!(seen.iter().all(|(_, episode, _)| [1, 4].contains(episode)));
    assert_eq!(seen.len(), 14, "every labelled anchor and no other");
}

#[test]
fn labels_come_at_their_offsets_and_are_padded_at_the_ends() {
    let mixture = mixture(loader_config(1));
    let labels = LabelRequest { keys: vec!["action".to_owned()], deltas: vec![-3.0, 0.0] };
    let with_labels = Arc::new(mixture.with_request(&fake::request(), &[0.0], &labels).unwrap());
    assert_eq!(with_labels.layout().labels, BTreeMap::from([("action".to_owned(), [2, 2])]));
    let mut loader = Loader::train(&with_labels, 1, Shard::SINGLE, Position::default()).unwrap();
    let mut num_padded = 0;
    for _ in 0..20 {
        let batch = loader.next_batch().unwrap();
        let stream = &batch.labels["action"];
        assert_eq!(stream.shape, [batch.meta.len(), 2, 2]);
        let samples = stream.values_BTN.chunks(4).zip(stream.is_pad_BT.chunks(2));
        for (meta, (values, is_pad)) in batch.meta.iter().zip(samples) {
            // Also those of episodes whose actions are hidden: a label is no action.
            assert_eq!(is_pad, [meta.frame < 3, false], "of {meta:?}");
            let first = values[2] - meta.frame as f32;
            let before = first + meta.frame.saturating_sub(3) as f32;
            assert_eq!((values[0], values[3]), (before, values[2] + 0.1), "rows count on through the dataset");
            num_padded += usize::from(is_pad[0]);
        }
    }
    assert!(num_padded > 0);
    let missing = LabelRequest { keys: vec!["nothing".to_owned()], deltas: vec![0.0] };
    let error = with_hint(&mixture.with_request(&fake::request(), &[0.0], &missing).err().unwrap());
    assert!(error.starts_with("data.sources.a.root: the dataset has no labels `nothing`\nhint:"), "{error}");
}

#[test]
fn the_labelled_part_of_a_mixture_has_labelled_episodes_alone() {
    let mixture = mixture(balanced(1));
    let labelled = Arc::new(mixture.labelled().unwrap());
    assert_eq!(labelled.anchors(Split::Train).len(), 14);
    assert_eq!(labelled.anchors(Split::Validation).len(), mixture.anchors(Split::Validation).len());
    let mut loader = Loader::train(&labelled, 1, Shard::SINGLE, Position::default()).unwrap();
    for _ in 0..8 {
        let batch = loader.next_batch().unwrap();
        assert!(batch.meta.iter().all(|meta| [1, 4].contains(&meta.episode)), "{:?}", batch.meta);
    }
    let share = LabelShare { num_episodes: 2, num_samples: 7, of_episodes: 5, of_samples: 28 };
    assert_eq!(mixture.label_shares(), [("a".to_owned(), share), ("b".to_owned(), share)].into());
}

#[test]
fn sources_of_different_actions_have_no_labelled_part() {
    let without = SourceConfig { action_key: None, ..source_config(1) };
    let sources = [("a", source_config(1)), ("b", without)]
        .map(|(name, config)| source(name, FakeDataset::new(&[9, 5]), &config).unwrap());
    let mixture = Mixture::new(sources.into(), SIZE, loader_config(1)).unwrap();
    let error = with_hint(&mixture.labelled().err().unwrap());
    assert!(error.starts_with("data.sources.b.action_key: it has no actions, unlike source `a`"), "{error}");
    assert_eq!(mixture.label_shares().into_keys().collect::<Vec<_>>(), ["a"]);
}
