//! The passes over volumes that run now, each shared by all requests for it.

use std::ops::Range;
use std::sync::Arc;

use super::block_span::BlockSpan;
use super::error::VolumeError;
use super::member_table::MemberTable;
use super::volume_progress::VolumeProgress;
use dupfs_base::sync::{JoinedExecution, SingleFlight};
use dupfs_cache::BlockIndex;
use dupfs_format::VolumeId;

/// Requests for the same key share a pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PassKey {
    pub(super) id: VolumeId,
    /// The only blocks that are of use, or `None` if requests for any blocks may share the pass.
    pub(super) only: Option<Range<BlockIndex>>,
}

/// The outcome of a pass.
#[derive(Clone, Debug)]
pub(super) struct DecodedVolume {
    pub(super) table: Arc<MemberTable>,
    /// The blocks for the request that started the pass.
    pub(super) wanted: BlockSpan,
}

/// The passes that run now.
pub(super) type RunningPasses = SingleFlight<PassKey, DecodedVolume, VolumeError, Arc<VolumeProgress>>;

/// The interest of a request in a pass.
pub(super) type JoinedPass = JoinedExecution<PassKey, DecodedVolume, VolumeError, Arc<VolumeProgress>>;
