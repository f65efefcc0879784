//! Fair queueing: turns on a few slots, shared evenly by flows however much each of them has to do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Monitor;
use super::prim::Mutex;
use crate::request::{RequestContext, Stopped};
use crate::whole_nanos;

/// Assumed cost of a turn, in nanoseconds, until it has ended and its cost is known.
const ESTIMATE: u64 = 1_000_000;
/// Flows that are remembered while they neither use a slot nor wait.
const MAX_IDLE_FLOWS: usize = 1024;

/// A number of slots that flows take turns on. A flow is everything that is done for one object, by any number of threads.
///
/// Turns are given by fair queueing. Each flow has a tag, the virtual time that it has used; the flow with the least tag is
/// next. Virtual time passes as fast as each of the active flows could use a slot if all had the same share. A flow that
/// becomes active starts at the present virtual time at least: so a flow with little to do is served within a turn of each of
/// the others, a flow with much to do gets as much as each of the others, and neither keeps the other waiting forever, however
/// many flows come and go.
#[derive(Clone, Debug)]
pub struct FairQueue {
    state: Arc<Mutex<FairState>>,
}

#[derive(Debug)]
struct FairState {
    free: usize,
    /// Nanoseconds that each flow could have used so far if it had always been active.
    virtual_time: u64,
    /// Flows that use a slot or wait for one.
    active: u64,
    flows: BTreeMap<u64, Flow>,
    waiting: usize,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Flow {
    /// Virtual time that it has used.
    tag: u64,
    turns: usize,
    /// Its requests in the order of their arrival.
    queue: VecDeque<WaitingTurn>,
}

#[derive(Debug)]
struct WaitingTurn {
    ticket: u64,
    granted: Arc<Monitor<bool>>,
}

impl Flow {
    fn is_active(&self) -> bool {
        self.turns > 0 || !self.queue.is_empty()
    }
}

impl FairState {
    fn new(slots: usize) -> Self {
        let (virtual_time, active, waiting, next_ticket) = (0, 0, 0, 0);
        Self { free: slots.max(1), virtual_time, active, flows: BTreeMap::new(), waiting, next_ticket }
    }

    /// The flow `id`, active from now on.
    fn activate(&mut self, id: u64) -> &mut Flow {
        let flow = self.flows.entry(id).or_default();
        if !flow.is_active() {
            flow.tag = flow.tag.max(self.virtual_time);
            self.active = self.active.saturating_add(1);
        }
        flow
    }

    fn begin(&mut self, id: u64) {
        self.free = self.free.saturating_sub(1);
        let flow = self.activate(id);
        flow.tag = flow.tag.saturating_add(ESTIMATE);
        flow.turns = flow.turns.saturating_add(1);
    }

    fn enqueue(&mut self, id: u64) -> (u64, Arc<Monitor<bool>>) {
        let (ticket, granted) = (self.next_ticket, Monitor::new(false));
        self.next_ticket = ticket.wrapping_add(1);
        self.waiting = self.waiting.saturating_add(1);
        let request = WaitingTurn { ticket, granted: Arc::clone(&granted) };
        self.activate(id).queue.push_back(request);
        (ticket, granted)
    }

    /// Ends a turn of flow `id` that took `cost` nanoseconds, and begins the next ones. Returns the requests to be
    /// notified.
    fn end(&mut self, id: u64, cost: u64) -> Vec<Arc<Monitor<bool>>> {
        self.virtual_time = self.virtual_time.saturating_add(cost / self.active.max(1));
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.turns = flow.turns.saturating_sub(1);
            flow.tag = flow.tag.saturating_sub(ESTIMATE).saturating_add(cost);
        }
        self.deactivate(id);
        self.free = self.free.saturating_add(1);
        if self.flows.len() > MAX_IDLE_FLOWS {
            let now = self.virtual_time;
            self.flows.retain(|_, flow| flow.is_active() || flow.tag > now);
        }
        self.grant()
    }

    /// Records that flow `id` has lost a turn or a request.
    fn deactivate(&mut self, id: u64) {
        if self.flows.get(&id).is_some_and(|flow| !flow.is_active()) {
            self.active = self.active.saturating_sub(1);
        }
    }

    fn grant(&mut self) -> Vec<Arc<Monitor<bool>>> {
        let mut granted = Vec::new();
        while self.free > 0 && self.waiting > 0 {
            let rank = |flow: &Flow| Some((flow.tag, flow.queue.front()?.ticket));
            let next = self.flows.iter().filter_map(|(id, flow)| Some((rank(flow)?, *id))).min();
            let Some((_, id)) = next else { break };
            self.begin(id);
            self.waiting = self.waiting.saturating_sub(1);
            let request = self.flows.get_mut(&id).and_then(|flow| flow.queue.pop_front());
            granted.extend(request.map(|request| request.granted));
        }
        granted
    }

    /// Removes a request that gives up; false if it has got its turn.
    fn withdraw(&mut self, id: u64, ticket: u64) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return false };
        let Some(at) = flow.queue.iter().position(|request| request.ticket == ticket) else { return false };
        flow.queue.remove(at);
        self.waiting = self.waiting.saturating_sub(1);
        self.deactivate(id);
        true
    }
}

impl FairQueue {
    /// A queue for `slots`, all of them free.
    pub fn new(slots: usize) -> Self {
        Self { state: Arc::new(Mutex::new(FairState::new(slots))) }
    }

    /// Takes a turn for `flow`; waits until it is next. A thread holds one turn at most, and none while it waits for anything.
    ///
    /// # Errors
    /// [`Stopped`] when the context does not allow waiting, or not any longer.
    pub fn acquire(&self, flow: u64, context: &RequestContext) -> Result<Turn, Stopped> {
        let mut state = self.state.lock();
        if state.free > 0 {
            // No request waits while a slot is free.
            state.begin(flow);
            drop(state);
            return Ok(Turn::new(self, flow));
        }
        context.check_may_block()?;
        let (ticket, granted) = state.enqueue(flow);
        drop(state);
        let waited = granted.wait_until(context, |granted| granted.then_some(()));
        match waited {
            Err(stopped) if self.state.lock().withdraw(flow, ticket) => Err(stopped),
            Ok(()) | Err(_) => Ok(Turn::new(self, flow)),
        }
    }

    /// Number of requests that wait for a turn.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

/// A turn of a flow. It ends on drop; its duration is what the flow is charged.
#[derive(Debug)]
pub struct Turn {
    queue: FairQueue,
    flow: u64,
    since: Instant,
}

impl Turn {
    fn new(queue: &FairQueue, flow: u64) -> Self {
        Self { queue: queue.clone(), flow, since: Instant::now() }
    }

    /// The start of the turn.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let cost = whole_nanos(self.since.elapsed());
        let granted = self.queue.state.lock().end(self.flow, cost);
        for granted in granted {
            granted.update(|granted| *granted = true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::CancelToken;

    const MS: u64 = 1_000_000;

    /// A queue of one slot, driven without threads.
    struct Driven {
        state: FairState,
        requests: Vec<(u64, Arc<Monitor<bool>>)>,
        served: Vec<u64>,
        running: Option<u64>,
    }

    impl Driven {
        fn new() -> Self {
            Self { state: FairState::new(1), requests: Vec::new(), served: Vec::new(), running: None }
        }

        fn request(&mut self, flow: u64) {
            let (_, granted) = self.state.enqueue(flow);
            self.requests.push((flow, granted));
            let granted = self.state.grant();
            self.note(granted);
        }

        fn note(&mut self, granted: Vec<Arc<Monitor<bool>>>) {
            for granted in granted {
                let flow = self.requests.iter().find(|(_, request)| Arc::ptr_eq(request, &granted)).unwrap().0;
                self.served.push(flow);
                self.running = Some(flow);
            }
        }

        fn end(&mut self, cost: u64) -> u64 {
            let flow = self.running.take().unwrap();
            let granted = self.state.end(flow, cost);
            self.note(granted);
            flow
        }
    }

    #[test]
    fn a_flow_with_little_to_do_is_served_within_a_turn_of_each_of_the_others() {
        let mut queue = Driven::new();
        (0..24).for_each(|flow| (0..10).for_each(|_| queue.request(flow)));
        for _ in 0..1000 {
            queue.request(queue.running.unwrap());
            queue.end(MS);
        }
        queue.request(99);
        let before = queue.served.len();
        while queue.running != Some(99) {
            queue.end(MS);
        }
        assert!(queue.served.len() - before <= 25, "{} turns before it", queue.served.len() - before);
    }

    #[test]
    fn flows_share_by_cost_and_not_by_number_of_turns_or_threads() {
        let mut queue = Driven::new();
        // One flow has ten threads and long turns, the other one thread and short turns.
        (0..10).for_each(|_| queue.request(1));
        queue.request(2);
        let mut used = [0; 3];
        for _ in 0..3000 {
            let flow = queue.running.unwrap();
            let cost = if flow == 1 { 20 * MS } else { MS };
            queue.request(flow);
            queue.end(cost);
            used[usize::try_from(flow).unwrap()] += cost;
        }
        assert!(used[1].abs_diff(used[2]) <= 40 * MS, "{used:?}");
    }

    #[test]
    fn an_endless_sequence_of_new_flows_does_not_starve_an_old_one() {
        let mut queue = Driven::new();
        (0..100).for_each(|_| queue.request(0));
        for _ in 0..50 {
            queue.end(10 * MS);
        }
        (1..25).for_each(|flow| queue.request(flow));
        let mut turns = 0;
        for newcomer in 25..5000 {
            // As many new flows as before, instead of those that were served.
            queue.request(if queue.running == Some(0) { 0 } else { newcomer });
            turns += u32::from(queue.end(MS) == 0);
        }
        assert!((150..=250).contains(&turns), "{turns} turns of 5,000");
        assert!(queue.state.flows.len() < 2 * MAX_IDLE_FLOWS, "{} flows are remembered", queue.state.flows.len());
    }

    #[test]
    fn turns_are_limited_to_the_slots_and_all_requests_are_served() {
        let queue = FairQueue::new(2);
        let (running, max) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for flow in 0..8 {
                let (queue, running, max) = (&queue, &running, &max);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let turn = queue.acquire(flow % 3, &RequestContext::unlimited()).unwrap();
                        max.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(max.load(Ordering::SeqCst), 2);
        assert_eq!(queue.state.lock().free, 2);
    }

    #[test]
    fn a_request_that_gives_up_leaves_the_slot_to_the_others() {
        let queue = FairQueue::new(1);
        let turn = queue.acquire(1, &RequestContext::cached_only()).unwrap();
        assert_eq!(queue.acquire(2, &RequestContext::cached_only()).map(drop), Err(Stopped::WouldBlock));
        let soon = RequestContext::with_timeout(Duration::from_millis(10));
        assert_eq!(queue.acquire(2, &soon).map(drop), Err(Stopped::Deadline));
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        thread::scope(|scope| {
            let first = scope.spawn(|| queue.acquire(3, &context).map(drop));
            while queue.waiting() == 0 {
                thread::yield_now();
            }
            let second = scope.spawn(|| queue.acquire(4, &RequestContext::unlimited()).map(drop));
            token.cancel();
            assert_eq!(first.join().unwrap(), Err(Stopped::Cancelled));
            drop(turn);
            assert_eq!(second.join().unwrap(), Ok(()));
        });
        assert_eq!(queue.waiting(), 0);
        assert!(queue.acquire(5, &RequestContext::cached_only()).is_ok());
    }
}
