use super::*;

const OVERHEAD: u64 = ByteLru::<u32, Arc<[u8]>>::OVERHEAD;

fn block(key: u32) -> Arc<[u8]> {
    let len = 1000 + usize::try_from(key % 7).unwrap();
    key.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn cache(memory_blocks: u64, spill_blocks: u64) -> BlockCache<u32> {
    let bytes = spill_blocks * u64::try_from(BLOCK_BYTES).unwrap();
    let spill = SpillConfig { dir: std::env::temp_dir(), bytes };
    BlockCache::new(CacheConfig { memory_bytes: memory_blocks * (1010 + OVERHEAD), spill: Some(spill) })
}

#[test]
fn evicted_blocks_are_found_on_disk_until_they_are_evicted_there() {
    let cache = cache(2, 4);
    for key in 0..8 {
        cache.insert(key, block(key));
    }
    let stats = cache.stats();
    assert!(stats.memory_bytes <= 2 * (1010 + OVERHEAD));
    assert_eq!(stats.spill_bytes, 4 * u64::try_from(BLOCK_BYTES).unwrap());
    assert_eq!(cache.get(&7), Some(block(7)));
    assert!(cache.get_in_memory(&3).is_none() && cache.contains(&3));
    assert_eq!(cache.get(&3), Some(block(3)));
    assert!(cache.get_in_memory(&3).is_some(), "promoted");
    assert_eq!(cache.get(&0), None);
    let stats = cache.stats();
    assert_eq!((stats.memory_hits, stats.spill_hits, stats.misses), (2, 1, 1));
}

#[test]
fn a_cache_works_without_memory_and_without_disk() {
    let disk_only = cache(0, 2);
    disk_only.insert(1, block(1));
    assert_eq!(disk_only.get(&1), Some(block(1)));
    assert_eq!(disk_only.stats().memory_bytes, 0);
    let memory_only = cache(1, 0);
    memory_only.insert(1, block(1));
    memory_only.insert(2, block(2));
    assert_eq!((memory_only.get(&1), memory_only.get(&2)), (None, Some(block(2))));
}

#[test]
fn removed_blocks_are_found_neither_in_memory_nor_on_disk() {
    let cache = cache(2, 10);
    for key in 0..6 {
        cache.insert(key, block(key));
    }
    cache.remove(&0);
    cache.remove(&5);
    cache.remove_where(|key| key % 2 == 1);
    for key in [0, 1, 3, 5] {
        assert_eq!(cache.get(&key), None);
    }
    assert_eq!((cache.get(&2), cache.get(&4)), (Some(block(2)), Some(block(4))));
}

#[test]
fn threads_get_the_right_block_or_none() {
    let cache = cache(8, 16);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let cache = &cache;
            scope.spawn(move || {
                let mut x = thread * 7919 + 1;
                for _ in 0..3000 {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let key = (x >> 16) % 40;
                    match cache.get(&key) {
                        Some(found) => assert_eq!(found, block(key)),
                        None => cache.insert(key, block(key)),
                    }
                    if x % 512 == 0 {
                        cache.remove_where(|k| *k == key);
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.memory_hits > 0 && stats.spill_hits > 0 && stats.misses > 0, "{stats:?}");
    assert!(stats.memory_bytes <= 8 * (1010 + OVERHEAD));
}

#[test]
fn a_removed_key_does_not_return_while_blocks_move_between_memory_and_disk() {
    let cache = cache(2, 8);
    for round in 0..300_u32 {
        let old = round * 100;
        std::thread::scope(|scope| {
            for key in old..old + 4 {
                cache.insert(key, block(key));
            }
            scope.spawn(|| (old..old + 4).for_each(|key| drop(cache.get(&key))));
            scope.spawn(|| (old + 10..old + 13).for_each(|key| cache.insert(key, block(key))));
            scope.spawn(|| cache.remove_where(|key| *key < old + 4));
        });
        assert!((old..old + 4).all(|key| !cache.contains(&key)), "round {round}");
    }
}

#[test]
fn demoted_blocks_are_evicted_first_and_not_spilled() {
    let cache = cache(3, 10);
    for key in 0..3 {
        cache.insert(key, block(key));
    }
    cache.demote([2, 7].into_iter());
    cache.insert(3, block(3));
    assert!(cache.get(&2).is_none(), "evicted before older blocks");
    assert_eq!((cache.get(&0), cache.get(&1), cache.stats().spill_bytes), (Some(block(0)), Some(block(1)), 0));
    // A demoted block that is used again counts as any other.
    cache.demote([1].into_iter());
    assert!(cache.get(&1).is_some());
    for key in 10..13 {
        cache.insert(key, block(key));
    }
    assert_eq!(cache.get(&1), Some(block(1)));
    // Demoted blocks are removed from disk.
    cache.demote(0..20);
    assert_eq!(cache.stats().spill_bytes, 0);
}

#[test]
fn lent_memory_is_left_to_its_user_from_the_next_block_on() {
    let (lent, max) = (LentMemory::default(), 16 * (1010 + OVERHEAD));
    let cache = BlockCache::lending(CacheConfig { memory_bytes: max, spill: None }, lent.clone());
    (0..16).for_each(|key| cache.insert(key, block(key)));
    assert!(cache.stats().memory_bytes > max / 8 * 7);
    lent.set(max / 4);
    cache.insert(16, block(16));
    assert!((max / 8 * 5..=max / 4 * 3).contains(&cache.stats().memory_bytes), "{:?}", cache.stats());
    lent.set(u64::MAX);
    cache.insert(17, block(17));
    assert!((max / 8 * 3..=max / 2).contains(&cache.stats().memory_bytes), "{:?}", cache.stats());
    assert!(cache.get_in_memory(&17).is_some());
    lent.set(0);
    (20..36).for_each(|key| cache.insert(key, block(key)));
    assert!(cache.stats().memory_bytes > max / 8 * 7);
}
