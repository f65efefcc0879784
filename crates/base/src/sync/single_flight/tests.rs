use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum TestError {
    Work(usize),
    Flight(SingleFlightError),
}

impl From<SingleFlightError> for TestError {
    fn from(failure: SingleFlightError) -> Self {
        Self::Flight(failure)
    }
}

type TestFlight = SingleFlight<u32, usize, TestError>;

fn run(
    flight: &TestFlight,
    key: u32,
    work: impl FnOnce(&RequestContext) -> Result<usize, TestError> + Send + 'static,
) -> Result<usize, TestError> {
    flight.run(key, "test", &RequestContext::unlimited(), work)
}

/// Waits until `count` requests wait for the execution of `key`.
fn wait_for_waiters(executions: &Executions<u32, usize, TestError, ()>, key: u32, count: usize) {
    while executions.lock().get(&key).map_or(0, |execution| *execution.waiting.lock()) < count {
        thread::yield_now();
    }
}

#[test]
fn concurrent_requests_share_one_execution_and_its_error() {
    for outcome in [Ok(7), Err(TestError::Work(3))] {
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
    assert_eq!(run(&flight, 1, |_| Err(TestError::Work(1))), Err(TestError::Work(1)));
    assert_eq!(run(&flight, 1, |_| Ok(2)), Ok(2));
}

#[test]
fn a_panic_is_an_error_and_the_next_request_starts_anew() {
    let flight = TestFlight::new();
    assert_eq!(run(&flight, 1, |_| panic!("planned")), Err(TestError::Flight(SingleFlightError::Abandoned)));
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
        assert_eq!(late, Err(TestError::Flight(SingleFlightError::Stopped(Stopped::Deadline))));
        release.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Ok(1));
    });
}

#[test]
fn work_without_waiters_is_cancelled_and_not_joined() {
    let flight = TestFlight::new();
    let (tx, rx) = mpsc::channel();
    let wait_for_the_end = move |context: &RequestContext| {
        let monitor = Monitor::new(());
        let outcome: Result<(), Stopped> = monitor.wait_until(context, |()| None);
        tx.send(outcome).unwrap();
        Ok(1)
    };
    let token = CancelToken::new();
    thread::scope(|scope| {
        let context = RequestContext::new(None, token.clone());
        let flight = &flight;
        let request = scope.spawn(move || flight.run(1, "test", &context, wait_for_the_end));
        wait_for_waiters(&flight.executions, 1, 1);
        token.cancel();
        assert_eq!(request.join().unwrap(), Err(TestError::Flight(SingleFlightError::Stopped(Stopped::Cancelled))));
    });
    assert_eq!(rx.recv().unwrap(), Err(Stopped::Cancelled));
    assert_eq!(run(&flight, 1, |_| Ok(2)), Ok(2));
}

#[test]
fn a_request_that_may_not_block_starts_nothing() {
    let flight = TestFlight::new();
    let refused = flight.run(1, "test", &RequestContext::cached_only(), |_| Ok(0));
    assert_eq!(refused, Err(TestError::Flight(SingleFlightError::Stopped(Stopped::WouldBlock))));
    assert!(flight.is_empty());
}

#[test]
fn work_that_needs_its_own_result_is_an_error_not_a_hang() {
    let flight = Arc::new(TestFlight::new());
    let inner = Arc::clone(&flight);
    let nested = run(&flight, 1, move |_| run(&inner, 1, |_| Ok(0)));
    assert_eq!(nested, Err(TestError::Flight(SingleFlightError::Reentrant)));
    let inner = Arc::clone(&flight);
    assert_eq!(run(&flight, 1, move |_| run(&inner, 2, |_| Ok(8))), Ok(8));
}

#[test]
fn keys_do_not_wait_for_each_other() {
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

#[test]
fn an_execution_whose_thread_cannot_be_started_is_reported_as_such() {
    let executions = Executions::<u32, usize, TestError, ()>::default();
    let execution = Arc::new(Execution::new(()));
    executions.lock().insert(1, Arc::clone(&execution));
    // As the standard library does with the closure of a thread that it cannot start.
    drop(RunningExecution { executions: Arc::clone(&executions), key: 1, execution: Arc::clone(&execution) });
    assert_eq!(*execution.outcome.lock(), Some(Err(TestError::Flight(SingleFlightError::NoThread))));
    assert!(executions.lock().is_empty());
}

#[test]
fn a_request_that_joins_drops_its_own_work_before_it_waits() {
    struct Dropped(mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let flight = TestFlight::new();
    let (release, gate) = mpsc::channel::<()>();
    let (tx, rx) = mpsc::channel();
    thread::scope(|scope| {
        let first = scope.spawn(|| run(&flight, 1, move |_| gate.recv().map(|()| 1).map_err(|_| TestError::Work(0))));
        wait_for_waiters(&flight.executions, 1, 1);
        let dropped = Dropped(tx);
        let second = scope.spawn(|| {
            run(&flight, 1, move |_| {
                let _dropped = dropped;
                Ok(2)
            })
        });
        assert!(rx.recv_timeout(Duration::from_secs(5)).is_ok());
        release.send(()).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(1), Ok(1)));
    });
}

#[test]
fn a_joined_execution_runs_until_the_last_interest_is_dropped() {
    let flight: SingleFlight<u32, usize, TestError, &str> = SingleFlight::new();
    let context = RequestContext::unlimited();
    let (ended, end) = mpsc::channel();
    let work = move |context: &RequestContext, _: &&str| {
        while context.check().is_ok() {
            thread::yield_now();
        }
        ended.send(()).unwrap();
        Ok(1)
    };
    let first = flight.begin(1, "test", &context, "first", work).unwrap();
    let second = flight.begin(1, "test", &context, "second", |_, _| Ok(2)).unwrap();
    assert_eq!((*first.shared(), *second.shared()), ("first", "first"));
    assert_eq!(first.wait_until(Instant::now() + Duration::from_millis(5), &context), Ok(None));
    let soon = RequestContext::with_timeout(Duration::from_millis(5));
    let stopped = TestError::Flight(SingleFlightError::Stopped(Stopped::Deadline));
    assert_eq!(first.wait_until(Instant::now() + Duration::from_secs(60), &soon), Err(stopped));
    let third = second.clone();
    drop(first);
    drop(second);
    assert_eq!((end.try_recv(), flight.len()), (Err(mpsc::TryRecvError::Empty), 1));
    drop(third);
    assert_eq!((end.recv_timeout(Duration::from_secs(20)), flight.len()), (Ok(()), 0));
    assert_eq!(flight.begin(1, "test", &context, "next", |_, _| Ok(3)).unwrap().wait(&context), Ok(3));
}
