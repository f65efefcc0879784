//! Tests of the index on disk: a second mount shows the same as the first and fetches almost nothing, and no fault of
//! an index changes an answer.

use dupfs_base::RequestContext;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dupfs::vfs::{FileSystem, Ino, NodeKind, ROOT_INO};
use proptest::prelude::*;

use crate::reference::check::{Checker, FaultMap};
use crate::reference::encode::{Repository, encode};
use crate::reference::history::{Addition, Change, Edit, History, Meta, Sort, Step, config, histories};
use crate::reference::layout::{Oddities, layouts, usual};
use crate::reference::store::{Fault, MemoryStore};
use crate::reference::subject;
use crate::reference::tree::{Dice, Path};

const MEMORY: u64 = 64 << 20;

fn meta() -> Meta {
    Meta { mode: 0o644, uid: 1, gid: 2, owner: ("", ""), mtime: 1_000_000 }
}

fn add(name: &[u8], size: usize) -> Addition {
    Addition { parent: 0, name: name.to_vec(), sort: Sort::File { size, seed: 7, grain: 0 }, meta: meta() }
}

fn history(size: usize) -> History {
    let dump = |change| Edit::Content(1, vec![change]);
    History {
        lone_file: None,
        root_meta: meta(),
        base: vec![add(b"a", 100), add(b"dump", size), add(b"z", 100)],
        steps: vec![
            Step { full: false, edits: vec![dump(Change::Overwrite { at: 10, len: size / 8 })] },
            Step { full: false, edits: vec![dump(Change::Insert { at: size / 2, len: size / 6 })] },
            Step { full: false, edits: vec![Edit::Content(0, vec![Change::Append { len: 10 }])] },
            Step { full: true, edits: vec![] },
            Step { full: false, edits: vec![dump(Change::Overwrite { at: 5, len: 5 })] },
        ],
    }
}

/// The first `sets` sets of a history of a file of `size` bytes.
fn repository(size: usize, sets: usize) -> Repository {
    let trees = history(size).trees();
    encode(&trees[..sets], &[true, false, false, false, true, false][..sets], &usual(size / 9 + 1000))
}

/// An index and a repository that is opened again and again.
struct Indexed {
    repository: Repository,
    store: Arc<MemoryStore>,
    base: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Indexed {
    fn new(repository: Repository) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let store = MemoryStore::new(&repository.objects);
        Self { repository, store, base: scratch.path().join("cache"), _scratch: scratch }
    }

    fn open(&self) -> Arc<dyn FileSystem> {
        self.store.take_counts();
        subject::open_indexed(self.store.clone(), &self.repository, MEMORY, &self.base).unwrap()
    }

    /// Replaces the repository in the store.
    fn replace(&mut self, repository: Repository) {
        self.store = MemoryStore::new(&repository.objects);
        self.repository = repository;
    }

    fn check(&self, fs: &dyn FileSystem) {
        let fault_map = FaultMap::default();
        Checker { fs, repository: &self.repository, fault_map, dice: Dice::new(5) }.everything();
    }

    /// Opens the repository, compares everything with the source, and closes it.
    fn visit(&self) {
        self.check(&*self.open());
    }

    fn fetched(&self) -> BTreeSet<String> {
        self.store.take_counts().into_iter().filter(|(_, count)| count.opens > 0).map(|(name, _)| name).collect()
    }

    fn volumes_fetched(&self) -> BTreeSet<String> {
        let mut fetched = self.fetched();
        fetched.retain(|name| self.repository.sets.iter().any(|set| set.volumes.contains(name)));
        fetched
    }

    fn sigtars_fetched(&self) -> Vec<String> {
        let fetched = self.fetched();
        self.repository.sets.iter().map(|set| set.sigtar.clone()).filter(|name| fetched.contains(name)).collect()
    }

    /// The files of the index.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in fs::read_dir(&self.base).unwrap() {
            files.extend(fs::read_dir(dir.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        files.sort();
        files
    }
}

/// Returns the attributes that `stat` shows for every file of every snapshot.
fn stat_all(fs: &dyn FileSystem) -> BTreeMap<Vec<u8>, String> {
    let mut shown = BTreeMap::new();
    let snapshots = fs.lookup(ROOT_INO, b"snapshots", &RequestContext::unlimited()).unwrap().ino;
    let mut pending = vec![(snapshots, b"snapshots".to_vec())];
    while let Some((dir, path)) = pending.pop() {
        for (name, kind) in names(fs, dir) {
            let ino = fs.lookup(dir, &name, &RequestContext::unlimited()).unwrap().ino;
            let path = [&path[..], b"/", &name].concat();
            let a = fs.getattr(ino, &RequestContext::unlimited()).unwrap();
            let attributes = (a.ino, a.kind, a.perm, a.uid, a.gid, a.size, a.mtime, a.rdev);
            shown.insert(path.clone(), format!("{attributes:?}"));
            if kind == NodeKind::Dir {
                pending.push((ino, path));
            }
        }
    }
    shown
}

fn names(fs: &dyn FileSystem, ino: Ino) -> Vec<(Vec<u8>, NodeKind)> {
    let mut names = Vec::new();
    fs.readdir(ino, 0, &RequestContext::unlimited(), &mut |entry| {
        names.push((entry.name.to_vec(), entry.kind));
        true
    })
    .unwrap();
    names
}

fn find(fs: &dyn FileSystem, repository: &Repository, set: usize, name: &[u8]) -> Ino {
    let top = [b"snapshots".to_vec(), repository.sets[set].snapshot().into_bytes(), name.to_vec()];
    top.iter().fold(ROOT_INO, |dir, name| fs.lookup(dir, name, &RequestContext::unlimited()).unwrap().ino)
}

fn read(fs: &dyn FileSystem, ino: Ino, at: usize, len: usize) -> Vec<u8> {
    let opened = fs.open(ino, &RequestContext::unlimited()).unwrap();
    let bytes = fs.read(ino, opened.handle, at as u64, len, &RequestContext::unlimited()).unwrap();
    fs.release(ino, opened.handle);
    bytes
}

#[test]
fn a_second_mount_needs_the_newest_manifest_and_the_volumes_with_the_bytes() {
    let indexed = Indexed::new(repository(900_000, 6));
    let first = indexed.open();
    let shown = stat_all(&*first);
    indexed.check(&*first);
    drop(first);
    let newest: BTreeSet<String> = [indexed.repository.sets[5].manifest.clone()].into();
    let second = indexed.open();
    assert_eq!(stat_all(&*second), shown);
    assert_eq!(indexed.fetched(), newest, "fetched to list and stat everything");
    drop(second);
    let dump: Path = vec![b"dump".to_vec()];
    for set in 0..6 {
        let content = indexed.repository.sets[set].tree[&dump].content().unwrap().clone();
        for at in [0, 300_000, content.len() - 4096] {
            let fs = indexed.open();
            let ino = find(&*fs, &indexed.repository, set, b"dump");
            assert!(read(&*fs, ino, at, 4096) == content[at..at + 4096], "set {set} at {at}");
            let holding = indexed.repository.data_volumes(set, &dump, at..at + 4096);
            assert_eq!(indexed.volumes_fetched(), holding, "set {set} at {at}");
        }
    }
}

#[test]
fn the_files_of_an_index_are_accessible_to_their_owner_only() {
    let indexed = Indexed::new(repository(20_000, 2));
    indexed.visit();
    let mode = |path: &FilePath| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = indexed.files();
    assert!(files.len() >= 2, "{files:?}");
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }
    // a directory that was made accessible to others is made private again
    let dir = files[0].parent().unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    indexed.visit();
    assert_eq!(mode(dir), 0o700);
}

#[test]
fn no_damage_to_an_index_changes_an_answer() {
    let indexed = Indexed::new(repository(9_000, 3));
    indexed.visit();
    let shown = stat_all(&*indexed.open());
    let originals: Vec<(PathBuf, Vec<u8>)> =
        indexed.files().into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect();
    let restore = || {
        for file in indexed.files() {
            fs::remove_file(file).unwrap();
        }
        originals.iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    };
    let mut tried = 0;
    for (file, bytes) in &originals {
        let step = (bytes.len() / 400).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            for damaged in [&flipped[..], &bytes[..at], &[bytes, &bytes[..at]].concat()] {
                restore();
                fs::write(file, damaged).unwrap();
                assert_eq!(stat_all(&*indexed.open()), shown, "{} damaged at {at}", file.display());
                tried += 1;
            }
            if at % 16 == 0 {
                restore();
                fs::write(file, &flipped).unwrap();
                indexed.visit();
            }
        }
    }
    assert!(tried > 500, "{tried} damages were tried");
    // damaged files were written again
    restore();
    fs::write(&originals.last().unwrap().0, b"dupfs").unwrap();
    indexed.visit();
    let fs = indexed.open();
    stat_all(&*fs);
    assert_eq!(indexed.sigtars_fetched(), Vec::<String>::new());
}

#[test]
fn objects_replaced_under_their_names_are_read_again() {
    let mut indexed = Indexed::new(repository(30_000, 4));
    indexed.visit();
    // the same names, other trees and content
    let mut other = history(20_000);
    other.base.push(add(b"more", 3000));
    let trees = other.trees();
    indexed.replace(encode(&trees[..4], &[true, false, false, false], &usual(5000)));
    indexed.visit();
    indexed.visit();
}

#[test]
fn increments_that_come_later_extend_the_index() {
    let mut indexed = Indexed::new(repository(30_000, 1));
    indexed.visit();
    for sets in 2..=4 {
        indexed.replace(repository(30_000, sets));
        indexed.check(&*indexed.open());
        let before: BTreeSet<_> = indexed.repository.sets[..sets - 1].iter().map(|set| set.sigtar.clone()).collect();
        let again: Vec<_> = indexed.sigtars_fetched().into_iter().filter(|name| before.contains(name)).collect();
        assert_eq!(again, Vec::<String>::new(), "fetched again with {sets} sets");
        let trees = indexed.files().iter().filter(|f| f.to_string_lossy().contains("/tree-")).count();
        assert_eq!(trees, 1, "trees that were replaced are kept");
    }
}

#[test]
fn a_tree_is_saved_each_time_it_has_grown() {
    let indexed = Indexed::new(repository(30_000, 4));
    let show = |shown: usize| {
        let hidden = indexed.repository.sets[shown..].iter();
        let names = hidden.flat_map(|set| set.volumes.iter().chain([&set.manifest, &set.sigtar]).cloned());
        indexed.store.set_faults(&names.map(|name| (name, Fault::Missing)).collect());
    };
    let trees = || -> Vec<PathBuf> {
        indexed.files().into_iter().filter(|file| file.to_string_lossy().contains("/tree-")).collect()
    };
    show(1);
    let fs = indexed.open();
    let mut saved = Vec::new();
    for sets in 1..=4 {
        show(sets);
        fs.refresh(&RequestContext::unlimited()).unwrap();
        find(&*fs, &indexed.repository, sets - 1, b"z");
        let start = Instant::now();
        while trees() == saved || trees().len() != 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "the tree of {sets} sets is not saved: {:?}", trees());
            std::thread::sleep(Duration::from_millis(5));
        }
        saved = trees();
    }
    drop(fs);
    assert_eq!(trees(), saved, "saved again in the end");
    stat_all(&*indexed.open());
    assert_eq!(indexed.sigtars_fetched(), Vec::<String>::new());
}

#[test]
fn a_tree_is_not_saved_while_it_is_loaded_set_by_set() {
    let indexed = Indexed::new(repository(30_000, 4));
    let trees = || indexed.files().iter().filter(|file| file.to_string_lossy().contains("/tree-")).count();
    let fs = indexed.open();
    for set in 0..3 {
        find(&*fs, &indexed.repository, set, b"z");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(trees(), 0, "saved with {set} sets");
    }
    drop(fs);
    assert_eq!(trees(), 1, "not saved in the end");
    stat_all(&*indexed.open());
    assert_eq!(indexed.sigtars_fetched().len(), 1);
}

#[test]
fn two_processes_share_an_index() {
    let indexed = Indexed::new(repository(60_000, 6));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| indexed.visit());
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| indexed.visit());
        }
    });
    let fs = indexed.open();
    stat_all(&*fs);
    assert_eq!(indexed.sigtars_fetched(), Vec::<String>::new());
}

#[test]
fn many_short_mounts_leave_few_files() {
    let indexed = Indexed::new(repository(30_000, 4));
    for set in [0, 1, 2, 3].into_iter().cycle().take(24) {
        let fs = indexed.open();
        // each round adds records
        let name = [&b"a"[..], b"dump", b"z"][set % 3];
        fs.getattr(find(&*fs, &indexed.repository, set, name), &RequestContext::unlimited()).unwrap();
        indexed.store.set_faults(&BTreeMap::new());
    }
    indexed.visit();
    assert!(indexed.files().len() < 14, "{:?}", indexed.files());
    indexed.visit();
}

#[test]
fn an_incomplete_tree_is_not_stored() {
    let indexed = Indexed::new(repository(30_000, 3));
    let lost = indexed.repository.sets[1].sigtar.clone();
    indexed.store.set_faults(&BTreeMap::from([(lost.clone(), Fault::Flip { at: 40, bit: 1 })]));
    stat_all(&*indexed.open());
    indexed.store.set_faults(&BTreeMap::new());
    let fs = indexed.open();
    stat_all(&*fs);
    assert!(indexed.sigtars_fetched().contains(&lost), "the tree rebuilt from volumes was taken from the index");
    indexed.check(&*fs);
}

#[test]
fn everything_works_without_a_directory_for_the_index() {
    let mut indexed = Indexed::new(repository(30_000, 3));
    let scratch = indexed.base.parent().unwrap().to_owned();
    let file = scratch.join("file");
    fs::write(&file, b"mine").unwrap();
    symlink(scratch.join("elsewhere"), scratch.join("link")).unwrap();
    fs::create_dir(scratch.join("elsewhere")).unwrap();
    for base in [file.clone(), file.join("below"), scratch.join("link"), PathBuf::from("/proc/none")] {
        indexed.base = base;
        indexed.visit();
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    assert_eq!(fs::read_dir(scratch.join("elsewhere")).unwrap().count(), 0, "a link was followed");
}

#[test]
fn links_within_an_index_are_not_followed() {
    let indexed = Indexed::new(repository(30_000, 3));
    indexed.visit();
    let outside = indexed.base.parent().unwrap().join("outside");
    for file in indexed.files() {
        fs::rename(&file, &outside).unwrap();
        symlink(&outside, &file).unwrap();
        indexed.visit();
        assert!(outside.exists(), "the target of a link was removed");
    }
}

proptest! {
    #![proptest_config(config(60))]

    /// Every history is shown as it was backed up with any index, whatever part of it was read before.
    #[test]
    fn any_history_is_the_same_with_an_index(
        history in histories(),
        layout in layouts(Oddities::All),
        looks in prop::collection::vec((any::<u16>(), any::<bool>()), 0..6),
    ) {
        let fulls: Vec<bool> = [true].into_iter().chain(history.steps.iter().map(|step| step.full)).collect();
        let indexed = Indexed::new(encode(&history.trees(), &fulls, &layout));
        for (pick, reads) in looks {
            let fs = indexed.open();
            let set = usize::from(pick) % indexed.repository.sets.len();
            let snapshots = fs.lookup(ROOT_INO, b"snapshots", &RequestContext::unlimited()).unwrap().ino;
            let name = indexed.repository.sets[set].snapshot();
            let Ok(root) = fs.lookup(snapshots, name.as_bytes(), &RequestContext::unlimited()) else { continue };
            if root.kind != NodeKind::Dir {
                continue;
            }
            for (name, _) in names(&*fs, root.ino) {
                let Ok(attr) = fs.lookup(root.ino, &name, &RequestContext::unlimited()) else { continue };
                if reads && attr.kind == NodeKind::File && let Ok(opened) = fs.open(attr.ino, &RequestContext::unlimited()) {
                    let _ = fs.read(attr.ino, opened.handle, 0, 10, &RequestContext::unlimited());
                }
            }
        }
        indexed.visit();
        indexed.visit();
    }
}
