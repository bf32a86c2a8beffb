//! Sources in fixed shares: exact within every block of draws by construction, without drift over many blocks.
//!
//! A block of L draws takes L points of [0, 1), 1/L apart; a source owns an interval as long as its share. So it gets its share of every block,
//! rounded down or up (systematic sampling). The points of M successive blocks are shifted against each other by multiples of 1/(LM), in the
//! order of van der Corput, so that a round of M blocks has every multiple of 1/(LM) once: over a round, shares are exact to 1/(LM). Where a draw is in the
//! stream of its source follows from counts of M blocks; the draws of a block come in random order. Each source has epochs of its own.

use super::permutation::Permutation;
use std::ops::Range;

/// Draws of a round, at least: shares are multiples of one in so many.
const MIN_ROUND: u64 = 1 << 16;

/// The anchors of one source.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Makes its order another than that of other sources.
    pub key: u64,
    /// Indices of its anchors.
    pub anchors: Range<u64>,
    /// First anchor of each episode, where episodes are drawn uniformly: each once in a cycle, its anchors one after the other over the cycles, in
    /// random order. None where anchors are: each once in an epoch.
    pub episodes: Option<Vec<u64>>,
}

impl Pool {
    /// The anchor of its draw `nth`.
    fn anchor(&self, seed: u64, nth: u64) -> u64 {
        let Some(episodes) = &self.episodes else { return self.within(&self.anchors, seed, nth) };
        let num_episodes = episodes.len() as u64;
        let cycle = nth / num_episodes;
        let episode = Permutation::new(num_episodes, [seed ^ self.key, cycle]).get(nth % num_episodes) as usize;
        let end = episodes.get(episode + 1).copied().unwrap_or(self.anchors.end);
        self.within(&(episodes[episode]..end), seed ^ episodes[episode].rotate_left(32), cycle)
    }

    /// The `nth` anchor of a range: each once, in another random order each time.
    fn within(&self, anchors: &Range<u64>, seed: u64, nth: u64) -> u64 {
        let num_anchors = anchors.end - anchors.start;
        anchors.start + Permutation::new(num_anchors, [seed ^ self.key, nth / num_anchors]).get(nth % num_anchors)
    }
}

/// Pools in fixed shares.
#[derive(Debug, Clone)]
pub struct Mixing {
    /// Those with a share.
    pools: Vec<Pool>,
    /// Draws of a block.
    block: u64,
    /// Blocks of a round, a power of two.
    num_blocks: u64,
    /// Where each pool's points begin, and the end of the last: multiples of 1/(draws of a round).
    bounds: Vec<u64>,
    /// By block of a round and pool: draws of the pool before the block.
    before: Vec<u64>,
}

impl Mixing {
    /// Blocks of `block` draws, at least one, from pools with these shares, which sum up to 1. Pools without a share are never drawn; the others
    /// have anchors.
    #[must_use]
    pub fn new(pools: Vec<Pool>, shares: &[f64], block: u64) -> Self {
        let (pools, shares): (Vec<_>, Vec<_>) =
            pools.into_iter().zip(shares).filter(|(_, share)| **share > 0.0).unzip();
        let num_blocks = MIN_ROUND.div_ceil(block).next_power_of_two();
        let bounds = bounds(&shares, block * num_blocks);
        let mut mixing = Self { pools, block, num_blocks, bounds, before: Vec::new() };
        let mut counts = vec![0; mixing.pools.len()];
        for number in 0..num_blocks {
            mixing.before.extend(&counts);
            let shift = mixing.shift(number);
            for (pool, count) in counts.iter_mut().enumerate() {
                *count += mixing.first(pool + 1, shift) - mixing.first(pool, shift);
            }
        }
        mixing
    }

    /// The anchor at a position of the stream.
    pub(super) fn anchor(&self, seed: u64, position: u64) -> u64 {
        let block = position / self.block;
        let (round, number) = (block / self.num_blocks, block % self.num_blocks);
        let turn = Permutation::new(self.block, [seed, block]).get(position % self.block);
        let shift = self.shift(number);
        let point = turn * self.num_blocks + shift;
        let pool = self.bounds.partition_point(|bound| *bound <= point) - 1;
        let before = self.before[number as usize * self.pools.len() + pool] + turn - self.first(pool, shift);
        let in_round = self.bounds[pool + 1] - self.bounds[pool];
        self.pools[pool].anchor(seed, round * in_round + before)
    }

    /// By how much the points of a block are shifted.
    fn shift(&self, number: u64) -> u64 {
        number.reverse_bits().checked_shr(u64::BITS - self.num_blocks.trailing_zeros()).unwrap_or(0)
    }

    /// The first point of a block that is not before the begin of a pool.
    fn first(&self, pool: usize, shift: u64) -> u64 {
        self.bounds[pool].saturating_sub(shift).div_ceil(self.num_blocks)
    }
}

/// Divides `num_points` by shares, each of which gets a point at least; the largest takes what rounding leaves.
fn bounds(shares: &[&f64], num_points: u64) -> Vec<u64> {
    let mut counts: Vec<u64> =
        shares.iter().map(|share| ((*share * num_points as f64).round() as u64).max(1)).collect();
    let sum: u64 = counts.iter().sum();
    if let Some(largest) = counts.iter_mut().max() {
        *largest = (*largest + num_points).saturating_sub(sum);
    }
    let ends = counts.iter().scan(0, |end, count| {
        *end += count;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}
