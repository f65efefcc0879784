//! Files of the file system below as sources.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::error::FsError;
use super::super::ops::{FileSystem, Ino};
use dupfs_base::sync::lock;
use dupfs_base::{HasKind, RequestContext};
use dupfs_unpack::{ByteSource, StoredOrigin, UnpackError};

/// The time after a read for which its file counts as being unpacked.
const RECENT: Duration = Duration::from_secs(2);

/// The last read of a stored file: the time, the end of the read, and the size of the file.
#[derive(Debug, Default)]
pub(super) struct LastStoredRead(Mutex<Option<(Instant, u64, u64)>>);

impl LastStoredRead {
    fn record(&self, end: u64, size: u64) {
        *lock(&self.0) = Some((Instant::now(), end.min(size), size));
    }

    /// The end of the last read and the size of its file, unless that was long ago.
    pub(super) fn recent(&self) -> Option<(u64, u64)> {
        let last = *lock(&self.0);
        last.filter(|(time, ..)| time.elapsed() < RECENT).map(|(_, end, size)| (end, size))
    }
}

/// A regular file of the file system below, open as long as this exists.
pub(super) struct StoredFile {
    below: Arc<dyn FileSystem>,
    ino: Ino,
    handle: u64,
    size: u64,
    name: Arc<str>,
    identity: Option<Arc<[u8]>>,
    last_read: Arc<LastStoredRead>,
}

impl StoredFile {
    /// Opens it, which finds its exact size. Its reads are recorded in `last_read`.
    pub(super) fn open(
        below: &Arc<dyn FileSystem>,
        ino: Ino,
        last_read: &Arc<LastStoredRead>,
        context: &RequestContext,
    ) -> Result<Self, FsError> {
        let attr = below.getattr(ino, context)?;
        let handle = below.open(ino, context)?.handle;
        let name: Arc<str> = below.path(ino).unwrap_or_else(|| format!("inode {ino}")).into();
        let identity = below.content_identity(ino, context).map(Arc::from);
        let last_read = Arc::clone(last_read);
        Ok(Self { below: Arc::clone(below), ino, handle, size: attr.size, name, identity, last_read })
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        self.below.release(self.ino, self.handle);
    }
}

impl std::fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ByteSource for StoredFile {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        self.last_read.record(offset.saturating_add(len as u64), self.size);
        self.below
            .read(self.ino, self.handle, offset, len, context)
            .map_err(|error| UnpackError::Source { kind: error.kind(), reason: error.to_string().into() })
    }

    fn origin(&self) -> StoredOrigin {
        StoredOrigin::file(self.ino, self.size)
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.size)
    }

    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.size)
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        self.identity.clone()
    }

    fn verified_early(&self) -> bool {
        true
    }
}

impl From<UnpackError> for FsError {
    fn from(error: UnpackError) -> Self {
        Self::failed(error.kind(), error.to_string())
    }
}
