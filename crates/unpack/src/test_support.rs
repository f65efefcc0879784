//! Helpers of the tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use crate::byte_source::{ByteSource, StoredOrigin};
use crate::error::UnpackError;
use crate::memory_source::MemorySource;
use dupfs_base::RequestContext;

/// The context of a request without a deadline.
pub(crate) static UNLIMITED: LazyLock<RequestContext> = LazyLock::new(RequestContext::unlimited);

/// A file in memory that counts the bytes which are read of it.
#[derive(Debug)]
pub(crate) struct TestSource {
    file: MemorySource,
    identity: Option<&'static [u8]>,
    pause: Duration,
    read: AtomicU64,
}

impl TestSource {
    /// A file `name` of these bytes, without an identity.
    pub(crate) fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { file: MemorySource::new(name, bytes), identity: None, pause: Duration::ZERO, read: AtomicU64::new(0) }
    }

    /// The same file with an identity.
    pub(crate) fn with_identity(self, identity: &'static [u8]) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// The same file, of which each read takes `pause`, and fails if the request ends meanwhile.
    pub(crate) fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Bytes that were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    /// Bytes that were read since the last call.
    pub(crate) fn take_bytes_read(&self) -> u64 {
        self.read.swap(0, Ordering::SeqCst)
    }
}

impl ByteSource for TestSource {
    fn name(&self) -> Arc<str> {
        self.file.name()
    }

    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        if !self.pause.is_zero() {
            thread::sleep(self.pause);
            context.check().map_err(|reason| UnpackError::stopped(&self.name(), reason))?;
        }
        let bytes = self.file.read_at(offset, len, context)?;
        self.read.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(bytes)
    }

    fn origin(&self) -> StoredOrigin {
        self.file.origin()
    }

    fn known_len(&self) -> Option<u64> {
        self.file.known_len()
    }

    fn len(&self, context: &RequestContext) -> Result<u64, UnpackError> {
        self.file.len(context)
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        self.identity.map(Arc::from)
    }

    fn verified_early(&self) -> bool {
        true
    }
}
