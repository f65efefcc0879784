//! A byte-bounded map of shared values that always has room for one that is larger than the whole bound.

use std::hash::Hash;
use std::sync::Mutex;

use dupfs_base::sync::lock;

use super::byte_lru::ByteLru;

/// The values used last, up to a number of bytes, and the last value that alone is larger than that. Without the latter, each
/// use of such a value would compute it again.
#[derive(Debug)]
pub struct SharedLru<K: Hash + Eq, V> {
    entries: Mutex<ByteLru<K, V>>,
    oversized: Mutex<Option<(K, V)>>,
}

impl<K: Hash + Eq + Clone, V: Clone> SharedLru<K, V> {
    /// An empty map of at most `max_bytes`, and one larger value.
    pub fn new(max_bytes: u64) -> Self {
        Self { entries: Mutex::new(ByteLru::new(max_bytes)), oversized: Mutex::default() }
    }

    /// The value of `key`, if it is cached.
    pub fn get(&self, key: &K) -> Option<V> {
        let cached = lock(&self.entries).get(key).cloned();
        cached.or_else(|| lock(&self.oversized).as_ref().filter(|(of, _)| of == key).map(|(_, value)| value.clone()))
    }

    /// Adds the value of `key`, which takes `bytes` of memory.
    pub fn insert(&self, key: &K, value: &V, bytes: u64) {
        let mut entries = lock(&self.entries);
        let evicted = entries.insert(key.clone(), value.clone(), bytes);
        let fits = entries.peek(key).is_some();
        drop(entries);
        let mut replaced = None;
        if !fits {
            replaced = lock(&self.oversized).replace((key.clone(), value.clone()));
        }
        // Values are large: they are freed without the lock.
        drop((evicted, replaced));
    }

    /// Returns true if nothing is cached.
    pub fn is_empty(&self) -> bool {
        lock(&self.entries).is_empty() && lock(&self.oversized).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_oversized_value_is_kept_beside_the_others() {
        let map: SharedLru<u32, char> = SharedLru::new(1000);
        assert!(map.is_empty());
        map.insert(&1, &'a', 100);
        map.insert(&2, &'b', 5000);
        map.insert(&3, &'c', 100);
        assert_eq!((map.get(&1), map.get(&2), map.get(&3)), (Some('a'), Some('b'), Some('c')));
        map.insert(&4, &'d', 6000);
        assert_eq!((map.get(&1), map.get(&2), map.get(&4)), (Some('a'), None, Some('d')));
        assert!(!map.is_empty());
    }
}
