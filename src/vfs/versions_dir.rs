//! `versions/<path>/<time>`: every path that any branch has ever had, as a directory of its versions.
//!
//! A set that stored a path contains a version of it. The version is named after the set's snapshot and is the same inode that
//! the path has in that snapshot: content, size and attributes are shared. Nothing is compared, so two contents are never one
//! version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::attr::{MUTABLE_TTL, kind_of};
use super::error::FsError;
use super::inode::{Inode, MAX_BRANCHES, versions_number};
use super::ops::{Attr, DirEntry, NodeKind};
use super::overview;
use super::pagination::{emit_batches, last_before, offset_after};
use super::snapshot_nodes::SnapshotNodes;
use super::snapshot_trees::branch_depth;
use super::snapshot_view::SnapshotView;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::{ArchivePath, BackupTime, EntryKind, EntryMeta};
use dupfs_read::tree::{Branch, NodeId, VersionTable};

/// Appended to the name of a version while a child of the path has that name.
const SUFFIX: &[u8] = b".version";
/// A branch that could not be loaded is not loaded again before this time: every access to `versions/` would try.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// `versions/` and the directories in it.
#[derive(Debug, Default)]
pub(super) struct VersionsDir {
    failures: BranchFailures,
}

/// The branches that could not be loaded completely, with the time and the reason.
#[derive(Debug, Default)]
struct BranchFailures(Mutex<HashMap<usize, (Instant, FsError)>>);

impl BranchFailures {
    fn recent(&self, branch: usize) -> Option<FsError> {
        let failures = lock(&self.0);
        failures.get(&branch).filter(|(since, _)| since.elapsed() < RETRY_AFTER).map(|(_, error)| error.clone())
    }

    /// Remembers a failure. The end of one request is no property of the branch.
    fn insert(&self, branch: usize, error: FsError) {
        if error.kind() != ErrorKind::Cancelled {
            lock(&self.0).insert(branch, (Instant::now(), error));
        }
    }
}

/// A branch as far as it could be loaded.
struct LoadedBranch {
    number: usize,
    branch: Arc<Branch>,
    /// The number of sets that are taken into account: not those of a later listing, and not one that is being loaded.
    depth: u32,
    /// The reason why the branch is incomplete.
    failed: Option<FsError>,
}

/// One version of a path that is not a directory.
struct PathVersion {
    name: Vec<u8>,
    snapshot: usize,
    time: BackupTime,
    node: NodeId,
    kind: NodeKind,
}

/// The branches that `versions/` shows at one time.
struct LoadedBranches {
    view: Arc<SnapshotView>,
    branches: Vec<LoadedBranch>,
}

impl VersionsDir {
    /// All branches that have a listed snapshot, each loaded as far as possible.
    fn load(&self, nodes: &SnapshotNodes, context: &RequestContext) -> Result<LoadedBranches, FsError> {
        let view = nodes.view();
        let mut branches = Vec::with_capacity(view.branches().len());
        for &number in view.branches() {
            let Some(sets) = view.collection.branches().get(number) else { continue };
            let branch = nodes.trees.branch(&view, number)?;
            let depth = branch_depth(sets.len())?;
            let mut failed = None;
            if number >= MAX_BRANCHES {
                failed = Some(FsError::failed(ErrorKind::Unsupported, "more chains than versions/ can show"));
            } else if !branch.is_loaded(depth) {
                failed = self.failures.recent(number);
                if failed.is_none() {
                    let snapshot = sets.last().and_then(|&set| view.collection.snapshot_of(set));
                    let name = snapshot.map(|snapshot| Arc::clone(&snapshot.name)).unwrap_or_default();
                    match nodes.trees.ensure(&branch, depth, &name, context) {
                        Ok(()) => {}
                        Err(FsError::WouldBlock) => return Err(FsError::WouldBlock),
                        Err(error) => {
                            self.failures.insert(number, error.clone());
                            failed = Some(error);
                        }
                    }
                }
            }
            let depth = depth.min(branch.table().depth());
            branches.push(LoadedBranch { number, branch, depth, failed });
        }
        Ok(LoadedBranches { view, branches })
    }

    /// The parent of the directory of `node` of a branch.
    ///
    /// # Errors
    /// NotFound.
    pub(super) fn parent(
        &self,
        nodes: &SnapshotNodes,
        number: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<Inode, FsError> {
        self.load(nodes, context)?;
        let branch = nodes.trees.branch(&nodes.view(), number)?;
        let parent = branch.table().parent(node).ok_or_else(FsError::not_found)?;
        Ok(if parent == NodeId::ROOT { Inode::Versions } else { Inode::VersionsOf(number, parent) })
    }

    /// The attributes of `name` in `dir`: a child of the path, or one of its versions.
    ///
    /// # Errors
    /// [`FsError`]: NotFound only if no set can have it.
    pub(super) fn look_up(
        &self,
        nodes: &SnapshotNodes,
        dir: Inode,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let branches = self.load(nodes, context)?;
        let path = path_of(nodes, dir, &branches)?;
        if let Some((number, child)) = branches.child(&path, name) {
            return dir_attr(nodes, Inode::VersionsOf(number, child), &branches, context);
        }
        if let Some(version) = branches.versions(&path).into_iter().find(|version| version.name == name) {
            let attr = nodes.provisional_attr(version.snapshot, version.node, context)?;
            // A later backup may add a child of that name.
            return Ok(Attr { entry_ttl: MUTABLE_TTL, ..attr });
        }
        match branches.missing_at(&path, path.join(name).as_ref()) {
            Some((kind, reason)) => Err(FsError::failed(kind, format!("versions/: existence unknown: {reason}"))),
            None => Err(FsError::not_found()),
        }
    }

    /// Emits the versions and then the children of the path of `dir` after `offset`.
    ///
    /// # Errors
    /// [`FsError`], also after all known names if others may be missing.
    pub(super) fn list(
        &self,
        nodes: &SnapshotNodes,
        dir: Inode,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let branches = self.load(nodes, context)?;
        let path = path_of(nodes, dir, &branches)?;
        let view = &branches.view;
        // The offset of a version is the number of its snapshot plus one, which does not change when others are deleted between
        // two calls. Offsets of children have their branch's number plus one in the upper half.
        let (branch_part, low) = (offset >> 32, offset & u64::from(u32::MAX));
        if branch_part == 0 {
            let mut versions = branches.versions(&path);
            versions.sort_by_key(|version| version.snapshot);
            for version in versions.iter().skip_while(|version| (version.snapshot as u64) < low) {
                let ino = view.number(Inode::Node(version.snapshot, version.node))?;
                let next_offset = (version.snapshot as u64).saturating_add(1);
                if !emit(DirEntry { ino, kind: version.kind, next_offset, name: &version.name }) {
                    return Ok(());
                }
            }
        }
        for (index, branch) in branches.branches.iter().enumerate() {
            let own = (branch.number as u64).saturating_add(1);
            if own < branch_part {
                continue;
            }
            let last = if own == branch_part { last_before(low).map(NodeId) } else { None };
            let is_listed = emit_batches(
                last,
                |last, max| branch.children(&path, last, max),
                |node, name| {
                    if branches.child_before(index, &path, &name) {
                        return true;
                    }
                    // A branch without numbers counts as failed, which ends the listing.
                    let Ok(ino) = versions_number(branch.number, node) else { return true };
                    let next_offset = (own << 32) | offset_after(node.0);
                    emit(DirEntry { ino, kind: NodeKind::Dir, next_offset, name: &name })
                },
            );
            if !is_listed {
                return Ok(());
            }
        }
        match branches.missing_below(&path) {
            Some((kind, reason)) => {
                Err(FsError::failed(kind, format!("versions/: the listing may lack names: {reason}")))
            }
            None => Ok(()),
        }
    }

    /// Attributes of `versions/` or a directory in it.
    ///
    /// # Errors
    /// [`FsError`].
    pub(super) fn attr(&self, nodes: &SnapshotNodes, dir: Inode, context: &RequestContext) -> Result<Attr, FsError> {
        if dir == Inode::Versions {
            return Ok(closed(overview::attr(&nodes.view(), &nodes.owners, dir)?));
        }
        dir_attr(nodes, dir, &self.load(nodes, context)?, context)
    }
}

/// Access for the user who mounted only.
fn closed(attr: Attr) -> Attr {
    Attr { perm: attr.perm & 0o700, ..attr }
}

/// The path that a directory in `versions/` represents.
fn path_of(nodes: &SnapshotNodes, dir: Inode, branches: &LoadedBranches) -> Result<ArchivePath, FsError> {
    let Inode::VersionsOf(number, node) = dir else { return Ok(ArchivePath::root()) };
    let branch = match branches.branches.iter().find(|branch| branch.number == number) {
        Some(loaded) => Arc::clone(&loaded.branch),
        // All its snapshots were deleted from the store; others may have the path.
        None => nodes.trees.branch(&branches.view, number)?,
    };
    let table = branch.table();
    if node.0 as usize >= table.len() {
        return Err(FsError::not_found());
    }
    Ok(table.path(node))
}

/// Attributes of a directory in `versions/`. Users who had access at every time when the path was a directory have access;
/// where the state at some time is unknown, only the user who mounted.
fn dir_attr(
    nodes: &SnapshotNodes,
    dir: Inode,
    branches: &LoadedBranches,
    context: &RequestContext,
) -> Result<Attr, FsError> {
    let plain = overview::attr(&branches.view, &nodes.owners, dir)?;
    let path = path_of(nodes, dir, branches)?;
    let mut attr = Attr { nlink: 1, mtime: 0, ..plain };
    let mut is_first = true;
    for meta in branches.metas(&path) {
        attr.mtime = attr.mtime.max(meta.mtime);
        if meta.kind != EntryKind::Dir {
            continue;
        }
        let owner = nodes.owners.ids(&meta, context).map_err(|_| FsError::WouldBlock)?;
        let perm = nodes.owners.mode(meta.mode) & 0o777;
        if std::mem::take(&mut is_first) {
            (attr.uid, attr.gid, attr.perm) = (owner.uid, owner.gid, perm);
            continue;
        }
        attr.perm &= perm;
        if attr.uid != owner.uid {
            (attr.uid, attr.perm) = (plain.uid, attr.perm | 0o700);
        }
        if attr.gid != owner.gid {
            (attr.gid, attr.perm) = (plain.gid, (attr.perm & 0o707) | (attr.perm & 0o7) << 3);
        }
    }
    match branches.missing_at(&path, None) {
        None => Ok(attr),
        Some(_) => Ok(Attr { nlink: 1, mtime: attr.mtime, attr_ttl: Duration::ZERO, ..closed(plain) }),
    }
}

impl LoadedBranches {
    /// The child `name` that any branch ever had at `path`: the number of the first such branch, and the node in it.
    fn child(&self, path: &ArchivePath, name: &[u8]) -> Option<(usize, NodeId)> {
        self.branches.iter().find_map(|branch| Some((branch.number, branch.child(path, name)?)))
    }

    /// Returns true if a branch before the one at `index` has the child too.
    fn child_before(&self, index: usize, path: &ArchivePath, name: &[u8]) -> bool {
        self.branches.iter().take(index).any(|branch| branch.child(path, name).is_some())
    }

    /// The versions of `path` that are not directories, the oldest first.
    fn versions(&self, path: &ArchivePath) -> Vec<PathVersion> {
        let mut versions: Vec<_> = self.branches.iter().flat_map(|b| b.versions(path, &self.view)).collect();
        versions.sort_by_key(|version| (version.time, version.snapshot));
        for version in &mut versions {
            while self.child(path, &version.name).is_some() {
                version.name.extend_from_slice(SUFFIX);
            }
        }
        versions
    }

    /// The metadata of `path` in all sets.
    fn metas(&self, path: &ArchivePath) -> Vec<EntryMeta> {
        let of = |branch: &LoadedBranch| {
            let table = branch.branch.table();
            let node = table.find(path);
            let versions = node.into_iter().flat_map(|node| table.history(node, branch.depth));
            versions.filter_map(|version| table.meta(version)).collect::<Vec<_>>()
        };
        self.branches.iter().flat_map(of).collect()
    }

    /// The reason why versions of `path`, or of its child, may be missing.
    fn missing_at(&self, path: &ArchivePath, child: Option<&ArchivePath>) -> Option<(ErrorKind, String)> {
        self.missing(|table, depth| {
            let at = |path: &ArchivePath| {
                table.missing_range_at(path, false, depth).map(|range| (range.kind, range.reason.to_string()))
            };
            at(path).or_else(|| child.and_then(at))
        })
    }

    /// The reason why names below `path` may be missing.
    fn missing_below(&self, path: &ArchivePath) -> Option<(ErrorKind, String)> {
        self.missing(|table, depth| {
            let range = table.missing_range_at(path, false, depth);
            let range = range.or_else(|| table.missing_range_at(path, true, depth));
            range.map(|range| (range.kind, range.reason.to_string()))
        })
    }

    fn missing(
        &self,
        in_table: impl Fn(&VersionTable, u32) -> Option<(ErrorKind, String)>,
    ) -> Option<(ErrorKind, String)> {
        self.branches.iter().find_map(|branch| match &branch.failed {
            Some(error) => Some((error.kind(), error.to_string())),
            None => in_table(&branch.branch.table(), branch.depth),
        })
    }
}

impl LoadedBranch {
    fn child(&self, path: &ArchivePath, name: &[u8]) -> Option<NodeId> {
        let table = self.branch.table();
        let child = table.child(table.find(path)?, name)?;
        table.existed(child, self.depth).then_some(child)
    }

    /// Up to `max` children that `path` ever had, in the table's order, after `last`.
    fn children(&self, path: &ArchivePath, last: Option<NodeId>, max: usize) -> Vec<(NodeId, Vec<u8>)> {
        let table = self.branch.table();
        let first = match last {
            Some(last) => table.next_sibling(last),
            None => table.find(path).and_then(|dir| table.first_child(dir)),
        };
        let nodes = std::iter::successors(first, |node| table.next_sibling(*node));
        let existing = nodes.filter(|node| table.existed(*node, self.depth)).take(max);
        existing.map(|node| (node, table.name(node).to_vec())).collect()
    }

    fn versions(&self, path: &ArchivePath, view: &SnapshotView) -> Vec<PathVersion> {
        let found: Vec<(u32, NodeId, Option<EntryKind>)> = {
            let table = self.branch.table();
            let Some(node) = table.find(path) else { return Vec::new() };
            let of = |version| Some((table.position(version)?, node, table.meta(version).map(|meta| meta.kind)));
            table.history(node, self.depth).filter_map(of).collect()
        };
        let mut versions = Vec::new();
        let mut before = None;
        for (position, node, kind) in found {
            // If a set has several, the last one counts, which comes first here.
            if before.replace(position) == Some(position) {
                continue;
            }
            let Some(kind) = kind.filter(|kind| *kind != EntryKind::Dir) else { continue };
            let Some(set) = self.branch.set_at(position).filter(|set| !view.collection.is_removed(*set)) else {
                continue;
            };
            let Some(index) = view.collection.snapshot_position(set) else { continue };
            // Branches that fork share their first sets; each set's snapshot is on one of them.
            let Ok(snapshot) = view.snapshot(index) else { continue };
            if snapshot.branch == self.number {
                let (name, time, kind) = (snapshot.name.as_bytes().to_vec(), snapshot.time, kind_of(&kind));
                versions.push(PathVersion { name, snapshot: index, time, node, kind });
            }
        }
        versions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_request_does_not_count_as_a_failure_of_the_branch() {
        let failures = BranchFailures::default();
        failures.insert(0, FsError::failed(ErrorKind::Cancelled, "the request was interrupted"));
        assert!(failures.recent(0).is_none());
        failures.insert(0, FsError::failed(ErrorKind::Io, "no answer"));
        assert!(failures.recent(0).is_some());
    }
}
