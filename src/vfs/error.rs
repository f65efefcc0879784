//! Failures of file system operations, and the one place where a class becomes an errno.

use std::sync::Arc;

use crate::types::{Classified, ErrorClass};

/// A failure of a file system operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FsError {
    /// The answer needs the store or decoding, and the caller said it cannot wait.
    #[error("the answer is not at hand")]
    WouldBlock,
    /// The operation failed; the line says on which object, why, and what to do.
    #[error("{message}")]
    Failed {
        /// What it means.
        class: ErrorClass,
        /// One line for the log.
        message: Arc<str>,
    },
    /// The inode is not a directory.
    #[error("not a directory")]
    NotDir,
    /// The inode is a directory.
    #[error("is a directory")]
    IsDir,
}

impl FsError {
    /// A failure of `class` described by `message`.
    pub fn failed(class: ErrorClass, message: impl AsRef<str>) -> Self {
        Self::Failed { class, message: message.as_ref().into() }
    }

    /// The name or inode does not exist.
    pub fn not_found() -> Self {
        Self::failed(ErrorClass::NotFound, "no such file or directory")
    }

    /// The errno to answer with. A new class does not compile until somebody chooses its errno.
    pub fn errno(&self) -> i32 {
        match self {
            Self::WouldBlock => libc::EAGAIN,
            Self::NotDir => libc::ENOTDIR,
            Self::IsDir => libc::EISDIR,
            Self::Failed { class, .. } => match class {
                ErrorClass::NotFound => libc::ENOENT,
                ErrorClass::Denied => libc::EACCES,
                ErrorClass::KeyMissing => libc::ENOKEY,
                ErrorClass::Timeout => libc::ETIMEDOUT,
                ErrorClass::Cold => libc::EREMOTE,
                // Not ENOENT: the path exists, its data does not (rsync --delete would act on ENOENT).
                ErrorClass::Corrupt | ErrorClass::Missing | ErrorClass::Io => libc::EIO,
                ErrorClass::Unsupported => libc::EOPNOTSUPP,
                ErrorClass::Invalid => libc::EINVAL,
            },
        }
    }
}

impl Classified for FsError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::WouldBlock => ErrorClass::Io,
            Self::Failed { class, .. } => *class,
            Self::NotDir | Self::IsDir => ErrorClass::Invalid,
        }
    }
}
