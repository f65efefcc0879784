//! A backup set as duplicity writes it: volumes, signature archive, manifest.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::history::{Change, DAY, EPOCH, What};
use crate::rdiff;
use crate::sink::{Packing, Sink, sha1};
use crate::tar;

/// Bytes that are collected before they go into an object.
const BATCH: usize = 256 * 1024;

/// An archive being written.
struct Archive {
    sink: Sink,
    batch: Vec<u8>,
}

impl Archive {
    fn new(sink: Sink) -> Self {
        Self { sink, batch: Vec::with_capacity(BATCH + 4096) }
    }

    fn entry(&mut self, name: &str, kind: u8, mtime: Option<u64>, data: &[u8]) {
        tar::entry(&mut self.batch, name, kind, mtime, data);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.sink.write(&self.batch);
        self.batch.clear();
    }

    fn length(&self) -> u64 {
        self.sink.length + self.batch.len() as u64
    }

    fn finish(mut self) -> PathBuf {
        self.flush();
        let end = tar::end(self.sink.length);
        self.sink.write(&end);
        self.sink.finish()
    }
}

/// Paths of the first and last entry of a volume.
type PathRange = Option<(String, String)>;

pub(crate) struct SetWriter<'a> {
    repo: &'a Path,
    packing: &'a Packing,
    volume_bytes: u64,
    /// `full.TIME` or `inc.TIME.to.TIME`.
    times: String,
    full: bool,
    signatures: Archive,
    volume: Archive,
    reach: PathRange,
    volumes: usize,
    manifest: String,
    files: Vec<String>,
}

/// The times in the names of the set of `state`.
pub(crate) fn set_times(state: u64) -> String {
    let stamp = |state: u64| {
        let seconds = EPOCH + DAY * state + 3600;
        let time = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
        time.strftime("%Y%m%dT%H%M%SZ").to_string()
    };
    if state == 0 { stamp(0) } else { format!("{}.to.{}", stamp(state - 1), stamp(state)) }
}

pub(crate) fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

impl<'a> SetWriter<'a> {
    pub(crate) fn new(repo: &'a Path, packing: &'a Packing, volume_bytes: usize, state: usize) -> Self {
        let full = state == 0;
        let times = set_times(state as u64);
        let kind = if full { "full" } else { "new" };
        let name = format!("duplicity-{kind}-signatures.{times}.sigtar{}", packing.suffix());
        let signatures = Archive::new(Sink::open(&repo.join(name), packing));
        let volume = Archive::new(volume(repo, packing, full, &times, 1));
        let manifest = "Hostname bench\nLocaldir tree\n".to_owned();
        let (volume_bytes, files) = (volume_bytes as u64, Vec::new());
        Self { repo, packing, volume_bytes, times, full, signatures, volume, reach: None, volumes: 1, manifest, files }
    }

    pub(crate) fn write(&mut self, change: &Change) {
        if self.volume.length() >= self.volume_bytes {
            let next = volume(self.repo, self.packing, self.full, &self.times, self.volumes + 1);
            let done = std::mem::replace(&mut self.volume, Archive::new(next));
            self.record(done);
            self.volumes += 1;
        }
        let (path, mtime) = (&change.path, Some(change.mtime));
        let mut listed = |word: &str| self.files.push(format!("    {word:<8} {path}\n"));
        match &change.what {
            What::Dir if path.is_empty() => {
                self.signatures.entry("snapshot/", b'5', mtime, b"");
                self.volume.entry("snapshot/./", b'5', mtime, b"");
            }
            What::Dir => {
                let name = format!("snapshot/{path}/");
                self.signatures.entry(&name, b'5', mtime, b"");
                self.volume.entry(&name, b'5', mtime, b"");
            }
            What::New(bytes) => {
                listed("new");
                self.signatures.entry(&format!("signature/{path}"), b'0', mtime, &rdiff::signature(bytes));
                self.volume.entry(&format!("snapshot/{path}"), b'0', mtime, bytes);
            }
            What::Changed(bytes, stays) => {
                listed("changed");
                self.signatures.entry(&format!("signature/{path}"), b'0', mtime, &rdiff::signature(bytes));
                self.volume.entry(&format!("diff/{path}"), b'0', mtime, &rdiff::delta(bytes, *stays));
            }
            What::Deleted => {
                listed("deleted");
                let name = format!("deleted/{path}");
                self.signatures.entry(&name, b'0', None, b"");
                self.volume.entry(&name, b'0', None, b"");
            }
        }
        let first = self.reach.take().map_or_else(|| path.clone(), |(first, _)| first);
        self.reach = Some((first, path.clone()));
    }

    fn record(&mut self, volume: Archive) {
        let (first, last) = self.reach.take().unwrap_or_default();
        let hash = sha1(&volume.finish());
        let (first, last) = (shown(&first), shown(&last));
        writeln!(self.manifest, "Volume {}:", self.volumes).unwrap();
        writeln!(self.manifest, "    StartingPath   {first}  \n    EndingPath     {last}  \n    Hash SHA1 {hash}")
            .unwrap();
    }

    pub(crate) fn finish(self) {
        let Self { repo, packing, ref times, full, .. } = self;
        let kind = if full { "full" } else { "inc" };
        let path = repo.join(format!("duplicity-{kind}.{times}.manifest{}", packing.manifest_suffix()));
        let sink = match packing {
            Packing::Gzip => Sink::plain(&path),
            Packing::Gpg(_) => Sink::open(&path, packing),
        };
        self.end(sink);
    }

    fn end(mut self, mut manifest: Sink) {
        // a separate gpg compresses it concurrently
        let empty = Archive::new(Sink::plain(Path::new("/dev/null")));
        let last = std::mem::replace(&mut self.volume, empty);
        self.record(last);
        self.signatures.finish();
        manifest.write(self.manifest.as_bytes());
        manifest.write(format!("Filelist {}\n", self.files.len()).as_bytes());
        manifest.write(self.files.concat().as_bytes());
        manifest.finish();
    }
}

fn volume(repo: &Path, packing: &Packing, full: bool, times: &str, number: usize) -> Sink {
    let kind = if full { "full" } else { "inc" };
    let name = format!("duplicity-{kind}.{times}.vol{number}.difftar{}", packing.suffix());
    Sink::open(&repo.join(name), packing)
}
