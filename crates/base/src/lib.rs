//! The ground floor of the dupfs crates: what a failure means, ranges of bytes, secrets, and how threads wait for each other.
//!
//! | module | contents |
//! |---|---|
//! | [`sync`] | locks, waiting with a deadline, cancellation, the fair semaphore, single flight |
//! | [`RequestContext`] | how long a request may wait, and whether its answer is still wanted |
//! | [`ErrorKind`] | the meaning of a failure, from which errno values and exit codes follow |

mod error_kind;
mod escape;
mod range;
mod request;
mod secret;
pub mod sync;

pub use error_kind::{ErrorKind, HasKind};
pub use escape::escape_bytes;
pub use range::ByteRange;
pub use request::{CancelToken, RequestContext, Stopped};
pub use secret::Secret;
