//! The layers of decoding: readers over readers, and the helpers that they share.
//!
//! Invariant of every layer: an empty `fill_buf`/`Ok(0)` means that this layer has verified its own end, and that the
//! layers beneath have done so too, down to the last byte of the stored object.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::object_context::ObjectContext;

/// Size of the buffers between layers, in bytes.
pub(super) const BUFFER: usize = 64 << 10;

/// The input of a layer.
pub(super) type LayerReader<'a> = Box<dyn BufRead + Send + 'a>;

/// The stored bytes: counts them and retries interrupted reads.
struct CountedInput<'a> {
    ctx: ObjectContext,
    inner: Box<dyn Read + Send + 'a>,
}

impl Read for CountedInput<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.ctx.limits.count_stored(n);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Returns the bottom layer, over the stored bytes.
pub(super) fn stored_bytes<'a>(ctx: &ObjectContext, inner: Box<dyn Read + Send + 'a>) -> LayerReader<'a> {
    Box::new(BufReader::with_capacity(BUFFER, CountedInput { ctx: ctx.clone(), inner }))
}

/// Reads `limit` bytes from `source`, fewer only at its end.
pub(super) fn read_up_to(source: &mut dyn BufRead, limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    append_up_to(source, limit, &mut out)?;
    Ok(out)
}

/// Appends `limit` bytes of `source` to `out`, fewer only at its end. Memory grows with the bytes that exist, not with
/// `limit`. Returns the number of bytes.
pub(super) fn append_up_to(source: &mut dyn BufRead, limit: usize, out: &mut Vec<u8>) -> io::Result<usize> {
    // usize has at most 64 bits on every platform.
    source.take(limit as u64).read_to_end(out)
}

/// Reads from `source` until `buf` is full or the source ends. Returns the number of bytes.
pub(super) fn fill(source: &mut dyn BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Reads from the buffer of `layer` into `buf`: the implementation of [`Read::read`] for a [`BufRead`].
pub(super) fn read_buffered(layer: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let mut bytes = layer.fill_buf()?;
    let n = bytes.read(buf)?;
    layer.consume(n);
    Ok(n)
}

/// Returns a reader of `head` and then of the remaining bytes of `rest`.
pub(super) fn prefixed<'a>(head: Vec<u8>, rest: LayerReader<'a>) -> LayerReader<'a> {
    Box::new(Cursor::new(head).chain(rest))
}
