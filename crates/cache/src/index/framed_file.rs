//! The frame of a file that is read as a whole: a header with the kind of the file and its identity, the body, and a
//! trailer with a checksum of everything.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::Xxh3;

use super::identity::Identity;

/// The first bytes of every file of an index.
pub(super) const MAGIC: [u8; 8] = *b"dupfsIDX";
/// The version of the format. It is raised by any change of the meaning of a byte in any file, and of what a file may
/// contain. Files of older versions are removed.
///
/// Version 1 contained names, link targets and owners of members of archives inside a backup, which an index must not
/// contain.
pub(super) const VERSION: u32 = 2;
/// Length of magic and version.
pub(super) const VERSION_HEADER: usize = 8 + 4;
/// Length of magic, version, kind and identity.
pub(super) const HEADER: usize = 8 + 4 + 1 + 16;
/// Length of the trailer: length of the body, checksum of everything before.
const TRAILER: usize = 8 + 8;

/// The header of a file of `kind` for `identity`.
pub(super) fn header(kind: u8, identity: Identity) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &[kind], &identity.0].concat()
}

/// Returns true if `head` is the beginning of a file of an older version of the index.
pub(super) fn is_older_version(head: &[u8; VERSION_HEADER]) -> bool {
    let version = head.last_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    head.starts_with(&MAGIC) && version.is_some_and(|version| version < VERSION)
}

/// A stream that counts and hashes the bytes that pass.
struct HashingStream<T> {
    inner: T,
    hash: Xxh3,
    len: u64,
}

impl<W: Write> Write for HashingStream<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(buf.get(..n).unwrap_or(&[]));
        self.len = self.len.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for HashingStream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(buf.get(..n).unwrap_or(&[]));
        self.len = self.len.saturating_add(n as u64);
        Ok(n)
    }
}

/// Writes a file of `kind` for `identity`, whose body `fill` writes.
///
/// # Errors
/// Any error of `out` or `fill`.
pub(super) fn encode_file(
    out: &mut dyn Write,
    kind: u8,
    identity: Identity,
    fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = HashingStream { inner: out, hash: Xxh3::new(), len: 0 };
    out.write_all(&header(kind, identity))?;
    fill(&mut out)?;
    let body = out.len.saturating_sub(HEADER as u64);
    out.write_all(&body.to_le_bytes())?;
    let sum = out.hash.digest();
    out.inner.write_all(&sum.to_le_bytes())?;
    out.inner.flush()
}

/// Reads a file of `len` bytes that [`encode_file`] wrote. `decode` is given the body and its length. Its result is returned
/// only if every byte of the file is as it was written, and `None` otherwise.
pub(super) fn decode_file<T>(
    input: &mut dyn Read,
    len: u64,
    kind: u8,
    identity: Identity,
    decode: &mut dyn FnMut(&mut dyn Read, u64) -> Option<T>,
) -> Option<T> {
    let body = len.checked_sub((HEADER + TRAILER) as u64)?;
    let mut input = HashingStream { inner: input, hash: Xxh3::new(), len: 0 };
    let mut head = [0; HEADER];
    input.read_exact(&mut head).ok()?;
    if head[..] != header(kind, identity)[..] {
        return None;
    }
    let mut body_reader = (&mut input).take(body);
    let decoded = decode(&mut body_reader, body)?;
    if body_reader.limit() != 0 {
        return None;
    }
    let mut number = [0; 8];
    input.read_exact(&mut number).ok()?;
    let sum = input.hash.digest();
    let length_matches = u64::from_le_bytes(number) == body;
    input.inner.read_exact(&mut number).ok()?;
    let is_at_end = matches!(input.inner.read(&mut [0]), Ok(0));
    (length_matches && is_at_end && u64::from_le_bytes(number) == sum).then_some(decoded)
}
