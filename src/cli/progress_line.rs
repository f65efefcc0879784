//! The line of progress on a terminal: what is done, the rate and the time that is left.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::logging;

/// Work that ends sooner shows no progress.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Upper bound of the updates in a second.
const MAX_HZ: u8 = 4;
const TEMPLATE: &str = "{msg}{binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

/// Shows progress on standard error, if that is a terminal. The line disappears when this is dropped.
#[derive(Debug)]
pub(super) struct ProgressLine {
    bar: ProgressBar,
    /// The place of the line, from the time on at which it is shown.
    hidden: Option<(Instant, ProgressDrawTarget)>,
    total: u64,
    done: u64,
}

impl ProgressLine {
    /// The progress towards `total` bytes, which begins now.
    pub(super) fn new(total: u64) -> Self {
        let target = match logging::is_quiet() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(MAX_HZ),
        };
        Self::on(target, total)
    }

    fn on(target: ProgressDrawTarget, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self { bar, hidden: Some((Instant::now(), target)), total, done: 0 }
    }

    /// Adds to the bytes that are done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        self.update();
    }

    /// States that `planned` bytes of the total, which were expected, became `actual` ones.
    pub(super) fn correct(&mut self, planned: u64, actual: u64) {
        self.total = self.total.saturating_sub(planned).saturating_add(actual);
        self.bar.set_length(self.total);
        self.update();
    }

    /// Sets the text before the numbers.
    pub(super) fn describe(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Removes the line for the output of `print`.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    fn update(&mut self) {
        if let Some((_, target)) = self.hidden.take_if(|(begun, _)| begun.elapsed() >= SHOWN_AFTER) {
            self.bar.set_draw_target(target);
        }
        self.bar.set_position(self.done.min(self.total));
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use dupfs_base::sync::lock;

    /// A terminal that records what is written to it.
    #[derive(Clone, Debug, Default)]
    struct RecordedTerminal(Arc<Mutex<String>>);

    impl RecordedTerminal {
        fn put(&self, text: &str) -> io::Result<()> {
            lock(&self.0).push_str(text);
            Ok(())
        }
    }

    impl TermLike for RecordedTerminal {
        fn width(&self) -> u16 {
            200
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.put(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.put(text)
        }
        fn clear_line(&self) -> io::Result<()> {
            self.put("<cleared>")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn progress_is_shown_after_a_second_and_cleared_at_the_end() {
        let terminal = RecordedTerminal::default();
        let text = || lock(&terminal.0).clone();
        let mut line = ProgressLine::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())), 100 << 20);
        line.describe("volume 1 of 4, ".to_owned());
        line.advance(25 << 20);
        assert_eq!(text(), "");
        line.hidden.as_mut().unwrap().0 = Instant::now().checked_sub(SHOWN_AFTER).unwrap();
        line.correct(50 << 20, 0);
        assert!(text().contains("volume 1 of 4, 25.00 MiB of 50.00 MiB, "), "{}", text());
        assert!(text().contains("/s, ") && text().trim_end().ends_with(" left"), "{}", text());
        line.suspend(|| lock(&terminal.0).push_str("<printed>"));
        assert!(text().contains("<cleared><printed>"), "{}", text());
        // More than was expected.
        line.advance(80 << 20);
        drop(line);
        assert!(text().ends_with("<cleared>"), "{}", text());
    }
}
