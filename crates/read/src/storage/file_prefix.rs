//! The directories that duplicity's file prefixes name.

use super::StorageError;
use dupfs_base::ErrorKind;

/// The directories to list for objects with these file prefixes: the root (empty), and the part of each prefix up to its last
/// `/`, with that slash. duplicity's `--file-prefix` may contain slashes.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a prefix that leads out of the store's directory.
pub(super) fn listed_dirs<S: AsRef<str>>(prefixes: &[S]) -> Result<Vec<String>, StorageError> {
    let mut dirs = vec![String::new()];
    for prefix in prefixes.iter().map(AsRef::as_ref) {
        let Some((dir, _)) = prefix.rsplit_once('/') else { continue };
        if dir.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let reason = "the file prefix leads out of the backup's directory or has empty parts";
            return Err(StorageError::new(ErrorKind::Invalid, prefix, reason));
        }
        let dir = format!("{dir}/");
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}
