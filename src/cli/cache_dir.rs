//! The directory of the indexes and of the spill file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::home_dir::home_dir;

/// The directory that the user gives, else that of a service (`CacheDirectory=` of systemd), else `$XDG_CACHE_HOME/dupfs`, else
/// `~/.cache/dupfs`. `None` without a home directory.
pub(super) fn cache_dir(given: Option<&Path>) -> Option<PathBuf> {
    // A relative path would create a cache in the working directory.
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || home_dir().map(|home| home.join(".cache"));
    let of_user = || variable("XDG_CACHE_HOME").or_else(home).map(|path| path.join("dupfs"));
    // systemd joins several by colons.
    let of_service = || {
        let value = std::env::var_os("CACHE_DIRECTORY")?;
        let first = value.as_bytes().split(|&byte| byte == b':').next()?;
        Some(PathBuf::from(OsStr::from_bytes(first))).filter(|path| path.is_absolute())
    };
    let default = || of_service().or_else(of_user);
    let dir = given.map(Path::to_owned).or_else(default)?;
    // A daemon changes its working directory.
    Some(std::path::absolute(&dir).unwrap_or(dir))
}
