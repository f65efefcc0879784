use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Error {
    Work(usize),
    Flight(SingleFlightError),
}

impl From<SingleFlightError> for Error {
    fn from(failure: SingleFlightError) -> Self {
        Self::Flight(failure)
    }
}

type TestFlight = SingleFlight<u32, usize, Error>;

fn run(
    flight: &TestFlight,
    key: u32,
    work: impl FnOnce(&RequestContext) -> Result<usize, Error> + Send + 'static,
) -> Result<usize, Error> {
    flight.run(key, "test", &RequestContext::unlimited(), work)
}

/// Waits until `count` requests wait for the execution of `key`.
fn wait_for_waiters(executions: &Executions<u32, usize, Error>, key: u32, count: usize) {
    while lock(executions).get(&key).map_or(0, |execution| *lock(&execution.waiting)) < count {
        thread::yield_now();
    }
}

#[test]
fn concurrent_requests_share_one_execution_and_its_error() {
    for outcome in [Ok(7), Err(Error::Work(3))] {
        let flight = TestFlight::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let start = Barrier::new(16);
        thread::scope(|scope| {
            let request = || {
                start.wait();
                let (runs, executions, outcome) = (Arc::clone(&runs), Arc::clone(&flight.executions), outcome.clone());
                run(&flight, 1, move |_| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    wait_for_waiters(&executions, 1, 16);
                    outcome
                })
            };
            let all: Vec<_> = (0..16).map(|_| scope.spawn(request)).collect();
            for thread in all {
                assert_eq!(thread.join().unwrap(), outcome);
            }
        });
        assert_eq!((runs.load(Ordering::SeqCst), flight.len()), (1, 0));
    }
}

#[test]
fn errors_are_not_retained() {
    let flight = TestFlight::new();
    assert_eq!(run(&flight, 1, |_| Err(Error::Work(1))), Err(Error::Work(1)));
    assert_eq!(run(&flight, 1, |_| Ok(2)), Ok(2));
}

#[test]
fn a_panic_is_an_error_and_the_next_request_starts_anew() {
    let flight = TestFlight::new();
    assert_eq!(run(&flight, 1, |_| panic!("planned")), Err(Error::Flight(SingleFlightError::Abandoned)));
    assert_eq!(run(&flight, 1, |_| Ok(5)), Ok(5));
}

#[test]
fn a_request_gives_up_at_its_deadline_and_the_work_goes_on_for_the_others() {
    let flight = TestFlight::new();
    let (release, gate) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            run(&flight, 1, move |context| {
                gate.recv().unwrap();
                context.check().map_err(SingleFlightError::from)?;
                Ok(1)
            })
        });
        wait_for_waiters(&flight.executions, 1, 1);
        let soon = RequestContext::with_timeout(Duration::from_millis(20));
        let late = flight.run(1, "test", &soon, |_| Ok(0));
        assert_eq!(late, Err(Error::Flight(SingleFlightError::Stopped(Stopped::Deadline))));
        release.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Ok(1));
    });
}

#[test]
fn work_that_nobody_waits_for_is_cancelled_and_not_joined() {
    let flight = TestFlight::new();
    let (stopped, told) = mpsc::channel();
    let wait_for_the_end = move |context: &RequestContext| {
        let monitor = Monitor::new(());
        let outcome: Result<(), Stopped> = monitor.wait_until(context, |()| None);
        stopped.send(outcome).unwrap();
        Ok(1)
    };
    let token = CancelToken::new();
    thread::scope(|scope| {
        let context = RequestContext::new(None, token.clone());
        let flight = &flight;
        let request = scope.spawn(move || flight.run(1, "test", &context, wait_for_the_end));
        wait_for_waiters(&flight.executions, 1, 1);
        token.cancel();
        assert_eq!(request.join().unwrap(), Err(Error::Flight(SingleFlightError::Stopped(Stopped::Cancelled))));
    });
    assert_eq!(told.recv().unwrap(), Err(Stopped::Cancelled));
    assert_eq!(run(&flight, 1, |_| Ok(2)), Ok(2));
}

#[test]
fn a_request_that_may_not_block_starts_nothing() {
    let flight = TestFlight::new();
    let refused = flight.run(1, "test", &RequestContext::cached_only(), |_| Ok(0));
    assert_eq!(refused, Err(Error::Flight(SingleFlightError::Stopped(Stopped::WouldBlock))));
    assert!(flight.is_empty());
}

#[test]
fn work_that_needs_its_own_result_is_an_error_not_a_hang() {
    let flight = Arc::new(TestFlight::new());
    let inner = Arc::clone(&flight);
    let nested = run(&flight, 1, move |_| run(&inner, 1, |_| Ok(0)));
    assert_eq!(nested, Err(Error::Flight(SingleFlightError::Reentrant)));
    let inner = Arc::clone(&flight);
    assert_eq!(run(&flight, 1, move |_| run(&inner, 2, |_| Ok(8))), Ok(8));
}

#[test]
fn keys_do_not_wait_for_one_another() {
    let flight = TestFlight::new();
    let meet = Arc::new(Barrier::new(4));
    thread::scope(|scope| {
        for key in 0..4 {
            let (flight, meet) = (&flight, Arc::clone(&meet));
            scope.spawn(move || {
                let result = run(flight, key, move |_| {
                    meet.wait();
                    Ok(1)
                });
                assert_eq!(result, Ok(1));
            });
        }
    });
}
