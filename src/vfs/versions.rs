//! `versions/<path>/<time>`: every path that any line of sets has ever had, as a directory of what it was at each time.
//!
//! A set that stored a path is a version of it, named as the set's snapshot is, and is the very inode that the path has in
//! that snapshot: content, size and attributes are shared. Nothing is compared, so two contents are never one version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::dirs::kind_of;
use super::error::FsError;
use super::inode::{Inode, LINE_TAGS};
use super::ops::{Attr, DirEntry, NodeKind};
use super::tree_fs::{SOON, TreeFs, tree_error};
use super::view::View;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_format::{ArchivePath, BackupTime, EntryKind};
use dupfs_read::tree::{Branch, NodeId, VersionTable};

/// Children taken from a table at a time.
const BATCH: usize = 256;
/// What a version's name gets while a child of the path has that name.
const SUFFIX: &[u8] = b".version";
/// How long a line that could not be loaded is left alone: each look into `versions/` would try again.
const RETRY: Duration = Duration::from_secs(30);

/// Lines that could not be loaded whole, and since when.
#[derive(Debug, Default)]
pub(super) struct Stalled(Mutex<HashMap<usize, (Instant, FsError)>>);

impl Stalled {
    fn get(&self, line: usize) -> Option<FsError> {
        let stalled = lock(&self.0);
        stalled.get(&line).filter(|(since, _)| since.elapsed() < RETRY).map(|(_, error)| error.clone())
    }

    fn put(&self, line: usize, error: FsError) {
        lock(&self.0).insert(line, (Instant::now(), error));
    }
}

/// A line as far as it could be loaded.
struct BranchView {
    number: usize,
    line: Arc<Branch>,
    /// How many of its sets are looked at: what a later listing brought, and a set that is just entering, is not.
    depth: u32,
    /// Why not all of it is there.
    failed: Option<FsError>,
}

/// One version of a path that is no directory.
struct Version {
    name: Vec<u8>,
    snapshot: usize,
    time: BackupTime,
    node: NodeId,
    kind: NodeKind,
}

/// What `versions/` rests on at one time.
struct BranchViews {
    view: Arc<View>,
    branches: Vec<BranchView>,
}

impl TreeFs {
    /// All lines that have a listed snapshot, each loaded to its end or as far as it goes.
    fn branches(&self, context: &RequestContext) -> Result<BranchViews, FsError> {
        let view = self.view();
        let mut branches = Vec::with_capacity(view.lines().len());
        for &number in view.lines() {
            let Some(sets) = view.collection.branches().get(number) else { continue };
            let line = self.forest.branch(number, sets);
            let depth = u32::try_from(sets.len()).unwrap_or(u32::MAX);
            let mut failed = None;
            if u32::try_from(number).is_ok_and(|number| number >= LINE_TAGS.saturating_sub(1)) {
                failed = Some(FsError::failed(ErrorKind::Unsupported, "more chains than versions/ can show"));
            } else if !line.is_loaded(depth) {
                failed = self.stalled.get(number);
                if failed.is_none() && !context.may_block() {
                    return Err(FsError::WouldBlock);
                }
                if failed.is_none()
                    && let Err(error) = line.ensure(&self.repository, depth, context)
                {
                    let name =
                        sets.last().and_then(|&set| view.collection.snapshot_of(set)).map(|s| Arc::clone(&s.name));
                    let error = tree_error(&name.unwrap_or_default(), &error);
                    self.stalled.put(number, error.clone());
                    failed = Some(error);
                }
            }
            let depth = depth.min(line.table().depth());
            branches.push(BranchView { number, line, depth, failed });
        }
        Ok(BranchViews { view, branches })
    }

    /// The path that a directory in `versions/` stands for.
    fn path_of(&self, dir: Inode, branches: &BranchViews) -> Result<ArchivePath, FsError> {
        let Inode::History(number, node) = dir else { return Ok(ArchivePath::root()) };
        let line = match branches.branches.iter().find(|branch| branch.number == number) {
            Some(branch) => Arc::clone(&branch.line),
            // All its snapshots have gone from the store; the path may live on in others.
            None => {
                let sets = branches.view.collection.branches().get(number).ok_or_else(FsError::not_found)?;
                self.forest.branch(number, sets)
            }
        };
        let table = line.table();
        if node.0 as usize >= table.len() {
            return Err(FsError::not_found());
        }
        Ok(table.path(node))
    }

    pub(super) fn history_parent(&self, number: usize, node: NodeId) -> Result<Inode, FsError> {
        let view = self.view();
        let sets = view.collection.branches().get(number).ok_or_else(FsError::not_found)?;
        let parent = self.forest.branch(number, sets).table().parent(node).ok_or_else(FsError::not_found)?;
        Ok(if parent == NodeId::ROOT { Inode::Versions } else { Inode::History(number, parent) })
    }

    pub(super) fn look_up_history(&self, dir: Inode, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        let branches = self.branches(context)?;
        let path = self.path_of(dir, &branches)?;
        if let Some((line, child)) = branches.child(&path, name) {
            return self.history_attr(Inode::History(line, child), context);
        }
        if let Some(version) = branches.versions(&path).into_iter().find(|version| version.name == name) {
            let attr = self.provisional_attr(version.snapshot, version.node, context)?;
            // A child of that name may come with a later backup.
            return Ok(Attr { entry_ttl: SOON, ..attr });
        }
        match branches.unknown(&path, path.join(name).as_ref()) {
            Some((kind, reason)) => {
                Err(FsError::failed(kind, format!("versions/: whether it exists is not known: {reason}")))
            }
            None => Err(FsError::not_found()),
        }
    }

    pub(super) fn list_history(
        &self,
        dir: Inode,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let branches = self.branches(context)?;
        let path = self.path_of(dir, &branches)?;
        // Offsets: of a version its snapshot's number plus one, which stays the same when others go between two calls; children
        // are a line's number plus one above a node's number plus one.
        let (line, low) = (offset >> 32, offset & u64::from(u32::MAX));
        if line == 0 {
            let mut versions = branches.versions(&path);
            versions.sort_by_key(|version| version.snapshot);
            for version in versions.iter().skip_while(|version| (version.snapshot as u64) < low) {
                let ino = self.number(Inode::Node(version.snapshot, version.node));
                let next_offset = (version.snapshot as u64).saturating_add(1);
                if !emit(DirEntry { ino, kind: version.kind, next_offset, name: &version.name }) {
                    return Ok(());
                }
            }
        }
        for (place, branch) in branches.branches.iter().enumerate() {
            let own = (branch.number as u64).saturating_add(1);
            if own < line {
                continue;
            }
            let mut last = (own == line).then(|| low.checked_sub(1)).flatten().and_then(|n| u32::try_from(n).ok());
            loop {
                let batch = branch.children(&path, last.map(NodeId));
                let Some((end, _)) = batch.last() else { break };
                last = Some(end.0);
                for (node, name) in &batch {
                    if branches.child_before(place, &path, name) {
                        continue;
                    }
                    let ino = self.number(Inode::History(branch.number, *node));
                    let next_offset = (own << 32) | u64::from(node.0).saturating_add(1);
                    if !emit(DirEntry { ino, kind: NodeKind::Dir, next_offset, name }) {
                        return Ok(());
                    }
                }
            }
        }
        match branches.unknown_below(&path) {
            Some((kind, reason)) => {
                Err(FsError::failed(kind, format!("versions/: the listing may lack names: {reason}")))
            }
            None => Ok(()),
        }
    }

    /// Attributes of a directory in `versions/`. It may be looked into by those who could do so at every time when the path
    /// was a directory; where a time is not known, and in `versions/` itself, only by who mounted.
    pub(super) fn history_attr(&self, inode: Inode, context: &RequestContext) -> Result<Attr, FsError> {
        let plain = self.overview_attr(inode);
        let closed = Attr { perm: plain.perm & 0o700, ..plain };
        if inode == Inode::Versions {
            return Ok(closed);
        }
        let branches = self.branches(context)?;
        let path = self.path_of(inode, &branches)?;
        let mut attr = Attr { nlink: 1, mtime: 0, ..plain };
        let mut first = true;
        let known = branches.unknown(&path, None).is_none();
        for meta in branches.metas(&path) {
            attr.mtime = attr.mtime.max(meta.mtime);
            if meta.kind != EntryKind::Dir {
                continue;
            }
            let (uid, gid) = self.owners.of(&meta);
            let perm = self.owners.mode(meta.mode) & 0o777;
            if std::mem::take(&mut first) {
                (attr.uid, attr.gid, attr.perm) = (uid, gid, perm);
                continue;
            }
            attr.perm &= perm;
            if attr.uid != uid {
                (attr.uid, attr.perm) = (plain.uid, attr.perm | 0o700);
            }
            if attr.gid != gid {
                (attr.gid, attr.perm) = (plain.gid, (attr.perm & 0o707) | (attr.perm & 0o7) << 3);
            }
        }
        Ok(if known { attr } else { Attr { nlink: 1, mtime: attr.mtime, attr_ttl: Duration::ZERO, ..closed } })
    }
}

impl BranchViews {
    /// The child `name` that any line ever had at `path`: the number of the first such line, and its node there.
    fn child(&self, path: &ArchivePath, name: &[u8]) -> Option<(usize, NodeId)> {
        self.branches.iter().find_map(|branch| Some((branch.number, branch.child(path, name)?)))
    }

    /// Whether a line before the one at `place` has the child too.
    fn child_before(&self, place: usize, path: &ArchivePath, name: &[u8]) -> bool {
        self.branches.iter().take(place).any(|branch| branch.child(path, name).is_some())
    }

    /// The versions of `path` that are no directories, the oldest first.
    fn versions(&self, path: &ArchivePath) -> Vec<Version> {
        let mut versions: Vec<Version> = self.branches.iter().flat_map(|b| b.versions(path, &self.view)).collect();
        versions.sort_by_key(|version| (version.time, version.snapshot));
        for version in &mut versions {
            while self.child(path, &version.name).is_some() {
                version.name.extend_from_slice(SUFFIX);
            }
        }
        versions
    }

    /// What all sets say that `path` is.
    fn metas(&self, path: &ArchivePath) -> Vec<dupfs_format::EntryMeta> {
        let of = |branch: &BranchView| {
            let table = branch.line.table();
            let node = table.find(path);
            let versions = node.into_iter().flat_map(|node| table.history(node, branch.depth));
            versions.filter_map(|version| table.meta(version)).collect::<Vec<_>>()
        };
        self.branches.iter().flat_map(of).collect()
    }

    /// Why it is not known whether there is more of `path`, or of its child.
    fn unknown(&self, path: &ArchivePath, child: Option<&ArchivePath>) -> Option<(ErrorKind, String)> {
        self.unknown_where(|table, depth| {
            let gap = |path: &ArchivePath| {
                table.missing_range_at(path, false, depth).map(|gap| (gap.kind, gap.reason.to_string()))
            };
            gap(path).or_else(|| child.and_then(gap))
        })
    }

    /// Why the names below `path` may not be all.
    fn unknown_below(&self, path: &ArchivePath) -> Option<(ErrorKind, String)> {
        self.unknown_where(|table, depth| {
            let gap = table.missing_range_at(path, false, depth).or_else(|| table.missing_range_at(path, true, depth));
            gap.map(|gap| (gap.kind, gap.reason.to_string()))
        })
    }

    fn unknown_where(
        &self,
        gap: impl Fn(&VersionTable, u32) -> Option<(ErrorKind, String)>,
    ) -> Option<(ErrorKind, String)> {
        self.branches.iter().find_map(|branch| match &branch.failed {
            Some(error) => Some((dupfs_base::HasKind::kind(error), error.to_string())),
            None => {
                let table = branch.line.table();
                gap(&table, branch.depth)
            }
        })
    }
}

impl BranchView {
    fn child(&self, path: &ArchivePath, name: &[u8]) -> Option<NodeId> {
        let table = self.line.table();
        let child = table.child(table.find(path)?, name)?;
        table.existed(child, self.depth).then_some(child)
    }

    /// Some children that `path` ever had, in the table's order, after `last`.
    fn children(&self, path: &ArchivePath, last: Option<NodeId>) -> Vec<(NodeId, Vec<u8>)> {
        let table = self.line.table();
        let mut next = match last {
            Some(last) => table.next_sibling(last),
            None => table.find(path).and_then(|dir| table.first_child(dir)),
        };
        let mut batch = Vec::new();
        while let Some(node) = next.filter(|_| batch.len() < BATCH) {
            if table.existed(node, self.depth) {
                batch.push((node, table.name(node).to_vec()));
            }
            next = table.next_sibling(node);
        }
        batch
    }

    fn versions(&self, path: &ArchivePath, view: &View) -> Vec<Version> {
        let found: Vec<(u32, NodeId, Option<EntryKind>)> = {
            let table = self.line.table();
            let Some(node) = table.find(path) else { return Vec::new() };
            let of = |version| Some((table.position(version)?, node, table.meta(version).map(|meta| meta.kind)));
            table.history(node, self.depth).filter_map(of).collect()
        };
        let mut versions = Vec::new();
        let mut before = None;
        for (position, node, kind) in found {
            // Of several that one set has, the last one counts, which comes first here.
            if before.replace(position) == Some(position) {
                continue;
            }
            let Some(kind) = kind.filter(|kind| *kind != EntryKind::Dir) else { continue };
            let Some(set) = self.line.set_at(position).filter(|set| !view.collection.is_removed(*set)) else {
                continue;
            };
            let Some(place) = view.collection.snapshot_position(set) else { continue };
            // Lines that fork share their first sets; each set's snapshot is on one of them.
            let Ok(snapshot) = view.snapshot(place) else { continue };
            if snapshot.branch == self.number {
                let (name, time, kind) = (snapshot.name.as_bytes().to_vec(), snapshot.time, kind_of(&kind));
                versions.push(Version { name, snapshot: place, time, node, kind });
            }
        }
        versions
    }
}
