//! A stream that another request has begun.

use std::io::{self, Read};
use std::sync::Arc;

use super::{ObjectInfo, ObjectStore, StorageError};
use dupfs_base::{ByteRange, RequestContext};

/// The bytes of an object, from a stream of another request. If that request ends first, or its stream has failed, a stream of this
/// one continues.
pub(super) struct HandedOverStream {
    stream: Box<dyn Read + Send>,
    /// The store and the object to continue with; `None` once this request has a stream of its own.
    rest: Option<(Arc<dyn ObjectStore>, ObjectInfo)>,
    at: u64,
    context: RequestContext,
}

impl HandedOverStream {
    /// `stream` is that of the whole `object` in `store`, at its beginning. It is read within `context`.
    pub(super) fn new(
        stream: Box<dyn Read + Send>,
        store: Arc<dyn ObjectStore>,
        object: ObjectInfo,
        context: &RequestContext,
    ) -> Self {
        let context = RequestContext::new(context.deadline(), context.cancel_token().clone());
        Self { stream, rest: Some((store, object)), at: 0, context }
    }
}

impl Read for HandedOverStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let got = match self.stream.read(buf) {
                Ok(got) => got,
                Err(error) => {
                    let Some((store, object)) = self.rest.take() else { return Err(error) };
                    if self.context.check().is_err() {
                        return Err(error);
                    }
                    let range = ByteRange { start: self.at, end: object.size };
                    self.stream = store.open(&object, range, &self.context).map_err(StorageError::into_io)?;
                    continue;
                }
            };
            self.at = self.at.saturating_add(got as u64);
            return Ok(got);
        }
    }
}
