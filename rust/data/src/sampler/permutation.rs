//! A keyed bijection on `[0, len)` that needs no table.
//!
//! A balanced Feistel network permutes the next power of four; values that fall outside `[0, len)` are fed back in until they do not
//! (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). On average less than four passes are needed.

/// Rounds of the network. Four give a pseudo-random permutation (Luby and Rackoff); more make up for a round function that is only a mixer,
/// and for domains of a few values.
const NUM_ROUNDS: usize = 8;

/// A pseudo-random order of `len` items.
#[derive(Debug, Clone)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    round_keys: [u64; NUM_ROUNDS],
}

impl Permutation {
    /// The order that belongs to `key`.
    #[must_use]
    pub fn new(len: u64, key: [u64; 2]) -> Self {
        let num_bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut state = mix(key[0]).wrapping_add(mix(key[1] ^ 0x9e37_79b9_7f4a_7c15));
        let round_keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        });
        Self { len, half_bits: num_bits.div_ceil(2).max(1), round_keys }
    }

    /// The item at `position`.
    ///
    /// # Panics
    /// When `position` is not below the length.
    #[must_use]
    pub fn get(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of {}", self.len);
        let mut value = position;
        loop {
            value = self.encrypt(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.round_keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// Finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
