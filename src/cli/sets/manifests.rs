//! Reads all manifests, and finds the problems that they show.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::reported_problem::ReportedProblem;
use crate::cli::exit::CommandExit;
use crate::cli::request_timeout::RequestTimeout;
use crate::cli::undescribed_volumes::{first_undescribed, undescribed};
use dupfs_base::{ErrorKind, HasKind, escape_bytes};
use dupfs_format::VolumeNumber;
use dupfs_format::collection::{BackupSet, Collection, ProblemKind, Severity, describe_volumes};
use dupfs_format::manifest::{Manifest, ManifestProblemKind, VolumeHash};
use dupfs_format::name::NameSuffix;
use dupfs_read::codec::BackdatedObject;
use dupfs_read::volume::{Repository, VolumeError};

/// Manifests read at a time. Each needs a round trip to the store and, with a passphrase, a slow key derivation.
const READERS: usize = 8;
/// By set: its manifest, or the reason why it cannot be read; `None` for incomplete sets.
pub(super) type Manifests = Vec<Option<Result<ManifestSummary, VolumeError>>>;

/// The part of a manifest that is reported. There is not memory for all manifests at the same time.
pub(super) struct ManifestSummary {
    /// Number of volumes in it.
    pub(super) volumes: usize,
    /// The volumes that should be in the store and are not.
    pub(super) absent: Vec<VolumeNumber>,
    /// The volumes that are in the store and should not be.
    pub(super) unlisted: Vec<VolumeNumber>,
    /// The problems of its volumes, and its damage.
    problems: Vec<ReportedProblem>,
    /// The machine that was backed up.
    pub(super) hostname: Option<Box<[u8]>>,
    /// The directory that was backed up.
    pub(super) localdir: Option<Box<[u8]>>,
    /// Number of changed files.
    pub(super) changed_files: Option<u64>,
    /// The hash of the first volume of an encrypted set. Each is different, because each volume has a random session key.
    first_hash: Option<VolumeHash>,
}

impl ManifestSummary {
    fn of(set: &BackupSet, manifest: &Manifest) -> Self {
        let mut problems = of_volumes(set, manifest);
        problems.extend(damaged(set, manifest));
        Self {
            volumes: manifest.volumes.len(),
            absent: absent(set, manifest),
            unlisted: unlisted(set, manifest),
            problems,
            hostname: manifest.hostname.clone(),
            localdir: manifest.localdir.clone(),
            changed_files: manifest.changed_files,
            first_hash: manifest.volumes.first().filter(|_| set.suffix.is_encrypted()).and_then(|v| v.hash.clone()),
        }
    }
}

/// Reads the manifests of all complete sets, several at a time.
pub(super) fn read_all(repository: &Arc<Repository>, timeout: RequestTimeout) -> Manifests {
    let collection = repository.collection();
    let sets = collection.sets();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    // A rebuilt manifest would require reading all volumes, and gives no more than their names do.
    let stored = |set: &BackupSet| set.manifest.as_ref().filter(|_| !set.is_rebuilt).map(|object| object.size);
    let lens: Vec<u64> = sets.iter().filter_map(|set| stored(set)).collect();
    let expected = repository.expect_fetch(lens.iter().copied().fold(0, u64::saturating_add), lens.len());
    let work = || {
        while let Some((index, set)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            sets.get(index).map(|set| (index, set))
        } {
            if stored(set).is_some() {
                let manifest = repository.manifest(set.index, &timeout.start());
                let manifest = manifest.map(|manifest| ManifestSummary::of(set, &manifest));
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(index, manifest);
                expected.advance();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..READERS.min(sets.len()) {
            // Without a thread the others read them all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    (0..sets.len()).map(|index| found.remove(&index)).collect()
}

/// Done if every manifest was read or found damaged, else the reason why one could not be read.
pub(super) fn completeness(manifests: &Manifests) -> CommandExit {
    let failed = manifests.iter().filter_map(|m| m.as_ref()?.as_ref().err());
    let exits = failed.map(|error| match error.kind() {
        kind @ (ErrorKind::Denied
        | ErrorKind::KeyMissing
        | ErrorKind::Timeout
        | ErrorKind::OverLimit
        | ErrorKind::Io
        | ErrorKind::Cancelled
        | ErrorKind::WouldBlock) => CommandExit::of(kind),
        ErrorKind::NotFound
        | ErrorKind::Archived
        | ErrorKind::Corrupt
        | ErrorKind::Missing
        | ErrorKind::Unsupported
        | ErrorKind::Invalid => CommandExit::Done,
    });
    exits.max().unwrap_or(CommandExit::Done)
}

/// The problems of names and manifests together with those that were `checked`, the gravest first.
pub(super) fn problems(
    repository: &Repository,
    collection: &Collection,
    manifests: &Manifests,
    checked: Vec<ReportedProblem>,
) -> Vec<ReportedProblem> {
    let mut problems = checked;
    for problem in collection.problems() {
        // The manifest states facts that the numbers in the names only suggest.
        let of_volumes = matches!(problem.kind, ProblemKind::MissingVolumes | ProblemKind::NoVolumes);
        let index = problem.set.and_then(|set| usize::try_from(set.0).ok());
        let read = index.and_then(|index| manifests.get(index)).is_some_and(|m| matches!(m, Some(Ok(_))));
        if !(of_volumes && read) {
            problems.push(ReportedProblem::from(problem));
        }
    }
    problems.extend(unreadable(collection, manifests));
    for manifest in manifests.iter().flatten().flatten() {
        problems.extend(manifest.problems.iter().cloned());
    }
    problems.extend(moved_sources(collection, manifests));
    problems.extend(repeated(collection, manifests));
    problems.extend(backdated(repository, collection));
    problems.sort_by_key(|problem| (problem.rank(), problem.set.unwrap_or(u32::MAX)));
    problems
}

/// Manifests that could not be read. A reason that is not the manifest's own fault, such as a missing key, is reported
/// once for all manifests that have it.
fn unreadable(collection: &Collection, manifests: &Manifests) -> Vec<ReportedProblem> {
    let mut problems = Vec::new();
    let mut shared: Vec<SharedFailure> = Vec::new();
    for (set, manifest) in collection.sets().iter().zip(manifests) {
        let Some(Err(error)) = manifest else { continue };
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::NotFound | ErrorKind::Invalid => {
                let line = format!("{}: the manifest cannot be read: {error}", set.label());
                problems.push(ReportedProblem::new(Severity::Error, "manifest-unreadable", Some(set), line));
            }
            // The names have reported it.
            ErrorKind::Archived => {}
            ErrorKind::Unsupported if set.suffix == NameSuffix::Cms => {}
            ErrorKind::Unsupported => {
                let line = format!("{}: the manifest cannot be read: {error}", set.label());
                problems.push(ReportedProblem::new(Severity::Error, "manifest-unreadable", Some(set), line));
            }
            kind @ (ErrorKind::Denied
            | ErrorKind::KeyMissing
            | ErrorKind::Timeout
            | ErrorKind::OverLimit
            | ErrorKind::Io
            | ErrorKind::Cancelled
            | ErrorKind::WouldBlock) => {
                let reason = reason_of(error);
                let is_full = shared.len() >= MAX_SHARED_FAILURES;
                let is_known = |known: &&mut SharedFailure| known.reason == reason || (is_full && known.kind == kind);
                match shared.iter_mut().find(is_known) {
                    Some(known) => known.count += 1,
                    None => shared.push(SharedFailure { kind, reason, count: 1, first: error.to_string() }),
                }
            }
        }
    }
    problems.extend(shared.into_iter().map(|SharedFailure { count, first, .. }| {
        let many = if count == 1 { "1 manifest".to_owned() } else { format!("{count} manifests") };
        let line = format!("{many} could not be read, so nothing is known of their volumes; the first: {first}");
        ReportedProblem::unread(line)
    }));
    problems
}

/// Upper bound of the reasons that are reported apart: there may be as many as manifests.
const MAX_SHARED_FAILURES: usize = 16;

/// A reason for which several manifests could not be read.
struct SharedFailure {
    kind: ErrorKind,
    reason: String,
    count: usize,
    /// The error of the first of them.
    first: String,
}

/// The reason of `error` without the name of the manifest.
fn reason_of(error: &VolumeError) -> String {
    match error {
        VolumeError::Object { reason, .. } => reason.to_string(),
        other => other.to_string(),
    }
}

/// Volumes that the manifest lists and the store lacks, and the other way round.
fn of_volumes(set: &BackupSet, manifest: &Manifest) -> Vec<ReportedProblem> {
    let label = set.label();
    let mut problems = Vec::new();
    let absent = absent(set, manifest);
    if set.volumes.is_empty() && !absent.is_empty() {
        let line = format!(
            "{label}: {} in the store, so no file stored in this set can be read: bring the volumes back from wherever they \
             were moved",
            match absent.len() {
                1 => "its only volume is not".to_owned(),
                n => format!("none of its {n} volumes is"),
            }
        );
        problems.push(ReportedProblem::new(Severity::Error, "volume-missing", Some(set), line));
    } else if !absent.is_empty() {
        let line = format!(
            "{label}: {} in the manifest and not in the store; files stored there cannot be read, all others can: bring \
             the objects back",
            describe_volumes(absent)
        );
        problems.push(ReportedProblem::new(Severity::Error, "volume-missing", Some(set), line));
    }
    let unlisted = unlisted(set, manifest);
    if !unlisted.is_empty() {
        let line = format!(
            "{label}: {} in the store and not in the manifest: left over from an interrupted run, or the manifest has lost \
             entries; ignored",
            describe_volumes(unlisted)
        );
        problems.push(ReportedProblem::new(Severity::Note, "volume-unlisted", Some(set), line));
    }
    problems
}

/// The volumes that should be in the store and are not.
fn absent(set: &BackupSet, manifest: &Manifest) -> Vec<VolumeNumber> {
    let listed = manifest.volumes.iter().map(|volume| volume.number);
    listed.filter(|number| !set.volumes.contains_key(number)).collect()
}

/// The volumes that are in the store and should not be.
fn unlisted(set: &BackupSet, manifest: &Manifest) -> Vec<VolumeNumber> {
    let damaged = first_undescribed(manifest);
    let unknown = |number: &VolumeNumber| manifest.volume(*number).is_none() && damaged.binary_search(number).is_err();
    set.volumes.keys().copied().filter(unknown).collect()
}

/// The damage of a manifest: entries that are lost, ranges that overlap, a list of changed files that is cut.
fn damaged(set: &BackupSet, manifest: &Manifest) -> Option<ReportedProblem> {
    let object = set.manifest.as_ref().map_or("its manifest", |object| &*object.name);
    let lost = undescribed(manifest);
    let of_volumes = manifest.problems.iter().find(|problem| problem.kind != ManifestProblemKind::FileList);
    if lost.is_none() && of_volumes.is_none() {
        let problem = manifest.problems.first()?;
        let line = format!(
            "{}: {object}: {problem}; the list is informational only, and every file of the set can be read",
            set.label()
        );
        return Some(ReportedProblem::new(Severity::Note, "file-list", Some(set), line));
    }
    let effect = match (lost, of_volumes.map(|problem| problem.kind)) {
        (None, Some(ManifestProblemKind::Order(_))) => ", so files in these volumes may not be found".to_owned(),
        (None, _) => ", so files of the last volumes may not be found".to_owned(),
        (Some(lost), _) => format!("; {lost}, so files stored there cannot be read"),
    };
    let first = of_volumes.map_or_else(String::new, |problem| format!(": {problem}"));
    let line = format!(
        "{}: {object} is damaged{first}{effect}: copy it back from another replica, or from the archive directory of the \
         machine that was backed up",
        set.label()
    );
    Some(ReportedProblem::new(Severity::Error, "manifest-damaged", Some(set), line))
}

/// Chains whose increments were made from another machine or directory than their full set.
fn moved_sources(collection: &Collection, manifests: &Manifests) -> Vec<ReportedProblem> {
    let manifest = |index: &dupfs_format::SetIndex| {
        let position = usize::try_from(index.0).ok()?;
        let manifest = manifests.get(position)?.as_ref()?.as_ref().ok()?;
        Some((collection.set(*index)?, source(manifest)?))
    };
    let mut problems = Vec::new();
    for chain in &collection.chains().chains {
        let loaded: Vec<_> = chain.sets.iter().filter_map(manifest).collect();
        for (before, after) in loaded.iter().zip(loaded.iter().skip(1)) {
            if before.1 != after.1 {
                let line = format!(
                    "{}: made from {} where the set before it was made from {}",
                    after.0.label(),
                    after.1,
                    before.1
                );
                problems.push(ReportedProblem::new(Severity::Note, "source-changed", Some(after.0), line));
            }
        }
    }
    problems
}

/// Encrypted sets whose manifests list the volumes of an earlier set: one of the two manifests, or the whole set, is a copy.
fn repeated(collection: &Collection, manifests: &Manifests) -> Vec<ReportedProblem> {
    let mut first_with: HashMap<&[u8], &BackupSet> = HashMap::new();
    let mut problems = Vec::new();
    for (set, manifest) in collection.sets().iter().zip(manifests) {
        let Some(Ok(ManifestSummary { first_hash: Some(hash), .. })) = manifest else { continue };
        match first_with.entry(&hash.digest) {
            Entry::Vacant(entry) => drop(entry.insert(&**set)),
            Entry::Occupied(entry) => {
                let line = format!(
                    "{}: its manifest lists the volumes of {}: one of the two manifests was exchanged, or one of the sets is \
                     a copy of the other under another time",
                    set.label(),
                    entry.get().label()
                );
                problems.push(ReportedProblem::new(Severity::Error, "manifest-exchanged", Some(set), line));
            }
        }
    }
    problems
}

/// Sets whose manifests were written before the times in their names.
fn backdated(repository: &Repository, collection: &Collection) -> Vec<ReportedProblem> {
    let found = repository.backdated_objects().into_iter();
    let problem = |found: BackdatedObject| {
        let mut sets = collection.sets().iter();
        let set = sets.find(|set| set.objects().any(|object| object.name == found.object));
        let message = format!("{}: {}; use it only if you know why", found.object, found.finding());
        let problem = ReportedProblem::new(Severity::Warning, "backdated", set.map(|set| &**set), message);
        ReportedProblem { object: Some(found.object.to_string()), ..problem }
    };
    found.map(problem).collect()
}

/// `host:directory`, as far as the manifest has it.
pub(super) fn source(manifest: &ManifestSummary) -> Option<String> {
    let text = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map(|bytes| escape_bytes(bytes));
    match (text(&manifest.hostname), text(&manifest.localdir)) {
        (None, None) => None,
        (host, dir) => Some(format!("{}:{}", host.unwrap_or_default(), dir.unwrap_or_default())),
    }
}
