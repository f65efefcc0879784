//! A thread that handles signals.

use std::ffi::c_int;
use std::io;
use std::thread;

use dupfs_base::{ErrorKind, io_reason};
use signal_hook::iterator::{Handle, Signals};

use super::error::CliError;

/// Handles signals until it is dropped.
pub(super) struct SignalWatch {
    handle: Handle,
}

impl SignalWatch {
    /// Calls `on_signal` for each of `signals`, on a separate thread.
    ///
    /// # Errors
    /// [`CliError`] when no thread can be started.
    pub(super) fn start(mut signals: Signals, on_signal: impl FnMut(c_int) + Send + 'static) -> Result<Self, CliError> {
        let handle = signals.handle();
        let listen = move || signals.forever().for_each(on_signal);
        thread::Builder::new().name("dupfs-signals".into()).spawn(listen).map_err(unwatched)?;
        Ok(Self { handle })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// The failure to handle signals.
pub(super) fn unwatched(error: io::Error) -> CliError {
    CliError::failed(ErrorKind::Io, format!("signals cannot be watched: {}", io_reason(&error)))
}
