//! What is wrong with a collection as far as names, sizes and storage classs tell, and what to do about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Collection;
use super::ranges;
use super::set::{self, BackupSet, NamedSignature, Packing, Role};
use crate::ObjectInfo;
use crate::{BackupTime, SetIndex};

/// How grave a problem is; the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Something that was backed up cannot be read.
    Error,
    /// All can be read, but slower, or not by duplicity, or not until something is done.
    Warning,
    /// Worth knowing.
    Note,
}

/// What kind of problem it is. The gravest come first, and of those what other problems follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProblemKind {
    /// A set without a manifest: not shown.
    ManifestMissing,
    /// An increment that leads back to no full set: not shown.
    Orphaned,
    /// A set with a manifest and no volume at all.
    NoVolumes,
    /// Numbers missing between the volumes of a set.
    VolumeGap,
    /// An object that is empty and cannot be.
    EmptyObject,
    /// A set encrypted with gpgsm.
    Unsupported,
    /// A set without its signature archive.
    SignatureMissing,
    /// A signature archive without its set.
    StraySignature,
    /// Two objects for one purpose in a set.
    Duplicate,
    /// Several sets with the same time.
    EqualTimes,
    /// An increment that is not younger than what it builds on.
    Backwards,
    /// Times that two chains cover.
    Overlap,
    /// A readable set that duplicity does not restore.
    Dropped,
    /// Objects in cold storage.
    Cold,
    /// Another backup in the same place.
    OtherBackup,
}

impl ProblemKind {
    /// A stable word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::ManifestMissing => "manifest-missing",
            Self::Orphaned => "orphaned",
            Self::NoVolumes => "no-volumes",
            Self::VolumeGap => "volume-gap",
            Self::EmptyObject => "empty-object",
            Self::Unsupported => "unsupported",
            Self::SignatureMissing => "signature-missing",
            Self::StraySignature => "stray-signature",
            Self::Duplicate => "duplicate",
            Self::EqualTimes => "equal-times",
            Self::Backwards => "backwards",
            Self::Overlap => "overlap",
            Self::Dropped => "dropped-by-duplicity",
            Self::Cold => "cold",
            Self::OtherBackup => "other-backup",
        }
    }

    /// How grave it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::ManifestMissing
            | Self::Orphaned
            | Self::NoVolumes
            | Self::VolumeGap
            | Self::EmptyObject
            | Self::Unsupported => Severity::Error,
            Self::SignatureMissing
            | Self::Duplicate
            | Self::EqualTimes
            | Self::Backwards
            | Self::Overlap
            | Self::Dropped
            | Self::Cold => Severity::Warning,
            Self::StraySignature | Self::OtherBackup => Severity::Note,
        }
    }
}

/// One problem, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How grave it is.
    pub severity: Severity,
    /// What kind it is.
    pub kind: ProblemKind,
    /// The set concerned.
    pub set: Option<SetIndex>,
    /// The object concerned, if it is one.
    pub object: Option<Arc<str>>,
    /// What it is, why it matters, what to do: one line.
    pub message: String,
}

impl Problem {
    /// Writes the problem to the log, at the level of its severity.
    pub fn log(&self) {
        match self.severity {
            Severity::Error => log::error!("{}", self.message),
            Severity::Warning => log::warn!("{}", self.message),
            Severity::Note => log::info!("{}", self.message),
        }
    }
}

/// Everything found, sorted by severity, then by set and kind.
pub(super) fn find(collection: &Collection, stray: &[NamedSignature]) -> Vec<Problem> {
    let mut found = Findings { collection, ends: ends(&collection.sets), problems: Vec::new() };
    for set in &collection.sets {
        found.in_set(set);
        found.in_volumes(set);
        found.in_objects(set);
        found.of_lineage(set);
    }
    found.dropped();
    found.overlaps();
    found.cold_volumes();
    for signature in stray {
        let label = set::label(signature.key.start, signature.key.time);
        found.add(
            ProblemKind::StraySignature,
            None,
            Some(&signature.name),
            format!(
                "{}: signature archive of a set that is not here ({label}); it is not used: its upload was interrupted, \
                 or its volumes and manifest were deleted",
                signature.name
            ),
        );
    }
    for other in &collection.others {
        let options = other.options.as_ref().map_or_else(String::new, |options| format!("; choose it with {options}"));
        found.add(
            ProblemKind::OtherBackup,
            None,
            None,
            format!("{} objects here belong to another backup, which is not shown{options}", other.objects),
        );
    }
    let mut problems = found.problems;
    problems.sort_by_key(|p| (p.severity, p.set.map_or(u32::MAX, |set| set.0), p.kind));
    problems
}

/// Sets by their time.
fn ends(sets: &[Arc<BackupSet>]) -> HashMap<BackupTime, Vec<&BackupSet>> {
    let mut ends: HashMap<BackupTime, Vec<&BackupSet>> = HashMap::new();
    for set in sets {
        ends.entry(set.time).or_default().push(set);
    }
    ends
}

struct Findings<'a> {
    collection: &'a Collection,
    ends: HashMap<BackupTime, Vec<&'a BackupSet>>,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    fn add(&mut self, kind: ProblemKind, set: Option<SetIndex>, object: Option<&Arc<str>>, message: String) {
        self.problems.push(Problem { severity: kind.severity(), kind, set, object: object.cloned(), message });
    }

    fn in_set(&mut self, set: &BackupSet) {
        let label = set.label();
        let index = Some(set.index);
        if set.packing == Packing::Cms {
            let message = format!(
                "{label}: encrypted with gpgsm (.p7m), which dupfs cannot read; restore it with duplicity 3 itself"
            );
            self.add(ProblemKind::Unsupported, index, None, message);
        }
        if set.manifest.is_none() {
            let message = format!(
                "{label}: no manifest beside its {}, so the set is not shown: its upload was interrupted or is still \
                 running, or the manifest was deleted; if the machine that was backed up has one in ~/.cache/duplicity, \
                 copy it here",
                counted(set.volumes.len(), "volume")
            );
            self.add(ProblemKind::ManifestMissing, index, None, message);
        }
        if set.manifest.is_some() && set.signatures.is_none() {
            let message = format!(
                "{label}: no signature archive, so its tree is rebuilt from all its volumes, which is slow; nothing is \
                 lost, but duplicity can neither list nor continue this set"
            );
            self.add(ProblemKind::SignatureMissing, index, None, message);
        }
        if set.start.is_some_and(|start| start >= set.time) {
            let message = format!(
                "{label}: not younger than the set it builds on: the clock of the machine was set back; it is shown under \
                 its own time"
            );
            self.add(ProblemKind::Backwards, index, None, message);
        }
        let same = self.ends.get(&set.time).map_or(0, Vec::len);
        let first =
            self.ends.get(&set.time).and_then(|sets| sets.first()).is_some_and(|first| first.index == set.index);
        if same > 1 && first {
            let message = format!(
                "{same} sets have the time {}: increments that build on that time are taken to continue the chain that \
                 duplicity would choose",
                set.time
            );
            self.add(ProblemKind::EqualTimes, index, None, message);
        }
    }

    fn in_volumes(&mut self, set: &BackupSet) {
        let label = set.label();
        if set.volumes.is_empty() {
            let message = format!(
                "{label}: a manifest but no volume, so no file stored in this set can be read: bring the volumes back from \
                 wherever they were moved"
            );
            self.add(ProblemKind::NoVolumes, Some(set.index), None, message);
            return;
        }
        let gaps = ranges::gaps(set.volumes.keys().copied());
        if !gaps.is_empty() {
            let message = format!(
                "{label}: {} missing; files stored there cannot be read, all others can: bring the objects back if they \
                 were moved",
                ranges::describe(&gaps)
            );
            self.add(ProblemKind::VolumeGap, Some(set.index), None, message);
        }
    }

    fn in_objects(&mut self, set: &BackupSet) {
        for (role, object) in roles(set) {
            // A plain volume or signature archive without entries has no byte, anything else has at least a header.
            let may_be_empty = set.packing == Packing::Plain && role != Role::Manifest;
            if object.size == 0 && !may_be_empty {
                let message = format!("{}: empty: its upload was interrupted; nothing in it can be read", object.name);
                self.add(ProblemKind::EmptyObject, Some(set.index), Some(&object.name), message);
            }
            if let (Some(class), false) = (&object.archived, matches!(role, Role::Volume(_))) {
                let lost = if role == Role::Manifest { "the set cannot be read" } else { "the tree cannot be listed" };
                let message =
                    format!("{}: in cold storage ({class}); {lost} until you restore the object", object.name);
                self.add(ProblemKind::Cold, Some(set.index), Some(&object.name), message);
            }
        }
        for spare in &set.spares {
            let used = match spare.role {
                Role::Manifest => set.manifest.as_ref(),
                Role::Signature => set.signatures.as_ref(),
                Role::Volume(number) => set.volumes.get(&number),
            };
            let message = format!(
                "{}: the same part of the set as {}, which is used; duplicity refuses such a directory: move the one away \
                 that is a leftover",
                spare.object.name,
                used.map_or("another object", |object| &*object.name)
            );
            self.add(ProblemKind::Duplicate, Some(set.index), Some(&spare.object.name), message);
        }
    }

    fn of_lineage(&mut self, set: &BackupSet) {
        let Some(start) = set.start else { return };
        if !set.is_complete() || self.collection.snapshot_of(set.index).is_some() {
            return;
        }
        let below = self.ends.get(&start).into_iter().flatten().find(|below| below.index != set.index);
        let why = match below {
            None => format!("a set of the time {start}, which is not here"),
            Some(below) if !below.is_complete() => format!("{}, which has no manifest", below.label()),
            Some(below) => format!("{}, which is orphaned itself", below.label()),
        };
        let message = format!(
            "{}: orphaned: it builds on {why}, so it is not shown; bring that set back to read this one",
            set.label()
        );
        self.add(ProblemKind::Orphaned, Some(set.index), None, message);
    }

    /// Sets that are shown although duplicity does not restore them.
    fn dropped(&mut self) {
        let chains = &self.collection.chains;
        let label = |index: SetIndex| self.collection.set(index).map_or_else(String::new, |set| set.label());
        let mut dropped = Vec::new();
        for replaced in &chains.replaced {
            let by = label(replaced.by);
            dropped.push((replaced.set, format!("it prefers {by}, made from the same base by a client that raced")));
        }
        let orphans = chains.orphaned.iter().filter(|index| self.collection.snapshot_of(**index).is_some());
        dropped.extend(orphans.map(|index| (*index, "what it builds on is not the end of a chain".to_owned())));
        dropped.extend(chains.discarded.map(|index| (index, "its signature archive is missing".to_owned())));
        let latest = self.collection.latest().map(|latest| latest.time);
        for (index, why) in dropped {
            let newer = self.collection.set(index).is_some_and(|set| latest.is_some_and(|latest| set.time > latest));
            let newer = if newer { "; it is newer than 'latest'" } else { "" };
            let message =
                format!("{}: duplicity does not restore this set ({why}); it is shown here{newer}", label(index));
            self.add(ProblemKind::Dropped, Some(index), None, message);
        }
    }

    /// Chains that overlap with one before them. One message for each, whatever the number it overlaps with.
    fn overlaps(&mut self) {
        let mut chains: Vec<_> = self.collection.chains.chains.iter().collect();
        chains.sort_by_key(|chain| (chain.start, chain.end));
        let mut longest: Option<&super::Chain> = None;
        for chain in chains {
            if let Some(before) = longest.filter(|before| before.end >= chain.start) {
                let message = format!(
                    "chains {} and {} overlap: duplicity refuses --time between {} and {}, and so does dupfs; choose from \
                     snapshots/ instead",
                    before.span(),
                    chain.span(),
                    chain.start,
                    chain.end.min(before.end)
                );
                self.add(ProblemKind::Overlap, chain.sets.first().copied(), None, message);
            }
            if longest.is_none_or(|before| chain.end > before.end) {
                longest = Some(chain);
            }
        }
    }

    fn cold_volumes(&mut self) {
        let mut cold: BTreeMap<&Arc<str>, (usize, u64)> = BTreeMap::new();
        let volumes = self.collection.sets.iter().flat_map(|set| set.volumes.values());
        for object in volumes {
            if let Some(class) = &object.archived {
                let (count, bytes) = cold.entry(class).or_default();
                *count += 1;
                *bytes = bytes.saturating_add(object.size);
            }
        }
        let cold: Vec<_> = cold.into_iter().map(|(class, sum)| (class.clone(), sum)).collect();
        for (class, (count, bytes)) in cold {
            let message = format!(
                "{} ({bytes} bytes) in cold storage ({class}): files there give 'Object is remote' until you restore the \
                 objects",
                counted(count, "volume")
            );
            self.add(ProblemKind::Cold, None, None, message);
        }
    }
}

fn roles(set: &BackupSet) -> impl Iterator<Item = (Role, &ObjectInfo)> {
    let manifest = set.manifest.iter().map(|object| (Role::Manifest, object));
    let signatures = set.signatures.iter().map(|object| (Role::Signature, object));
    let volumes = set.volumes.iter().map(|(number, object)| (Role::Volume(*number), object));
    manifest.chain(signatures).chain(volumes)
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
