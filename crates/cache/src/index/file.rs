//! The frame of a file that is read whole: what it is, what it is about, and a checksum of everything.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::Xxh3;

use super::identity::Identity;

/// First bytes of every file of an index.
pub(super) const MAGIC: [u8; 8] = *b"dupfsIDX";
/// Changes whenever the meaning of a byte in any file does, or what a file may hold. Files of former versions are removed.
///
/// Version 1 held names, link targets and owners of members of archives inside a backup, which an index must not hold.
pub(super) const VERSION: u32 = 2;
/// Magic, version.
pub(super) const VERSION_HEADER: usize = 8 + 4;
/// Magic, version, kind, identity.
pub(super) const HEADER: usize = 8 + 4 + 1 + 16;
/// Length of the body, checksum of everything before.
const TRAILER: usize = 8 + 8;

/// The header of a file of `kind` about `identity`.
pub(super) fn header(kind: u8, identity: Identity) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &[kind], &identity.0].concat()
}

/// Returns whether `head`, the first bytes of a file, are those of a file of a former version of the index.
pub(super) fn is_former(head: &[u8; VERSION_HEADER]) -> bool {
    let version = head.last_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    head.starts_with(&MAGIC) && version.is_some_and(|version| version < VERSION)
}

struct Hashing<T> {
    inner: T,
    hash: Xxh3,
    len: u64,
}

impl<W: Write> Write for Hashing<W> {
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

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(buf.get(..n).unwrap_or(&[]));
        self.len = self.len.saturating_add(n as u64);
        Ok(n)
    }
}

/// Writes a file of `kind` about `identity`, whose body `fill` writes.
///
/// # Errors
/// Of `out` or `fill`.
pub fn write_whole(
    out: &mut dyn Write,
    kind: u8,
    identity: Identity,
    fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Hashing { inner: out, hash: Xxh3::new(), len: 0 };
    out.write_all(&header(kind, identity))?;
    fill(&mut out)?;
    let body = out.len.saturating_sub(HEADER as u64);
    out.write_all(&body.to_le_bytes())?;
    let sum = out.hash.digest();
    out.inner.write_all(&sum.to_le_bytes())?;
    out.inner.flush()
}

/// Reads a file of `len` bytes that [`write_whole`] wrote. `parse` gets the body and its length, and what it made of it is
/// given only if everything is right: `None` if anything at all is not as it was written.
pub fn read_whole<T>(
    input: &mut dyn Read,
    len: u64,
    kind: u8,
    identity: Identity,
    parse: &mut dyn FnMut(&mut dyn Read, u64) -> Option<T>,
) -> Option<T> {
    let body = len.checked_sub((HEADER + TRAILER) as u64)?;
    let mut input = Hashing { inner: input, hash: Xxh3::new(), len: 0 };
    let mut head = [0; HEADER];
    input.read_exact(&mut head).ok()?;
    if head[..] != header(kind, identity)[..] {
        return None;
    }
    let mut within = (&mut input).take(body);
    let parsed = parse(&mut within, body)?;
    if within.limit() != 0 {
        return None;
    }
    let mut number = [0; 8];
    input.read_exact(&mut number).ok()?;
    let sum = input.hash.digest();
    let agrees = u64::from_le_bytes(number) == body;
    input.inner.read_exact(&mut number).ok()?;
    let ends = matches!(input.inner.read(&mut [0]), Ok(0));
    (agrees && ends && u64::from_le_bytes(number) == sum).then_some(parsed)
}
