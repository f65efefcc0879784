//! The order in which sets are loaded, within a bound of memory.

use std::collections::VecDeque;
use std::sync::Arc;

use dupfs_base::RequestContext;
use dupfs_base::sync::Monitor;

/// Upper bound of the stored bytes of the signature archives that are staged at a time, beside the one that enters the
/// table next.
pub(super) const MAX_STAGED_BYTES: u64 = 64 << 20;

/// The positions of the sets that are to be loaded. Workers take them in order, not more at a time than memory has room for.
#[derive(Debug)]
pub(super) struct LoadQueue {
    state: Arc<Monitor<LoadQueueState>>,
}

#[derive(Debug)]
struct LoadQueueState {
    /// The next position to be taken.
    next: u32,
    /// The next position that enters the table.
    next_to_enter: u32,
    end: u32,
    /// The weights of the positions that were taken and are not in the table yet, and their sum.
    weights: VecDeque<u64>,
    staged: u64,
}

impl LoadQueue {
    /// A queue of the positions from `start` to before `end`.
    pub(super) fn new(start: u32, end: u32) -> Self {
        let weights = VecDeque::new();
        Self { state: Monitor::new(LoadQueueState { next: start, next_to_enter: start, end, weights, staged: 0 }) }
    }

    /// Takes the next position once there is room for its size in bytes, as returned by `weigh`. The one that
    /// enters the table next always has room. `None` when all are taken, or when the request has ended.
    pub(super) fn take(&self, context: &RequestContext, weigh: impl Fn(u32) -> u64) -> Option<u32> {
        let taken = self.state.wait_until(context, |state| {
            let position = state.next;
            if position >= state.end {
                return Some(None);
            }
            let weight = weigh(position);
            if position != state.next_to_enter && state.staged.saturating_add(weight) > MAX_STAGED_BYTES {
                return None;
            }
            state.next = position.saturating_add(1);
            state.staged = state.staged.saturating_add(weight);
            state.weights.push_back(weight);
            Some(Some(position))
        });
        taken.ok().flatten()
    }

    /// Records that the next position entered the table: its memory is free.
    pub(super) fn advance(&self) {
        self.state.update(|state| {
            let weight = state.weights.pop_front().unwrap_or(0);
            state.staged = state.staged.saturating_sub(weight);
            state.next_to_enter = state.next_to_enter.saturating_add(1);
        });
    }

    /// Lets workers take no more positions.
    pub(super) fn close(&self) {
        self.state.update(|state| state.end = 0);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use dupfs_base::CancelToken;

    #[test]
    fn positions_wait_for_room_except_for_the_one_that_enters_the_table_next() {
        let (queue, context) = (LoadQueue::new(3, 6), RequestContext::unlimited());
        let weigh = |_| MAX_STAGED_BYTES;
        assert_eq!(queue.take(&context, weigh), Some(3));
        thread::scope(|scope| {
            let second = scope.spawn(|| queue.take(&context, weigh));
            thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished(), "taken without room");
            queue.advance();
            assert_eq!(second.join().unwrap(), Some(4));
        });
        assert_eq!(queue.take(&context, |_| 0), Some(5));
        assert_eq!(queue.take(&context, |_| 0), None);
    }

    #[test]
    fn a_request_that_ends_does_not_wait_for_room() {
        let queue = LoadQueue::new(0, 9);
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        assert_eq!(queue.take(&context, |_| 1), Some(0));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take(&context, |_| MAX_STAGED_BYTES));
            thread::sleep(std::time::Duration::from_millis(20));
            token.cancel();
            assert_eq!(waiting.join().unwrap(), None);
        });
        queue.close();
        assert_eq!(queue.take(&RequestContext::unlimited(), |_| 0), None);
    }
}
