//! What collections need of a name: which set it belongs to, and as what.

use super::set::{Packing, Role};
use crate::BackupTime;
use crate::name::{self, FileName, NameKind, Suffix};

/// A name of duplicity's, as far as grouping needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedName<'a> {
    /// What precedes duplicity's own name.
    pub(super) prefix: &'a str,
    /// The set.
    pub(super) key: SetKey,
    /// What the object is to its set.
    pub(super) role: Role,
    /// How it is packed, by its suffix.
    pub(super) packing: Packing,
}

/// Identity of a set in a repository. The order is duplicity's: by end time; of equal ones full sets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SetKey {
    /// Time of the set.
    pub(super) time: BackupTime,
    /// Time of the set it is an increment to; `None` for a full set.
    pub(super) start: Option<BackupTime>,
}

/// Parses `name` behind whatever prefix; `None` if it is none of duplicity's that a restore needs.
pub(super) fn parse(name: &str) -> Option<ParsedName<'_>> {
    convert(name, &name::parse_name(name)?)
}

/// Parses `name` behind exactly that prefix.
pub(super) fn parse_with<'a>(name: &'a str, prefix: &str) -> Option<ParsedName<'a>> {
    convert(name, &name::parse_name_with(name, prefix)?)
}

fn convert<'a>(name: &'a str, parsed: &FileName) -> Option<ParsedName<'a>> {
    let times = parsed.kind.set();
    let role = match parsed.kind {
        NameKind::Volume { number, .. } => Role::Volume(number),
        NameKind::Manifest { .. } => Role::Manifest,
        NameKind::Signature { .. } => Role::Signature,
    };
    let packing = match parsed.suffix {
        Suffix::None => Packing::Plain,
        Suffix::Gzip => Packing::Gzip,
        Suffix::OpenPgp => Packing::OpenPgp,
        Suffix::Cms => Packing::Cms,
    };
    let key = SetKey { time: times.end, start: times.start };
    Some(ParsedName { prefix: name.get(..parsed.prefix.len())?, key, role, packing })
}
