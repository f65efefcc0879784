//! Comparison with duplicity: four versions of it write, dupfs mounts through the kernel, and the mount equals what
//! `duplicity restore` writes, in every byte and all that lstat shows. Also backups of versions that are too old to run,
//! the chains that duplicity's own code finds, and the procedures of docs/RUNBOOK.md.
//!
//! Needs root (devices, owners), duplicity, gpg, FUSE and MariaDB, which `scripts/test` installs.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod cache;
mod changes;
mod check;
mod collection;
mod commands;
mod compare;
mod dense;
mod documented;
mod exchanged;
mod find;
mod forged;
mod golden;
mod index;
mod index_command;
mod keys;
mod matrix;
mod naming;
mod people;
mod planted;
mod restarts;
mod restore;
mod runbook;
mod schemas;
mod secrecy;
mod sets_problems;
mod times;
mod unsigned;
mod verify;
mod volumes;
