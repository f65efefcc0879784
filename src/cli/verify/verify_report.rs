//! The report as data and as text. Keys of its JSON are stable (docs/CLI.md).

use std::collections::HashSet;
use std::sync::Arc;

use serde::Serialize;

use super::volume_sample::SampleOptions;
use crate::cli::attr_json::json_bytes;
use crate::cli::error::CliError;
use crate::cli::exit::CommandExit;
use crate::cli::logging::one_line;
use crate::cli::printer::Printer;
use dupfs_format::collection::BackupSet;
use dupfs_read::volume::PathList;

/// Paths and snapshots that the text names of each finding.
const SHOWN: usize = 5;
/// Upper bound of the findings that are listed: a small object can affect millions of files.
const MAX_FINDINGS: usize = 10_000;
/// Upper bound of the bytes of all listed paths.
const MAX_PATH_BYTES: usize = 32 << 20;
/// Upper bound of the bytes of all listed snapshots: each of many findings can affect all of many snapshots.
const MAX_SNAPSHOT_BYTES: usize = 16 << 20;
/// Upper bound of the bytes of the messages and the names of objects of all listed findings.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Names of snapshots.
pub(super) type SnapshotNames = Arc<[Arc<str>]>;

/// The report of `dupfs verify`. One field for each key of the JSON output.
#[derive(Debug, Serialize)]
pub(super) struct VerifyReport {
    url: String,
    /// True if everything was read: no interruption, and no object that could not be checked.
    complete: bool,
    interrupted: bool,
    /// True if it is complete and nothing is damaged.
    sound: bool,
    /// The time at which the interrupted run began that this one continues.
    pub(super) resumed_since: Option<String>,
    /// True if the content of files was compared with their signatures.
    deep: bool,
    /// The sample of volumes that was read.
    sample: Option<SampleOptions>,
    /// The times of the sets, if only those of one snapshot were read.
    only_sets: Option<Vec<String>>,
    /// Number of sets to verify.
    sets: usize,
    pub(super) manifests: u64,
    pub(super) signature_archives: u64,
    /// Number of volumes read, of all that the sets have in the store.
    pub(super) volumes: u64,
    /// Number of those that an interrupted run had read.
    pub(super) known_volumes: u64,
    pub(super) all_volumes: usize,
    /// Stored bytes of the volumes read.
    pub(super) bytes: u64,
    /// Number of regular files in the signature archives.
    pub(super) files: u64,
    /// Number of files whose content was proved to be the one that was signed.
    pub(super) proved: u64,
    /// Number of those that an interrupted run had proved.
    pub(super) known_proofs: u64,
    findings: Vec<Finding>,
    /// Number of findings behind those that are listed.
    more_findings: u64,
    /// The different lists of snapshots of the findings, which share them.
    #[serde(skip)]
    snapshot_lists: HashSet<SnapshotNames>,
    /// Bytes of the snapshots of all findings, also of those that share a list: each is printed.
    #[serde(skip)]
    snapshot_bytes: usize,
    /// Bytes of the messages and the names of objects.
    #[serde(skip)]
    text_bytes: usize,
    #[serde(skip)]
    counts: FindingCounts,
    /// Bytes of all listed paths.
    #[serde(skip)]
    path_bytes: usize,
}

/// The meaning of a finding.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Damaged,
    /// Nothing is lost.
    Note,
    /// It could not be checked.
    Unchecked,
}

impl Verdict {
    fn of(exit: CommandExit) -> Self {
        match exit {
            CommandExit::Damage => Self::Damaged,
            CommandExit::Done => Self::Note,
            CommandExit::Failed
            | CommandExit::Usage
            | CommandExit::NotFound
            | CommandExit::Denied
            | CommandExit::NoKey
            | CommandExit::Interrupted
            | CommandExit::Different => Self::Unchecked,
        }
    }
}

/// Numbers of all findings.
#[derive(Debug, Default)]
struct FindingCounts {
    damaged: u64,
    /// Objects that could not be checked.
    unchecked: u64,
    /// The exit code of all.
    exit: CommandExit,
}

impl FindingCounts {
    fn add(&mut self, exit: CommandExit) {
        match Verdict::of(exit) {
            Verdict::Note => {}
            Verdict::Damaged => self.damaged = self.damaged.saturating_add(1),
            Verdict::Unchecked => self.unchecked = self.unchecked.saturating_add(1),
        }
        self.exit = self.exit.max(exit);
    }
}

/// An object or a file that is damaged, or could not be checked.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) kind: &'static str,
    #[serde(rename = "damaged", serialize_with = "is_damage")]
    pub(super) exit: CommandExit,
    /// The time of the set.
    pub(super) set: Option<String>,
    pub(super) object: Option<String>,
    pub(super) message: String,
    /// The files that it affects; none if they are not known.
    pub(super) paths: Option<Vec<FindingPath>>,
    /// Number of files behind those that are listed.
    pub(super) more_paths: u64,
    #[serde(serialize_with = "names")]
    pub(super) snapshots: SnapshotNames,
    /// Number of snapshots behind those that are listed.
    pub(super) more_snapshots: u64,
    pub(super) restorable: &'static str,
}

/// A path that a finding affects.
#[derive(Debug, Serialize)]
pub(super) struct FindingPath {
    path: String,
    path_hex: Option<String>,
}

fn is_damage<S: serde::Serializer>(exit: &CommandExit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(*exit == CommandExit::Damage)
}

fn names<S: serde::Serializer>(names: &SnapshotNames, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(|name| &**name))
}

impl Finding {
    /// Damage of `set`, of which nothing is known but the message.
    pub(super) fn new(kind: &'static str, set: Option<&BackupSet>, message: String) -> Self {
        Self {
            kind,
            exit: CommandExit::Damage,
            set: set.map(|set| set.time.to_string()),
            object: None,
            message,
            paths: None,
            more_paths: 0,
            snapshots: Arc::default(),
            more_snapshots: 0,
            restorable: "",
        }
    }
}

impl VerifyReport {
    /// An empty report.
    pub(super) fn new(
        url: &str,
        only: Option<&[Arc<BackupSet>]>,
        (deep, sample): (bool, Option<SampleOptions>),
    ) -> Self {
        Self {
            url: url.to_owned(),
            complete: false,
            interrupted: false,
            sound: false,
            resumed_since: None,
            deep,
            sample,
            only_sets: only.map(|sets| sets.iter().map(|set| set.time.to_string()).collect()),
            sets: 0,
            manifests: 0,
            signature_archives: 0,
            volumes: 0,
            known_volumes: 0,
            all_volumes: 0,
            bytes: 0,
            files: 0,
            proved: 0,
            known_proofs: 0,
            findings: Vec::new(),
            more_findings: 0,
            snapshot_lists: HashSet::new(),
            snapshot_bytes: 0,
            text_bytes: 0,
            counts: FindingCounts::default(),
            path_bytes: 0,
        }
    }

    /// Adds a finding. Returns its place, or `None` if it is only counted.
    pub(super) fn add(&mut self, mut finding: Finding) -> Option<usize> {
        self.counts.add(finding.exit);
        let text = finding.message.len().saturating_add(finding.object.as_ref().map_or(0, String::len));
        let text = self.text_bytes.saturating_add(text);
        // Those that are listed are the first ones, also if a later one has a shorter text.
        if self.more_findings > 0 || self.findings.len() >= MAX_FINDINGS || text > MAX_TEXT_BYTES {
            self.more_findings = self.more_findings.saturating_add(1);
            return None;
        }
        self.text_bytes = text;
        self.list_snapshots(&mut finding);
        self.findings.push(finding);
        self.findings.len().checked_sub(1)
    }

    /// Leaves to `finding` the snapshots for which there is room, in a list that it shares with the others that affect them.
    fn list_snapshots(&mut self, finding: &mut Finding) {
        let mut listed = 0_usize;
        for name in finding.snapshots.iter() {
            let used = self.snapshot_bytes.saturating_add(name.len()).saturating_add(size_of::<Arc<str>>());
            if used > MAX_SNAPSHOT_BYTES {
                break;
            }
            self.snapshot_bytes = used;
            listed = listed.saturating_add(1);
        }
        let left = finding.snapshots.len().saturating_sub(listed);
        if left > 0 {
            finding.more_snapshots = left as u64;
            finding.snapshots = finding.snapshots.iter().take(listed).cloned().collect();
        }
        match self.snapshot_lists.get(&finding.snapshots) {
            Some(known) => finding.snapshots = Arc::clone(known),
            None => drop(self.snapshot_lists.insert(Arc::clone(&finding.snapshots))),
        }
    }

    /// Sets the paths that the finding at `index` affects.
    pub(super) fn set_paths(&mut self, index: Option<usize>, list: &PathList) {
        let Some(finding) = index.and_then(|index| self.findings.get_mut(index)) else { return };
        let mut listed = Vec::new();
        for path in &list.paths {
            let (path, path_hex) = json_bytes(path.as_bytes());
            let bytes = path.len().saturating_add(path_hex.as_ref().map_or(0, String::len));
            self.path_bytes = self.path_bytes.saturating_add(bytes).saturating_add(size_of::<FindingPath>());
            if self.path_bytes > MAX_PATH_BYTES {
                break;
            }
            listed.push(FindingPath { path, path_hex });
        }
        finding.more_paths = list.total().saturating_sub(listed.len() as u64);
        finding.paths = Some(listed);
    }

    /// Ends the report on `sets`.
    pub(super) fn finish(&mut self, interrupted: bool, sets: &[Arc<BackupSet>]) {
        self.sets = sets.len();
        self.all_volumes = sets.iter().map(|set| set.volumes.len()).sum();
        self.interrupted = interrupted;
        self.complete = !interrupted && self.counts.unchecked == 0;
        self.sound = self.complete && self.counts.damaged == 0;
    }

    /// Returns true if every object was checked.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The exit code of the findings.
    pub(super) fn exit(&self) -> CommandExit {
        self.counts.exit
    }

    /// Prints it as text.
    pub(super) fn print(&self, printer: &mut Printer<'_>) -> Result<(), CliError> {
        // Of these only the paths are names as they are stored; messages have them escaped already.
        for finding in &self.findings {
            let what = match Verdict::of(finding.exit) {
                Verdict::Damaged => "damaged",
                Verdict::Note => "note",
                Verdict::Unchecked => "not checked",
            };
            printer.text(&one_line(&format!("{what}: {}", finding.message)))?;
            match &finding.paths {
                Some(paths) => {
                    let names: Vec<_> = paths.iter().map(|path| path.path.as_str()).collect();
                    printer.text("\n  files: ")?;
                    printer.name(shown(&names, finding.more_paths).as_bytes())?;
                }
                None => printer.text("\n  files: not known")?,
            }
            printer.text(&format!("\n  snapshots: {}\n", shown(&finding.snapshots, finding.more_snapshots)))?;
            if !finding.restorable.is_empty() {
                printer.text(&format!("  can be restored: {}\n", finding.restorable))?;
            }
        }
        if self.more_findings > 0 {
            printer.text(&format!("... and {} more, which are not listed\n", self.more_findings))?;
        }
        printer.text(&format!("{}\n", self.summary()))
    }

    fn summary(&self) -> String {
        let FindingCounts { damaged, unchecked, .. } = self.counts;
        let end = match (self.interrupted, damaged, unchecked) {
            (true, _, _) => format!("interrupted; damaged so far: {damaged}"),
            (false, 0, 0) => "sound".to_owned(),
            (false, _, 0) => format!("damaged: {damaged}"),
            (false, _, _) => format!("damaged: {damaged}, not checked: {unchecked}"),
        };
        let end = match self.sample {
            Some(sample) => format!("{end} (a sample of {}%, --seed {})", sample.percent, sample.seed),
            None => end,
        };
        let end = match &self.resumed_since {
            Some(since) => format!(
                "{end} (continued from the run of {since}, which had read {} of these volumes and proved {} of these files)",
                self.known_volumes, self.known_proofs
            ),
            None => end,
        };
        let proved = if self.deep { format!(", {} of them proved", self.proved) } else { String::new() };
        format!(
            "{}: read {} of {} volumes ({} bytes), {} signature archives and {} manifests of {} sets, with {} files{proved}: {end}",
            self.url,
            self.volumes,
            self.all_volumes,
            self.bytes,
            self.signature_archives,
            self.manifests,
            self.sets,
            self.files
        )
    }
}

/// Some of `names`, and the number of the others. There are `unlisted` more.
fn shown<T: AsRef<str>>(names: &[T], unlisted: u64) -> String {
    if names.is_empty() {
        return if unlisted == 0 { "none".to_owned() } else { format!("{unlisted}, which are not listed") };
    }
    let first: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = (names.len().saturating_sub(first.len()) as u64).saturating_add(unlisted);
    let more = match (more, unlisted) {
        (0, _) => String::new(),
        (_, 0) => format!(" and {more} more (--json has all)"),
        _ => format!(" and {more} more (--json has the first {})", names.len()),
    };
    format!("{}{more}", first.join(", "))
}

#[cfg(test)]
mod tests;
