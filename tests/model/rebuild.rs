//! Sets that have lost their manifests (`--rebuild`): only content that the signature archive proves is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use dupfs::vfs::{FileSystem, ROOT_INO};
use dupfs_base::{ErrorKind, HasKind, RequestContext};

use crate::properties::encoded;
use crate::reference::check::{Checker, FaultMap};
use crate::reference::encode::Repository;
use crate::reference::history::{Change, Edit, History, Step};
use crate::reference::layout::{Footer, Restart, SetLayout, Wrap, usual};
use crate::reference::store::{Fault, MemoryStore};
use crate::reference::subject;
use crate::reference::tree::Dice;
use crate::regressions::files;

/// A full set and two increments, with files of no, one and several parts, and deltas with copies.
fn history() -> History {
    let edit = |pick| Edit::Content(pick, vec![Change::Overwrite { at: 5, len: 5 }]);
    let append = |pick| Edit::Content(pick, vec![Change::Append { len: 9 }]);
    let steps = vec![
        Step { full: false, edits: vec![edit(1), edit(3), append(4), edit(5)] },
        Step { full: false, edits: vec![append(3), edit(4), Edit::Delete(2)] },
    ];
    History { steps, ..files(&[0, 10, 5_000, 200_000, 131_072, 70_000]) }
}

fn without(repository: &Repository, lost: &[usize]) -> Repository {
    let mut repository = repository.clone();
    for &set in lost {
        repository.objects.remove(&repository.sets[set].manifest);
    }
    repository
}

/// Checks all snapshots. Content of the objects `harmed` may be an error, and everything else must be right.
fn check(repository: &Repository, harmed: &[&String]) {
    let faults: BTreeMap<String, Fault> = harmed.iter().map(|name| ((*name).clone(), Fault::Missing)).collect();
    let fs = subject::open_rebuilding(MemoryStore::new(&repository.objects), repository, 64 << 20).unwrap();
    let mut checker = Checker { fs: &*fs, repository, fault_map: FaultMap::of(&faults), dice: Dice::new(7) };
    checker.everything();
}

fn snapshots(fs: &dyn FileSystem) -> Vec<String> {
    let context = RequestContext::unlimited();
    let dir = fs.lookup(ROOT_INO, b"snapshots", &context).unwrap().ino;
    let mut names = Vec::new();
    fs.readdir(dir, 0, &context, &mut |entry| {
        names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        true
    })
    .unwrap();
    names
}

#[test]
fn sets_without_their_manifests_show_the_same_trees() {
    for (volume_bytes, wrap, footer) in [
        (1, Wrap::Gzip, Footer::None),
        (40_000, Wrap::Plain, Footer::Padded),
        (150_000, Wrap::Gzip, Footer::Garbage),
        (10_000_000, Wrap::GzipUnmarked, Footer::None),
    ] {
        let mut layout = usual(volume_bytes);
        (layout.sets[0].wrap, layout.sets[0].footer) = (wrap, footer);
        let whole = encoded(&history(), &layout);
        for lost in [&[0][..], &[1], &[2], &[0, 1, 2]] {
            let repository = without(&whole, lost);
            let store = || MemoryStore::new(&repository.objects);
            // Without the option the set is not shown, and those that build on it are not either.
            match subject::open(store(), &repository, 64 << 20) {
                Ok(fs) => assert_eq!(snapshots(&*fs).len(), lost[0], "{volume_bytes} {lost:?}"),
                Err(message) => assert!(lost[0] == 0 && message.contains("--rebuild"), "{lost:?}: {message}"),
            }
            let fs = subject::open_rebuilding(store(), &repository, 64 << 20).unwrap();
            assert_eq!(snapshots(&*fs).len(), 3, "{volume_bytes} {lost:?}");
            check(&repository, &[]);
        }
    }
}

/// Remains of interrupted and resumed runs (FORMAT.md 2.3): volumes of higher numbers, ranges without entries, parts
/// of a file that was deleted before the run was resumed.
#[test]
fn resumed_backups_without_their_manifests_show_the_same_trees() {
    type EditLayout = fn(&mut SetLayout);
    let edits: [(&str, EditLayout); 4] = [
        ("left over", |layout| layout.restart = Restart::Lost(2, 1)),
        ("made again", |layout| layout.restart = Restart::Again(2)),
        ("empty last volume", |layout| layout.empty_last_volume = true),
        ("half uploaded", |layout| layout.half_uploaded = true),
    ];
    for (case, edit) in edits {
        let mut layout = usual(40_000);
        edit(&mut layout.sets[0]);
        eprintln!("{case}");
        check(&without(&encoded(&history(), &layout), &[0, 1, 2]), &[]);
    }
}

/// Volumes under each other's names, of another backup, missing or left over: right bytes or an error, never other bytes.
#[test]
fn content_that_no_signature_proves_is_an_error() {
    let whole = encoded(&history(), &usual(40_000));
    let other = {
        let mut other = history();
        other.base.iter_mut().for_each(|addition| addition.meta.mtime += 1);
        for (seed, addition) in (100..).zip(&mut other.base) {
            if let crate::reference::history::Sort::File { seed: own, .. } = &mut addition.sort {
                *own = seed;
            }
        }
        encoded(&other, &usual(40_000))
    };
    let lost = without(&whole, &[0, 1, 2]);
    let volumes = &lost.sets[0].volumes;
    assert!(volumes.len() > 3, "{volumes:?}");
    for (i, name) in volumes.iter().enumerate() {
        let mut missing = lost.clone();
        missing.objects.remove(name);
        check(&missing, &[name]);

        let mut replaced = lost.clone();
        replaced.objects.insert(name.clone(), Arc::clone(&other.objects[name]));
        check(&replaced, &[name]);

        let next = &volumes[(i + 1) % volumes.len()];
        let mut swapped = lost.clone();
        swapped.objects.insert(name.clone(), Arc::clone(&lost.objects[next]));
        swapped.objects.insert(next.clone(), Arc::clone(&lost.objects[name]));
        // Names and positions are both wrong, so paths between them may not be found either.
        let between: Vec<&String> = if i + 1 < volumes.len() { vec![name, next] } else { volumes.iter().collect() };
        check(&swapped, &between);

        // Left over from an interrupted run.
        let mut longer = lost.clone();
        let extra = volumes[0].replace(".vol1.", &format!(".vol{}.", volumes.len() + 1));
        longer.objects.insert(extra, Arc::clone(&other.objects[name]));
        check(&longer, &volumes.iter().skip(i).collect::<Vec<_>>());
    }
    // The reason is reported: the last volume is missing, which only the signature archive shows.
    let mut cut = lost.clone();
    cut.objects.remove(volumes.last().unwrap());
    let fs = subject::open_rebuilding(MemoryStore::new(&cut.objects), &cut, 64 << 20).unwrap();
    let context = RequestContext::unlimited();
    let mut ino = ROOT_INO;
    for name in ["snapshots", &cut.sets[0].snapshot(), "f"] {
        ino = fs.lookup(ino, name.as_bytes(), &context).unwrap().ino;
    }
    let error = fs.getattr(ino, &context).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("has lost its manifest, and no available volume has the whole file"), "{error}");
}

/// Without a signature archive nothing proves the volumes, so the option shows no more than before.
#[test]
fn a_set_without_manifest_and_signature_archive_is_not_rebuilt() {
    let mut repository = without(&encoded(&history(), &usual(40_000)), &[2]);
    repository.objects.remove(&repository.sets[2].sigtar);
    let fs = subject::open_rebuilding(MemoryStore::new(&repository.objects), &repository, 64 << 20).unwrap();
    assert_eq!(snapshots(&*fs).len(), 2);
}
