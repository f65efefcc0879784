use super::*;

fn never() -> bool {
    false
}

fn block(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add(u8::try_from(i % 251).unwrap())).collect()
}

fn spill(slots: u64) -> (SpillFile<u32>, File) {
    let file = unnamed_file(&std::env::temp_dir()).unwrap();
    let other = file.try_clone().unwrap();
    (SpillFile::with_file(file, slots * SLOT_BYTES).unwrap(), other)
}

#[test]
fn stored_blocks_are_loaded_and_their_plaintext_is_not_on_disk() {
    let (spill, file) = spill(4);
    for (key, len) in [(1, BLOCK_BYTES), (2, 1000), (3, 1), (4, 0)] {
        spill.store(key, &block(7, len), never);
        assert_eq!(spill.load(&key).as_deref(), Some(&*block(7, len)));
    }
    let mut raw = vec![0; 1000];
    file.read_exact_at(&mut raw, SLOT_BYTES).unwrap();
    assert_ne!(raw, block(7, 1000));
    assert!(spill.load(&9).is_none());
}

#[test]
fn a_flipped_bit_is_a_miss_and_the_slot_is_reused() {
    let (spill, file) = spill(1);
    for _ in 0..3 {
        spill.store(1, &block(1, 5000), never);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4999).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], 4999).unwrap();
        assert!(spill.load(&1).is_none());
        assert_eq!(spill.used(), 0);
    }
    spill.store(2, &block(2, 5000), never);
    assert_eq!(spill.load(&2).as_deref(), Some(&*block(2, 5000)));
}

#[test]
fn swapped_slots_do_not_open() {
    let (spill, file) = spill(2);
    spill.store(1, &block(1, BLOCK_BYTES), never);
    spill.store(2, &block(2, BLOCK_BYTES), never);
    let mut both = vec![0; 2 * BLOCK_BYTES];
    file.read_exact_at(&mut both, 0).unwrap();
    both.rotate_left(BLOCK_BYTES);
    file.write_all_at(&both, 0).unwrap();
    assert!(spill.load(&1).is_none() && spill.load(&2).is_none());
}

#[test]
fn the_file_stays_within_its_bound_and_the_least_recently_used_block_is_evicted() {
    let (spill, file) = spill(3);
    for key in 0..10 {
        spill.store(key, &block(1, BLOCK_BYTES), never);
        assert!(spill.load(&0).is_some(), "used in every round");
    }
    assert_eq!(file.metadata().unwrap().len(), 3 * SLOT_BYTES);
    assert!(spill.load(&9).is_some() && spill.load(&8).is_some() && spill.load(&1).is_none());
}

#[test]
fn a_stale_block_is_dropped_and_removed_keys_are_not_found() {
    let (spill, _) = spill(2);
    spill.store(1, b"old", || true);
    assert!(spill.load(&1).is_none());
    spill.store(1, b"a", never);
    spill.store(2, b"b", never);
    spill.remove(&1);
    spill.remove_where(|key| *key == 2);
    assert!(spill.load(&1).is_none() && spill.load(&2).is_none());
    assert_eq!(spill.used(), 0);
}

#[test]
fn a_full_disk_switches_the_file_off() {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let spill = SpillFile::with_file(full, 10 * SLOT_BYTES).unwrap();
    spill.store(1, b"a", never);
    spill.store(2, b"b", never);
    assert!(spill.load(&1).is_none() && spill.slots.lock().is_off);
    assert_eq!(spill.nonces.load(Ordering::Relaxed), 1, "the second write was not attempted");
}

#[test]
fn a_missing_directory_is_created_and_an_impossible_one_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(SpillFile::<u32>::open(Path::new("/dev/null/x"), SLOT_BYTES).is_none());
    assert!(SpillFile::<u32>::open(dir.path(), SLOT_BYTES - 1).is_none(), "too small for a block");
    let nested = dir.path().join("a/b");
    let spill = SpillFile::open(&nested, SLOT_BYTES).unwrap();
    assert_eq!(fs::read_dir(&nested).unwrap().count(), 0, "the file has no name");
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    spill.store(1, b"a", never);
    assert_eq!(spill.load(&1).as_deref(), Some(&b"a"[..]));
}
