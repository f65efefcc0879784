//! A backup set: the objects of one run of duplicity.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::name::{FileRole, NameSuffix, SetTimes};
use crate::{BackupTime, ObjectInfo, SetIndex, VolumeNumber};

/// One backup set: the objects that one run of duplicity stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSet {
    /// The index of the set in [`crate::collection::Collection::sets`].
    pub index: SetIndex,
    /// The time of the set that this one is an increment to. `None` for a full set.
    pub start: Option<BackupTime>,
    /// The time of the set.
    pub time: BackupTime,
    /// The manifest. Without one the set is incomplete, unless it is rebuilt.
    pub manifest: Option<ObjectInfo>,
    /// True if the set has lost its manifest and is shown all the same, as far as its signature archive proves the content
    /// of its volumes (`--rebuild`).
    pub is_rebuilt: bool,
    /// The reason for which the caller refused the set's [proof](Self::proof), if it did.
    pub refusal: Option<Arc<str>>,
    /// The signature archive. Without one the tree must be rebuilt from the volumes.
    pub signatures: Option<ObjectInfo>,
    /// The volumes that exist. Only the manifest states which ones should.
    pub volumes: BTreeMap<VolumeNumber, ObjectInfo>,
    /// Objects with the role of one of the above. They are reported and otherwise unused.
    pub duplicates: Vec<DuplicateObject>,
    /// The most frequent suffix of the set's volumes. Without volumes, that of the manifest, then of the signature
    /// archive. Volumes that are encrypted as the manifest is come first.
    pub suffix: NameSuffix,
}

/// The encryption of a set, by the names of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetEncryption {
    /// All objects are OpenPGP messages.
    OpenPgp,
    /// All objects are encrypted, some or all of them with gpgsm.
    Cms,
    /// Some objects are encrypted and some are not.
    Mixed,
    /// No object is encrypted.
    None,
}

impl SetEncryption {
    /// Returns the stable identifier in machine-readable output.
    pub fn code(self) -> &'static str {
        match self {
            Self::OpenPgp => "openpgp",
            Self::Cms => "cms",
            Self::Mixed => "mixed",
            Self::None => "none",
        }
    }
}

/// An object with the role of another one in its set, but with another suffix or name style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateObject {
    /// The role of both objects.
    pub role: FileRole,
    /// The object that was not chosen.
    pub object: ObjectInfo,
}

/// A signature archive and the times in its name.
#[derive(Clone, Debug)]
pub(super) struct NamedSignature {
    pub(super) times: SetTimes,
    pub(super) name: Arc<str>,
}

impl BackupSet {
    /// Returns true for a full set.
    pub fn is_full(&self) -> bool {
        self.start.is_none()
    }

    /// Returns true if the set has a manifest, or is rebuilt without one. duplicity writes the manifest last, so a set
    /// without one does not count (docs/FORMAT.md section 7).
    pub fn is_complete(&self) -> bool {
        self.manifest.is_some() || self.is_rebuilt
    }

    /// Returns true if the set has no manifest and could be rebuilt: it has volumes, and a signature archive to prove
    /// their content. An archive that is not encrypted proves nothing about encrypted volumes, because anyone with
    /// write access could have written it.
    pub fn is_rebuildable(&self) -> bool {
        let signed = self.signatures.as_ref().map(|object| NameSuffix::of(&object.name));
        let is_encrypted = self.suffix.is_encrypted();
        self.manifest.is_none()
            && !self.volumes.is_empty()
            && self.suffix != NameSuffix::Cms
            && signed.is_some_and(|suffix| suffix != NameSuffix::Cms && suffix.is_encrypted() == is_encrypted)
    }

    /// Returns the encryption of the set's objects.
    pub fn encryption(&self) -> SetEncryption {
        let suffixes = || self.objects().map(|object| NameSuffix::of(&object.name));
        let encrypted = suffixes().filter(|suffix| suffix.is_encrypted()).count();
        match suffixes().count() {
            _ if encrypted == 0 => SetEncryption::None,
            all if encrypted < all => SetEncryption::Mixed,
            _ if suffixes().any(|suffix| suffix == NameSuffix::Cms) => SetEncryption::Cms,
            _ => SetEncryption::OpenPgp,
        }
    }

    /// Returns true if the manifest is encrypted: then the set is one of encrypted objects, whatever the names of the others say.
    pub fn has_encrypted_manifest(&self) -> bool {
        self.manifest.as_ref().is_some_and(|object| NameSuffix::of(&object.name).is_encrypted())
    }

    /// Returns true if any object of the set is encrypted, also one that is not used because another has its role.
    pub(super) fn has_encrypted_objects(&self) -> bool {
        let objects = self.objects().chain(self.duplicates.iter().map(|duplicate| &duplicate.object));
        objects.into_iter().any(|object| NameSuffix::of(&object.name).is_encrypted())
    }

    /// Returns the object that proves who made the set: its manifest, or the signature archive of a set that has lost it.
    pub fn proof(&self) -> Option<&ObjectInfo> {
        self.manifest.as_ref().or(self.signatures.as_ref())
    }

    /// Returns true if the set cannot be changed without a key: its manifest is encrypted and not refused, and its signature
    /// archive is encrypted if it has one. The encrypted manifest has the hashes of the volumes. In a rebuilt set all objects
    /// must be encrypted.
    pub fn is_protected(&self) -> bool {
        let is_encrypted = |object: &ObjectInfo| NameSuffix::of(&object.name).is_encrypted();
        match &self.manifest {
            _ if self.refusal.is_some() => false,
            Some(manifest) => is_encrypted(manifest) && self.signatures.as_ref().is_none_or(is_encrypted),
            None => self.is_rebuilt && self.objects().all(is_encrypted),
        }
    }

    /// Returns the times that identify the set.
    pub fn times(&self) -> SetTimes {
        SetTimes { end: self.time, start: self.start }
    }

    /// Returns the set's name in messages: `full 20170128T021500Z` or `inc 20170121T021500Z to 20170128T021500Z`.
    pub fn label(&self) -> String {
        label(self.times())
    }

    /// Returns the total size of the set's volumes, manifest and signature archive in the store, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.objects().map(|object| object.size).fold(0, u64::saturating_add)
    }

    /// Returns the set's objects without the duplicates.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.manifest.iter().chain(&self.signatures).chain(self.volumes.values())
    }
}

/// Returns the name in messages of the set with these times.
pub(super) fn label(times: SetTimes) -> String {
    match times.start {
        None => format!("full {}", times.end),
        Some(start) => format!("inc {start} to {}", times.end),
    }
}
