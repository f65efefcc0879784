//! Least recently used first out, bounded by weight.

use std::hash::Hash;

use lru::LruCache;

/// Values with a weight each, of at most so much weight together. Users put it under a lock of their own.
#[derive(Debug)]
pub struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, u64)>,
    used: u64,
    most: u64,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    /// What an entry costs besides its own weight: the map's slot, the list's links, the key.
    pub const OVERHEAD: u64 = 128;

    /// Holds at most `most` of weight (bytes), overhead included.
    pub fn new(most: u64) -> Self {
        Self { entries: LruCache::unbounded(), used: 0, most }
    }

    /// Adds or replaces an entry and gives back what had to go: entries that were not used for longest, the entry that
    /// was replaced, or the new one itself if it outweighs the whole cache.
    pub fn insert(&mut self, key: K, value: V, weight: u64) -> Vec<(K, V)> {
        let weight = weight.saturating_add(Self::OVERHEAD);
        let mut out = Vec::new();
        if weight > self.most {
            out.extend(self.entries.pop_entry(&key).map(|entry| self.release(entry)));
            out.push((key, value));
            return out;
        }
        if let Some((key, (value, weight))) = self.entries.push(key, (value, weight)) {
            self.used = self.used.saturating_sub(weight);
            out.push((key, value));
        }
        self.used = self.used.saturating_add(weight);
        while self.used > self.most {
            let Some(entry) = self.entries.pop_lru() else { break };
            out.push(self.release(entry));
        }
        out
    }

    /// The value of `key`, which counts as used now.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// As [`Self::get`]; its weight stays what it was.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// The value of `key`, which from now on counts as the one that was not used for longest.
    pub fn demote(&mut self, key: &K) -> Option<&mut V> {
        self.entries.demote(key);
        self.entries.peek_mut(key).map(|(value, _)| value)
    }

    /// The value of `key`, which does not count as used.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|(value, _)| value)
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.pop_entry(key)?;
        Some(self.release(entry).1)
    }

    /// Removes and gives back every entry whose key `goes`. Takes time in all entries.
    pub fn remove_where(&mut self, mut goes: impl FnMut(&K) -> bool) -> Vec<(K, V)>
    where
        K: Clone,
    {
        let keys: Vec<K> = self.entries.iter().map(|(key, _)| key).filter(|key| goes(key)).cloned().collect();
        keys.into_iter().filter_map(|key| self.remove(&key).map(|value| (key, value))).collect()
    }

    /// Removes and gives back the entry that was not used for longest.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let entry = self.entries.pop_lru()?;
        Some(self.release(entry))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Weight of all entries, overhead included.
    pub fn used(&self) -> u64 {
        self.used
    }

    fn release(&mut self, (key, (value, weight)): (K, (V, u64))) -> (K, V) {
        self.used = self.used.saturating_sub(weight);
        (key, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(entries: u64, weight: u64) -> ByteLru<u32, &'static str> {
        ByteLru::new(entries * (weight + ByteLru::<u32, &str>::OVERHEAD))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = room(2, 10);
        assert_eq!(lru.insert(1, "a", 10), []);
        assert_eq!(lru.insert(2, "b", 10), []);
        assert_eq!(lru.get(&1), Some(&"a"));
        assert_eq!(lru.insert(3, "c", 10), [(2, "b")]);
        assert_eq!(lru.get(&2), None);
        assert_eq!(lru.len(), 2);
        assert_eq!(lru.pop_oldest(), Some((1, "a")));
    }

    #[test]
    fn what_outweighs_the_cache_is_handed_back() {
        let mut lru = room(2, 10);
        lru.insert(1, "a", 10);
        assert_eq!(lru.insert(2, "huge", 10_000), [(2, "huge")]);
        assert_eq!(lru.insert(3, "b", u64::MAX), [(3, "b")]);
        assert_eq!(lru.get(&1), Some(&"a"));
        assert_eq!(lru.insert(1, "huge", 10_000), [(1, "a"), (1, "huge")]);
        assert_eq!((lru.used(), lru.is_empty()), (0, true));
    }

    #[test]
    fn weights_are_given_back_in_full() {
        let mut lru = room(3, 10);
        lru.insert(1, "a", 10);
        assert_eq!(lru.insert(1, "b", 5), [(1, "a")]);
        lru.insert(2, "c", 7);
        lru.insert(3, "d", 7);
        assert_eq!(lru.remove_where(|k| k % 2 == 1).len(), 2);
        assert_eq!(lru.remove(&2), Some("c"));
        assert_eq!(lru.used(), 0);
    }
}
