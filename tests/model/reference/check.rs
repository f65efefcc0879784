//! Checks of a file system against the expected trees: by walk, by lookup, by attributes, by reads.

use dupfs_base::RequestContext;
use std::collections::{BTreeMap, BTreeSet};

use dupfs::vfs::{Attr, FileSystem, FsError, Ino, NodeKind, ROOT_INO};

use super::encode::Repository;
use super::store::Fault;
use super::subject;
use super::tree::{Dice, Kind, Node, Path, children, shown};

/// The faults by object name, which determine the answers that may be errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultMap {
    objects: BTreeSet<String>,
}

impl FaultMap {
    pub(crate) fn of(faults: &BTreeMap<String, Fault>) -> Self {
        let harmed = faults.iter().filter(|(_, fault)| fault.harms());
        Self { objects: harmed.map(|(name, _)| name.clone()).collect() }
    }

    pub(crate) fn manifests(&self, repository: &Repository, set: usize) -> bool {
        repository.ancestry(set).any(|i| self.objects.contains(&repository.sets[i].manifest))
    }

    /// Returns true if the tree of a snapshot may be unreadable.
    fn tree(&self, repository: &Repository, set: usize) -> bool {
        self.manifests(repository, set)
            || repository.ancestry(set).any(|i| self.objects.contains(&repository.sets[i].sigtar))
    }

    /// Returns true if the content and size of a file may be unreadable.
    fn content(&self, repository: &Repository, set: usize, path: &Path) -> bool {
        self.tree(repository, set)
            || repository.sets[set].uncertain.contains(path)
            || repository.all_volumes(set, path).iter().any(|volume| self.objects.contains(volume))
    }
}

pub(crate) struct Checker<'a> {
    pub(crate) fs: &'a dyn FileSystem,
    pub(crate) repository: &'a Repository,
    pub(crate) fault_map: FaultMap,
    pub(crate) dice: Dice,
}

/// The largest read that a kernel requests.
const CHUNK: usize = 128 * 1024;

impl Checker<'_> {
    /// Returns the value, or `None` for an error where one is allowed. An error must not be that the object does not
    /// exist.
    fn judge<T>(&self, result: Result<T, FsError>, may_fail: bool, what: impl Fn() -> String) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(e) => {
                assert!(may_fail, "{}: {e}", what());
                let allowed = [libc::EIO, libc::EACCES, libc::ETIMEDOUT, libc::EOPNOTSUPP, libc::EREMOTE, libc::ENOKEY];
                assert!(allowed.contains(&e.errno()), "{}: errno {} ({e})", what(), e.errno());
                None
            }
        }
    }

    /// Checks everything: the root, the list of snapshots, and the whole tree of each snapshot.
    pub(crate) fn everything(&mut self) {
        let top: Vec<Vec<u8>> = self.list(ROOT_INO, false, "the root").unwrap().into_iter().map(|e| e.2).collect();
        for name in [&b"latest"[..], b"snapshots"] {
            assert!(top.iter().any(|found| found == name), "no {} in the root", name.escape_ascii());
        }
        self.latest();
        let Some(snapshots) = self.snapshots() else { return };
        let listed = self.list(snapshots, false, "snapshots").unwrap();
        let names: BTreeSet<Vec<u8>> = listed.iter().map(|entry| entry.2.clone()).collect();
        for name in &names {
            let known = self.repository.sets.iter().any(|set| set.snapshot().as_bytes() == name);
            assert!(known, "a snapshot that never was: {}", name.escape_ascii());
        }
        for i in 0..self.repository.sets.len() {
            let name = self.repository.sets[i].snapshot();
            let present = names.contains(name.as_bytes());
            assert!(present || self.fault_map.manifests(self.repository, i), "snapshot {name} is not listed");
            if let Some(root) = self.snapshot_root(i) {
                assert!(present, "snapshot {name} is found and not listed");
                let mut seen = BTreeMap::new();
                self.subtree(i, &Path::new(), root, &mut seen);
            }
        }
    }

    /// Checks a file system whose root is the tree of one snapshot.
    pub(crate) fn rooted(&mut self, set: usize) {
        assert_eq!(self.fs.parent(ROOT_INO, &RequestContext::unlimited()).unwrap(), ROOT_INO, "the root's parent");
        self.subtree(set, &Path::new(), ROOT_INO, &mut BTreeMap::new());
    }

    fn snapshots(&self) -> Option<Ino> {
        let attr = self.judge(self.fs.lookup(ROOT_INO, b"snapshots", &RequestContext::unlimited()), false, || {
            "snapshots".into()
        })?;
        assert_eq!(attr.kind, NodeKind::Dir);
        Some(attr.ino)
    }

    fn latest(&self) {
        let attr = self
            .judge(self.fs.lookup(ROOT_INO, b"latest", &RequestContext::unlimited()), false, || "latest".into())
            .unwrap();
        assert_eq!(attr.kind, NodeKind::Symlink);
        let target = self.fs.readlink(attr.ino, &RequestContext::unlimited()).unwrap();
        let last = self.repository.sets.len() - 1;
        if !self.fault_map.manifests(self.repository, last) {
            let wanted = format!("snapshots/{}", self.repository.sets[last].snapshot());
            assert_eq!(String::from_utf8_lossy(&target), wanted, "latest");
        }
    }

    /// Returns the inode of the root of a snapshot, or `None` if the snapshot is missing or unreadable and may be.
    fn snapshot_root(&self, set: usize) -> Option<Ino> {
        let name = self.repository.sets[set].snapshot();
        let found = self.fs.lookup(self.snapshots()?, name.as_bytes(), &RequestContext::unlimited());
        if self.fault_map.manifests(self.repository, set) && found.as_ref().is_err_and(|e| e.errno() == libc::ENOENT) {
            return None;
        }
        let lone = self.repository.sets[set].tree[&Path::new()].content().is_some();
        let may_fail = self.fault_map.tree(self.repository, set)
            || lone && self.fault_map.content(self.repository, set, &Path::new());
        let attr = self.judge(found, may_fail, || format!("snapshot {name}"))?;
        if lone && attr.kind == NodeKind::Dir && self.fault_map.tree(self.repository, set) {
            // no readable object shows that the root is a file: then it is a directory that cannot be listed
            let listed = self.fs.readdir(attr.ino, 0, &RequestContext::unlimited(), &mut |_| true);
            assert!(self.judge(listed, true, || format!("listing of {name}")).is_none(), "{name} is listed");
            return None;
        }
        Some(attr.ino)
    }

    /// Returns a whole listing, read in small batches, or `None` if it fails and may.
    fn list(&mut self, dir: Ino, may_fail: bool, what: &str) -> Option<Vec<(Ino, NodeKind, Vec<u8>)>> {
        let (mut entries, mut offset) = (Vec::new(), 0);
        loop {
            let batch = 1 + self.dice.below(7);
            let mut taken = 0;
            let result = self.fs.readdir(dir, offset, &RequestContext::unlimited(), &mut |entry| {
                if taken == batch {
                    return false;
                }
                taken += 1;
                entries.push((entry.ino, entry.kind, entry.name.to_vec()));
                offset = entry.next_offset;
                true
            });
            self.judge(result, may_fail, || format!("listing of {what}"))?;
            if taken == 0 {
                return Some(entries);
            }
            assert!(entries.len() < 10_000, "the listing of {what} does not end");
        }
    }

    fn subtree(&mut self, set: usize, path: &Path, ino: Ino, seen: &mut BTreeMap<Ino, Path>) {
        if let Some(other) = seen.insert(ino, path.clone()) {
            panic!("{} and {} share inode {ino}", shown(&other), shown(path));
        }
        self.object(set, path, ino);
        let repository = self.repository;
        let tree = &repository.sets[set].tree;
        if tree[path].kind != Kind::Dir {
            let listed = self.fs.readdir(ino, 0, &RequestContext::unlimited(), &mut |_| true);
            assert!(listed.is_err(), "{} is no directory and can be listed", shown(path));
            return;
        }
        let may_fail = self.fault_map.tree(repository, set);
        let what = format!("{} at {}", shown(path), repository.sets[set].snapshot());
        let Some(entries) = self.list(ino, may_fail, &what) else { return };
        let wanted: BTreeMap<&[u8], &Node> = children(tree, path).collect();
        let found: BTreeSet<&[u8]> = entries.iter().map(|entry| entry.2.as_slice()).collect();
        assert_eq!(found.len(), entries.len(), "{what}: names come twice");
        for name in wanted.keys() {
            assert!(found.contains(name), "{what}: '{}' is missing", name.escape_ascii());
        }
        for (child, kind, name) in &entries {
            let node = wanted.get(name.as_slice());
            let node = node.unwrap_or_else(|| panic!("{what}: '{}' never was", name.escape_ascii()));
            assert_eq!(*kind, node.kind.node_kind(), "{what}: type of '{}' in the listing", name.escape_ascii());
            let mut below = path.clone();
            below.push(name.clone());
            if let Some(attr) = self.lookup(set, ino, &below) {
                assert_eq!(attr.ino, *child, "{what}: inode of '{}'", name.escape_ascii());
            }
            if *kind == NodeKind::Dir {
                assert_eq!(
                    self.fs.parent(*child, &RequestContext::unlimited()).unwrap(),
                    ino,
                    "parent of {}",
                    shown(&below)
                );
            }
            self.subtree(set, &below, *child, seen);
        }
        self.absent(set, ino, path);
    }

    fn lookup(&self, set: usize, parent: Ino, path: &Path) -> Option<Attr> {
        let node = &self.repository.sets[set].tree[path];
        let may_fail = self.fault_map.tree(self.repository, set)
            || node.content().is_some() && self.fault_map.content(self.repository, set, path);
        let what = || format!("lookup of {} at {}", shown(path), self.repository.sets[set].snapshot());
        let attr =
            self.judge(self.fs.lookup(parent, path.last().unwrap(), &RequestContext::unlimited()), may_fail, what)?;
        self.attributes(set, path, &attr, false);
        Some(attr)
    }

    /// Checks names that do not exist, some of which existed at other times.
    fn absent(&self, set: usize, ino: Ino, path: &Path) {
        let tree = &self.repository.sets[set].tree;
        let mut names: BTreeSet<&[u8]> = [&b"never was"[..], b"a", b"-", b"!", &[b'z'; 255]].into();
        for other in &self.repository.sets {
            if other.tree.get(path).is_some_and(|node| node.kind == Kind::Dir) {
                names.extend(children(&other.tree, path).map(|(name, _)| name));
            }
        }
        for name in names {
            let mut below = path.clone();
            below.push(name.to_vec());
            if tree.contains_key(&below) {
                continue;
            }
            match self.fs.lookup(ino, name, &RequestContext::unlimited()) {
                Ok(_) => panic!("{} should not be at {}", shown(&below), self.repository.sets[set].snapshot()),
                Err(e) if e.errno() == libc::ENOENT => {}
                Err(e) => assert!(self.fault_map.tree(self.repository, set), "{}: {e}, not ENOENT", shown(&below)),
            }
        }
    }

    fn attributes(&self, set: usize, path: &Path, attr: &Attr, must_be_exact: bool) {
        let tree = &self.repository.sets[set].tree;
        let node = &tree[path];
        let what = format!("{} at {}", shown(path), self.repository.sets[set].snapshot());
        assert_eq!(attr.kind, node.kind.node_kind(), "{what}: type");
        if node.kind == Kind::Dir && self.fault_map.tree(self.repository, set) {
            // a directory that is implied by paths below it, as its own header is lost
            return;
        }
        assert_eq!(attr.perm, node.mode, "{what}: mode");
        assert_eq!((attr.uid, attr.gid), (node.uid, node.gid), "{what}: owner");
        assert_eq!(attr.mtime, node.mtime, "{what}: mtime");
        let links = match node.kind {
            Kind::Dir => 2 + children(tree, path).filter(|(_, child)| child.kind == Kind::Dir).count(),
            _ => 1,
        };
        // before its tree is read, the root of a snapshot may have link count 1, like file systems that do not count;
        // it must not be cached
        let uncounted = path.is_empty() && attr.nlink == 1 && attr.attr_ttl.is_zero();
        assert!(uncounted || attr.nlink as usize == links, "{what}: {} links instead of {links}", attr.nlink);
        if let Kind::Char(major, minor) | Kind::Block(major, minor) = node.kind {
            assert_eq!(attr.rdev, (major, minor), "{what}: device");
        }
        let size = match &node.kind {
            Kind::File(content) => content.0.len() as u64,
            Kind::Symlink(target) => target.len() as u64,
            _ => return,
        };
        if must_be_exact || attr.exact {
            assert_eq!(attr.size, size, "{what}: size");
            if node.content().is_some() {
                assert_eq!(attr.blocks, size.div_ceil(512), "{what}: blocks");
            }
            assert!(attr.exact, "{what}: getattr with a bound");
        } else {
            assert!(attr.size >= size, "{what}: the bound {} is below {size}", attr.size);
            assert!(attr.attr_ttl.is_zero(), "{what}: an inexact size may be cached");
        }
    }

    fn object(&mut self, set: usize, path: &Path, ino: Ino) {
        let repository = self.repository;
        let node = &repository.sets[set].tree[path];
        let name = || format!("{} at {}", shown(path), repository.sets[set].snapshot());
        let tree = self.fault_map.tree(repository, set);
        let may_fail = if node.content().is_some() { self.fault_map.content(repository, set, path) } else { tree };
        let never = self.fs.getattr(ino, &RequestContext::cached_only());
        if let Some(attr) = self.judge_blocking(never, may_fail, || format!("getattr of {}", name())) {
            self.attributes(set, path, &attr, true);
        }
        let found = self.fs.getattr(ino, &RequestContext::unlimited());
        if let Some(attr) = self.judge(found, may_fail, || format!("getattr of {}", name())) {
            assert_eq!(attr.ino, ino, "{}: inode", name());
            self.attributes(set, path, &attr, true);
        }
        if let Kind::Symlink(target) = &node.kind {
            let found = self.fs.readlink(ino, &RequestContext::unlimited());
            if let Some(found) = self.judge(found, tree, || format!("target of {}", name())) {
                assert_eq!(found.escape_ascii().to_string(), target.escape_ascii().to_string(), "{}", name());
            }
        }
        if let Some(content) = node.content() {
            self.content(ino, content, may_fail, &name());
        }
    }

    /// Like `judge`, for an answer that need not be cached.
    fn judge_blocking<T>(&self, result: Result<T, FsError>, may_fail: bool, what: impl Fn() -> String) -> Option<T> {
        match result {
            Err(FsError::WouldBlock) => None,
            result => self.judge(result, may_fail, what),
        }
    }

    fn content(&mut self, ino: Ino, content: &[u8], may_fail: bool, name: &str) {
        let opened = subject::open_file(self.fs, self.repository, ino, &RequestContext::unlimited());
        let Some(opened) = self.judge(opened, may_fail, || format!("open of {name}")) else { return };
        let len = content.len();
        let mut slices: Vec<(usize, usize)> = (0..=len / CHUNK).map(|i| (i * CHUNK, CHUNK)).collect();
        slices.extend([(len, 4096), (len + 1, 1), (len + 100_000, CHUNK), (len.saturating_sub(4096), 8192), (0, 0)]);
        for _ in 0..6 {
            let near = self.dice.below(len / 65_536 + 1) * 65_536;
            let at =
                if self.dice.one_in(2) { near.saturating_sub(self.dice.below(3)) } else { self.dice.below(len + 1) };
            slices.push((at, [1, 2, 4096, 70_000][self.dice.below(4)]));
        }
        for i in (1..slices.len()).rev() {
            slices.swap(i, self.dice.below(i + 1));
        }
        for (at, size) in slices {
            let wanted = &content[at.min(len)..(at + size).min(len)];
            let what = || format!("read of {size} at {at} of {name} ({len} bytes)");
            let never = self.fs.read(ino, opened.handle, at as u64, size, &RequestContext::cached_only());
            let judge_blocking = self.judge_blocking(never, may_fail, what);
            let found = self.fs.read(ino, opened.handle, at as u64, size, &RequestContext::unlimited());
            for found in [judge_blocking, self.judge(found, may_fail, what)].into_iter().flatten() {
                assert_eq!(found.len(), wanted.len(), "{}: length", what());
                if found != wanted {
                    let first = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap();
                    panic!("{}: wrong from byte {first} of the answer on", what());
                }
            }
        }
        self.fs.release(ino, opened.handle);
    }

    /// Checks one path by lookups from the root down, as `stat` does.
    pub(crate) fn by_path(&mut self, set: usize, path: &Path) {
        let Some(mut ino) = self.snapshot_root(set) else { return };
        for depth in 1..=path.len() {
            let Some(attr) = self.lookup(set, ino, &path[..depth].to_vec()) else { return };
            ino = attr.ino;
        }
        self.object(set, path, ino);
    }
}
