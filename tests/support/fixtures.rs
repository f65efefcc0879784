//! The backups in tests/fixtures.

use std::path::{Path, PathBuf};

/// A path below tests/fixtures.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The URL of a repository there.
pub fn url(name: &str) -> String {
    format!("file://{}", path(name).display())
}
