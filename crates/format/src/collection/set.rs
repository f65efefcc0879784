//! Backup sets: the objects of one run of duplicity, grouped by the times in their names (FORMAT.md section 1).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::names::{ParsedName, SetKey};
use crate::ObjectInfo;
use crate::{BackupTime, SetIndex, VolumeNumber};

/// What an object is to its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The manifest.
    Manifest,
    /// The signature archive.
    Signature,
    /// A volume.
    Volume(VolumeNumber),
}

/// How an object is packed, as far as its suffix tells; what counts for reading is its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Packing {
    /// OpenPGP: `.gpg`, `.g`.
    OpenPgp,
    /// gzip: `.gz`, `.z`.
    Gzip,
    /// No suffix.
    Plain,
    /// CMS, written by gpgsm: `.p7m`. Not readable.
    Cms,
}

/// An object that doubles another of its set: same role, other suffix or name style. It is reported,
/// and used for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    /// What both are to the set.
    pub role: Role,
    /// The object that was not chosen.
    pub object: ObjectInfo,
}

/// One backup set: what one run of duplicity stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSet {
    /// The set's place in [`super::Collection::sets`].
    pub index: SetIndex,
    /// Time of the set that this one is an increment to; `None` for a full set.
    pub start: Option<BackupTime>,
    /// Time of the set.
    pub time: BackupTime,
    /// The manifest; without one the set is incomplete.
    pub manifest: Option<ObjectInfo>,
    /// The signature archive; without one the tree has to be rebuilt from the volumes.
    pub signatures: Option<ObjectInfo>,
    /// The volumes that are there. Which should be there only the manifest knows.
    pub volumes: BTreeMap<VolumeNumber, ObjectInfo>,
    /// Doubles of the above.
    pub spares: Vec<Spare>,
    /// How most of the set's volumes (else its manifest) are packed, by name.
    pub packing: Packing,
}

impl BackupSet {
    /// Whether this is a full set.
    pub fn is_full(&self) -> bool {
        self.start.is_none()
    }

    /// Whether the set counts: its manifest, which is written last, is there (FORMAT.md section 7).
    pub fn is_complete(&self) -> bool {
        self.manifest.is_some()
    }

    /// The set's name in messages: `full 20170128T021500Z` or `inc 20170121T021500Z to 20170128T021500Z`.
    pub fn label(&self) -> String {
        label(self.start, self.time)
    }

    /// Bytes that the set's volumes, manifest and signature archive take in the store.
    pub fn stored_bytes(&self) -> u64 {
        self.objects().map(|object| object.size).fold(0, u64::saturating_add)
    }

    /// The set's objects, without its spares.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.manifest.iter().chain(&self.signatures).chain(self.volumes.values())
    }

    pub(super) fn key(&self) -> SetKey {
        SetKey { time: self.time, start: self.start }
    }
}

pub(super) fn label(start: Option<BackupTime>, time: BackupTime) -> String {
    match start {
        None => format!("full {time}"),
        Some(start) => format!("inc {start} to {time}"),
    }
}

/// The set at `index`.
pub(super) fn at(sets: &[BackupSet], index: SetIndex) -> Option<&BackupSet> {
    sets.get(usize::try_from(index.0).ok()?)
}

/// A signature archive and the times in its name.
#[derive(Clone, Debug)]
pub(super) struct NamedSignature {
    pub(super) key: SetKey,
    pub(super) name: Arc<str>,
}

/// What the names give, grouped.
#[derive(Debug)]
pub(super) struct Grouped {
    /// Sorted by key; indices are places.
    pub(super) sets: Vec<BackupSet>,
    /// All signature archives without their doubles, sorted by key.
    pub(super) signatures: Vec<NamedSignature>,
    /// Those that belong to no set.
    pub(super) stray_signatures: Vec<NamedSignature>,
}

/// An object with its parsed name.
pub(super) type Member<'a> = (ParsedName<'a>, &'a ObjectInfo);

/// A set's objects by what they are to it; several for one role are doubles.
type Roles<'a> = BTreeMap<Role, Vec<(Packing, &'a ObjectInfo)>>;

/// Groups `members` into sets.
pub(super) fn group(members: &[Member<'_>]) -> Grouped {
    let mut by_key: BTreeMap<SetKey, Roles<'_>> = BTreeMap::new();
    for (name, object) in members {
        by_key.entry(name.key).or_default().entry(name.role).or_default().push((name.packing, object));
    }
    let mut grouped = Grouped { sets: Vec::new(), signatures: Vec::new(), stray_signatures: Vec::new() };
    for (key, roles) in by_key {
        let only_signatures = roles.keys().all(|role| *role == Role::Signature);
        let index = SetIndex(u32::try_from(grouped.sets.len()).unwrap_or(u32::MAX));
        let set = assemble(index, key, roles);
        if let Some(object) = &set.signatures {
            let signature = NamedSignature { key, name: object.name.clone() };
            if only_signatures {
                grouped.stray_signatures.push(signature.clone());
            }
            grouped.signatures.push(signature);
        }
        if !only_signatures {
            debug_assert_eq!(set.key(), key);
            grouped.sets.push(set);
        }
    }
    grouped
}

fn assemble(index: SetIndex, key: SetKey, roles: Roles<'_>) -> BackupSet {
    let packing = usual_packing(&roles);
    let mut set = BackupSet {
        index,
        start: key.start,
        time: key.time,
        manifest: None,
        signatures: None,
        volumes: BTreeMap::new(),
        spares: Vec::new(),
        packing,
    };
    for (role, mut objects) in roles {
        // Of doubles the one packed as the rest of the set: a leftover of other settings is the odd one. A manifest of
        // a gzip set has no suffix, so it ranks with its set only by being unencrypted.
        let odd = |p: Packing| (p != packing, is_encrypted(p) != is_encrypted(packing));
        objects.sort_by(|(p, a), (q, b)| (odd(*p), *p, &a.name).cmp(&(odd(*q), *q, &b.name)));
        let mut objects = objects.into_iter().map(|(_, object)| object.clone());
        let chosen = objects.next();
        match role {
            Role::Manifest => set.manifest = chosen,
            Role::Signature => set.signatures = chosen,
            Role::Volume(number) => set.volumes.extend(chosen.map(|object| (number, object))),
        }
        set.spares.extend(objects.map(|object| Spare { role, object }));
    }
    set
}

fn is_encrypted(packing: Packing) -> bool {
    matches!(packing, Packing::OpenPgp | Packing::Cms)
}

/// How most volumes are packed; without volumes the manifest, then the signature archive.
fn usual_packing(roles: &Roles<'_>) -> Packing {
    let mut counts: HashMap<Packing, usize> = HashMap::new();
    let volumes = roles.iter().filter(|(role, _)| matches!(role, Role::Volume(_)));
    for (packing, _) in volumes.flat_map(|(_, objects)| objects) {
        *counts.entry(*packing).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(packing, n)| (*n, std::cmp::Reverse(*packing)));
    let first = || roles.values().flatten().map(|(packing, _)| *packing).min();
    most.map(|(packing, _)| packing).or_else(first).unwrap_or(Packing::Plain)
}
