//! The block cache and the index under random schedules: `cargo test -p dupfs-cache --features shuttle --test schedules`.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::Arc;

use dupfs_base::sync::schedules::{check, check_part, thread};
use dupfs_cache::index::{Identity, Index};
use dupfs_cache::{BLOCK_BYTES, BlockCache, ByteLru, CacheConfig, SpillConfig};

const LEN: usize = 16;

fn block(key: u8) -> Arc<[u8]> {
    Arc::from([key; LEN])
}

/// A cache with room for this many blocks in memory and on disk.
fn cache(memory_blocks: u64, spill_blocks: u64) -> Arc<BlockCache<u8>> {
    let memory_bytes = memory_blocks * (LEN as u64 + ByteLru::<u8, ()>::OVERHEAD);
    let spill = SpillConfig { dir: std::env::temp_dir(), bytes: spill_blocks * BLOCK_BYTES as u64 };
    Arc::new(BlockCache::new(CacheConfig { memory_bytes, spill: Some(spill) }))
}

fn spawn(cache: &Arc<BlockCache<u8>>, work: impl FnOnce(&BlockCache<u8>) + Send + 'static) -> thread::JoinHandle<()> {
    let cache = Arc::clone(cache);
    thread::spawn(move || work(&cache))
}

/// Fails unless all of `blocks` slots of the spill file can be used.
fn assert_no_slot_is_lost(cache: &BlockCache<u8>, blocks: u8) {
    (100..=100 + blocks).for_each(|key| cache.insert(key, block(key)));
    assert_eq!(cache.stats().spill_bytes, u64::from(blocks) * BLOCK_BYTES as u64);
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_removed_block_does_not_return_while_blocks_move_between_memory_and_disk() {
    check(|| {
        let cache = cache(1, 8);
        (0..3).for_each(|key| cache.insert(key, block(key)));
        // From disk to memory, and from memory to disk.
        let getter = spawn(&cache, |cache| (0..3).for_each(|key| drop(cache.get(&key))));
        let inserter = spawn(&cache, |cache| (10..12).for_each(|key| cache.insert(key, block(key))));
        let removers = [
            spawn(&cache, |cache| {
                cache.remove_where(|key| *key < 2);
                assert!(cache.get(&0).is_none() && cache.get(&1).is_none(), "a removed block is found");
            }),
            spawn(&cache, |cache| {
                cache.remove(&2);
                assert!(cache.get(&2).is_none(), "a removed block is found");
            }),
        ];
        join(removers.into_iter().chain([getter, inserter]));
        assert!((0..3).all(|key| !cache.contains(&key)), "a removed block has returned");
        assert_no_slot_is_lost(&cache, 8);
    });
}

#[test]
fn a_block_is_found_while_it_moves_between_memory_and_disk() {
    check(|| {
        let cache = cache(1, 8);
        cache.insert(0, block(0));
        let getters = [0, 1].map(|_| {
            spawn(&cache, |cache| {
                for _ in 0..2 {
                    assert!(cache.contains(&0));
                    assert_eq!(cache.get(&0), Some(block(0)));
                }
            })
        });
        let inserter = spawn(&cache, |cache| (10..12).for_each(|key| cache.insert(key, block(key))));
        join(getters.into_iter().chain([inserter]));
        assert_eq!(cache.stats().misses, 0);
    });
}

#[test]
fn a_full_spill_file_gives_the_right_block_or_none() {
    check(|| {
        let cache = cache(1, 2);
        let users = [0, 1, 2].map(|first| {
            spawn(&cache, move |cache| {
                for key in [first, (first + 1) % 3, first] {
                    match cache.get(&key) {
                        Some(found) => assert_eq!(found, block(key)),
                        None => cache.insert(key, block(key)),
                    }
                }
                cache.demote([first].into_iter());
            })
        });
        join(users);
        let stats = cache.stats();
        assert!(stats.spill_bytes <= 2 * BLOCK_BYTES as u64, "{stats:?}");
        assert_no_slot_is_lost(&cache, 2);
    });
}

#[test]
fn a_block_whose_slot_is_rewritten_while_it_is_read_is_a_miss() {
    check(|| {
        // Without memory, every block is written to disk at once.
        let cache = cache(0, 1);
        cache.insert(0, block(0));
        let getter = spawn(&cache, |cache| {
            let found = cache.get(&0);
            assert!(found.is_none_or(|found| found == block(0)));
        });
        let inserter = spawn(&cache, |cache| {
            cache.insert(1, block(1));
            // The getter puts its block back, which evicts this one.
            assert!(cache.get(&1).is_none_or(|found| found == block(1)));
        });
        join([getter, inserter]);
        assert_no_slot_is_lost(&cache, 1);
    });
}

#[test]
fn a_stored_record_is_found_before_and_after_it_is_written() {
    // Each schedule writes several files.
    check_part(20, || {
        let scratch = tempfile::tempdir().unwrap();
        let open = || Index::open(scratch.path(), Identity::of(&[b"repository"]), HashSet::from([7])).unwrap();
        let index = open();
        let key = |n: u8| Identity::of(&[&[n]]);
        let writers = [0, 1].map(|n| {
            let index = Arc::clone(&index);
            thread::spawn(move || {
                index.store_record(key(n), 7, vec![n; 3]);
                index.store_number(key(9), 7, n.into(), 5);
                index.flush();
                assert_eq!(index.load_record(key(n)), Some(vec![n; 3]));
            })
        });
        assert!([0, 1].iter().all(|&n| index.load_record(key(n)).is_none_or(|record| record == [n; 3])));
        join(writers);
        // Waits for the thread that writes, and writes the rest.
        drop(index);
        let index = open();
        assert!([0, 1].iter().all(|&n| index.load_record(key(n)) == Some(vec![n; 3])));
        let mut numbers = Vec::new();
        index.load_numbers(key(9), 2, &mut |at, number| numbers.push((at, number)));
        assert_eq!(numbers, [(0, 5), (1, 5)]);
    });
}
