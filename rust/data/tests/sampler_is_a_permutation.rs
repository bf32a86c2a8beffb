//! The sampler is a pure function of (seed, epoch, rank): a permutation per epoch, disjoint between ranks, resumable anywhere.
#![allow(clippy::unwrap_used)]

use hlrp_config::with_hint;
use hlrp_data::{Clips, DataError, Draw, Permutation, Position, Shard, TrainSampler, ValidationSampler};
use std::collections::{BTreeMap, BTreeSet};

fn sampler(num_anchors: u64, seed: u64, rank: u64, world: u64) -> TrainSampler {
    TrainSampler::new(num_anchors, Clips::SINGLE, seed, Shard { rank, world }, Position::default()).unwrap()
}

/// Clips of eight anchors, batches of 24.
const CLIPS: Clips = Clips::new(8, 24);

#[test]
fn every_length_is_permuted() {
    for len in (1..=300).chain([1023, 1024, 1025, 65_537]) {
        let permutation = Permutation::new(len, [7, len]);
        let seen: BTreeSet<u64> = (0..len).map(|position| permutation.get(position)).collect();
        assert_eq!((seen.len() as u64, seen.last().copied()), (len, Some(len - 1)), "length {len}");
    }
}

#[test]
fn an_epoch_holds_every_anchor_once_and_the_next_one_in_another_order() {
    let sampler = sampler(1000, 42, 0, 1);
    let epochs: Vec<Vec<u64>> =
        (0..3).map(|e| (e * 1000..(e + 1) * 1000).map(|d| sampler.draw(d).anchor).collect()).collect();
    for order in &epochs {
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 1000);
    }
    let num_same_place = epochs[0].iter().zip(&epochs[1]).filter(|(a, b)| a == b).count();
    assert!(num_same_place < 10, "{num_same_place} of 1000 anchors at the same place in two epochs");
}

#[test]
fn the_same_seed_gives_the_same_order_and_another_seed_another() {
    let order = |seed| (0..500).map(|draw| sampler(500, seed, 0, 1).draw(draw).anchor).collect::<Vec<_>>();
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn ranks_are_disjoint_and_together_complete_whatever_their_number() {
    for world in [1, 2, 3, 7, 16] {
        // 1003 is no multiple of most of these: the epoch's end falls at another rank each time.
        let num_anchors = 1003;
        let mut times_drawn = vec![0; num_anchors as usize];
        for rank in 0..world {
            // `world` epochs are a whole number of draws for each rank.
            (0..num_anchors)
                .map(|draw| sampler(num_anchors, 9, rank, world).draw(draw).anchor)
                .for_each(|a| times_drawn[a as usize] += 1);
        }
        assert!(times_drawn.iter().all(|&n| n == world), "{world} ranks");
    }
}

#[test]
fn a_global_batch_is_the_same_on_any_number_of_ranks() {
    for clips in [Clips::SINGLE, CLIPS] {
        let global_batch = |world: u64, step: u64| -> BTreeSet<u64> {
            let per_rank = 24 / world;
            let ranks = (0..world)
                .map(|rank| TrainSampler::new(1000, clips, 5, Shard { rank, world }, Position::default()).unwrap());
            ranks.flat_map(|s| (step * per_rank..(step + 1) * per_rank).map(move |d| s.draw(d).anchor)).collect()
        };
        for step in 0..100 {
            assert_eq!(global_batch(1, step), global_batch(4, step));
            assert_eq!(global_batch(1, step), global_batch(6, step));
        }
    }
}

#[test]
fn a_run_resumes_at_any_position_on_any_number_of_ranks() {
    for clips in [Clips::SINGLE, CLIPS] {
        let start = |shard, position| TrainSampler::new(777, clips, 3, shard, position).unwrap();
        let single = start(Shard::SINGLE, Position::default());
        let whole: Vec<Draw> = (0..5000).map(|draw| single.draw(draw)).collect();
        for num_draws in [0, 1, 776, 777, 778, 2000, 3108] {
            let position = single.position(num_draws, 0);
            assert_eq!(position.epoch * 777 + position.sample, num_draws);
            let resumed = start(Shard::SINGLE, position);
            let rest: Vec<Draw> = (0..1000).map(|draw| resumed.draw(draw)).collect();
            assert_eq!(rest, whole[num_draws as usize..][..1000]);

            let two: Vec<_> = (0..2).map(|rank| start(Shard { rank, world: 2 }, position)).collect();
            let interleaved: Vec<Draw> = (0..500).flat_map(|draw| two.iter().map(move |s| s.draw(draw))).collect();
            assert_eq!(interleaved, rest);
            assert_eq!(two[1].position(500, 0), resumed.position(1000, 0));
        }
    }
}

/// All draws of one epoch.
fn epoch(num_anchors: u64, clips: Clips, epoch: u64) -> Vec<Draw> {
    let start = Position { epoch, ..Position::default() };
    let sampler = TrainSampler::new(num_anchors, clips, 11, Shard::SINGLE, start).unwrap();
    (0..num_anchors).map(|draw| sampler.draw(draw)).collect()
}

#[test]
fn with_clips_an_epoch_holds_every_anchor_once_too() {
    for num_anchors in (1..=100).chain([777, 1000, 1023]) {
        for (anchors_per_clip, global_batch) in [(1, 7), (2, 4), (3, 4), (3, 7), (8, 4), (8, 24), (100, 1)] {
            let clips = Clips::new(anchors_per_clip, global_batch);
            if clips.window() > num_anchors {
                continue;
            }
            let draws = epoch(num_anchors, clips, 2);
            let seen: BTreeSet<u64> = draws.iter().map(|draw| draw.anchor).collect();
            let what = format!("{num_anchors} anchors, clips of {anchors_per_clip}, batches of {global_batch}");
            assert_eq!((seen.len() as u64, seen.last().copied()), (num_anchors, Some(num_anchors - 1)), "{what}");
            assert!(draws.iter().all(|draw| draw.clip.contains(&draw.anchor)), "{what}");
        }
    }
}

#[test]
fn clips_of_one_anchor_are_the_order_without_clips() {
    assert_eq!(epoch(1000, Clips::new(1, 24), 3), epoch(1000, Clips::SINGLE, 3));
}

#[test]
fn no_batch_holds_two_anchors_that_are_decoded_together() {
    // Batches run across the ends of epochs, and behind the windows of each are a few anchors, less than a batch or more.
    for (num_anchors, anchors_per_clip, global_batch) in [(777, 8, 24), (5000, 8, 24), (1003, 5, 7), (96, 3, 32)] {
        let clips = Clips::new(anchors_per_clip, global_batch);
        let of_epoch = |number| epoch(num_anchors, clips, number).into_iter().map(move |draw| (number, draw));
        let stream: Vec<(u64, Draw)> = (0..4).flat_map(of_epoch).collect();
        for batch in stream.chunks(global_batch as usize) {
            let together: Vec<_> = batch
                .iter()
                .filter(|(_, draw)| !draw.is_alone())
                .map(|(epoch, draw)| (epoch, draw.clip.start))
                .collect();
            let distinct: BTreeSet<_> = together.iter().collect();
            assert_eq!(distinct.len(), together.len(), "{num_anchors} anchors: {together:?}");
        }
    }
}

#[test]
fn a_clip_gives_one_anchor_to_each_of_as_many_successive_batches() {
    let draws = epoch(5000, CLIPS, 0);
    let mut batches_of_clip: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (number, batch) in draws.chunks(24).enumerate() {
        for draw in batch.iter().filter(|draw| !draw.is_alone()) {
            batches_of_clip.entry(draw.clip.start).or_default().push(number);
        }
    }
    // 26 windows of 24 clips; at most one clip of each slot is split between the beginning and the end of the epoch.
    assert_eq!(batches_of_clip.len(), 26 * 24);
    let is_in_a_row = |batches: &&Vec<usize>| batches.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(batches_of_clip.values().all(|batches| batches.len() == 8));
    assert!(batches_of_clip.values().filter(is_in_a_row).count() >= 25 * 24);
}

#[test]
fn within_an_epoch_every_batch_begins_as_many_clips() {
    let mut seen = BTreeSet::new();
    let num_new: Vec<usize> = epoch(5000, CLIPS, 0)
        .chunks(24)
        .map(|batch| batch.iter().filter(|draw| seen.insert(draw.clip.start)).count())
        .collect();
    // The first batch meets every slot's clip for the first time, the last eight those that the epoch's beginning cut off.
    assert_eq!((num_new[0], &num_new[1..201]), (24, &[3; 200][..]));
}

#[test]
fn what_fills_no_window_comes_last_and_is_spread() {
    // 777 anchors: 4 windows of 192, then at least 9 anchors one by one.
    let draws = epoch(777, CLIPS, 0);
    let is_alone: Vec<bool> = draws.iter().map(Draw::is_alone).collect();
    assert_eq!(is_alone.iter().filter(|&&alone| alone).count(), 777 - 768);
    assert!(is_alone[768..].iter().all(|&alone| alone));
    // 24 anchors of three clips and up to seven others: drawn at random, neighbours rarely follow one another.
    let rest: Vec<u64> = epoch(5000 + 23, CLIPS, 0)[4992..].iter().map(|draw| draw.anchor).collect();
    let num_neighbours = rest.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
    assert!(num_neighbours < 8, "{rest:?}");
}

#[test]
fn clips_begin_elsewhere_in_each_epoch_and_run_in_orders_of_their_own() {
    let phases: BTreeSet<u64> = (0..60).map(|number| epoch(5000, CLIPS, number)[0].clip.start % 8).collect();
    assert_eq!(phases.len(), 8, "60 epochs meet every phase");
    let first_batch = &epoch(5000, CLIPS, 0)[..24];
    let turns: BTreeSet<u64> = first_batch.iter().map(|draw| draw.anchor - draw.clip.start).collect();
    assert!(turns.len() > 4, "{turns:?}");
}

/// Chi-square of counts against a uniform expectation, as standard deviations from its mean (degrees of freedom n - 1).
fn chi_square_z(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let chi_square: f64 = counts.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
    let freedom = counts.len() as f64 - 1.0;
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn any_anchor_is_as_likely_as_any_other_at_any_place() {
    for len in [5_u64, 12, 50] {
        // Value at the first and the middle place, and the step between neighbours, over many seeds.
        let mut counts = [vec![0; len as usize], vec![0; len as usize], vec![0; len as usize - 1]];
        for seed in 0..20_000 {
            let order = Permutation::new(len, [seed, 0]);
            let (first, second) = (order.get(0), order.get(1));
            counts[0][first as usize] += 1;
            counts[1][order.get(len / 2) as usize] += 1;
            counts[2][((second + len - first) % len - 1) as usize] += 1;
        }
        for (name, counts) in ["first place", "middle place", "step between neighbours"].iter().zip(&counts) {
            let z = chi_square_z(counts);
            assert!(z.abs() < 4.0, "length {len}, {name}: {z} standard deviations from uniform");
        }
    }
}

#[test]
fn the_start_of_an_epoch_is_spread_over_all_anchors() {
    let num_anchors = 24_048_868_u64;
    let sampler = sampler(num_anchors, 42, 0, 1);
    let mut counts = vec![0_u64; 100];
    (0..100_000).for_each(|draw| counts[(sampler.draw(draw).anchor * 100 / num_anchors) as usize] += 1);
    let z = chi_square_z(&counts);
    // Without replacement the spread is a little below that of independent draws.
    assert!(z.abs() < 4.0, "{z} standard deviations from uniform");
}

#[test]
fn validation_deals_all_anchors_or_an_even_subset_out_over_its_batches() {
    let order = |limit, batch_size| {
        let sampler = ValidationSampler::new(10, limit, batch_size, Shard::SINGLE).unwrap();
        (0..sampler.len()).map(|draw| sampler.anchor(draw)).collect::<Vec<_>>()
    };
    assert_eq!(order(None, 99), (0..10).collect::<Vec<_>>(), "one batch has them in their natural order");
    assert_eq!(order(Some(99), 10), (0..10).collect::<Vec<_>>());
    assert_eq!(order(Some(5), 5), [1, 3, 5, 7, 9]);
    assert_eq!(order(Some(3), 3), [1, 5, 8]);
    assert_eq!(order(None, 5), [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]);
    assert_eq!(order(None, 4), [0, 3, 6, 9, 1, 4, 7, 2, 5, 8]);
    assert_eq!(order(Some(4), 2), [1, 6, 3, 8]);
}

#[test]
fn validation_is_shared_out_between_ranks_without_overlap() {
    let mut all: Vec<u64> = Vec::new();
    for rank in 0..3 {
        let sampler = ValidationSampler::new(10, None, 2, Shard { rank, world: 3 }).unwrap();
        all.extend((0..sampler.len()).map(|draw| sampler.anchor(draw)));
    }
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
}

#[test]
fn ranks_validate_in_turn_in_the_order_of_one_rank_with_their_global_batch() {
    for (num_anchors, limit, batch_size, world) in [
        (1000, Some(16), 2, 2),
        (1000, Some(96), 8, 4),
        (1000, None, 4, 2),
        (37, None, 2, 3),
        (5, None, 4, 4),
        (2, None, 1, 4),
    ] {
        let of = |batch_size, shard| ValidationSampler::new(num_anchors, limit, batch_size, shard).unwrap();
        let alone = of(batch_size * world, Shard::SINGLE);
        let ranks: Vec<_> = (0..world).map(|rank| of(batch_size, Shard { rank, world })).collect();
        assert_eq!(ranks.iter().map(ValidationSampler::len).sum::<u64>(), alone.len());
        let in_turn = (0..alone.len()).map(|place| ranks[(place % world) as usize].anchor(place / world));
        assert!(in_turn.eq((0..alone.len()).map(|draw| alone.anchor(draw))), "{num_anchors} on {world} ranks");
    }
}

#[test]
fn what_cannot_be_sampled_is_refused() {
    let error = |result: Result<TrainSampler, DataError>| with_hint(&result.unwrap_err());
    assert!(
        error(TrainSampler::new(9, Clips::SINGLE, 0, Shard { rank: 2, world: 2 }, Position::default()))
            .contains("rank 2 of 2")
    );
    let too_long = error(TrainSampler::new(9, Clips::new(4, 3), 0, Shard::SINGLE, Position::default()));
    assert!(too_long.starts_with("data.loader.anchors_per_clip: clips are spread over 12 samples"), "{too_long}");
    let beyond = Position { epoch: 0, sample: 9, num_bad_samples: 0 };
    assert!(error(TrainSampler::new(9, Clips::SINGLE, 0, Shard::SINGLE, beyond)).contains("other data.sources"));
}
