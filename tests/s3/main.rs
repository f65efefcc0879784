//! Backups on S3, end to end: the program against a real S3 server (`rclone serve s3`, signed requests, over loopback) with a
//! fault proxy between the two, mounted through the kernel.
//!
//! Needs root (devices, owners), duplicity, gpg, /dev/fuse, fusermount3 and rclone; `scripts/test` sees to all of them.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/s3.rs"]
mod server;
#[path = "../oracle/source.rs"]
#[allow(dead_code)]
mod source;
#[path = "../support/mod.rs"]
mod support;
#[path = "../oracle/tools.rs"]
#[allow(dead_code)]
mod tools;

mod cold;
mod comparison;
mod credentials;
mod faults;
mod refusals;
mod requests;
mod urls;
mod world;
