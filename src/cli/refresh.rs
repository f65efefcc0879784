//! Lists the backup again while it is mounted: periodically and on request. One thread does it, so no two listings run at once
//! and none runs on a thread that serves requests.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::vfs::FileSystem;

use super::args::MountArgs;
use super::request_timeout::RequestTimeout;

/// The interval between listings, unless the user sets one.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);

/// The interval between listings; `None` for a mount of one snapshot, which cannot change, unless the user sets one.
pub(super) fn interval(args: &MountArgs) -> Option<Duration> {
    let one_snapshot = args.time.time.is_some() || args.path.is_some();
    let default = if one_snapshot { Duration::ZERO } else { DEFAULT_INTERVAL };
    Some(args.refresh.map_or(default, |span| span.0)).filter(|interval| !interval.is_zero())
}

/// Starts a thread that lists the backup of `fs` every `interval` and on every message; it ends when all senders are
/// dropped. A listing may take `timeout`. After each one `listed` is called, with the error if it failed.
///
/// # Errors
/// When no thread can be started.
pub(super) fn start(
    fs: Arc<dyn FileSystem>,
    interval: Option<Duration>,
    timeout: RequestTimeout,
    listed: impl Fn(Option<&str>) + Send + 'static,
) -> io::Result<Sender<()>> {
    let (tx, rx) = channel();
    thread::Builder::new().name("dupfs-refresh".into()).spawn(move || run(&*fs, interval, timeout, &rx, &listed))?;
    Ok(tx)
}

fn run(
    fs: &dyn FileSystem,
    interval: Option<Duration>,
    timeout: RequestTimeout,
    requests: &Receiver<()>,
    listed: &dyn Fn(Option<&str>),
) {
    let mut failed = None;
    loop {
        let woken = match interval {
            Some(interval) => requests.recv_timeout(interval),
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if matches!(woken, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        // One listing serves all requests that were sent before it starts.
        while requests.try_recv().is_ok() {}
        refresh(fs, timeout, &mut failed);
        listed(failed.as_deref());
    }
}

/// Lists once; a failure that repeats is logged once.
fn refresh(fs: &dyn FileSystem, timeout: RequestTimeout, failed: &mut Option<String>) {
    match catch_unwind(AssertUnwindSafe(|| fs.refresh(&timeout.start()))) {
        Ok(Ok(changes)) => {
            if failed.take().is_some() {
                log::warn!("the backup can be listed again");
            }
            match changes {
                Some(changes) => log::info!("{changes}"),
                None => log::debug!("the backup was listed: nothing new"),
            }
        }
        Ok(Err(error)) => {
            let line = error.to_string();
            if failed.as_ref() != Some(&line) {
                log::warn!("{line}");
            }
            *failed = Some(line);
        }
        Err(_) => {
            let line = "listing the backup again: internal error (bug in dupfs); the mount is unchanged";
            log::error!("{line}");
            *failed = Some(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;
    use crate::vfs::memory_fs::MemoryFs;

    fn interval_of(line: &str) -> Option<Duration> {
        let Command::Mount(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
        interval(&args)
    }

    #[test]
    fn a_mount_of_one_snapshot_is_listed_again_only_if_the_user_sets_an_interval() {
        assert_eq!(interval_of("dupfs mount u m"), Some(Duration::from_secs(300)));
        assert_eq!(interval_of("dupfs mount --refresh 7 u m"), Some(Duration::from_secs(7)));
        assert_eq!(interval_of("dupfs mount --refresh 5m u m"), Some(Duration::from_secs(300)));
        assert_eq!(interval_of("dupfs mount --refresh 0 u m"), None);
        assert_eq!(interval_of("dupfs mount --time now u m"), None);
        assert_eq!(interval_of("dupfs mount --path etc u m"), None);
        assert_eq!(interval_of("dupfs mount --refresh 60 --time now u m"), Some(Duration::from_secs(60)));
    }

    #[test]
    fn the_thread_ends_with_its_last_sender() {
        let (tx, rx) = channel();
        let thread = thread::spawn(move || run(&MemoryFs::new(), None, RequestTimeout::default(), &rx, &|_| {}));
        tx.send(()).unwrap();
        tx.send(()).unwrap();
        drop(tx);
        thread.join().unwrap();
    }
}
