//! Tests of the stores (a directory, S3) and of the codec (gzip, OpenPGP by gpg), and of backups on S3 through a mount.
//!
//! Needs root (devices, owners), duplicity, gpg, FUSE, openssl, rclone and sshd, which `scripts/test` installs.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]
// Sizes in these tests are those of small test data.
#![allow(clippy::cast_possible_truncation)]

#[path = "../support/mod.rs"]
mod support;

mod codec;
mod conformance;
mod decorators;
mod interrupts;
mod local;
mod other_file_systems;
mod rclone;
mod rclone_faults;
mod rclone_requests;
mod s3;
mod s3_environment;
mod s3_store;
