//! The index on disk: it persists facts about a repository from one mount to the next.
//!
//! An index is one directory. Version tables are files that are read as a whole; everything else is a record by key. A caller
//! identifies the object that it stores by an [`Identity`], a hash of everything the object depends on: after a change the
//! old object is not found. A file or record that is not exactly as it was written counts as absent. An index makes answers
//! faster, and never changes them; no failure of it is an error of a request.

mod description;
mod directory;
pub mod encoding;
mod framed_file;
pub mod fuzz_entry;
mod identity;
mod identity_key;
mod record_store;
mod segment;
mod stored_index;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use description::IndexDescription;
pub use identity::Identity;
pub use identity_key::keyed_identity;
pub use stored_index::{IndexFiles, IndexRemoval, StoredIndex, remove_index, remove_outdated_files, stored_indexes};

use directory::IndexDirectory;
use dupfs_base::sync::prim::{Mutex, thread};
use framed_file::{decode_file, encode_file};
use record_store::RecordStore;

/// Age below which a file without a known use is not removed: another process may know of backup sets that this one
/// does not know.
const MIN_REMOVAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The index of one repository. Shared by all threads. Only [`Self::load_record`], [`Self::load_numbers`],
/// [`Self::load_file`], [`Self::store_file`], [`Self::remove_outdated_files`] and [`Self::flush`] access the disk.
#[derive(Debug)]
pub struct Index {
    identity: Identity,
    directory: Arc<IndexDirectory>,
    records: Arc<RecordStore>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

/// The kind of a file that is read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFileKind {
    /// The version table of a branch.
    Tree,
    /// The description of the repository.
    Description,
}

impl IndexFileKind {
    /// The kind in the header of the file.
    fn tag(self) -> u8 {
        match self {
            Self::Tree => b't',
            Self::Description => b'a',
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Tree => "tree-",
            Self::Description => "about-",
        }
    }

    fn name(self, identity: Identity) -> String {
        format!("{}{}", self.prefix(), identity.hex())
    }
}

impl Index {
    /// Opens the index in `base` of the repository `identity`. Records of the groups in `live` are retained. `None`,
    /// after a warning in the log, if the index cannot be opened.
    pub fn open(base: &Path, identity: Identity, live: HashSet<u64>) -> Option<Arc<Self>> {
        let directory = match IndexDirectory::open(base, &identity.hex()) {
            Ok(directory) => Arc::new(directory),
            Err(e) => {
                let base = dupfs_base::escape_bytes(base.as_os_str().as_encoded_bytes());
                log::warn!("{base}: the index on disk cannot be opened, continuing without it: {e}");
                return None;
            }
        };
        let records = Arc::new(RecordStore::open(Arc::clone(&directory), identity, live));
        Some(Arc::new(Self { identity, directory, records, writer: Mutex::default() }))
    }

    /// Records the repository that the index belongs to, and that it is used now.
    pub fn describe(&self, description: &IndexDescription) {
        let kind = IndexFileKind::Description;
        let stored = self.load_file(kind, self.identity, &mut |body, len| IndexDescription::decode(body, len));
        if stored.as_ref() == Some(description) {
            self.directory.touch(&kind.name(self.identity));
            return;
        }
        let body = description.encode();
        self.store_file(kind, self.identity, &mut |out| out.write_all(&body));
    }

    /// The name of its directory, for [`remove_index`].
    pub fn name(&self) -> String {
        self.identity.hex()
    }

    /// The path of its directory, escaped for messages.
    pub fn display_path(&self) -> &str {
        self.directory.display_path()
    }

    /// Loads the record of `key`.
    pub fn load_record(&self, key: Identity) -> Option<Vec<u8>> {
        self.records.load(&key)
    }

    /// Returns true if there is a record of `key`. Does not read it.
    pub fn has_record(&self, key: Identity) -> bool {
        self.records.contains(&key)
    }

    /// Stores `record` under `key`, as long as `group` is live. It is written to disk later.
    pub fn store_record(&self, key: Identity, group: u64, record: Vec<u8>) {
        self.records.store(key, group, record);
        self.start_writer();
    }

    /// Passes the known numbers of the list `key` of `len` numbers to `take`: position, number.
    pub fn load_numbers(&self, key: Identity, len: u32, take: &mut dyn FnMut(u32, u64)) {
        self.records.load_numbers(key, len, take);
    }

    /// Stores the number `value` at position `at` of the list `key`, as long as `group` is live. It is written to disk later.
    pub fn store_number(&self, key: Identity, group: u64, at: u32, value: u64) {
        self.records.store_number(key, group, at, value);
        self.start_writer();
    }

    /// Loads the file of `kind` for `identity`. `decode` is given its body and the length of it. `None` if there is no such
    /// file, if `decode` returns `None`, or if the file is damaged; then it is removed.
    pub fn load_file<T>(
        &self,
        kind: IndexFileKind,
        identity: Identity,
        decode: &mut dyn FnMut(&mut dyn Read, u64) -> Option<T>,
    ) -> Option<T> {
        let name = kind.name(identity);
        let path = self.directory.display_path();
        let mut file = match self.directory.open_file(&name) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => {
                log::warn!("{path}/{name}: this file of the index cannot be read: {e}");
                return None;
            }
        };
        let len = file.metadata().ok()?.len();
        let loaded = decode_file(&mut file, len, kind.tag(), identity, decode);
        if loaded.is_none() {
            log::warn!("{path}/{name}: this file of the index is damaged; removing it");
            self.directory.remove_file(&name);
        }
        loaded
    }

    /// Writes the file of `kind` for `identity`, whose body `fill` writes. Returns false, after a message in the log, if that
    /// fails.
    pub fn store_file(
        &self,
        kind: IndexFileKind,
        identity: Identity,
        fill: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    ) -> bool {
        if self.records.is_off() {
            return false;
        }
        let write = |file: &File| {
            let mut out = BufWriter::with_capacity(256 << 10, file);
            encode_file(&mut out, kind.tag(), identity, fill)
        };
        let written = self.directory.create_file(&kind.name(identity), write);
        if let Err(e) = &written {
            self.records.switch_off(e);
        }
        written.is_ok()
    }

    /// Removes the files of `kind` for `replaced`, and old ones that are not for any of `live`.
    pub fn remove_outdated_files(&self, kind: IndexFileKind, replaced: &HashSet<Identity>, live: &HashSet<Identity>) {
        let names = |of: &HashSet<Identity>| of.iter().map(|i| kind.name(*i)).collect::<HashSet<_>>();
        let (replaced, live) = (names(replaced), names(live));
        for name in self.directory.list(kind.prefix()).unwrap_or_default() {
            let is_old = || self.directory.age(&name).is_some_and(|age| age > MIN_REMOVAL_AGE);
            if replaced.contains(&name) || (!live.contains(&name) && is_old()) {
                self.directory.remove_file(&name);
            }
        }
    }

    /// Returns true if nothing is stored any more: the index cannot be written, or is full.
    pub fn is_off(&self) -> bool {
        self.records.is_off()
    }

    /// Writes all pending records to disk.
    pub fn flush(&self) {
        self.records.flush();
    }

    fn start_writer(&self) {
        let mut writer = self.writer.lock();
        if writer.is_none() {
            let records = Arc::clone(&self.records);
            let started = thread::Builder::new().name("dupfs-index".into()).spawn(move || records.write_behind());
            // Without a thread, the records are written when the index is dropped.
            *writer = started.ok();
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.records.stop();
        let writer = self.writer.lock().take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            log::debug!("the thread that writes the index has panicked");
        }
        self.records.flush();
    }
}

#[cfg(test)]
mod format_tests;
