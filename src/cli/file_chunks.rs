//! The content of a file of the backup, in order.

use dupfs_base::RequestContext;

use crate::vfs::{FileSystem, FsError, Ino};

/// Bytes of one read.
pub(super) const CHUNK: usize = 1 << 20;

/// Reads an open file in chunks of [`CHUNK`] bytes, the last one shorter. The file is closed when it is dropped.
pub(super) struct FileChunks<'a, C> {
    fs: &'a dyn FileSystem,
    ino: Ino,
    handle: u64,
    /// The context of each call.
    context: C,
    offset: u64,
    ended: bool,
}

impl<'a, C: Fn() -> RequestContext> FileChunks<'a, C> {
    /// Opens `ino`. Each call of the file system gets a `context`.
    ///
    /// # Errors
    /// Those of [`FileSystem::open`].
    pub(super) fn open(fs: &'a dyn FileSystem, ino: Ino, context: C) -> Result<Self, FsError> {
        Self::open_at(fs, ino, 0, context)
    }

    /// As [`FileChunks::open`]. The first chunk may come before the size is known.
    ///
    /// # Errors
    /// Those of [`FileSystem::open_unsized`].
    pub(super) fn open_unsized(fs: &'a dyn FileSystem, ino: Ino, context: C) -> Result<Self, FsError> {
        let handle = fs.open_unsized(ino, &context())?.handle;
        Ok(Self { fs, ino, handle, context, offset: 0, ended: false })
    }

    /// As [`FileChunks::open`]. The first chunk is the one at `offset`.
    ///
    /// # Errors
    /// Those of [`FileSystem::open`].
    pub(super) fn open_at(fs: &'a dyn FileSystem, ino: Ino, offset: u64, context: C) -> Result<Self, FsError> {
        let handle = fs.open(ino, &context())?.handle;
        Ok(Self { fs, ino, handle, context, offset, ended: false })
    }

    /// The end of the last chunk that was read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next chunk; `None` after the last one. After an error the same chunk is read again.
    ///
    /// # Errors
    /// Those of [`FileSystem::read`].
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FsError> {
        if self.ended {
            return Ok(None);
        }
        let bytes = self.fs.read(self.ino, self.handle, self.offset, CHUNK, &(self.context)())?;
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        // Fewer bytes than requested are returned only at the end of the file.
        self.ended = bytes.len() < CHUNK;
        Ok(Some(bytes))
    }
}

impl<C> Drop for FileChunks<'_, C> {
    fn drop(&mut self) {
        self.fs.release(self.ino, self.handle);
    }
}
