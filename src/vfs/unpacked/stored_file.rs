//! Files of the file system below as sources.

use std::sync::Arc;

use super::super::error::FsError;
use super::super::ops::{FileSystem, Ino};
use dupfs_base::{HasKind, RequestContext};
use dupfs_unpack::{ByteSource, StoredOrigin, UnpackError};

/// A regular file of the file system below, open as long as this exists.
pub(super) struct StoredFile {
    below: Arc<dyn FileSystem>,
    ino: Ino,
    handle: u64,
    size: u64,
    name: Arc<str>,
    identity: Option<Arc<[u8]>>,
}

impl StoredFile {
    /// Opens it, which finds its exact size.
    pub(super) fn open(below: &Arc<dyn FileSystem>, ino: Ino, context: &RequestContext) -> Result<Self, FsError> {
        let attr = below.getattr(ino, context)?;
        let handle = below.open(ino, context)?.handle;
        let name: Arc<str> = below.path(ino).unwrap_or_else(|| format!("inode {ino}")).into();
        let identity = below.content_identity(ino, context).map(Arc::from);
        Ok(Self { below: Arc::clone(below), ino, handle, size: attr.size, name, identity })
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
