//! A regular file at a snapshot, as requests to the content layer name it.

use std::sync::Arc;

use super::error::ContentError;
use crate::tree::{Branch, FileVersion, NodeId, VersionId};
use crate::volume::Volumes;
use dupfs_cache::index::Identity;
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{ArchivePath, SetIndex};

/// A regular file at a snapshot: its path and the versions that its content may depend on.
#[derive(Clone, Debug)]
pub struct FileRef {
    /// The branch of sets the snapshot is on.
    pub branch: Arc<Branch>,
    /// The path's node in the branch's table.
    pub node: NodeId,
    /// The path.
    pub path: ArchivePath,
    /// The versions, newest first: the one shown, then those its deltas may apply to.
    pub history: Vec<FileVersion>,
}

/// The number in read hints of the file that is `node`.
pub fn hint_number(node: NodeId) -> u64 {
    u64::from(node.0)
}

impl FileRef {
    /// The file that `node` is in a snapshot of the first `depth` sets of `branch`; `None` if it is no regular file
    /// there. The sets must be loaded.
    pub fn at(branch: &Arc<Branch>, node: NodeId, depth: u32) -> Option<Self> {
        let table = branch.table();
        let history = table.file_history(node, depth);
        if history.is_empty() {
            return None;
        }
        let path = table.path(node);
        drop(table);
        Some(Self { branch: Arc::clone(branch), node, path, history })
    }

    /// The version shown.
    pub fn version(&self) -> Option<FileVersion> {
        self.history.first().copied()
    }

    /// Bounds of the size of the version written by the set at `position`.
    pub(super) fn bounds_at(&self, position: u32) -> Option<SizeBounds> {
        self.version_at(position).and_then(|v| v.bounds)
    }

    /// The version written by the set at `position`.
    pub(super) fn version_at(&self, position: u32) -> Option<FileVersion> {
        self.history.iter().copied().find(|v| v.position == position)
    }

    /// Checks that no set between those of two versions may have another one.
    pub(super) fn check_succession(
        &self,
        volumes: &dyn Volumes,
        newer: FileVersion,
        older: FileVersion,
    ) -> Result<(), ContentError> {
        let table = self.branch.table();
        let Some(uncertainty) = table.uncertainty(&self.path, older.position, newer.position) else { return Ok(()) };
        drop(table);
        let set = self.branch.set_at(newer.position).map_or_else(|| "an unknown set".into(), |s| set_label(volumes, s));
        Err(ContentError::UnknownBase {
            path: self.path.clone(),
            set,
            reason: uncertainty.reason,
            kind: uncertainty.kind,
        })
    }

    /// The identity of the file's versions and of all content of their sets. `None` where something of the tree is
    /// uncertain.
    pub(super) fn versions_identity(&self, volumes: &dyn Volumes) -> Option<Identity> {
        let locations: Vec<(u32, u32)> = {
            let table = self.branch.table();
            if table.has_uncertainty() {
                return None;
            }
            self.history.iter().map(|version| table.index_in_set(version.id)).collect::<Option<_>>()?
        };
        let mut identity = Identity::of(&[b"plan"]);
        for (position, location) in locations {
            let set = volumes.index().identity(self.branch.set_at(position)?)?;
            identity = identity.with(&[&set.0, &position.to_le_bytes(), &location.to_le_bytes()]);
        }
        Some(identity)
    }

    /// The identity of the file's content, and the set that holds its newest version. `None` where something of the tree is
    /// uncertain.
    pub fn identity(&self, volumes: &dyn Volumes) -> Option<(Identity, SetIndex)> {
        let set = self.branch.set_at(self.version()?.position)?;
        Some((self.versions_identity(volumes)?.with(&[b"content"]), set))
    }

    /// The file's identity: the same for all snapshots that show the same version.
    pub(super) fn key(&self, version: VersionId) -> FileKey {
        FileKey { branch: Arc::as_ptr(&self.branch).addr(), version }
    }
}

/// Identity of one version of one file; branches exist as long as the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    branch: usize,
    version: VersionId,
}

/// The set as people name it.
pub(super) fn set_label(volumes: &dyn Volumes, set: SetIndex) -> Arc<str> {
    volumes.label(set)
}
