//! Checks of concurrent code under many schedules. Only with the feature `shuttle`.
//!
//! A check runs a test again and again. Each time another scheduler decides which thread runs at each lock, wait,
//! notification and atomic access, so that rare interleavings are as likely as common ones. A test fails by a panic, or if
//! its threads wait for each other forever.

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

pub use shuttle::thread;

/// Schedules of each kind for one check.
const ROUNDS: usize = 3000;
/// Bytes of stack of a thread: sealing a block needs more than the default.
const STACK: usize = 1 << 18;
/// Changes of priority within a schedule of the second kind: it finds failures that need that many unlucky switches.
const SWITCHES: usize = 3;

/// Runs `test` under random schedules of two kinds. The seed is printed; the environment variable `DUPFS_TEST_SEED` sets it to
/// repeat a failure. `DUPFS_TEST_ROUNDS` sets the number of schedules of each kind.
///
/// # Panics
/// If the test fails under one of the schedules.
pub fn check(test: impl Fn() + Send + Sync + 'static) {
    check_part(1, test);
}

/// As [`check`], with one `part`th of the schedules: for slow tests.
///
/// # Panics
/// If the test fails under one of the schedules.
pub fn check_part(part: usize, test: impl Fn() + Send + Sync + 'static) {
    let seed = number("DUPFS_TEST_SEED").unwrap_or_else(fresh_seed);
    let rounds = number("DUPFS_TEST_ROUNDS").and_then(|rounds| usize::try_from(rounds).ok()).unwrap_or(ROUNDS);
    let rounds = rounds.div_ceil(part);
    println!("{rounds} schedules of each kind, DUPFS_TEST_SEED={seed}");
    let mut config = Config::new();
    config.stack_size = STACK;
    let test = Arc::new(test);
    let uniform = Arc::clone(&test);
    Runner::new(RandomScheduler::new_from_seed(seed, rounds), config.clone()).run(move || uniform());
    Runner::new(PctScheduler::new_from_seed(seed, SWITCHES, rounds), config).run(move || test());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
