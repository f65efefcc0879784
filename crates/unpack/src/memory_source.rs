//! Bytes in memory as a source.

use std::sync::Arc;

use super::byte_source::{ByteSource, StoredOrigin};
use super::error::UnpackError;
use dupfs_base::{RequestContext, clamp_len};

/// Bytes in memory.
#[derive(Clone, Debug)]
pub struct MemorySource {
    name: Arc<str>,
    bytes: Arc<[u8]>,
}

impl MemorySource {
    /// `bytes` under a name.
    pub fn new(name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

impl ByteSource for MemorySource {
    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn read_at(&self, offset: u64, len: usize, _: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        let start = clamp_len(offset, self.bytes.len());
        let end = start.saturating_add(len).min(self.bytes.len());
        Ok(self.bytes.get(start..end).unwrap_or(&[]).to_vec())
    }

    fn origin(&self) -> StoredOrigin {
        // As long as it exists, no other has bytes at this address.
        StoredOrigin::file(self.bytes.as_ptr() as usize as u64, self.bytes.len() as u64)
    }

    fn known_len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn len(&self, _: &RequestContext) -> Result<u64, UnpackError> {
        Ok(self.bytes.len() as u64)
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        None
    }

    fn verified_early(&self) -> bool {
        true
    }
}
