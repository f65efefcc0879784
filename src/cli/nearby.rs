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
                found.push((dir, collection.sets().len(), has_names_of_archive_dir(&collection)));
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
    if let Some((backup, path)) = backup_above(dir) {
        let url = Location::Local(backup).display_without_secrets();
        return Some(format!("{url} is a backup; give a path in it as an argument: dupfs ls {url} {path}"));
    }
    let meant = similar_directory(dir)?;
    Some(format!("did you mean {}?", Location::Local(meant).display_without_secrets()))
}

/// The deepest existing directory above the missing `dir` and the rest of the path, if that directory has a backup.
fn backup_above(dir: &Path) -> Option<(PathBuf, String)> {
    let absolute = std::path::absolute(dir).ok()?;
    let existing = absolute.ancestors().skip(1).find(|ancestor| ancestor.is_dir())?;
    let rest = escape_bytes(absolute.strip_prefix(existing).ok()?.as_os_str().as_encoded_bytes());
    has_backup_files(existing).then(|| (existing.to_owned(), rest))
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

/// A local directory that looks like duplicity's archive directory.
pub(super) struct LikelyArchiveDir {
    /// The options that use it as such.
    pub(super) options: String,
    /// True if it has marks of one beside the names of its files. Without them it may be a backup that has lost its volumes.
    pub(super) is_marked: bool,
}

/// Returns the options that use the local directory `dir` of `collection` as duplicity's archive directory, if it looks like
/// one. `objects` are all files in it.
pub(super) fn as_archive_dir(dir: &Path, collection: &Collection, objects: &[ObjectInfo]) -> Option<LikelyArchiveDir> {
    if !has_names_of_archive_dir(collection) {
        return None;
    }
    let absolute = std::path::absolute(dir).ok()?;
    let shown = |bytes: &std::ffi::OsStr| escape_bytes(bytes.as_encoded_bytes());
    let (parent, name) = (shown(absolute.parent()?.as_os_str()), shown(absolute.file_name()?));
    let is_marked = has_marks_of_archive_dir(&format!("{parent}/{name}"), objects);
    Some(LikelyArchiveDir { options: format!("--archive-dir {parent} --name {name}"), is_marked })
}

/// Returns true if `collection` has what an archive directory has: manifests and signature archives, none of them encrypted,
/// and no volume.
pub(super) fn has_names_of_archive_dir(collection: &Collection) -> bool {
    let is_plain = |object: &ObjectInfo| !NameSuffix::of(&object.name).is_encrypted();
    let is_of_cache = |set: &BackupSet| {
        set.volumes.is_empty()
            && set.manifest.as_ref().is_none_or(is_plain)
            && set.signatures.as_ref().is_none_or(is_plain)
    };
    let sets = || collection.sets().iter().map(|set| &**set);
    sets().all(is_of_cache) && sets().any(|set| set.manifest.is_some()) && sets().any(|set| set.signatures.is_some())
}

/// Returns true if the directory at `path` with the files `objects` has marks that only archive directories have: the MD5 of
/// a URL as its name, duplicity's default place, or the lock file of duplicity.
fn has_marks_of_archive_dir(path: &str, objects: &[ObjectInfo]) -> bool {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_hash = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash || parent.ends_with("/.cache/duplicity") || objects.iter().any(|object| object.name.starts_with("lockfile"))
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
    fn a_path_in_a_backup_is_not_part_of_the_url() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir(tmp.path().join("etc")).unwrap();
        let missing = tmp.path().join("etc/hosts");
        let remark = || remark_on_missing("x", &missing);
        assert_eq!(remark(), None);
        fs::write(tmp.path().join("etc/duplicity-full.20261122T131029Z.manifest"), "").unwrap();
        let dir = tmp.path().join("etc").display().to_string();
        let expected =
            format!("file://{dir} is a backup; give a path in it as an argument: dupfs ls file://{dir} hosts");
        assert_eq!(remark().unwrap(), expected);
    }

    #[test]
    fn the_name_the_place_and_the_lock_file_mark_an_archive_directory() {
        let object =
            |name: &str| ObjectInfo { name: name.into(), size: 0, version: "".into(), class: None, archived: None };
        let is_marked = |path: &str, names: &[&str]| {
            has_marks_of_archive_dir(path, &names.iter().map(|name| object(name)).collect::<Vec<_>>())
        };
        assert!(is_marked("/arch/0adee28a0adee28a0adee28a0adee28a", &[]));
        assert!(is_marked("/root/.cache/duplicity/shop", &[]));
        assert!(is_marked("/arch/shop", &["x", "lockfile.lock"]));
        assert!(!is_marked("/arch/shop", &["duplicity-full.20261122T131029Z.manifest"]));
        assert!(!is_marked("/duplicity/shop", &[]));
    }

    #[test]
    fn two_slashes_are_answered_if_three_are_meant() {
        let remark = |typed: &str| remark_on_missing(typed, Path::new("/no/such/dir"));
        assert!(remark("file://tmp/x").unwrap().ends_with("file:///tmp/x"));
        assert_eq!(remark("file:///tmp/x"), None);
        assert_eq!(remark("file://no-such-top/x"), None);
    }
}
