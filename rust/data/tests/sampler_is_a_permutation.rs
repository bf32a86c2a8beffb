//! The sampler is a pure function of (seed, epoch, rank): a permutation per epoch, disjoint between ranks, resumable anywhere.
#![allow(clippy::unwrap_used)]

use hlrp_data::{DataError, Permutation, Position, Shard, TrainSampler, ValidationSampler};
use std::collections::BTreeSet;

fn sampler(num_anchors: u64, seed: u64, rank: u64, world: u64) -> TrainSampler {
    TrainSampler::new(num_anchors, seed, Shard { rank, world }, Position::default()).unwrap()
}

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
        (0..3).map(|e| (e * 1000..(e + 1) * 1000).map(|d| sampler.anchor(d)).collect()).collect();
    for order in &epochs {
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 1000);
    }
    let num_same_place = epochs[0].iter().zip(&epochs[1]).filter(|(a, b)| a == b).count();
    assert!(num_same_place < 10, "{num_same_place} of 1000 anchors at the same place in two epochs");
}

#[test]
fn the_same_seed_gives_the_same_order_and_another_seed_another() {
    let order = |seed| (0..500).map(|draw| sampler(500, seed, 0, 1).anchor(draw)).collect::<Vec<_>>();
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
                .map(|draw| sampler(num_anchors, 9, rank, world).anchor(draw))
                .for_each(|a| times_drawn[a as usize] += 1);
        }
        assert!(times_drawn.iter().all(|&n| n == world), "{world} ranks");
    }
}

#[test]
fn a_global_batch_is_the_same_on_any_number_of_ranks() {
    let global_batch = |world: u64, step: u64| -> BTreeSet<u64> {
        let per_rank = 24 / world;
        let draws = step * per_rank..(step + 1) * per_rank;
        (0..world).flat_map(|rank| draws.clone().map(move |d| sampler(1000, 5, rank, world).anchor(d))).collect()
    };
    for step in 0..100 {
        assert_eq!(global_batch(1, step), global_batch(4, step));
        assert_eq!(global_batch(1, step), global_batch(6, step));
    }
}

#[test]
fn a_run_resumes_at_any_position_on_any_number_of_ranks() {
    let whole: Vec<u64> = (0..5000).map(|draw| sampler(777, 3, 0, 1).anchor(draw)).collect();
    for num_draws in [0, 1, 776, 777, 778, 2000, 3108] {
        let position = sampler(777, 3, 0, 1).position(num_draws, 0);
        assert_eq!(position.epoch * 777 + position.sample, num_draws);
        let resumed = TrainSampler::new(777, 3, Shard::SINGLE, position).unwrap();
        let rest: Vec<u64> = (0..1000).map(|draw| resumed.anchor(draw)).collect();
        assert_eq!(rest, whole[num_draws as usize..][..1000]);

        let two: Vec<_> =
            (0..2).map(|rank| TrainSampler::new(777, 3, Shard { rank, world: 2 }, position).unwrap()).collect();
        let interleaved: Vec<u64> = (0..500).flat_map(|draw| two.iter().map(move |s| s.anchor(draw))).collect();
        assert_eq!(interleaved, rest);
        assert_eq!(two[1].position(500, 0), resumed.position(1000, 0));
    }
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
    (0..100_000).for_each(|draw| counts[(sampler.anchor(draw) * 100 / num_anchors) as usize] += 1);
    let z = chi_square_z(&counts);
    // Without replacement the spread is a little below that of independent draws.
    assert!(z.abs() < 4.0, "{z} standard deviations from uniform");
}

#[test]
fn validation_runs_through_all_anchors_in_order_or_an_even_subset() {
    let order = |limit| {
        let sampler = ValidationSampler::new(10, limit, Shard::SINGLE).unwrap();
        (0..sampler.len()).map(|draw| sampler.anchor(draw)).collect::<Vec<_>>()
    };
    assert_eq!(order(None), (0..10).collect::<Vec<_>>());
    assert_eq!(order(Some(99)), (0..10).collect::<Vec<_>>());
    assert_eq!(order(Some(5)), [1, 3, 5, 7, 9]);
    assert_eq!(order(Some(3)), [1, 5, 8]);
}

#[test]
fn validation_is_shared_out_between_ranks_without_overlap() {
    let mut all: Vec<u64> = Vec::new();
    for rank in 0..3 {
        let sampler = ValidationSampler::new(10, None, Shard { rank, world: 3 }).unwrap();
        all.extend((0..sampler.len()).map(|draw| sampler.anchor(draw)));
    }
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_sampled_is_refused() {
    let error = |result: Result<TrainSampler, DataError>| result.unwrap_err().to_string();
    assert!(error(TrainSampler::new(0, 0, Shard::SINGLE, Position::default())).contains("no anchor for training"));
    assert!(error(TrainSampler::new(9, 0, Shard { rank: 2, world: 2 }, Position::default())).contains("rank 2 of 2"));
    let beyond = Position { epoch: 0, sample: 9, num_bad_samples: 0 };
    assert!(error(TrainSampler::new(9, 0, Shard::SINGLE, beyond)).contains("other data.sources"));
}
