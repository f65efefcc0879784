//! Helpers of the tests.

use std::sync::LazyLock;

use dupfs_base::RequestContext;

/// The context of a request without a deadline.
pub(crate) static UNLIMITED: LazyLock<RequestContext> = LazyLock::new(RequestContext::unlimited);
