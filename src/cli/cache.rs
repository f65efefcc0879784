//! `dupfs cache`: what dupfs has stored on this machine, and its removal.
//!
//! Each index has a record of its repository. Nothing in use is removed, and no symbolic link is followed: `dupfs_cache` sees
//! to both.

mod cache_command_args;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::cache_dir::cache_dir;
use super::error::CliError;
use super::exit::CommandExit;
use super::printer::{self, Printer};
use super::quantities::{counted, human_bytes};
use dupfs_base::{ErrorKind, escape_bytes, io_reason};
use dupfs_cache::index::{IndexRemoval, StoredIndex, remove_index, remove_outdated_files, stored_indexes};
use dupfs_format::BackupTime;
use dupfs_read::storage::{Location, parse_url};

pub use self::cache_command_args::{CacheAction, CacheCommandArgs};

/// The time after its last use before the index of a backup in a directory that does not exist is removed: the disk with it may
/// be connected again.
const ABSENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs the command.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(args: &CacheCommandArgs) -> Result<(), CliError> {
    let base = cache_dir(args.cache_dir.as_deref()).ok_or_else(|| {
        CliError::Usage("this user has no home directory: give the directory of the index by --cache-dir".to_owned())
    })?;
    printer::print(|printer| run_in(&base, args, printer))
}

/// Runs the command on the indexes in `base`.
fn run_in(base: &Path, args: &CacheCommandArgs, printer: &mut Printer<'_>) -> Result<CommandExit, CliError> {
    let indexes = stored_indexes(base).map_err(|error| cannot("read", base, &error))?;
    let command = CacheRun { base, json: args.json };
    match args.action.as_ref().unwrap_or(&CacheAction::Ls) {
        CacheAction::Ls => command.list(&indexes, printer)?,
        CacheAction::Clear { url, dry_run } => {
            let chosen = choose(indexes, url.as_deref(), base)?;
            let removals = chosen.into_iter().map(|index| (index, Removal::Index("cleared"))).collect();
            command.remove(removals, (*dry_run, InUse::IsFailure), printer)?;
        }
        CacheAction::Prune { unused, dry_run } => {
            let unused = unused.map(|span| span.0);
            let removals = indexes.into_iter().filter_map(|index| {
                let removal = useless(&index, unused, SystemTime::now())?;
                Some((index, removal))
            });
            command.remove(removals.collect(), (*dry_run, InUse::IsExpected), printer)?;
        }
    }
    printer.finish()
}

/// The part of an index to remove, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// All of it.
    Index(&'static str),
    /// The files that nothing reads.
    OutdatedFiles,
}

/// The meaning of an index that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InUse {
    IsFailure,
    IsExpected,
}

/// The part of `index` that is of no use; `None` if all of it is. With `unused`, an index is of no use after that time.
fn useless(index: &StoredIndex, unused: Option<Duration>, now: SystemTime) -> Option<Removal> {
    // Without a time, or with one in the future, it counts as used now.
    let age = index.last_used.and_then(|time| now.duration_since(time).ok()).unwrap_or_default();
    let is_gone =
        |dir: &PathBuf| matches!(dir.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound);
    match &index.description {
        None => return Some(Removal::Index("unknown")),
        Some(about) if about.local.as_ref().is_some_and(is_gone) && age >= ABSENCE => {
            return Some(Removal::Index("gone"));
        }
        Some(_) => {}
    }
    match unused {
        Some(limit) if age >= limit => Some(Removal::Index("unused")),
        _ => (index.outdated.count > 0).then_some(Removal::OutdatedFiles),
    }
}

/// The indexes of the repository `url`, or all.
fn choose(indexes: Vec<StoredIndex>, url: Option<&OsStr>, base: &Path) -> Result<Vec<StoredIndex>, CliError> {
    let Some(url) = url else { return Ok(indexes) };
    let typed = escape_bytes(url.as_encoded_bytes());
    let names = names_of(url);
    let is_chosen = |index: &StoredIndex| {
        let about = index.description.as_ref();
        url == OsStr::new(&index.name) || about.is_some_and(|about| names.contains(&about.url))
    };
    let chosen: Vec<_> = indexes.into_iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        let base = escape_bytes(base.as_os_str().as_encoded_bytes());
        let line = format!("{typed}: there is no index of this backup in {base}; list all with: dupfs cache ls");
        return Err(CliError::failed(ErrorKind::NotFound, line));
    }
    Ok(chosen)
}

/// The URLs that an index of the backup that the user calls `typed` may have.
fn names_of(typed: &OsStr) -> Vec<String> {
    let mut names = vec![escape_bytes(typed.as_encoded_bytes())];
    let location = match typed.to_str() {
        Some(text) => parse_url(text).ok(),
        None => Some(Location::Local(PathBuf::from(typed))),
    };
    match location {
        Some(Location::Local(dir)) => {
            let absolute = std::path::absolute(&dir).unwrap_or(dir);
            names.push(Location::Local(absolute).display_without_secrets());
        }
        Some(Location::S3(first)) => {
            let mut reading = Some(&first);
            while let Some(location) = reading {
                names.push(location.display());
                // The prefix at which duplicity reads, where the first one has nothing.
                let other = location.duplicity_prefix.as_ref();
                names.extend(other.map(|prefix| {
                    let prefix = prefix.clone();
                    dupfs_read::storage::S3Location { prefix, duplicity_prefix: None, ..location.clone() }.display()
                }));
                reading = location.alternative.as_deref();
            }
        }
        Some(other @ (Location::Remote(_) | Location::Multi(_))) => names.push(other.display_without_secrets()),
        None => {}
    }
    names
}

fn cannot(action: &str, dir: &Path, error: &io::Error) -> CliError {
    let exit = if error.kind() == io::ErrorKind::PermissionDenied { CommandExit::Denied } else { CommandExit::Failed };
    let dir = escape_bytes(dir.as_os_str().as_encoded_bytes());
    CliError::new(exit, format!("{dir}: cannot {action} the index: {}", io_reason(error)))
}

/// A run on the indexes in a directory.
struct CacheRun<'a> {
    base: &'a Path,
    json: bool,
}

/// The list of all indexes. Keys of its JSON are stable (docs/CLI.md).
#[derive(Serialize)]
struct CacheListing {
    directory: String,
    indexes: Vec<ReportedIndex>,
    count: usize,
    bytes: u64,
}

/// An index in a list.
#[derive(Serialize)]
struct ReportedIndex {
    directory: String,
    url: Option<String>,
    options: Vec<String>,
    files: u64,
    bytes: u64,
    last_used: Option<String>,
    last_used_epoch: Option<i64>,
    in_use: bool,
}

/// The result of a removal.
#[derive(Serialize)]
struct RemovalReport {
    directory: String,
    dry_run: bool,
    removed: Vec<RemovedIndex>,
    /// The names of the directories that were not removed because a process uses them.
    in_use: Vec<String>,
    count: usize,
    bytes: u64,
}

/// An index, or files of one, that was removed.
#[derive(Serialize)]
struct RemovedIndex {
    directory: String,
    url: Option<String>,
    reason: &'static str,
    files: u64,
    bytes: u64,
}

impl ReportedIndex {
    fn of(index: &StoredIndex) -> Self {
        let about = index.description.as_ref();
        let used = index.last_used.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let used = used.and_then(|since| i64::try_from(since.as_secs()).ok());
        Self {
            directory: index.name.clone(),
            url: about.map(|about| about.url.clone()),
            options: about.map(|about| about.options.clone()).unwrap_or_default(),
            files: index.files.count,
            bytes: index.files.bytes,
            last_used: used.map(|time| BackupTime(time).to_string()),
            last_used_epoch: used,
            in_use: index.in_use,
        }
    }

    /// The URL with the options.
    fn repository(&self) -> String {
        let url = self.url.as_deref().unwrap_or("-");
        [url].into_iter().chain(self.options.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

impl CacheRun<'_> {
    fn directory(&self) -> String {
        escape_bytes(self.base.as_os_str().as_encoded_bytes())
    }

    fn list(&self, indexes: &[StoredIndex], printer: &mut Printer<'_>) -> Result<(), CliError> {
        let mut indexes: Vec<_> = indexes.iter().map(ReportedIndex::of).collect();
        indexes.sort_by(|a, b| (&a.url, &a.options, &a.directory).cmp(&(&b.url, &b.options, &b.directory)));
        let (count, bytes) = (indexes.len(), indexes.iter().map(|index| index.bytes).fold(0, u64::saturating_add));
        let listing = CacheListing { directory: self.directory(), indexes, count, bytes };
        if self.json {
            printer.json(&listing, true)?;
            return printer.text("\n");
        }
        let is_terminal = printer.is_terminal();
        let size = |bytes: u64| if is_terminal { human_bytes(bytes) } else { bytes.to_string() };
        let width = listing.indexes.iter().map(|index| size(index.bytes).len()).max().unwrap_or(0);
        for index in &listing.indexes {
            let (bytes, used) = (size(index.bytes), index.last_used.as_deref().unwrap_or("-"));
            let state = if index.in_use { "in-use" } else { "-" };
            let line = format!("{bytes:>width$} {used:16} {state:6} {} {}\n", index.directory, index.repository());
            printer.name(line.trim_end().as_bytes())?;
            printer.text("\n")?;
        }
        let total = if is_terminal { human_bytes(bytes) } else { format!("{bytes} bytes") };
        let indexes = if count == 1 { "1 index".to_owned() } else { format!("{count} indexes") };
        printer.text(&format!("{indexes}, {total} in {}\n", listing.directory))
    }

    fn remove(
        &self,
        removals: Vec<(StoredIndex, Removal)>,
        (dry_run, in_use): (bool, InUse),
        printer: &mut Printer<'_>,
    ) -> Result<(), CliError> {
        let (mut removed, mut used) = (Vec::new(), Vec::new());
        for (index, removal) in removals {
            let (reason, files) = match removal {
                Removal::Index(reason) => (reason, index.files),
                Removal::OutdatedFiles => ("outdated-files", index.outdated),
            };
            let url = index.description.as_ref().map(|about| about.url.clone());
            match self.remove_one(&index, removal, dry_run) {
                Ok(IndexRemoval::Removed) => {
                    let (directory, files, bytes) = (index.name.clone(), files.count, files.bytes);
                    removed.push(RemovedIndex { directory, url, reason, files, bytes });
                }
                Ok(IndexRemoval::InUse) => {
                    if in_use == InUse::IsFailure {
                        let url = url.unwrap_or_else(|| index.name.clone());
                        let line = format!("{url}: its index is in use; unmount the backup first (dupfs umount)");
                        printer.report(&CliError::new(CommandExit::Failed, line));
                    }
                    used.push(index.name);
                }
                Ok(IndexRemoval::HasForeignFiles) => {
                    let dir = escape_bytes(self.base.join(&index.name).as_os_str().as_encoded_bytes());
                    let line = format!("{dir}: has files that are not of dupfs; only those of the index were removed");
                    printer.report(&CliError::new(CommandExit::Failed, line));
                }
                Err(error) => printer.report(&cannot("remove", &self.base.join(&index.name), &error)),
            }
        }
        let (count, bytes) = (removed.len(), removed.iter().map(|index| index.bytes).fold(0, u64::saturating_add));
        let directory = self.directory();
        let report = RemovalReport { directory, dry_run, removed, in_use: used, count, bytes };
        if self.json {
            printer.json(&report, true)?;
            return printer.text("\n");
        }
        report.print(printer)
    }

    fn remove_one(&self, index: &StoredIndex, removal: Removal, dry_run: bool) -> io::Result<IndexRemoval> {
        match removal {
            Removal::Index(_) if dry_run && index.in_use => Ok(IndexRemoval::InUse),
            _ if dry_run => Ok(IndexRemoval::Removed),
            Removal::Index(_) => remove_index(self.base, &index.name),
            Removal::OutdatedFiles => remove_outdated_files(self.base, &index.name).map(|()| IndexRemoval::Removed),
        }
    }
}

impl RemovalReport {
    fn print(&self, printer: &mut Printer<'_>) -> Result<(), CliError> {
        let is_terminal = printer.is_terminal();
        let size = |bytes: u64| if is_terminal { human_bytes(bytes) } else { format!("{bytes} bytes") };
        let verb = if self.dry_run { "would remove" } else { "removed" };
        for index in &self.removed {
            let (url, bytes) = (index.url.as_deref().unwrap_or("-"), size(index.bytes));
            let line = format!("{verb} {} {url} ({}, {bytes})", index.directory, index.reason);
            printer.name(line.as_bytes())?;
            printer.text("\n")?;
        }
        let used = match self.in_use.len() {
            0 => String::new(),
            count => format!("; in use: {count}"),
        };
        printer.text(&format!("{verb} {}, {}{used}\n", counted(self.count, "item"), size(self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_cache::index::{IndexDescription, IndexFiles};

    fn index(local: Option<&str>, days: u64, now: SystemTime) -> StoredIndex {
        StoredIndex {
            name: "n".to_owned(),
            description: Some(IndexDescription { local: local.map(PathBuf::from), ..IndexDescription::default() }),
            files: IndexFiles { count: 2, bytes: 9 },
            outdated: IndexFiles::default(),
            last_used: now.checked_sub(Duration::from_secs(days * 86_400)),
            in_use: false,
        }
    }

    #[test]
    fn an_index_is_useless_without_a_repository_or_after_the_time_given() {
        let now = SystemTime::now();
        let span = |days: u64| Some(Duration::from_secs(days * 86_400));
        let of = |index: &StoredIndex, unused| useless(index, unused, now);
        // In a bucket, or in a directory that exists.
        assert_eq!(of(&index(None, 1000, now), None), None);
        assert_eq!(of(&index(Some("/"), 1000, now), None), None);
        assert_eq!(of(&index(None, 90, now), span(90)), Some(Removal::Index("unused")));
        assert_eq!(of(&index(None, 89, now), span(90)), None);
        // In a directory that does not exist.
        assert_eq!(of(&index(Some("/no/such/directory"), 29, now), None), None);
        assert_eq!(of(&index(Some("/no/such/directory"), 30, now), None), Some(Removal::Index("gone")));
        let unknown = StoredIndex { description: None, ..index(None, 0, now) };
        assert_eq!(of(&unknown, None), Some(Removal::Index("unknown")));
        let outdated = StoredIndex { outdated: IndexFiles { count: 1, bytes: 1 }, ..index(None, 0, now) };
        assert_eq!(of(&outdated, span(1)), Some(Removal::OutdatedFiles));
        // The clock was set back.
        assert_eq!(of(&index(None, 0, now + Duration::from_secs(9)), span(1)), None);
    }

    #[test]
    fn a_repository_is_found_by_every_reading_of_its_url() {
        let names = |url: &str| names_of(OsStr::new(url));
        assert!(names("/srv/backup").contains(&"file:///srv/backup".to_owned()));
        assert!(names("file:///srv/backup").contains(&"file:///srv/backup".to_owned()));
        for name in ["s3://host.example/bucket/p", "s3://host.example/bucket/p/"] {
            assert!(names(name).contains(&"s3://host.example/bucket/p".to_owned()), "{:?}", names(name));
        }
        assert!(names("s3://bucket/p").contains(&"s3://bucket/p".to_owned()));
    }
}
