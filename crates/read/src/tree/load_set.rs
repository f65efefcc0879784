//! Reads the records of one set: from its signature archive, or else from the headers in its volumes.

use std::sync::Arc;

use super::error::TreeError;
use super::missing_range::MissingRange;
use super::set_limits::SetLimits;
use super::staged_set::StagedSet;
use super::tree_index;
use super::version_table::{Change, VersionTable};
use crate::volume::{MemberRun, MemberTable, Repository, SignatureStream, VolumeError};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::FormatError;
use dupfs_format::difftar::DiffKind;
use dupfs_format::sigtar::{SigChange, SigEntry, SigtarParser, SigtarSink, SizeBounds};
use dupfs_format::{ArchivePath, EntryMeta, SetIndex, VolumeId};

/// The records of one set, verified.
#[derive(Debug)]
pub(super) enum LoadedSet {
    /// The first set: the table of it.
    First(Box<VersionTable>),
    /// A set that enters the table of those before it.
    Next(Box<StagedSet>),
}

/// Reads the records of the set at `position` of a branch.
///
/// # Errors
/// [`TreeError`] when neither the signature archive nor the volumes can be read, or when a retry may help.
pub(super) fn load_set(
    repository: &Arc<Repository>,
    set: SetIndex,
    position: u32,
    context: &RequestContext,
) -> Result<LoadedSet, TreeError> {
    let error = match from_signatures(repository, set, position, context) {
        Ok(loaded) => return Ok(loaded),
        Err(TreeError::Volume(error)) => error,
        Err(error) => return Err(error),
    };
    let is_lost = match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::Unsupported | ErrorKind::NotFound => true,
        // The key that opens the manifest of the set opens its volumes, so this archive is of another set.
        ErrorKind::KeyMissing => repository.manifest(set, context).is_ok(),
        ErrorKind::Denied
        | ErrorKind::Timeout
        | ErrorKind::OverLimit
        | ErrorKind::Archived
        | ErrorKind::Invalid
        | ErrorKind::Cancelled
        | ErrorKind::WouldBlock
        | ErrorKind::Io => false,
    };
    if !is_lost {
        return Err(error.into());
    }
    log::warn!("{error}; the tree of this set is rebuilt from the headers in its volumes");
    let rebuilt = from_volumes(repository, set, position, context).map(|staged| LoadedSet::Next(Box::new(staged)));
    // An interrupted rebuild proves nothing about the set.
    rebuilt.map_err(|other| if other.kind() == ErrorKind::Cancelled { other } else { error.into() })
}

/// The root's metadata as the beginning of the set's signature archive has it; `None` if the set does not name the root.
/// The root comes first in every archive, so this needs a small part of it. The answer is not verified until the whole
/// archive was read. Nothing is fetched if the index has it.
///
/// # Errors
/// [`VolumeError`] when the archive's beginning cannot be read.
pub fn peek_root(
    repository: &Repository,
    set: SetIndex,
    context: &RequestContext,
) -> Result<Option<EntryMeta>, VolumeError> {
    if let Some(known) = tree_index::load_root(repository, set) {
        return Ok(known);
    }
    let mut first = FirstEntry(None);
    repository.peek_signatures(set, context, &mut |object, plain| {
        first = FirstEntry(None);
        let mut reader = SigtarParser::default();
        let mut chunk = vec![0; 2048];
        while first.0.is_none() {
            let n = plain.read(&mut chunk).map_err(|e| VolumeError::from_io(object, &e))?;
            if n == 0 {
                return Ok(());
            }
            let fed = reader.feed(chunk.get(..n).unwrap_or(&[]), &mut first);
            fed.map_err(|e| VolumeError::from_format(object, &e))?;
        }
        Ok(())
    })?;
    Ok(first.0.filter(|entry| entry.path.is_root() && entry.change != SigChange::Deleted).map(|entry| entry.meta))
}

struct FirstEntry(Option<SigEntry>);

impl SigtarSink for FirstEntry {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        self.0.get_or_insert(entry);
        Ok(())
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        Err(problem)
    }
}

/// The first set is read directly into a table that no reader sees before the archive was verified to its end; the
/// others are stored in compact form until then.
fn from_signatures(
    repository: &Repository,
    set: SetIndex,
    position: u32,
    context: &RequestContext,
) -> Result<LoadedSet, TreeError> {
    let limits = |object: &str| {
        let stored = repository.signatures_len(set);
        SetLimits::new(position, object, repository.table_memory().allowance(&object.into(), stored))
    };
    if position > 0 {
        let mut staged = StagedSet::default();
        repository.stream_signatures(set, context, &mut |archive| {
            staged = StagedSet::default();
            let mut limits = limits(archive.object());
            read_sigtar(archive, &mut |path, change| {
                if limits.admit(path, &change, staged.bytes())? {
                    staged.push(path, change);
                }
                Ok(())
            })?;
            staged.close(limits);
            Ok(())
        })?;
        return Ok(LoadedSet::Next(Box::new(staged)));
    }
    let mut begun = Ok(VersionTable::default());
    let streamed = repository.stream_signatures(set, context, &mut |archive| {
        let mut table = VersionTable::default();
        let mut grown = table.begin_set();
        let mut limits = limits(archive.object());
        let object = archive.object();
        let read = read_sigtar(archive, &mut |path, change| {
            if grown.is_ok() && limits.admit(path, &change, 0)? {
                grown = table.push(path, change);
            }
            // Nothing of the rest of the archive could be shown.
            match &grown {
                Ok(()) => Ok(()),
                Err(full) => Err(VolumeError::object(object, full.kind(), full.to_string())),
            }
        });
        let (allowance, missing) = limits.finish();
        missing.into_iter().for_each(|range| table.push_missing_range(range));
        table.set_allowance(allowance);
        begun = grown.map(|()| table);
        read
    });
    // Why the table could not grow, rather than that reading was stopped for it.
    let mut table = begun?;
    streamed?;
    table.publish_set()?;
    Ok(LoadedSet::First(Box::new(table)))
}

/// Takes an entry.
type PushEntry<'a> = &'a mut dyn FnMut(&ArchivePath, Change) -> Result<(), VolumeError>;

fn read_sigtar(archive: &mut SignatureStream<'_, '_>, push: PushEntry<'_>) -> Result<(), VolumeError> {
    let mut entries = Entries { push, refused: None };
    let read = archive.parse(&mut entries);
    entries.refused.map_or(read, Err)
}

struct Entries<'a> {
    push: PushEntry<'a>,
    /// The reason why an entry was not taken.
    refused: Option<VolumeError>,
}

impl SigtarSink for Entries<'_> {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        let change = match entry.change {
            SigChange::Deleted => Change::Deleted,
            SigChange::Signature | SigChange::Snapshot => Change::Present(entry.meta, entry.bounds),
        };
        (self.push)(&entry.path, change).map_err(|error| {
            self.refused = Some(error);
            FormatError::Tar { offset: 0, what: "an entry was refused" }
        })
    }

    /// An archive with an entry that cannot be understood is not trusted for the others either.
    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        Err(problem)
    }
}

fn from_volumes(
    repository: &Arc<Repository>,
    set: SetIndex,
    position: u32,
    context: &RequestContext,
) -> Result<StagedSet, TreeError> {
    let manifest = repository.manifest(set, context)?;
    let damage = manifest.entry_damage().map(|damage| {
        let set = repository.label(set);
        Arc::from(format!("{set} has no readable signature archive, and its manifest is damaged: {damage}"))
    });
    let unlisted = |after, last| {
        let reason = damage.clone().unwrap_or_else(|| Arc::from("a volume has no entry in the manifest"));
        MissingRange { is_single: false, position, after, last, reason, kind: ErrorKind::Corrupt }
    };
    let mut staged = StagedSet::default();
    staged.rebuilt = true;
    let record = repository.set(set)?;
    let stored = record.volumes.values().map(|object| object.size).fold(0, u64::saturating_add);
    let name: Arc<str> = record.label().into();
    let mut limits = SetLimits::new(position, &name, repository.table_memory().allowance(&name, stored));
    let is_unread = |number| !repository.has_members(VolumeId { set, number }, context).unwrap_or_default();
    let unread = record.volumes.iter().filter(|(number, _)| is_unread(**number)).map(|(_, object)| object.size);
    let _expected = repository.expect_fetch(unread.fold(0, u64::saturating_add), 0);
    let mut last_end: Option<ArchivePath> = None;
    let mut next = 1u32;
    for listed in &manifest.volumes {
        if listed.number.0 > next {
            staged.missing.push(unlisted(last_end.clone(), Some(listed.end.path.clone())));
        }
        next = listed.number.0.saturating_add(1);
        match repository.members(VolumeId { set, number: listed.number }, context) {
            Ok(members) => stage_members(&members, &mut staged, &mut limits)?,
            // Nothing is known to be lost: access may be granted later.
            Err(error) if error.kind().is_transient() || error.kind() == ErrorKind::Denied => {
                return Err(error.into());
            }
            Err(error) => {
                log::error!(
                    "{error}; the entries from {} to {} of this set are unknown",
                    label(&last_end),
                    listed.end.path
                );
                staged.missing.push(MissingRange {
                    is_single: false,
                    position,
                    after: last_end.clone(),
                    last: Some(listed.end.path.clone()),
                    reason: Arc::from(error.to_string()),
                    kind: error.kind(),
                });
            }
        }
        last_end = last_end.max(Some(listed.end.path.clone()));
    }
    // The damaged part of a manifest may have been the entry of its last volume.
    if damage.is_some() {
        staged.missing.push(unlisted(last_end, None));
    }
    staged.close(limits);
    Ok(staged)
}

fn label(path: &Option<ArchivePath>) -> String {
    path.as_ref().map_or_else(|| "the start".to_owned(), ToString::to_string)
}

fn stage_members(members: &MemberTable, staged: &mut StagedSet, limits: &mut SetLimits) -> Result<(), VolumeError> {
    for run in members.runs() {
        let continued = run.first_part().number > 1 && staged.last_path() == Some(run.path.as_bytes());
        if continued {
            continue;
        }
        let change = match run.kind {
            DiffKind::Deleted => Change::Deleted,
            DiffKind::Snapshot | DiffKind::Diff => Change::Present(run.meta.clone(), bounds_of(&run)),
        };
        if limits.admit(&run.path, &change, staged.bytes())? {
            staged.push(&run.path, change);
        }
    }
    Ok(())
}

/// A whole small file gives its exact size. The size of others is determined when it is requested.
fn bounds_of(run: &MemberRun) -> Option<SizeBounds> {
    let whole = run.kind == DiffKind::Snapshot && !run.multivol;
    let len = run.first_part().len;
    whole.then_some(SizeBounds { blocks: 1, min: len, max: len })
}
