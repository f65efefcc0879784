//! The outermost reader of a decoded object: its end and its first error are permanent.

use std::io::{self, Read};

use super::error::CodecError;
use super::object_context::ObjectContext;

/// A reader whose end and first error are permanent: after an error every further read fails with it, and after the end
/// every further read returns the end.
pub(super) struct LatchedReader<'a> {
    ctx: ObjectContext,
    state: LatchState<'a>,
}

enum LatchState<'a> {
    Open(Box<dyn Read + Send + 'a>),
    Ended,
    Failed(CodecError),
}

impl<'a> LatchedReader<'a> {
    pub(super) fn new(ctx: &ObjectContext, inner: Box<dyn Read + Send + 'a>) -> Self {
        Self { ctx: ctx.clone(), state: LatchState::Open(inner) }
    }
}

impl Read for LatchedReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let outcome = match &mut self.state {
            LatchState::Open(inner) => inner.read(buf),
            LatchState::Ended => return Ok(0),
            LatchState::Failed(error) => return Err(error.clone().into_io()),
        };
        match &outcome {
            Ok(0) => self.state = LatchState::Ended,
            Ok(_) => {}
            Err(e) => self.state = LatchState::Failed(CodecError::from_io(&self.ctx.object, e)),
        }
        outcome
    }
}
