//! A backup of any size, which takes about a ninth of its source. All content is made of the same pages of text and zeros, so
//! that nothing is compressed twice; the sums in the signatures are incompressible, as usual.
//!
//! Two thirds of the source are files below a megabyte, the rest are three large ones. Two increments change each 128th
//! page of the large files and each hundredth of the others, and delete some.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use sequoia_openpgp::Cert;

use crate::history::{DAY, EPOCH};
use crate::pieces::{Deflater, Piece, PieceSink};
use crate::rdiff;
use crate::sink::sha1;
use crate::tar;
use crate::writer::{set_times, shown};

/// Bytes of a page, and of a part of a file.
const PAGE: usize = 65_536;
const PAGES: usize = 256;
/// Files of each directory.
const FILES: usize = 1000;
/// Block lengths that duplicity takes for files below 1 MB, and for large ones.
const BLOCKS: [u32; 2] = [512, 2048];
/// Shares of the large files, in percent of all bytes.
const LARGE: [(&str, u64); 3] = [("dump", 10), ("image", 20), ("log", 4)];
const INCREMENTS: u64 = 2;

fn mix(values: [u64; 3]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15u64;
    for value in values {
        hash = (hash ^ value).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 29;
    }
    hash
}

/// The number of bytes of the last part: 16 lengths, so that all beginnings of pages are compressed once too.
fn tail(choice: u64) -> usize {
    (choice % 16) as usize * 4096 + 100
}

/// A file at a state. Its content follows from its number, and from the states that changed it.
#[derive(Clone, Copy)]
struct BulkFile {
    id: u64,
    pages: u64,
    tail: usize,
    is_large: bool,
}

impl BulkFile {
    fn small(slot: u64) -> Self {
        let hash = mix([slot, 0, 0]);
        let pages = if hash.is_multiple_of(2) { 0 } else { hash / 2 % 14 };
        Self { id: slot, pages, tail: tail(hash >> 32), is_large: false }
    }

    fn large(at: usize, bytes: u64) -> Self {
        Self { id: 1 << 40 | at as u64, pages: bytes / PAGE as u64, tail: tail(at as u64 + 5), is_large: true }
    }

    fn bytes(&self) -> u64 {
        self.pages * PAGE as u64 + self.tail as u64
    }

    /// The state, up to `state`, that changed the page `at` last.
    fn page_state(&self, at: u64, state: u64) -> u64 {
        match self.is_large {
            true => {
                if at % 128 <= state {
                    at % 128
                } else {
                    0
                }
            }
            // The end of a small file changes.
            false if at == self.pages => (1..=state).rev().find(|state| self.changes(*state)).unwrap_or(0),
            false => 0,
        }
    }

    /// The page whose beginning is the content of the part `at`.
    fn page(&self, at: u64, state: u64) -> usize {
        mix([self.id, at, self.page_state(at, state)]) as usize % PAGES
    }

    /// True if the increment of `state` changes it.
    fn changes(&self, state: u64) -> bool {
        self.is_large || mix([self.id, 7, state]).is_multiple_of(100)
    }

    /// True if it is deleted by the increment of `state`.
    fn goes(&self, state: u64) -> bool {
        !self.is_large && mix([self.id, 8, 0]) % 500 == state && !self.changes(state)
    }

    fn is_gone(&self, state: u64) -> bool {
        (1..=state).any(|state| self.goes(state))
    }

    fn block(&self) -> usize {
        usize::from(self.is_large)
    }
}

/// The pages with their sums.
struct Pages {
    plain: Vec<Vec<u8>>,
    deflater: Deflater,
    fast: Deflater,
    /// By page and length.
    data: HashMap<(usize, usize), Piece>,
    /// By page, length and place of the block length.
    sums: HashMap<(usize, usize, usize), Piece>,
}

impl Pages {
    fn new() -> Self {
        let plain = (0..PAGES).map(|page| {
            let mut text = String::new();
            let mut line = 0;
            while page % 2 != 0 && text.len() < PAGE {
                let number = mix([page as u64, line, 9]);
                line += 1;
                let (day, host) = (number % 28 + 1, number >> 8 & 0xff);
                writeln!(
                    text,
                    "2026-01-{day:02}T02:15:{line:04}Z host{host:03} service[{line}]: request of client accepted, status 200, \
                     {number:x} bytes sent"
                )
                .unwrap();
            }
            let mut bytes = text.into_bytes();
            bytes.resize(PAGE, 0);
            // Zeros differ from page to page too.
            bytes.chunks_mut(4096).for_each(|chunk| chunk[..8].copy_from_slice(&(page as u64).to_be_bytes()));
            bytes
        });
        let (plain, deflater, fast) =
            (plain.collect(), Deflater::new(Compression::best()), Deflater::new(Compression::fast()));
        Self { plain, deflater, fast, data: HashMap::new(), sums: HashMap::new() }
    }

    fn plain(&self, page: usize, length: usize) -> &[u8] {
        &self.plain[page][..length]
    }

    fn data(&mut self, page: usize, length: usize) -> &Piece {
        let Self { plain, deflater, data, .. } = self;
        data.entry((page, length)).or_insert_with(|| deflater.piece(&plain[page][..length]))
    }

    fn sums(&mut self, page: usize, length: usize, block: usize) -> &Piece {
        let Self { plain, fast, sums, .. } = self;
        let make = || fast.piece(&rdiff::block_sums(&plain[page][..length], BLOCKS[block]));
        sums.entry((page, length, block)).or_insert_with(make)
    }
}

/// A set that is being written.
struct BulkSet<'a> {
    repo: &'a Path,
    cert: &'static Cert,
    pages: &'a mut Pages,
    volume_bytes: u64,
    state: u64,
    times: String,
    signatures: PieceSink,
    volume: PieceSink,
    volumes: usize,
    /// The first and last entry of the volume, as in its manifest.
    reach: Option<(String, String)>,
    manifest: String,
    files: String,
    listed: usize,
}

/// The name of a file in its archive.
fn part_name(kind: &str, path: &str, part: u64, parts: u64) -> String {
    if parts == 1 { format!("{kind}/{path}") } else { format!("multivol_{kind}/{path}/{part}") }
}

impl<'a> BulkSet<'a> {
    fn new(repo: &'a Path, cert: &'static Cert, pages: &'a mut Pages, volume_bytes: u64, state: u64) -> Self {
        let is_full = state == 0;
        let times = set_times(state);
        let kind = if is_full { "full" } else { "new" };
        let name = format!("duplicity-{kind}-signatures.{times}.sigtar.gpg");
        let signatures = PieceSink::open(&repo.join(name), cert, &mut pages.fast);
        let volume = PieceSink::open(&volume_path(repo, &times, is_full, 1), cert, &mut pages.fast);
        let manifest = "Hostname bench\nLocaldir tree\n".to_owned();
        Self {
            repo,
            cert,
            pages,
            volume_bytes,
            state,
            times,
            signatures,
            volume,
            volumes: 1,
            reach: None,
            manifest,
            files: String::new(),
            listed: 0,
        }
    }

    fn mtime(&self) -> u64 {
        EPOCH + DAY * self.state
    }

    /// Begins an entry of the volume, the part `part` of `parts`, and a new volume if this one is full.
    fn begin(&mut self, name: &str, path: &str, (part, parts): (u64, u64), kind: u8, mtime: Option<u64>, size: usize) {
        if self.volume.length >= self.volume_bytes {
            self.record();
            self.volumes += 1;
            let next = volume_path(self.repo, &self.times, self.state == 0, self.volumes);
            self.volume = PieceSink::open(&next, self.cert, &mut self.pages.fast);
        }
        let number = if part < parts { part.to_string() } else { " ".to_owned() };
        let place = format!("{} {number}", shown(path));
        let first = self.reach.take().map_or_else(|| place.clone(), |(first, _)| first);
        self.reach = Some((first, place));
        let mut header = Vec::new();
        tar::header(&mut header, name, kind, mtime, size);
        self.volume.push(&self.pages.fast.piece(&header));
    }

    fn pad(&mut self, size: usize) {
        self.volume.push(&self.pages.fast.piece(tar::padding(size)));
    }

    /// Ends the volume.
    fn record(&mut self) {
        let Self { repo, ref times, state, cert, volumes, .. } = *self;
        self.volume.push(&self.pages.fast.piece(&tar::end(self.volume.length)));
        let unused = PieceSink::open(Path::new("/dev/null"), cert, &mut self.pages.fast);
        std::mem::replace(&mut self.volume, unused).finish();
        let hash = sha1(&volume_path(repo, times, state == 0, volumes));
        let (first, last) = self.reach.take().unwrap_or_else(|| (".  ".to_owned(), ".  ".to_owned()));
        let lines = format!("    StartingPath   {first}\n    EndingPath     {last}\n    Hash SHA1 {hash}");
        writeln!(self.manifest, "Volume {volumes}:\n{lines}").unwrap();
    }

    fn directory(&mut self, path: &str) {
        let mtime = Some(self.mtime());
        let (signed, stored) = match path {
            "" => ("snapshot/".to_owned(), "snapshot/./".to_owned()),
            path => (format!("snapshot/{path}/"), format!("snapshot/{path}/")),
        };
        self.begin(&stored, path, (1, 1), b'5', mtime, 0);
        let mut header = Vec::new();
        tar::header(&mut header, &signed, b'5', mtime, 0);
        self.signatures.push(&self.pages.fast.piece(&header));
    }

    fn list(&mut self, word: &str, path: &str) {
        writeln!(self.files, "    {word:<8} {path}").unwrap();
        self.listed += 1;
    }

    /// Writes what the set stores of `file`.
    fn file(&mut self, path: &str, file: BulkFile) {
        let state = self.state;
        if state == 0 {
            self.list("new", path);
            self.signature(path, file);
            let parts = file.pages + 1;
            for at in 0..parts {
                let size = if at == file.pages { file.tail } else { PAGE };
                let name = part_name("snapshot", path, at + 1, parts);
                self.begin(&name, path, (at + 1, parts), b'0', Some(self.mtime()), size);
                self.volume.push(self.pages.data(file.page(at, 0), size));
                self.pad(size);
            }
        } else if file.goes(state) && !file.is_gone(state - 1) {
            self.list("deleted", path);
            let name = format!("deleted/{path}");
            self.begin(&name, path, (1, 1), b'0', None, 0);
            let mut header = Vec::new();
            tar::header(&mut header, &name, b'0', None, 0);
            self.signatures.push(&self.pages.fast.piece(&header));
        } else if file.changes(state) && !file.is_gone(state) {
            self.list("changed", path);
            self.signature(path, file);
            self.delta(path, file);
        }
    }

    fn signature(&mut self, path: &str, file: BulkFile) {
        let block = file.block();
        let blocks = file.bytes().div_ceil(u64::from(BLOCKS[block]));
        let size = 12 + 12 * usize::try_from(blocks).unwrap();
        let mut head = Vec::new();
        tar::header(&mut head, &format!("signature/{path}"), b'0', Some(self.mtime()), size);
        head.extend(rdiff::signature_header(BLOCKS[block]));
        self.signatures.push(&self.pages.fast.piece(&head));
        for at in 0..=file.pages {
            let size = if at == file.pages { file.tail } else { PAGE };
            self.signatures.push(self.pages.sums(file.page(at, self.state), size, block));
        }
        self.signatures.push(&self.pages.fast.piece(tar::padding(size)));
    }

    /// Copies the parts that stay, and stores the others as literals.
    fn delta(&mut self, path: &str, file: BulkFile) {
        let state = self.state;
        let (mut stream, mut is_kept, mut copy) = (DeltaStream::new(path, file, state), 0u64, 0u64);
        for at in 0..=file.pages {
            let size = if at == file.pages { file.tail } else { PAGE };
            if file.page_state(at, state) == state {
                stream.copy(self, copy, is_kept - copy);
                stream.literal(self, file.page(at, state), size);
                copy = is_kept + size as u64;
            }
            is_kept += size as u64;
        }
        stream.copy(self, copy, is_kept - copy);
        stream.finish(self);
    }

    fn finish(mut self) {
        self.record();
        self.signatures.push(&self.pages.fast.piece(&tar::end(self.signatures.length)));
        self.signatures.finish();
        let kind = if self.state == 0 { "full" } else { "inc" };
        let path = self.repo.join(format!("duplicity-{kind}.{}.manifest.gpg", self.times));
        let mut manifest = PieceSink::open(&path, self.cert, &mut self.pages.fast);
        let text = format!("{}Filelist {}\n{}", self.manifest, self.listed, self.files);
        manifest.push(&self.pages.deflater.piece(text.as_bytes()));
        manifest.finish();
    }
}

/// A delta that is cut into parts. The number of its parts must be known at its first part.
struct DeltaStream<'a> {
    path: &'a str,
    parts: u64,
    part: u64,
    bytes: Vec<u8>,
}

impl<'a> DeltaStream<'a> {
    fn new(path: &'a str, file: BulkFile, state: u64) -> Self {
        let mut length = 5;
        let mut run = false;
        for at in 0..=file.pages {
            let size = if at == file.pages { file.tail } else { PAGE } as u64;
            let is_new = file.page_state(at, state) == state;
            if is_new {
                length += 5 + size;
            } else if !run {
                length += 17;
            }
            run = !is_new;
        }
        let parts = if length < PAGE as u64 { 1 } else { length / PAGE as u64 + 1 };
        Self { path, parts, part: 0, bytes: b"rs\x026".to_vec() }
    }

    fn copy(&mut self, set: &mut BulkSet<'_>, from: u64, length: u64) {
        if length > 0 {
            self.bytes.push(0x54);
            self.bytes.extend(from.to_be_bytes());
            self.bytes.extend(length.to_be_bytes());
            self.flush(set);
        }
    }

    fn literal(&mut self, set: &mut BulkSet<'_>, page: usize, size: usize) {
        self.bytes.push(0x43);
        self.bytes.extend(u32::try_from(size).unwrap().to_be_bytes());
        self.bytes.extend(set.pages.plain(page, size));
        self.flush(set);
    }

    fn flush(&mut self, set: &mut BulkSet<'_>) {
        while self.parts > 1 && self.bytes.len() >= PAGE {
            let rest = self.bytes.split_off(PAGE);
            let part = std::mem::replace(&mut self.bytes, rest);
            self.write(set, &part);
        }
    }

    fn write(&mut self, set: &mut BulkSet<'_>, bytes: &[u8]) {
        self.part += 1;
        let name = part_name("diff", self.path, self.part, self.parts);
        set.begin(&name, self.path, (self.part, self.parts), b'0', Some(set.mtime()), bytes.len());
        let piece = set.pages.fast.piece(bytes);
        set.volume.push(&piece);
        set.pad(bytes.len());
    }

    fn finish(mut self, set: &mut BulkSet<'_>) {
        self.bytes.push(0);
        self.flush(set);
        let last = std::mem::take(&mut self.bytes);
        self.write(set, &last);
        assert_eq!(self.part, self.parts, "parts of the delta of {}", self.path);
    }
}

fn volume_path(repo: &Path, times: &str, is_full: bool, number: usize) -> PathBuf {
    let kind = if is_full { "full" } else { "inc" };
    repo.join(format!("duplicity-{kind}.{times}.vol{number}.difftar.gpg"))
}

/// Writes a backup of `bytes` in volumes of `volume` bytes before compression. Returns the number of entries of the newest
/// snapshot.
pub(crate) fn write(repo: &Path, cert: &'static Cert, bytes: u64, volume: u64) -> u64 {
    let large: Vec<_> = LARGE
        .iter()
        .enumerate()
        .map(|(at, (name, percent))| (*name, BulkFile::large(at, bytes / 100 * percent)))
        .collect();
    let mut small = 0;
    let mut left = bytes - large.iter().map(|(_, file)| file.bytes()).sum::<u64>().min(bytes);
    while let Some(rest) = left.checked_sub(BulkFile::small(small).bytes()) {
        left = rest;
        small += 1;
    }
    let mut pages = Pages::new();
    for state in 0..=INCREMENTS {
        let mut set = BulkSet::new(repo, cert, &mut pages, volume, state);
        if state == 0 {
            set.directory("");
        }
        for slot in 0..small {
            let dir = format!("d{:06}", slot / FILES as u64);
            if state == 0 && slot.is_multiple_of(FILES as u64) {
                set.directory(&dir);
            }
            set.file(&format!("{dir}/f{:03}", slot % FILES as u64), BulkFile::small(slot));
        }
        if state == 0 {
            set.directory("huge");
        }
        for (name, file) in &large {
            set.file(&format!("huge/{name}"), *file);
        }
        set.finish();
    }
    let alive = (0..small).filter(|slot| !BulkFile::small(*slot).is_gone(INCREMENTS)).count() as u64;
    alive + small.div_ceil(FILES as u64) + large.len() as u64 + 2
}
