//! The progress of a verification on a terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dupfs_base::sync::lock;
use dupfs_format::ObjectInfo;
use dupfs_format::collection::BackupSet;
use dupfs_read::storage::ActiveTransfer;
use dupfs_read::volume::{ExpectedProgress, Repository};

use crate::cli::fetch_progress::{FetchProgress, WorkProgress};
use crate::cli::quantities::human_bytes;

/// The objects that are read, and the files of a set that are compared.
#[derive(Debug)]
pub(super) struct VerifyProgress {
    counts: Arc<Mutex<VerifyCounts>>,
    /// Removes the line when it is dropped.
    _line: FetchProgress,
}

/// The state of the progress.
#[derive(Debug, Default)]
struct VerifyCounts {
    /// The volumes that were read, and all to read.
    volumes: (u64, u64),
    /// The bytes of the objects that were read, and of all to read.
    bytes: (u64, u64),
    /// Bytes that came of each object that is not read to its end.
    begun: HashMap<Arc<str>, u64>,
    /// Number of the files of a set that are to be compared; `None` while objects are read.
    files: Option<usize>,
    /// Bytes of files that were compared.
    compared: u64,
}

impl VerifyProgress {
    /// The progress of reading `volumes` and the signature archives of `sets`.
    pub(super) fn new<'a>(
        repository: &Arc<Repository>,
        volumes: impl Iterator<Item = &'a ObjectInfo>,
        sets: &[Arc<BackupSet>],
    ) -> Self {
        let mut counts = VerifyCounts::default();
        for object in volumes {
            counts.volumes.1 = counts.volumes.1.saturating_add(1);
            counts.bytes.1 = counts.bytes.1.saturating_add(object.size);
        }
        let archives = sets.iter().filter_map(|set| set.signatures.as_ref()).map(|object| object.size);
        counts.bytes.1 = archives.fold(counts.bytes.1, u64::saturating_add);
        let counts = Arc::new(Mutex::new(counts));
        let (shared, repository) = (Arc::clone(&counts), Arc::clone(repository));
        let line = FetchProgress::begin(move || {
            // An object that is counted as read meanwhile is not among the transfers.
            let mut counts = lock(&shared);
            let status = repository.status();
            counts.work(&status.transfers, status.bytes_per_second)
        });
        Self { counts, _line: line }
    }

    /// Counts a volume.
    pub(super) fn volume(&self, object: Option<&ObjectInfo>) {
        let mut counts = lock(&self.counts);
        counts.volumes.0 = counts.volumes.0.saturating_add(1);
        counts.read(object);
    }

    /// Counts a signature archive. Volumes that its comparison has read again are not counted.
    pub(super) fn signatures(&self, object: Option<&ObjectInfo>) {
        let mut counts = lock(&self.counts);
        counts.read(object);
        counts.begun.clear();
    }

    /// Shows that `left` files of a set are to be compared.
    pub(super) fn files(&self, left: usize) {
        lock(&self.counts).files = Some(left);
    }

    /// Counts `bytes` of a file that is compared.
    pub(super) fn compared(&self, bytes: usize) {
        let mut counts = lock(&self.counts);
        counts.compared = counts.compared.saturating_add(bytes as u64);
    }

    /// Ends the comparison of files.
    pub(super) fn end_files(&self) {
        let mut counts = lock(&self.counts);
        (counts.files, counts.compared) = (None, 0);
    }

    /// Leaves out the objects of a set, which are not read.
    pub(super) fn skip<'a>(&self, volumes: impl Iterator<Item = &'a ObjectInfo>, signatures: Option<&ObjectInfo>) {
        let mut counts = lock(&self.counts);
        let mut bytes = signatures.map_or(0, |object| object.size);
        for object in volumes {
            counts.volumes.1 = counts.volumes.1.saturating_sub(1);
            bytes = bytes.saturating_add(object.size);
        }
        counts.bytes.1 = counts.bytes.1.saturating_sub(bytes);
    }
}

impl VerifyCounts {
    fn read(&mut self, object: Option<&ObjectInfo>) {
        if let Some(object) = object {
            self.begun.remove(&object.name);
            self.bytes.0 = self.bytes.0.saturating_add(object.size);
        }
    }

    /// The work while `transfers` are in progress.
    fn work(&mut self, transfers: &[ActiveTransfer], bytes_per_second: u64) -> WorkProgress {
        let (volume, volumes) = self.volumes;
        let volume = format!("volume {} of {volumes}, ", volume.saturating_add(1).min(volumes));
        let objects = transfers.iter().filter_map(|transfer| Some((transfer.object.as_ref()?, transfer)));
        if let Some(files) = self.files {
            let read = human_bytes(self.compared);
            let text = format!("{volume}{files} files of this set to compare, {read} of them read");
            let sums = objects.fold((0u64, 0u64), |(bytes, size), (_, transfer)| {
                (bytes.saturating_add(transfer.bytes), size.saturating_add(transfer.size))
            });
            let fetching = Some(sums).filter(|(_, size)| *size > 0);
            return WorkProgress { text: Some(text), fetching, bytes_per_second, ..WorkProgress::default() };
        }
        for (name, transfer) in objects {
            // A read that is repeated begins again.
            let bytes = self.begun.entry(Arc::clone(name)).or_default();
            *bytes = transfer.bytes.max(*bytes);
        }
        let fetched = self.begun.values().copied().fold(self.bytes.0, u64::saturating_add).min(self.bytes.1);
        let expected = ExpectedProgress { fetched, expected: self.bytes.1, sets: (0, 0) };
        WorkProgress { text: Some(volume), expected: Some(expected), bytes_per_second, ..WorkProgress::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn object(name: &str, size: u64) -> ObjectInfo {
        ObjectInfo { name: name.into(), size, version: "1".into(), class: None, archived: None }
    }

    fn transfer(name: &str, bytes: u64, size: u64) -> ActiveTransfer {
        ActiveTransfer { object: Some(name.into()), size, bytes, elapsed: Duration::from_secs(1) }
    }

    #[test]
    fn progress_moves_with_the_bytes_that_come_and_never_back() {
        let mut counts = VerifyCounts { volumes: (0, 3), bytes: (0, 500), ..VerifyCounts::default() };
        let fetched = |counts: &mut VerifyCounts, transfers: &[ActiveTransfer]| {
            let work = counts.work(transfers, 7);
            (work.text.unwrap(), work.expected.map(|expected| (expected.fetched, expected.expected)))
        };
        let one = "volume 1 of 3, ".to_owned();
        assert_eq!(fetched(&mut counts, &[]), (one.clone(), Some((0, 500))));
        let two = [transfer("a", 10, 200), transfer("b", 20, 200)];
        assert_eq!(fetched(&mut counts, &two), (one.clone(), Some((30, 500))));
        // The second has come, and waits for the first, whose request is repeated.
        assert_eq!(fetched(&mut counts, &[transfer("b", 200, 200)]), (one.clone(), Some((210, 500))));
        assert_eq!(fetched(&mut counts, &[transfer("a", 3, 200)]), (one, Some((210, 500))));
        counts.volumes.0 = 1;
        counts.read(Some(&object("a", 200)));
        assert_eq!(fetched(&mut counts, &[]), ("volume 2 of 3, ".to_owned(), Some((400, 500))));
        counts.read(Some(&object("b", 200)));
        counts.volumes.0 = 2;
        assert_eq!(fetched(&mut counts, &[]), ("volume 3 of 3, ".to_owned(), Some((400, 500))));
        // Files are compared: what is read again does not count.
        (counts.files, counts.compared) = (Some(12), 3 << 20);
        let work = counts.work(&[transfer("a", 50, 200)], 7);
        assert_eq!((work.expected, work.fetching), (None, Some((50, 200))));
        assert_eq!(work.text.unwrap(), "volume 3 of 3, 12 files of this set to compare, 3.0 MiB of them read");
        assert_eq!(counts.work(&[], 7).fetching, None);
        counts.files = None;
        assert_eq!(fetched(&mut counts, &[]), ("volume 3 of 3, ".to_owned(), Some((400, 500))));
    }
}
