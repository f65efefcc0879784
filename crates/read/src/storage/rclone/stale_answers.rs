//! Answers that a dead connection of rclone's was the reason of, and when to start rclone again because of them.

use std::sync::Mutex;

use dupfs_base::sync::lock;

/// Upper bound of the answers one after the other after which rclone is started again the first time: 1.75.2 uses dead connections
/// to an FTP server without end.
const FIRST_LIMIT: u32 = 5;
/// Upper bound of that number after many starts. It doubles with each start that does not help: then the service ends the
/// connections, and not rclone's memory of them.
const MAX_LIMIT: u32 = 1280;

/// Counts such answers of all requests to one rclone.
#[derive(Debug)]
pub(super) struct StaleAnswers {
    state: Mutex<StaleCount>,
}

#[derive(Debug)]
struct StaleCount {
    in_series: u32,
    limit: u32,
}

impl StaleAnswers {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(StaleCount { in_series: 0, limit: FIRST_LIMIT }) }
    }

    /// Records an answer with content, after which the series begins again.
    pub(super) fn clear(&self) {
        *lock(&self.state) = StaleCount { in_series: 0, limit: FIRST_LIMIT };
    }

    /// Records one more such answer. Returns true if rclone should be started again.
    pub(super) fn add(&self) -> bool {
        let mut state = lock(&self.state);
        state.in_series = state.in_series.saturating_add(1);
        let is_over = state.in_series > state.limit;
        if is_over {
            *state = StaleCount { in_series: 0, limit: state.limit.saturating_mul(2).min(MAX_LIMIT) };
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_that_does_not_help_makes_the_next_one_rarer() {
        let stale = StaleAnswers::new();
        let starts = |answers: u32| (1..=answers).filter(|_| stale.add()).count();
        assert_eq!((starts(5), starts(1)), (0, 1));
        assert_eq!((starts(10), starts(1)), (0, 1));
        // After 20, 40 ... 1280 answers, and then after each 1280.
        assert_eq!(starts(100_000), 83);
        stale.clear();
        assert_eq!((starts(5), starts(1)), (0, 1));
    }
}
