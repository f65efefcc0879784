//! `dupfs index`: loads the trees of all snapshots and finds all sizes, so that the index on disk has them.
//!
//! The deepest tree of each branch contains the others. Then each set's files without a known size are measured in stored order,
//! which fetches each volume once. A volume that cannot be read is not tried again for its other files.

mod index_args;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

pub use self::index_args::IndexArgs;
use super::call_limits::CallLimits;
use super::error::CliError;
use super::exit::CommandExit;
use super::fetch_progress::FetchProgress;
use super::printer::Printer;
use super::quantities::counted;
use super::request_timeout::RequestTimeout;
use crate::vfs::{FileSystem, FsError, Ino, TreeFs};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::collection::Collection;
use dupfs_format::{ObjectInfo, VolumeId};
use dupfs_read::volume::Repository;

/// Upper bound of the failures that are printed.
const MAX_SHOWN: usize = 20;
/// The number of failures for which the store is the reason, one after the other, that ends the run.
const MAX_STORE_FAILURES: u32 = 3;

/// The options of `dupfs index`.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexOptions {
    /// Read the trees only.
    pub no_sizes: bool,
    /// Print the summary as JSON (docs/CLI.md).
    pub json: bool,
}

/// The summary; its keys are documented in docs/CLI.md.
#[derive(Clone, Debug, Default, Serialize)]
struct IndexSummary {
    url: String,
    /// True if all trees and, unless they were not requested, all sizes are in the index.
    complete: bool,
    interrupted: bool,
    snapshots: usize,
    paths: u64,
    /// Number of regular files that the sets store.
    files: usize,
    new_sizes: usize,
    /// Number of files whose size is not known in the end.
    unknown_sizes: usize,
    /// Number of those whose volumes are in cold storage.
    cold: usize,
    bytes_fetched: u64,
    failures: Vec<String>,
}

/// Builds the index of the repository that `fs` shows with all its snapshots. Loading a tree and finding a size may take
/// `timeout` each.
///
/// # Errors
/// [`CliError`] when there is no index to write, or the summary cannot be printed.
pub fn run(
    fs: &Arc<TreeFs>,
    options: IndexOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let repository = fs.repository();
    let Some(index) = repository.index().on_disk() else {
        let line = format!(
            "{}: the index on disk cannot be opened, for the reason in the log; give another --cache-dir",
            repository.url()
        );
        return Err(CliError::new(CommandExit::Failed, line));
    };
    let (limits, _watch) = CallLimits::until_signal(timeout)?;
    let collection = repository.collection();
    let summary = IndexSummary { url: repository.url().to_owned(), ..IndexSummary::default() };
    let mut run = IndexRun {
        fs,
        repository,
        collection: &collection,
        limits,
        printer,
        progress: FetchProgress::of_repository(repository),
        summary,
    };
    run.trees();
    run.sizes(options.no_sizes);
    let IndexRun { limits, mut summary, progress, .. } = run;
    drop(progress);
    let interrupted = limits.is_over();
    fs.finish();
    if index.is_off() {
        let line = format!(
            "{}: the index cannot be written, for the reason in the log; free space there, or give another --cache-dir",
            repository.url()
        );
        summary.failures.push(line.clone());
        printer.report(&CliError::new(CommandExit::Failed, line));
    }
    summary.paths = fs.stats().files;
    summary.bytes_fetched = repository.traffic().bytes;
    summary.interrupted = interrupted;
    let is_measured = options.no_sizes || summary.unknown_sizes == 0;
    summary.complete = !interrupted && summary.failures.is_empty() && is_measured;
    if options.json {
        printer.json(&summary, true)?;
        printer.text("\n")?;
    } else {
        printer.text(&summary.line())?;
    }
    let exit = printer.finish()?;
    Ok(if interrupted { CommandExit::Interrupted } else { exit })
}

impl IndexSummary {
    fn line(&self) -> String {
        let cold = if self.cold > 0 { format!(" ({} in cold storage)", self.cold) } else { String::new() };
        let end = if self.interrupted { "; interrupted: the same command continues" } else { "" };
        format!(
            "{}: {}, {} paths; sizes of {} files: {} new, {} unknown{cold}; {} bytes fetched{end}\n",
            self.url,
            counted(self.snapshots, "snapshot"),
            self.paths,
            self.files,
            self.new_sizes,
            self.unknown_sizes,
            self.bytes_fetched
        )
    }
}

/// The result of measuring a file.
enum Measured {
    Found,
    /// Its volumes are in cold storage.
    Cold,
    /// A volume of it was found to be unreadable before.
    Unreadable,
    Failed(FsError),
}

/// The state of a run.
struct IndexRun<'a, 'b> {
    fs: &'a Arc<TreeFs>,
    repository: &'a Arc<Repository>,
    collection: &'a Collection,
    limits: CallLimits,
    printer: &'a mut Printer<'b>,
    progress: FetchProgress,
    summary: IndexSummary,
}

impl IndexRun<'_, '_> {
    fn fail(&mut self, error: &FsError, line: String) {
        if self.limits.is_over() {
            return;
        }
        // A later failure counts, though it is not shown.
        if self.summary.failures.len() < MAX_SHOWN {
            let error = CliError::new(CommandExit::of_read(error.kind()), line.clone());
            self.printer.report(&error);
            self.summary.failures.push(line);
        }
    }

    /// Loads the trees of all snapshots.
    fn trees(&mut self) {
        let snapshots = self.collection.snapshots().iter().enumerate();
        let listed: Vec<_> = snapshots.filter(|(_, snapshot)| !self.collection.is_removed(snapshot.set)).collect();
        self.summary.snapshots = listed.len();
        let mut deepest: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (position, snapshot) in listed {
            let entry = deepest.entry(snapshot.branch).or_insert((snapshot.depth, position));
            *entry = (*entry).max((snapshot.depth, position));
        }
        let all = deepest.len();
        let sets = self.collection.sets().iter().filter(|set| !self.collection.is_removed(set.index));
        let archives = sets.map(|set| self.repository.signatures_len(set.index));
        let _phase = self.repository.expect_phase(archives.fold(0, u64::saturating_add));
        for (done, (_, position)) in deepest.into_values().enumerate() {
            if self.limits.is_over() {
                return;
            }
            self.progress.describe(format!("trees of chain {} of {all}, ", done + 1));
            if let Err(error) = self.fs.load_tree(position, &self.limits.start()) {
                self.fail(&error, error.to_string());
            }
        }
    }

    /// Finds the sizes that are not known, or counts them.
    fn sizes(&mut self, only_count: bool) {
        let mut files: Vec<Ino> = Vec::new();
        let snapshots = self.collection.snapshots().iter().enumerate();
        for (position, _) in snapshots.filter(|(_, snapshot)| !self.collection.is_removed(snapshot.set)) {
            // A tree that could not be loaded was reported.
            if let Ok((count, inodes)) = self.fs.unmeasured_files(position) {
                self.summary.files = self.summary.files.saturating_add(count);
                files.extend(inodes);
            }
        }
        self.summary.unknown_sizes = files.len();
        if only_count {
            return;
        }
        let files: Vec<_> = files.into_iter().map(|ino| (ino, self.last_volume(ino))).collect();
        let volumes: BTreeSet<VolumeId> = files.iter().filter_map(|(_, last)| last.as_ref().ok().copied()?).collect();
        let lens = volumes.iter().filter(|id| !self.is_indexed(**id)).map(|id| self.stored_len(*id));
        let _phase = self.repository.expect_phase(lens.fold(0, u64::saturating_add));
        let (mut unreadable, mut store_failures) = (BTreeSet::new(), 0);
        let all = files.len();
        for (done, (ino, last)) in files.into_iter().enumerate() {
            if self.limits.is_over() {
                break;
            }
            self.progress.describe(format!("size {} of {all}, ", done + 1));
            let measured = last.map_or_else(Measured::Failed, |last| self.measure(ino, last, &mut unreadable));
            match measured {
                Measured::Found => {
                    store_failures = 0;
                    self.summary.new_sizes = self.summary.new_sizes.saturating_add(1);
                    self.summary.unknown_sizes = self.summary.unknown_sizes.saturating_sub(1);
                }
                Measured::Cold => self.summary.cold = self.summary.cold.saturating_add(1),
                Measured::Unreadable => {}
                Measured::Failed(error) => {
                    let (path, text) = (self.fs.path(ino).unwrap_or_default(), error.to_string());
                    let line = match path.split_once('/') {
                        Some((snapshot, path)) if text.starts_with(path) => format!("{snapshot}/{text}"),
                        _ => format!("{path}: {text}"),
                    };
                    self.fail(&error, line);
                    let is_of_store = error.kind().is_transient() || error.kind() == ErrorKind::Denied;
                    store_failures = if is_of_store { store_failures + 1 } else { 0 };
                    if store_failures >= MAX_STORE_FAILURES {
                        break;
                    }
                }
            }
        }
        if self.summary.cold > 0 {
            let files = counted(self.summary.cold, "size");
            let url = self.repository.url();
            log::warn!("{url}: {files} not found: the volumes are in cold storage");
        }
    }

    /// The volume with the end of a file, which has its size.
    fn last_volume(&self, ino: Ino) -> Result<Option<VolumeId>, FsError> {
        Ok(self.fs.needed_volumes(ino, &self.limits.start())?.certain.last().copied())
    }

    fn measure(&self, ino: Ino, last: Option<VolumeId>, unreadable: &mut BTreeSet<VolumeId>) -> Measured {
        if last.is_some_and(|id| unreadable.contains(&id)) {
            return Measured::Unreadable;
        }
        if last.is_some_and(|id| self.is_cold(id)) {
            return Measured::Cold;
        }
        match self.fs.getattr(ino, &self.limits.start()) {
            Ok(_) => Measured::Found,
            Err(error) if error.kind() == ErrorKind::Archived => Measured::Cold,
            Err(error) => {
                // The file may be damaged in a volume that is whole.
                unreadable.extend(last.filter(|id| !error.kind().is_transient() && !self.is_indexed(*id)));
                Measured::Failed(error)
            }
        }
    }

    fn is_indexed(&self, id: VolumeId) -> bool {
        self.repository.has_members(id, &self.limits.start()).unwrap_or_default()
    }

    fn is_cold(&self, id: VolumeId) -> bool {
        self.object(id, |object| object.archived.is_some()).unwrap_or_default() && !self.is_indexed(id)
    }

    fn stored_len(&self, id: VolumeId) -> u64 {
        self.object(id, |object| object.size).unwrap_or_default()
    }

    fn object<T>(&self, id: VolumeId, of: impl Fn(&ObjectInfo) -> T) -> Option<T> {
        self.repository.set(id.set).ok()?.volumes.get(&id.number).map(of)
    }
}
