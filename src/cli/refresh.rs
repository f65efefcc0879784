//! Listing the backup again while it is mounted: by a timer and when asked to. One thread does it, so no two listings run at
//! once and none runs on a thread that serves requests.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::vfs::FileSystem;
use dupfs_base::RequestContext;

use super::args::MountArgs;

/// Seconds between listings, unless the user says otherwise.
const DEFAULT_SECONDS: u64 = 300;

/// How often the backup is listed: never for a mount of one snapshot, which shows nothing new, unless it is asked for.
pub(super) fn interval(args: &MountArgs) -> Option<Duration> {
    let one_snapshot = args.time.time.is_some() || args.path.is_some();
    let seconds = args.refresh.unwrap_or(if one_snapshot { 0 } else { DEFAULT_SECONDS });
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Lets `fs` list its backup every `interval` and whenever something is sent; ends when all senders are gone.
///
/// # Errors
/// When no thread can be started.
pub(super) fn start(fs: Arc<dyn FileSystem>, interval: Option<Duration>) -> io::Result<Sender<()>> {
    let (ask, asked) = channel();
    thread::Builder::new().name("dupfs-refresh".into()).spawn(move || run(&*fs, interval, &asked))?;
    Ok(ask)
}

fn run(fs: &dyn FileSystem, interval: Option<Duration>, asked: &Receiver<()>) {
    let mut failed = None;
    loop {
        let woken = match interval {
            Some(interval) => asked.recv_timeout(interval),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if matches!(woken, Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        // Whoever asked before the listing begins is served by it.
        while asked.try_recv().is_ok() {}
        refresh(fs, &mut failed);
    }
}

/// Lists once; a failure that repeats is told once.
fn refresh(fs: &dyn FileSystem, failed: &mut Option<String>) {
    match catch_unwind(AssertUnwindSafe(|| fs.refresh(&RequestContext::unlimited()))) {
        Ok(Ok(news)) => {
            if failed.take().is_some() {
                log::warn!("the backup can be listed again");
            }
            match news {
                Some(news) => log::info!("{news}"),
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
        Err(_) => log::error!("listing the backup again met a defect of dupfs; what was shown stays"),
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
    fn a_mount_of_one_snapshot_lists_only_when_it_is_told_to() {
        assert_eq!(interval_of("dupfs mount u m"), Some(Duration::from_secs(300)));
        assert_eq!(interval_of("dupfs mount --refresh 7 u m"), Some(Duration::from_secs(7)));
        assert_eq!(interval_of("dupfs mount --refresh 0 u m"), None);
        assert_eq!(interval_of("dupfs mount --time now u m"), None);
        assert_eq!(interval_of("dupfs mount --path etc u m"), None);
        assert_eq!(interval_of("dupfs mount --refresh 60 --time now u m"), Some(Duration::from_secs(60)));
    }

    #[test]
    fn the_thread_ends_with_its_last_sender() {
        let (ask, asked) = channel();
        let thread = thread::spawn(move || run(&MemoryFs::new(), None, &asked));
        ask.send(()).unwrap();
        ask.send(()).unwrap();
        drop(ask);
        thread.join().unwrap();
    }
}
