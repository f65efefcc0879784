//! `dupfs verify`: reads every object of a backup, and reports all that is damaged.
//!
//! The volumes of a set are read in order, some of them ahead. Its signature archive is read last, and compared with the
//! files in the volumes. A file that looks wrong is read at each snapshot that may show it: only a file that cannot be
//! read is damage. With [`VerifyOptions::deep`] each version of each file is read, and compared with the block sums of
//! its signature.
//!
//! An interrupted run can be continued ([`VerifyOptions::resume`]) if the repository was opened with an index for it.

mod affected_snapshots;
mod resumed_run;
mod verify_progress;
mod verify_report;
mod volume_sample;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use self::affected_snapshots::AffectedSnapshots;
use self::resumed_run::{ProvedFiles, ResumedRun};
pub use self::resumed_run::{outdated_index, remove_record};
use self::verify_progress::VerifyProgress;
use self::verify_report::{Finding, SnapshotNames, VerifyReport};
pub use self::volume_sample::{SampleOptions, parse_percent};
use super::call_limits::CallLimits;
use super::error::CliError;
use super::exit::CommandExit;
use super::file_chunks::FileChunks;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::undescribed_volumes::undescribed;
use crate::vfs::{FileSystem, FsError, Ino, ROOT_INO, TreeFs};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::collection::{BackupSet, Collection, Problem, ProblemKind};
use dupfs_format::manifest::Manifest;
use dupfs_format::{ArchivePath, BackupTime, ObjectInfo, SetIndex, VolumeId, VolumeNumber};
use dupfs_read::volume::{MemberTable, PathList, Repository, SetComparison, VolumeError};

/// Volumes that are read at the same time.
const READERS: usize = 3;

/// The options of a verification.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Only the sets that the snapshot of this time is made of.
    pub time: Option<BackupTime>,
    /// Compare the content of each version of each file with its signature.
    pub deep: bool,
    /// Only a sample of the volumes.
    pub sample: Option<SampleOptions>,
    /// Continue the run that the index of the repository records, and record this one.
    pub resume: bool,
    /// Print the report as JSON (docs/CLI.md).
    pub json: bool,
}

/// The end of a verification.
#[derive(Clone, Copy, Debug)]
pub struct VerifyEnd {
    /// The exit code.
    pub exit: CommandExit,
    /// True if every object was checked; damage does not matter.
    pub is_complete: bool,
}

impl VerifyOptions {
    /// The options that a run and the one that continues it have in common. `time` is the text of `--time`: that of `now` or `3D`
    /// stays the same, and its time does not.
    pub fn record_name(&self, time: Option<&str>) -> Vec<String> {
        let deep = self.deep.then(|| "--deep".to_owned());
        let time = time.map(|time| format!("--time={time}"));
        ["verify --resume".to_owned()].into_iter().chain(deep).chain(time).collect()
    }
}

/// Verifies the sets of `repository`, which `fs` shows with all its snapshots. Reading one object may take `timeout`.
///
/// # Errors
/// [`CliError`] when there is no such snapshot, or the report cannot be printed.
pub fn run(
    fs: &TreeFs,
    repository: &Arc<Repository>,
    options: VerifyOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<VerifyEnd, CliError> {
    let collection = repository.collection();
    let sets = chosen_sets(repository.url(), &collection, options.time)?;
    let (limits, _watch) = CallLimits::until_signal(timeout)?;
    let sample = options.sample.map(|sample| sample.choose(&sets));
    let is_read = |set: SetIndex, number| sample.as_ref().is_none_or(|sample| sample.contains(&(set, number)));
    let volumes = sets.iter().flat_map(|set| set.volumes.iter().map(|(number, object)| (set.index, *number, object)));
    let read = volumes.filter(|(set, number, _)| is_read(*set, *number));
    let progress = VerifyProgress::new(repository, read.map(|(_, _, object)| object), &sets);
    let only = options.time.map(|_| sets.as_slice());
    let mut report = VerifyReport::new(repository.url(), only, (options.deep, options.sample));
    let resumed = options.resume.then(|| ResumedRun::of(repository, BackupTime::now())).flatten();
    if options.resume && resumed.is_none() {
        log::warn!("--resume: the run cannot be recorded, and starts from the beginning");
    }
    report.resumed_since = resumed.as_ref().and_then(|resumed| resumed.since).map(|since| since.to_string());
    let deep = options.deep;
    let mut run = VerifyRun {
        fs,
        repository,
        collection: &collection,
        limits,
        deep,
        sample,
        resumed,
        progress,
        report,
        affected: None,
        roots: HashMap::new(),
    };
    run.listed_problems(options.time.is_some());
    run.log_unread_volumes(&sets);
    for set in &sets {
        if run.limits.is_over() {
            break;
        }
        run.set(set);
    }
    run.damaged_copies(&sets);
    let VerifyRun { limits, progress, mut report, .. } = run;
    // Its line disappears before the report is printed.
    drop(progress);
    let interrupted = limits.is_over();
    report.finish(interrupted, &sets);
    if options.json {
        printer.json(&report, true)?;
        printer.text("\n")?;
    } else {
        report.print(printer)?;
    }
    let exit = printer.finish()?.max(report.exit());
    Ok(VerifyEnd { exit: if interrupted { CommandExit::Interrupted } else { exit }, is_complete: report.is_complete() })
}

/// The sets to verify: those of one snapshot, or all that have a manifest.
fn chosen_sets(url: &str, collection: &Collection, time: Option<BackupTime>) -> Result<Vec<Arc<BackupSet>>, CliError> {
    let Some(time) = time else {
        let sets = collection.sets().iter().filter(|set| set.is_complete() && !collection.is_removed(set.index));
        return Ok(sets.cloned().collect());
    };
    let selected = collection.select(time);
    let snapshot = selected.map_err(|error| CliError::failed(error.kind(), format!("{url}: {error}")))?;
    Ok(snapshot.lineage().iter().filter_map(|set| collection.set(*set).cloned()).collect())
}

/// The content of a file that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadContent {
    /// It is the content that was signed.
    Signed,
    /// It is not the content that was signed.
    Other,
    /// It was not compared, or there is no signature to compare it with.
    Unproved,
}

/// The effect of reading a file at a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileOutcome {
    /// Its content is right or not known, or the snapshot does not have the file.
    Right,
    /// Its content is not the one that was signed.
    Differs,
    Failed,
}

impl FileOutcome {
    fn of(read: &Result<ReadContent, FsError>) -> Self {
        match read {
            Ok(ReadContent::Signed | ReadContent::Unproved) => Self::Right,
            Ok(ReadContent::Other) => Self::Differs,
            // It is deleted there, or no file.
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Right,
            Err(_) => Self::Failed,
        }
    }
}

/// The state of a run.
struct VerifyRun<'a> {
    fs: &'a TreeFs,
    repository: &'a Arc<Repository>,
    collection: &'a Collection,
    limits: CallLimits,
    deep: bool,
    /// The volumes to read; all without one.
    sample: Option<HashSet<(SetIndex, VolumeNumber)>>,
    /// The record of what an interrupted run has proved; `None` if nothing is recorded.
    resumed: Option<ResumedRun>,
    progress: VerifyProgress,
    report: VerifyReport,
    /// The snapshots that were needed last.
    affected: Option<AffectedSnapshots>,
    /// The inodes of the roots of snapshots.
    roots: HashMap<Arc<str>, Ino>,
}

impl VerifyRun<'_> {
    /// Adds the sets that no snapshot shows, because they have lost a manifest.
    fn listed_problems(&mut self, is_one_snapshot: bool) {
        // Reading the objects shows the others.
        let collection = self.collection;
        let problems = collection.problems().iter().filter(|problem| match problem.kind {
            ProblemKind::ManifestMissing => problem.set.is_some_and(|set| self.was_complete(set)),
            kind => kind == ProblemKind::Orphaned,
        });
        let problems: Vec<_> = problems.filter(|_| !is_one_snapshot).collect();
        for problem in problems {
            let set = problem.set.and_then(|set| collection.set(set));
            let mut finding = Finding::new(problem.kind.code(), set.map(|set| &**set), problem.message.clone());
            finding.object = problem.object.as_ref().map(ToString::to_string);
            self.report.add(finding);
        }
    }

    /// Adds the damaged copies of objects of `sets`, which were read from another store.
    fn damaged_copies(&mut self, sets: &[Arc<BackupSet>]) {
        let copies = self.repository.damaged_copies();
        if copies.is_empty() {
            return;
        }
        let objects = sets.iter().flat_map(|set| {
            let objects = set.volumes.values().chain(&set.manifest).chain(&set.signatures);
            objects.map(move |object| (Arc::clone(&object.name), set))
        });
        let sets: HashMap<_, _> = objects.collect();
        for copy in copies {
            let Some(set) = sets.get(&copy.object) else { continue };
            let finding = Finding::new("copy", Some(set), copy.message);
            let (object, paths) = (Some(copy.object.to_string()), Some(Vec::new()));
            let restorable = "everything: another store has a sound copy";
            self.report.add(Finding { object, paths, restorable, ..finding });
        }
    }

    /// Logs the volumes whose absence only the names show: those of sets whose volumes are not all read by their manifest.
    fn log_unread_volumes(&self, sets: &[Arc<BackupSet>]) {
        let is_read = |index: SetIndex| sets.iter().any(|set| set.index == index && !set.is_rebuilt);
        for set in self.collection.sets() {
            if self.sample.is_some() || !is_read(set.index) {
                self.log_missing_volumes(set.index);
            }
        }
    }

    /// Logs what the names show of the volumes of `set`.
    fn log_missing_volumes(&self, set: SetIndex) {
        let of_volumes = |kind| matches!(kind, ProblemKind::NoVolumes | ProblemKind::MissingVolumes);
        let problems = self.collection.problems().iter();
        problems.filter(|problem| problem.set == Some(set) && of_volumes(problem.kind)).for_each(Problem::log);
    }

    /// Returns true if `set`, which has no manifest, had one: duplicity writes it directly after the signature archive, and
    /// builds on complete sets only. Without it an upload was interrupted, or is still running, and nothing is lost.
    fn was_complete(&self, set: SetIndex) -> bool {
        let is_base = |time: BackupTime| self.collection.sets().iter().any(|other| other.start == Some(time));
        self.collection.set(set).is_some_and(|set| set.signatures.is_some() || is_base(set.time))
    }

    /// The snapshots that need `set`.
    fn affected(&mut self, set: SetIndex) -> &mut AffectedSnapshots {
        if self.affected.as_ref().is_none_or(|affected| affected.set != set) {
            self.affected = None;
        }
        let collection = self.collection;
        self.affected.get_or_insert_with(|| {
            let snapshots = collection.snapshots().iter().filter(|snapshot| snapshot.lineage().contains(&set));
            AffectedSnapshots { set, names: snapshots.map(|snapshot| snapshot.name.clone()).collect(), branches: None }
        })
    }

    /// The names of the snapshots that need `set`.
    fn snapshots_on(&mut self, set: SetIndex) -> SnapshotNames {
        Arc::clone(&self.affected(set).names)
    }

    /// The places of the snapshots that need `set` and may have a regular file at `path`, together where it has the same state:
    /// a path is not looked up in each of hundreds of snapshots.
    fn same_states(&mut self, set: SetIndex, path: &ArchivePath) -> Vec<Vec<usize>> {
        let (fs, context) = (self.fs, self.limits.start());
        self.affected(set).same_states(fs, path, &context)
    }

    /// Adds a failure to read an object of `set`, unless the user has ended the run. `is_key_known` is true if a key that has
    /// opened the manifest of the set must open the object. Returns the place of the finding in the report.
    fn failed(
        &mut self,
        (kind, set): (&'static str, &BackupSet),
        error: &VolumeError,
        is_key_known: bool,
        (object, restorable): (Option<&ObjectInfo>, &'static str),
    ) -> Option<usize> {
        if self.limits.is_over() {
            return None;
        }
        let exit = match error.kind() {
            ErrorKind::KeyMissing if is_key_known => CommandExit::Damage,
            ErrorKind::NotFound => CommandExit::Damage,
            kind => CommandExit::of(kind),
        };
        let snapshots = self.snapshots_on(set.index);
        let object = object.map(|object| object.name.to_string());
        let finding = Finding::new(kind, Some(set), error.to_string());
        self.report.add(Finding { exit, object, snapshots, restorable, ..finding })
    }

    fn set(&mut self, set: &Arc<BackupSet>) {
        let manifest = match self.repository.manifest(set.index, &self.limits.start()) {
            Ok(manifest) => manifest,
            Err(error) => {
                let left = "nothing of this set without its manifest; snapshots that do not need the set";
                self.failed(("manifest", set), &error, false, (set.manifest.as_ref(), left));
                if self.sample.is_none() {
                    self.log_missing_volumes(set.index);
                }
                let is_read = |number| self.sample.as_ref().is_none_or(|sample| sample.contains(&(set.index, number)));
                let volumes = set.volumes.iter().filter(|(number, _)| is_read(**number)).map(|(_, object)| object);
                self.progress.skip(volumes, set.signatures.as_ref());
                return;
            }
        };
        self.report.manifests = self.report.manifests.saturating_add(1);
        if set.is_rebuilt {
            let line = format!("{}: has lost its manifest, and is read as far as its signatures prove it", set.label());
            let snapshots = self.snapshots_on(set.index);
            let restorable = "what the signature archive proves";
            self.report.add(Finding { snapshots, restorable, ..Finding::new("manifest", Some(set), line) });
        }
        self.manifest_damage(set, &manifest);
        let mut comparison = SetComparison::new(self.repository, set, self.deep);
        let failed = self.volumes(set, &manifest, &mut comparison);
        if !self.limits.is_over() {
            self.signatures((set, &manifest), comparison, &failed);
        }
    }

    /// Adds the volumes that a damaged manifest has lost.
    fn manifest_damage(&mut self, set: &BackupSet, manifest: &Manifest) {
        let Some(damage) = manifest.entry_damage() else { return };
        let effect = undescribed(manifest).unwrap_or_else(|| "files may not be found in its volumes".to_owned());
        let object = set.manifest.as_ref().map(|object| object.name.to_string());
        let name = object.as_deref().unwrap_or("its manifest");
        let line = format!("{}: {name} is damaged: {damage}; {effect}", set.label());
        let snapshots = self.snapshots_on(set.index);
        let restorable = "what is in the volumes that the manifest describes";
        self.report.add(Finding { object, snapshots, restorable, ..Finding::new("manifest", Some(set), line) });
    }

    /// Reads the volumes of `manifest` in order. Returns the positions in the report of those that cannot be read.
    fn volumes(
        &mut self,
        set: &Arc<BackupSet>,
        manifest: &Manifest,
        comparison: &mut SetComparison,
    ) -> Vec<Option<usize>> {
        let (repository, limits) = (self.repository, self.limits.clone());
        let listed = &manifest.volumes;
        let sample = &self.sample;
        let is_read = |number: VolumeNumber| sample.as_ref().is_none_or(|sample| sample.contains(&(set.index, number)));
        let (mut chosen, mut before) = (Vec::new(), None);
        for volume in listed {
            if is_read(volume.number) {
                chosen.push((before, volume));
            } else {
                comparison.add_skipped_volume(before, &volume.end);
            }
            before = Some(&volume.end);
        }
        let listed = &chosen;
        // Before any of them is read in this run.
        let known: HashSet<VolumeNumber> = match &self.resumed {
            Some(resumed) => {
                let numbers = listed.iter().map(|(_, volume)| volume.number);
                let is_known = |number: &VolumeNumber| {
                    resumed.knows(VolumeId { set: set.index, number: *number }, &self.limits.start())
                };
                numbers.filter(is_known).collect()
            }
            None => HashSet::new(),
        };
        let mut failed = Vec::new();
        thread::scope(|scope| {
            let count = READERS.min(listed.len()).max(1);
            let start = |first: usize| -> Option<Receiver<Result<Arc<MemberTable>, VolumeError>>> {
                // A reader waits until its volume is taken before it reads the next one.
                let (sender, receiver) = sync_channel(0);
                let limits = &limits;
                let work = move || {
                    for (_, volume) in listed.iter().skip(first).step_by(count) {
                        let context = limits.start();
                        let id = VolumeId { set: set.index, number: volume.number };
                        let read = context.check().map_err(VolumeError::from);
                        if sender.send(read.and_then(|()| repository.members(id, &context))).is_err() {
                            return;
                        }
                    }
                };
                let spawned = thread::Builder::new().name("dupfs-verify".into()).spawn_scoped(scope, work);
                spawned.ok().map(|_| receiver)
            };
            let readers: Vec<_> = (0..count).map(start).collect();
            for (at, (before, volume)) in listed.iter().enumerate() {
                let id = VolumeId { set: set.index, number: volume.number };
                let read = match readers.get(at % count) {
                    Some(Some(reader)) => reader.recv().ok(),
                    _ => None,
                };
                // Without a thread it is read here.
                let read = read.unwrap_or_else(|| self.repository.members(id, &self.limits.start()));
                if self.limits.is_over() {
                    return;
                }
                let stored = set.volumes.get(&volume.number);
                self.progress.volume(stored);
                let added = read.and_then(|members| comparison.add_volume(volume.number, &members));
                let Err(error) = added else {
                    self.report.volumes = self.report.volumes.saturating_add(1);
                    self.report.known_volumes += u64::from(known.contains(&volume.number));
                    let size = stored.map_or(0, |object| object.size);
                    self.report.bytes = self.report.bytes.saturating_add(size);
                    continue;
                };
                let is_key_known = set.has_encrypted_manifest();
                let left = "all other paths, and these from snapshots that do not need this volume";
                failed.push(self.failed(("volume", set), &error, is_key_known, (stored, left)));
                comparison.add_lost_volume(*before, &volume.end);
            }
        });
        failed
    }

    /// Reads the signature archive of `set`, and names the files that are lost. `failed` has the places in the report of the
    /// volumes that were added to `comparison` as lost.
    fn signatures(
        &mut self,
        (set, manifest): (&Arc<BackupSet>, &Manifest),
        comparison: SetComparison,
        failed: &[Option<usize>],
    ) {
        let compared = comparison.compare(self.repository, set, &self.limits.start());
        self.progress.signatures(set.signatures.as_ref());
        let compared = match compared {
            Ok(compared) => compared,
            Err(error) => {
                let left =
                    "everything by dupfs, which reads the names in the volumes instead; duplicity leaves the set out";
                self.failed(("signatures", set), &error, set.has_encrypted_manifest(), (set.signatures.as_ref(), left));
                return;
            }
        };
        self.report.signature_archives = self.report.signature_archives.saturating_add(1);
        self.report.files = self.report.files.saturating_add(compared.files);
        for (index, paths) in failed.iter().zip(compared.lost) {
            self.report.set_paths(*index, &paths);
        }
        self.differing((set, manifest), &compared.differing, compared.difference);
        let lists = (compared.suspects, compared.others);
        let proved = self.proved_files(set, compared.files);
        let suspects = lists.0.into_iter().map(|(path, reason)| (path, Some(reason), None));
        let others = lists.1.iter().map(|(at, path)| (path, None, Some(at)));
        let mut left = suspects.len().saturating_add(lists.1.len());
        for (path, reason, at) in suspects.chain(others) {
            if self.limits.is_over() {
                return;
            }
            self.progress.files(left);
            left = left.saturating_sub(1);
            let recorded = at.zip(proved.as_ref());
            if recorded.is_some_and(|(at, proved)| proved.contains(at)) {
                self.report.proved = self.report.proved.saturating_add(1);
                self.report.known_proofs = self.report.known_proofs.saturating_add(1);
                continue;
            }
            let is_proved = self.file(set, &path, reason);
            if let (true, Some((at, proved)), Some(resumed)) = (is_proved, recorded, &self.resumed) {
                resumed.add_proved(proved, at);
            }
        }
        self.progress.end_files();
    }

    /// The files of `set` that an interrupted run has proved, of the `len` files in its signature archive.
    fn proved_files(&self, set: &BackupSet, len: u64) -> Option<ProvedFiles> {
        self.resumed.as_ref()?.proved_files(self.collection, set, len)
    }

    /// Adds the paths of `set` on which its volumes and its signature archive do not agree. They cannot in a set of one run; a
    /// run that was resumed while the source changed looks the same as an exchanged archive.
    fn differing(&mut self, (set, manifest): (&BackupSet, &Manifest), paths: &PathList, reason: Option<&'static str>) {
        let (Some(path), Some(reason)) = (paths.paths.first(), reason) else { return };
        let is_of_one_run = manifest.is_of_one_run() && !set.is_rebuilt;
        let cause = if is_of_one_run {
            "the archive is that of another set, or one of the two was changed"
        } else {
            "the backup was interrupted and resumed while the source changed, or the archive is that of another set"
        };
        let line = format!(
            "{}: its volumes and its signature archive do not agree on {} paths, the first is {path} ({reason}): {cause}",
            set.label(),
            paths.total()
        );
        let exit = if is_of_one_run { CommandExit::Damage } else { CommandExit::Done };
        let snapshots = self.snapshots_on(set.index);
        let restorable = "everything; duplicity restores the metadata in the volumes";
        let at = self.report.add(Finding { exit, snapshots, restorable, ..Finding::new("members", Some(set), line) });
        self.report.set_paths(at, paths);
    }

    /// Reads `path` at the snapshot of `set`, or if it is suspect at each that needs the set, and reports those at which it
    /// cannot be read or is not the content that was signed. Returns true if its content was proved to be that.
    fn file(&mut self, set: &BackupSet, path: &ArchivePath, suspicion: Option<&str>) -> bool {
        if suspicion.is_none() {
            let own = self.collection.snapshot_of(set.index).map(|snapshot| snapshot.name.clone());
            match own.map(|own| self.find_file(&own, path).and_then(|ino| self.read_file(ino))) {
                None => return false,
                Some(Ok(ReadContent::Signed)) => {
                    self.report.proved = self.report.proved.saturating_add(1);
                    return true;
                }
                Some(Ok(ReadContent::Unproved)) => return false,
                Some(Ok(ReadContent::Other) | Err(_)) => {}
            }
        }
        let names = self.snapshots_on(set.index);
        let (mut outcomes, mut failure) = (Vec::new(), None);
        for group in self.same_states(set.index, path) {
            let mut known = None;
            for place in group {
                let Some(snapshot) = names.get(place) else { continue };
                let outcome = match known {
                    Some(outcome) => outcome,
                    None => {
                        let read = self.find_file(snapshot, path).and_then(|ino| self.read_file(ino));
                        if self.limits.is_over() {
                            return false;
                        }
                        let outcome = FileOutcome::of(&read);
                        // Another attempt may succeed where this one met a failure of the store.
                        let is_final = !read.as_ref().is_err_and(|error| error.kind().is_transient());
                        known = is_final.then_some(outcome);
                        if let (FileOutcome::Failed, Err(error)) = (outcome, read) {
                            failure.get_or_insert(error);
                        }
                        outcome
                    }
                };
                outcomes.push((place, outcome));
            }
        }
        outcomes.sort_unstable_by_key(|(place, _)| *place);
        let of = |wanted: FileOutcome| -> SnapshotNames {
            let places = outcomes.iter().filter(|(_, outcome)| *outcome == wanted);
            places.filter_map(|(place, _)| names.get(*place).cloned()).collect()
        };
        let (failures, differing) = (of(FileOutcome::Failed), of(FileOutcome::Differs));
        if let Some(error) = failure {
            let text = error.to_string();
            let line = if text.contains(&path.to_string()) { text } else { format!("{path}: {text}") };
            let reason = suspicion.map_or_else(String::new, |reason| format!("{reason}: "));
            let line = format!("{}: {reason}{line}", set.label());
            let exit = CommandExit::of_read(error.kind());
            let restorable = "all other paths, and this one from other snapshots";
            let finding = Finding { exit, snapshots: failures, restorable, ..Finding::new("file", Some(set), line) };
            self.add_file(finding, path);
        }
        if !differing.is_empty() {
            let line = format!(
                "{}: {path}: its stored content is not the one that was signed: the backup was interrupted and resumed while \
                 the file changed, or the volume was made from another file",
                set.label()
            );
            let restorable = "all other paths; this one is not what it was at the time of the snapshot";
            let finding = Finding::new("content", Some(set), line);
            self.add_file(Finding { snapshots: differing, restorable, ..finding }, path);
        }
        false
    }

    /// Adds a finding about one file.
    fn add_file(&mut self, finding: Finding, path: &ArchivePath) {
        let at = self.report.add(finding);
        self.report.set_paths(at, &PathList { paths: vec![path.clone()], more: 0 });
    }

    /// The file at `path` of a snapshot.
    fn find_file(&mut self, snapshot: &Arc<str>, path: &ArchivePath) -> Result<Ino, FsError> {
        let look_up = |dir: Ino, name: &[u8]| Ok(self.fs.lookup(dir, name, &self.limits.start())?.ino);
        let root = match self.roots.get(snapshot) {
            Some(root) => *root,
            None => {
                let root = look_up(look_up(ROOT_INO, b"snapshots")?, snapshot.as_bytes())?;
                self.roots.insert(Arc::clone(snapshot), root);
                root
            }
        };
        path.components().try_fold(root, look_up)
    }

    /// Reads a file to its end. With `deep`, compares it with its signature.
    fn read_file(&self, ino: Ino) -> Result<ReadContent, FsError> {
        let signed = match self.deep {
            // A signature archive that cannot be read is reported as such.
            true => self.fs.signed_content(ino, &self.limits.start()).unwrap_or_default(),
            false => None,
        };
        let mut chunks = FileChunks::open(self.fs, ino, || self.limits.start())?;
        let Some(signed) = signed else {
            while let Some(bytes) = chunks.next()? {
                self.progress.compared(bytes.len());
            }
            return Ok(ReadContent::Unproved);
        };
        let block = usize::try_from(signed.block_len()).unwrap_or(usize::MAX).max(1);
        let (mut proof, mut pending) = (signed.begin_proof(), Vec::new());
        while let Some(bytes) = chunks.next()? {
            self.progress.compared(bytes.len());
            pending.extend_from_slice(&bytes);
            let whole = pending.len() / block * block;
            proof.take(pending.get(..whole).unwrap_or_default());
            pending.drain(..whole);
        }
        proof.take(&pending);
        Ok(if proof.holds() { ReadContent::Signed } else { ReadContent::Other })
    }
}
