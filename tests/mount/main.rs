//! Tests through the kernel: an in-memory file system served by FUSE (`kernel`), the program and its daemon (`cli`),
//! its messages for newcomers (`newcomer`), its configuration and the scripts for shells (`configuration`), the program as helper
//! of mount(8) (`helper`) and as a service (`service`), its packages (`package`, `tarball`) and image (`containers`) in systems of
//! Debian (`debian`), and the directories `at/`, `versions/` and `unpacked/` of a mounted
//! backup.
//!
//! Needs root (devices, owners, other users), duplicity, gpg, FUSE, the common archivers, MariaDB and psql, which `scripts/test`
//! installs.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod memory;

mod areas;
mod bombs;
mod cli;
mod configuration;
mod containers;
mod crafted;
mod debian;
mod export;
mod helper;
mod kernel;
mod newcomer;
mod package;
mod peak_memory;
mod readme_session;
mod service;
mod tarball;
mod unpacked;
mod upgrade;
