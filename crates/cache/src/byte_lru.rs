//! A map of bounded weight that evicts the least recently used entry first.

use std::hash::Hash;

use lru::LruCache;

/// A map whose entries have a weight each, and whose total weight is bounded. It has no lock: callers guard it.
#[derive(Debug)]
pub struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, u64)>,
    used: u64,
    max_weight: u64,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    /// Weight added to each entry: the slot of the map, the links of the list, the key. Bytes.
    pub const OVERHEAD: u64 = 128;

    /// An empty map of at most `max_weight` bytes, overhead included.
    pub fn new(max_weight: u64) -> Self {
        Self { entries: LruCache::unbounded(), used: 0, max_weight }
    }

    /// Adds or replaces an entry. Returns the entries that had to make room: the least recently used ones, the replaced
    /// one, or the new one itself if it alone exceeds the bound.
    pub fn insert(&mut self, key: K, value: V, weight: u64) -> Vec<(K, V)> {
        let weight = weight.saturating_add(Self::OVERHEAD);
        let mut out = Vec::new();
        if weight > self.max_weight {
            out.extend(self.entries.pop_entry(&key).map(|entry| self.release(entry)));
            out.push((key, value));
            return out;
        }
        if let Some((key, (value, weight))) = self.entries.push(key, (value, weight)) {
            self.used = self.used.saturating_sub(weight);
            out.push((key, value));
        }
        self.used = self.used.saturating_add(weight);
        while self.used > self.max_weight {
            let Some(entry) = self.entries.pop_lru() else { break };
            out.push(self.release(entry));
        }
        out
    }

    /// The value of `key`. Marks the entry as the most recently used one.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// As [`Self::get`], mutable; the weight of the entry does not change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// The value of `key`. Marks the entry as the least recently used one, which is evicted first.
    pub fn demote(&mut self, key: &K) -> Option<&mut V> {
        self.entries.demote(key);
        self.entries.peek_mut(key).map(|(value, _)| value)
    }

    /// The value of `key`; the order of eviction does not change.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|(value, _)| value)
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.pop_entry(key)?;
        Some(self.release(entry).1)
    }

    /// Removes and returns every entry whose key `is_removed`. Takes time linear in the number of entries.
    pub fn remove_where(&mut self, mut is_removed: impl FnMut(&K) -> bool) -> Vec<(K, V)>
    where
        K: Clone,
    {
        let keys: Vec<K> = self.entries.iter().map(|(key, _)| key).filter(|key| is_removed(key)).cloned().collect();
        keys.into_iter().filter_map(|key| self.remove(&key).map(|value| (key, value))).collect()
    }

    /// Removes and returns the least recently used entry.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let entry = self.entries.pop_lru()?;
        Some(self.release(entry))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Upper bound of [`Self::used`].
    pub fn max_weight(&self) -> u64 {
        self.max_weight
    }

    /// Changes the upper bound. The next insertion evicts what is beyond it.
    pub fn set_max_weight(&mut self, max_weight: u64) {
        self.max_weight = max_weight;
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

    fn with_max_entries(max_entries: u64, weight: u64) -> ByteLru<u32, &'static str> {
        ByteLru::new(max_entries * (weight + ByteLru::<u32, &str>::OVERHEAD))
    }

    #[test]
    fn the_least_recently_used_entry_is_evicted_first() {
        let mut lru = with_max_entries(2, 10);
        assert_eq!(lru.insert(1, "a", 10), []);
        assert_eq!(lru.insert(2, "b", 10), []);
        assert_eq!(lru.get(&1), Some(&"a"));
        assert_eq!(lru.insert(3, "c", 10), [(2, "b")]);
        assert_eq!(lru.get(&2), None);
        assert_eq!(lru.len(), 2);
        assert_eq!(lru.pop_oldest(), Some((1, "a")));
    }

    #[test]
    fn an_entry_that_exceeds_the_bound_is_returned() {
        let mut lru = with_max_entries(2, 10);
        lru.insert(1, "a", 10);
        assert_eq!(lru.insert(2, "huge", 10_000), [(2, "huge")]);
        assert_eq!(lru.insert(3, "b", u64::MAX), [(3, "b")]);
        assert_eq!(lru.get(&1), Some(&"a"));
        assert_eq!(lru.insert(1, "huge", 10_000), [(1, "a"), (1, "huge")]);
        assert_eq!((lru.used(), lru.is_empty()), (0, true));
    }

    #[test]
    fn the_weight_of_every_removed_entry_is_released() {
        let mut lru = with_max_entries(3, 10);
        lru.insert(1, "a", 10);
        assert_eq!(lru.insert(1, "b", 5), [(1, "a")]);
        lru.insert(2, "c", 7);
        lru.insert(3, "d", 7);
        assert_eq!(lru.remove_where(|k| k % 2 == 1).len(), 2);
        assert_eq!(lru.remove(&2), Some("c"));
        assert_eq!(lru.used(), 0);
    }
}
