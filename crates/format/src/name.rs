//! File names of a repository (docs/FORMAT.md sections 1 and 10).
//!
//! A name is accepted only if all of it follows the grammar: `difftar`, `manifest` or `sigtar` may be followed by a
//! known suffix and by nothing else. This excludes par2 files, `.part` files, jsonstat files and half-written copies,
//! which duplicity's own looser patterns accept. Letters match in either case, because some stores change it.

mod grammar;
mod prefixes;
#[cfg(test)]
mod tests;

use super::FormatError;
use crate::{BackupTime, VolumeNumber};

pub use grammar::{parse_name, parse_name_with_prefix};
pub use prefixes::NamePrefixes;

/// The parsed name of one of duplicity's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName<'a> {
    /// The times that identify the backup set of the file.
    pub set: SetTimes,
    /// The part that the file has in its set.
    pub role: FileRole,
    /// The text before duplicity's own name (`--file-prefix` and the prefix of the kind). It may contain `/` and is
    /// mostly empty.
    pub prefix: &'a str,
    /// The encoding that the name states. The content must agree with it. Without a suffix the content decides
    /// (docs/FORMAT.md section 1).
    pub suffix: NameSuffix,
    /// The notation of the name.
    pub style: NameStyle,
}

impl FileName<'_> {
    /// Refuses files that cannot be read, by their name.
    ///
    /// # Errors
    /// [`FormatError::Cms`] for `.p7m`. The message shows `name`.
    pub fn check_supported(&self, name: &str) -> Result<(), FormatError> {
        match self.suffix {
            NameSuffix::Cms => Err(FormatError::Cms { name: name.to_owned() }),
            NameSuffix::OpenPgp | NameSuffix::Gzip | NameSuffix::None => Ok(()),
        }
    }
}

/// The times that identify a backup set. They are compared as numbers, because the names of one set may write the same
/// time in different zones.
///
/// The order is duplicity's: by end time, and full sets before increments of the same end time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetTimes {
    /// The time of the set itself.
    pub end: BackupTime,
    /// The time of the set that an increment builds on. `None` for a full set.
    pub start: Option<BackupTime>,
}

impl SetTimes {
    /// Returns true for a full set.
    pub fn is_full(&self) -> bool {
        self.start.is_none()
    }
}

/// The part that a file has in its backup set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileRole {
    /// The manifest.
    Manifest,
    /// The signature archive.
    Signature,
    /// A volume.
    Volume(VolumeNumber),
}

impl FileRole {
    /// Returns the kind of file that has this role.
    pub fn kind(self) -> NameKind {
        match self {
            Self::Manifest => NameKind::Manifest,
            Self::Signature => NameKind::Signature,
            Self::Volume(_) => NameKind::Volume,
        }
    }
}

/// A kind of file, for which duplicity has a separate option for the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameKind {
    /// Volumes, which duplicity's options call archives.
    Volume,
    /// Manifests.
    Manifest,
    /// Signature archives.
    Signature,
}

impl NameKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Volume, Self::Manifest, Self::Signature];
}

/// The encoding that a name states by its suffix.
///
/// The order decides between equally frequent suffixes of one set ([`crate::collection::BackupSet::suffix`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameSuffix {
    /// `.gpg` or `.g`.
    OpenPgp,
    /// `.gz` or `.z`.
    Gzip,
    /// No suffix: plain, or gzip by duplicity before 0.7.06.
    None,
    /// `.p7m`: CMS, written by gpgsm. Not supported.
    Cms,
}

impl NameSuffix {
    /// Returns the suffix at the end of `name`, in either case.
    pub fn of(name: &str) -> Self {
        let last = name.rsplit_once('.').map_or("", |(_, last)| last);
        match &*last.to_ascii_lowercase() {
            "gpg" | "g" => Self::OpenPgp,
            "gz" | "z" => Self::Gzip,
            "p7m" => Self::Cms,
            _ => Self::None,
        }
    }

    /// Returns true if an object with this suffix is encrypted.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::OpenPgp | Self::Cms)
    }
}

/// The notation of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameStyle {
    /// `duplicity-full.20261122T122614Z.vol1.difftar`, or with W3C times as `--old-filenames` wrote them.
    Long,
    /// `df.towm5d.1.dt`, as `--short-filenames` wrote it.
    Short,
}
