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
mod remote;
mod retries;
mod services;
mod session;
mod ssh;
mod stale_answers;
mod store;
mod stream;

pub use store::RcloneStore;

/// Upper bound of the objects that are read at once: a server refuses many new connections.
const MAX_STREAMS: u32 = 8;
