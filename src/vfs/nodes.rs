//! Attributes and names: what `stat`, `lookup` and `readlink` answer.

use std::time::Duration;

use super::error::FsError;
use super::inode::Inode;
use super::ops::{Attr, NodeKind};
use super::tree_fs::{RootNode, TreeFs, ttl};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_format::{EntryKind, EntryMeta};
use dupfs_read::content::FileRef;
use dupfs_read::tree::{NodeId, Uncertainty, VersionId, VersionTable};

/// Size shown for directories, as a disk file system would.
const DIR_SIZE: u64 = 4096;

/// Directories in the overview: `snapshots`, `at` and `versions`.
const OVERVIEW_DIRS: u32 = 3;

/// Link counts of so many directories are kept.
const KEPT_LINKS: usize = 1 << 19;

/// What the table tells of a node at a snapshot.
pub(super) struct Found {
    pub(super) version: Option<VersionId>,
    pub(super) meta: EntryMeta,
    /// The exact size of a regular file, if it is known.
    exact: Option<u64>,
    /// Upper bound of the size of a regular file.
    bound: u64,
    /// Whether `bound` comes from a signature.
    bounded: bool,
}

impl TreeFs {
    pub(super) fn look_up(&self, parent: Inode, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        match parent {
            Inode::Latest(_) | Inode::AtLink(_) => Err(FsError::NotDir),
            Inode::At => self.look_up_time(name),
            Inode::Versions | Inode::History(..) => self.look_up_history(parent, name, context),
            Inode::Root => match (&self.root, name) {
                (RootNode::Overview, b"snapshots") => self.exact_attr(Inode::Snapshots, context),
                (RootNode::Overview, b"at") => self.exact_attr(Inode::At, context),
                (RootNode::Overview, b"versions") => self.exact_attr(Inode::Versions, context),
                (RootNode::Overview, b"latest") => {
                    let latest = self.view().latest().ok_or_else(FsError::not_found)?;
                    self.exact_attr(Inode::Latest(latest), context)
                }
                (RootNode::Single(snapshot, node, own), _) if name == own.as_slice() => {
                    self.provisional_attr(*snapshot, *node, context)
                }
                _ => Err(FsError::not_found()),
            },
            Inode::Snapshots => {
                let view = self.view();
                let (index, _) =
                    view.listed().find(|(_, s)| s.name.as_bytes() == name).ok_or_else(FsError::not_found)?;
                // Not for as long as what is in it: the name goes when the snapshot goes from the store.
                Ok(Attr { entry_ttl: ttl(Inode::Snapshots), ..self.provisional_attr(index, NodeId::ROOT, context)? })
            }
            Inode::Node(snapshot, dir) => self.look_up_child(snapshot, dir, name, context),
        }
    }

    fn look_up_child(
        &self,
        snapshot: usize,
        dir: NodeId,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let (line, depth) = self.loaded_line(snapshot, context)?;
        let child = {
            let table = line.table();
            let exists = |&node: &NodeId| table.version(node, depth).is_some() || table.is_implied_dir(node, depth);
            let child = table.child(dir, name).filter(exists);
            if child.is_none() && table.has_missing_ranges(depth) {
                let path = table.path(dir).join(name);
                if let Some(gap) = path.as_ref().and_then(|path| table.missing_range_at(path, false, depth)) {
                    let message = format!("whether it exists is not known: {}", gap.reason);
                    return Err(FsError::failed(gap.kind, message));
                }
            }
            child.ok_or_else(FsError::not_found)?
        };
        self.provisional_attr(snapshot, child, context)
    }

    /// Attributes whose size may still be a bound: what `lookup` answers, so that walking costs no volume. Where the size's
    /// volume is at hand it is exact, which spares the kernel to ask again.
    pub(super) fn provisional_attr(
        &self,
        snapshot: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let mut found = self.find(snapshot, node, context)?;
        if self.needs_size(&found) && self.repository.has_cached_members() {
            // What fails here fails again, and is told, when the attributes are asked for.
            let _ = self.settle_size(snapshot, node, &mut found, &RequestContext::cached_only());
        }
        Ok(self.attr(snapshot, node, &found))
    }

    fn needs_size(&self, found: &Found) -> bool {
        found.meta.kind == EntryKind::File && found.exact.is_none() && !(self.size_bounds && found.bounded)
    }

    fn settle_size(
        &self,
        snapshot: usize,
        node: NodeId,
        found: &mut Found,
        context: &RequestContext,
    ) -> Result<(), FsError> {
        let file = self.file(snapshot, node, context)?;
        let (size, beside) = self.ask(context, |volumes| self.content.stat(volumes, &file))?;
        self.note_stale(&file, beside.as_ref());
        found.exact = Some(size);
        if let Some(meta) = beside {
            found.meta = meta;
        }
        Ok(())
    }

    pub(super) fn exact_attr(&self, inode: Inode, context: &RequestContext) -> Result<Attr, FsError> {
        let (snapshot, node) = match inode {
            Inode::Node(snapshot, node) => (snapshot, node),
            Inode::Versions | Inode::History(..) => return self.history_attr(inode, context),
            _ => return Ok(self.overview_attr(inode)),
        };
        let mut found = self.find(snapshot, node, context)?;
        if self.needs_size(&found) {
            self.settle_size(snapshot, node, &mut found, context)?;
        }
        Ok(self.attr(snapshot, node, &found))
    }

    fn note_stale(&self, file: &FileRef, beside: Option<&EntryMeta>) {
        if beside.is_some() {
            log::warn!(
                "{}: the stored state is another than the one that was signed (the backup was interrupted and resumed \
                 while it changed); it is shown with the time it was stored with, as duplicity restores it",
                file.path
            );
        }
    }

    pub(super) fn find(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<Found, FsError> {
        if node == NodeId::ROOT
            && let Some(meta) = self.peek_root(snapshot, context)?
        {
            return Ok(Found { version: None, meta, exact: None, bound: 0, bounded: true });
        }
        let (line, depth) = self.loaded_line(snapshot, context)?;
        let table = line.table();
        let Some(version) = table.version(node, depth) else {
            if node != NodeId::ROOT && !table.is_implied_dir(node, depth) {
                return Err(FsError::not_found());
            }
            let mtime = self.snapshot(snapshot)?.time.0;
            return Ok(Found { version: None, meta: implied_dir(mtime), exact: None, bound: 0, bounded: true });
        };
        let meta = table.meta(version).ok_or_else(FsError::not_found)?;
        // A directory is shown as it was last known: what can be read in it must be reachable.
        if meta.kind != EntryKind::Dir {
            known_state(&table, node, version, depth)?;
        }
        let exact = table.exact_size(version);
        // Without a signature nothing bounds the size; the kernel asks again before it believes this one.
        let known = exact.or_else(|| table.bounds(version).map(|b| b.max));
        let bound = known.unwrap_or(i64::MAX.unsigned_abs());
        Ok(Found { version: Some(version), meta, exact, bound, bounded: known.is_some() })
    }

    /// The metadata of a snapshot's root while its tree is not loaded: `ls -l snapshots` must not cost the signature
    /// archives of all of them. `None` once the tree is loaded, or where the root is no directory or cannot be peeked at:
    /// then the tree has to be asked.
    fn peek_root(&self, snapshot: usize, context: &RequestContext) -> Result<Option<EntryMeta>, FsError> {
        if self.loaded_line(snapshot, &RequestContext::cached_only()).is_ok() {
            return Ok(None);
        }
        for &set in self.snapshot(snapshot)?.lineage().iter().rev() {
            let known = self.peeked().get(&set).cloned();
            let meta = match known {
                Some(meta) => meta,
                None if !context.may_block() => return Err(FsError::WouldBlock),
                None => {
                    let Ok(meta) = dupfs_read::tree::peek_root(&self.repository, set, context) else { return Ok(None) };
                    self.peeked().insert(set, meta.clone());
                    meta
                }
            };
            if let Some(meta) = meta {
                return Ok(Some(meta).filter(|meta| meta.kind == EntryKind::Dir));
            }
        }
        Ok(None)
    }

    fn attr(&self, snapshot: usize, node: NodeId, found: &Found) -> Attr {
        let inode = Inode::Node(snapshot, node);
        let (kind, size, rdev) = match &found.meta.kind {
            EntryKind::File => (NodeKind::File, found.exact.unwrap_or(found.bound), (0, 0)),
            EntryKind::Dir => (NodeKind::Dir, DIR_SIZE, (0, 0)),
            EntryKind::Symlink(target) => (NodeKind::Symlink, target.len() as u64, (0, 0)),
            EntryKind::Fifo => (NodeKind::Fifo, 0, (0, 0)),
            EntryKind::CharDevice(major, minor) => (NodeKind::CharDevice, 0, (*major, *minor)),
            EntryKind::BlockDevice(major, minor) => (NodeKind::BlockDevice, 0, (*major, *minor)),
        };
        let exact = kind != NodeKind::File || found.exact.is_some();
        let (uid, gid) = self.owners.of(&found.meta);
        let perm = if kind == NodeKind::Symlink { 0o777 } else { self.owners.mode(found.meta.mode) };
        let nlink = if kind == NodeKind::Dir { self.dir_links(snapshot, node) } else { 1 };
        let settled =
            exact && !(node == NodeId::ROOT && self.loaded_line(snapshot, &RequestContext::cached_only()).is_err());
        let attr_ttl = if settled { ttl(inode) } else { Duration::ZERO };
        Attr {
            ino: self.number(inode),
            kind,
            perm,
            nlink,
            uid,
            gid,
            size,
            blocks: if kind == NodeKind::Symlink { 0 } else { size.div_ceil(512) },
            mtime: found.meta.mtime,
            rdev,
            exact,
            attr_ttl,
            entry_ttl: ttl(inode),
        }
    }

    /// Link count of a directory: 2 and one for each subdirectory, as `find` expects. Counted once a directory.
    fn dir_links(&self, snapshot: usize, node: NodeId) -> u32 {
        let key = (snapshot, node);
        if let Some(&known) = self.subdirs().get(&key) {
            return known;
        }
        // 1 is what file systems say that do not count.
        let Ok((line, depth)) = self.loaded_line(snapshot, &RequestContext::cached_only()) else { return 1 };
        let links = 2u32.saturating_add(count_subdirs(&line.table(), node, depth));
        let mut known = self.subdirs();
        // Walks over many snapshots would keep directories x snapshots.
        if known.len() >= KEPT_LINKS {
            known.clear();
        }
        known.insert(key, links);
        links
    }

    pub(super) fn overview_attr(&self, inode: Inode) -> Attr {
        let view = self.view();
        let mtime = view.collection.latest().map_or(0, |s| s.time.0);
        let target = match inode {
            Inode::Latest(_) | Inode::AtLink(_) => self.link_target(inode, &RequestContext::cached_only()).ok(),
            _ => None,
        };
        let (kind, perm, size) = match target {
            Some(target) => (NodeKind::Symlink, 0o777, target.len() as u64),
            None => (NodeKind::Dir, 0o755, DIR_SIZE),
        };
        let subdirs = match inode {
            Inode::Root if matches!(self.root, RootNode::Overview) => OVERVIEW_DIRS,
            Inode::Snapshots => u32::try_from(view.listed().count()).unwrap_or(u32::MAX - 2),
            _ => 0,
        };
        let meta = EntryMeta { mode: perm, ..implied_dir(mtime) };
        let (uid, gid) = self.owners.of(&meta);
        Attr {
            ino: self.number(inode),
            kind,
            perm: if kind == NodeKind::Dir { self.owners.mode(perm) } else { perm },
            nlink: if kind == NodeKind::Dir { subdirs.saturating_add(2) } else { 1 },
            uid,
            gid,
            size,
            blocks: if kind == NodeKind::Dir { size.div_ceil(512) } else { 0 },
            mtime,
            rdev: (0, 0),
            exact: true,
            attr_ttl: ttl(inode),
            entry_ttl: ttl(inode),
        }
    }

    pub(super) fn link_target(&self, inode: Inode, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        let not_link = || FsError::failed(ErrorKind::Invalid, "not a symbolic link");
        match inode {
            Inode::Latest(snapshot) => Ok(format!("snapshots/{}", self.snapshot(snapshot)?.name).into_bytes()),
            Inode::AtLink(snapshot) => Ok(format!("../snapshots/{}", self.snapshot(snapshot)?.name).into_bytes()),
            Inode::Root | Inode::Snapshots | Inode::At | Inode::Versions | Inode::History(..) => Err(not_link()),
            Inode::Node(snapshot, node) => match self.find(snapshot, node, context)?.meta.kind {
                EntryKind::Symlink(target) => Ok(target.into_vec()),
                EntryKind::File
                | EntryKind::Dir
                | EntryKind::Fifo
                | EntryKind::CharDevice(..)
                | EntryKind::BlockDevice(..) => Err(not_link()),
            },
        }
    }
}

/// Fails if a newer state of `node` than `version` may be among what a set of the first `depth` lost.
pub(super) fn known_state(table: &VersionTable, node: NodeId, version: VersionId, depth: u32) -> Result<(), FsError> {
    let Some(position) = table.position(version).filter(|&p| p.saturating_add(1) < depth) else { return Ok(()) };
    if !table.has_uncertainty() {
        return Ok(());
    }
    let path = table.path(node);
    match table.uncertainty(&path, position, depth) {
        None => Ok(()),
        Some(Uncertainty { reason, kind }) => {
            let message = format!("{path}: its state in this snapshot is not known, older ones show theirs: {reason}");
            Err(FsError::failed(kind, message))
        }
    }
}

/// A directory that no set describes: something below it implies it, or the set is empty.
fn implied_dir(mtime: i64) -> EntryMeta {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    EntryMeta { kind: EntryKind::Dir, mode: 0o755, uid, gid, uname: Box::default(), gname: Box::default(), mtime }
}

fn count_subdirs(table: &VersionTable, node: NodeId, depth: u32) -> u32 {
    let mut count = 0u32;
    let mut child = table.first_child(node);
    while let Some(id) = child {
        let is_dir = match table.version(id, depth) {
            Some(version) => table.is_dir(version),
            None => table.is_implied_dir(id, depth),
        };
        count = count.saturating_add(u32::from(is_dir));
        child = table.next_sibling(id);
    }
    count
}
