//! The error of collections.

use dupfs_base::{ErrorKind, HasKind};

use crate::BackupTime;

/// A failure to find the backup or the requested snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectionError {
    /// The listing has no file of duplicity.
    #[error("no duplicity backup here: {}; check the URL", describe_foreign(*.objects))]
    NoBackup {
        /// Number of objects in the listing.
        objects: usize,
    },
    /// No name has the requested prefixes, but other names are duplicity's.
    #[error("no duplicity backup {requested}; try {}", .found.join("; or "))]
    NoSuchPrefix {
        /// `with` the given prefix options, `without a prefix`, or `in this directory`.
        requested: String,
        /// The alternatives, one for each backup found.
        found: Vec<String>,
    },
    /// Several backups have different prefixes, and none was chosen.
    #[error("several backups with different prefixes are here; choose one: {}", .found.join("; or "))]
    SeveralPrefixes {
        /// The options that choose each of them.
        found: Vec<String>,
    },
    /// All sets are encrypted with gpgsm.
    #[error(
        "all {sets} backup sets are encrypted with gpgsm (names end in .p7m), which dupfs cannot read; restore them \
         with duplicity 3"
    )]
    Cms {
        /// Number of sets.
        sets: usize,
    },
    /// All sets were left out because they are not encrypted.
    #[error(
        "none of the {sets} backup sets here is encrypted, and --require-encryption refuses such sets; without that option \
         they can be read, but anyone who can write to this place could have made them"
    )]
    NotEncrypted {
        /// Number of sets.
        sets: usize,
    },
    /// No set is complete and linked to a full set.
    #[error(
        "no snapshot can be restored: none of the {sets} backup sets here is a full backup with a manifest, or an \
         increment to one; 'dupfs sets' lists what is missing{}",
        if *.rebuildable == 0 { "" } else { ", and --rebuild shows what can be proved of sets that have lost it" }
    )]
    NoSnapshot {
        /// Number of sets.
        sets: usize,
        /// Number of sets that have lost their manifests and could be rebuilt.
        rebuildable: usize,
    },
    /// Two chains cover the time. duplicity refuses it, too.
    #[error(
        "two chains cover {at}: {first} and {second}; duplicity refuses this time too; mount without --time and choose \
         a snapshot from snapshots/"
    )]
    TwoChains {
        /// The requested time.
        at: BackupTime,
        /// The first chain's span.
        first: String,
        /// The second chain's span.
        second: String,
    },
}

fn describe_foreign(objects: usize) -> String {
    match objects {
        0 => "no file is directly in this location".to_owned(),
        1 => "1 object, which is not a file of a duplicity backup".to_owned(),
        n => format!("{n} objects, none of them a file of a duplicity backup"),
    }
}

impl HasKind for CollectionError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBackup { .. } | Self::NoSuchPrefix { .. } | Self::NoSnapshot { .. } => ErrorKind::NotFound,
            Self::SeveralPrefixes { .. } | Self::TwoChains { .. } => ErrorKind::Invalid,
            Self::Cms { .. } => ErrorKind::Unsupported,
            Self::NotEncrypted { .. } => ErrorKind::Corrupt,
        }
    }
}
