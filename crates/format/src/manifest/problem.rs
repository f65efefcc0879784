//! Damage of a manifest.

use std::fmt;

use crate::VolumeNumber;

/// The part of a manifest that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestProblemKind {
    /// The entry of a volume, which is left out.
    Entry(VolumeNumber),
    /// An entry whose volume is not known.
    UnknownEntry,
    /// The range of a volume, which ends before that of an earlier one: one of the two is wrong.
    Order(VolumeNumber),
    /// The list of changed files. No volume is found by it, so nothing is unreadable.
    FileList,
}

/// Something wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestProblem {
    /// The damaged part.
    pub kind: ManifestProblemKind,
    /// Start of the damaged line, if it is one line.
    pub offset: Option<u64>,
    /// Description of the damage.
    pub what: String,
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} (at byte {offset})", self.what),
            None => f.write_str(&self.what),
        }
    }
}
