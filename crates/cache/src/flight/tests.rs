use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Error {
    Work(usize),
    Flight(FlightFailure),
}

impl From<FlightFailure> for Error {
    fn from(failure: FlightFailure) -> Self {
        Self::Flight(failure)
    }
}

type TestFlight = Flight<u32, usize, Error>;

/// Waits until `others` threads hold the run of the one key under way besides the map and the runner's guard.
fn wait_for_waiters(flight: &TestFlight, others: usize) {
    loop {
        let count = lock(&flight.runs).values().next().map_or(0, Arc::strong_count);
        if count >= others + 2 {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn concurrent_callers_share_one_run_and_its_error() {
    for outcome in [Ok(7), Err(Error::Work(3))] {
        let flight = TestFlight::new();
        let runs = AtomicUsize::new(0);
        let start = Barrier::new(16);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        flight.run(1, || {
                            runs.fetch_add(1, Ordering::SeqCst);
                            wait_for_waiters(&flight, 15);
                            outcome.clone()
                        })
                    })
                })
                .collect();
            for thread in all {
                assert_eq!(thread.join().unwrap(), outcome);
            }
        });
        assert_eq!((runs.into_inner(), flight.len()), (1, 0));
    }
}

#[test]
fn errors_are_not_kept() {
    let flight = TestFlight::new();
    assert_eq!(flight.run(1, || Err(Error::Work(1))), Err(Error::Work(1)));
    assert_eq!(flight.run(1, || Ok(2)), Ok(2));
}

#[test]
fn a_panic_reaches_waiters_as_an_error_and_the_next_caller_runs_anew() {
    let flight = TestFlight::new();
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            flight.run(1, || {
                wait_for_waiters(&flight, 1);
                panic!("planned");
            })
        });
        while flight.is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(flight.run(1, || Ok(0)), Err(Error::Flight(FlightFailure::Abandoned)));
        assert!(runner.join().is_err());
    });
    assert_eq!(flight.run(1, || Ok(5)), Ok(5));
}

#[test]
fn a_waiter_gives_up_at_its_deadline_and_the_work_goes_on() {
    let flight = TestFlight::new();
    let release = Barrier::new(2);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            flight.run(1, || {
                release.wait();
                Ok(1)
            })
        });
        while flight.is_empty() {
            std::thread::yield_now();
        }
        let soon = Instant::now() + Duration::from_millis(20);
        let late = flight.run_until(1, Some(soon), || Ok(0));
        assert_eq!(late, Err(Error::Flight(FlightFailure::Deadline)));
        release.wait();
        assert_eq!(runner.join().unwrap(), Ok(1));
    });
}

#[test]
fn work_that_waits_for_itself_is_an_error_not_a_hang() {
    let flight = TestFlight::new();
    assert_eq!(flight.run(1, || flight.run(1, || Ok(0))), Err(Error::Flight(FlightFailure::Reentrant)));
    assert_eq!(flight.run(1, || flight.run(2, || Ok(8))), Ok(8));
}

#[test]
fn keys_do_not_wait_for_one_another() {
    let flight = TestFlight::new();
    let meet = Barrier::new(4);
    std::thread::scope(|scope| {
        for key in 0..4 {
            let (flight, meet) = (&flight, &meet);
            scope.spawn(move || {
                let result = flight.run(key, || {
                    meet.wait();
                    Ok(1)
                });
                assert_eq!(result, Ok(1));
            });
        }
    });
}
