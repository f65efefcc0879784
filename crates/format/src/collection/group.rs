//! Groups the objects of a listing into backup sets, by the times in their names (docs/FORMAT.md section 1).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::set::{BackupSet, DuplicateObject, NamedSignature};
use crate::name::{FileName, FileRole, NameSuffix, SetTimes};
use crate::{ObjectInfo, SetIndex};

/// An object with its parsed name.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedObject<'a> {
    pub(super) name: FileName<'a>,
    pub(super) object: &'a ObjectInfo,
}

/// The objects of a listing, grouped.
#[derive(Debug, Default)]
pub(super) struct GroupedObjects {
    /// All sets, sorted by their times. The index of a set is its position.
    pub(super) sets: Vec<BackupSet>,
    /// All signature archives without duplicates, sorted by their times.
    pub(super) signatures: Vec<NamedSignature>,
    /// The signature archives that belong to no set.
    pub(super) stray_signatures: Vec<NamedSignature>,
}

impl GroupedObjects {
    /// Removes the sets whose manifests are not encrypted, and those without a manifest that count and are not protected.
    /// Returns their times.
    pub(super) fn refuse_unprotected(&mut self) -> BTreeSet<SetTimes> {
        let is_plain = |object: &ObjectInfo| !NameSuffix::of(&object.name).is_encrypted();
        let is_refused = |set: &BackupSet| match &set.manifest {
            Some(manifest) => is_plain(manifest),
            None => set.is_complete() && !set.is_protected(),
        };
        let refused: BTreeSet<SetTimes> =
            self.sets.extract_if(.., |set| is_refused(set)).map(|set| set.times()).collect();
        for (position, set) in self.sets.iter_mut().enumerate() {
            // There are no more sets than before.
            set.index = SetIndex::from_position(position).unwrap_or(set.index);
        }
        self.signatures.retain(|signature| !refused.contains(&signature.times));
        refused
    }
}

/// The objects of a set by role. Several objects with one role are duplicates.
type ObjectsByRole<'a> = BTreeMap<FileRole, Vec<(NameSuffix, &'a ObjectInfo)>>;

/// Groups `objects` into sets.
pub(super) fn group(objects: &[NamedObject<'_>]) -> GroupedObjects {
    let mut by_times: BTreeMap<SetTimes, ObjectsByRole<'_>> = BTreeMap::new();
    for NamedObject { name, object } in objects {
        by_times.entry(name.set).or_default().entry(name.role).or_default().push((name.suffix, object));
    }
    let mut grouped = GroupedObjects::default();
    for (times, by_role) in by_times {
        let has_only_signatures = by_role.keys().all(|role| *role == FileRole::Signature);
        // A listing in memory cannot have 2^32 sets.
        let Some(index) = SetIndex::from_position(grouped.sets.len()) else { break };
        let set = assemble(index, times, by_role);
        if let Some(object) = &set.signatures {
            let signature = NamedSignature { times, name: object.name.clone() };
            if has_only_signatures {
                grouped.stray_signatures.push(signature.clone());
            }
            grouped.signatures.push(signature);
        }
        if !has_only_signatures {
            grouped.sets.push(set);
        }
    }
    grouped
}

fn assemble(index: SetIndex, times: SetTimes, by_role: ObjectsByRole<'_>) -> BackupSet {
    let encrypted = is_encrypted(&by_role);
    let suffix = most_frequent_suffix(&by_role, encrypted);
    let mut set = BackupSet {
        index,
        start: times.start,
        time: times.end,
        manifest: None,
        is_rebuilt: false,
        refusal: None,
        signatures: None,
        volumes: BTreeMap::new(),
        duplicates: Vec::new(),
        suffix,
    };
    for (role, mut objects) in by_role {
        // Of duplicates, the one with the suffix of the set is chosen: an object with another suffix is probably left
        // over from other settings. The manifest of a gzip set has no suffix, so it first has to agree in being
        // encrypted. No number of planted objects makes a set count as not encrypted whose manifest is.
        let deviation = |own: NameSuffix| (own.is_encrypted() != encrypted, own != suffix);
        objects.sort_by(|(p, a), (q, b)| (deviation(*p), *p, &a.name).cmp(&(deviation(*q), *q, &b.name)));
        let mut objects = objects.into_iter().map(|(_, object)| object.clone());
        let chosen = objects.next();
        match role {
            FileRole::Manifest => set.manifest = chosen,
            FileRole::Signature => set.signatures = chosen,
            FileRole::Volume(number) => set.volumes.extend(chosen.map(|object| (number, object))),
        }
        set.duplicates.extend(objects.map(|object| DuplicateObject { role, object }));
    }
    set
}

/// Returns true if the set has an encrypted manifest. Without a manifest, if any object is encrypted.
fn is_encrypted(by_role: &ObjectsByRole<'_>) -> bool {
    let any = |objects: &Vec<(NameSuffix, &ObjectInfo)>| objects.iter().any(|(suffix, _)| suffix.is_encrypted());
    by_role.get(&FileRole::Manifest).map_or_else(|| by_role.values().any(any), any)
}

/// Returns the suffix of most volumes; those that are `encrypted` as the manifest is come first. Without volumes, that of
/// the manifest, then of the signature archive.
fn most_frequent_suffix(by_role: &ObjectsByRole<'_>, encrypted: bool) -> NameSuffix {
    let mut counts: HashMap<NameSuffix, usize> = HashMap::new();
    let volumes = by_role.iter().filter(|(role, _)| matches!(role, FileRole::Volume(_)));
    for (suffix, _) in volumes.flat_map(|(_, objects)| objects) {
        *counts.entry(*suffix).or_default() += 1;
    }
    let rank = |suffix: NameSuffix, count| (suffix.is_encrypted() == encrypted, count, Reverse(suffix));
    let most_frequent = counts.into_iter().max_by_key(|(suffix, count)| rank(*suffix, *count));
    let first = || by_role.values().flatten().map(|(suffix, _)| *suffix).min();
    most_frequent.map(|(suffix, _)| suffix).or_else(first).unwrap_or(NameSuffix::None)
}
