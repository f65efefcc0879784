//! The bytes that work in progress expects to fetch, for those who show its progress.

use std::sync::{Arc, Mutex};

use dupfs_base::sync::lock;

/// The progress of the fetches that are expected now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedProgress {
    /// Bytes fetched since the first of them was expected.
    pub fetched: u64,
    /// Bytes expected in all.
    pub expected: u64,
    /// Number of backup sets that were read, and of those to read.
    pub sets: (u64, u64),
}

/// The fetches that are expected now. Those of concurrent work add up, except during a phase.
#[derive(Debug, Default)]
pub(super) struct ExpectedFetches {
    state: Mutex<ExpectedState>,
}

#[derive(Debug, Default)]
struct ExpectedState {
    /// Number of [`ExpectedFetch`] that exist.
    active: u64,
    /// Bytes that had been fetched when the first of them began.
    before: u64,
    expected: u64,
    sets: (u64, u64),
    /// A phase is in progress.
    is_phase: bool,
}

/// The share of an [`ExpectedFetch`] in the bytes that are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchScope {
    /// Its bytes and sets count.
    Counted,
    /// It is a part of the phase, whose bytes count.
    InPhase,
    /// It is the phase.
    Phase,
}

/// Bytes that are expected to be fetched until this is dropped.
#[derive(Debug)]
pub struct ExpectedFetch {
    fetches: Arc<ExpectedFetches>,
    scope: FetchScope,
}

impl ExpectedFetches {
    /// Expects `bytes` for the reading of `sets` backup sets, after `before` bytes were fetched for all purposes.
    pub(super) fn expect(self: &Arc<Self>, bytes: u64, sets: usize, before: u64) -> ExpectedFetch {
        let mut state = lock(&self.state);
        let scope = if state.is_phase { FetchScope::InPhase } else { FetchScope::Counted };
        state.begin(before);
        if scope == FetchScope::Counted {
            state.expected = state.expected.saturating_add(bytes);
            state.sets.1 = state.sets.1.saturating_add(sets as u64);
        }
        drop(state);
        ExpectedFetch { fetches: Arc::clone(self), scope }
    }

    /// Expects `bytes` for all work until the result is dropped. What that work expects itself is a part of them.
    pub(super) fn expect_phase(self: &Arc<Self>, bytes: u64, before: u64) -> ExpectedFetch {
        let mut state = lock(&self.state);
        state.begin(before);
        (state.before, state.expected, state.sets, state.is_phase) = (before, bytes, (0, 0), true);
        drop(state);
        ExpectedFetch { fetches: Arc::clone(self), scope: FetchScope::Phase }
    }

    /// The progress, if `fetched` bytes have been fetched for all purposes; `None` if nothing is expected.
    pub(super) fn progress(&self, fetched: u64) -> Option<ExpectedProgress> {
        let state = lock(&self.state);
        let fetched = fetched.saturating_sub(state.before);
        (state.active > 0).then_some(ExpectedProgress { fetched, expected: state.expected, sets: state.sets })
    }
}

impl ExpectedState {
    fn begin(&mut self, before: u64) {
        if self.active == 0 {
            *self = Self { before, ..Self::default() };
        }
        self.active = self.active.saturating_add(1);
    }
}

impl ExpectedFetch {
    /// Counts a backup set that was read.
    pub fn advance(&self) {
        if self.scope == FetchScope::Counted {
            let mut state = lock(&self.fetches.state);
            state.sets.0 = state.sets.0.saturating_add(1);
        }
    }
}

impl Drop for ExpectedFetch {
    fn drop(&mut self) {
        let mut state = lock(&self.fetches.state);
        state.active = state.active.saturating_sub(1);
        state.is_phase &= self.scope != FetchScope::Phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(fetched: u64, expected: u64, sets: (u64, u64)) -> Option<ExpectedProgress> {
        Some(ExpectedProgress { fetched, expected, sets })
    }

    #[test]
    fn concurrent_fetches_add_up_until_all_have_ended() {
        let fetches = Arc::<ExpectedFetches>::default();
        assert_eq!(fetches.progress(70), None);
        let tree = fetches.expect(100, 2, 50);
        tree.advance();
        let volumes = fetches.expect(900, 0, 60);
        assert_eq!(fetches.progress(70), progress(20, 1000, (1, 2)));
        drop(tree);
        assert_eq!(fetches.progress(80), progress(30, 1000, (1, 2)));
        drop(volumes);
        assert_eq!(fetches.progress(90), None);
        let _next = fetches.expect(5, 1, 90);
        assert_eq!(fetches.progress(91), progress(1, 5, (0, 1)));
    }

    #[test]
    fn the_fetches_of_a_phase_are_a_part_of_it() {
        let fetches = Arc::<ExpectedFetches>::default();
        let phase = fetches.expect_phase(100, 10);
        let tree = fetches.expect(60, 3, 20);
        tree.advance();
        assert_eq!(fetches.progress(30), progress(20, 100, (0, 0)));
        drop(tree);
        assert_eq!(fetches.progress(40), progress(30, 100, (0, 0)));
        drop(phase);
        assert_eq!(fetches.progress(40), None);
    }
}
