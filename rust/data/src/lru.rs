//! A map that forgets its least recently used entries beyond a number of bytes or of entries.

use lru::LruCache;
use std::hash::Hash;

pub(crate) struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    budget: usize,
    max_entries: usize,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    /// A map of at most `budget` bytes (but at least one entry) and at most `max_entries`.
    pub(crate) fn new(budget: usize, max_entries: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, budget, max_entries: max_entries.max(1) }
    }

    /// The value of a key, which becomes the most recently used.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Adds a value that takes so many bytes.
    pub(crate) fn put(&mut self, key: K, value: V, bytes: usize) {
        if let Some((_, old)) = self.entries.put(key, (value, bytes)) {
            self.bytes -= old;
        }
        self.bytes += bytes;
        while (self.bytes > self.budget && self.entries.len() > 1) || self.entries.len() > self.max_entries {
            let Some((_, (_, bytes))) = self.entries.pop_lru() else { break };
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ByteLru;

    #[test]
    fn the_least_recently_used_entries_go_when_the_budget_is_full() {
        let mut lru = ByteLru::new(10, usize::MAX);
        lru.put("a", 1, 4);
        lru.put("b", 2, 4);
        lru.get("a");
        lru.put("c", 3, 4);
        assert_eq!(["a", "b", "c"].map(|key| lru.get(key).copied()), [Some(1), None, Some(3)]);
        assert_eq!(lru.bytes, 8);
    }

    #[test]
    fn one_entry_stays_however_large_it_is() {
        let mut lru = ByteLru::new(10, 1);
        lru.put("a", 1, 100);
        assert_eq!(lru.get("a"), Some(&mut 1));
    }
}
