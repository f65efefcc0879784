//! One pass over a stored volume: fetch, hash, decrypt, inflate, index. Nothing leaves a pass before its end, when the
//! manifest's hash, the integrity code and the tar structure have all been found right.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use md5::Md5;
use sha1::{Digest, Sha1};

use super::error::VolumeError;
use super::member_table::{MemberTable, MemberTableBuilder};
use crate::codec::Decoder;
use crate::storage::{ObjectInfo, ObjectStore, StorageError};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_format::FormatError;
use dupfs_format::difftar;
use dupfs_format::manifest::HashKind;
use dupfs_format::tar::{TarEntry, TarLimits, TarParser, TarSink};

/// Plaintext is kept in blocks of this many bytes; the last block of a volume is shorter.
pub(super) const BLOCK: usize = dupfs_cache::BLOCK_BYTES;

/// What a manifest says of a volume's stored bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpectedHash {
    pub(super) kind: HashKind,
    pub(super) digest: Vec<u8>,
}

/// Receives the blocks of a pass, in order, before they are verified: it must keep them from every reader until the
/// pass has returned `Ok`.
pub(super) trait BlockSink {
    fn block(&mut self, index: u32, block: Arc<[u8]>);

    /// A buffer of [`BLOCK`] bytes for the next block, which nobody else holds.
    fn buffer(&mut self) -> Arc<[u8]>;
}

enum Hasher {
    None,
    Sha1(Sha1),
    Md5(Md5),
}

/// Hashes the stored bytes as the decoder draws them.
struct HashingReader {
    input: Box<dyn Read + Send>,
    hasher: Hasher,
    object: Arc<str>,
    context: RequestContext,
}

impl Read for HashingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.context.check().map_err(|stopped| StorageError::stopped(&self.object, stopped).into_io())?;
        let n = self.input.read(buf)?;
        let got = buf.get(..n).unwrap_or(&[]);
        match &mut self.hasher {
            Hasher::None => {}
            Hasher::Sha1(h) => h.update(got),
            Hasher::Md5(h) => h.update(got),
        }
        Ok(n)
    }
}

impl HashingReader {
    fn finish(mut self, object: &str, expected: Option<&ExpectedHash>) -> Result<(), VolumeError> {
        io::copy(&mut self, &mut io::sink()).map_err(|e| VolumeError::from_io(object, &e))?;
        let Some(expected) = expected else { return Ok(()) };
        let (digest, kind) = match self.hasher {
            Hasher::None => return Ok(()),
            Hasher::Sha1(h) => (h.finalize().to_vec(), "SHA-1 hash"),
            Hasher::Md5(h) => (h.finalize().to_vec(), "MD5 hash"),
        };
        if digest == expected.digest {
            return Ok(());
        }
        Err(VolumeError::HashMismatch { object: object.into(), kind })
    }
}

/// A reader lent to the decoder, which may read it by another thread: it comes back when the decoder lets go of it.
struct Lent {
    reader: Option<HashingReader>,
    back: Sender<HashingReader>,
}

impl Read for Lent {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.as_mut().map_or(Ok(0), |reader| reader.read(buf))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            // Nobody wants it back if the pass panicked.
            let _ = self.back.send(reader);
        }
    }
}

/// Streams `object` through the decoder into `consume`, within the limits of `context`, and returns once its stored bytes agree with `expected`. With
/// `on_two` the work is divided between two threads.
///
/// # Errors
/// [`VolumeError`]; where both the decoder and the hash complain, the hash is the one reported, as it says where the
/// damage is.
pub(super) fn stream_object(
    store: &dyn ObjectStore,
    decoder: &Decoder,
    object: &ObjectInfo,
    expected: Option<&ExpectedHash>,
    on_two: bool,
    context: &RequestContext,
    consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), VolumeError>,
) -> Result<(), VolumeError> {
    let name: &str = &object.name;
    let whole = dupfs_base::ByteRange::at(0, object.size);
    let input = store.open(object, whole, context).map_err(|e| VolumeError::from_storage(name, &e))?;
    let hasher = match expected.map(|e| e.kind) {
        None => Hasher::None,
        Some(HashKind::Sha1) => Hasher::Sha1(Sha1::new()),
        Some(HashKind::Md5) => Hasher::Md5(Md5::new()),
    };
    let (back, returned) = channel();
    let lent = Box::new(Lent {
        reader: Some(HashingReader { input, hasher, object: Arc::clone(&object.name), context: context.clone() }),
        back,
    });
    let opened = if on_two { decoder.open_threaded(name, lent) } else { decoder.open(name, lent) };
    let decoded = opened.map_err(|e| VolumeError::from_codec(name, &e)).and_then(|mut plain| {
        consume(&mut *plain)?;
        // The decoder vouches for what was consumed only at the end of the stream.
        io::copy(&mut plain, &mut io::sink()).map(drop).map_err(|e| VolumeError::from_io(name, &e))
    });
    let gone = |_| VolumeError::object(name, ErrorKind::Io, "the thread that reads it has failed");
    let hashing = returned.recv().map_err(gone)?;
    match decoded {
        Ok(()) => hashing.finish(name, expected),
        // Without a hash to compare, the rest of a damaged object tells nothing.
        Err(error) if error.kind() == ErrorKind::Corrupt && expected.is_some() => {
            Err(hashing.finish(name, expected).err().unwrap_or(error))
        }
        Err(error) => Err(error),
    }
}

/// Decodes one volume, by two threads if `on_two`, handing its blocks to `sink`, and returns its member table.
///
/// # Errors
/// [`VolumeError`]: then nothing that `sink` was given may be used.
pub(super) fn decode_volume(
    store: &dyn ObjectStore,
    decoder: &Decoder,
    object: &ObjectInfo,
    expected: Option<&ExpectedHash>,
    on_two: bool,
    context: &RequestContext,
    sink: &mut dyn BlockSink,
) -> Result<MemberTable, VolumeError> {
    let mut table = None;
    stream_object(store, decoder, object, expected, on_two, context, &mut |plain| {
        table = Some(index_plaintext(&object.name, plain, sink)?);
        Ok(())
    })?;
    table.ok_or_else(|| VolumeError::object(&object.name, ErrorKind::Corrupt, "the decoder gave nothing"))
}

fn index_plaintext(object: &str, plain: &mut dyn Read, sink: &mut dyn BlockSink) -> Result<MemberTable, VolumeError> {
    let mut walker = TarParser::new(TarLimits::default());
    let mut members = MemberSink::default();
    let mut plain_len = 0u64;
    for index in 0u32.. {
        let mut block = sink.buffer();
        let filled = fill(plain, Arc::make_mut(&mut block)).map_err(|e| VolumeError::from_io(object, &e))?;
        let full = filled == BLOCK;
        let block = if full { block } else { block.get(..filled).unwrap_or(&[]).into() };
        walker.feed(&block, &mut members).map_err(|e| VolumeError::from_format(object, &e))?;
        plain_len = plain_len.saturating_add(filled as u64);
        if filled > 0 {
            sink.block(index, block);
        }
        if !full {
            break;
        }
    }
    walker.finish().map_err(|e| VolumeError::from_format(object, &e))?;
    Ok(members.builder.finish(plain_len))
}

/// Hands the plaintext of `object` to `take` in pieces, to its end.
///
/// # Errors
/// [`VolumeError`] when it cannot be read, or what `take` says is wrong with it.
pub(crate) fn feed(
    object: &str,
    plain: &mut dyn Read,
    take: &mut dyn FnMut(&[u8]) -> Result<(), FormatError>,
) -> Result<(), VolumeError> {
    let mut chunk = vec![0; BLOCK];
    loop {
        let filled = fill(plain, &mut chunk).map_err(|e| VolumeError::from_io(object, &e))?;
        take(chunk.get(..filled).unwrap_or(&[])).map_err(|e| VolumeError::from_format(object, &e))?;
        if filled < BLOCK {
            return Ok(());
        }
    }
}

/// Fills `buf` as far as the stream goes; shorter only at its verified end.
fn fill(input: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|r| !r.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[derive(Default)]
struct MemberSink {
    builder: MemberTableBuilder,
}

impl TarSink for MemberSink {
    fn entry(&mut self, entry: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        let member = difftar::parse_entry_name(entry.path).map_err(|e| e.at(entry.header_offset))?;
        self.builder.push(member, entry.meta()?, data_offset, entry.size);
        Ok(())
    }

    fn data(&mut self, _bytes: &[u8]) -> Result<(), FormatError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        Ok(())
    }
}
