//! Files that were closed a short time ago, until their processes have exited: volumes that are prefetched for a file are of use
//! to a process that copies many files in sequence, but not after its end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dupfs_base::RequestContext;
use dupfs_base::sync::{Monitor, lock};

use super::waiter::{WaiterId, WaiterState};
use crate::vfs::Ino;

/// The interval in which the processes are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The time after which a process that is not visible is assumed to have exited: programs that copy many files open the
/// next one sooner.
const HIDDEN_TIMEOUT: Duration = Duration::from_millis(500);

/// The time after which a file is not watched further: no prefetch of a store that answers takes longer.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Upper bound of the files that are watched. The file that was closed first is dropped first.
const MAX_FILES: usize = 64;

/// Reports that the reader of a stored file has exited.
pub(super) type ReportLeave = Arc<dyn Fn(Ino) + Send + Sync>;

/// The thread that has opened a file; `None` if it is not visible.
type Opener = Option<WaiterId>;

/// The openers of files. While there are closed files, a thread checks if their openers have exited.
pub(super) struct ClosedFiles {
    leave: ReportLeave,
    /// The openers of open files, by inode and handle.
    openers: Mutex<HashMap<(Ino, u64), Opener>>,
    closed: Arc<Monitor<ClosedQueue>>,
}

/// The closed files in the order in which they were closed.
#[derive(Debug, Default)]
struct ClosedQueue {
    files: VecDeque<ClosedFile>,
    is_watched: bool,
    is_ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct ClosedFile {
    stored: Ino,
    opener: Opener,
    since: Instant,
}

impl ClosedFiles {
    /// No open or closed file. `leave` is called for a closed file once its opener has exited.
    pub(super) fn new(leave: ReportLeave) -> Self {
        Self { leave, openers: Mutex::default(), closed: Monitor::new(ClosedQueue::default()) }
    }

    /// Records that `opener` has opened `file`, an inode and a handle.
    pub(super) fn record_open(&self, file: (Ino, u64), opener: Opener) {
        lock(&self.openers).insert(file, opener);
    }

    /// Records that `file`, an inode and a handle, was closed. Its reads have fetched from the stored file `stored`.
    pub(super) fn record_close(&self, file: (Ino, u64), stored: Ino) {
        let Some(opener) = lock(&self.openers).remove(&file) else { return };
        let is_watched = self.closed.update(|queue| {
            queue.files.retain(|file| (file.stored, file.opener) != (stored, opener));
            if queue.files.len() >= MAX_FILES {
                queue.files.pop_front();
            }
            queue.files.push_back(ClosedFile { stored, opener, since: Instant::now() });
            std::mem::replace(&mut queue.is_watched, true)
        });
        if is_watched {
            return;
        }
        let (closed, leave) = (Arc::clone(&self.closed), Arc::clone(&self.leave));
        let watch = move || watch(&closed, &leave);
        if let Err(error) = thread::Builder::new().name("dupfs-closed".into()).spawn(watch) {
            // A prefetch then ends by itself, or with an interrupted request.
            log::debug!("no thread watches closed files: {error}");
            self.closed.update(|queue| queue.is_watched = false);
        }
    }
}

impl std::fmt::Debug for ClosedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosedFiles").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl Drop for ClosedFiles {
    fn drop(&mut self) {
        self.closed.update(|queue| queue.is_ended = true);
    }
}

/// Reports the files whose openers have exited, until no closed file is left.
fn watch(closed: &Arc<Monitor<ClosedQueue>>, leave: &ReportLeave) {
    loop {
        let ended = |queue: &mut ClosedQueue| queue.is_ended.then_some(());
        if closed.wait_until(&RequestContext::with_timeout(CHECK_INTERVAL), ended).is_ok() {
            return;
        }
        let files: Vec<ClosedFile> = closed.lock().files.iter().copied().collect();
        let mut states: Vec<(WaiterId, WaiterState)> = Vec::new();
        let mut is_gone = |file: &ClosedFile| {
            let Some(opener) = file.opener else { return file.since.elapsed() >= HIDDEN_TIMEOUT };
            let known = states.iter().find(|(id, _)| *id == opener).map(|(_, state)| *state);
            let state = known.unwrap_or_else(|| {
                let state = opener.state();
                states.push((opener, state));
                state
            });
            state == WaiterState::Ends
        };
        let gone: Vec<ClosedFile> = files.into_iter().filter(|file| is_gone(file)).collect();
        gone.iter().for_each(|file| leave(file.stored));
        let same = |a: &ClosedFile, b: &ClosedFile| (a.stored, a.opener, a.since) == (b.stored, b.opener, b.since);
        let is_left = closed.update(|queue| {
            queue.files.retain(|file| file.since.elapsed() < MAX_AGE && !gone.iter().any(|other| same(file, other)));
            queue.is_watched = !queue.files.is_empty();
            queue.is_watched
        });
        if !is_left {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn closed_files() -> (ClosedFiles, Receiver<Ino>) {
        let (tx, rx) = channel();
        (ClosedFiles::new(Arc::new(move |ino| tx.send(ino).unwrap())), rx)
    }

    fn sleeper() -> (Child, Opener) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let opener = WaiterId::new(child.id());
        (child, opener)
    }

    #[test]
    fn a_closed_file_is_left_once_its_process_has_exited() {
        let (files, left) = closed_files();
        let ((mut first, opener), (mut second, other)) = (sleeper(), sleeper());
        for (handle, opener) in [(1, opener), (2, other), (3, other)] {
            files.record_open((10, handle), opener);
        }
        files.record_close((10, 1), 11);
        files.record_close((10, 2), 12);
        assert_eq!(left.recv_timeout(3 * CHECK_INTERVAL), Err(RecvTimeoutError::Timeout), "both exist");
        second.kill().unwrap();
        second.wait().unwrap();
        assert_eq!(left.recv_timeout(SOON), Ok(12));
        // The file that it has left open is closed by its end.
        files.record_close((10, 3), 13);
        assert_eq!(left.recv_timeout(SOON), Ok(13));
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(left.recv_timeout(SOON), Ok(11));
        assert!(lock(&files.openers).is_empty());
        drop(files);
        assert_eq!(left.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "the thread ends");
    }

    #[test]
    fn a_file_of_a_process_that_is_not_visible_is_left_after_a_time() {
        let (files, left) = closed_files();
        files.record_open((10, 1), None);
        let start = Instant::now();
        files.record_close((10, 1), 11);
        files.record_close((10, 2), 12);
        assert_eq!(left.recv_timeout(SOON), Ok(11));
        assert!(start.elapsed() >= HIDDEN_TIMEOUT);
        assert_eq!(left.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty), "it was never opened");
    }

    #[test]
    fn the_number_of_watched_files_is_bounded() {
        let (files, _left) = closed_files();
        let (mut child, opener) = sleeper();
        for ino in 0..100 {
            files.record_open((ino, 0), opener);
            files.record_close((ino, 0), ino);
        }
        assert_eq!(files.closed.lock().files.len(), MAX_FILES);
        assert_eq!(files.closed.lock().files.back().map(|file| file.stored), Some(99));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
