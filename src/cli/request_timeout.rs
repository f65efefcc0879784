//! The time limit of the calls that commands make.

use std::time::Duration;

use dupfs_base::RequestContext;

use super::options::DeadlineArgs;
use crate::fuse::DEFAULT_DEADLINE;

/// Upper bound of the time of one call of the file system or the repository, as of one request of a mount: a store that
/// does not answer must not block a command forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimeout(pub Duration);

impl Default for RequestTimeout {
    fn default() -> Self {
        Self(DEFAULT_DEADLINE)
    }
}

impl From<&DeadlineArgs> for RequestTimeout {
    fn from(args: &DeadlineArgs) -> Self {
        Self(args.deadline.0)
    }
}

impl RequestTimeout {
    /// The context of a call that starts now.
    pub fn start(self) -> RequestContext {
        RequestContext::with_timeout(self.0)
    }
}
