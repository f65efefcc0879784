//! Failures that the properties found, as separate cases.

use std::collections::BTreeMap;

use dupfs::vfs::{FileSystem, Ino, ROOT_INO};
use dupfs_base::{ErrorKind, RequestContext};

use crate::properties::{check_faults, check_whole, encoded};
use crate::reference::encode::{Repository, encode};
use crate::reference::history::{Addition, Change, Edit, History, Meta, Sort, Step};
use crate::reference::layout::{BlockRule, Filelist, Layout, Mangle, Parts, Wrap, usual};
use crate::reference::store::{Fault, MemoryStore};
use crate::reference::subject;

/// One full backup of files of these sizes, named a, b, c ...
pub(crate) fn files(sizes: &[usize]) -> History {
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, owner: ("", ""), mtime: 1_000_000_000 };
    let add = |(name, size): (u8, &usize)| Addition {
        parent: 0,
        name: vec![name],
        sort: Sort::File { size: *size, seed: 0, grain: 0 },
        meta: meta.clone(),
    };
    History { lone_file: None, root_meta: meta.clone(), base: (b'a'..).zip(sizes).map(add).collect(), steps: vec![] }
}

fn with_faults(repository: &Repository, faults: &[(&String, Fault)]) {
    let faults: BTreeMap<String, Fault> = faults.iter().map(|(name, fault)| ((*name).clone(), fault.clone())).collect();
    check_faults(repository, &faults, false, 1);
}

/// The last volume contains the last part alone, and the signature's blocks are large (the file shrank while it was
/// read): the parts before might be of 65536 bytes, and are not. The size was computed from the last part's number.
#[test]
fn a_size_is_not_guessed_from_the_last_part_where_parts_may_be_short() {
    for seed in 0..12 {
        for volume_bytes in [33_281, 48_000, 64_000, 64_513, 65_000] {
            let mut layout: Layout = usual(volume_bytes);
            layout.sets[0].parts = Parts::Shrinking(1);
            layout.sets[0].blocks = BlockRule::Stale;
            layout.sets[0].seed = seed;
            check_whole(&files(&[65_537, 130_048]), &layout, 1 << 16, 1);
        }
    }
}

/// Without its signature archive the tree of a set is read from its volumes. The names of a volume that a damaged
/// manifest no longer listed were missing from listings that looked complete.
#[test]
fn a_damaged_manifest_beside_a_lost_signature_archive_hides_no_name() {
    let mut layout = usual(1);
    layout.sets[0].filelist = Filelist::Absent;
    layout.sets[0].dirinfo = false;
    let repository = encoded(&files(&[10, 20, 30]), &layout);
    let set = &repository.sets[0];
    let manifest = &repository.objects[&set.manifest];
    let entries = (0..manifest.len()).filter(|at| manifest[*at..].starts_with(b"Volume "));
    for at in entries {
        let faults = [(&set.sigtar, Fault::Missing), (&set.manifest, Fault::Flip { at, bit: 0 })];
        with_faults(&repository, &faults);
    }
}

/// A signature archive cut between two entries, or empty as after a failed upload, looked like one with fewer
/// objects: the snapshot lacked them without an error.
#[test]
fn a_signature_archive_cut_between_entries_hides_no_name() {
    for wrap in [Wrap::Plain, Wrap::Gzip, Wrap::GzipUnmarked] {
        let mut layout = usual(40_000);
        layout.sets[0].wrap = wrap;
        let repository = encoded(&files(&[10, 20, 30]), &layout);
        let sigtar = &repository.sets[0].sigtar;
        for at in (0..repository.objects[sigtar].len().min(4096)).step_by(512) {
            with_faults(&repository, &[(sigtar, Fault::Cut { at })]);
            with_faults(&repository, &[(sigtar, Fault::Short { at })]);
        }
    }
}

/// An object that is listed and then not found is damage: a path that exists never answers ENOENT.
#[test]
fn an_object_that_the_store_does_not_find_is_no_missing_path() {
    let repository = encoded(&files(&[10, 70_000]), &usual(40_000));
    let set = &repository.sets[0];
    for name in set.volumes.iter().chain([&set.sigtar, &set.manifest]) {
        for kind in [ErrorKind::NotFound, ErrorKind::Missing] {
            with_faults(&repository, &[(name, Fault::Open { first: 0, times: 1, kind })]);
            with_faults(&repository, &[(name, Fault::Open { first: 0, times: 100, kind })]);
        }
    }
}

/// A set without its signature archive and with a lost volume may have changed the paths in that volume. The state of
/// the previous set was shown for it, and deltas of later sets were applied to that state.
#[test]
fn a_state_that_may_have_changed_in_a_lost_volume_is_not_shown_as_the_newest() {
    let edit = |pick| Edit::Content(pick, vec![Change::Overwrite { at: 5, len: 5 }]);
    let history = History {
        steps: vec![
            Step { full: false, edits: vec![edit(0), edit(1), edit(2)] },
            Step { full: false, edits: vec![edit(0), edit(1), edit(2)] },
        ],
        ..files(&[10, 5_000, 200_000])
    };
    let repository = encoded(&history, &usual(1));
    let set = &repository.sets[1];
    for volume in &set.volumes {
        with_faults(&repository, &[(&set.sigtar, Fault::Missing), (volume, Fault::Missing)]);
        // Known paths are still shown.
        let store = MemoryStore::new(&repository.objects);
        store.set_faults(&BTreeMap::from([&set.sigtar, volume].map(|name| (name.clone(), Fault::Missing))));
        let fs = subject::open(store, &repository, 64 << 20).unwrap();
        let root = down(&*fs, &[b"snapshots", set.snapshot().as_bytes()]);
        let found =
            [b"a", b"b", b"c"].map(|name| fs.lookup(root, name, &RequestContext::unlimited()).map(|attr| attr.mtime));
        assert_eq!(found.iter().filter(|found| found.is_err()).count(), 1, "{volume}: {found:?}");
        // The records of the next set are complete, but its deltas of that file depend on the lost state.
        let later = &repository.sets[2];
        let root = down(&*fs, &[b"snapshots", later.snapshot().as_bytes()]);
        for name in [b"a", b"b", b"c"] {
            let content = later.tree[&vec![name.to_vec()]].content().unwrap();
            let ino = fs.lookup(root, name, &RequestContext::unlimited()).unwrap().ino;
            let opened = fs.open(ino, &RequestContext::unlimited());
            let read =
                opened.and_then(|open| fs.read(ino, open.handle, 0, content.len(), &RequestContext::unlimited()));
            match read {
                Ok(read) => assert!(read == *content, "{volume}: a delta was applied to another state"),
                Err(error) => assert!(found[usize::from(name[0] - b'a')].is_err(), "{volume}: {error}"),
            }
        }
    }
    for volume in &repository.sets[2].volumes {
        with_faults(&repository, &[(&repository.sets[2].sigtar, Fault::Missing), (volume, Fault::Missing)]);
    }
}

/// Python 3.7 wrote `a\xe9` under the name `a?`: a file with that actual name was given the content of the other.
#[test]
fn a_name_equal_to_a_mangled_one_has_its_own_content() {
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, owner: ("", ""), mtime: 1_000_000_000 };
    let add = |(seed, name): (usize, &&[u8])| Addition {
        parent: 0,
        name: name.to_vec(),
        sort: Sort::File { size: 100, seed: seed as u64, grain: 0 },
        meta: meta.clone(),
    };
    let cases: [&[&[u8]]; 4] = [
        &[b"a?", b"a\xe9"],
        &[b"a?", b"a\xe9", b"a\xea", b"b"],
        &["\u{e9}".as_bytes(), b"\xe8\xe9", b"\xe9\xe8"],
        &[b"??", "\u{e9}".as_bytes(), b"\xe8\xe9", b"\xe9\xe8"],
    ];
    for names in cases {
        let base = names.iter().enumerate().map(add).collect();
        let history = History { base, ..files(&[]) };
        for volume_bytes in [1, 2_000, 100_000] {
            let mut layout = usual(volume_bytes);
            layout.sets[0].mangle = Mangle::QuestionMark;
            check_whole(&history, &layout, 1 << 16, 1);
        }
    }
}

fn down(fs: &dyn FileSystem, names: &[&[u8]]) -> Ino {
    names.iter().fold(ROOT_INO, |parent, name| fs.lookup(parent, name, &RequestContext::unlimited()).unwrap().ino)
}

/// An interrupted backup was resumed after the file had changed. Its stored state is the complete old one, its
/// signature that of the new one, and the delta of the next increment is relative to the new one. It was applied to
/// the old one.
#[test]
fn a_delta_is_not_applied_to_another_state_than_it_was_made_from() {
    for size in [100, 5_000, 200_000] {
        let first = |seed, mtime| {
            let mut history = files(&[size]);
            history.base[0].sort = Sort::File { size, seed, grain: 0 };
            history.base[0].meta.mtime = mtime;
            history
        };
        let history = History {
            steps: vec![
                Step { full: false, edits: vec![Edit::Content(0, vec![Change::Append { len: 10 }])] },
                Step { full: false, edits: vec![Edit::Content(0, vec![Change::Append { len: 10 }])] },
            ],
            ..first(2, 1_000_000_000)
        };
        let layout = usual(100_000);
        let stale = encode(&first(1, 900_000_000).trees(), &[true], &layout);
        let mut repository = encoded(&history, &layout);
        for name in stale.sets[0].volumes.iter().chain([&stale.sets[0].manifest]) {
            repository.objects.insert(name.clone(), stale.objects[name].clone());
        }
        let store = MemoryStore::new(&repository.objects);
        // The stored state is shown, whether it is cached or not.
        for warm in [true, false] {
            let fs = subject::open(store.clone(), &repository, 64 << 20).unwrap();
            if warm {
                let ino = down(&*fs, &[b"snapshots", repository.sets[0].snapshot().as_bytes(), b"a"]);
                let attr = fs.getattr(ino, &RequestContext::unlimited()).unwrap();
                assert_eq!((attr.size, attr.mtime), (size as u64, 900_000_000));
                let opened = fs.open(ino, &RequestContext::unlimited()).unwrap();
                let found = fs.read(ino, opened.handle, 0, size, &RequestContext::unlimited()).unwrap();
                assert!(found == **stale.sets[0].tree[&vec![b"a".to_vec()]].content().unwrap());
            }
            for set in &repository.sets[1..] {
                let ino = down(&*fs, &[b"snapshots", set.snapshot().as_bytes(), b"a"]);
                let read = fs
                    .open(ino, &RequestContext::unlimited())
                    .and_then(|o| fs.read(ino, o.handle, 0, size + 99, &RequestContext::unlimited()));
                if let Ok(found) = read {
                    assert!(
                        found == **set.tree[&vec![b"a".to_vec()]].content().unwrap(),
                        "{size}: another file's bytes"
                    );
                }
            }
        }
    }
}

/// The manifest and a volume without an integrity code of its own are both damaged. A first blank of the line with the hash
/// that became another character hid the hash, and the wrong byte in the volume was served.
#[test]
fn no_flip_in_a_manifest_hides_a_flip_in_a_volume() {
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, owner: ("", ""), mtime: 1_000_000_000 };
    let lone_file = Some(Sort::File { size: 65_535, seed: 0, grain: 0 });
    let history = History { lone_file, root_meta: meta, base: vec![], steps: vec![] };
    let mut layout = usual(43_776);
    layout.sets[0].wrap = Wrap::Plain;
    let repository = encoded(&history, &layout);
    let set = &repository.sets[0];
    let manifest = &repository.objects[&set.manifest];
    for (at, bit) in (0..manifest.len()).flat_map(|at| [(at, 0), (at, 4)]) {
        let faults = [(&set.manifest, Fault::Flip { at, bit }), (&set.volumes[0], Fault::Flip { at: 512, bit: 0 })];
        with_faults(&repository, &faults);
    }
}
