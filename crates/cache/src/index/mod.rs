//! Rank 2: what was learnt of a repository, kept on disk from one mount to the next.
//!
//! An index is one directory. Some files are read whole (the tree of a line of sets), all else are records by key. Whoever
//! keeps something says what it is about by an [`Identity`] that hashes all it depends on, so that what changed is never
//! found. Whatever is not exactly as it was written counts as absent: an index can make an answer quicker, never another,
//! and no failure of it is anybody's error.

pub mod bytes;
mod file;
pub mod fuzz_entry;
mod identity;
mod place;
mod records;
mod segment;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub use file::{read_whole, write_whole};
pub use identity::Identity;

use dupfs_base::sync::lock;
use place::Place;
use records::Records;

/// Files that nobody needs are kept so long, as another process may know of sets that this one does not.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The index of one repository. Shared by all threads; no call but [`Self::get`], [`Self::numbers`], [`Self::load`],
/// [`Self::save`] and [`Self::flush`] touches the disk.
#[derive(Debug)]
pub struct Index {
    place: Arc<Place>,
    records: Arc<Records>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What a file that is read whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The tree of a line of sets.
    Tree,
}

impl Kind {
    fn tag(self) -> u8 {
        match self {
            Self::Tree => b't',
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Tree => "tree-",
        }
    }

    fn name(self, identity: Identity) -> String {
        format!("{}{}", self.prefix(), identity.hex())
    }
}

impl Index {
    /// The index in `base` of the repository `identity`, whose records of the groups in `live` are worth keeping. `None`,
    /// after a line in the log, if there can be none.
    pub fn open(base: &Path, identity: Identity, live: HashSet<u64>) -> Option<Arc<Self>> {
        let place = match Place::open(base, &identity.hex()) {
            Ok(place) => Arc::new(place),
            Err(e) => {
                let base = dupfs_base::escape_bytes(base.as_os_str().as_encoded_bytes());
                log::warn!("{base}: no index on disk, what is learnt is kept in memory only: {e}");
                return None;
            }
        };
        let records = Arc::new(Records::open(Arc::clone(&place), identity, live));
        Some(Arc::new(Self { place, records, writer: Mutex::default() }))
    }

    /// The record of `key`.
    pub fn get(&self, key: Identity) -> Option<Vec<u8>> {
        self.records.get(&key)
    }

    /// Keeps `record` under `key`, as long as `group` is live. It is written behind.
    pub fn put(&self, key: Identity, group: u64, record: Vec<u8>) {
        self.records.put(key, group, record);
        self.need_writer();
    }

    /// Hands what is known of the list `key` of `len` numbers to `take`: place, number.
    pub fn numbers(&self, key: Identity, len: u32, take: &mut dyn FnMut(u32, u64)) {
        self.records.numbers(key, len, take);
    }

    /// Keeps the number `value` at place `at` of the list `key`, as long as `group` is live. It is written behind.
    pub fn put_number(&self, key: Identity, group: u64, at: u32, value: u64) {
        self.records.put_number(key, group, at, value);
        self.need_writer();
    }

    /// What `parse` makes of the body of the file about `identity`, given its length; `None` if there is none or it is not
    /// exactly as it was written.
    pub fn load<T>(
        &self,
        kind: Kind,
        identity: Identity,
        parse: &mut dyn FnMut(&mut dyn Read, u64) -> Option<T>,
    ) -> Option<T> {
        let name = kind.name(identity);
        let mut file = match self.place.read(&name) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(e) => {
                log::warn!("{}/{name}: this part of the index cannot be used: {e}", self.place.shown());
                return None;
            }
        };
        let len = file.metadata().ok()?.len();
        let loaded = read_whole(&mut file, len, kind.tag(), identity, parse);
        if loaded.is_none() {
            log::warn!("{}/{name}: this part of the index is damaged; it is made anew", self.place.shown());
            self.place.remove(&name);
        }
        loaded
    }

    /// Writes the file about `identity`, whose body `fill` writes. False if it cannot be, which is told in the log.
    pub fn save(
        &self,
        kind: Kind,
        identity: Identity,
        fill: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    ) -> bool {
        if self.records.is_off() {
            return false;
        }
        let write = |file: &File| {
            let mut out = BufWriter::with_capacity(256 << 10, file);
            write_whole(&mut out, kind.tag(), identity, fill)
        };
        let written = self.place.write(&kind.name(identity), write);
        if let Err(e) = &written {
            self.records.switch_off(e);
        }
        written.is_ok()
    }

    /// Removes the files of `kind` about `replaced`, and those not about any of `live` that are old.
    pub fn tidy(&self, kind: Kind, replaced: &HashSet<Identity>, live: &HashSet<Identity>) {
        let names = |of: &HashSet<Identity>| of.iter().map(|i| kind.name(*i)).collect::<HashSet<_>>();
        let (replaced, live) = (names(replaced), names(live));
        for name in self.place.list(kind.prefix()).unwrap_or_default() {
            let stale = || !live.contains(&name) && self.place.age(&name).is_some_and(|age| age > KEPT);
            if replaced.contains(&name) || stale() {
                self.place.remove(&name);
            }
        }
    }

    /// Writes all that waits to be written.
    pub fn flush(&self) {
        self.records.flush();
    }

    fn need_writer(&self) {
        let mut writer = lock(&self.writer);
        if writer.is_none() {
            let records = Arc::clone(&self.records);
            let started = std::thread::Builder::new().name("dupfs-index".into()).spawn(move || records.write_behind());
            // Without a thread all is written in the end.
            *writer = started.ok();
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.records.stop();
        let writer = lock(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            log::debug!("the index's writer ended early");
        }
        self.records.flush();
    }
}
