//! A regular file at a snapshot, as the content layer is asked for it.

use std::sync::Arc;

use super::error::ContentError;
use super::stream::Stream;
use crate::tree::{FileVersion, Line, NodeId, VersionId};
use crate::volume::Volumes;
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{ArchivePath, SetIndex};

/// A regular file at a snapshot: its path and the versions its content may rest on.
#[derive(Clone, Debug)]
pub struct FileRef {
    /// The line of sets the snapshot is on.
    pub line: Arc<Line>,
    /// The path's node in the line's table.
    pub node: NodeId,
    /// The path.
    pub path: ArchivePath,
    /// The versions, newest first: the one shown, then those its deltas may apply to.
    pub history: Vec<FileVersion>,
}

impl FileRef {
    /// The file that `node` is in a snapshot of the first `depth` sets of `line`; `None` if it is no regular file
    /// there. The sets must be loaded.
    pub fn at(line: &Arc<Line>, node: NodeId, depth: u32) -> Option<Self> {
        let table = line.table();
        let history = table.file_history(node, depth);
        if history.is_empty() {
            return None;
        }
        let path = table.path(node);
        drop(table);
        Some(Self { line: Arc::clone(line), node, path, history })
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

    /// Checks that `stream`, which makes a file of `size` bytes, is the state that its set signed: the next delta was made from
    /// that.
    pub(super) fn check_base(&self, volumes: &dyn Volumes, stream: &Stream, size: u64) -> Result<(), ContentError> {
        let Some(version) = self.version_at(stream.position) else { return Ok(()) };
        let fits = version.bounds.is_none_or(|b| b.contains(size));
        if fits && (version.mtime == stream.meta.mtime || stream.is_signed(volumes, self)?) {
            return Ok(());
        }
        Err(ContentError::OtherBase { path: self.path.clone(), set: set_label(volumes, stream.set) })
    }

    /// Checks that no set between those of two versions may hold another one.
    pub(super) fn check_succession(
        &self,
        volumes: &dyn Volumes,
        newer: FileVersion,
        older: FileVersion,
    ) -> Result<(), ContentError> {
        let table = self.line.table();
        let Some(doubt) = table.doubt(&self.path, older.position, newer.position) else { return Ok(()) };
        drop(table);
        let set = self.line.set_at(newer.position).map_or_else(|| "an unknown set".into(), |s| set_label(volumes, s));
        Err(ContentError::UnknownBase { path: self.path.clone(), set, reason: doubt.reason, kind: doubt.kind })
    }

    /// The file's identity: the same for all snapshots that show the same version.
    pub(super) fn key(&self, version: VersionId) -> FileKey {
        FileKey { line: Arc::as_ptr(&self.line).addr(), version }
    }
}

/// Identity of one version of one file; lines live as long as the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    line: usize,
    version: VersionId,
}

/// The set as people name it.
pub(super) fn set_label(volumes: &dyn Volumes, set: SetIndex) -> Arc<str> {
    volumes.label(set)
}
