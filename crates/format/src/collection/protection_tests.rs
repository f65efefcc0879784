//! Sets without encryption beside encrypted ones: the target of `latest`, the reported problems, and
//! `--require-encryption`.

use super::tests::{day, days, full, inc, listing, set_names, shown, without};
use super::{Collection, CollectionError, CollectionOptions, PrefixOptions, ProblemKind, SetEncryption};
use crate::SetIndex;

fn plain_full(time: i64) -> Vec<String> {
    set_names(None, time, 2, ".gz")
}

fn plain_inc(start: i64, time: i64) -> Vec<String> {
    set_names(Some(start), time, 2, "")
}

fn read(names: &[Vec<String>]) -> Collection {
    Collection::from_listing(&listing(names), &PrefixOptions::default()).unwrap()
}

fn encrypted_only(names: &[Vec<String>]) -> Result<Collection, CollectionError> {
    let options = CollectionOptions { require_encryption: true, ..CollectionOptions::default() };
    Collection::from_listing_with(&listing(names), &options)
}

fn latest(collection: &Collection) -> String {
    collection.latest().unwrap().name.to_string()
}

fn at_day(n: i64) -> String {
    day(n).to_string()
}

/// The snapshot that `--time now` and `duplicity restore` select.
fn now(collection: &Collection) -> String {
    collection.select(day(1000)).unwrap().name.to_string()
}

fn messages(collection: &Collection) -> Vec<&str> {
    let problems = collection.problems().iter().filter(|problem| problem.kind == ProblemKind::NotEncrypted);
    problems.map(|problem| &*problem.message).collect()
}

fn doubtful(collection: &Collection) -> Vec<i64> {
    let time = |index: &SetIndex| (collection.set(*index).unwrap().time.0 - day(0).0) / (day(1).0 - day(0).0);
    collection.doubtful_sets().iter().map(time).collect()
}

#[test]
fn a_plain_increment_on_an_encrypted_chain_is_not_latest() {
    for planted in [plain_inc(1, 2), set_names(Some(1), 2, 300, ".gz")] {
        let collection = read(&[full(0), inc(0, 1), planted]);
        assert_eq!((latest(&collection), now(&collection)), (at_day(1), at_day(2)));
        assert_eq!(shown(&collection), days(&[0, 1, 2]));
        assert_eq!(doubtful(&collection), [2]);
        let [message] = messages(&collection)[..] else { panic!("{:?}", messages(&collection)) };
        for part in [
            &*collection.set(SetIndex(2)).unwrap().label(),
            "not encrypted",
            &format!("stays at {}", day(1)),
            "--time now",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_plain_full_set_after_an_encrypted_chain_is_not_latest() {
    let collection = read(&[full(0), inc(0, 1), plain_full(2), plain_inc(2, 3), plain_inc(3, 4)]);
    assert_eq!((latest(&collection), now(&collection)), (at_day(1), at_day(4)));
    assert_eq!(doubtful(&collection), [2, 3, 4]);
    let [message] = messages(&collection)[..] else { panic!("one line for all") };
    assert!(message.contains(&format!("3 backup sets from {} to {}", day(2), day(4))), "{message}");
    assert!(message.contains(&format!("snapshots/{}", day(4))), "{message}");
    // An encrypted increment does not make the full set below it trustworthy.
    let carried = read(&[full(0), inc(0, 1), plain_full(2), inc(2, 3)]);
    assert_eq!((latest(&carried), now(&carried)), (at_day(1), at_day(3)));
    // Encryption that is turned on again ends it.
    let again = read(&[full(0), plain_full(2), full(3), inc(3, 4)]);
    assert_eq!((latest(&again), doubtful(&again)), (at_day(4), vec![2]));
    assert!(!messages(&again)[0].contains("stays"), "{:?}", messages(&again));
}

#[test]
fn a_place_without_encryption_and_one_that_turned_it_on_are_sound() {
    let plain = read(&[plain_full(0), plain_inc(0, 1), plain_full(2)]);
    assert_eq!((latest(&plain), doubtful(&plain), messages(&plain).len()), (at_day(2), vec![], 0));
    let upgraded = read(&[plain_full(0), plain_inc(0, 1), full(2), inc(2, 3)]);
    assert_eq!((latest(&upgraded), doubtful(&upgraded), messages(&upgraded).len()), (at_day(3), vec![], 0));
}

#[test]
fn a_plain_set_below_encrypted_increments_is_reported() {
    // Encryption was turned on within a chain, or the full set was replaced: the names do not distinguish this.
    let collection = read(&[plain_full(0), inc(0, 1), inc(1, 2)]);
    assert_eq!((latest(&collection), doubtful(&collection)), (at_day(2), vec![0]));
    assert!(messages(&collection)[0].contains("encrypted sets build on it"), "{:?}", messages(&collection));
    // After an encrypted chain, only the latter is likely.
    let replaced = read(&[full(0), inc(0, 1), plain_full(2), inc(2, 3), inc(3, 4)]);
    assert_eq!((latest(&replaced), doubtful(&replaced)), (at_day(1), vec![2]));
}

#[test]
fn a_planted_set_neither_displaces_nor_carries_an_encrypted_one() {
    // duplicity prefers the later of two increments with one base.
    let displaced = read(&[full(0), inc(0, 1), inc(1, 2), plain_inc(1, 3)]);
    assert_eq!((latest(&displaced), now(&displaced)), (at_day(2), at_day(3)));
    // A chain that is older than the genuine one and ends at the time of one of its sets would be continued in its place.
    let carried = read(&[full(10), inc(10, 11), inc(11, 12), plain_full(0), plain_inc(0, 11)]);
    let lineage: Vec<_> = carried.latest().unwrap().lineage().iter().map(|set| carried.set(*set).unwrap()).collect();
    assert_eq!(latest(&carried), at_day(12));
    assert!(lineage.len() == 3 && lineage.iter().all(|set| set.is_protected()), "{lineage:#?}");
    assert_eq!(now(&carried), at_day(12));
    // Without the genuine base, the set is orphaned and not shown on the planted one.
    let orphaned = read(&[full(5), inc(7, 11), inc(11, 12), plain_full(0), plain_inc(0, 11)]);
    assert!(!shown(&orphaned).contains(&at_day(12)), "{:?}", shown(&orphaned));
    assert_eq!(latest(&orphaned), at_day(5));
    assert!(orphaned.select(day(1000)).is_ok());
}

#[test]
fn planted_duplicates_do_not_outvote_the_encrypted_objects() {
    let genuine = [full(0), inc(0, 1)];
    let planted = set_names(Some(0), 1, 50, ".gz");
    let collection = read(&[genuine[0].clone(), genuine[1].clone(), planted]);
    let set = collection.set(SetIndex(1)).unwrap();
    assert!(
        set.manifest.as_ref().unwrap().name.ends_with(".gpg")
            && set.signatures.as_ref().unwrap().name.ends_with(".gpg")
    );
    let encrypted = set.volumes.values().filter(|object| object.name.ends_with(".gpg")).count();
    assert_eq!((encrypted, set.volumes.len(), set.encryption()), (2, 50, SetEncryption::Mixed));
    assert_eq!((latest(&collection), doubtful(&collection)), (at_day(1), vec![]));
    let [message] = messages(&collection)[..] else { panic!("the volumes are reported") };
    assert!(message.contains("48 of its 50 volumes are not encrypted"), "{message}");
}

#[test]
fn a_set_of_which_the_manifest_or_the_signature_archive_was_replaced_is_doubtful() {
    for part in [".manifest", ".sigtar"] {
        let mut names = without(inc(0, 1), part);
        names.extend(plain_inc(0, 1).into_iter().filter(|name| name.contains(part)));
        let collection = read(&[full(0), names.clone()]);
        assert_eq!((latest(&collection), doubtful(&collection)), (at_day(0), vec![1]), "{part}");
        assert_eq!(collection.set(SetIndex(1)).unwrap().encryption(), SetEncryption::Mixed);
    }
    // Also if it is the only set.
    let mut only = without(full(0), ".sigtar");
    only.extend(plain_full(0).into_iter().filter(|name| name.contains(".sigtar")));
    let collection = read(&[only]);
    assert_eq!((latest(&collection), doubtful(&collection)), (at_day(0), vec![0]));
    // A missing signature archive is no step back: the tree comes from the volumes.
    let lost = read(&[full(0), without(inc(0, 1), ".sigtar")]);
    assert_eq!((latest(&lost), doubtful(&lost)), (at_day(1), vec![]));
}

#[test]
fn encrypted_objects_that_a_plain_set_displaced_make_it_doubtful() {
    // The manifest of the only encrypted set was deleted, and a plain set of the same time was added.
    let mut names = without(full(0), ".manifest");
    names.extend(plain_full(0));
    let collection = read(&[names]);
    assert_eq!(doubtful(&collection), [0]);
    assert!(messages(&collection)[0].contains("not entirely encrypted"), "{:?}", messages(&collection));
    // A plain set of a later time.
    let collection = read(&[without(full(0), ".manifest"), plain_full(1)]);
    assert_eq!(doubtful(&collection), [1]);
    assert!(messages(&collection)[0].contains("although earlier sets here are"), "{:?}", messages(&collection));
}

#[test]
fn required_encryption_leaves_out_plain_sets_and_what_builds_on_them() {
    let collection = encrypted_only(&[full(0), inc(0, 1), plain_inc(1, 2), plain_full(3), inc(3, 4)]).unwrap();
    assert_eq!(shown(&collection), days(&[0, 1]));
    assert_eq!((latest(&collection), now(&collection)), (at_day(1), at_day(1)));
    let [message] = messages(&collection)[..] else { panic!("{:?}", messages(&collection)) };
    assert!(message.contains("2 backup sets") && message.contains("--require-encryption"), "{message}");
    let orphan = collection.problems().iter().find(|problem| problem.kind == ProblemKind::Orphaned).unwrap();
    assert!(orphan.message.contains("which is not encrypted"), "{}", orphan.message);

    let error = encrypted_only(&[plain_full(0), plain_inc(0, 1)]).unwrap_err();
    assert_eq!(error, CollectionError::NotEncrypted { sets: 2 });
}

#[test]
fn required_encryption_holds_for_sets_that_appear_later() {
    let first = encrypted_only(&[full(0)]).unwrap();
    let second = first.refreshed(&listing(&[full(0), plain_inc(0, 1), plain_full(2), inc(0, 3)])).unwrap();
    assert_eq!(shown(&second), days(&[0, 3]));
    assert_eq!(latest(&second), at_day(3));
}

#[test]
fn latest_stays_when_a_plain_set_appears_later() {
    let first = read(&[full(0), inc(0, 1)]);
    let second = first.refreshed(&listing(&[full(0), inc(0, 1), plain_full(-5), plain_inc(1, 2)])).unwrap();
    assert_eq!((latest(&second), now(&second)), (at_day(1), at_day(2)));
    let third = second.refreshed(&listing(&[full(0), inc(0, 1), plain_full(-5), plain_inc(1, 2), inc(1, 3)])).unwrap();
    assert_eq!(latest(&third), at_day(3));
    assert_eq!(doubtful(&third), [2]);
}

#[test]
fn an_unencrypted_backup_without_prefix_beside_an_encrypted_one_is_reported() {
    let prefixed = |names: Vec<String>| names.into_iter().map(|name| format!("host-{name}")).collect::<Vec<_>>();
    let names = [prefixed(full(0)), plain_full(9)];
    let collection = read(&names);
    assert_eq!(shown(&collection), days(&[9]));
    let [message] = messages(&collection)[..] else { panic!("{:?}", messages(&collection)) };
    assert!(message.contains("--file-prefix host-"), "{message}");
    assert_eq!(shown(&encrypted_only(&names).unwrap()), days(&[0]));
}
