//! The operations of a mounted tree without FUSE types: the contract between the tree and its users.

use dupfs_base::RequestContext;
use dupfs_read::volume::{ExpectedProgress, SignedContent};
use std::time::Duration;

use super::error::FsError;
use super::fs_status::FsStatus;

/// An inode number. The root is [`ROOT_INO`]; numbers are stable over remounts of the same backup.
pub type Ino = u64;

/// The root's inode number.
pub const ROOT_INO: Ino = 1;

/// Type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// Attributes of an inode, as `stat` shows them. It is a flat record, because its fields are those of `stat` and of the
/// kernel's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Type.
    pub kind: NodeKind,
    /// The low 12 mode bits.
    pub perm: u16,
    /// Link count: 1, for directories 2 plus the number of subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; an upper bound if `exact` is false.
    pub size: u64,
    /// Size in 512-byte blocks.
    pub blocks: u64,
    /// Modification time, whole seconds since 1970-01-01 UTC.
    pub mtime: i64,
    /// Device number (major, minor) of device nodes.
    pub rdev: (u32, u32),
    /// True if `size` is the exact size. `lookup` and `readdir` may answer before it is known; `getattr` returns exact sizes
    /// only (or the bound under `-o sizes=bound`, and then `attr_ttl` is zero).
    pub exact: bool,
    /// The time for which these attributes may be cached. Zero when `exact` is false.
    pub attr_ttl: Duration,
    /// The time for which the name that led here may be cached.
    pub entry_ttl: Duration,
}

impl Attr {
    /// Attributes with number and kind only, which may not be cached.
    pub fn type_only(ino: Ino, kind: NodeKind) -> Self {
        Self {
            ino,
            kind,
            perm: 0,
            nlink: 1,
            uid: 0,
            gid: 0,
            size: 0,
            blocks: 0,
            mtime: 0,
            rdev: (0, 0),
            exact: false,
            attr_ttl: Duration::ZERO,
            entry_ttl: Duration::ZERO,
        }
    }
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: Ino,
    /// Type.
    pub kind: NodeKind,
    /// The offset at which the listing continues after this entry.
    pub next_offset: u64,
    /// The name's raw bytes.
    pub name: &'a [u8],
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Handle to pass to `read` and `release`.
    pub handle: u64,
    /// True if the kernel may keep the pages of earlier opens: the content of this inode never changes.
    pub keep_cache: bool,
    /// True if the kernel must not cache or trust the size (content of unknown length).
    pub direct_io: bool,
}

/// The values of `statfs`; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsStats {
    /// Bytes of the backup's objects in the store.
    pub total_bytes: u64,
    /// Number of inodes known so far.
    pub files: u64,
}

/// A read-only file system over inode numbers. All methods may be called from many threads at once, and none holds a
/// lock while it fetches or decodes.
pub trait FileSystem: Send + Sync {
    /// The attributes of `name` in directory `parent`.
    ///
    /// # Errors
    /// [`FsError`]: NotFound only when the name is known not to exist.
    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError>;

    /// The attributes of `ino`, with the exact size.
    ///
    /// # Errors
    /// [`FsError`] when the size cannot be determined: never a wrong size.
    fn getattr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError>;

    /// The attributes of `ino` for a process that has opened it and reads it to its end whatever its size is. They do not wait for
    /// a size or an end that is not known: the size is 0 and not exact then, as those in `/proc`.
    ///
    /// # Errors
    /// As [`Self::getattr`].
    fn reader_attr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        self.getattr(ino, context)
    }

    /// The target of symbolic link `ino`.
    ///
    /// # Errors
    /// [`FsError`]; Invalid if it is no link.
    fn readlink(&self, ino: Ino, context: &RequestContext) -> Result<Vec<u8>, FsError>;

    /// The parent directory of directory `ino`; the root's parent is the root.
    ///
    /// # Errors
    /// [`FsError`]; Invalid if it is no directory.
    fn parent(&self, ino: Ino, context: &RequestContext) -> Result<Ino, FsError>;

    /// Emits the entries of directory `ino` after `offset` (0 for the start; `.` and `..` are the caller's), until
    /// `emit` returns false.
    ///
    /// # Errors
    /// [`FsError`]: a directory that cannot be read is an error, never an empty listing.
    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError>;

    /// Opens regular file `ino` for reading.
    ///
    /// # Errors
    /// [`FsError`] when the content cannot be located.
    fn open(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError>;

    /// As [`Self::open`], for a program that reads the file from its beginning to its end whatever its size is: a large file is
    /// opened without its size if that is not known, so that the volume with its end is not fetched before the others.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn open_unsized(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        self.open(ino, context)
    }

    /// Up to `size` bytes of `ino` at `offset`; shorter only at the end of the file.
    ///
    /// # Errors
    /// [`FsError`] when a byte of the range cannot be served: never fewer bytes instead.
    fn read(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError>;

    /// As [`Self::read`], for the page cache, from which the kernel serves all readers of `ino`, and past which it reads if it
    /// does not know the size. Fewer bytes end the file for the kernel, at `offset` plus their number.
    ///
    /// # Errors
    /// As [`Self::read`]; [`FsError::BeyondEnd`] if the file ends before `offset`: the end would be too late.
    fn read_page(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let bytes = self.read(ino, handle, offset, size, context)?;
        if bytes.is_empty() && size > 0 && offset > self.getattr(ino, context)?.size {
            return Err(FsError::BeyondEnd);
        }
        Ok(bytes)
    }

    /// Ends the use of `handle`.
    fn release(&self, ino: Ino, handle: u64);

    /// The value of an extended attribute, `None` if no attribute has that name. Attributes are never listed.
    ///
    /// # Errors
    /// [`FsError`].
    fn getxattr(&self, ino: Ino, name: &[u8], context: &RequestContext) -> Result<Option<Vec<u8>>, FsError>;

    /// Lists the store again and shows the changes. Returns them in one line, `None` if there are none. Existing objects and
    /// their inode numbers do not change. Blocks on the store: not for a thread that serves requests.
    ///
    /// # Errors
    /// [`FsError`] when the store cannot be listed; then nothing changes.
    fn refresh(&self, context: &RequestContext) -> Result<Option<String>, FsError> {
        let _ = context;
        Ok(None)
    }

    /// As [`Self::lookup`] without blocking, for a listing that can show a name without its attributes: if these would
    /// need more than the listing, any error but WouldBlock.
    ///
    /// # Errors
    /// [`FsError`]; after WouldBlock the caller calls `lookup` on a thread that may block.
    fn lookup_listed(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.lookup(parent, name, &RequestContext::cached_only())
    }

    /// Identifies the content of regular file `ino` among all others, also after a remount, as long as the objects it consists
    /// of do not change; `None` if that is not possible. Begins with the eight bytes of its group in the index.
    fn content_identity(&self, ino: Ino, context: &RequestContext) -> Option<Vec<u8>> {
        let _ = (ino, context);
        None
    }

    /// The content of regular file `ino` as its signature has it, to recognize a copy without reading the file; `None` if it
    /// has no signature that can be used.
    ///
    /// # Errors
    /// [`FsError`] when the signature archive cannot be read.
    fn signed_content(&self, ino: Ino, context: &RequestContext) -> Result<Option<SignedContent>, FsError> {
        let _ = (ino, context);
        Ok(None)
    }

    /// The path of `ino` in its snapshot, with the snapshot's name in front, for messages.
    fn path(&self, ino: Ino) -> Option<String> {
        let _ = ino;
        None
    }

    /// The inode of the stored file that reads of the open handle `handle` of `ino` fetch: `ino` itself, unless it is unpacked.
    fn stored_ino(&self, ino: Ino, handle: u64) -> Ino {
        let _ = handle;
        ino
    }

    /// Records that the reader of the stored file `ino` has exited. The prefetch for it stops, also if a handle is
    /// still open.
    fn leave(&self, ino: Ino) {
        let _ = ino;
    }

    /// Returns true if the store is read in advance of a reader.
    fn is_prefetching(&self) -> bool {
        false
    }

    /// Stops the work in the background that no request waits for: a reader was interrupted, and may not return.
    fn stop_prefetch(&self) {}

    /// The snapshots that are shown, in one line for the user; `None` if there are none.
    fn summary(&self) -> Option<String> {
        None
    }

    /// Returns true if the root has `latest`, `snapshots` and so on, and not the tree of one snapshot.
    fn shows_snapshots(&self) -> bool {
        false
    }

    /// The directory that was backed up, as it was typed then; `None` if the tree of no single snapshot is at the root, or
    /// the backup does not name it.
    fn source_directory(&self, context: &RequestContext) -> Option<Vec<u8>> {
        let _ = context;
        None
    }

    /// The requests and bytes fetched so far, in one line; `None` if that is not counted.
    fn cost(&self) -> Option<String> {
        None
    }

    /// The progress of the fetches that requests expect now; `None` if there are none, or that is not counted. It never waits.
    fn expected_progress(&self) -> Option<ExpectedProgress> {
        None
    }

    /// The number of objects at and below `ino`, if it can be counted without a walk over them.
    fn count_objects(&self, ino: Ino) -> Option<u64> {
        let _ = ino;
        None
    }

    /// Bytes that were read of the stored file that is being unpacked now, and its size; `None` if none is. It never waits.
    fn unpacking(&self) -> Option<(u64, u64)> {
        None
    }

    /// The activity of the file system, and its caches. It never waits for the store, the disk or a request; all zero if nothing
    /// is counted.
    fn status(&self) -> FsStatus {
        FsStatus::default()
    }

    /// Returns true if a request for `ino` may need to unpack something, which takes longer than all others: one for the `names`
    /// in it, or for its size or content.
    fn unpacks(&self, _ino: Ino, _names: bool) -> bool {
        false
    }

    /// Stores the index for the next mount, and waits until it is stored.
    fn finish(&self) {}

    /// Sizes for `statfs`; never touches the store.
    fn stats(&self) -> FsStats;
}
