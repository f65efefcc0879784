use std::sync::Arc;

use super::super::tests::{day, days, full, inc, listing, read, shown, without};
use super::super::{Collection, PrefixOptions};
use crate::{BackupTime, SetIndex};

fn then(collection: &Collection, names: &[Vec<String>]) -> Collection {
    collection.follow(&listing(names)).unwrap()
}

fn lineage(collection: &Collection, name: &str) -> Vec<String> {
    let snapshot = collection.snapshot_named(name).unwrap();
    snapshot.lineage().iter().map(|set| collection.set(*set).unwrap().label()).collect()
}

/// What must be the same of everything that was shown.
fn assert_keeps(before: &Collection, after: &Collection) {
    for (place, snapshot) in before.snapshots().iter().enumerate() {
        let now = &after.snapshots()[place];
        assert_eq!(
            (&now.name, now.set, now.line, now.depth),
            (&snapshot.name, snapshot.set, snapshot.line, snapshot.depth)
        );
        assert_eq!(now.lineage(), snapshot.lineage());
        assert_eq!(after.place_of(snapshot.set), Some(place));
    }
    for (set, now) in before.sets().iter().zip(after.sets()) {
        assert_eq!((set.index, set.time, set.start), (now.index, now.time, now.start));
    }
    for (line, now) in before.lines().iter().zip(after.lines()) {
        assert!(now.starts_with(line), "{now:?} does not begin with {line:?}");
    }
    for (place, snapshot) in after.snapshots().iter().enumerate() {
        assert_eq!(after.lines()[snapshot.line][..snapshot.depth], *snapshot.lineage());
        assert_eq!(snapshot.lineage().last(), Some(&snapshot.set));
        assert_eq!(after.set(snapshot.set).unwrap().index, snapshot.set);
        assert_eq!(after.place_of(snapshot.set), Some(place));
    }
}

#[test]
fn a_chain_grows_and_another_begins() {
    let first = read(&[full(0), inc(0, 1)]);
    let second = then(&first, &[full(0), inc(0, 1), inc(1, 2), full(3), inc(3, 4)]);
    assert_keeps(&first, &second);
    assert_eq!(shown(&second), days(&[0, 1, 2, 3, 4]));
    assert_eq!(second.lines().len(), 2);
    assert_eq!(*second.latest().unwrap().name, *day(4).to_string());
    assert_eq!(lineage(&second, &day(4).to_string()).len(), 2);
    let third = then(&second, &[full(0), inc(0, 1), inc(1, 2), full(3), inc(3, 4)]);
    assert_keeps(&second, &third);
    assert_eq!((third.snapshots().len(), third.sets().len()), (5, 5));
    assert!(third.is_settled(&second, None));
    assert_eq!(*third.select(day(2)).unwrap().name, *day(2).to_string());
}

#[test]
fn what_is_new_between_old_sets_stands_behind_them() {
    let first = read(&[full(0), full(10)]);
    let second = then(&first, &[full(0), inc(0, 1), full(10)]);
    assert_keeps(&first, &second);
    assert_eq!(shown(&second), days(&[0, 10, 1]));
    assert_eq!(second.set(SetIndex(2)).unwrap().time, day(1));
    assert_eq!(*second.select(day(5)).unwrap().name, *day(1).to_string());
    assert_eq!(*second.latest().unwrap().name, *day(10).to_string());
}

#[test]
fn a_fork_leaves_the_line_that_was_shown_as_it_is() {
    let first = read(&[full(0), inc(0, 1)]);
    // duplicity prefers the later of two increments with one start, and continues that one.
    let second = then(&first, &[full(0), inc(0, 1), inc(0, 2), inc(2, 3)]);
    assert_keeps(&first, &second);
    assert_eq!(lineage(&second, &day(1).to_string()).len(), 2);
    assert_eq!(lineage(&second, &day(3).to_string()).len(), 3);
    assert_eq!(second.lines().len(), 2);
    assert_eq!(*second.latest().unwrap().name, *day(3).to_string());
}

#[test]
fn an_unfinished_backup_is_shown_when_its_manifest_comes() {
    let first = read(&[full(0)]);
    let unfinished = without(inc(0, 1), ".manifest");
    let second = then(&first, &[full(0), unfinished]);
    assert_keeps(&first, &second);
    assert_eq!(shown(&second), days(&[0]));
    let third = then(&second, &[full(0), inc(0, 1)]);
    assert_keeps(&second, &third);
    assert_eq!(shown(&third), days(&[0, 1]));
    assert!(!third.is_settled(&second, Some(&second)));
    assert!(third.is_settled(&second, Some(&third)));
    let fewer = then(&second, &[full(0), without(inc(0, 1), "new-signatures")]);
    assert!(!third.is_settled(&second, Some(&fewer)), "the listing before missed the signature archive");
}

#[test]
fn what_is_removed_is_gone_and_keeps_its_record() {
    let first = read(&[full(0), inc(0, 1), full(10)]);
    let half = then(&first, &[without(full(0), ".manifest"), inc(0, 1), full(10)]);
    assert_keeps(&first, &half);
    assert!(!half.is_gone(SetIndex(0)), "something of it is left");
    assert!(half.set(SetIndex(0)).unwrap().is_complete());
    let second = then(&half, &[full(10)]);
    assert_keeps(&first, &second);
    assert_eq!([0, 1, 2].map(|i| second.is_gone(SetIndex(i))), [true, true, false]);
    assert_eq!(second.set(SetIndex(0)).unwrap(), first.set(SetIndex(0)).unwrap());
    assert_eq!(*second.select(BackupTime(0)).unwrap().name, *day(10).to_string());
    let back = then(&second, &[full(0), inc(0, 1), full(10)]);
    assert_keeps(&first, &back);
    assert_eq!((back.snapshots().len(), back.is_gone(SetIndex(0))), (3, false));
    assert!(second.follow(&[]).is_err(), "an empty place is no news");
}

#[test]
fn a_mended_object_is_taken_and_a_lost_one_kept() {
    let first = read(&[full(0)]);
    let mut objects = listing(&[without(full(0), ".vol2.")]);
    for object in objects.iter_mut().filter(|object| object.name.contains(".vol1.")) {
        object.version = "2".into();
    }
    let second = first.follow(&objects).unwrap();
    let versions: Vec<_> = second.set(SetIndex(0)).unwrap().volumes.values().map(|o| Arc::clone(&o.version)).collect();
    assert_eq!(versions.iter().map(|v| &**v).collect::<Vec<_>>(), ["2", "1"]);
}

#[test]
fn names_stay_when_a_set_of_the_same_time_comes() {
    let first = read(&[full(0), inc(0, 1)]);
    let second = then(&first, &[full(0), inc(0, 1), full(1)]);
    assert_keeps(&first, &second);
    let name = day(1).to_string();
    assert_eq!(shown(&second), [day(0).to_string(), name.clone(), format!("{name}-full")]);
}

#[test]
fn the_prefix_that_was_chosen_stays_chosen() {
    let prefixed = |names: Vec<String>| names.into_iter().map(|name| format!("web_{name}")).collect::<Vec<_>>();
    let first = read(&[prefixed(full(0))]);
    let second = then(&first, &[prefixed(full(0)), full(5)]);
    assert_eq!(shown(&second), days(&[0]));
    let plain = Collection::from_listing(&listing(&[full(5)]), &PrefixOptions::default()).unwrap();
    assert!(plain.follow(&listing(&[prefixed(full(0))])).is_err());
}

#[test]
fn an_increment_whose_base_comes_back_is_shown() {
    let first = read(&[inc(0, 1), full(5)]);
    assert_eq!(shown(&first), days(&[5]));
    let second = then(&first, &[full(0), inc(0, 1), full(5)]);
    assert_keeps(&first, &second);
    assert_eq!(shown(&second), days(&[5, 0, 1]));
    assert_eq!(lineage(&second, &day(1).to_string()).len(), 2);
}
