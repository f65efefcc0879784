//! The difference between two states of an object, by the records of signature archives.

use std::fmt;

use crate::vfs::RecordedObject;
use dupfs_format::EntryKind;
use dupfs_read::volume::SignedContent;

/// A part of an object that differs between two states of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChangedPart {
    /// The type, and with it everything.
    Type,
    /// The content of a regular file.
    Contents,
    /// It is not known whether the content of a regular file differs.
    PossiblyContents,
    /// The target of a symbolic link.
    Target,
    /// The numbers of a device.
    Device,
    /// The mode bits.
    Mode,
    /// The user.
    Owner,
    /// The group.
    Group,
    /// The modification time.
    Mtime,
}

impl ChangedPart {
    /// Its name in text and JSON, which is stable.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Contents => "contents",
            Self::PossiblyContents => "contents?",
            Self::Target => "target",
            Self::Device => "device",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Group => "group",
            Self::Mtime => "mtime",
        }
    }
}

/// A comparison of the contents of two regular files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentComparison {
    /// They are the same.
    Same,
    /// They differ.
    Different,
    /// Nothing that was read decides it.
    Undecided,
}

impl ContentComparison {
    /// Compares by the sizes, or because there is no content to compare.
    pub(super) fn by_size(old: &RecordedObject, new: &RecordedObject) -> Self {
        let is_file = |object: &RecordedObject| object.meta.kind == EntryKind::File;
        let both_empty = old.size.1 == 0 && new.size.1 == 0;
        if !is_file(old) || !is_file(new) || old.is_same_record(new) || both_empty {
            Self::Same
        } else if old.size.1 < new.size.0 || new.size.1 < old.size.0 {
            Self::Different
        } else {
            Self::Undecided
        }
    }

    /// Compares by the signatures.
    pub(super) fn by_signature(old: Option<&SignedContent>, new: Option<&SignedContent>) -> Self {
        match old.zip(new).and_then(|(old, new)| old.is_same_as(new)) {
            Some(true) => Self::Same,
            Some(false) => Self::Different,
            None => Self::Undecided,
        }
    }
}

/// The parts in which two states of an object differ; empty if they are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectDifference(u16);

impl ObjectDifference {
    const ALL: [ChangedPart; 9] = [
        ChangedPart::Type,
        ChangedPart::Contents,
        ChangedPart::PossiblyContents,
        ChangedPart::Target,
        ChangedPart::Device,
        ChangedPart::Mode,
        ChangedPart::Owner,
        ChangedPart::Group,
        ChangedPart::Mtime,
    ];

    /// The difference between `old` and `new` without their contents.
    pub(super) fn of_metadata(old: &RecordedObject, new: &RecordedObject) -> Self {
        let mut difference = Self::default();
        if std::mem::discriminant(&old.meta.kind) != std::mem::discriminant(&new.meta.kind) {
            difference.add(ChangedPart::Type);
            return difference;
        }
        // A directory that no set describes has no metadata.
        if old.record.is_none() || new.record.is_none() || old.is_same_record(new) {
            return difference;
        }
        let (old, new) = (&old.meta, &new.meta);
        let is_link = matches!(old.kind, EntryKind::Symlink(_));
        for (part, differs) in [
            (ChangedPart::Target, is_link && old.kind != new.kind),
            (ChangedPart::Device, !is_link && old.kind != new.kind),
            // The mode of a link has no meaning.
            (ChangedPart::Mode, !is_link && old.mode != new.mode),
            // Names of owners are archived in several encodings and lengths; duplicity compares numbers too.
            (ChangedPart::Owner, old.uid != new.uid),
            (ChangedPart::Group, old.gid != new.gid),
            (ChangedPart::Mtime, old.mtime != new.mtime),
        ] {
            if differs {
                difference.add(part);
            }
        }
        difference
    }

    /// The difference with that of the contents.
    pub(super) fn with_contents(mut self, contents: ContentComparison) -> Self {
        match contents {
            ContentComparison::Same => {}
            ContentComparison::Different => self.add(ChangedPart::Contents),
            ContentComparison::Undecided => self.add(ChangedPart::PossiblyContents),
        }
        self
    }

    fn add(&mut self, part: ChangedPart) {
        self.0 |= 1 << part as u16;
    }

    /// Returns true if nothing differs.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns true if `part` differs.
    pub(super) fn has(self, part: ChangedPart) -> bool {
        self.0 & 1 << part as u16 != 0
    }

    /// The names of the parts.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |part| self.has(*part)).map(ChangedPart::name)
    }
}

impl fmt::Display for ObjectDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.names().enumerate() {
            write!(f, "{}{name}", if position == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
