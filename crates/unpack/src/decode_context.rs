//! The context of a decoder: the request that it decodes for, and its turn on a processor.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::decode_workers::DecodeWorkers;
use super::error::UnpackError;
use dupfs_base::sync::Turn;
use dupfs_base::{RequestContext, Stopped};

/// A decoder that has had a processor for this time returns it if others wait.
const QUANTUM: Duration = Duration::from_millis(10);

/// The request that a decoder works for, and the processor that it has. It has none while it waits: for its source, which may
/// be a decoder itself, for another thread, or for the caller's next call.
#[derive(Debug)]
pub(super) struct DecodeContext<'a> {
    request: &'a RequestContext,
    workers: &'a Arc<DecodeWorkers>,
    flow: u64,
    turn: RefCell<Option<Turn>>,
    /// Bytes of memory that the decoder may have.
    memory: Cell<u64>,
    /// Bytes that it needs, once those are more.
    needed: Cell<Option<u64>>,
}

impl<'a> DecodeContext<'a> {
    /// The context of `request` for a decoder of the stored file `flow`.
    pub(super) fn new(workers: &'a Arc<DecodeWorkers>, flow: u64, request: &'a RequestContext) -> Self {
        let (turn, memory, needed) = (RefCell::new(None), Cell::new(u64::MAX), Cell::new(None));
        Self { request, workers, flow, turn, memory, needed }
    }

    /// The same for a decoder that may have `bytes` of memory.
    pub(super) fn with_memory(self, bytes: u64) -> Self {
        self.memory.set(bytes);
        self
    }

    /// Checks that the decoder may have `bytes` of memory. To be called before it allocates them.
    ///
    /// # Errors
    /// [`UnpackError::Stopped`] if not: the cursor that runs the decoder gets the memory, and calls it again.
    pub(super) fn check_memory(&self, name: &Arc<str>, bytes: u64) -> Result<(), UnpackError> {
        if bytes <= self.memory.get() {
            return Ok(());
        }
        self.needed.set(Some(bytes));
        Err(UnpackError::stopped(name, Stopped::WouldBlock))
    }

    /// Takes the bytes for which [`Self::check_memory`] failed.
    pub(super) fn take_needed(&self) -> Option<u64> {
        self.needed.take()
    }

    /// Allows the decoder to have `bytes` of memory.
    pub(super) fn allow_memory(&self, bytes: u64) {
        self.memory.set(bytes);
    }

    /// Waits for a processor unless the decoder has one. To be called before each piece of work.
    ///
    /// # Errors
    /// [`UnpackError::Stopped`] if the request ends first, or has ended.
    pub(super) fn work(&self, name: &Arc<str>) -> Result<(), UnpackError> {
        let stopped = |reason: Stopped| UnpackError::stopped(name, reason);
        self.request.check().map_err(stopped)?;
        let mut turn = self.turn.borrow_mut();
        let is_over = |turn: &Turn| turn.since().elapsed() >= QUANTUM && self.workers.is_contended();
        if turn.as_ref().is_some_and(is_over) {
            *turn = None;
        }
        if turn.is_none() {
            *turn = Some(self.workers.turn(self.flow, self.request).map_err(stopped)?);
        }
        Ok(())
    }

    /// The threads that decode.
    pub(super) fn workers(&self) -> &'a Arc<DecodeWorkers> {
        self.workers
    }

    /// The request, for work that checks whether it has ended.
    pub(super) fn request(&self) -> &'a RequestContext {
        self.request
    }

    /// Returns the processor. Returns the request, to wait within its limits.
    pub(super) fn wait(&self) -> &'a RequestContext {
        let turn = self.turn.borrow_mut().take();
        drop(turn);
        self.request
    }
}
