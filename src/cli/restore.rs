//! `dupfs restore`: writes a part of a snapshot to a directory, without FUSE.
//!
//! Everything is listed first, then the free space is checked, and then directories, objects and, last, the attributes of
//! directories are written. An object gets its name once it is complete. An existing object is kept if it is right: a
//! file if its block sums are those of its signature, for which no volume is fetched.

mod destination;
mod entry_list;
mod file_copy;
mod run_marker;
mod wanted_tree;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use self::destination::{AttributePolicy, Existing};
use self::entry_list::WantedEntry;
use self::file_copy::CopyError;
use self::run_marker::RunMarker;
use self::wanted_tree::{DESTINATION, ListedObject, WantedTree, planned_bytes};
use super::call_limits::CallLimits;
use super::error::CliError;
use super::exit::CommandExit;
use super::local_content::{is_same, is_signed};
use super::printer::Printer;
use super::progress_line::ProgressLine;
use super::quantities::counted;
use super::request_timeout::RequestTimeout;
use super::resolve::{self, LastLink};
use super::typed_path;
use crate::vfs::{Attr, FileSystem, NodeKind};
use dupfs_base::sync::lock;
use dupfs_base::{HasKind, io_reason};
use dupfs_format::ArchivePath;
use dupfs_read::volume::SignedContent;

/// Upper bound of the files that are written at the same time.
const MAX_WORKERS: usize = 4;
/// Interval at which the bytes that are written are counted for the line of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// An interrupted copy of a file is continued from this many bytes on. Shorter ones are quickly written again.
const MIN_CONTINUED: u64 = 16 << 20;
/// Upper bound of the results that wait to be counted.
const MAX_RESULTS: usize = 1024;
/// Upper bound of the failures in the JSON summary; all are on standard error.
const MAX_FAILURES: usize = 10_000;

/// The options of a restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Paths of the snapshot; none for all of it.
    pub paths: Vec<OsString>,
    /// The destination: the name of the object for at most one path, else a directory for all. It may be empty with `dry_run`.
    pub dest: PathBuf,
    /// Replace objects that differ.
    pub force: bool,
    /// Leave owners as they are.
    pub no_owner: bool,
    /// Start although the free space seems too small.
    pub ignore_space: bool,
    /// Only count what would be restored.
    pub dry_run: bool,
    /// Print the summary as JSON (docs/CLI.md).
    pub json: bool,
}

/// The summary of a restore; its keys are documented in docs/CLI.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct RestoreSummary {
    complete: bool,
    interrupted: bool,
    dry_run: bool,
    files: u64,
    directories: u64,
    others: u64,
    already_right: u64,
    bytes_written: u64,
    failures: Vec<String>,
    /// Number of failures behind those that are listed.
    more_failures: usize,
    /// Number of the failures that only `--force` helps against.
    #[serde(skip)]
    differing: usize,
}

/// The effect of restoring one object.
enum ObjectOutcome {
    Written {
        bytes: u64,
    },
    AlreadyRight,
    Failed(CliError),
    /// Another object has the name in the destination, and stays without `--force`.
    Differs(CliError),
    /// The destination is full: no other object can be written either.
    Full(CliError),
    Interrupted,
}

/// The result of restoring one object.
struct ObjectResult {
    /// Its kind; `None` if it was not found.
    kind: Option<NodeKind>,
    /// The bytes that it was expected to have.
    planned: u64,
    outcome: ObjectOutcome,
}

/// Restores from `fs`, which shows a snapshot or all of them. Reports objects that cannot be restored, and restores the others.
/// Each call of the file system may take `timeout`.
///
/// # Errors
/// [`CliError`] when nothing can be restored, or the summary cannot be printed.
pub fn run(
    fs: &dyn FileSystem,
    url: &str,
    options: &RestoreOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    refuse_path_as_destination(fs, options, timeout)?;
    let wanted = find(fs, &options.paths, timeout)?;
    let (limits, _watch) = CallLimits::until_signal(timeout)?;
    let policy = AttributePolicy { owners: !options.no_owner && rustix::process::geteuid().is_root() };
    let written = AtomicU64::new(0);
    let writer = ObjectWriter { fs, limits: &limits, policy, force: options.force, written: &written };
    let summary = RestoreSummary { dry_run: options.dry_run, ..RestoreSummary::default() };
    let mut run = RestoreRun { writer, summary };
    let what = describe(fs, url, &wanted);
    match wanted.as_slice() {
        _ if options.dry_run => run.count(&wanted, printer),
        [(attr, path)] if attr.kind != NodeKind::Dir => run.single(*attr, path, options, printer)?,
        _ => run.trees(&wanted, &what, options, printer)?,
    }
    let mut summary = run.summary;
    summary.interrupted = limits.is_over();
    summary.complete = !summary.interrupted && summary.failed() == 0;
    if options.json {
        printer.json(&summary, true)?;
        printer.text("\n")?;
    } else {
        // Without a destination, which `--dry-run` does not need, the numbers are those of the backup.
        let place = if options.dest.as_os_str().is_empty() { Path::new(url) } else { &options.dest };
        printer.text(&summary.line(place))?;
    }
    let exit = printer.finish()?;
    Ok(if summary.interrupted { CommandExit::Interrupted } else { exit })
}

impl ObjectResult {
    /// The result for an object that was not found again.
    fn unfound(outcome: ObjectOutcome) -> Self {
        Self { kind: None, planned: 0, outcome }
    }
}

impl RestoreSummary {
    /// The line about what was, or would be, restored to `dest`.
    fn line(&self, dest: &Path) -> String {
        let end = match (self.interrupted, self.failed()) {
            (true, _) => "; interrupted: the same command continues".to_owned(),
            (false, 0) => String::new(),
            (false, count) => format!("; {}: {}", counted(count, "failure"), self.remedy(count)),
        };
        let shown = dupfs_base::escape_bytes(dest.as_os_str().as_bytes());
        let most = if self.dry_run { "at most " } else { "" };
        let number = |n: u64, one: &str, several: &str| format!("{n} {}", if n == 1 { one } else { several });
        let objects = format!(
            "{} ({most}{}), {}, {}",
            number(self.files, "file", "files"),
            number(self.bytes_written, "byte", "bytes"),
            number(self.directories, "directory", "directories"),
            number(self.others, "other object", "other objects"),
        );
        if self.dry_run {
            return format!("{shown}: {objects} would be restored\n");
        }
        format!("{shown}: {objects} restored, {} already right{end}\n", self.already_right)
    }

    /// The remedy for `count` failures.
    fn remedy(&self, count: usize) -> String {
        match (self.differing, count.saturating_sub(self.differing)) {
            (0, 1) => "once its cause is removed, the same command tries again".to_owned(),
            (0, _) => "once their causes are removed, the same command tries again".to_owned(),
            (_, 0) => "--force replaces what differs".to_owned(),
            (differing, _) => format!(
                "--force replaces what differs ({differing}); for the others, once their causes are removed, the same command \
                 tries again"
            ),
        }
    }

    /// Adds a failure that only `--force` helps against.
    fn differs(&mut self, failure: &CliError, printer: &mut Printer<'_>) {
        self.differing = self.differing.saturating_add(1);
        self.fail(failure, printer);
    }

    /// The number of failures.
    fn failed(&self) -> usize {
        self.failures.len().saturating_add(self.more_failures)
    }

    fn fail(&mut self, failure: &CliError, printer: &mut Printer<'_>) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(failure.to_string());
        } else {
            self.more_failures = self.more_failures.saturating_add(1);
        }
        printer.report(failure);
    }
}

/// Refuses a destination alone that does not exist and is a path of the snapshot: the destination was forgotten, and the whole
/// snapshot would be written under the name of one of its files.
fn refuse_path_as_destination(
    fs: &dyn FileSystem,
    options: &RestoreOptions,
    timeout: RequestTimeout,
) -> Result<(), CliError> {
    let typed = options.dest.as_os_str();
    let is_of_machine = [&b"./"[..], b"../"].iter().any(|start| typed.as_bytes().starts_with(start));
    if !options.paths.is_empty() || typed.is_empty() || is_of_machine || options.dest.symlink_metadata().is_ok() {
        return Ok(());
    }
    let Ok((_, path)) = typed_path::find_reading(fs, typed, LastLink::Keep, timeout) else { return Ok(()) };
    if path.is_root() {
        return Ok(());
    }
    let shown = dupfs_base::escape_bytes(typed.as_bytes());
    Err(CliError::Usage(format!(
        "{shown} is a path of the snapshot, and no destination follows it: dupfs restore URL {shown} DEST; the whole snapshot \
         goes there with dupfs restore URL . {shown}"
    )))
}

/// The objects that the user names; the root without a name.
fn find(
    fs: &dyn FileSystem,
    paths: &[OsString],
    timeout: RequestTimeout,
) -> Result<Vec<(Attr, ArchivePath)>, CliError> {
    if paths.is_empty() {
        let root = typed_path::find(fs, OsStr::new(""), LastLink::Keep, timeout)?;
        return Ok(vec![root]);
    }
    let found: Vec<_> =
        paths.iter().map(|typed| typed_path::find(fs, typed, LastLink::Keep, timeout)).collect::<Result<_, _>>()?;
    if let Some((_, path)) = found.iter().find(|(_, path)| found.len() > 1 && wanted_tree::is_reserved(path)) {
        return Err(wanted_tree::reserved(path));
    }
    let mut names = BTreeSet::new();
    for (_, path) in found.iter().filter(|_| found.len() > 1) {
        if path.is_root() || !names.insert(path.name().to_vec()) {
            let line =
                format!("{path}: would have the same name in the destination as another path; restore it separately");
            return Err(CliError::Usage(line));
        }
    }
    Ok(found)
}

/// Identifies the restored objects: the same text means the same objects.
fn describe(fs: &dyn FileSystem, url: &str, wanted: &[(Attr, ArchivePath)]) -> String {
    let objects = wanted.iter().map(|(attr, path)| fs.path(attr.ino).unwrap_or_else(|| path.to_string()));
    format!("{} of {url}\n", objects.collect::<Vec<_>>().join(", "))
}

/// The failure to write `path`.
fn write_failed(path: &ArchivePath, error: &io::Error) -> CliError {
    let exit = destination::write_exit(error);
    let reason = match error.kind() {
        io::ErrorKind::AlreadyExists => "exists in the destination and differs; --force replaces it".to_owned(),
        io::ErrorKind::IsADirectory => "a directory of this name is in the way; remove it first".to_owned(),
        io::ErrorKind::PermissionDenied => format!("{}; run this as a user who may write there", io_reason(error)),
        _ if is_full(error) => {
            format!("{}, which ends the restore; free space there, and give the same command again", io_reason(error))
        }
        _ => io_reason(error).to_string(),
    };
    CliError::new(exit, format!("{path}: cannot be written: {reason}"))
}

/// Returns true if another object is in the way that `--force` replaces.
fn is_other(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The state of a run.
struct RestoreRun<'a> {
    writer: ObjectWriter<'a>,
    summary: RestoreSummary,
}

impl<'a> RestoreRun<'a> {
    /// Restores one object that is no directory, as the destination itself.
    fn single(
        &mut self,
        attr: Attr,
        path: &ArchivePath,
        options: &RestoreOptions,
        printer: &mut Printer<'_>,
    ) -> Result<(), CliError> {
        let dest = &options.dest;
        let shown = dupfs_base::escape_bytes(dest.as_os_str().as_bytes());
        let Some(name) = dest.file_name().filter(|_| !dest.is_dir()) else {
            let name = dest.join(OsStr::from_bytes(path.name()));
            let name = dupfs_base::escape_bytes(name.as_os_str().as_bytes());
            let line = format!("{shown}: is a directory; give the name that the file shall have, such as {name}");
            return Err(CliError::Usage(line));
        };
        if name.as_bytes().starts_with(wanted_tree::RESERVED_PREFIX.as_bytes()) {
            let line =
                format!("{shown}: dupfs restore uses names that begin with {} itself", wanted_tree::RESERVED_PREFIX);
            return Err(CliError::Usage(line));
        }
        let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = open_directory(parent).map_err(|error| destination::failed(parent, &error))?;
        // The lock of the directory itself excludes a second process from the temporary name.
        let lock = rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        if lock == Err(rustix::io::Errno::WOULDBLOCK) {
            let line = format!("{shown}: another dupfs restore is writing to this directory");
            return Err(CliError::new(CommandExit::Failed, line));
        }
        let ObjectWriter { fs, limits, .. } = self.writer;
        let mut tree = WantedTree::of_several(fs, limits, [(name.as_bytes().to_vec(), path.clone(), attr)]);
        self.list(&mut tree, printer);
        self.check_space(&tree, &dir, options)?;
        self.objects(&tree, &dir, &[], printer);
        Ok(())
    }

    /// Restores a directory as the destination itself, or several objects into the destination.
    fn trees(
        &mut self,
        wanted: &[(Attr, ArchivePath)],
        what: &str,
        options: &RestoreOptions,
        printer: &mut Printer<'_>,
    ) -> Result<(), CliError> {
        let ObjectWriter { limits, force, .. } = self.writer;
        let tree = self.wanted(wanted, printer);
        if limits.is_over() {
            return Ok(());
        }
        let dest = &options.dest;
        let is_made = match rustix::fs::mkdir(dest, rustix::fs::Mode::RWXU) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(destination::failed(dest, &error.into())),
        };
        let root = open_directory(dest).map_err(|error| destination::failed(dest, &error))?;
        let marker = RunMarker::claim(root.as_fd(), dest, what, force)?;
        if let Err(refusal) = self.check_space(&tree, &root, options) {
            marker.retract(root.as_fd());
            if is_made {
                // It stays if another process has written to it.
                let _ = rustix::fs::rmdir(dest);
            }
            return Err(refusal);
        }
        let failed = self.directories(&tree, &root, printer);
        self.objects(&tree, &root, &failed, printer);
        if limits.is_over() {
            return Ok(());
        }
        let count = u32::try_from(tree.dirs().len()).unwrap_or(u32::MAX);
        for dir in (DESTINATION.saturating_add(1)..count).rev().filter(|dir| !is_marked(&failed, *dir)) {
            self.directory_attributes(&tree, &mut DirCache::new(&tree, &root), dir, printer);
        }
        if self.summary.failed() == 0 {
            marker.remove(root.as_fd()).map_err(|error| destination::failed(dest, &error))?;
        }
        // The removal has changed it.
        self.directory_attributes(&tree, &mut DirCache::new(&tree, &root), DESTINATION, printer);
        Ok(())
    }

    /// Lists what is below the wanted objects.
    fn wanted(&mut self, wanted: &[(Attr, ArchivePath)], printer: &mut Printer<'_>) -> WantedTree<'a> {
        let ObjectWriter { fs, limits, .. } = self.writer;
        let mut tree = match wanted {
            [(attr, path)] if attr.kind == NodeKind::Dir => WantedTree::of_directory(fs, limits, *attr, path.clone()),
            several => {
                let named = several.iter().map(|(attr, path)| (path.name().to_vec(), path.clone(), *attr));
                WantedTree::of_several(fs, limits, named)
            }
        };
        self.list(&mut tree, printer);
        tree
    }

    /// Lists `tree`, and reports what cannot be listed.
    fn list(&mut self, tree: &mut WantedTree<'_>, printer: &mut Printer<'_>) {
        let printer = std::cell::RefCell::new(printer);
        let mut report = |failure| self.summary.fail(&failure, &mut printer.borrow_mut());
        tree.list(&mut report, &mut |counts| {
            let listed = counts.files.saturating_add(counts.directories).saturating_add(counts.others);
            printer.borrow_mut().working(|| format!("{listed} objects listed"));
        });
    }

    /// Counts what would be restored. Sizes that are not known exactly count as their upper bound.
    fn count(&mut self, wanted: &[(Attr, ArchivePath)], printer: &mut Printer<'_>) {
        let counts = self.wanted(wanted, printer).counts();
        self.summary.files = counts.files;
        self.summary.bytes_written = counts.bytes;
        self.summary.directories = counts.directories;
        self.summary.others = counts.others;
    }

    /// Refuses a destination with too little free space for the files that do not exist yet.
    fn check_space(&self, tree: &WantedTree<'_>, root: &OwnedFd, options: &RestoreOptions) -> Result<(), CliError> {
        if options.ignore_space {
            return Ok(());
        }
        let free = destination::free_bytes(root.as_fd()).map_err(|error| destination::failed(&options.dest, &error))?;
        if tree.counts().bytes <= free {
            return Ok(());
        }
        let mut dirs = DirCache::new(tree, root);
        let mut needed = 0u64;
        for entry in tree.objects().by_inode() {
            if self.writer.limits.is_over() {
                return Ok(());
            }
            // Restoring it reports the failure.
            let Ok(Some(object)) = tree.object(entry) else { continue };
            let planned = planned_bytes(&object.attr);
            let exists = planned > 0
                && dirs.of(entry).is_ok_and(|dir| {
                    matches!(destination::existing(dir.as_fd(), &object.name), Ok(Existing::File(_, size)) if size > 0)
                });
            needed = needed.saturating_add(if exists { 0 } else { planned });
        }
        if needed > free {
            let shown = dupfs_base::escape_bytes(options.dest.as_os_str().as_bytes());
            let line = format!(
                "{shown}: up to {needed} bytes are needed and {free} are free; choose another destination, or start anyway \
                 with --ignore-space (files with holes need less)"
            );
            return Err(CliError::new(CommandExit::Failed, line));
        }
        Ok(())
    }

    /// Creates the directories. Returns the marks of those that cannot be written to, by their numbers.
    fn directories(&mut self, tree: &WantedTree<'_>, root: &OwnedFd, printer: &mut Printer<'_>) -> Vec<bool> {
        let ObjectWriter { limits, force, .. } = self.writer;
        let count = u32::try_from(tree.dirs().len()).unwrap_or(u32::MAX);
        let mut failed = vec![false];
        let mut dirs = DirCache::new(tree, root);
        for number in DESTINATION.saturating_add(1)..count {
            let Some(entry) = tree.dirs().get(number).filter(|_| !limits.is_over()) else { break };
            if is_marked(&failed, entry.dir) {
                failed.push(true);
                continue;
            }
            let made = dirs.of(entry).and_then(|parent| {
                let name = tree.name(entry).map_err(|error| io::Error::other(error.to_string()))?;
                destination::make_dir(parent.as_fd(), &name, force)
            });
            failed.push(made.is_err());
            match made {
                // An existing one may not be writable for its owner.
                Ok(made) => {
                    let _ = rustix::fs::fchmod(&made, rustix::fs::Mode::RWXU);
                }
                // The name may not be readable either.
                Err(_) if limits.is_over() => {}
                Err(error) => {
                    let reason = if is_other(&error) { error.to_string() } else { io_reason(&error).to_string() };
                    let exit = destination::write_exit(&error);
                    let path = tree.path(entry);
                    let line = format!("{path}: this directory and everything below it is left out: {reason}");
                    let failure = CliError::new(exit, line);
                    match is_other(&error) {
                        true => self.summary.differs(&failure, printer),
                        false => self.summary.fail(&failure, printer),
                    }
                }
            }
        }
        failed
    }

    /// Writes all objects that are no directories, several at a time, in the order in which they are in the volumes of
    /// a full set, but for those in directories that have `failed`.
    fn objects(&mut self, tree: &WantedTree<'_>, root: &OwnedFd, failed: &[bool], printer: &mut Printer<'_>) {
        let count = tree.objects().len();
        let workers = thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_WORKERS).min(count);
        // Inodes are numbered in the order of the archives.
        let order = Mutex::new(tree.objects().by_inode().filter(|entry| !is_marked(failed, entry.dir)));
        let is_over = AtomicBool::new(false);
        let writer = self.writer;
        let (tx, rx) = sync_channel(MAX_RESULTS);
        let mut left = tree.counts().bytes;
        printer.show_own_line();
        let mut progress = ProgressLine::new(left);
        let mut done = 0usize;
        thread::scope(|scope| {
            for _ in 0..workers {
                let (tx, order, is_over): (SyncSender<_>, _, _) = (tx.clone(), &order, &is_over);
                scope.spawn(move || {
                    let mut dirs = DirCache::new(tree, root);
                    while !is_over.load(Ordering::Relaxed) && !writer.limits.is_over() {
                        let Some(entry) = lock(order).next() else { break };
                        let result = writer.restore(&mut dirs, entry);
                        if matches!(result.outcome, ObjectOutcome::Full(_)) {
                            is_over.store(true, Ordering::Relaxed);
                        }
                        if tx.send(result).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(tx);
            loop {
                let received = rx.recv_timeout(PROGRESS_INTERVAL);
                if let Ok(ObjectResult { planned, .. }) = &received {
                    done = done.saturating_add(1);
                    left = left.saturating_sub(*planned);
                    progress.describe(format!("{done} of {count} objects, "));
                }
                let written = writer.written.load(Ordering::Relaxed);
                progress.set(written, written.saturating_add(left));
                match received {
                    Ok(result) => self.add(result, printer),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        });
    }

    /// Adds the result of restoring an object to the summary.
    fn add(&mut self, result: ObjectResult, printer: &mut Printer<'_>) {
        match result.outcome {
            ObjectOutcome::Written { bytes } => {
                let is_file = result.kind == Some(NodeKind::File);
                let count = if is_file { &mut self.summary.files } else { &mut self.summary.others };
                *count = count.saturating_add(1);
                self.summary.bytes_written = self.summary.bytes_written.saturating_add(bytes);
            }
            ObjectOutcome::AlreadyRight => {
                self.summary.already_right = self.summary.already_right.saturating_add(1);
            }
            ObjectOutcome::Failed(failure) | ObjectOutcome::Full(failure) => self.summary.fail(&failure, printer),
            ObjectOutcome::Differs(failure) => self.summary.differs(&failure, printer),
            ObjectOutcome::Interrupted => {}
        }
    }

    /// Sets owner, mode and time of directory `number`.
    fn directory_attributes(
        &mut self,
        tree: &WantedTree<'_>,
        dirs: &mut DirCache<'_>,
        number: u32,
        printer: &mut Printer<'_>,
    ) {
        let Some(entry) = tree.dirs().get(number) else { return };
        let policy = self.writer.policy;
        let object = match tree.object(entry) {
            Ok(Some(object)) => object,
            Ok(None) => return,
            Err(error) => return self.summary.fail(&resolve::read_failed(&tree.path(entry), &error), printer),
        };
        let set = dirs.open(number).and_then(|dir| destination::set_attributes(dir.as_fd(), &object.attr, policy));
        match set {
            Ok(()) => self.summary.directories = self.summary.directories.saturating_add(1),
            Err(error) => self.summary.fail(&write_failed(&tree.path(entry), &error), printer),
        }
    }
}

/// Returns true if `number` is marked in `marks`.
fn is_marked(marks: &[bool], number: u32) -> bool {
    usize::try_from(number).is_ok_and(|number| marks.get(number) == Some(&true))
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// Opens directories of the destination, and keeps the one used last open: neighbours follow each other.
struct DirCache<'a> {
    tree: &'a WantedTree<'a>,
    root: &'a OwnedFd,
    last: Option<(u32, OwnedFd)>,
}

impl<'a> DirCache<'a> {
    fn new(tree: &'a WantedTree<'a>, root: &'a OwnedFd) -> Self {
        Self { tree, root, last: None }
    }

    /// Opens the directory that `entry` is in.
    fn of(&mut self, entry: WantedEntry) -> io::Result<&OwnedFd> {
        match self.tree.dirs().get(entry.dir) {
            Some(_) => self.open(entry.dir),
            // The user has named it.
            None => Ok(self.root),
        }
    }

    /// Opens directory `number` of the tree, one name after the other, and follows no link.
    fn open(&mut self, number: u32) -> io::Result<&OwnedFd> {
        if number == DESTINATION {
            return Ok(self.root);
        }
        let opened = match self.last.take().filter(|(last, _)| *last == number) {
            Some((_, opened)) => opened,
            None => self.open_from_root(number)?,
        };
        Ok(&self.last.insert((number, opened)).1)
    }

    fn open_from_root(&self, number: u32) -> io::Result<OwnedFd> {
        let mut names = Vec::new();
        let mut at = number;
        while at != DESTINATION
            && let Some(entry) = self.tree.dirs().get(at)
        {
            names.push(self.tree.name(entry).map_err(|error| io::Error::other(error.to_string()))?);
            at = entry.dir;
        }
        let mut opened = self.root.try_clone()?;
        for name in names.into_iter().rev() {
            opened = destination::open_dir(opened.as_fd(), &name)?;
        }
        Ok(opened)
    }
}

/// Restores single objects.
#[derive(Clone, Copy)]
struct ObjectWriter<'a> {
    fs: &'a dyn FileSystem,
    limits: &'a CallLimits,
    policy: AttributePolicy,
    force: bool,
    /// The bytes that were written so far, for the line of progress.
    written: &'a AtomicU64,
}

impl ObjectWriter<'_> {
    fn restore(&self, dirs: &mut DirCache<'_>, entry: WantedEntry) -> ObjectResult {
        let tree = dirs.tree;
        let object = match tree.object(entry) {
            Ok(Some(object)) => object,
            Err(_) if self.limits.is_over() => return ObjectResult::unfound(ObjectOutcome::Interrupted),
            Ok(None) => return ObjectResult::unfound(ObjectOutcome::AlreadyRight),
            Err(error) => {
                let failure = resolve::read_failed(&tree.path(entry), &error);
                return ObjectResult::unfound(ObjectOutcome::Failed(failure));
            }
        };
        let outcome = match dirs.of(entry) {
            Ok(dir) => self.restore_in(dir, &object, &|| tree.path(entry)),
            Err(_) if self.limits.is_over() => ObjectOutcome::Interrupted,
            Err(error) => ObjectOutcome::Failed(write_failed(&tree.path(entry), &error)),
        };
        ObjectResult { kind: Some(object.attr.kind), planned: planned_bytes(&object.attr), outcome }
    }

    /// Restores `object` in `dir`; `path` is its path in the backup, for messages.
    fn restore_in(&self, dir: &OwnedFd, object: &ListedObject, path: &dyn Fn() -> ArchivePath) -> ObjectOutcome {
        let restored = match object.attr.kind {
            NodeKind::File => self.file(dir, object, path),
            _ => self.special(dir, object),
        };
        match restored {
            Ok(Some(bytes)) => ObjectOutcome::Written { bytes },
            Ok(None) => ObjectOutcome::AlreadyRight,
            Err(_) if self.limits.is_over() => {
                let _ = destination::remove_short_temporary(dir.as_fd(), &object.name, MIN_CONTINUED);
                ObjectOutcome::Interrupted
            }
            Err(error) => {
                let continues = matches!(&error, CopyError::Backup(error) if error.kind().is_transient());
                let min_continued = if continues { MIN_CONTINUED } else { u64::MAX };
                // The failure itself is reported; the next run removes what cannot be removed now.
                let _ = destination::remove_short_temporary(dir.as_fd(), &object.name, min_continued);
                let path = path();
                match error {
                    CopyError::Backup(error) => ObjectOutcome::Failed(resolve::read_failed(&path, &error)),
                    CopyError::Destination(error) if is_full(&error) => {
                        ObjectOutcome::Full(write_failed(&path, &error))
                    }
                    CopyError::Destination(error) if is_other(&error) => {
                        ObjectOutcome::Differs(write_failed(&path, &error))
                    }
                    CopyError::Destination(error) => ObjectOutcome::Failed(write_failed(&path, &error)),
                }
            }
        }
    }

    /// Restores a regular file. Returns its size, or `None` if it is right already.
    fn file(
        &self,
        dir: &OwnedFd,
        object: &ListedObject,
        path: &dyn Fn() -> ArchivePath,
    ) -> Result<Option<u64>, CopyError> {
        let written = CopyError::Destination;
        let (ino, name, attr) = (object.attr.ino, object.name.as_slice(), object.attr);
        let existing = destination::existing(dir.as_fd(), name).map_err(written)?;
        let known = match existing {
            Existing::File(file, size) => Some((File::from(file), size)),
            Existing::Nothing => None,
            Existing::Link(_) | Existing::Special(..) | Existing::Other if self.force => None,
            Existing::Link(_) | Existing::Special(..) | Existing::Other => {
                return Err(written(io::ErrorKind::AlreadyExists.into()));
            }
        };
        // A size that is not exact is a bound of the signed content.
        let known = match known {
            Some((_, size)) if attr.exact && size != attr.size && !self.force => {
                return Err(written(io::ErrorKind::AlreadyExists.into()));
            }
            known => known.filter(|(_, size)| !attr.exact || *size == attr.size),
        };
        if let Some((file, _)) = &known {
            let is_right = match self.signed_content(object, path) {
                Some(signed) => is_signed(file, signed, self.limits).map_err(written)?,
                None => Some(false),
            };
            match is_right {
                Some(true) => return self.keep(dir, (file, name), &attr),
                Some(false) => {}
                None => return Err(written(io::ErrorKind::Interrupted.into())),
            }
        }
        let (temporary, size) = match self.continued(dir, object, path)? {
            Some(continued) => continued,
            None => {
                let temporary = File::from(destination::create_temporary(dir.as_fd(), name).map_err(written)?);
                let size = file_copy::copy(self.fs, ino, &temporary, 0, (self.limits, self.written))?;
                (temporary, size)
            }
        };
        // The time may be exact only now: that of the stored data.
        let attr = self.fs.getattr(ino, &self.limits.start()).map_err(CopyError::Backup)?;
        if let Some((file, _)) = &known
            && is_same(file, &temporary).map_err(written)?
        {
            return self.keep(dir, (file, name), &attr);
        }
        destination::set_attributes(temporary.as_fd(), &attr, self.policy).map_err(written)?;
        destination::place(dir.as_fd(), name, self.force).map_err(written)?;
        Ok(Some(size))
    }

    /// Continues the copy of a large file that an interrupted run began. Returns the file and its size; `None` if there is no
    /// such copy, or the signature does not prove it as a whole.
    fn continued(
        &self,
        dir: &OwnedFd,
        object: &ListedObject,
        path: &dyn Fn() -> ArchivePath,
    ) -> Result<Option<(File, u64)>, CopyError> {
        let written = CopyError::Destination;
        let Some(begun) = destination::open_temporary(dir.as_fd(), &object.name).map_err(written)? else {
            return Ok(None);
        };
        let begun = File::from(begun);
        if begun.metadata().map_err(written)?.len() < MIN_CONTINUED {
            return Ok(None);
        }
        let Some(signed) = self.signed_content(object, path) else { return Ok(None) };
        let start = file_copy::continued_at(self.fs, object.attr.ino, &begun, self.limits)?;
        if start == 0 {
            return Ok(None);
        }
        begun.set_len(start).map_err(written)?;
        self.written.fetch_add(start, Ordering::Relaxed);
        let size = file_copy::copy(self.fs, object.attr.ino, &begun, start, (self.limits, self.written))?;
        match is_signed(&begun, signed, self.limits).map_err(written)? {
            Some(true) => Ok(Some((begun, size))),
            Some(false) => Ok(None),
            None => Err(written(io::ErrorKind::Interrupted.into())),
        }
    }

    /// The signed content of a file, as far as its signature archive can be read.
    fn signed_content(&self, object: &ListedObject, path: &dyn Fn() -> ArchivePath) -> Option<SignedContent> {
        self.fs.signed_content(object.attr.ino, &self.limits.start()).unwrap_or_else(|error| {
            log::info!("{}: its signature cannot be read, so its volumes are read: {error}", path());
            None
        })
    }

    /// Sets the attributes of an existing file whose content is right, and removes what an interrupted run left beside it.
    fn keep(&self, dir: &OwnedFd, (file, name): (&File, &[u8]), attr: &Attr) -> Result<Option<u64>, CopyError> {
        destination::remove_temporary(dir.as_fd(), name).map_err(CopyError::Destination)?;
        destination::set_attributes(file.as_fd(), attr, self.policy).map_err(CopyError::Destination)?;
        Ok(None)
    }

    /// Restores a link, pipe or device.
    fn special(&self, dir: &OwnedFd, object: &ListedObject) -> Result<Option<u64>, CopyError> {
        let written = CopyError::Destination;
        let (name, attr) = (object.name.as_slice(), object.attr);
        let target = match attr.kind {
            NodeKind::Symlink => Some(self.fs.readlink(attr.ino, &self.limits.start()).map_err(CopyError::Backup)?),
            _ => None,
        };
        let is_right = match (destination::existing(dir.as_fd(), name).map_err(written)?, &target) {
            (Existing::Nothing, _) => None,
            (Existing::Link(known), Some(target)) => Some(known == *target),
            (Existing::Special(kind, number), None) => Some(match attr.kind {
                NodeKind::Fifo => kind == rustix::fs::FileType::Fifo,
                NodeKind::CharDevice => kind == rustix::fs::FileType::CharacterDevice && number == attr.rdev,
                NodeKind::BlockDevice => kind == rustix::fs::FileType::BlockDevice && number == attr.rdev,
                NodeKind::File | NodeKind::Dir | NodeKind::Symlink => false,
            }),
            _ => Some(false),
        };
        match is_right {
            // With `force` it is made again, with its attributes.
            Some(true) if !self.force => {
                destination::remove_temporary(dir.as_fd(), name).map_err(written)?;
                return Ok(None);
            }
            Some(false) if !self.force => return Err(written(io::ErrorKind::AlreadyExists.into())),
            _ => {}
        }
        destination::make_special(dir.as_fd(), name, &attr, target.as_deref(), self.policy).map_err(written)?;
        destination::place(dir.as_fd(), name, self.force).map_err(written)?;
        Ok(Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_numbers_in_the_singular_and_in_the_plural() {
        let mut summary = RestoreSummary { files: 1, bytes_written: 2, directories: 1, ..RestoreSummary::default() };
        let line = |summary: &RestoreSummary| summary.line(Path::new("d"));
        assert_eq!(line(&summary), "d: 1 file (2 bytes), 1 directory, 0 other objects restored, 0 already right\n");
        summary.failures.push("x".to_owned());
        assert!(line(&summary).ends_with("; 1 failure: once its cause is removed, the same command tries again\n"));
        summary.dry_run = true;
        assert_eq!(line(&summary), "d: 1 file (at most 2 bytes), 1 directory, 0 other objects would be restored\n");
    }

    #[test]
    fn the_remedy_in_the_summary_fits_the_failures() {
        let end = |failures: usize, differing: usize| {
            let summary =
                RestoreSummary { failures: vec!["x".to_owned(); failures], differing, ..RestoreSummary::default() };
            summary.line(Path::new("d")).split_once("right").unwrap().1.to_owned()
        };
        assert_eq!(end(0, 0), "\n");
        assert_eq!(end(2, 2), "; 2 failures: --force replaces what differs\n");
        assert!(end(1, 0).contains("the same command tries again") && !end(1, 0).contains("--force"));
        assert!(end(3, 1).contains("--force replaces what differs (1); for the others"));
    }
}
