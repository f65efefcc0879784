//! A fair semaphore: it serves requests in the order of their arrival.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Monitor;
use crate::request::{RequestContext, Stopped};

/// A number of permits. Requests are served in the order of their arrival: a request for many permits is not overtaken by
/// later ones for few.
#[derive(Clone, Debug)]
pub struct Semaphore {
    state: Arc<Monitor<SemaphoreState>>,
}

#[derive(Debug)]
struct SemaphoreState {
    total: u64,
    free: u64,
    /// Tickets of the requests that wait, in the order of their arrival.
    queue: VecDeque<u64>,
    next_ticket: u64,
}

impl SemaphoreState {
    /// Takes `count` permits if they are free; returns true if so.
    fn take(&mut self, count: u64) -> bool {
        let left = self.free.checked_sub(count);
        self.free = left.unwrap_or(self.free);
        left.is_some()
    }
}

impl Semaphore {
    /// A semaphore of `permits`, all of them free.
    pub fn new(permits: u64) -> Self {
        Self {
            state: Monitor::new(SemaphoreState {
                total: permits,
                free: permits,
                queue: VecDeque::new(),
                next_ticket: 0,
            }),
        }
    }

    /// Number of permits that are free now.
    pub fn available(&self) -> u64 {
        self.state.lock().free
    }

    /// Takes `count` permits, or all of them if `count` is more, if they are free and no request waits.
    pub fn try_acquire(&self, count: u64) -> Option<Permit> {
        let mut state = self.state.lock();
        let count = count.min(state.total);
        let taken = state.queue.is_empty() && state.take(count);
        drop(state);
        taken.then(|| Permit { state: Arc::clone(&self.state), count })
    }

    /// Takes `count` permits, or all of them if `count` is more. Waits until they are free and all earlier requests have ended
    /// their waiting.
    ///
    /// # Errors
    /// [`Stopped`] when the context does not allow waiting, or not any longer.
    pub fn acquire(&self, count: u64, context: &RequestContext) -> Result<Permit, Stopped> {
        if let Some(permit) = self.try_acquire(count) {
            return Ok(permit);
        }
        context.check_may_block()?;
        let (count, ticket) = self.state.update(|state| {
            let ticket = state.next_ticket;
            state.next_ticket = ticket.wrapping_add(1);
            state.queue.push_back(ticket);
            (count.min(state.total), ticket)
        });
        let queued = QueueTicket { state: &self.state, ticket };
        self.state
            .wait_until(context, |state| (state.queue.front() == Some(&ticket) && state.take(count)).then_some(()))?;
        drop(queued);
        Ok(Permit { state: Arc::clone(&self.state), count })
    }
}

/// A position in the queue. It is released on drop, and the requests after it move up.
struct QueueTicket<'a> {
    state: &'a Arc<Monitor<SemaphoreState>>,
    ticket: u64,
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        self.state.update(|state| state.queue.retain(|waiting| *waiting != self.ticket));
    }
}

/// Permits taken from a [`Semaphore`]. They are returned on drop.
#[derive(Debug)]
pub struct Permit {
    state: Arc<Monitor<SemaphoreState>>,
    count: u64,
}

impl Permit {
    /// Number of permits.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.update(|state| state.free = state.free.saturating_add(self.count).min(state.total));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn waiting(semaphore: &Semaphore) -> usize {
        semaphore.state.lock().queue.len()
    }

    #[test]
    fn requests_are_served_in_the_order_of_arrival() {
        let semaphore = Semaphore::new(3);
        let held = semaphore.try_acquire(3).unwrap();
        let (tx, rx) = mpsc::channel();
        thread::scope(|scope| {
            for (position, count) in [3, 1, 2].into_iter().enumerate() {
                let (tx, semaphore) = (tx.clone(), &semaphore);
                scope.spawn(move || {
                    let permit = semaphore.acquire(count, &RequestContext::unlimited()).unwrap();
                    tx.send(position).unwrap();
                    drop(permit);
                });
                while waiting(semaphore) <= position {
                    thread::yield_now();
                }
            }
            drop(held);
            assert_eq!(rx.recv().unwrap(), 0);
        });
        assert_eq!((semaphore.available(), waiting(&semaphore)), (3, 0));
    }

    #[test]
    fn a_cancelled_request_does_not_block_those_queued_after_it() {
        let semaphore = Semaphore::new(2);
        let held = semaphore.try_acquire(1).unwrap();
        thread::scope(|scope| {
            let token = crate::CancelToken::new();
            let context = RequestContext::new(None, token.clone());
            let waiting_semaphore = &semaphore;
            let first = scope.spawn(move || waiting_semaphore.acquire(2, &context).map(drop));
            while waiting(&semaphore) == 0 {
                thread::yield_now();
            }
            assert!(semaphore.try_acquire(1).is_none(), "overtakes a request that waits");
            let second = scope.spawn(|| semaphore.acquire(1, &RequestContext::unlimited()).map(drop));
            token.cancel();
            assert_eq!(first.join().unwrap(), Err(Stopped::Cancelled));
            assert_eq!(second.join().unwrap(), Ok(()));
        });
        let late = semaphore.acquire(2, &RequestContext::with_timeout(Duration::from_millis(10))).map(drop);
        assert_eq!(late, Err(Stopped::Deadline));
        drop(held);
        assert_eq!(semaphore.acquire(9, &RequestContext::cached_only()).map(|permit| permit.count()), Ok(2));
    }
}
