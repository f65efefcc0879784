//! The limits of the calls that a long command makes.

use dupfs_base::{CancelToken, RequestContext};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::CliError;
use super::exit::CommandExit;
use super::request_timeout::RequestTimeout;
use super::signal_watch::{SignalWatch, unwatched};

/// The limits of each call of the file system: a timeout, and the signal of the user to stop.
#[derive(Clone, Debug)]
pub(super) struct CallLimits {
    pub(super) timeout: RequestTimeout,
    pub(super) cancel: CancelToken,
}

impl CallLimits {
    /// The limits until SIGINT or SIGTERM, which are watched until the second of the results is dropped. Before that they end
    /// the program. So does the second signal: the command may wait for the reader of its output, which no signal ends.
    ///
    /// # Errors
    /// [`CliError`] when signals cannot be watched.
    pub(super) fn until_signal(timeout: RequestTimeout) -> Result<(Self, SignalWatch), CliError> {
        let cancel = CancelToken::new();
        let signals = Signals::new([SIGINT, SIGTERM]).map_err(unwatched)?;
        let on_signal = cancel.clone();
        let watch = SignalWatch::start(signals, move |_| {
            if on_signal.is_cancelled() {
                std::process::exit(CommandExit::Interrupted.code().into());
            }
            on_signal.cancel();
        })?;
        Ok((Self { timeout, cancel }, watch))
    }

    /// The context of a call that starts now.
    pub(super) fn start(&self) -> RequestContext {
        RequestContext::new(self.timeout.start().deadline(), self.cancel.clone())
    }

    /// Returns true once the user has interrupted the command.
    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
