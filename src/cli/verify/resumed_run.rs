//! The parts of a backup that an interrupted verification has already proved.
//!
//! They are in an index of the verification, which belongs to the listed states of objects
//! ([`IndexLocation::is_of_states`](dupfs_read::volume::IndexLocation)): a volume was read, hashed, decrypted and parsed if its
//! member table is there. An object that was changed or replaced since then has another state, and is read again. What was
//! damaged is not recorded, and read again too.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dupfs_base::{RequestContext, escape_bytes};
use dupfs_cache::index::{Identity, Index, IndexRemoval};
use dupfs_format::collection::{BackupSet, Collection};
use dupfs_format::{BackupTime, VolumeId};
use dupfs_read::volume::Repository;

/// The time for which an interrupted run can be continued.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The record of the time at which the first run began.
const STARTED: &[u8] = b"verification started";

/// The state of a verification that was interrupted, or can be.
#[derive(Debug)]
pub(super) struct ResumedRun {
    repository: Arc<Repository>,
    index: Arc<Index>,
    /// The time at which the run began that this one continues.
    pub(super) since: Option<BackupTime>,
}

/// The files of a set whose content was proved to be that of their signatures.
#[derive(Debug)]
pub(super) struct ProvedFiles {
    key: Identity,
    group: u64,
    /// The places of the files among all regular files of the signature archive. They do not depend on the volumes that a run
    /// could read.
    known: HashSet<u32>,
}

impl ResumedRun {
    /// The run that the index of `repository` records; a new one if it records none. `None` without an index.
    pub(super) fn of(repository: &Arc<Repository>, now: BackupTime) -> Option<Self> {
        let index = Arc::clone(repository.index().on_disk()?);
        let since = started(&index);
        if since.is_none()
            && let Some(newest) = repository.collection().sets().iter().max_by_key(|set| set.time)
            && let Some(group) = repository.index().group(newest.index)
        {
            index.store_record(Identity::of(&[STARTED]), group, now.0.to_le_bytes().to_vec());
        }
        Some(Self { repository: Arc::clone(repository), index, since })
    }

    /// Returns true if the volume `id` was read completely, in the state that it has now.
    pub(super) fn knows(&self, id: VolumeId, context: &RequestContext) -> bool {
        self.repository.has_members(id, context).unwrap_or_default()
    }

    /// The proved files among the `len` of `set`. `None` if the content of the set cannot be identified.
    pub(super) fn proved_files(&self, collection: &Collection, set: &BackupSet, len: u64) -> Option<ProvedFiles> {
        let index = self.repository.index();
        // The content of a file depends on all sets of the snapshot.
        let lineage = collection.snapshot_of(set.index)?.lineage();
        let mut key = Identity::of(&[b"proved files"]);
        for set in lineage {
            let stored = index.stored_identity(*set)?;
            key = key.with(&[stored.hex().as_bytes()]);
        }
        let mut known = HashSet::new();
        let len = u32::try_from(len).ok()?;
        self.index.load_numbers(key, len, &mut |at, _| {
            known.insert(at);
        });
        Some(ProvedFiles { key, group: index.group(set.index)?, known })
    }

    /// Records that the file at `at` was proved.
    pub(super) fn add_proved(&self, files: &ProvedFiles, at: u64) {
        if let Ok(at) = u32::try_from(at) {
            self.index.store_number(files.key, files.group, at, 1);
        }
    }
}

impl ProvedFiles {
    /// Returns true if the file at `at` was proved by an earlier run.
    pub(super) fn contains(&self, at: u64) -> bool {
        u32::try_from(at).is_ok_and(|at| self.known.contains(&at))
    }
}

/// The name of the index of `repository`, if the run that it records is too old to be continued.
pub fn outdated_index(repository: &Repository, now: BackupTime) -> Option<String> {
    let index = repository.index().on_disk()?;
    let age = now.0.saturating_sub(started(index)?.0);
    (!(0..=MAX_AGE.as_secs().cast_signed()).contains(&age)).then(|| index.name())
}

fn started(index: &Index) -> Option<BackupTime> {
    let seconds = index.load_record(Identity::of(&[STARTED]))?;
    Some(BackupTime(i64::from_le_bytes(seconds.try_into().ok()?)))
}

/// Removes the index `name` in `base`: the run that it records was completed, or is too old.
pub fn remove_record(base: &Path, name: &str) {
    let left = match dupfs_cache::index::remove_index(base, name) {
        Ok(IndexRemoval::Removed) => return,
        Ok(IndexRemoval::InUse) => "another process uses it".to_owned(),
        Ok(IndexRemoval::HasForeignFiles) => "its directory has other files".to_owned(),
        Err(error) => error.to_string(),
    };
    let base = escape_bytes(base.as_os_str().as_encoded_bytes());
    log::warn!(
        "{base}/{name}: the record of this verification cannot be removed: {left}; the next --resume continues it"
    );
}
