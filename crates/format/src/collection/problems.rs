//! The problems of a collection, as far as names, sizes and storage classes show them, with their remedies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::chains::{Chain, Chains};
use super::choose::OtherBackup;
use super::protection::{self, ProtectionFindings};
use super::set::{self, BackupSet, NamedSignature, SetEncryption};
use super::set_list::{SetList, SetRenumbering};
use super::snapshots::SnapshotList;
use super::volume_ranges::{describe_ranges, missing_ranges};
use crate::name::{FileRole, NameSuffix, SetTimes};
use crate::{BackupTime, ObjectInfo, SetIndex};

/// The severity of a problem, the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Something that was backed up cannot be read.
    Error,
    /// Everything can be read, but slowly, or not by duplicity, or not until the user acts.
    Warning,
    /// Information without an effect on reading.
    Note,
}

/// The kind of a problem. The most severe come first, and causes come before their consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProblemKind {
    /// A set without a manifest: not shown.
    ManifestMissing,
    /// An increment that does not lead back to a full set: not shown.
    Orphaned,
    /// A set with a manifest and no volume at all.
    NoVolumes,
    /// Missing numbers between the volumes of a set.
    MissingVolumes,
    /// An empty object that must not be empty.
    EmptyObject,
    /// A set encrypted with gpgsm.
    Unsupported,
    /// A set without a manifest that is shown as far as its signature archive proves it.
    ManifestRebuilt,
    /// A set that is not encrypted, beside others that are.
    NotEncrypted,
    /// A set whose manifest lacks the required signature.
    NotSigned,
    /// A set without its signature archive.
    SignatureMissing,
    /// A signature archive without its set.
    StraySignature,
    /// Two objects with one role in a set.
    Duplicate,
    /// Several sets with the same time.
    EqualTimes,
    /// An increment that is not newer than its base.
    Backwards,
    /// Times that two chains cover.
    Overlap,
    /// A readable set that duplicity does not restore.
    Dropped,
    /// Objects in cold storage.
    Archived,
    /// Another backup in the same store.
    OtherBackup,
}

impl ProblemKind {
    /// Returns the stable identifier of the kind in machine-readable output.
    pub fn code(self) -> &'static str {
        match self {
            Self::ManifestMissing => "manifest-missing",
            Self::Orphaned => "orphaned",
            Self::NoVolumes => "no-volumes",
            Self::MissingVolumes => "volume-gap",
            Self::EmptyObject => "empty-object",
            Self::Unsupported => "unsupported",
            Self::ManifestRebuilt => "manifest-rebuilt",
            Self::NotEncrypted => "not-encrypted",
            Self::NotSigned => "not-signed",
            Self::SignatureMissing => "signature-missing",
            Self::StraySignature => "stray-signature",
            Self::Duplicate => "duplicate",
            Self::EqualTimes => "equal-times",
            Self::Backwards => "backwards",
            Self::Overlap => "overlap",
            Self::Dropped => "dropped-by-duplicity",
            Self::Archived => "cold",
            Self::OtherBackup => "other-backup",
        }
    }

    /// Returns the severity of problems of this kind.
    pub fn severity(self) -> Severity {
        match self {
            Self::ManifestMissing
            | Self::Orphaned
            | Self::NoVolumes
            | Self::MissingVolumes
            | Self::EmptyObject
            | Self::Unsupported => Severity::Error,
            Self::ManifestRebuilt
            | Self::NotEncrypted
            | Self::NotSigned
            | Self::SignatureMissing
            | Self::Duplicate
            | Self::EqualTimes
            | Self::Backwards
            | Self::Overlap
            | Self::Dropped
            | Self::Archived => Severity::Warning,
            Self::StraySignature | Self::OtherBackup => Severity::Note,
        }
    }
}

/// One problem, with a message of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The severity.
    pub severity: Severity,
    /// The kind.
    pub kind: ProblemKind,
    /// The affected set, if it is one.
    pub set: Option<SetIndex>,
    /// The affected object, if it is one.
    pub object: Option<Arc<str>>,
    /// The problem, its effect and its remedy, in one line.
    pub message: String,
}

impl Problem {
    /// Replaces the index of the affected set by that in `indices`.
    pub(super) fn renumber(&mut self, indices: &SetRenumbering) {
        self.set = self.set.and_then(|set| indices.get(set));
    }

    /// Writes the problem to the log, at the level of its severity.
    pub fn log(&self) {
        match self.severity {
            Severity::Error => log::error!("{}", self.message),
            Severity::Warning => log::warn!("{}", self.message),
            Severity::Note => log::info!("{}", self.message),
        }
    }
}

/// The facts about a collection that problems follow from.
pub(super) struct CollectionFacts<'a> {
    pub(super) sets: &'a SetList,
    pub(super) chains: &'a Chains,
    pub(super) snapshots: &'a SnapshotList,
    pub(super) protection: &'a ProtectionFindings,
    /// The times of the sets that are left out because they are not encrypted.
    pub(super) refused: &'a BTreeSet<SetTimes>,
    pub(super) others: &'a [OtherBackup],
    pub(super) stray_signatures: &'a [NamedSignature],
}

/// Returns all problems, sorted by severity, then by set and kind.
pub(super) fn find_problems(facts: &CollectionFacts<'_>) -> Vec<Problem> {
    let mut finder = ProblemFinder { facts, sets_by_time: sets_by_time(facts.sets.all()), problems: Vec::new() };
    for set in facts.sets.iter() {
        finder.check_set(set);
        finder.check_volumes(set);
        finder.check_objects(set);
        finder.check_duplicates(set);
        finder.check_lineage(set);
        finder.check_volume_encryption(set);
    }
    finder.check_doubtful();
    finder.check_signers();
    finder.check_refused();
    finder.check_dropped();
    finder.check_overlaps();
    finder.check_archived_volumes();
    finder.check_stray_signatures();
    finder.check_other_backups();
    let mut problems = finder.problems;
    problems.sort_by_key(|p| (p.severity, p.set.map_or(u32::MAX, |set| set.0), p.kind));
    problems
}

/// Returns the sets by their time.
fn sets_by_time(sets: &[Arc<BackupSet>]) -> HashMap<BackupTime, Vec<&BackupSet>> {
    let mut by_time: HashMap<BackupTime, Vec<&BackupSet>> = HashMap::new();
    for set in sets {
        by_time.entry(set.time).or_default().push(set);
    }
    by_time
}

/// The checks of a collection, and the problems that they found.
struct ProblemFinder<'a> {
    facts: &'a CollectionFacts<'a>,
    sets_by_time: HashMap<BackupTime, Vec<&'a BackupSet>>,
    problems: Vec<Problem>,
}

impl ProblemFinder<'_> {
    fn add(&mut self, kind: ProblemKind, set: Option<SetIndex>, object: Option<&Arc<str>>, message: String) {
        self.problems.push(Problem { severity: kind.severity(), kind, set, object: object.cloned(), message });
    }

    fn check_set(&mut self, set: &BackupSet) {
        let label = set.label();
        let index = Some(set.index);
        if set.suffix == NameSuffix::Cms {
            let message =
                format!("{label}: encrypted with gpgsm (.p7m), which dupfs cannot read; restore it with duplicity 3");
            self.add(ProblemKind::Unsupported, index, None, message);
        }
        if set.is_rebuilt {
            let message = format!(
                "{label}: rebuilt without a manifest from the headers of its {}: a file is shown if its signature proves its \
                 whole content, and whether volumes after the last one are missing cannot be known",
                counted(set.volumes.len(), "volume")
            );
            self.add(ProblemKind::ManifestRebuilt, index, None, message);
        } else if set.manifest.is_none() {
            let remedy = match set.is_rebuildable() {
                true => ", or give --rebuild to read what its signature archive proves of its volumes",
                false => "",
            };
            let message = format!(
                "{label}: no manifest beside its {}, so the set is not shown: its upload was interrupted or is still \
                 running, or the manifest was deleted; if the machine that was backed up has one in \
                 ~/.cache/duplicity, copy it here{remedy}",
                counted(set.volumes.len(), "volume")
            );
            self.add(ProblemKind::ManifestMissing, index, None, message);
        }
        if set.manifest.is_some() && set.signatures.is_none() {
            let is_gapless = !set.volumes.is_empty() && missing_ranges(set.volumes.keys().copied()).is_empty();
            let effect = if is_gapless { "" } else { ", and names in missing volumes are unknown" };
            let message = format!(
                "{label}: no signature archive, so its tree is rebuilt from all its volumes, which is slow{effect}; \
                 duplicity can neither list nor continue this set"
            );
            self.add(ProblemKind::SignatureMissing, index, None, message);
        }
        if set.start.is_some_and(|start| start >= set.time) {
            let message = format!(
                "{label}: not newer than the set it builds on: the clock of the machine was set back; it is shown \
                 under its own time"
            );
            self.add(ProblemKind::Backwards, index, None, message);
        }
        let same_time = self.sets_by_time.get(&set.time).map_or(&[][..], Vec::as_slice);
        if same_time.len() > 1 && same_time.first().is_some_and(|first| first.index == set.index) {
            let message = format!(
                "{} sets have the time {}: increments to that time are assigned to the chain that duplicity would \
                 choose",
                same_time.len(),
                set.time
            );
            self.add(ProblemKind::EqualTimes, index, None, message);
        }
    }

    fn check_volumes(&mut self, set: &BackupSet) {
        let label = set.label();
        if set.volumes.is_empty() {
            let message = format!(
                "{label}: a manifest but no volume, so no file stored in this set can be read: bring the volumes \
                 back from wherever they were moved"
            );
            self.add(ProblemKind::NoVolumes, Some(set.index), None, message);
            return;
        }
        let missing = missing_ranges(set.volumes.keys().copied());
        if !missing.is_empty() {
            let message = format!(
                "{label}: {} missing; files stored there cannot be read, all others can: bring the objects back if \
                 they were moved",
                describe_ranges(&missing)
            );
            self.add(ProblemKind::MissingVolumes, Some(set.index), None, message);
        }
    }

    fn check_objects(&mut self, set: &BackupSet) {
        for (role, object) in objects_with_roles(set) {
            // A plain volume or signature archive without entries is empty. Every other object has at least a header.
            let may_be_empty = set.suffix == NameSuffix::None && role != FileRole::Manifest;
            if object.size == 0 && !may_be_empty {
                let message = format!("{}: empty: its upload was interrupted; nothing in it can be read", object.name);
                self.add(ProblemKind::EmptyObject, Some(set.index), Some(&object.name), message);
            }
            if let (Some(class), false) = (&object.archived, matches!(role, FileRole::Volume(_))) {
                let lost =
                    if role == FileRole::Manifest { "the set cannot be read" } else { "the tree cannot be listed" };
                let message =
                    format!("{}: in cold storage ({class}); {lost} until you restore the object", object.name);
                self.add(ProblemKind::Archived, Some(set.index), Some(&object.name), message);
            }
        }
    }

    fn check_duplicates(&mut self, set: &BackupSet) {
        for duplicate in &set.duplicates {
            let used = match duplicate.role {
                FileRole::Manifest => set.manifest.as_ref(),
                FileRole::Signature => set.signatures.as_ref(),
                FileRole::Volume(number) => set.volumes.get(&number),
            };
            let message = format!(
                "{}: has the same role in the set as {}, which is used; duplicity refuses such a directory: move \
                 away the one that is left over",
                duplicate.object.name,
                used.map_or("another object", |object| &*object.name)
            );
            self.add(ProblemKind::Duplicate, Some(set.index), Some(&duplicate.object.name), message);
        }
    }

    fn check_lineage(&mut self, set: &BackupSet) {
        let Some(start) = set.start else { return };
        if !set.is_complete() || self.facts.snapshots.of_set(set.index).is_some() {
            return;
        }
        let base = self.sets_by_time.get(&start).into_iter().flatten().find(|base| base.index != set.index);
        let reason = match base {
            None if self.facts.refused.iter().any(|times| times.end == start) => {
                format!("a set of the time {start}, which is not encrypted (--require-encryption)")
            }
            None => format!("a set of the time {start}, which is missing from the store"),
            Some(base) if !base.is_complete() => format!("{}, which has no manifest", base.label()),
            Some(base) if self.facts.snapshots.of_set(base.index).is_some() => {
                let message = format!(
                    "{}: not shown: more increments build on the same sets than any backup has; remove those that are not yours",
                    set.label()
                );
                return self.add(ProblemKind::Orphaned, Some(set.index), None, message);
            }
            Some(base) => format!("{}, which is orphaned itself", base.label()),
        };
        let message = format!(
            "{}: orphaned: it builds on {reason}, so it is not shown; bring that set back to read this one",
            set.label()
        );
        self.add(ProblemKind::Orphaned, Some(set.index), None, message);
    }

    /// Reports volumes that are not encrypted in a set whose manifest is.
    fn check_volume_encryption(&mut self, set: &BackupSet) {
        let is_plain = |object: &&ObjectInfo| !NameSuffix::of(&object.name).is_encrypted();
        let plain = set.volumes.values().filter(is_plain).count();
        if plain > 0 && set.is_protected() {
            let verb = if plain == 1 { "is" } else { "are" };
            let message = format!(
                "{}: {plain} of its {} {verb} not encrypted, though its manifest is: a run was resumed after encryption was turned \
                 on, or somebody added them; those whose hashes are in the manifest are read",
                set.label(),
                counted(set.volumes.len(), "volume")
            );
            self.add(ProblemKind::NotEncrypted, Some(set.index), None, message);
        }
    }

    /// Reports the doubtful sets in one line, or in two if some are part of encrypted snapshots only.
    fn check_doubtful(&mut self) {
        let protection = self.facts.protection;
        let sets = protection.doubtful.iter().filter_map(|set| self.facts.sets.get(*set));
        let sets = sets.filter(|set| set.refusal.is_none());
        let first = protection::first_encrypted(self.facts.sets);
        let (later, bases): (Vec<_>, Vec<_>) =
            sets.map(|set| &**set).partition(|set| first.is_some_and(|first| set.time >= first));
        let (latest, newest) = (self.snapshot_name(protection.latest), self.snapshot_name(protection.newest));
        let effect = if protection.latest == protection.newest {
            "use them only if you know who made them, or leave them out with --require-encryption".to_owned()
        } else {
            format!(
                "'latest' stays at {latest}; if encryption was turned off on purpose, read them with --time now or in \
                 snapshots/{newest}"
            )
        };
        if let Some(label) = spanned(&later) {
            let is_mixed = later.iter().any(|set| set.has_encrypted_objects());
            let what = match is_mixed {
                true => "not entirely encrypted",
                false => "not encrypted, although earlier sets here are",
            };
            let message =
                format!("{label}: {what}, so anyone who can write to this place could have made them; {effect}");
            self.add(ProblemKind::NotEncrypted, only(&later), None, message);
        }
        if let Some(label) = spanned(&bases) {
            let message = format!(
                "{label}: not encrypted, although encrypted sets build on it, so anyone who can write to this place could \
                 have replaced it; the next full backup ends this; --require-encryption leaves out what builds on it"
            );
            self.add(ProblemKind::NotEncrypted, only(&bases), None, message);
        }
    }

    /// Reports the sets whose manifests were refused, in one line with the reason for the newest.
    fn check_signers(&mut self) {
        let protection = self.facts.protection;
        let is_refused = |set: &&Arc<BackupSet>| set.refusal.is_some() && set.is_complete();
        let refused: Vec<&BackupSet> = self.facts.sets.iter().filter(is_refused).map(|set| &**set).collect();
        let (Some(label), Some(reason)) = (spanned(&refused), refused.last().and_then(|set| set.refusal.as_ref()))
        else {
            return;
        };
        let effect = if protection.latest == protection.newest {
            String::new()
        } else {
            let (latest, newest) = (self.snapshot_name(protection.latest), self.snapshot_name(protection.newest));
            format!("'latest' stays at {latest}, although snapshots/{newest} is newer; ")
        };
        let message = format!(
            "{label}: not proven to be made by the required signer, so anyone who can write to this place could have made \
             them; {effect}{reason}"
        );
        self.add(ProblemKind::NotSigned, only(&refused), None, message);
    }

    fn snapshot_name(&self, set: Option<SetIndex>) -> &str {
        set.and_then(|set| self.facts.snapshots.of_set(set)).map_or("none", |snapshot| &*snapshot.name)
    }

    fn check_refused(&mut self) {
        let refused = self.facts.refused;
        let (Some(first), Some(last)) = (refused.first(), refused.last()) else { return };
        let label = match refused.len() {
            1 => set::label(*first),
            n => format!("{n} backup sets from {} to {}", first.end, last.end),
        };
        let message = format!("{label}: not encrypted, so not shown (--require-encryption)");
        self.add(ProblemKind::NotEncrypted, None, None, message);
    }

    fn latest(&self) -> Option<&BackupSet> {
        self.facts.sets.get(self.facts.protection.latest?).map(|set| &**set)
    }

    /// Reports sets that are shown although duplicity does not restore them.
    fn check_dropped(&mut self) {
        let chains = self.facts.chains;
        let label = |index: SetIndex| self.facts.sets.get(index).map_or_else(String::new, |set| set.label());
        let mut dropped = Vec::new();
        for replaced in &chains.replaced {
            let by = label(replaced.by);
            dropped.push((replaced.set, format!("it prefers {by}, made from the same base by a client that raced")));
        }
        let orphans = chains.orphaned.iter().filter(|index| self.facts.snapshots.of_set(**index).is_some());
        dropped.extend(orphans.map(|index| (*index, "its base is not the end of a chain".to_owned())));
        dropped.extend(chains.discarded.map(|index| (index, "its signature archive is missing".to_owned())));
        for (index, reason) in dropped {
            let set = self.facts.sets.get(index);
            let newer = set.zip(self.latest()).is_some_and(|(set, latest)| set.time > latest.time);
            let newer = if newer { "; it is newer than 'latest'" } else { "" };
            let message =
                format!("{}: duplicity does not restore this set ({reason}); it is shown here{newer}", label(index));
            self.add(ProblemKind::Dropped, Some(index), None, message);
        }
    }

    /// Reports chains that overlap with an earlier one, with one message for each.
    fn check_overlaps(&mut self) {
        let mut chains: Vec<_> = self.facts.chains.chains.iter().collect();
        chains.sort_by_key(|chain| (chain.start, chain.end));
        let mut longest: Option<&Chain> = None;
        for chain in chains {
            if let Some(before) = longest.filter(|before| before.end >= chain.start) {
                let message = format!(
                    "chains {} and {} overlap: duplicity refuses --time between {} and {}, and so does dupfs; choose \
                     from snapshots/ instead",
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

    fn check_archived_volumes(&mut self) {
        let mut by_class: BTreeMap<&Arc<str>, (usize, u64)> = BTreeMap::new();
        let volumes = self.facts.sets.iter().flat_map(|set| set.volumes.values());
        for object in volumes {
            if let Some(class) = &object.archived {
                let (count, bytes) = by_class.entry(class).or_default();
                *count += 1;
                *bytes = bytes.saturating_add(object.size);
            }
        }
        for (class, (count, bytes)) in by_class {
            let message = format!(
                "{} ({bytes} bytes) in cold storage ({class}): files there give 'Object is remote' until you restore \
                 the objects",
                counted(count, "volume")
            );
            self.add(ProblemKind::Archived, None, None, message);
        }
    }

    fn check_stray_signatures(&mut self) {
        for signature in self.facts.stray_signatures {
            let message = format!(
                "{}: signature archive of a set that is missing from the store ({}); it is not used: its upload was interrupted, \
                 or its volumes and manifest were deleted",
                signature.name,
                set::label(signature.times)
            );
            self.add(ProblemKind::StraySignature, None, Some(&signature.name), message);
        }
    }

    fn check_other_backups(&mut self) {
        for other in self.facts.others {
            let options =
                other.options.as_ref().map_or_else(String::new, |options| format!("; choose it with {options}"));
            let message =
                format!("{} objects here belong to another backup, which is not shown{options}", other.objects);
            self.add(ProblemKind::OtherBackup, None, None, message);
        }
        let is_plain = self.facts.sets.iter().all(|set| set.encryption() == SetEncryption::None);
        if let Some(other) = self.facts.others.iter().find(|other| other.encrypted && is_plain) {
            let options =
                other.options.as_ref().map_or_else(String::new, |options| format!("; choose that one with {options}"));
            let message = format!(
                "this backup is not encrypted, but another one in this place is, so anyone who can write to this place \
                 could have added this one{options}"
            );
            self.add(ProblemKind::NotEncrypted, None, None, message);
        }
    }
}

/// Returns the objects of a set with their roles.
fn objects_with_roles(set: &BackupSet) -> impl Iterator<Item = (FileRole, &ObjectInfo)> {
    let manifest = set.manifest.iter().map(|object| (FileRole::Manifest, object));
    let signatures = set.signatures.iter().map(|object| (FileRole::Signature, object));
    let volumes = set.volumes.iter().map(|(number, object)| (FileRole::Volume(*number), object));
    manifest.chain(signatures).chain(volumes)
}

/// Returns the name of the sets in a message, which are sorted by time. Returns `None` if there are none.
fn spanned(sets: &[&BackupSet]) -> Option<String> {
    let (first, last) = (sets.first()?, sets.last()?);
    Some(match sets.len() {
        1 => first.label(),
        n => format!("{n} backup sets from {} to {}", first.time, last.time),
    })
}

/// Returns the index of the set if there is only one.
fn only(sets: &[&BackupSet]) -> Option<SetIndex> {
    if let [set] = sets { Some(set.index) } else { None }
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
