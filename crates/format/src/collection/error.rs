//! Why a listing is no collection, or a time no snapshot.

use crate::BackupTime;
use dupfs_base::{ErrorKind, HasKind};

/// A failure to find the backup or the snapshot asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectionError {
    /// There is nothing of duplicity's in the listing.
    #[error("no duplicity backup here: {}; check the URL", nothing(*.objects))]
    NoBackup {
        /// Number of objects in the listing.
        objects: usize,
    },
    /// Nothing carries the prefixes asked for, but other names are duplicity's.
    #[error("no duplicity backup {asked}; try {}", .found.join("; or "))]
    NoSuchPrefix {
        /// The prefix options as given, `without a prefix` or `in this directory`.
        asked: String,
        /// What to give instead, one item for each backup found.
        found: Vec<String>,
    },
    /// Several backups with different prefixes, and none chosen.
    #[error("several backups with different prefixes are here; choose one: {}", .found.join("; or "))]
    SeveralPrefixes {
        /// The options that choose each of them.
        found: Vec<String>,
    },
    /// All sets are encrypted with gpgsm.
    #[error(
        "all {sets} backup sets are encrypted with gpgsm (names end in .p7m), which dupfs cannot read; restore them with \
         duplicity 3 itself"
    )]
    Cms {
        /// Number of sets.
        sets: usize,
    },
    /// No set is complete and linked to a full set.
    #[error(
        "no snapshot can be restored: none of the {sets} backup sets here is a full backup with a manifest, nor linked to \
         one; 'dupfs sets' says what is missing"
    )]
    NoSnapshot {
        /// Number of sets.
        sets: usize,
    },
    /// Two chains cover the time, and duplicity refuses to choose.
    #[error(
        "two chains cover {at}: {first} and {second}; duplicity refuses this time too; mount without --time and take the \
         snapshot you mean from snapshots/"
    )]
    TwoChains {
        /// The time asked for.
        at: BackupTime,
        /// The first chain's span.
        first: String,
        /// The second chain's span.
        second: String,
    },
}

fn nothing(objects: usize) -> String {
    match objects {
        0 => "the place is empty".to_owned(),
        1 => "1 object, which is none of duplicity's".to_owned(),
        n => format!("{n} objects, none of them a file of a duplicity backup"),
    }
}

impl HasKind for CollectionError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBackup { .. } | Self::NoSuchPrefix { .. } | Self::NoSnapshot { .. } => ErrorKind::NotFound,
            Self::SeveralPrefixes { .. } | Self::TwoChains { .. } => ErrorKind::Invalid,
            Self::Cms { .. } => ErrorKind::Unsupported,
        }
    }
}
