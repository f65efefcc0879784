//! The prefixes of the names of one backup.

use super::{FileName, NameKind, parse_name_with_prefix};

/// The complete prefixes of the names of one backup, by kind of file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePrefixes {
    /// The prefix of volumes.
    pub archive: String,
    /// The prefix of manifests.
    pub manifest: String,
    /// The prefix of signature archives.
    pub signature: String,
}

impl NamePrefixes {
    /// Returns the prefix of a kind of file.
    pub fn of(&self, kind: NameKind) -> &str {
        match kind {
            NameKind::Volume => &self.archive,
            NameKind::Manifest => &self.manifest,
            NameKind::Signature => &self.signature,
        }
    }

    /// Parses `name` if it has exactly the prefix of its kind.
    pub fn parse<'a>(&self, name: &'a str) -> Option<FileName<'a>> {
        NameKind::ALL.into_iter().find_map(|kind| {
            let found = parse_name_with_prefix(name, self.of(kind))?;
            (found.role.kind() == kind).then_some(found)
        })
    }
}
