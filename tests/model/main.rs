//! Tests against the reference model, without a mount: an independent encoder writes random histories as duplicity would,
//! and dupfs must show them. Also the requests that answers need, the index on disk, and damaged backups.
//!
//! Needs duplicity and gpg, which `scripts/test` installs. Needs neither root nor FUSE.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]
// Sizes in these tests are those of small test data.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

#[path = "../support/mod.rs"]
mod support;

mod reference;

mod changes;
mod check_tests;
mod corruption;
mod damaged_copies;
mod duplicity;
mod fetches;
mod index;
mod properties;
mod reasons;
mod rebuild;
mod regressions;
mod streaming;
