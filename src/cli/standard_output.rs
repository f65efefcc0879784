//! A standard output that was closed when the program was started.
//!
//! The runtime of Rust opens `/dev/null` in its place before `main`, so that writing to it succeeds and nothing is
//! written. Afterwards nothing distinguishes it from a `/dev/null` that was given on purpose, which may be open for
//! reading and writing too.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, fcntl_getfd};

/// True if standard output was closed.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Notes whether standard output is closed. To be called by the loader, before the runtime starts: it uses nothing of it.
pub extern "C" fn record_closed_output() {
    if matches!(fcntl_getfd(rustix::stdio::stdout()), Err(Errno::BADF)) {
        CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Closes standard output again if it was closed: the program that replaces this process is to find it as this one did.
pub(super) fn close_again() {
    if CLOSED.load(Ordering::Relaxed)
        && let Err(error) = nix::unistd::close(1)
    {
        log::debug!("standard output: {error}");
    }
}

/// Checks that there is a standard output.
///
/// # Errors
/// The error of a write to it.
pub(super) fn check() -> io::Result<()> {
    if CLOSED.load(Ordering::Relaxed) { Err(Errno::BADF.into()) } else { Ok(()) }
}
