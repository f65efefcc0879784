//! Backups on S3, end to end: the program against a real S3 server (`rclone serve s3`, signed requests, over loopback) with a
//! fault proxy between the two, mounted through the kernel.
//!
//! Needs root (devices, owners), duplicity, gpg, /dev/fuse, fusermount3 and rclone, which `scripts/test` installs.

mod cold;
mod comparison;
mod credentials;
mod faults;
mod index_command;
mod limits;
mod progress;
mod refusals;
mod requests;
mod sizes;
mod unsized_files;
mod urls;
mod verify_memory;
mod verify_resume;
mod waiting;
pub(crate) mod world;
