//! Directory listings in batches, so that no lock is held while entries are emitted.
//!
//! The offset of an entry is its node number plus one, so that a listing continues where it stopped without counting from
//! the start.

/// Upper bound of the entries of a batch.
pub(super) const MAX_BATCH: usize = 256;
/// The entries of the first batch: a reader may want only one. Each following batch is four times as large.
const FIRST_BATCH: usize = 4;

/// The offset after the entry with this node number.
pub(super) fn offset_after(node: u32) -> u64 {
    u64::from(node).saturating_add(1)
}

/// The node number of the last entry before `offset`; `None` at the start.
pub(super) fn last_before(offset: u64) -> Option<u32> {
    offset.checked_sub(1).and_then(|node| u32::try_from(node).ok())
}

/// Emits the entries after `last`: `next_batch` returns those that follow a key, up to a number, none at the end. Returns false
/// if `emit` did.
pub(super) fn emit_batches<K: Copy, E>(
    mut last: Option<K>,
    next_batch: impl Fn(Option<K>, usize) -> Vec<(K, E)>,
    mut emit: impl FnMut(K, E) -> bool,
) -> bool {
    let mut max = FIRST_BATCH;
    loop {
        let batch = next_batch(last, max);
        max = max.saturating_mul(4).min(MAX_BATCH);
        if batch.is_empty() {
            return true;
        }
        for (key, entry) in batch {
            last = Some(key);
            if !emit(key, entry) {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_continues_where_it_stopped() {
        let next_batch = |last: Option<u32>, max: usize| -> Vec<(u32, char)> {
            let start = last.map_or(0, |last| last + 1);
            (0u32..).zip('a'..='e').filter(|(n, _)| *n >= start).take(max.min(2)).collect()
        };
        let mut listed = String::new();
        let mut offset = 0;
        let all = emit_batches(last_before(offset), next_batch, |key, entry| {
            listed.push(entry);
            offset = offset_after(key);
            listed.len() < 3
        });
        assert_eq!((all, listed.as_str(), offset), (false, "abc", 3));
        assert!(emit_batches(last_before(offset), next_batch, |_, entry| {
            listed.push(entry);
            true
        }));
        assert_eq!(listed, "abcde");
    }

    #[test]
    fn batches_grow_to_their_bound() {
        let sizes = std::cell::RefCell::new(Vec::new());
        let next_batch = |last: Option<u32>, max: usize| {
            sizes.borrow_mut().push(max);
            let start = last.map_or(0, |last| last + 1);
            (start..1000).take(max).map(|n| (n, ())).collect()
        };
        let mut listed = 0;
        assert!(emit_batches(None, next_batch, |key, ()| {
            listed += 1;
            key + 1 == listed
        }));
        assert_eq!(listed, 1000);
        assert_eq!(*sizes.borrow(), [4, 16, 64, 256, 256, 256, 256, 256]);
    }
}
