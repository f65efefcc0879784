//! Failures of file system operations, and their errno.

use std::sync::Arc;

use dupfs_base::{ErrorKind, HasKind};

/// A failure of a file system operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FsError {
    /// The answer needs the store or decoding, and the request may not block.
    #[error("the answer is not cached")]
    WouldBlock,
    /// The operation failed; the message names the object, the reason and the remedy.
    #[error("{message}")]
    Failed {
        /// The kind of the failure.
        kind: ErrorKind,
        /// One line for the log.
        message: Arc<str>,
    },
    /// The inode is not a directory.
    #[error("not a directory")]
    NotDir,
    /// The inode is a directory.
    #[error("is a directory")]
    IsDir,
    /// A read for the page cache begins after the end of the file: the kernel does not know the size. See
    /// [`super::FileSystem::read_page`].
    #[error("beyond the end of the file")]
    BeyondEnd,
}

impl FsError {
    /// A failure of `kind` described by `message`; [`Self::WouldBlock`] where the kind says so.
    pub fn failed(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        if kind == ErrorKind::WouldBlock {
            return Self::WouldBlock;
        }
        Self::Failed { kind, message: message.as_ref().into() }
    }

    /// The name or inode does not exist.
    pub fn not_found() -> Self {
        Self::failed(ErrorKind::NotFound, "no such file or directory")
    }

    /// The errno to answer with.
    pub fn errno(&self) -> i32 {
        match self {
            Self::WouldBlock => libc::EAGAIN,
            Self::NotDir => libc::ENOTDIR,
            Self::IsDir => libc::EISDIR,
            Self::BeyondEnd => libc::EIO,
            Self::Failed { kind, .. } => match kind {
                ErrorKind::NotFound => libc::ENOENT,
                ErrorKind::Denied => libc::EACCES,
                ErrorKind::KeyMissing => libc::ENOKEY,
                ErrorKind::Timeout => libc::ETIMEDOUT,
                ErrorKind::Archived => libc::EREMOTE,
                ErrorKind::OverLimit => libc::EDQUOT,
                // Not ENOENT: the path exists, its data does not (rsync --delete would act on ENOENT).
                ErrorKind::Corrupt | ErrorKind::Missing | ErrorKind::Io => libc::EIO,
                ErrorKind::Unsupported => libc::EOPNOTSUPP,
                ErrorKind::Invalid => libc::EINVAL,
                ErrorKind::Cancelled => libc::EINTR,
                ErrorKind::WouldBlock => libc::EAGAIN,
            },
        }
    }
}

impl HasKind for FsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::WouldBlock => ErrorKind::WouldBlock,
            Self::Failed { kind, .. } => *kind,
            Self::NotDir | Self::IsDir | Self::BeyondEnd => ErrorKind::Invalid,
        }
    }
}
