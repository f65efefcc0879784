//! Serving a [`crate::vfs::FileSystem`] through the kernel.
//!
//! `adapter`, `attributes` and `mounted` are the only files that use the FUSE crate. A request is answered on the FUSE
//! thread if the answer is in memory; otherwise its reply moves to a worker (`worker_pool`), under a deadline (`deadline`),
//! so that a volume being decoded never delays an answer that is cached.
//!
//! Lock order: none. Each lock here is a leaf: no other lock, no file system call and no reply happens under it.

mod adapter;
mod attributes;
mod closed_files;
mod deadline;
mod dir_batch;
mod failure_log;
mod mount_error;
mod mount_status;
mod mounted;
mod mountinfo;
mod mountpoint;
mod recent_errors;
mod stream_readers;
mod unmount;
mod waiter;
mod worker_pool;

pub use adapter::{ERRORS_ATTRIBUTE, PID_ATTRIBUTE, pid_namespace};
pub use mount_error::MountError;
pub use mount_status::{MAX_STATUS_BYTES, MountStatus, STATUS_ATTRIBUTE, WaitStatus};
pub use mounted::{DEFAULT_DEADLINE, MOUNT_DEADLINE, MountEnd, MountSettings, Mounted};
pub use mountinfo::{MountEntry, dupfs_mounts, mount_at, mount_on, remote_mount_above};
pub use mountpoint::{MountPoint, check_device};
pub use unmount::{UnmountError, unmount, unmount_stale};
