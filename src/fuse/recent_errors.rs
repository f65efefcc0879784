//! The last failed requests, for the extended attribute `user.dupfs.errors`.

use std::collections::VecDeque;
use std::sync::Mutex;

use dupfs_base::sync::lock;

/// Upper bound of the bytes of all lines together: a value may have 64 KiB.
const MAX_BYTES: usize = 32 << 10;

/// Upper bound of the bytes of one line.
const MAX_LINE: usize = 2 << 10;

/// The last failed requests, one line each.
#[derive(Debug, Default)]
pub(super) struct RecentErrors {
    lines: Mutex<VecDeque<String>>,
}

impl RecentErrors {
    /// Adds a line, and removes the oldest ones where there are too many.
    pub(super) fn add(&self, mut line: String) {
        line.truncate(line.floor_char_boundary(MAX_LINE));
        let mut lines = lock(&self.lines);
        let mut bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        bytes += line.len() + 1;
        while bytes > MAX_BYTES
            && let Some(oldest) = lines.pop_front()
        {
            bytes -= oldest.len() + 1;
        }
        lines.push_back(line);
    }

    /// All lines, each with a line feed, the newest one last.
    pub(super) fn text(&self) -> String {
        lock(&self.lines).iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_last_and_the_oldest_are_dropped() {
        let errors = RecentErrors::default();
        assert_eq!(errors.text(), "");
        errors.add("first".to_owned());
        errors.add("second".to_owned());
        assert_eq!(errors.text(), "first\nsecond\n");
        for n in 0..1000 {
            errors.add(format!("{n} {}", "ü".repeat(n)));
        }
        let text = errors.text();
        assert!(text.len() <= MAX_BYTES && text.lines().next_back().unwrap().starts_with("999 "));
        assert!(text.lines().all(|line| line.len() <= MAX_LINE) && !text.contains("first"));
    }
}
