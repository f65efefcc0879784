//! Failures of finding or reading a file's content.

use std::sync::Arc;

use crate::volume::VolumeError;
use dupfs_base::{ErrorKind, HasKind, Stopped};
use dupfs_format::ArchivePath;

/// A failure to locate or read the content of a file. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ContentError {
    /// A volume or manifest could not be read.
    #[error("{path}: {error}")]
    Volume {
        /// The file.
        path: ArchivePath,
        /// The failure.
        error: VolumeError,
    },
    /// The signature archive lists the file but no volume has it (FORMAT.md 2.3: the backup was interrupted, resumed,
    /// and the source had changed).
    #[error(
        "{path}: {set} lists it but has no data for it: that backup was interrupted and resumed while the source changed{or_lost}; try the snapshot before or after"
    )]
    NoData {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// Another possible reason, or nothing.
        or_lost: Arc<str>,
    },
    /// The manifest is damaged, and does not show which volume has the file.
    #[error(
        "{path}: cannot be found in the volumes of {set}, because {manifest} is damaged: {detail}; copy the manifest back from another replica, or from the archive directory of the machine that was backed up"
    )]
    ManifestDamaged {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// The name of the manifest.
        manifest: Arc<str>,
        /// The damage.
        detail: Arc<str>,
    },
    /// The set has no manifest, or stores several objects under the name, and the signature does not prove the content.
    #[error("{path}: {set} {detail}")]
    Unproven {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// The reason, as a predicate of the set.
        detail: Arc<str>,
    },
    /// Parts of the file are missing between those that are there.
    #[error(
        "{path}: {set} has only some of its parts ({detail}): that backup was interrupted; try the snapshot before or after"
    )]
    Incomplete {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// The missing parts.
        detail: Arc<str>,
    },
    /// The set has parts of two states of the file (FORMAT.md 2.3).
    #[error(
        "{path}: {set} has parts of two different states of it: that backup was interrupted and resumed while the file changed; try the snapshot before or after"
    )]
    Mixed {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// A delta that does not follow librsync's form, or that copies what its base does not have.
    #[error("{path}: its delta in {set} is damaged: {detail}")]
    Delta {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// The damage.
        detail: Arc<str>,
    },
    /// A delta without the state it was made from.
    #[error("{path}: {set} has a delta for it, but no earlier set has the file it applies to")]
    NoBase {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// A delta is to be applied to a state that is not the one it was made from (FORMAT.md 2.3: the signature, from which deltas
    /// are made, describes a later state than the stored data).
    #[error(
        "{path}: {set} stores an earlier state of it than the one that the next delta applies to: that backup was interrupted and resumed while the file changed; try an earlier snapshot, or one of a later full backup"
    )]
    OtherBase {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// A delta whose base may be in a part of the tree that could not be read.
    #[error("{path}: the state that its delta in {set} was made from is not known: {reason}")]
    UnknownBase {
        /// The file.
        path: ArchivePath,
        /// The set with the delta, as people name it.
        set: Arc<str>,
        /// The cause, in one line.
        reason: Arc<str>,
        /// The kind of the failure.
        kind: ErrorKind,
    },
    /// Several files are stored under one name and cannot be distinguished (FORMAT.md 4.3).
    #[error(
        "{path}: {set} stores several files under the same mangled name, so they cannot be distinguished; try another snapshot"
    )]
    Ambiguous {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// A version in more pieces than dupfs supports.
    #[error(
        "{path}: with {set} it is made of more than {limit} pieces, which is more than --memory has room for; raise --memory, or restore this file with duplicity"
    )]
    Pieces {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// The largest number that is supported.
        limit: usize,
    },
    /// The stored data has another size than the signature allows.
    #[error(
        "{path}: {set} stores {size} bytes of it, which contradicts its signature: the stored data is not the file that was signed"
    )]
    Size {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
        /// Size of the stored data in bytes.
        size: u64,
    },
    /// The volume has an object of another type under the name.
    #[error(
        "{path}: {set} stores no regular file under this name, which contradicts its signature archive: that backup was interrupted and resumed while the source changed, or the archive is that of another set; try the snapshot before or after"
    )]
    OtherType {
        /// The file.
        path: ArchivePath,
        /// The set, as people name it.
        set: Arc<str>,
    },
    /// The node is not a regular file in this snapshot.
    #[error("{path}: not a regular file in this snapshot")]
    NotFile {
        /// The path.
        path: ArchivePath,
    },
}

impl ContentError {
    /// Returns true if the parts of the file are not where the manifest and the assumed sizes of parts place them.
    pub(super) fn is_misplaced(&self) -> bool {
        matches!(
            self,
            Self::Incomplete { .. }
                | Self::NoData { .. }
                | Self::ManifestDamaged { .. }
                | Self::Unproven { .. }
                | Self::Mixed { .. }
        )
    }

    /// Returns true if the answer is not cached and must be requested from a thread that may wait.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Volume { error: VolumeError::Stopped(Stopped::WouldBlock), .. })
    }
}

impl HasKind for ContentError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Volume { error, .. } => error.kind(),
            Self::NoData { .. }
            | Self::ManifestDamaged { .. }
            | Self::Unproven { .. }
            | Self::Incomplete { .. }
            | Self::Mixed { .. }
            | Self::Delta { .. }
            | Self::NoBase { .. }
            | Self::OtherBase { .. }
            | Self::Ambiguous { .. }
            | Self::OtherType { .. }
            | Self::Size { .. } => ErrorKind::Corrupt,
            Self::UnknownBase { kind, .. } => *kind,
            Self::Pieces { .. } => ErrorKind::Unsupported,
            Self::NotFile { .. } => ErrorKind::Invalid,
        }
    }
}
