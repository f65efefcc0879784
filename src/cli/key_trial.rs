//! The trial of the keys and passphrases at the start: on the manifest of the snapshot to be shown, and on those of others if no
//! key fits there.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::CliError;
use super::start_up::StartUp;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::SetIndex;
use dupfs_format::collection::{Collection, Snapshot};
use dupfs_read::volume::{Repository, VolumeError};

/// Upper bound of the manifests that are tried to find a snapshot that can be read. Each may need a request to the
/// store, and a key derivation for each passphrase.
const MAX_TRIALS: usize = 48;

/// The snapshots that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShownSnapshots {
    /// The chosen one.
    One,
    /// All of them.
    All,
}

/// The effect of a damaged manifest of the chosen set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManifestDamage {
    /// It is logged, because it is no reason to refuse the other snapshots.
    Logged,
    /// It is an error: the manifest is not proven to be signed as it must be.
    Refused,
}

/// Decrypts the manifest of the `chosen` set, so that a wrong key or passphrase is found now. If no key fits and all snapshots
/// are shown, one that can be read is enough; a warning names it.
///
/// # Errors
/// [`CliError`] if no key fits, or if the manifest cannot be read for another reason.
pub(super) fn try_keys(
    repository: &Arc<Repository>,
    chosen: SetIndex,
    (shown, damage): (ShownSnapshots, ManifestDamage),
    start: &mut StartUp,
) -> Result<(), CliError> {
    let refused = match start.run(|context| try_key(repository, chosen, damage, context)) {
        Err(error) if error.kind() == ErrorKind::KeyMissing && shown == ShownSnapshots::All => error,
        tried => return Ok(tried?),
    };
    // Passphrases that were typed already are tried.
    start.stop_asking();
    let collection = repository.collection();
    let mut trials = KeyTrials { repository, context: start.context(), opens: HashMap::from([(chosen, false)]) };
    match candidates(&collection).into_iter().find(|snapshot| trials.opens_snapshot(snapshot)) {
        Some(snapshot) => {
            log::warn!("{refused}; other snapshots can be read, such as snapshots/{}", snapshot.name);
            Ok(())
        }
        None => Err(refused.into()),
    }
}

/// The snapshots in the order in which they are tried: the last of each branch, the first of each, and all others. The newest
/// come first each time.
fn candidates(collection: &Collection) -> Vec<&Snapshot> {
    let mut snapshots: Vec<&Snapshot> =
        collection.snapshots().iter().filter(|snapshot| !collection.is_removed(snapshot.set)).collect();
    snapshots.sort_by_key(|snapshot| {
        let branch = collection.branches().get(snapshot.branch);
        let rank = match branch.map(|branch| branch.len()) {
            Some(len) if snapshot.depth == len => 0,
            _ if snapshot.depth == 1 => 1,
            _ => 2,
        };
        (rank, std::cmp::Reverse(snapshot.time))
    });
    snapshots
}

/// The manifests that were tried.
struct KeyTrials<'a> {
    repository: &'a Arc<Repository>,
    context: &'a RequestContext,
    opens: HashMap<SetIndex, bool>,
}

impl KeyTrials<'_> {
    /// Returns true if the manifests of all sets of `snapshot` open, or all that could be tried.
    fn opens_snapshot(&mut self, snapshot: &Snapshot) -> bool {
        let is_first = self.opens.len() < MAX_TRIALS;
        let (own, base) = (snapshot.set, snapshot.lineage().first().copied());
        let rest = snapshot.lineage().iter().rev().copied();
        is_first && std::iter::once(own).chain(base).chain(rest).all(|set| self.opens(set))
    }

    fn opens(&mut self, set: SetIndex) -> bool {
        if self.opens.len() >= MAX_TRIALS {
            return self.opens.get(&set).copied().unwrap_or(true);
        }
        let (repository, context) = (self.repository, self.context);
        *self.opens.entry(set).or_insert_with(|| open_one_object(repository, set, context).is_ok())
    }
}

/// Tries the key on one manifest.
fn try_key(
    repository: &Arc<Repository>,
    set: SetIndex,
    damage: ManifestDamage,
    context: &RequestContext,
) -> Result<(), VolumeError> {
    match open_one_object(repository, set, context) {
        Ok(()) => Ok(()),
        Err(error) => match error.kind() {
            ErrorKind::Corrupt if damage == ManifestDamage::Refused => Err(error),
            ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::NotFound | ErrorKind::Archived => {
                log::error!("{error}");
                Ok(())
            }
            ErrorKind::Denied
            | ErrorKind::KeyMissing
            | ErrorKind::Timeout
            | ErrorKind::OverLimit
            | ErrorKind::Unsupported
            | ErrorKind::Invalid
            | ErrorKind::Io
            | ErrorKind::Cancelled
            | ErrorKind::WouldBlock => Err(error),
        },
    }
}

/// Opens the manifest of `set`, or the beginning of the signature archive of a set that has lost its manifest: to rebuild that
/// would need all its volumes.
fn open_one_object(repository: &Arc<Repository>, set: SetIndex, context: &RequestContext) -> Result<(), VolumeError> {
    match repository.set(set)?.is_rebuilt {
        true => repository.peek_signatures(set, context, &mut |_, _| Ok(())),
        false => repository.manifest(set, context).map(drop),
    }
}
