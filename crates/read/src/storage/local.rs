//! A directory as a store.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::file_identity::{FileIdentities, FileIdentity};
use super::file_prefix::listed_dirs;
use super::traffic::TrafficCounters;
use super::{BucketLocation, DirectoryListing, ObjectInfo, ObjectStore, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, ErrorKind, RequestContext, clamp_len, escape_bytes};

/// The version of a file that cannot be examined. It matches no file.
const UNKNOWN_VERSION: &str = "unknown";

/// The version of a file, and its fingerprint.
type OpenedFile = (Arc<str>, u64);

/// The files of one directory.
///
/// Symbolic links to files are followed. Only regular files are opened, because a FIFO would block. Only the directory itself is
/// listed, and the directories below it that a file prefix names ([`LocalStore::with_prefixes`]).
#[derive(Debug)]
pub struct LocalStore {
    dir: PathBuf,
    url: String,
    /// Listed directories, relative to `dir`: empty, or with a trailing slash.
    listed: Vec<String>,
    counters: Arc<TrafficCounters>,
    identities: FileIdentities,
    /// The fingerprints of files that were opened, by name.
    fingerprints: Mutex<HashMap<Arc<str>, OpenedFile>>,
}

impl LocalStore {
    /// Opens the directory `dir`. A relative path is made absolute, because a daemon changes its working directory.
    ///
    /// # Errors
    /// [`StorageError`] if it is not a directory that can be listed and entered.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let shown = escape_bytes(dir.as_os_str().as_encoded_bytes());
        let absolute = std::path::absolute(dir).map_err(|e| StorageError::from_io(&shown, "resolve the path", &e))?;
        let url = format!("file://{}", escape_bytes(absolute.as_os_str().as_encoded_bytes()));
        let (listed, counters, fingerprints) = (vec![String::new()], Arc::default(), Mutex::default());
        let identities = FileIdentities::default();
        let store = Self { dir: absolute, url, listed, counters, identities, fingerprints };
        store.examine(&store.dir)?;
        Ok(store)
    }

    /// Also lists the directories that file prefixes with a `/` name. A directory that does not exist is empty.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a prefix leads out of the directory.
    pub fn with_prefixes<S: AsRef<str>>(mut self, prefixes: &[S]) -> Result<Self, StorageError> {
        self.listed = listed_dirs(prefixes)?;
        Ok(self)
    }

    /// Checks that a directory can be listed and entered.
    fn examine(&self, dir: &Path) -> Result<(), StorageError> {
        let metadata = fs::metadata(dir).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StorageError::new(ErrorKind::NotFound, &self.url, "no such directory"),
            _ => StorageError::from_io(&self.url, "open the directory", &e),
        })?;
        if !metadata.is_dir() {
            return Err(StorageError::new(ErrorKind::Invalid, &self.url, "is not a directory"));
        }
        // A directory that may be read but not entered would list names without sizes.
        fs::metadata(dir.join(".")).map_err(|e| StorageError::from_io(&self.url, "enter the directory", &e))?;
        fs::read_dir(dir).map_err(|e| StorageError::from_io(&self.url, "list the directory", &e))?;
        Ok(())
    }

    fn list_dir(&self, prefix: &str, out: &mut Vec<ObjectInfo>) -> Result<(), StorageError> {
        let dir = self.dir.join(prefix);
        if !prefix.is_empty() && matches!(fs::metadata(&dir), Err(e) if e.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        self.examine(&dir)?;
        let fail = |e: io::Error| StorageError::from_io(&self.url, "list the directory", &e);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let file_name = entry.file_name();
            let Some(name) = file_name.to_str() else { continue };
            if entry.file_type().is_ok_and(|t| !t.is_file() && !t.is_symlink()) {
                continue;
            }
            let (size, version) = match fs::metadata(entry.path()) {
                Ok(m) if m.is_file() => (m.len(), self.identities.of_path(&entry.path(), &m).version(&m)),
                Ok(_) => continue,
                // Removed in the meantime, or a dangling link.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                // The object exists: a read reports the error.
                Err(_) => (0, UNKNOWN_VERSION.to_owned()),
            };
            let name = if prefix.is_empty() { Arc::from(name) } else { Arc::from(format!("{prefix}{name}")) };
            out.push(ObjectInfo { name, size, version: version.into(), class: None, archived: None });
        }
        Ok(())
    }
}

impl LocalStore {
    /// Checks that a file has the content that it had when it was opened before, as far as its ends show. For file systems where
    /// size and time may be those of another file.
    fn check_fingerprint(&self, file: &File, identity: FileIdentity, object: &ObjectInfo) -> Result<(), StorageError> {
        let read = identity.fingerprint(file, object.size);
        let Some(found) = read.map_err(|e| StorageError::from_io(&object.name, "read", &e))? else { return Ok(()) };
        let mut known = lock(&self.fingerprints);
        let (version, first) = known
            .entry(Arc::clone(&object.name))
            .and_modify(|(version, first)| {
                if *version != object.version {
                    (*version, *first) = (Arc::clone(&object.version), found);
                }
            })
            .or_insert_with(|| (Arc::clone(&object.version), found));
        let is_same = *version == object.version && *first == found;
        if !is_same {
            // A later listing shows it as it is now.
            known.remove(&object.name);
            return Err(StorageError::replaced(object));
        }
        Ok(())
    }
}

impl ObjectStore for LocalStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.counters.lists.fetch_add(1, Ordering::Relaxed);
        self.identities.forget();
        let mut out = Vec::new();
        for prefix in &self.listed {
            context.check().map_err(|stopped| StorageError::stopped(&self.url, stopped))?;
            self.list_dir(prefix, &mut out)?;
        }
        Ok(out)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        context.check().map_err(|stopped| StorageError::stopped(&self.url, stopped))?;
        self.identities.forget();
        let mut listing = DirectoryListing::default();
        self.list_dir(dir, &mut listing.objects)?;
        for object in &mut listing.objects {
            object.name = object.name.strip_prefix(dir).unwrap_or(&object.name).into();
        }
        let fail = |e: io::Error| StorageError::from_io(&self.url, "list the directory", &e);
        for entry in fs::read_dir(self.dir.join(dir)).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // A link to a directory above would be followed endlessly.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                listing.directories.extend(entry.file_name().into_string());
            }
        }
        Ok(listing)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        if !Path::new(&*object.name).components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(StorageError::new(ErrorKind::Invalid, &object.name, "is not a name inside the directory"));
        }
        context.check().map_err(|stopped| StorageError::stopped(&object.name, stopped))?;
        self.counters.gets.fetch_add(1, Ordering::Relaxed);
        // Does not block: the file may have been replaced by a FIFO.
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(self.dir.join(&*object.name))
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => StorageError::missing(object),
                _ => StorageError::from_io(&object.name, "open", &e),
            })?;
        let metadata = file.metadata().map_err(|e| StorageError::from_io(&object.name, "examine", &e))?;
        let (identity, counters) = (self.identities.of_file(&file, &metadata), Arc::clone(&self.counters));
        let mut stream = LocalStream { file, object: object.clone(), left: 0, want: 0, counters, identity };
        stream.check_same(&metadata)?;
        self.check_fingerprint(&stream.file, identity, object)?;
        let end = range.end.min(object.size);
        stream.want = end.saturating_sub(range.start);
        stream.left = stream.want;
        let seek = stream.file.seek(SeekFrom::Start(range.start.min(object.size)));
        seek.map_err(|e| StorageError::from_io(&object.name, "seek", &e))?;
        Ok(Box::new(stream))
    }

    fn bucket(&self) -> Option<BucketLocation> {
        None
    }

    fn traffic(&self) -> Traffic {
        self.counters.get()
    }
}

/// A range of a file. The version of the file is checked before the first byte and with the last one.
struct LocalStream {
    file: File,
    object: ObjectInfo,
    /// Bytes that are not read yet.
    left: u64,
    /// Bytes of the whole range.
    want: u64,
    counters: Arc<TrafficCounters>,
    identity: FileIdentity,
}

impl LocalStream {
    fn check_unchanged(&self) -> Result<(), StorageError> {
        let metadata = self.file.metadata().map_err(|e| StorageError::from_io(&self.object.name, "examine", &e))?;
        self.check_same(&metadata)
    }

    fn check_same(&self, metadata: &Metadata) -> Result<(), StorageError> {
        if metadata.is_file() && *self.identity.version(metadata) == *self.object.version {
            Ok(())
        } else {
            Err(StorageError::replaced(&self.object))
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, StorageError> {
        let max_len = clamp_len(self.left, buf.len());
        let Some(part) = buf.get_mut(..max_len) else { return Ok(0) };
        if part.is_empty() {
            return Ok(0);
        }
        let got = loop {
            match self.file.read(part) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StorageError::from_io(&self.object.name, "read", &e)),
                Ok(got) => break got,
            }
        };
        if got == 0 {
            self.check_unchanged()?;
            return Err(StorageError::short(&self.object, self.want.saturating_sub(self.left), self.want));
        }
        let bytes = got as u64;
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            self.check_unchanged()?;
        }
        Ok(got)
    }
}

impl Read for LocalStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_some(buf).map_err(StorageError::into_io)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn put(path: &Path, bytes: &[u8]) {
        // A new inode each time.
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes).unwrap();
        let file = File::options().write(true).open(&temporary).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        fs::rename(&temporary, path).unwrap();
    }

    #[test]
    fn every_listing_asks_for_the_kind_of_the_file_system_again() {
        static IS_STABLE: AtomicBool = AtomicBool::new(true);
        let tmp = tempfile::tempdir().unwrap();
        put(&tmp.path().join("o"), b"content");
        let mut store = LocalStore::open(tmp.path()).unwrap();
        store.identities = FileIdentities::of_kind(|_| match IS_STABLE.load(Ordering::Relaxed) {
            true => FileIdentity::Inode,
            false => FileIdentity::Time(1),
        });
        let context = RequestContext::unlimited();
        let list = || store.list(&context).unwrap();
        let list_directory = || store.list_directory("", &context).unwrap().objects;
        let stable = list();
        IS_STABLE.store(false, Ordering::Relaxed);
        let other = list_directory();
        assert_ne!(stable, other);
        IS_STABLE.store(true, Ordering::Relaxed);
        assert_eq!(list(), stable);
    }

    #[test]
    fn another_inode_of_the_same_content_is_the_same_object_where_inodes_are_not_stable() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("o");
        put(&path, b"content");
        let mut store = LocalStore::open(tmp.path()).unwrap();
        store.identities = FileIdentities::of_kind(|_| FileIdentity::Time(1));
        let context = RequestContext::unlimited();
        let object = store.list(&context).unwrap().remove(0);
        let read =
            |object: &ObjectInfo| store.open(object, ByteRange { start: 0, end: u64::MAX }, &context).map(|_| ());
        read(&object).unwrap();
        put(&path, b"content");
        read(&object).unwrap();
        assert_eq!(store.list(&context).unwrap(), std::slice::from_ref(&object));
        put(&path, b"CONTENT");
        assert!(read(&object).unwrap_err().to_string().contains("was replaced or changed"));
        read(&object).unwrap();
        store.identities = FileIdentities::of_kind(|_| FileIdentity::Inode);
        let object = store.list(&context).unwrap().remove(0);
        put(&path, b"CONTENT");
        let range = ByteRange { start: 0, end: u64::MAX };
        assert!(store.open(&object, range, &context).is_err(), "another inode is another object");
    }
}
