//! Services that the program rclone reads, by a child process that serves over loopback.

mod diagnosis;
mod encoding;
mod failure;
pub mod fuzz_entry;
mod http;
mod http_head;
mod listing;
mod obscure;
mod process;
mod program;
mod range_support;
mod remote;
mod retries;
mod services;
mod session;
mod ssh;
mod stale_answers;
mod store;
mod stream;

pub use store::RcloneStore;

/// Upper bound of the connections to a service: a server refuses many new ones.
const MAX_CONNECTIONS: u32 = 8;
