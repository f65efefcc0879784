//! A semaphore that serves those who wait in the order of their coming.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Monitor;
use crate::request::{RequestContext, Stopped};

/// A number of permits. A request that asks for many is not passed by later ones that ask for few.
#[derive(Clone, Debug)]
pub struct Semaphore {
    state: Arc<Monitor<State>>,
}

#[derive(Debug)]
struct State {
    total: u64,
    free: u64,
    /// Numbers of those who wait, in the order of their coming.
    queue: VecDeque<u64>,
    next: u64,
}

impl State {
    /// Takes `count` permits if they are free.
    fn take(&mut self, count: u64) -> bool {
        let left = self.free.checked_sub(count);
        self.free = left.unwrap_or(self.free);
        left.is_some()
    }
}

impl Semaphore {
    /// A semaphore of `permits`.
    pub fn new(permits: u64) -> Self {
        Self { state: Monitor::new(State { total: permits, free: permits, queue: VecDeque::new(), next: 0 }) }
    }

    /// Permits that are free now.
    pub fn available(&self) -> u64 {
        self.state.lock().free
    }

    /// Takes `count` permits, but never more than there are in all, if they are free and nobody waits.
    pub fn try_acquire(&self, count: u64) -> Option<Permit> {
        let mut state = self.state.lock();
        let count = count.min(state.total);
        let taken = state.queue.is_empty() && state.take(count);
        drop(state);
        taken.then(|| Permit { state: Arc::clone(&self.state), count })
    }

    /// Takes `count` permits, but never more than there are in all; waits until it is its turn and they are free.
    ///
    /// # Errors
    /// [`Stopped`] when the context does not allow to wait (any longer).
    pub fn acquire(&self, count: u64, context: &RequestContext) -> Result<Permit, Stopped> {
        if let Some(permit) = self.try_acquire(count) {
            return Ok(permit);
        }
        context.check_may_block()?;
        let (count, ticket) = self.state.update(|state| {
            let ticket = state.next;
            state.next = ticket.wrapping_add(1);
            state.queue.push_back(ticket);
            (count.min(state.total), ticket)
        });
        let place = Place { state: &self.state, ticket };
        self.state
            .wait_until(context, |state| (state.queue.front() == Some(&ticket) && state.take(count)).then_some(()))?;
        drop(place);
        Ok(Permit { state: Arc::clone(&self.state), count })
    }
}

/// A place in the queue; left when it is dropped, so that those behind it move up.
struct Place<'a> {
    state: &'a Arc<Monitor<State>>,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.state.update(|state| state.queue.retain(|waiting| *waiting != self.ticket));
    }
}

/// Permits taken from a [`Semaphore`]; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    state: Arc<Monitor<State>>,
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
    fn permits_come_in_the_order_of_asking() {
        let semaphore = Semaphore::new(3);
        let held = semaphore.try_acquire(3).unwrap();
        let (send, order) = mpsc::channel();
        thread::scope(|scope| {
            for (place, count) in [3, 1, 2].into_iter().enumerate() {
                let (send, semaphore) = (send.clone(), &semaphore);
                scope.spawn(move || {
                    let permit = semaphore.acquire(count, &RequestContext::unlimited()).unwrap();
                    send.send(place).unwrap();
                    drop(permit);
                });
                while waiting(semaphore) <= place {
                    thread::yield_now();
                }
            }
            drop(held);
            assert_eq!(order.recv().unwrap(), 0);
        });
        assert_eq!((semaphore.available(), waiting(&semaphore)), (3, 0));
    }

    #[test]
    fn one_who_gives_up_lets_the_next_pass() {
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
            assert!(semaphore.try_acquire(1).is_none(), "passes one who waits");
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
