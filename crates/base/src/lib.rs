//! The common base of the dupfs crates: kinds of errors, byte ranges, secrets, and synchronisation between threads.
//!
//! | module | contents |
//! |---|---|
//! | [`sync`] | waiting with a deadline and cancellation, fair semaphore, single flight, thread pool |
//! | [`RequestContext`] | the limits of a request: may it block, until when, is it cancelled |
//! | [`ErrorKind`] | the meaning of an error, which decides the errno and the exit code |

mod common_prefix;
mod convert;
mod error_kind;
mod escape;
mod io_reason;
mod locked_bytes;
mod range;
mod request;
mod secret;
mod secret_slots;
pub mod sync;
mod wiping_allocator;

pub use common_prefix::common_prefix_len;
pub use convert::{clamp_len, whole_nanos};
pub use error_kind::{ErrorKind, HasKind};
pub use escape::{blank_display_controls, escape_bytes, escape_path, hex, is_display_control};
pub use io_reason::{io_reason, without_errno};
pub use range::ByteRange;
pub use request::{AwaitGuard, AwaitedObject, CancelToken, ChildToken, RequestContext, Stopped, Subscription, Wake};
pub use secret::Secret;
pub use secret_slots::{SecretSlot, SecretSlots};
pub use wiping_allocator::WipingAllocator;
