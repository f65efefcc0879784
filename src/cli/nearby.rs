//! Looks for a backup that is not at the given location: in directories below it, and at locations with a similar name.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dupfs_base::{RequestContext, escape_bytes};
use dupfs_format::collection::{BackupSet, Collection, PrefixOptions};
use dupfs_format::name::{NameSuffix, parse_name};
use dupfs_read::storage::{Location, ObjectInfo, ObjectStore};

use super::similar::most_similar;

/// Upper bound of the time of a search below a location.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Upper bound of the directories that are listed.
const MAX_DIRECTORIES: usize = 100;

/// Upper bound of the levels below the location.
const MAX_DEPTH: usize = 3;

/// Upper bound of the backups that a message names.
const MAX_NAMED: usize = 8;

/// Upper bound of the names of a local directory that are examined.
const MAX_NAMES: usize = 10_000;

/// Searches for backups in the directories below the location of `store`, and returns their URLs with the number of
/// sets, for a message. Returns `None` if there are none, or the search fails.
pub(super) fn backups_below(store: &dyn ObjectStore) -> Option<String> {
    let context = RequestContext::with_timeout(SEARCH_TIMEOUT);
    let mut found = Vec::new();
    let mut pending: VecDeque<(String, usize)> = VecDeque::from([(String::new(), 0)]);
    let mut listed = 0;
    while let Some((dir, depth)) = pending.pop_front() {
        if listed >= MAX_DIRECTORIES {
            break;
        }
        listed += 1;
        let Ok(listing) = store.list_directory(&dir, &context) else { continue };
        match Collection::from_listing(&listing.objects, &PrefixOptions::default()) {
            Ok(collection) if !dir.is_empty() => {
                found.push((dir, collection.sets().len(), is_archive_dir(&collection)));
            }
            Ok(_) | Err(_) if depth < MAX_DEPTH => {
                pending.extend(listing.directories.into_iter().map(|name| (format!("{dir}{name}/"), depth + 1)));
            }
            Ok(_) | Err(_) => {}
        }
    }
    // Backups first.
    found.sort_by(|(a, _, a_is_archive), (b, _, b_is_archive)| (a_is_archive, a).cmp(&(b_is_archive, b)));
    let more = found.len().saturating_sub(MAX_NAMED);
    let base = store.url().trim_end_matches('/');
    let mut named: Vec<String> = found
        .iter()
        .take(MAX_NAMED)
        .map(|(dir, sets, is_archive)| {
            let dir = escape_bytes(dir.trim_end_matches('/').as_bytes());
            let word = if *sets == 1 { "set" } else { "sets" };
            let remark = if *is_archive { ", but it looks like duplicity's archive directory" } else { "" };
            format!("{base}/{dir} ({sets} {word}{remark})")
        })
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    (!named.is_empty()).then(|| named.join(", "))
}

/// Returns the location that `typed`, a URL or path of the missing directory `dir`, may be meant to be, as a remark for
/// the user.
pub(super) fn remark_on_missing(typed: &str, dir: &Path) -> Option<String> {
    let scheme = typed.strip_prefix("par2+").unwrap_or(typed);
    if let Some(rest) = scheme.strip_prefix("file://").filter(|rest| !rest.starts_with('/')) {
        let absolute = Path::new("/").join(rest);
        let is_meant =
            absolute.is_dir() || rest.split('/').next().is_some_and(|first| Path::new("/").join(first).is_dir());
        if is_meant {
            return Some(format!("two slashes make it relative; write three slashes: file:///{rest}"));
        }
    }
    let meant = similar_directory(dir)?;
    Some(format!("did you mean {}?", Location::Local(meant).display_without_secrets()))
}

/// The directory that the missing `dir` may be a slip for.
fn similar_directory(dir: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(dir).ok()?;
    let existing = absolute.ancestors().skip(1).find(|ancestor| ancestor.is_dir())?;
    let mut rest = absolute.strip_prefix(existing).ok()?.components();
    let wrong = rest.next()?;
    let names = fs::read_dir(existing).ok()?.take(MAX_NAMES).filter_map(Result::ok);
    let dirs = names.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_encoded_bytes());
    let meant = most_similar(wrong.as_os_str().as_encoded_bytes(), dirs)?;
    // Component by component, as an empty rest would add a slash.
    let mut path = existing.join(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(meant));
    path.extend(rest);
    let meant = path;
    meant.is_dir().then_some(meant)
}

/// Returns true if `dir` has files of duplicity.
pub(super) fn has_backup_files(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().take(MAX_NAMES).filter_map(Result::ok);
    names.into_iter().any(|entry| entry.file_name().to_str().is_some_and(|name| parse_name(name).is_some()))
}

/// The names of the directories in `dir` that have files of duplicity, sorted.
pub(super) fn directories_with_backup_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).into_iter().flatten().take(MAX_NAMES).filter_map(Result::ok);
    let with_files = names.filter(|entry| entry.path().is_dir() && has_backup_files(&entry.path()));
    let mut found: Vec<String> = with_files.map(|entry| escape_bytes(entry.file_name().as_encoded_bytes())).collect();
    found.sort();
    found
}

/// Returns the options that use the local directory of `collection` as duplicity's archive directory, if it looks like
/// one: it has manifests and signature archives, none of them encrypted, and no volume.
pub(super) fn as_archive_dir(dir: &Path, collection: &Collection) -> Option<String> {
    if !is_archive_dir(collection) {
        return None;
    }
    let absolute = std::path::absolute(dir).ok()?;
    let shown = |bytes: &std::ffi::OsStr| escape_bytes(bytes.as_encoded_bytes());
    Some(format!("--archive-dir {} --name {}", shown(absolute.parent()?.as_os_str()), shown(absolute.file_name()?)))
}

/// Returns true if `collection` looks like duplicity's archive directory: it has manifests and signature archives, none of them
/// encrypted, and no volume.
fn is_archive_dir(collection: &Collection) -> bool {
    let is_plain = |object: &ObjectInfo| !NameSuffix::of(&object.name).is_encrypted();
    let is_of_cache = |set: &BackupSet| {
        set.volumes.is_empty()
            && set.manifest.as_ref().is_none_or(is_plain)
            && set.signatures.as_ref().is_none_or(is_plain)
    };
    let sets = || collection.sets().iter().map(|set| &**set);
    sets().all(is_of_cache) && sets().any(|set| set.manifest.is_some()) && sets().any(|set| set.signatures.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_compared_with_its_neighbours() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("store/shop")).unwrap();
        let similar = |name: &str| similar_directory(&tmp.path().join(name));
        assert_eq!(similar("stroe"), Some(tmp.path().join("store")));
        assert_eq!(similar("stor/shop"), Some(tmp.path().join("store/shop")));
        assert_eq!(similar("stor/other"), None);
        assert_eq!(similar("mail"), None);
    }

    #[test]
    fn two_slashes_are_answered_if_three_are_meant() {
        let remark = |typed: &str| remark_on_missing(typed, Path::new("/no/such/dir"));
        assert!(remark("file://tmp/x").unwrap().ends_with("file:///tmp/x"));
        assert_eq!(remark("file:///tmp/x"), None);
        assert_eq!(remark("file://no-such-top/x"), None);
    }
}
