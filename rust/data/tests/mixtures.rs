//! Sources in fixed shares: exact within every block, disjoint between ranks, resumable anywhere; uniform over anchors or over episodes.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{FakeDataset, SIZE, ids, loader_config, source, source_config};
use hlrp_config::with_hint;
use hlrp_data::{Clips, Loader, Mixing, Mixture, Pool, Position, Shard, Split, TrainSampler};
use hlrp_schema::{LoaderConfig, SourceConfig, SourceWeight, UniformOver};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Pools of so many anchors, one after the other.
fn pools(sizes: &[u64]) -> Vec<Pool> {
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    let pool = |(index, (end, size)): (usize, (u64, &u64))| Pool {
        key: index as u64 + 7,
        anchors: end - size..end,
        episodes: None,
    };
    ends.zip(sizes).enumerate().map(pool).collect()
}

fn sampler(pools: &[Pool], shares: &[f64], block: u64, shard: Shard, start: Position) -> TrainSampler {
    let num_anchors = pools.last().unwrap().anchors.end;
    let mixing = Mixing::new(pools.to_vec(), shares, block);
    TrainSampler::new(num_anchors, Clips::SINGLE, 5, shard, start).unwrap().mixed(Arc::new(mixing))
}

/// Draws of each pool.
fn counts(pools: &[Pool], anchors: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut counts = vec![0; pools.len()];
    anchors
        .into_iter()
        .for_each(|anchor| counts[pools.iter().position(|pool| pool.anchors.contains(&anchor)).unwrap()] += 1);
    counts
}

/// Ten lists of 2 to 24 weights that differ by up to a factor of 1000, as fractions.
fn random_shares() -> Vec<Vec<f64>> {
    let mut state = 12_345_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let mut list = |_| {
        let weights: Vec<f64> = (0..2 + (random() * 23.0) as usize).map(|_| 1000_f64.powf(random())).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    };
    (0..10).map(&mut list).collect()
}

#[test]
fn random_shares_are_exact_in_every_block_and_over_many() {
    for (shares, block) in random_shares().iter().zip([256, 64, 1, 100, 1000, 7, 256, 4096, 33, 256]) {
        let pools = pools(&(0..shares.len() as u64).map(|index| 50 + 97 * index).collect::<Vec<_>>());
        let sampler = sampler(&pools, shares, block, Shard::SINGLE, Position::default());
        let draws: Vec<u64> = (0..100_000).map(|draw| sampler.draw(draw).anchor).collect();
        let total = counts(&pools, draws.iter().copied());
        for (count, share) in total.iter().zip(shares) {
            // Independent draws would deviate by one standard deviation; these deviate by much less.
            let deviation = (share * (1.0 - share) / 100_000.0).sqrt();
            let realised = *count as f64 / 100_000.0;
            assert!((realised - share).abs() < deviation, "{realised} of {share}, blocks of {block}");
        }
        for of_block in draws.chunks_exact(block as usize) {
            for (count, share) in counts(&pools, of_block.iter().copied()).iter().zip(shares) {
                let wanted = share * block as f64;
                let error = (*count as f64 - wanted).abs();
                // Shares are multiples of 1/65536; the largest takes what rounding leaves.
                let resolution = block as f64 / 65_536.0;
                assert!(error < 1.0 + shares.len() as f64 * resolution, "{count} of {wanted} in a block of {block}");
            }
        }
    }
}

#[test]
fn every_anchor_of_a_source_comes_once_in_its_epoch_and_a_source_without_a_share_never() {
    let pools = pools(&[10, 30, 50]);
    let sampler = sampler(&pools, &[0.75, 0.0, 0.25], 16, Shard::SINGLE, Position::default());
    let draws: Vec<u64> = (0..1600).map(|draw| sampler.draw(draw).anchor).collect();
    // 12 and 4 draws of a block, in random order: 5 blocks are 6 epochs of the first, 25 are 2 of the last.
    for (anchors, num_draws, in_a_row, num_epochs) in [(0..10, 1200, 60, 6), (40..90, 400, 100, 2)] {
        let own: Vec<u64> = draws.iter().copied().filter(|anchor| anchors.contains(anchor)).collect();
        assert_eq!(own.len(), num_draws);
        for epochs in own.chunks_exact(in_a_row) {
            let mut times = BTreeMap::new();
            epochs.iter().for_each(|anchor| *times.entry(*anchor).or_insert(0) += 1);
            assert_eq!(times, anchors.clone().map(|anchor| (anchor, num_epochs)).collect());
        }
    }
}

#[test]
fn two_ranks_are_disjoint_and_a_run_resumes_in_the_middle() {
    let (pools, shares) = (pools(&[400, 90, 610]), [0.2, 0.5, 0.3]);
    let of = |shard, start| sampler(&pools, &shares, 60, shard, start);
    let single = of(Shard::SINGLE, Position::default());
    let whole: Vec<u64> = (0..4000).map(|draw| single.draw(draw).anchor).collect();
    for num_draws in [0, 1, 59, 1100, 2345] {
        let position = single.position(num_draws, 0);
        let resumed = of(Shard::SINGLE, position);
        let rest: Vec<u64> = (0..1000).map(|draw| resumed.draw(draw).anchor).collect();
        assert_eq!(rest, whole[num_draws as usize..][..1000]);
        let ranks = [0, 1].map(|rank| of(Shard { rank, world: 2 }, position));
        let interleaved: Vec<u64> =
            (0..500).flat_map(|draw| ranks.iter().map(move |rank| rank.draw(draw).anchor)).collect();
        assert_eq!(interleaved, rest, "each rank has every second draw, so no draw is on both");
    }
    // Within the epoch of a source no anchor is on both ranks: 80 draws are less than one of each.
    let ranks = [0, 1].map(|rank| of(Shard { rank, world: 2 }, Position::default()));
    let [first, second] = ranks.map(|rank| (0..40).map(|draw| rank.draw(draw).anchor).collect::<BTreeSet<_>>());
    assert!(first.is_disjoint(&second));
}

#[test]
fn uniform_episodes_come_equally_often_and_go_through_all_of_their_anchors() {
    let pool = Pool { key: 3, anchors: 0..111, episodes: Some(vec![0, 100, 110]) };
    let sampler = sampler(&[pool], &[1.0], 8, Shard::SINGLE, Position::default());
    // Draws of a block come in random order, so cycles of episodes end within the same block of 8.
    let draws: Vec<u64> = (0..2400).map(|draw| sampler.draw(draw).anchor).collect();
    let episode = |anchor: &u64| if *anchor < 100 { 0 } else { 1 + usize::from(*anchor == 110) };
    for cycles in draws.chunks_exact(24) {
        let mut times = [0; 3];
        cycles.iter().for_each(|anchor| times[episode(anchor)] += 1);
        assert_eq!(times, [8, 8, 8]);
    }
    let times = |range: Range<u64>| -> BTreeMap<u64, usize> {
        let mut times = BTreeMap::new();
        draws.iter().filter(|anchor| range.contains(anchor)).for_each(|anchor| *times.entry(*anchor).or_default() += 1);
        times
    };
    assert_eq!(times(0..100), (0..100).map(|anchor| (anchor, 8)).collect(), "800 draws of 100 anchors");
    assert_eq!(times(100..110), (100..110).map(|anchor| (anchor, 80)).collect());
}

/// Two sources of 40 and 15 anchors, none held out.
fn mixture(weights: [SourceWeight; 2], loader: LoaderConfig) -> Mixture {
    let sources = [("a", [22, 22]), ("b", [12, 7])].into_iter().zip(weights).map(|((name, lengths), weight)| {
        let config = SourceConfig { weight: Some(weight), ..source_config(0) };
        source(name, FakeDataset::new(&lengths), &config).unwrap()
    });
    Mixture::new(sources.collect(), SIZE, loader).unwrap()
}

fn targets(mixture: &Mixture) -> Vec<f64> {
    mixture.target_shares().map(|(_, share)| (share * 1e6).round() / 1e6).collect()
}

#[test]
fn batches_have_the_shares_of_the_weights() {
    let weights = [SourceWeight::Share(0.25), SourceWeight::Proportionate];
    let loader = LoaderConfig { mixing_block: 4, ..loader_config(2) };
    let mixture = Arc::new(mixture(weights, loader));
    assert_eq!(targets(&mixture), [0.25, 0.75]);
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    let mut whole = Vec::new();
    for _ in 0..30 {
        let batch = ids(&loader.next_batch().unwrap());
        assert_eq!(batch.iter().filter(|(name, ..)| name == "a").count(), 1, "one of four in every batch");
        whole.push(batch);
    }
    let mut first = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    (0..11).for_each(|_| drop(first.next_batch().unwrap()));
    let mut resumed = Loader::train(&mixture, 1, Shard::SINGLE, first.position()).unwrap();
    (11..30).for_each(|number| assert_eq!(ids(&resumed.next_batch().unwrap()), whole[number]));
}

#[test]
fn without_weights_a_source_counts_by_its_anchors_or_its_episodes() {
    let weights = [SourceWeight::Proportionate; 2];
    assert_eq!(targets(&mixture(weights, loader_config(1))), [0.727273, 0.272727], "40 and 15 anchors");
    let over_episodes = LoaderConfig { uniform_over: UniformOver::Episodes, ..loader_config(1) };
    let mixture = Arc::new(mixture(weights, over_episodes));
    assert_eq!(targets(&mixture), [0.5, 0.5], "two episodes each");
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    let mut times = BTreeMap::new();
    for _ in 0..200 {
        for (name, episode, _) in ids(&loader.next_batch().unwrap()) {
            *times.entry((name, episode)).or_insert(0) += 1;
        }
    }
    assert!(times.values().all(|count| *count == 200), "{times:?}");
}

#[test]
fn statistics_are_weighted_as_sampled() {
    // Rows of source a have the values 0 to 43, those of b 0 to 18; a is drawn four times as often.
    let weights = [SourceWeight::Share(4.0), SourceWeight::Share(1.0)];
    let statistics = mixture(weights, loader_config(1)).state_statistics().unwrap().unwrap();
    let mean_of = |n: f64| (n - 1.0) / 2.0;
    let variance_of = |n: f64| (n * n - 1.0) / 12.0;
    let mean = 0.8 * mean_of(44.0) + 0.2 * mean_of(19.0);
    let spread = |n: f64| variance_of(n) + (mean_of(n) - mean).powi(2);
    let std = (0.8 * spread(44.0) + 0.2 * spread(19.0)).sqrt();
    let close = |name: &str, wanted: f64| {
        let value = statistics.values[name][0];
        assert!((value - wanted).abs() < 1e-4, "{name}: {value}, not {wanted}");
    };
    close("mean", mean);
    close("std", std);
    close("min", 0.0);
    close("max", 43.0);
    close("count", 63.0);
    // Above 18 there is only a: 1 % of all samples are the upper 1.25 % of its 44 rows.
    let q99 = statistics.values["q99"][0];
    assert!((42.3..43.0).contains(&q99), "{q99}");

    // Each of the two episodes of a source counts as much as the other, whatever its length: 12 and 7 rows.
    let over_episodes = LoaderConfig { uniform_over: UniformOver::Episodes, ..loader_config(1) };
    let weights = [SourceWeight::Share(0.0), SourceWeight::Share(1.0)];
    let statistics = mixture(weights, over_episodes).state_statistics().unwrap().unwrap();
    let mean = f64::midpoint(mean_of(12.0), 12.0 + mean_of(7.0));
    assert!((statistics.values["mean"][0] - mean).abs() < 1e-4, "{}", statistics.values["mean"][0]);
}

#[test]
fn episodes_are_left_out_and_held_out_by_their_indices() {
    let config = SourceConfig {
        episodes: Some(vec![0, 1, 2, 4, 5]),
        exclude_episodes: Some(vec![2, 3]),
        val_episodes: Some(vec![5, 0]),
        ..source_config(0)
    };
    let episodes = |config: &SourceConfig| -> Result<[Vec<u64>; 2], String> {
        let source = source("robot", FakeDataset::new(&[9; 7]), config).map_err(|error| with_hint(&error))?;
        Ok([Split::Train, Split::Validation]
            .map(|split| source.episodes(split).iter().map(|span| span.episode).collect()))
    };
    assert_eq!(episodes(&config), Ok([vec![1, 4], vec![0, 5]]));
    let refused = |config: SourceConfig| episodes(&config).unwrap_err();
    let error = refused(SourceConfig { val_episodes: Some(vec![2]), ..config.clone() });
    assert!(error.starts_with("data.sources.robot.val_episodes: there is no episode 2 in use\nhint:"), "{error}");
    let error = refused(SourceConfig { exclude_episodes: Some(vec![7]), ..config.clone() });
    assert!(error.starts_with("data.sources.robot.exclude_episodes: there is no episode 7\nhint:"), "{error}");
    let error = refused(SourceConfig { exclude_episodes: Some(vec![0, 1, 2, 4, 5]), ..config.clone() });
    assert!(error.starts_with("data.sources.robot.exclude_episodes: no episode is left\nhint:"), "{error}");
    let error = refused(SourceConfig { exclude_episodes: Some(vec![1, 2, 4]), ..config });
    assert!(error.contains("all of its episodes are held out"), "{error}");
}

#[test]
fn a_weighted_source_without_samples_is_refused() {
    let sources = [("long", [9, 9]), ("short", [2, 2])].map(|(name, lengths)| {
        let config = SourceConfig { weight: Some(SourceWeight::Share(0.5)), ..source_config(0) };
        source(name, FakeDataset::new(&lengths), &config).unwrap()
    });
    let mixture = Mixture::new(sources.into(), SIZE, loader_config(1)).unwrap();
    let error = with_hint(&Loader::check(&mixture, Split::Train, Shard::SINGLE).unwrap_err());
    let wanted = "data.sources.short.weight: its share of the samples is 0.5, but it has no training sample\nhint:";
    assert!(error.starts_with(wanted), "{error}");
}
