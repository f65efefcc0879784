//! The limits of the calls that a long command makes.

use dupfs_base::{CancelToken, RequestContext};

use super::request_timeout::RequestTimeout;

/// The limits of each call of the file system: a timeout, and the signal of the user to stop.
#[derive(Clone, Debug)]
pub(super) struct CallLimits {
    pub(super) timeout: RequestTimeout,
    pub(super) cancel: CancelToken,
}

impl CallLimits {
    /// The context of a call that starts now.
    pub(super) fn start(&self) -> RequestContext {
        RequestContext::new(self.timeout.start().deadline(), self.cancel.clone())
    }

    /// Returns true once the user has interrupted the command.
    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
