//! `dupfs volumes`: the volumes that a read would fetch, and the commands that restore those in cold storage.
//!
//! Manifests, signature archives and the index name the volumes; none is fetched. If the manifests or signature archives are in
//! cold storage themselves, the volumes of the whole snapshot are an upper bound.

mod restore_command;
mod volumes_args;
mod volumes_report;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::sync::Arc;

use self::restore_command::restore_command;
use self::volumes_report::{ReportedMetadata, ReportedVolume, VolumesReport};
use super::error::CliError;
use super::exit::CommandExit;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve::{self, LastLink};
use super::typed_path;
use crate::vfs::{Attr, FileSystem, FsError, NodeKind, TreeFs};
use dupfs_base::{ErrorKind, HasKind, escape_bytes};
use dupfs_format::collection::{BackupSet, Snapshot};
use dupfs_format::{ArchivePath, ObjectInfo, SetIndex, VolumeId};
use dupfs_read::content::NeededVolumes;
use dupfs_read::volume::Repository;

pub use self::restore_command::ThawOptions;
pub use self::volumes_args::{RetrievalTier, VolumesArgs};

/// The classes from which a retrieval within minutes is not offered.
const NEVER_EXPEDITED: &str = "DEEP_ARCHIVE";

/// The options of `dupfs volumes`.
#[derive(Clone, Debug, Default)]
pub struct VolumesOptions {
    /// Paths; none for the whole snapshot.
    pub paths: Vec<OsString>,
    /// Print the commands that restore what is in cold storage.
    pub thaw: Option<ThawOptions>,
    /// Print JSON (docs/CLI.md).
    pub json: bool,
}

/// The trees in which the paths are.
#[derive(Debug)]
pub struct VolumesSource {
    /// The backup.
    pub repository: Arc<Repository>,
    /// The snapshot whose tree is at the root; `None` if all snapshots are shown.
    pub snapshot: Option<Snapshot>,
    /// The tree, or the reason why it cannot be loaded.
    pub tree: Result<Arc<TreeFs>, FsError>,
}

/// Reports the volumes that a read of the paths needs. Each call of the file system may take `timeout`.
///
/// # Errors
/// [`CliError`] when a path does not exist, the tree cannot be loaded, or the report cannot be printed.
pub fn run(
    source: &VolumesSource,
    options: &VolumesOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let search = VolumeSearch { repository: &source.repository, timeout };
    let report = match search.cold_metadata(source)? {
        Some(reason) => {
            let all = source.snapshot.iter().filter(|_| options.paths.is_empty()).flat_map(Snapshot::lineage);
            let needed = NeededVolumes { possible: search.volumes_of(all.copied()), ..NeededVolumes::default() };
            let effect = match options.paths.is_empty() {
                true => "listing all volumes of the snapshot",
                false => "restore these objects first; without PATH, all volumes of the snapshot are listed",
            };
            let line = format!("{reason}; which volumes are needed is not known: {effect}");
            match options.paths.is_empty() {
                true => log::warn!("{line}"),
                false => printer.report(&CliError::failed(ErrorKind::Archived, line)),
            }
            let mut report = search.report(source, &[], &needed, printer);
            report.known = false;
            report
        }
        None => {
            let tree = source.tree.as_ref().map_err(|error| CliError::failed(error.kind(), error.to_string()))?;
            let found = search.find(tree, &options.paths)?;
            let needed = search.needed(tree, &found, printer);
            let paths: Vec<ArchivePath> = found.into_iter().map(|(_, path)| path).collect();
            search.report(source, if options.paths.is_empty() { &[] } else { &paths }, &needed, printer)
        }
    };
    match options.thaw {
        Some(thaw) => print_commands(&source.repository, &report, thaw, printer)?,
        None if options.json => {
            printer.json(&report, true)?;
            printer.text("\n")?;
        }
        None => report.print(printer)?,
    }
    printer.finish()
}

/// Prints a command for each object in cold storage.
fn print_commands(
    repository: &Repository,
    report: &VolumesReport,
    options: ThawOptions,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let cold: Vec<_> = report.cold_objects().collect();
    if cold.is_empty() {
        log::warn!("{}: none of these objects is in cold storage", repository.url());
        return Ok(());
    }
    let slow = cold.iter().find(|(_, class)| *class == Some(NEVER_EXPEDITED));
    if let (Some((object, _)), RetrievalTier::Expedited) = (slow, options.tier) {
        let line = format!("--tier expedited: {object} is in {NEVER_EXPEDITED}; give --tier standard or --tier bulk");
        return Err(CliError::Usage(line));
    }
    let Some(bucket) = repository.bucket() else {
        let line = format!("{}: not a bucket of S3, whose objects alone can be restored", repository.url());
        return Err(CliError::failed(ErrorKind::Unsupported, line));
    };
    for (object, _) in cold {
        printer.text(&restore_command(&bucket, object, options))?;
        printer.text("\n")?;
    }
    Ok(())
}

/// Finds volumes without fetching one.
struct VolumeSearch<'a> {
    repository: &'a Arc<Repository>,
    timeout: RequestTimeout,
}

impl VolumeSearch<'_> {
    /// The reason why the volumes of files are not known: the tree or a manifest of the snapshot is in cold storage.
    ///
    /// # Errors
    /// [`CliError`] when the tree cannot be loaded for another reason.
    fn cold_metadata(&self, source: &VolumesSource) -> Result<Option<String>, CliError> {
        if let Err(error) = &source.tree {
            return match error.kind() {
                ErrorKind::Archived => Ok(Some(error.to_string())),
                kind => Err(CliError::failed(kind, error.to_string())),
            };
        }
        // Another failure is reported for the files that it affects.
        let lineage = source.snapshot.iter().flat_map(Snapshot::lineage);
        let errors = lineage.filter(|set| self.repository.set(**set).is_ok_and(|set| !set.is_rebuilt));
        let mut errors = errors.filter_map(|set| self.repository.manifest(*set, &self.timeout.start()).err());
        Ok(errors.find(|error| error.kind() == ErrorKind::Archived).map(|error| error.to_string()))
    }

    /// All volumes of `sets` in the store.
    fn volumes_of(&self, sets: impl Iterator<Item = SetIndex>) -> BTreeSet<VolumeId> {
        let sets = sets.filter_map(|set| self.repository.set(set).ok());
        sets.flat_map(|set| {
            set.volumes.keys().map(|number| VolumeId { set: set.index, number: *number }).collect::<Vec<_>>()
        })
        .collect()
    }

    /// The objects that the user names; the root without a name.
    fn find(&self, tree: &TreeFs, paths: &[OsString]) -> Result<Vec<(Attr, ArchivePath)>, CliError> {
        let root = [OsString::new()];
        let paths = if paths.is_empty() { &root[..] } else { paths };
        paths.iter().map(|path| typed_path::find(tree, path, LastLink::Follow, self.timeout)).collect()
    }

    /// The volumes of all regular files at and below `found`. A failure is reported once, and leaves the others.
    fn needed(&self, tree: &TreeFs, found: &[(Attr, ArchivePath)], printer: &mut Printer<'_>) -> NeededVolumes {
        let mut needed = NeededVolumes::default();
        let mut reported = HashSet::new();
        let mut pending: Vec<_> = found.iter().map(|(attr, path)| (attr.ino, attr.kind, path.clone())).collect();
        while let Some((ino, kind, path)) = pending.pop() {
            let result = match kind {
                NodeKind::Dir => tree.readdir(ino, 0, &self.timeout.start(), &mut |entry| {
                    // A name that is not a path component cannot be requested.
                    pending.extend(path.join(entry.name).map(|child| (entry.ino, entry.kind, child)));
                    true
                }),
                NodeKind::File => self.needed_of_file(tree, ino, &mut needed),
                NodeKind::Symlink | NodeKind::Fifo | NodeKind::CharDevice | NodeKind::BlockDevice => Ok(()),
            };
            if let Err(error) = result
                && reported.insert(error.to_string())
            {
                printer.report(&resolve::read_failed(&path, &error));
            }
        }
        needed.possible.retain(|id| !needed.certain.contains(id));
        needed
    }

    fn needed_of_file(&self, tree: &TreeFs, ino: u64, needed: &mut NeededVolumes) -> Result<(), FsError> {
        let NeededVolumes { certain, possible } = tree.needed_volumes(ino, &self.timeout.start())?;
        needed.certain.extend(certain);
        needed.possible.extend(possible);
        Ok(())
    }

    /// The report on `needed`. Volumes that are not in the store are reported as failures.
    fn report(
        &self,
        source: &VolumesSource,
        paths: &[ArchivePath],
        needed: &NeededVolumes,
        printer: &mut Printer<'_>,
    ) -> VolumesReport {
        let all: BTreeMap<VolumeId, bool> = needed.possible.iter().map(|id| (*id, false)).collect();
        let all = all.into_iter().chain(needed.certain.iter().map(|id| (*id, true))).collect::<BTreeMap<_, _>>();
        let mut volumes = Vec::new();
        for (id, certain) in all {
            let Ok(set) = self.repository.set(id.set) else { continue };
            let Some(object) = set.volumes.get(&id.number) else {
                let line = format!("{}: volume {} is not in the store; see dupfs verify", set.label(), id.number);
                printer.report(&CliError::failed(ErrorKind::Missing, line));
                continue;
            };
            // Without its manifest nothing is known of a volume.
            let has_manifest = !set.is_rebuilt && !is_cold(set.manifest.as_ref());
            let indexed = has_manifest && self.repository.has_members(id, &self.timeout.start()).unwrap_or_default();
            volumes.push(ReportedVolume {
                object: object.name.to_string(),
                set: set.time.to_string(),
                number: id.number.0,
                size: object.size,
                storage_class: object.class.as_ref().map(ToString::to_string),
                cold: object.archived.is_some(),
                indexed,
                certain,
            });
        }
        let lineage = match &source.snapshot {
            Some(snapshot) => snapshot.lineage().iter().copied().collect(),
            None => needed.certain.iter().chain(&needed.possible).map(|id| id.set).collect::<BTreeSet<_>>(),
        };
        let sets = lineage.into_iter().filter_map(|set| self.repository.set(set).ok());
        let metadata = sets.flat_map(|set| metadata_of(&set)).collect();
        let name = source.snapshot.as_ref().map(|snapshot| &*snapshot.name);
        VolumesReport::new((self.repository.url(), name), paths, volumes, metadata)
    }
}

fn is_cold(object: Option<&ObjectInfo>) -> bool {
    object.is_some_and(|object| object.archived.is_some())
}

fn metadata_of(set: &BackupSet) -> Vec<ReportedMetadata> {
    let objects = [("manifest", &set.manifest), ("signatures", &set.signatures)];
    let reported = |(kind, object): (&'static str, &Option<ObjectInfo>)| {
        let object = object.as_ref()?;
        Some(ReportedMetadata {
            object: object.name.to_string(),
            kind,
            set: set.time.to_string(),
            size: object.size,
            storage_class: object.class.as_ref().map(ToString::to_string),
            cold: object.archived.is_some(),
        })
    };
    objects.into_iter().filter_map(reported).collect()
}

/// Checks the paths, which needs no backup.
///
/// # Errors
/// [`CliError::Usage`] for a path below `unpacked/`, whose content is that of archives.
pub fn check(paths: &[OsString]) -> Result<(), CliError> {
    let is_unpacked = |path: &&OsString| typed_path::is_unpacked(path);
    match paths.iter().find(is_unpacked) {
        Some(path) => {
            let shown = escape_bytes(path.as_encoded_bytes());
            let line = format!("{shown}: name the archive or compressed file itself, as it is in the backup");
            Err(CliError::Usage(line))
        }
        None => Ok(()),
    }
}
