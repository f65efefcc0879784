use super::*;

fn never() -> bool {
    false
}

fn block(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add(u8::try_from(i % 251).unwrap())).collect()
}

fn spill(slots: u64) -> (Spill<u32>, File) {
    let file = nameless_file(&std::env::temp_dir()).unwrap();
    let other = file.try_clone().unwrap();
    (Spill::with_file(file, slots * SLOT_BYTES).unwrap(), other)
}

#[test]
fn blocks_come_back_and_their_text_is_not_on_disk() {
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
fn a_flipped_bit_is_a_miss_and_the_slot_is_used_again() {
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
fn slots_that_change_places_do_not_open() {
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
fn the_file_stays_within_its_bound_and_the_oldest_goes() {
    let (spill, file) = spill(3);
    for key in 0..10 {
        spill.store(key, &block(1, BLOCK_BYTES), never);
        assert!(spill.load(&0).is_some(), "used all the time");
    }
    assert_eq!(file.metadata().unwrap().len(), 3 * SLOT_BYTES);
    assert!(spill.load(&9).is_some() && spill.load(&8).is_some() && spill.load(&1).is_none());
}

#[test]
fn a_stale_block_is_dropped_and_removed_keys_are_gone() {
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
fn a_full_disk_switches_the_tier_off() {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let spill = Spill::with_file(full, 10 * SLOT_BYTES).unwrap();
    spill.store(1, b"a", never);
    spill.store(2, b"b", never);
    assert!(spill.load(&1).is_none() && lock(&spill.state).off);
    assert_eq!(spill.nonces.load(Ordering::Relaxed), 1, "the second was not even tried");
}

#[test]
fn a_directory_that_cannot_be_is_no_tier_and_one_that_is_missing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Spill::<u32>::open(Path::new("/dev/null/x"), SLOT_BYTES).is_none());
    assert!(Spill::<u32>::open(dir.path(), SLOT_BYTES - 1).is_none(), "0 is off");
    let nested = dir.path().join("a/b");
    let spill = Spill::open(&nested, SLOT_BYTES).unwrap();
    assert_eq!(fs::read_dir(&nested).unwrap().count(), 0, "the file has no name");
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    spill.store(1, b"a", never);
    assert_eq!(spill.load(&1).as_deref(), Some(&b"a"[..]));
}
