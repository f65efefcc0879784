//! The plumbing between the layers of decoding: readers that end cleanly only after everything beneath them did.
//!
//! Invariant of every layer: an empty `fill_buf`/`Ok(0)` means that this layer's own end was checked and that the layer
//! beneath has ended in the same way, down to the stored object's last byte.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::CodecError;

/// Size of the buffers between layers.
pub(super) const BUFFER: usize = 64 << 10;

/// A layer's input.
pub(super) type Source<'a> = Box<dyn BufRead + Send + 'a>;

/// Which object is decoded and how much of it was read, for errors.
#[derive(Clone, Debug)]
pub(super) struct Ctx {
    pub(super) object: Arc<str>,
    read: Arc<AtomicU64>,
}

impl Ctx {
    pub(super) fn new(object: &str) -> Self {
        Self { object: object.into(), read: Arc::default() }
    }

    /// The object is damaged.
    pub(super) fn damage(&self, what: impl Into<Cow<'static, str>>) -> CodecError {
        let read = self.read.load(Ordering::Relaxed);
        CodecError::Damaged { object: self.object.clone(), read, what: what.into() }
    }

    /// [`Self::damage`] for a `Read` implementation.
    pub(super) fn damaged(&self, what: impl Into<Cow<'static, str>>) -> io::Error {
        self.damage(what).into_io()
    }

    /// The object has a form that is refused.
    pub(super) fn unsupported(&self, what: impl Into<Cow<'static, str>>, remedy: &'static str) -> CodecError {
        CodecError::Unsupported { object: self.object.clone(), what: what.into(), remedy }
    }
}

/// The stored bytes: counts them and retries interrupted reads.
struct Input<'a> {
    ctx: Ctx,
    inner: Box<dyn Read + Send + 'a>,
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.ctx.read.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// The bottom layer over the stored bytes.
pub(super) fn input<'a>(ctx: &Ctx, inner: Box<dyn Read + Send + 'a>) -> Source<'a> {
    Box::new(BufReader::with_capacity(BUFFER, Input { ctx: ctx.clone(), inner }))
}

/// Up to `limit` bytes from `source`, fewer only at its end.
pub(super) fn take(source: &mut dyn BufRead, limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    source.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut out)?;
    Ok(out)
}

/// `head` and then what is left of `rest`.
pub(super) fn prefixed<'a>(head: Vec<u8>, rest: Source<'a>) -> Source<'a> {
    Box::new(Cursor::new(head).chain(rest))
}

/// Reads from `source` until `buf` is full or the source ends; the number of bytes read.
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

/// What the caller of the codec reads from: once it failed it fails for ever, and once it ended it stays ended.
pub(super) struct Guard<'a> {
    ctx: Ctx,
    state: GuardState<'a>,
}

enum GuardState<'a> {
    Open(Box<dyn Read + Send + 'a>),
    Ended,
    Failed(CodecError),
}

impl<'a> Guard<'a> {
    pub(super) fn new(ctx: &Ctx, inner: Box<dyn Read + Send + 'a>) -> Self {
        Self { ctx: ctx.clone(), state: GuardState::Open(inner) }
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let outcome = match &mut self.state {
            GuardState::Open(inner) => inner.read(buf),
            GuardState::Ended => return Ok(0),
            GuardState::Failed(error) => return Err(error.clone().into_io()),
        };
        match &outcome {
            Ok(0) => self.state = GuardState::Ended,
            Ok(_) => {}
            Err(e) => self.state = GuardState::Failed(CodecError::from_io(&self.ctx.object, e)),
        }
        outcome
    }
}
