//! A few samples, chosen by what they are and not by when they come.

use hlrp_data::SampleMeta;
use std::collections::BTreeMap;

/// Keeps the samples with the smallest keys of each source, as many of each as there are or an equal part of all. A key is a hash of
/// where the sample comes from: the same samples are chosen at every validation, in any order and in batches of any size.
pub(crate) struct KeyedSamples<T> {
    by_source: BTreeMap<String, BTreeMap<u64, T>>,
    wanted: usize,
    salt: u64,
}

impl<T> KeyedSamples<T> {
    /// Will return `wanted` samples; another `salt` chooses others.
    pub(crate) fn new(wanted: usize, salt: u64) -> Self {
        Self { by_source: BTreeMap::new(), wanted, salt }
    }

    /// Offers a sample, which is made only if it is kept.
    ///
    /// # Errors
    /// Whatever `make` returns.
    pub(crate) fn offer(&mut self, meta: &SampleMeta, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<()> {
        let key = key(meta, self.salt);
        let most = self.by_source.values().map(BTreeMap::len).max().unwrap_or(0);
        let num_kept: usize = self.by_source.values().map(BTreeMap::len).sum();
        let kept = self.by_source.entry(meta.source.clone()).or_default();
        let is_behind = kept.last_key_value().is_none_or(|(last, _)| key > *last);
        if self.wanted == 0 || (num_kept >= self.wanted && kept.len() >= most && is_behind) {
            return Ok(());
        }
        kept.insert(key, make()?);
        if num_kept >= self.wanted
            && let Some(largest) = self.by_source.values_mut().max_by_key(|kept| kept.len())
        {
            largest.pop_last();
        }
        Ok(())
    }

    /// At most the wanted number of samples, the sources in turn.
    pub(crate) fn take(self) -> Vec<T> {
        let mut sources: Vec<_> = self.by_source.into_values().map(BTreeMap::into_values).collect();
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            taken.extend(sources.iter_mut().filter_map(Iterator::next));
            if taken.len() == before {
                return taken;
            }
        }
    }
}

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>) of where a sample comes from, mixed once more so that neighbours differ in
/// all bits.
pub(super) fn key(meta: &SampleMeta, salt: u64) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let numbers = [salt, meta.episode, meta.frame].map(u64::to_le_bytes);
    let bytes = numbers.iter().flatten().chain(meta.source.as_bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    fn meta(source: &str, frame: u64) -> SampleMeta {
        SampleMeta { source: source.into(), episode: frame / 10, frame, dt_s: 0.1 }
    }

    fn chosen(metas: &[SampleMeta], wanted: usize, salt: u64) -> Vec<(String, u64)> {
        let mut samples = KeyedSamples::new(wanted, salt);
        for meta in metas {
            samples.offer(meta, || Ok((meta.source.clone(), meta.frame))).unwrap();
        }
        samples.take()
    }

    #[test]
    fn the_order_of_the_samples_does_not_matter() {
        let mut metas: Vec<_> = (0..100).map(|frame| meta("a", frame)).collect();
        let forwards = chosen(&metas, 5, 0);
        metas.reverse();
        assert_eq!(forwards, chosen(&metas, 5, 0));
        assert_ne!(forwards, chosen(&metas, 5, 1), "another salt chooses others");
        assert_eq!(forwards.len(), 5);
    }

    #[test]
    fn every_source_is_shown() {
        let metas: Vec<_> = (0..100).map(|frame| meta("large", frame)).chain([meta("small", 0)]).collect();
        let found = chosen(&metas, 4, 0);
        assert_eq!(found.iter().filter(|(source, _)| source == "small").count(), 1);
        assert_eq!(found.len(), 4);
        let metas: Vec<_> = (0..60).map(|frame| meta(["a", "b", "c"][frame as usize % 3], frame)).collect();
        for wanted in [6, 7] {
            let found = chosen(&metas, wanted, 0);
            let of = |name: &str| found.iter().filter(|(source, _)| source == name).count();
            assert_eq!([of("a"), of("b"), of("c")], [wanted - 4, 2, 2]);
            let backwards: Vec<_> = metas.iter().rev().cloned().collect();
            assert_eq!(found, chosen(&backwards, wanted, 0));
        }
        assert_eq!(chosen(&metas[..2], 4, 0).len(), 2, "all there are");
    }
}
