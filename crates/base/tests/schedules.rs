//! The concurrent parts of this crate under random schedules: `cargo test -p dupfs-base --features shuttle --test schedules`.

// A failing test panics.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dupfs_base::sync::schedules::{check, thread};
use dupfs_base::sync::{FairQueue, Monitor, Semaphore, SingleFlight, SingleFlightError, ThreadPool};
use dupfs_base::{CancelToken, RequestContext, Stopped};

fn cancellable() -> (RequestContext, CancelToken) {
    let token = CancelToken::new();
    (RequestContext::new(None, token.clone()), token)
}

// Monitor

#[test]
fn waiters_of_a_monitor_see_every_change() {
    check(|| {
        let monitor = Monitor::new(0_u32);
        let waiters: Vec<_> = (1..=3)
            .map(|target| {
                let monitor = Arc::clone(&monitor);
                thread::spawn(move || {
                    monitor.wait_until(&RequestContext::unlimited(), |value| (*value >= target).then_some(*value))
                })
            })
            .collect();
        for _ in 0..3 {
            monitor.update(|value| *value += 1);
        }
        for (target, waiter) in (1..=3).zip(waiters) {
            assert!(waiter.join().unwrap().unwrap() >= target);
        }
    });
}

#[test]
fn a_cancelled_request_stops_waiting_for_a_monitor() {
    check(|| {
        let monitor = Monitor::new(false);
        let (context, token) = cancellable();
        let cancelled = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || monitor.wait_until(&context, |done| done.then_some(())))
        };
        let other = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || monitor.wait_until(&RequestContext::unlimited(), |done| done.then_some(())))
        };
        token.cancel();
        assert_eq!(cancelled.join().unwrap(), Err(Stopped::Cancelled));
        monitor.update(|done| *done = true);
        assert_eq!(other.join().unwrap(), Ok(()));
    });
}

// FairQueue

#[test]
fn turns_are_bounded_and_every_flow_is_served() {
    check(|| {
        let (queue, in_use) = (FairQueue::new(2), Arc::new(AtomicUsize::new(0)));
        let requests: Vec<_> = [1, 1, 2, 3]
            .into_iter()
            .map(|flow| {
                let (queue, in_use) = (queue.clone(), Arc::clone(&in_use));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let turn = queue.acquire(flow, &RequestContext::unlimited()).unwrap();
                        assert!(in_use.fetch_add(1, Ordering::SeqCst) < 2);
                        thread::yield_now();
                        in_use.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                })
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().unwrap());
        assert_eq!(queue.waiting(), 0);
    });
}

#[test]
fn a_cancelled_request_for_a_turn_takes_no_slot_with_it() {
    check(|| {
        let queue = FairQueue::new(1);
        let (context, token) = cancellable();
        let turn = queue.acquire(1, &RequestContext::unlimited()).unwrap();
        let cancelled = {
            let queue = queue.clone();
            thread::spawn(move || queue.acquire(2, &context).map(drop))
        };
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.acquire(3, &RequestContext::unlimited()).map(drop))
        };
        token.cancel();
        drop(turn);
        // It may have obtained its turn first.
        assert!(matches!(cancelled.join().unwrap(), Ok(()) | Err(Stopped::Cancelled)));
        assert_eq!(other.join().unwrap(), Ok(()));
        assert_eq!(queue.waiting(), 0);
        assert!(queue.acquire(4, &RequestContext::cached_only()).is_ok());
    });
}

// Semaphore

#[test]
fn permits_are_bounded_and_every_request_is_served() {
    check(|| {
        const TOTAL: usize = 3;
        let semaphore = Semaphore::new(TOTAL as u64);
        let in_use = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = [3, 1, 2, 9]
            .into_iter()
            .map(|count: usize| {
                let (semaphore, in_use) = (semaphore.clone(), Arc::clone(&in_use));
                thread::spawn(move || {
                    let permit = semaphore.acquire(count as u64, &RequestContext::unlimited()).unwrap();
                    let taken = count.min(TOTAL);
                    assert_eq!(permit.count(), taken as u64);
                    assert!(in_use.fetch_add(taken, Ordering::SeqCst) + taken <= TOTAL);
                    thread::yield_now();
                    in_use.fetch_sub(taken, Ordering::SeqCst);
                })
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().unwrap());
        assert_eq!(semaphore.available(), TOTAL as u64);
    });
}

#[test]
fn a_cancelled_request_of_a_semaphore_lets_the_next_one_pass() {
    check(|| {
        let semaphore = Semaphore::new(2);
        let held = semaphore.try_acquire(1).unwrap();
        let (context, token) = cancellable();
        let large = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.acquire(2, &context).map(drop))
        };
        let small = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.acquire(1, &RequestContext::unlimited()).map(drop))
        };
        token.cancel();
        // It never had two permits, as one is in use.
        assert_eq!(large.join().unwrap(), Err(Stopped::Cancelled));
        assert_eq!(small.join().unwrap(), Ok(()));
        drop(held);
        assert_eq!(semaphore.available(), 2);
    });
}

#[test]
fn a_permit_that_is_returned_while_the_request_is_cancelled_is_not_lost() {
    check(|| {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let (context, token) = cancellable();
        let request = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.acquire(1, &context).map(drop))
        };
        let canceller = thread::spawn(move || token.cancel());
        drop(held);
        assert!(matches!(request.join().unwrap(), Ok(()) | Err(Stopped::Cancelled)));
        canceller.join().unwrap();
        assert_eq!(semaphore.available(), 1);
        assert!(semaphore.try_acquire(1).is_some(), "the request has left the queue");
    });
}

// Single flight

type TestFlight = SingleFlight<u32, usize, SingleFlightError>;

fn request(
    flight: &Arc<TestFlight>,
    context: RequestContext,
    work: impl FnOnce(&RequestContext) -> Result<usize, SingleFlightError> + Send + 'static,
) -> thread::JoinHandle<Result<usize, SingleFlightError>> {
    let flight = Arc::clone(flight);
    thread::spawn(move || flight.run(1, "work", &context, work))
}

/// Work that returns `number`, or an error if it is cancelled first.
fn cancellable_work(number: usize) -> impl FnOnce(&RequestContext) -> Result<usize, SingleFlightError> + Send {
    move |context| {
        for _ in 0..3 {
            thread::yield_now();
            context.check()?;
        }
        Ok(number)
    }
}

#[test]
fn executions_of_one_key_do_not_overlap() {
    check(|| {
        let flight = Arc::new(TestFlight::new());
        let running = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = (0..3)
            .map(|number| {
                let running = Arc::clone(&running);
                request(&flight, RequestContext::unlimited(), move |_| {
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two executions of one key at once");
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(number)
                })
            })
            .collect();
        for request in requests {
            assert!(request.join().unwrap().is_ok());
        }
        assert!(flight.is_empty());
    });
}

#[test]
fn a_cancelled_execution_is_not_joined() {
    check(|| {
        let flight = Arc::new(TestFlight::new());
        let (context, token) = cancellable();
        let impatient = request(&flight, context, cancellable_work(1));
        let patient = request(&flight, RequestContext::unlimited(), cancellable_work(2));
        token.cancel();
        assert!(matches!(patient.join().unwrap(), Ok(1 | 2)), "no other request can cancel this one");
        let outcome = impatient.join().unwrap();
        assert!(matches!(outcome, Ok(1 | 2) | Err(SingleFlightError::Stopped(Stopped::Cancelled))), "{outcome:?}");
        assert!(flight.is_empty());
    });
}

#[test]
fn the_last_request_that_gives_up_cancels_the_execution() {
    check(|| {
        let flight = Arc::new(TestFlight::new());
        // Numbers of executions that have begun and that have ended.
        let counts = Monitor::new((0, 0));
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let ((context, token), counts) = (cancellable(), Arc::clone(&counts));
                let request = request(&flight, context, move |context| {
                    counts.update(|(begun, _)| *begun += 1);
                    let never = Monitor::new(());
                    let stopped = never.wait_until(context, |()| None::<usize>);
                    counts.update(|(_, ended)| *ended += 1);
                    Ok(stopped?)
                });
                (request, token)
            })
            .collect();
        for (request, token) in requests {
            token.cancel();
            assert_eq!(request.join().unwrap(), Err(Stopped::Cancelled.into()));
        }
        assert!(flight.is_empty());
        let all_ended = |(begun, ended): &mut (usize, usize)| (begun == ended).then_some(());
        assert_eq!(counts.wait_until(&RequestContext::unlimited(), all_ended), Ok(()));
    });
}

#[test]
fn a_request_after_an_error_does_not_get_the_old_error() {
    #[derive(Clone, Debug, PartialEq)]
    struct Failed(usize);
    impl From<SingleFlightError> for Failed {
        fn from(_: SingleFlightError) -> Self {
            Self(usize::MAX)
        }
    }
    check(|| {
        let flight = Arc::new(SingleFlight::<u32, (), Failed>::new());
        let executions = Arc::new(AtomicUsize::new(0));
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let (flight, executions) = (Arc::clone(&flight), Arc::clone(&executions));
                thread::spawn(move || {
                    let fail = || {
                        let executions = Arc::clone(&executions);
                        let work = move |_: &RequestContext| Err(Failed(executions.fetch_add(1, Ordering::SeqCst)));
                        flight.run(1, "work", &RequestContext::unlimited(), work)
                    };
                    assert_ne!(fail(), fail());
                })
            })
            .collect();
        requests.into_iter().for_each(|request| request.join().unwrap());
    });
}

// Thread pool

/// Counts how many times it is dropped.
struct DropCounter(Arc<Monitor<usize>>);

impl Drop for DropCounter {
    fn drop(&mut self) {
        self.0.update(|count| *count += 1);
    }
}

fn wait_for_count(counter: &Arc<Monitor<usize>>, expected: usize) {
    counter.wait_until(&RequestContext::unlimited(), |count| (*count == expected).then_some(())).unwrap();
}

#[test]
fn every_job_runs_once() {
    check(|| {
        let pool = Arc::new(ThreadPool::new("worker", 2));
        let done = Monitor::new([0; 4]);
        let submitters: Vec<_> = (0..2)
            .map(|submitter| {
                let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
                thread::spawn(move || {
                    for job in [2 * submitter, 2 * submitter + 1] {
                        let done = Arc::clone(&done);
                        pool.submit(Box::new(move || done.update(|done| done[job] += 1))).unwrap();
                    }
                })
            })
            .collect();
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        let all = |done: &mut [usize; 4]| done.iter().all(|&count| count > 0).then_some(*done);
        assert_eq!(done.wait_until(&RequestContext::unlimited(), all), Ok([1; 4]));
        assert!(pool.threads() <= 2);
    });
}

#[test]
fn no_job_waits_while_a_thread_is_free_for_it() {
    check(|| {
        let pool = ThreadPool::new("worker", 2);
        let first = Monitor::new(0);
        {
            let first = Arc::clone(&first);
            pool.submit(Box::new(move || first.update(|count| *count += 1))).unwrap();
        }
        wait_for_count(&first, 1);
        // Two jobs that wait for each other run at once: on one idle thread and a new one, then on two that may be idle.
        for _ in 0..2 {
            let met = Monitor::new(0);
            let ended = Monitor::new(0);
            for _ in 0..2 {
                let (met, ended) = (Arc::clone(&met), Arc::clone(&ended));
                pool.submit(Box::new(move || {
                    met.update(|count| *count += 1);
                    wait_for_count(&met, 2);
                    ended.update(|count| *count += 1);
                }))
                .unwrap();
            }
            wait_for_count(&ended, 2);
        }
        assert_eq!(pool.threads(), 2);
    });
}

#[test]
fn a_dropped_pool_drops_the_jobs_that_have_not_begun() {
    check(|| {
        let (begun, dropped, ended) = (Monitor::new(0), Monitor::new(0), Monitor::new(0));
        let pool = ThreadPool::new("worker", 1);
        {
            let (begun, dropped, ended) = (Arc::clone(&begun), Arc::clone(&dropped), Arc::clone(&ended));
            pool.submit(Box::new(move || {
                begun.update(|count| *count += 1);
                wait_for_count(&dropped, 2);
                ended.update(|count| *count += 1);
            }))
            .unwrap();
        }
        wait_for_count(&begun, 1);
        for _ in 0..2 {
            let counter = DropCounter(Arc::clone(&dropped));
            pool.submit(Box::new(move || panic!("{} jobs were dropped", counter.0.lock()))).unwrap();
        }
        drop(pool);
        wait_for_count(&ended, 1);
    });
}

shuttle::thread_local! {
    /// Dropped when a worker's thread ends.
    static THREAD_END: RefCell<Option<DropCounter>> = const { RefCell::new(None) };
}

#[test]
fn the_threads_of_a_dropped_pool_end() {
    check(|| {
        let (begun, ended) = (Monitor::new(0), Monitor::new(0));
        let pool = ThreadPool::new("worker", 2);
        for _ in 0..2 {
            let (begun, counter) = (Arc::clone(&begun), DropCounter(Arc::clone(&ended)));
            pool.submit(Box::new(move || {
                THREAD_END.with(|end| *end.borrow_mut() = Some(counter));
                begun.update(|count| *count += 1);
                wait_for_count(&begun, 2);
            }))
            .unwrap();
        }
        wait_for_count(&begun, 2);
        drop(pool);
        wait_for_count(&ended, 2);
    });
}
