//! The threads that have a file open without its size.
//!
//! The kernel asks for attributes by the number of an inode, and does not say by which handle. Only a thread that has opened the
//! file for streaming may see a size of 0, as of a file in `/proc`: every other one has found the file by its name.

use std::collections::HashMap;
use std::sync::Mutex;

use dupfs_base::sync::lock;

use super::waiter::WaiterId;
use crate::vfs::Ino;

/// The threads that have a file open without its size, by inode and handle.
#[derive(Debug, Default)]
pub(super) struct StreamingOpeners {
    openers: Mutex<HashMap<(Ino, u64), WaiterId>>,
}

impl StreamingOpeners {
    /// Records that `opener` has opened `file`, an inode and a handle, without its size. An opener that is not visible is not
    /// recorded.
    pub(super) fn record_open(&self, file: (Ino, u64), opener: Option<WaiterId>) {
        if let Some(opener) = opener {
            lock(&self.openers).insert(file, opener);
        }
    }

    /// Records that `file`, an inode and a handle, was closed.
    pub(super) fn record_close(&self, file: (Ino, u64)) {
        lock(&self.openers).remove(&file);
    }

    /// Returns true if `thread` has `ino` open without its size.
    pub(super) fn has_open(&self, ino: Ino, thread: Option<WaiterId>) -> bool {
        let openers = lock(&self.openers);
        thread.is_some() && openers.iter().any(|((open, _), opener)| *open == ino && Some(*opener) == thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_opened_a_file_has_it_open() {
        let openers = StreamingOpeners::default();
        let (thread, other) = (WaiterId::new(7), WaiterId::new(8));
        openers.record_open((1, 10), thread);
        openers.record_open((1, 11), thread);
        openers.record_open((2, 12), None);
        assert!(openers.has_open(1, thread) && !openers.has_open(1, other) && !openers.has_open(2, thread));
        assert!(!openers.has_open(2, None), "threads that are not visible are not known");
        openers.record_close((1, 10));
        assert!(openers.has_open(1, thread));
        openers.record_close((1, 11));
        openers.record_close((2, 12));
        assert!(!openers.has_open(1, thread) && lock(&openers.openers).is_empty());
    }
}
