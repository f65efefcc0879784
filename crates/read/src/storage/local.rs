//! A directory as a store.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::traffic::TrafficCounters;
use super::{ObjectInfo, ObjectStore, StorageError, Traffic};
use dupfs_base::{ByteRange, ErrorKind, RequestContext, escape_bytes};

/// What stands for the version of a file that could not be examined: it matches no file's.
const UNKNOWN_VERSION: &str = "unknown";

/// The files of one directory.
///
/// Symbolic links to files are followed; whatever is not a regular file is never opened, as a FIFO would hang. Only the
/// directory itself is listed, and those below it that a file prefix names ([`LocalStore::with_prefixes`]).
#[derive(Debug)]
pub struct LocalStore {
    dir: PathBuf,
    url: String,
    /// Directories listed, relative to `dir`: empty, or with a trailing slash.
    listed: Vec<String>,
    counters: Arc<TrafficCounters>,
}

impl LocalStore {
    /// Opens the directory `dir`. A relative path is made absolute now, so that a daemon may change its directory.
    ///
    /// # Errors
    /// [`StorageError`] if it is not a directory that can be listed and entered.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let shown = escape_bytes(dir.as_os_str().as_encoded_bytes());
        let absolute = std::path::absolute(dir).map_err(|e| StorageError::from_io(&shown, "resolve the path", &e))?;
        let url = format!("file://{}", escape_bytes(absolute.as_os_str().as_encoded_bytes()));
        let store = Self { dir: absolute, url, listed: vec![String::new()], counters: Arc::default() };
        store.examine(&store.dir)?;
        Ok(store)
    }

    /// Lists also the directories that file prefixes with a `/` in them name. A directory that is not there is empty.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a prefix leads out of the directory.
    pub fn with_prefixes<S: AsRef<str>>(mut self, prefixes: &[S]) -> Result<Self, StorageError> {
        self.listed = super::listed_dirs(prefixes)?;
        Ok(self)
    }

    /// Tells early, and once, what is wrong with a directory.
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
                Ok(m) if m.is_file() => (m.len(), version(&m)),
                Ok(_) => continue,
                // Removed meanwhile, or a link into the void.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                // The name is there: reading it says what is wrong, where leaving it out would say that it is not.
                Err(_) => (0, UNKNOWN_VERSION.to_owned()),
            };
            let name = if prefix.is_empty() { Arc::from(name) } else { Arc::from(format!("{prefix}{name}")) };
            out.push(ObjectInfo { name, size, version: version.into(), archived: None });
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
        let mut out = Vec::new();
        for prefix in &self.listed {
            context.check().map_err(|stopped| StorageError::stopped(&self.url, stopped))?;
            self.list_dir(prefix, &mut out)?;
        }
        Ok(out)
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
        // Not blocking: what was a file may be a FIFO by now.
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
            .open(self.dir.join(&*object.name))
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => StorageError::missing(object),
                _ => StorageError::from_io(&object.name, "open", &e),
            })?;
        let mut stream =
            LocalStream { file, object: object.clone(), left: 0, want: 0, counters: Arc::clone(&self.counters) };
        stream.check_unchanged()?;
        let end = range.end.min(object.size);
        stream.want = end.saturating_sub(range.start);
        stream.left = stream.want;
        let seek = stream.file.seek(SeekFrom::Start(range.start.min(object.size)));
        seek.map_err(|e| StorageError::from_io(&object.name, "seek", &e))?;
        Ok(Box::new(stream))
    }

    fn traffic(&self) -> Traffic {
        self.counters.get()
    }
}

/// What identifies the state of a file. The device's number is left out: it changes from one mount of a file system to
/// the next on many of them, and what is remembered of an object should outlive that.
fn version(metadata: &Metadata) -> String {
    format!("{:x}-{:x}-{:x}.{:09}", metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// A range of a file; the file is checked before the first byte and with the last one.
struct LocalStream {
    file: File,
    object: ObjectInfo,
    /// Bytes still to come.
    left: u64,
    /// Bytes of the whole range.
    want: u64,
    counters: Arc<TrafficCounters>,
}

impl LocalStream {
    fn check_unchanged(&self) -> Result<(), StorageError> {
        let metadata = self.file.metadata().map_err(|e| StorageError::from_io(&self.object.name, "examine", &e))?;
        if metadata.is_file() && *version(&metadata) == *self.object.version {
            Ok(())
        } else {
            Err(StorageError::replaced(&self.object))
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, StorageError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let Some(part) = buf.get_mut(..most) else { return Ok(0) };
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
        let bytes = u64::try_from(got).unwrap_or(u64::MAX);
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
