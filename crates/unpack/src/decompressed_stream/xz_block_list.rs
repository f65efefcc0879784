//! The blocks of an xz file, found once.

use std::sync::{Arc, OnceLock};

use crate::byte_source::ByteSource;
use crate::error::UnpackError;
use crate::xz::{self, XzBlock};
use dupfs_base::RequestContext;

/// The blocks of an xz file, once they were searched for.
#[derive(Debug, Default)]
pub(super) struct XzBlockList {
    found: OnceLock<Option<Arc<[XzBlock]>>>,
}

impl XzBlockList {
    /// The blocks if they were searched for; `Some(None)` for a file whose blocks cannot be determined.
    pub(super) fn known(&self) -> Option<Option<Arc<[XzBlock]>>> {
        self.found.get().cloned()
    }

    /// The blocks of `source`, a file of `len` bytes, by its own index. Needs no decoding.
    ///
    /// # Errors
    /// [`UnpackError`] of the source.
    pub(super) fn load(
        &self,
        source: &dyn ByteSource,
        len: u64,
        context: &RequestContext,
    ) -> Result<Option<Arc<[XzBlock]>>, UnpackError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let found = xz::blocks(source, len, context)?.map(Arc::from);
        Ok(self.found.get_or_init(|| found).clone())
    }
}
