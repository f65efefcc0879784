//! The memory that tables of a stored object may take: in proportion to the object's stored bytes, and beyond that from a
//! share that all tables have in common.
//!
//! Compression turns a few stored bytes into any number of paths. Names in a backup compress well, so the ratio of trees is
//! wide: a million empty files with numbered names take 8.4 stored bytes each with gzip and 2.1 with bzip2, and 110 bytes of
//! memory; names of 200 bytes that differ in their numbers take 1.2 stored bytes each with bzip2, and 300 of memory. In a
//! member table such files take at most 10 and 24 bytes each.

use std::sync::Arc;

use super::error::VolumeError;
use dupfs_base::ErrorKind;
use dupfs_base::sync::{Permit, Semaphore};

/// Bytes of tables for each stored byte that an object always may have.
const MAX_RATIO: u64 = 256;
/// The same for the member table of a volume, which is compact.
const MAX_MEMBER_RATIO: u64 = 32;
/// Upper bound of a member table, as a multiple of the common share. The share is an eighth of `--memory`.
const MAX_MEMBER_SHARES: u64 = 5;
/// The same bound in bytes, if the share is small: the table of six million small files.
const MIN_MAX_MEMBER_BYTES: u64 = 64 << 20;
/// Bytes of a manifest's table for each volume that the store has: two paths of the greatest length, hash and places.
const MAX_VOLUME_BYTES: u64 = 2 * 4096 + 512;
/// Bytes that are taken from the common share at a time.
const STEP: u64 = 16 << 10;

/// The common share of memory for tables that are larger than the stored bytes of their objects explain.
#[derive(Clone, Debug)]
pub struct TableMemory {
    share: Semaphore,
    /// Upper bound of a member table without memory of the share.
    max_member_bytes: u64,
}

impl TableMemory {
    /// A share of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let max_member_bytes = bytes.saturating_mul(MAX_MEMBER_SHARES).max(MIN_MAX_MEMBER_BYTES);
        Self { share: Semaphore::new(bytes), max_member_bytes }
    }

    /// The allowance of the tables of `object`, which has `stored` bytes in the store.
    pub fn allowance(&self, object: &Arc<str>, stored: u64) -> TableAllowance {
        TableAllowance {
            object: Arc::clone(object),
            basis: TableBasis::StoredBytes(stored),
            max_bytes: stored.saturating_mul(MAX_RATIO),
            memory: self.clone(),
            borrowed: Vec::new(),
        }
    }

    /// The allowance of the member table of the volume `object`, which has `stored` bytes in the store.
    pub fn member_allowance(&self, object: &Arc<str>, stored: u64) -> TableAllowance {
        let max_bytes = stored.saturating_mul(MAX_MEMBER_RATIO).min(self.max_member_bytes);
        TableAllowance { max_bytes, ..self.allowance(object, stored) }
    }

    /// The allowance of the list of volumes in the manifest `object`, which has `stored` bytes in the store. `volumes` is the
    /// number of the volumes of its set that the store has.
    pub fn manifest_allowance(&self, object: &Arc<str>, stored: u64, volumes: usize) -> TableAllowance {
        let listed = (volumes as u64).saturating_mul(MAX_VOLUME_BYTES);
        TableAllowance {
            basis: TableBasis::Volumes(volumes),
            max_bytes: stored.saturating_mul(MAX_RATIO).min(listed),
            ..self.allowance(object, stored)
        }
    }
}

/// The property of an object that its tables are in proportion to.
#[derive(Clone, Copy, Debug)]
enum TableBasis {
    /// Stored bytes.
    StoredBytes(u64),
    /// The volumes of the set that are in the store.
    Volumes(usize),
}

/// The memory that the tables of one object may take. Its part of the common share is returned on drop: it exists as
/// long as the tables.
#[derive(Debug)]
pub struct TableAllowance {
    object: Arc<str>,
    basis: TableBasis,
    max_bytes: u64,
    memory: TableMemory,
    borrowed: Vec<Permit>,
}

impl TableAllowance {
    /// Checks that the tables may take `bytes` together. Never waits.
    ///
    /// # Errors
    /// [`VolumeError`] of the kind `Unsupported` (`Corrupt` for a list of volumes): no ordinary object has such tables,
    /// or other such objects have used up the common share.
    pub fn check(&mut self, bytes: u64) -> Result<(), VolumeError> {
        while bytes > self.max_bytes {
            let wanted = bytes.saturating_sub(self.max_bytes).max(STEP);
            let permit = self.memory.share.try_acquire(wanted).filter(|permit| permit.count() >= wanted);
            let permit = permit.ok_or_else(|| self.exceeded(bytes))?;
            self.max_bytes = self.max_bytes.saturating_add(wanted);
            self.borrowed.push(permit);
        }
        Ok(())
    }

    /// The error that tables of `bytes` are refused.
    fn exceeded(&self, bytes: u64) -> VolumeError {
        let (kind, reason) = match self.basis {
            TableBasis::StoredBytes(stored) => (
                ErrorKind::Unsupported,
                format!(
                    "its tables of paths take {bytes} bytes of memory or more, and it has {stored} bytes itself: no backup is \
                 compressed so well, so it is damaged or forged; if it is sound, raise --memory"
                ),
            ),
            // The listing contradicts it. Other sets are still shown, as with other damage in a manifest.
            TableBasis::Volumes(volumes) => (
                ErrorKind::Corrupt,
                format!(
                    "its list of volumes takes {bytes} bytes of memory or more, and the store has {volumes} of them: it is \
                 damaged or forged, or most of the volumes were removed; if it is sound, raise --memory"
                ),
            ),
        };
        VolumeError::object(&self.object, kind, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dupfs_base::HasKind;

    #[test]
    fn tables_in_proportion_to_the_object_take_nothing_of_the_common_share() {
        let memory = TableMemory::new(4 * STEP);
        let mut sound = memory.allowance(&"sound".into(), 1000);
        sound.check(1000 * MAX_RATIO).unwrap();
        assert_eq!(memory.share.available(), 4 * STEP);
        let mut forged = memory.allowance(&"forged".into(), 10);
        forged.check(10 * MAX_RATIO + 3 * STEP).unwrap();
        let error = forged.check(10 * MAX_RATIO + 4 * STEP + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().starts_with("forged: its tables of paths take"), "{error}");
        memory.allowance(&"other".into(), 10).check(2 * STEP).unwrap_err();
        sound.check(1000 * MAX_RATIO).unwrap();
        drop(forged);
        memory.allowance(&"other".into(), 10).check(2 * STEP).unwrap();
        let mut manifest = memory.manifest_allowance(&"manifest".into(), 1 << 20, 3);
        manifest.check(3 * MAX_VOLUME_BYTES).unwrap();
        let error = manifest.check(3 * MAX_VOLUME_BYTES + 5 * STEP).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("the store has 3 of them"), "{error}");
        drop(manifest);
        let mut members = memory.member_allowance(&"volume".into(), 1000);
        members.check(1000 * MAX_MEMBER_RATIO + 4 * STEP).unwrap();
        assert_eq!(memory.share.available(), 0);
        assert_eq!(members.check(1000 * MAX_MEMBER_RATIO + 4 * STEP + 1).unwrap_err().kind(), ErrorKind::Unsupported);
        drop(members);
        let mut dense = memory.member_allowance(&"volume".into(), 1 << 30);
        dense.check(MIN_MAX_MEMBER_BYTES + 4 * STEP).unwrap();
        dense.check(MIN_MAX_MEMBER_BYTES + 4 * STEP + 1).unwrap_err();
        drop(dense);
        assert_eq!(memory.share.available(), 4 * STEP);
    }
}
