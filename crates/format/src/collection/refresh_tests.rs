use std::sync::Arc;

use super::tests::{day, days, full, inc, listing, read, shown, without};
use super::{Collection, PrefixOptions};
use crate::{BackupTime, SetIndex};

fn refreshed(collection: &Collection, names: &[Vec<String>]) -> Collection {
    collection.refreshed(&listing(names)).unwrap()
}

fn lineage(collection: &Collection, name: &str) -> Vec<String> {
    let snapshot = collection.snapshot_named(name).unwrap();
    snapshot.lineage().iter().map(|set| collection.set(*set).unwrap().label()).collect()
}

/// Asserts that everything in `before` is the same in `after`.
fn assert_unchanged(before: &Collection, after: &Collection) {
    for (position, snapshot) in before.snapshots().iter().enumerate() {
        let now = &after.snapshots()[position];
        assert_eq!(
            (&now.name, now.set, now.branch, now.depth),
            (&snapshot.name, snapshot.set, snapshot.branch, snapshot.depth)
        );
        assert_eq!(now.lineage(), snapshot.lineage());
        assert_eq!(after.snapshot_position(snapshot.set), Some(position));
    }
    for (set, now) in before.sets().iter().zip(after.sets()) {
        assert_eq!((set.index, set.time, set.start), (now.index, now.time, now.start));
    }
    for (branch, now) in before.branches().iter().zip(after.branches()) {
        assert!(now.starts_with(branch), "{now:?} does not begin with {branch:?}");
    }
    for (position, snapshot) in after.snapshots().iter().enumerate() {
        assert_eq!(after.branches()[snapshot.branch][..snapshot.depth], *snapshot.lineage());
        assert_eq!(snapshot.lineage().last(), Some(&snapshot.set));
        assert_eq!(after.set(snapshot.set).unwrap().index, snapshot.set);
        assert_eq!(after.snapshot_position(snapshot.set), Some(position));
    }
}

#[test]
fn a_chain_grows_and_another_begins() {
    let first = read(&[full(0), inc(0, 1)]);
    let second = refreshed(&first, &[full(0), inc(0, 1), inc(1, 2), full(3), inc(3, 4)]);
    assert_unchanged(&first, &second);
    assert_eq!(shown(&second), days(&[0, 1, 2, 3, 4]));
    assert_eq!(second.branches().len(), 2);
    assert_eq!(*second.latest().unwrap().name, *day(4).to_string());
    assert_eq!(lineage(&second, &day(4).to_string()).len(), 2);
    let third = refreshed(&second, &[full(0), inc(0, 1), inc(1, 2), full(3), inc(3, 4)]);
    assert_unchanged(&second, &third);
    assert_eq!((third.snapshots().len(), third.sets().len()), (5, 5));
    assert!(third.is_confirmed(&second, None));
    assert_eq!(*third.select(day(2)).unwrap().name, *day(2).to_string());
}

#[test]
fn the_snapshots_of_a_chain_share_one_list_also_if_many_come_at_once() {
    let names: Vec<_> = std::iter::once(full(0)).chain((0..500).map(|n| inc(n, n + 1))).collect();
    for collection in [read(&names), refreshed(&read(&names[..1]), &names), refreshed(&read(&names[..300]), &names)] {
        assert_eq!((collection.snapshots().len(), collection.branches().len()), (501, 1));
        let list = collection.branches()[0].as_ptr();
        assert!(collection.snapshots().iter().all(|snapshot| snapshot.lineage().as_ptr() == list));
        assert!(collection.snapshots().iter().zip(1..).all(|(snapshot, depth)| snapshot.lineage().len() == depth));
    }
}

#[test]
fn a_new_set_between_old_ones_is_appended() {
    let first = read(&[full(0), full(10)]);
    let second = refreshed(&first, &[full(0), inc(0, 1), full(10)]);
    assert_unchanged(&first, &second);
    assert_eq!(shown(&second), days(&[0, 10, 1]));
    assert_eq!(second.set(SetIndex(2)).unwrap().time, day(1));
    assert_eq!(*second.select(day(5)).unwrap().name, *day(1).to_string());
    assert_eq!(*second.latest().unwrap().name, *day(10).to_string());
}

#[test]
fn a_fork_does_not_change_the_existing_branch() {
    let first = read(&[full(0), inc(0, 1)]);
    // Of two increments with one start, duplicity prefers the later one and continues it.
    let second = refreshed(&first, &[full(0), inc(0, 1), inc(0, 2), inc(2, 3)]);
    assert_unchanged(&first, &second);
    assert_eq!(lineage(&second, &day(1).to_string()).len(), 2);
    assert_eq!(lineage(&second, &day(3).to_string()).len(), 3);
    assert_eq!(second.branches().len(), 2);
    assert_eq!(*second.latest().unwrap().name, *day(3).to_string());
}

#[test]
fn an_unfinished_backup_is_shown_when_its_manifest_exists() {
    let first = read(&[full(0)]);
    let unfinished = without(inc(0, 1), ".manifest");
    let second = refreshed(&first, &[full(0), unfinished]);
    assert_unchanged(&first, &second);
    assert_eq!(shown(&second), days(&[0]));
    let third = refreshed(&second, &[full(0), inc(0, 1)]);
    assert_unchanged(&second, &third);
    assert_eq!(shown(&third), days(&[0, 1]));
    assert!(!third.is_confirmed(&second, Some(&second)));
    assert!(third.is_confirmed(&second, Some(&third)));
    let fewer = refreshed(&second, &[full(0), without(inc(0, 1), "new-signatures")]);
    assert!(!third.is_confirmed(&second, Some(&fewer)), "the previous listing had no signature archive");
}

#[test]
fn a_removed_set_keeps_its_record() {
    let first = read(&[full(0), inc(0, 1), full(10)]);
    let half = refreshed(&first, &[without(full(0), ".manifest"), inc(0, 1), full(10)]);
    assert_unchanged(&first, &half);
    assert!(!half.is_removed(SetIndex(0)), "some of its objects are left");
    assert!(half.set(SetIndex(0)).unwrap().is_complete());
    let second = refreshed(&half, &[full(10)]);
    assert_unchanged(&first, &second);
    assert_eq!([0, 1, 2].map(|i| second.is_removed(SetIndex(i))), [true, true, false]);
    assert_eq!(second.set(SetIndex(0)).unwrap(), first.set(SetIndex(0)).unwrap());
    assert_eq!(*second.select(BackupTime(0)).unwrap().name, *day(10).to_string());
    let back = refreshed(&second, &[full(0), inc(0, 1), full(10)]);
    assert_unchanged(&first, &back);
    assert_eq!((back.snapshots().len(), back.is_removed(SetIndex(0))), (3, false));
    assert!(second.refreshed(&[]).is_err(), "an empty listing is an error");
}

#[test]
fn a_replaced_object_is_updated_and_a_missing_one_stays() {
    let first = read(&[full(0)]);
    let mut objects = listing(&[without(full(0), ".vol2.")]);
    for object in objects.iter_mut().filter(|object| object.name.contains(".vol1.")) {
        object.version = "2".into();
    }
    let second = first.refreshed(&objects).unwrap();
    let versions: Vec<_> = second.set(SetIndex(0)).unwrap().volumes.values().map(|o| Arc::clone(&o.version)).collect();
    assert_eq!(versions.iter().map(|v| &**v).collect::<Vec<_>>(), ["2", "1"]);
}

#[test]
fn names_stay_when_another_set_of_the_same_time_appears() {
    let first = read(&[full(0), inc(0, 1)]);
    let second = refreshed(&first, &[full(0), inc(0, 1), full(1)]);
    assert_unchanged(&first, &second);
    let name = day(1).to_string();
    assert_eq!(shown(&second), [day(0).to_string(), name.clone(), format!("{name}-full")]);
}

#[test]
fn the_chosen_prefix_stays_chosen() {
    let prefixed = |names: Vec<String>| names.into_iter().map(|name| format!("web_{name}")).collect::<Vec<_>>();
    let first = read(&[prefixed(full(0))]);
    let second = refreshed(&first, &[prefixed(full(0)), full(5)]);
    assert_eq!(shown(&second), days(&[0]));
    let plain = Collection::from_listing(&listing(&[full(5)]), &PrefixOptions::default()).unwrap();
    assert!(plain.refreshed(&listing(&[prefixed(full(0))])).is_err());
}

#[test]
fn an_increment_is_shown_when_its_base_appears() {
    let first = read(&[inc(0, 1), full(5)]);
    assert_eq!(shown(&first), days(&[5]));
    let second = refreshed(&first, &[full(0), inc(0, 1), full(5)]);
    assert_unchanged(&first, &second);
    assert_eq!(shown(&second), days(&[5, 0, 1]));
    assert_eq!(lineage(&second, &day(1).to_string()).len(), 2);
}
