//! A bound on how many objects are open at once.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{ObjectInfo, ObjectStore, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, ErrorKind, RequestContext};

/// Lets at most so many streams be open at once; further opens wait for their turn.
#[derive(Debug)]
pub struct LimitStore<S> {
    inner: S,
    gate: Arc<Gate>,
    patience: Duration,
}

#[derive(Debug)]
struct Gate {
    free: Mutex<usize>,
    freed: Condvar,
}

impl<S: ObjectStore> LimitStore<S> {
    /// At most `most` (at least one) open streams; an open that finds no place within `patience` fails with
    /// [`ErrorKind::Timeout`], so that a stream that is never read to its end cannot hang everybody.
    pub fn new(inner: S, most: usize, patience: Duration) -> Self {
        let gate = Gate { free: Mutex::new(most.max(1)), freed: Condvar::new() };
        Self { inner, gate: Arc::new(gate), patience }
    }

    fn enter(&self, object: &ObjectInfo) -> Result<Permit, StorageError> {
        // A patience beyond what the clock can count is a wait without end.
        let deadline = Instant::now().checked_add(self.patience);
        let mut free = lock(&self.gate.free);
        while *free == 0 {
            let left = deadline.map_or(Duration::MAX, |d| d.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let reason = "waited too long for another read to end; the store is slow or overloaded";
                return Err(StorageError::new(ErrorKind::Timeout, &object.name, reason));
            }
            free = self.gate.freed.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Ok(Permit(Arc::clone(&self.gate)))
    }
}

impl<S: ObjectStore> ObjectStore for LimitStore<S> {
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(context)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let permit = self.enter(object)?;
        let inner = self.inner.open(object, range, context)?;
        Ok(Box::new(LimitStream { inner: Some(inner), permit: Some(permit) }))
    }
}

/// One place; given back when dropped.
struct Permit(Arc<Gate>);

impl Drop for Permit {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

/// Gives its place back at the end of the stream, not only when the reader gets around to dropping it.
struct LimitStream {
    inner: Option<Box<dyn Read + Send>>,
    permit: Option<Permit>,
}

impl Read for LimitStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let result = inner.read(buf);
        if matches!(result, Ok(0)) && !buf.is_empty() {
            self.inner = None;
            self.permit = None;
        }
        result
    }
}
