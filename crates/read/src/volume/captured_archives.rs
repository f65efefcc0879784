//! The plaintext of signature archives that were verified to their ends, in the block cache, and the signatures of single files in
//! it.
//!
//! Each archive has a sparse index of its paths, made when a file is looked up first. So it takes a path for each 64 KiB.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, OnceLock};

use super::block_store::{BlockStore, PassBlocks};
use super::block_sums::BlockSums;
use super::decode_volume::BlockSink;
use super::signed_blocks::{SignatureLocation, SignedBlocks};
use super::verified_blocks::DecodedObject;
use dupfs_base::ByteRange;
use dupfs_base::sync::lock;
use dupfs_cache::{BLOCK_BYTES, BlockIndex};
use dupfs_format::sigtar::{self, SIG_HEADER_LEN, SigChange};
use dupfs_format::tar::{TarEntry, TarLimits, TarParser, TarSink};
use dupfs_format::{ArchivePath, FormatError, SetIndex};

/// Bytes of plaintext between two paths of an index.
const INDEX_STEP: u64 = 64 << 10;
/// Bytes of a tar block.
const TAR_BLOCK: u64 = 512;

/// The archives whose plaintext was captured. Their blocks may be evicted.
#[derive(Debug)]
pub(super) struct CapturedArchives {
    blocks: Arc<BlockStore>,
    archives: Mutex<HashMap<SetIndex, Arc<CapturedArchive>>>,
}

#[derive(Debug)]
struct CapturedArchive {
    /// Bytes of plaintext.
    len: u64,
    is_encrypted: bool,
    /// Paths and the offsets of their headers, in order. `None` if the archive is not in the order of its paths.
    index: OnceLock<Option<Vec<(ArchivePath, u64)>>>,
}

impl CapturedArchives {
    /// No archive yet; the blocks of later ones are added to `blocks`.
    pub(super) fn new(blocks: Arc<BlockStore>) -> Self {
        Self { blocks, archives: Mutex::default() }
    }

    /// Returns true if the archive of `set` was captured.
    pub(super) fn contains(&self, set: SetIndex) -> bool {
        lock(&self.archives).contains_key(&set)
    }

    /// Begins to capture the archive of `set`, if its plaintext has at most `max_bytes`. `None` if it was captured before.
    pub(super) fn begin(&self, set: SetIndex, is_encrypted: bool, max_bytes: u64) -> Option<ArchiveRecorder<'_>> {
        if self.contains(set) {
            return None;
        }
        let nothing = ByteRange { start: 0, end: 0 };
        let mut blocks = self.blocks.begin_pass(DecodedObject::Signatures(set), nothing, None, None);
        blocks.limit(max_bytes);
        let (block, index) = (blocks.buffer(), BlockIndex::FIRST);
        Some(ArchiveRecorder {
            owner: self,
            set,
            is_encrypted,
            blocks: Some(blocks),
            block,
            filled: 0,
            index,
            len: 0,
            is_complete: false,
        })
    }

    /// The sums of the file at `path` as `set` signed it. `None` if the archive was not captured, or has no signature of the file
    /// or several entries for it, or its blocks were evicted.
    pub(super) fn find(&self, set: SetIndex, path: &ArchivePath) -> Option<SignedBlocks> {
        let archive = lock(&self.archives).get(&set).map(Arc::clone)?;
        let index = match archive.index.get() {
            Some(index) => index,
            None => {
                let made = self.make_index(set, archive.len)?;
                archive.index.get_or_init(|| made)
            }
        };
        let index = index.as_ref()?;
        let before = index.partition_point(|(first, _)| first < path).checked_sub(1);
        let from = before.and_then(|before| index.get(before)).map_or(0, |(_, offset)| *offset);
        let first = self.find_entry(set, path, ByteRange { start: from, end: archive.len })?;
        let EntryData { start: data, len: size } = first.filter(|entry| entry.change == SigChange::Signature)?.data;
        let next = data.checked_add(size)?.checked_next_multiple_of(TAR_BLOCK)?;
        // Several entries of one path follow each other.
        if self.find_entry(set, path, ByteRange { start: next, end: archive.len })?.is_some() {
            return None;
        }
        let head_len = SIG_HEADER_LEN as u64;
        let mut head = Vec::new();
        let range = ByteRange::at(data, head_len);
        let is_read = self.blocks.get(DecodedObject::Signatures(set), range)?.append_to(range, &mut head);
        let sums = head.first_chunk().filter(|_| is_read).and_then(BlockSums::parse)?;
        let location = SignatureLocation {
            set,
            is_encrypted: archive.is_encrypted,
            start: data.checked_add(head_len)?,
            len: size.checked_sub(head_len)?,
        };
        SignedBlocks::new(sums, location, Arc::clone(&self.blocks))
    }

    /// The first entry of `path` in `range` of the plaintext, which begins with a header. `None` if blocks were evicted; the inner
    /// value is `None` if there is no such entry.
    fn find_entry(&self, set: SetIndex, path: &ArchivePath, range: ByteRange) -> Option<Option<FoundEntry>> {
        let mut search = FindEntry { path, base: range.start, found: None, is_done: false };
        self.parse(set, range, &mut search, |search| search.is_done)?;
        Some(search.found)
    }

    /// The index of the archive of `set`; `None` if its blocks were evicted. The inner value is `None` if it is not in order.
    fn make_index(&self, set: SetIndex, len: u64) -> Option<Option<Vec<(ArchivePath, u64)>>> {
        let mut sink = IndexEntries { paths: Vec::new(), next: 0, last: None, is_sorted: true };
        self.parse(set, ByteRange { start: 0, end: len }, &mut sink, |sink| !sink.is_sorted)?;
        Some(sink.is_sorted.then_some(sink.paths))
    }

    /// Parses `range` of the plaintext, which begins with a header, until `is_done`. `None` if blocks were evicted, or it is no
    /// tar archive.
    fn parse<S: TarSink>(
        &self,
        set: SetIndex,
        range: ByteRange,
        sink: &mut S,
        is_done: impl Fn(&S) -> bool,
    ) -> Option<()> {
        let mut parser = TarParser::new(TarLimits::default());
        let mut at = range.start;
        let mut bytes = Vec::new();
        while at < range.end && !is_done(sink) {
            let end = BlockIndex::containing(at).next().start().min(range.end);
            let piece = ByteRange { start: at, end };
            bytes.clear();
            if !self.blocks.get(DecodedObject::Signatures(set), piece)?.append_to(piece, &mut bytes) {
                return None;
            }
            parser.feed(&bytes, sink).ok()?;
            at = end;
        }
        Some(())
    }
}

/// Captures an archive while it is read. Dropping it drops what it has captured.
pub(super) struct ArchiveRecorder<'a> {
    owner: &'a CapturedArchives,
    set: SetIndex,
    is_encrypted: bool,
    /// The blocks so far; `None` once it is too large, or published.
    blocks: Option<PassBlocks<'a>>,
    block: Arc<[u8]>,
    filled: usize,
    index: BlockIndex,
    len: u64,
    is_complete: bool,
}

impl ArchiveRecorder<'_> {
    fn take(&mut self, mut bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len() as u64);
        while !bytes.is_empty() && self.blocks.is_some() {
            let room = Arc::make_mut(&mut self.block).get_mut(self.filled..).unwrap_or_default();
            let taken = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            if let Some(room) = room.get_mut(..taken) {
                room.copy_from_slice(now);
            }
            bytes = later;
            self.filled = self.filled.saturating_add(taken);
            if self.filled >= BLOCK_BYTES {
                self.store_block();
            }
        }
    }

    fn store_block(&mut self) {
        let Some(blocks) = &mut self.blocks else { return };
        let full = std::mem::replace(&mut self.block, blocks.buffer());
        let block = if self.filled < BLOCK_BYTES { full.get(..self.filled).unwrap_or_default().into() } else { full };
        blocks.block(self.index, block);
        self.index = self.index.next();
        self.filled = 0;
        if !blocks.is_whole() {
            self.discard();
        }
    }

    fn discard(&mut self) {
        if let Some(blocks) = self.blocks.take() {
            blocks.discard();
        }
    }

    /// Makes the archive available: it was verified to its end, and is that of the set.
    pub(super) fn publish(mut self) {
        if self.filled > 0 {
            self.store_block();
        }
        if !self.is_complete {
            return;
        }
        if let Some(blocks) = self.blocks.take() {
            blocks.publish();
            let archive = CapturedArchive { len: self.len, is_encrypted: self.is_encrypted, index: OnceLock::new() };
            lock(&self.owner.archives).insert(self.set, Arc::new(archive));
        }
    }
}

impl Drop for ArchiveRecorder<'_> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Passes the plaintext of an archive on, and to a recorder.
pub(super) struct RecordedPlaintext<'r, 'a> {
    pub(super) inner: &'r mut dyn Read,
    pub(super) recorder: Option<&'r mut ArchiveRecorder<'a>>,
}

impl Read for RecordedPlaintext<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.is_complete |= len == 0 && !buf.is_empty();
            recorder.take(buf.get(..len).unwrap_or_default());
        }
        Ok(len)
    }
}

/// Makes the index of an archive.
struct IndexEntries {
    paths: Vec<(ArchivePath, u64)>,
    next: u64,
    last: Option<ArchivePath>,
    is_sorted: bool,
}

impl TarSink for IndexEntries {
    fn entry(&mut self, entry: &TarEntry<'_>, _: u64) -> Result<(), FormatError> {
        let (_, path) = sigtar::parse_entry_name(entry.path)?;
        self.is_sorted &= self.last.as_ref().is_none_or(|last| *last <= path);
        if entry.header_offset >= self.next {
            self.next = entry.header_offset.saturating_add(INDEX_STEP);
            self.paths.push((path.clone(), entry.header_offset));
        }
        self.last = Some(path);
        Ok(())
    }

    fn data(&mut self, _: &[u8]) -> Result<(), FormatError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        Ok(())
    }
}

/// The data of an entry in the plaintext of its archive.
#[derive(Clone, Copy, Debug)]
struct EntryData {
    start: u64,
    len: u64,
}

#[derive(Clone, Copy, Debug)]
struct FoundEntry {
    change: SigChange,
    data: EntryData,
}

/// Finds the first entry of a path in an archive that is in order.
struct FindEntry<'p> {
    path: &'p ArchivePath,
    /// The offset at which the search begins.
    base: u64,
    found: Option<FoundEntry>,
    is_done: bool,
}

impl TarSink for FindEntry<'_> {
    fn entry(&mut self, entry: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        if self.is_done {
            return Ok(());
        }
        let (change, path) = sigtar::parse_entry_name(entry.path)?;
        self.is_done = path >= *self.path;
        let data = EntryData { start: self.base.saturating_add(data_offset), len: entry.size };
        self.found = (path == *self.path).then_some(FoundEntry { change, data });
        Ok(())
    }

    fn data(&mut self, _: &[u8]) -> Result<(), FormatError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dupfs_cache::{CacheConfig, LentMemory};
    use dupfs_test_tar::put_entry;

    use super::super::block_sums::tests::HELLO;
    use super::super::signed_blocks::Unverified;
    use super::*;

    const SET: SetIndex = SetIndex(4);

    fn path(path: &str) -> ArchivePath {
        ArchivePath::parse(path.as_bytes()).unwrap()
    }

    fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut archive = Vec::new();
        entries.iter().for_each(|(name, data)| put_entry(&mut archive, name.as_bytes(), b'0', data));
        archive.extend([0; 1024]);
        archive
    }

    /// The archives after one with `entries` was read to its end.
    fn captured(entries: &[(String, Vec<u8>)], memory_bytes: u64, max_bytes: u64) -> CapturedArchives {
        let archives = CapturedArchives::new(Arc::new(BlockStore::new(
            CacheConfig { memory_bytes, spill: None },
            LentMemory::default(),
        )));
        let mut recorder = archives.begin(SET, true, max_bytes).unwrap();
        let bytes = archive(entries);
        let mut recorded = RecordedPlaintext { inner: &mut bytes.as_slice(), recorder: Some(&mut recorder) };
        io::copy(&mut recorded, &mut io::sink()).unwrap();
        recorder.publish();
        archives
    }

    /// `count` files, of which each has the content "hello\n" and some a larger signature.
    fn files(count: usize) -> Vec<(String, Vec<u8>)> {
        let signature = |i: usize| [HELLO, &vec![7; if i.is_multiple_of(50) { 12 * 9000 } else { 0 }]].concat();
        (0..count).map(|i| (format!("signature/dir/file{i:05}"), signature(i))).collect()
    }

    fn proves(archives: &CapturedArchives, name: &str, content: &[u8]) -> Option<bool> {
        let signed = archives.find(SET, &path(name))?;
        let mut unverified = Unverified::default();
        unverified.extend_verified(content);
        Some(signed.prove(0, unverified, content.len() as u64).is_some_and(|proved| proved == content))
    }

    #[test]
    fn each_file_is_found_and_only_its_content_is_proved() {
        let mut files = files(700);
        files.insert(0, ("snapshot/dir".to_owned(), Vec::new()));
        let archives = captured(&files, 64 << 20, 64 << 20);
        assert_eq!(archives.find(SetIndex(5), &path("dir/file00001")).map(|_| ()), None);
        for i in [1, 2, 49, 51, 99, 698, 699] {
            let name = format!("dir/file{i:05}");
            assert_eq!(proves(&archives, &name, b"hello\n"), Some(true), "{name}");
            for other in [&b"hellp\n"[..], b"hello", b"hello\n\0", b"", &[b'h'; 513]] {
                assert_eq!(proves(&archives, &name, other), Some(false), "{name} {other:?}");
            }
        }
        assert_eq!(proves(&archives, "dir/file00050", b"hello\n"), Some(false), "it has more blocks");
        for name in ["dir", "dir/file", "dir/file00001x", "a", "z"] {
            assert_eq!(proves(&archives, name, b"hello\n"), None, "{name}");
        }
    }

    #[test]
    fn single_blocks_are_proved_where_they_are() {
        let block = |byte: u8, len: usize| vec![byte; len];
        let content = [block(1, 512), block(2, 512), block(3, 100)].concat();
        let sums = BlockSums::parse(HELLO.first_chunk().unwrap()).unwrap();
        let signature = [HELLO[..12].to_vec(), content.chunks(512).flat_map(|block| sums.of(block)).collect()].concat();
        let archives = captured(&[("signature/f".to_owned(), signature)], 1 << 20, 1 << 20);
        let signed = archives.find(SET, &path("f")).unwrap();
        let proved = |start: usize, end: usize, size: u64| {
            let mut unverified = Unverified::default();
            unverified.extend_verified(content.get(start..end).unwrap());
            signed.prove(start as u64, unverified, size).is_some()
        };
        for (start, end) in [(0, 512), (512, 1024), (1024, 1124), (0, 1124), (512, 1124)] {
            assert!(proved(start, end, 1124), "{start} {end}");
        }
        for (start, end) in [(0, 511), (1, 513), (0, 1123), (1024, 1123)] {
            assert!(!proved(start, end, 1124), "{start} {end}");
        }
        for size in [1024, 1123, 1125, 1537] {
            assert!(!proved(1024, 1124, size), "a file of {size} bytes");
        }
        let mut moved = Unverified::default();
        moved.extend_verified(content.get(512..1024).unwrap());
        assert!(signed.prove(0, moved, 1124).is_none(), "another block of the file");
    }

    #[test]
    fn an_unencrypted_archive_proves_nothing_of_an_encrypted_volume() {
        for is_encrypted in [false, true] {
            let archives = CapturedArchives::new(Arc::new(BlockStore::new(
                CacheConfig { memory_bytes: 1 << 20, spill: None },
                LentMemory::default(),
            )));
            let mut recorder = archives.begin(SET, is_encrypted, 1 << 20).unwrap();
            let bytes =
                archive(&files(1)[..1].iter().map(|(name, _)| (name.clone(), HELLO.to_vec())).collect::<Vec<_>>());
            let mut recorded = RecordedPlaintext { inner: &mut bytes.as_slice(), recorder: Some(&mut recorder) };
            io::copy(&mut recorded, &mut io::sink()).unwrap();
            recorder.publish();
            let mut content = Unverified::default();
            assert!(content.extend(true, |bytes| {
                bytes.extend_from_slice(b"hello\n");
                true
            }));
            let signed = archives.find(SET, &path("dir/file00000")).unwrap();
            assert_eq!(signed.prove(0, content, 6).is_some(), is_encrypted);
        }
    }

    #[test]
    fn archives_out_of_order_or_with_several_entries_for_a_path_prove_nothing() {
        let file = |name: &str| (name.to_owned(), HELLO.to_vec());
        let backwards = captured(&[file("signature/b"), file("signature/a")], 1 << 20, 1 << 20);
        assert_eq!((proves(&backwards, "a", b"hello\n"), proves(&backwards, "b", b"hello\n")), (None, None));
        let twice = captured(&[file("signature/a"), file("signature/a"), file("signature/b")], 1 << 20, 1 << 20);
        assert_eq!((proves(&twice, "a", b"hello\n"), proves(&twice, "b", b"hello\n")), (None, Some(true)));
        let deleted = captured(&[file("signature/a"), file("deleted/a")], 1 << 20, 1 << 20);
        assert_eq!(proves(&deleted, "a", b"hello\n"), None);
    }

    #[test]
    fn an_archive_that_is_too_large_or_evicted_or_not_read_to_its_end_proves_nothing() {
        let files = files(3000);
        for (memory, max) in [(64 << 20, 1 << 20), (1 << 20, 64 << 20)] {
            assert_eq!(proves(&captured(&files, memory, max), "dir/file00001", b"hello\n"), None, "{memory} {max}");
        }
        let archives = CapturedArchives::new(Arc::new(BlockStore::new(
            CacheConfig { memory_bytes: 1 << 24, spill: None },
            LentMemory::default(),
        )));
        let mut recorder = archives.begin(SET, true, 1 << 24).unwrap();
        let bytes = archive(&files[..9]);
        let mut recorded = RecordedPlaintext { inner: &mut bytes.as_slice(), recorder: Some(&mut recorder) };
        recorded.read_exact(&mut vec![0; bytes.len()]).unwrap();
        recorder.publish();
        assert_eq!(proves(&archives, "dir/file00001", b"hello\n"), None);
    }
}
