//! The parts of a stream that were decoded without a break.

/// Upper bound of the stored runs: more than the blocks of an xz file that are seek points.
const MAX_RUNS: usize = 1 << 18;

/// Ranges that one decoder after the other has decoded, each from a position where decoding can start. The checks of a
/// part that begins and ends within one, with at least a byte to follow, were verified: its decoder went over its end.
#[derive(Debug, Default)]
pub(super) struct DecodedRuns {
    /// Beginning and end, in order, without overlaps.
    runs: Vec<(u64, u64)>,
}

impl DecodedRuns {
    /// Records that a decoder that began at `from` has returned everything before `end`.
    pub(super) fn add(&mut self, from: u64, end: u64) {
        if self.runs.len() >= MAX_RUNS {
            // A run that was dropped is decoded again.
            self.runs.clear();
        }
        let next = self.runs.partition_point(|run| run.0 <= from);
        // Runs that only touch are not joined: the check at the end of the first may not have been verified.
        let continues = |run: &(u64, u64)| run.0 == from || run.1 > from;
        let at = next.checked_sub(1).filter(|&at| self.runs.get(at).is_some_and(continues));
        let at = at.unwrap_or_else(|| {
            self.runs.insert(next, (from, end));
            next
        });
        let Some(run) = self.runs.get_mut(at) else { return };
        run.1 = run.1.max(end);
        let mut reach = run.1;
        let mut next = at + 1;
        while let Some(run) = self.runs.get(next).filter(|run| run.0 < reach) {
            reach = reach.max(run.1);
            next += 1;
        }
        self.runs.drain(at + 1..next);
        if let Some(run) = self.runs.get_mut(at) {
            run.1 = reach;
        }
    }

    /// Returns true if the part from `start` to before `end` was decoded, and its end passed.
    pub(super) fn contains(&self, start: u64, end: u64) -> bool {
        let last = self.runs.partition_point(|run| run.0 <= start).checked_sub(1);
        last.and_then(|at| self.runs.get(at)).is_some_and(|run| run.1 > end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_once_a_decoder_went_over_its_end() {
        let mut runs = DecodedRuns::default();
        assert!(!runs.contains(0, 10));
        runs.add(0, 10);
        assert!(!runs.contains(0, 10), "its last byte came, its check did not");
        runs.add(10, 25);
        assert!(!runs.contains(0, 10) && runs.contains(10, 20) && !runs.contains(10, 25));
        runs.add(0, 11);
        assert!(runs.contains(0, 10) && runs.contains(0, 24) && runs.contains(10, 20));
        runs.add(50, 60);
        runs.add(40, 45);
        runs.add(30, 35);
        assert!(!runs.contains(30, 40) && !runs.contains(26, 28));
        runs.add(30, 55);
        assert!(runs.contains(30, 59) && !runs.contains(20, 40));
        assert_eq!(runs.runs, [(0, 25), (30, 60)]);
        (0..MAX_RUNS as u64 + 5).for_each(|at| runs.add(100 + at * 2, 101 + at * 2));
        assert!(runs.runs.len() <= MAX_RUNS);
    }
}
