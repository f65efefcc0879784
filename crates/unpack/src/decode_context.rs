//! The context of a decoder: the request that it decodes for, and its turn on a processor.

use std::cell::RefCell;
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
}

impl<'a> DecodeContext<'a> {
    /// The context of `request` for a decoder of the stored file `flow`.
    pub(super) fn new(workers: &'a Arc<DecodeWorkers>, flow: u64, request: &'a RequestContext) -> Self {
        Self { request, workers, flow, turn: RefCell::new(None) }
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
