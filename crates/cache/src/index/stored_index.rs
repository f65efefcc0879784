//! The indexes in a directory, as their user maintains them: what is stored, and its removal.
//!
//! A process has a shared lock on the directory of the index that it uses. An index is removed under an exclusive lock. Every
//! directory is opened without following symbolic links, and everything in it is found by its descriptor.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::description::IndexDescription;
use super::directory::{DirectoryLock, IndexDirectory, is_missing};
use super::framed_file::decode_file;
use super::{Identity, IndexFileKind};

/// The files of an index, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFiles {
    /// Number of files.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An index on disk.
#[derive(Clone, Debug)]
pub struct StoredIndex {
    /// The name of its directory.
    pub name: String,
    /// The repository that it belongs to; `None` if that is not recorded, or the record is damaged.
    pub description: Option<IndexDescription>,
    /// Everything that it holds.
    pub files: IndexFiles,
    /// The part of it that nothing reads: files of older versions, and files whose writer ended before they were complete.
    pub outdated: IndexFiles,
    /// The time of the last use; `None` if it is not known.
    pub last_used: Option<SystemTime>,
    /// True if a process uses it.
    pub in_use: bool,
}

/// The result of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexRemoval {
    /// The index was removed, or was not there any more.
    Removed,
    /// A process uses it.
    InUse,
    /// The files of the index were removed. Its directory has others, which stay.
    HasForeignFiles,
}

/// The indexes in `base`, by name. None if there is no such directory.
///
/// # Errors
/// Any I/O error, and if `base` is a symbolic link or belongs to another user.
pub fn stored_indexes(base: &Path) -> io::Result<Vec<StoredIndex>> {
    let names = match IndexDirectory::names_in(base) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        names => names?,
    };
    // Those that cannot be opened are not this user's, or were removed meanwhile.
    let opened = names.into_iter().filter_map(|name| Some((IndexDirectory::open_existing(base, &name).ok()?, name)));
    Ok(opened.map(|(directory, name)| examine(&directory, name)).collect())
}

fn examine(directory: &IndexDirectory, name: String) -> StoredIndex {
    let sum = |names: &[String]| {
        let lens = names.iter().filter_map(|name| directory.len(name));
        lens.fold(IndexFiles::default(), |sum, len| IndexFiles {
            count: sum.count.saturating_add(1),
            bytes: sum.bytes.saturating_add(len),
        })
    };
    let own = directory.own_files().unwrap_or_default();
    let record = own.iter().find(|file| file.starts_with(IndexFileKind::Description.prefix()));
    let written = own.iter().filter_map(|file| directory.written_at(file)).max();
    StoredIndex {
        description: record.and_then(|file| load_description(directory, file)),
        files: sum(&own),
        outdated: sum(&directory.outdated_files()),
        // The record is written or touched at each use.
        last_used: record.and_then(|file| directory.written_at(file)).max(written),
        in_use: matches!(directory.lock_exclusive(), Ok(DirectoryLock::Held)),
        name,
    }
}

fn load_description(directory: &IndexDirectory, file: &str) -> Option<IndexDescription> {
    let kind = IndexFileKind::Description;
    let identity = Identity::from_hex(file.strip_prefix(kind.prefix())?)?;
    let mut opened = directory.open_file(file).ok()?;
    let len = opened.metadata().ok()?.len();
    decode_file(&mut opened, len, kind.tag(), identity, &mut |body, len| IndexDescription::decode(body, len))
}

/// Removes the index `name` in `base`, unless a process uses it.
///
/// # Errors
/// Any I/O error.
pub fn remove_index(base: &Path, name: &str) -> io::Result<IndexRemoval> {
    let directory = match IndexDirectory::open_existing(base, name) {
        Err(error) if is_missing(&error) => return Ok(IndexRemoval::Removed),
        directory => directory?,
    };
    if directory.lock_exclusive()? == DirectoryLock::Held {
        return Ok(IndexRemoval::InUse);
    }
    for file in directory.own_files()? {
        directory.remove_file(&file);
    }
    match IndexDirectory::remove_empty(base, name) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(IndexRemoval::HasForeignFiles),
        Err(error) if is_missing(&error) => Ok(IndexRemoval::Removed),
        removed => removed.map(|()| IndexRemoval::Removed),
    }
}

/// Removes the files of the index `name` in `base` that nothing reads.
///
/// # Errors
/// Any I/O error.
pub fn remove_outdated_files(base: &Path, name: &str) -> io::Result<()> {
    let directory = IndexDirectory::open_existing(base, name)?;
    directory.outdated_files().iter().for_each(|file| directory.remove_file(file));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::Index;
    use super::*;

    fn describe(url: &str) -> IndexDescription {
        IndexDescription { url: url.to_owned(), options: vec!["--file-prefix=p".to_owned()], local: None }
    }

    fn open(base: &Path, name: &str) -> std::sync::Arc<Index> {
        let index = Index::open(base, Identity::of(&[name.as_bytes()]), HashSet::from([7])).unwrap();
        index.describe(&describe(name));
        index.store_record(Identity::of(&[b"key"]), 7, vec![1; 1000]);
        index.flush();
        index
    }

    #[test]
    fn indexes_are_listed_with_their_repositories_and_those_in_use_are_not_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().join("cache");
        assert!(stored_indexes(&base).unwrap().is_empty());
        let used = open(&base, "s3://used");
        drop(open(&base, "s3://idle"));
        fs::create_dir(base.join("not-an-index")).unwrap();
        let listed = stored_indexes(&base).unwrap();
        let find = |url: &str| listed.iter().find(|index| index.description == Some(describe(url))).unwrap();
        assert_eq!(listed.len(), 2);
        assert!(find("s3://used").in_use && !find("s3://idle").in_use);
        assert!(find("s3://idle").files.count == 2 && find("s3://idle").files.bytes > 1000, "{listed:?}");
        assert!(find("s3://idle").last_used.unwrap().elapsed().unwrap().as_secs() < 60);
        assert_eq!(remove_index(&base, &find("s3://used").name).unwrap(), IndexRemoval::InUse);
        assert_eq!(remove_index(&base, &find("s3://idle").name).unwrap(), IndexRemoval::Removed);
        assert_eq!(remove_index(&base, &find("s3://idle").name).unwrap(), IndexRemoval::Removed);
        assert_eq!(stored_indexes(&base).unwrap().len(), 1);
        drop(used);
        assert!(!stored_indexes(&base).unwrap()[0].in_use);
        // The record is damaged: the index is listed without a repository.
        let dir = base.join(&stored_indexes(&base).unwrap()[0].name);
        let record = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
        let record = record.into_iter().find(|path| path.to_str().unwrap().contains("/about-")).unwrap();
        let mut bytes = fs::read(&record).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&record, bytes).unwrap();
        assert_eq!(stored_indexes(&base).unwrap()[0].description, None);
        // The next use writes it again.
        drop(open(&base, "s3://used"));
        assert_eq!(stored_indexes(&base).unwrap()[0].description, Some(describe("s3://used")));
    }

    #[test]
    fn links_and_foreign_files_are_neither_followed_nor_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let (base, outside) = (scratch.path().join("cache"), scratch.path().join("outside"));
        drop(open(&base, "a"));
        let name = stored_indexes(&base).unwrap()[0].name.clone();
        fs::create_dir(&outside).unwrap();
        for file in ["tree-1", "seg-1", "precious"] {
            fs::write(outside.join(file), file).unwrap();
        }
        // A directory of an index that is a link, a file of an index that is one, and a base that is one.
        symlink(&outside, base.join("0123456789abcdef0123456789abcdef")).unwrap();
        symlink(outside.join("precious"), base.join(&name).join("tree-link")).unwrap();
        symlink(&base, scratch.path().join("link")).unwrap();
        fs::write(base.join(&name).join("notes.txt"), "mine").unwrap();
        assert_eq!(stored_indexes(&base).unwrap().len(), 1);
        assert!(stored_indexes(&scratch.path().join("link")).is_err());
        assert!(remove_index(&scratch.path().join("link"), &name).is_err());
        assert!(remove_index(&base, "0123456789abcdef0123456789abcdef").is_err());
        assert_eq!(remove_index(&base, &name).unwrap(), IndexRemoval::HasForeignFiles);
        let left: Vec<_> = fs::read_dir(base.join(&name)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 3);
    }

    #[test]
    fn an_index_that_is_opened_while_it_is_removed_is_created_again() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().to_owned();
        drop(open(&base, "a"));
        let name = stored_indexes(&base).unwrap()[0].name.clone();
        let remover = std::thread::spawn({
            let (base, name) = (base.clone(), name.clone());
            move || {
                for _ in 0..200 {
                    assert_ne!(remove_index(&base, &name).unwrap(), IndexRemoval::HasForeignFiles);
                }
            }
        });
        for _ in 0..50 {
            let index = open(&base, "a");
            assert!(base.join(&name).is_dir(), "the directory in use was removed");
            assert!(index.has_record(Identity::of(&[b"key"])));
        }
        remover.join().unwrap();
        drop(open(&base, "a"));
        assert!(stored_indexes(&base).unwrap()[0].files.count >= 2);
    }
}
