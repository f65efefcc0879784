//! Reads all encrypted signature archives and compares them with the manifests of their sets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::reported_problem::ReportedProblem;
use crate::cli::exit::CommandExit;
use crate::cli::request_timeout::RequestTimeout;
use dupfs_base::{ErrorKind, HasKind};
use dupfs_format::collection::{BackupSet, Severity};
use dupfs_read::volume::{Repository, VolumeError};

/// Signature archives read at a time.
const READERS: usize = 4;

/// The result of reading the signature archives.
pub(super) struct CheckedSignatures {
    /// The problems of archives that are damaged, or of another set.
    pub(super) problems: Vec<ReportedProblem>,
    /// Done, or the reason why an archive could not be read although it may be whole.
    pub(super) completeness: CommandExit,
}

/// Reads the encrypted signature archives of the sets with encrypted manifests, several at a time. Anyone can write a pair
/// that is not encrypted and agrees, so nothing is read of other sets.
pub(super) fn check_all(repository: &Arc<Repository>, timeout: RequestTimeout) -> CheckedSignatures {
    let collection = repository.collection();
    let sets = collection.sets();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let is_checked = |set: &BackupSet| set.manifest.is_some() && set.signatures.is_some();
    let checked = sets.iter().filter(|set| is_checked(set));
    let lens: Vec<u64> = checked.map(|set| repository.signatures_check_len(set.index)).collect();
    let expected = repository.expect_fetch(lens.iter().copied().fold(0, u64::saturating_add), lens.len());
    let work = || {
        while let Some(set) = sets.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !is_checked(set) {
                continue;
            }
            if let Err(error) = repository.check_signatures(set.index, &timeout.start()) {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(set.index, (set, error));
            }
            expected.advance();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..READERS.min(sets.len()) {
            // Without a thread the others read them all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut checked = CheckedSignatures { problems: Vec::new(), completeness: CommandExit::Done };
    for (set, error) in found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
        let (severity, code) = match (&error, error.kind()) {
            (VolumeError::OtherSignatures { .. }, _) => (Severity::Error, "signature-exchanged"),
            (_, ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::Unsupported | ErrorKind::KeyMissing) => {
                (Severity::Warning, "signature-unreadable")
            }
            // The names have reported it.
            (_, ErrorKind::Archived) => continue,
            (_, kind) => {
                log::error!("{error}");
                checked.completeness = checked.completeness.max(CommandExit::of(kind));
                continue;
            }
        };
        let object = set.signatures.as_ref().map(|object| object.name.to_string());
        let problem = ReportedProblem::new(severity, code, Some(set), error.to_string());
        checked.problems.push(ReportedProblem { object, ..problem });
    }
    checked
}
