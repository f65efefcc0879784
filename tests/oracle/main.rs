//! The outer oracle: real duplicity of four versions writes, dupfs mounts through the kernel, and what the mount shows is
//! compared with what `duplicity restore` writes, in all that lstat shows and in every byte.
//!
//! Needs root (devices, owners), duplicity, gpg, /dev/fuse and fusermount3; `scripts/test` sees to all of them.
#![allow(unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod check;
mod commands;
mod forged;
mod index;
mod keys;
mod matrix;
mod naming;
mod people;
mod restarts;
mod source;
mod times;
mod tools;
