//! The line of progress on a terminal: what is done, the rate and the time that is left.
//!
//! All output of this process to the terminal goes through this module: the line is removed for other output
//! ([`suspended`]) and for the time of a question ([`pause`]). Of several lines the newest is shown.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use log::LevelFilter;

use dupfs_base::sync::lock;

/// Work that ends sooner shows no progress.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// A question of gpg has no pinentry on the terminal before: most have none, and take less than this time.
const HOLD_AFTER: Duration = Duration::from_millis(100);
/// Upper bound of the updates in a second.
const MAX_HZ: u8 = 4;
const OF_BYTES: &str = "{msg}{binary_bytes} of {binary_total_bytes}, {byte_rate}, {left}";
const COUNTED_OBJECTS: &str = "{msg}{human_pos} objects, {rate}";
const OF_TEXT: &str = "{wide_msg}";
const OF_OBJECTS: &str = "{msg}{human_pos} of {human_len} objects, {rate}, {left}";

/// The lines of this process.
static LINES: Mutex<LineStack> =
    Mutex::new(LineStack { last: 0, alive: Vec::new(), pauses: 0, held: None, shown: None });

/// The lines that exist, and the one on the terminal.
#[derive(Debug, Default)]
struct LineStack {
    /// The number of the newest line.
    last: u64,
    /// The numbers of the lines that exist, in ascending order.
    alive: Vec<u64>,
    /// The number of reasons to show none.
    pauses: usize,
    /// The time since which another program may use the terminal.
    held: Option<Instant>,
    shown: Option<(u64, ProgressBar)>,
}

impl LineStack {
    /// Removes the line from the terminal. It is shown again by its next update.
    fn hide(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }

    /// Calls `print` without the line, which its next update shows again.
    fn print_without<T>(&mut self, print: impl FnOnce() -> T) -> T {
        self.hide();
        print()
    }

    /// Calls `print` without the line, and shows it again.
    fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.shown {
            Some((_, bar)) => bar.suspend(print),
            None => print(),
        }
    }
}

/// Calls `print`, which writes to the terminal, without a line on it. The line is shown again afterwards.
pub(super) fn suspended<T>(print: impl FnOnce() -> T) -> T {
    // The panic may have begun while this thread had the lock.
    if std::thread::panicking() {
        return print();
    }
    lock(&LINES).suspend(print)
}

/// Leaves the terminal as it is while `is_asking`: gpg may put a question to the user on it. It asks one at a time.
pub(super) fn hold(is_asking: bool) {
    lock(&LINES).held = is_asking.then(Instant::now);
}

/// Removes the line, and shows none until the result is dropped.
pub(super) fn pause() -> LinePause {
    LinePause::begin(&LINES)
}

/// The time in which no line is shown.
#[derive(Debug)]
pub(super) struct LinePause {
    lines: &'static Mutex<LineStack>,
}

impl LinePause {
    fn begin(lines: &'static Mutex<LineStack>) -> Self {
        let mut stack = lock(lines);
        stack.pauses = stack.pauses.saturating_add(1);
        stack.hide();
        Self { lines }
    }
}

impl Drop for LinePause {
    fn drop(&mut self) {
        let mut stack = lock(self.lines);
        stack.pauses = stack.pauses.saturating_sub(1);
    }
}

/// Output to the terminal, for which the line is removed. What it waited for may be done, so the line is shown again only by its
/// next update.
pub(super) struct TerminalOutput<W>(pub(super) W);

impl<W: Write> Write for TerminalOutput<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        lock(&LINES).print_without(|| self.0.write(buf))
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        lock(&LINES).print_without(|| self.0.write_all(buf))
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        lock(&LINES).print_without(|| self.0.write_fmt(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns true if progress is shown at all: on a terminal, unless only errors are wanted.
pub(super) fn is_wanted() -> bool {
    // The log goes through this module, and not the reverse.
    log::max_level() >= LevelFilter::Warn && !ProgressDrawTarget::stderr().is_hidden()
}

/// Shows progress on standard error, if that is a terminal. The line disappears at [`ProgressLine::clear`] and at the
/// end.
pub(super) struct ProgressLine {
    lines: &'static Mutex<LineStack>,
    number: u64,
    /// The line is shown from a second after this time on.
    begun: Instant,
    bar: ProgressBar,
    /// Measures the rate, also while no line is shown.
    meter: ProgressBar,
    style: ProgressStyle,
    /// Makes the place of the line; `None` if it is not shown.
    target: Option<fn() -> ProgressDrawTarget>,
    message: String,
    total: u64,
    done: u64,
}

impl fmt::Debug for ProgressLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressLine").field("done", &self.done).field("total", &self.total).finish_non_exhaustive()
    }
}

impl ProgressLine {
    /// The progress towards `total` bytes, which begins now.
    pub(super) fn new(total: u64) -> Self {
        Self::of_bytes_since(Instant::now(), (0, total))
    }

    /// The progress from `done` to `total` bytes of work that began at `begun`.
    pub(super) fn of_bytes_since(begun: Instant, (done, total): (u64, u64)) -> Self {
        Self::on(&LINES, Self::terminal(), OF_BYTES, (begun, done, total))
    }

    /// The progress of work that began at `begun`, as text only.
    pub(super) fn of_text_since(begun: Instant) -> Self {
        Self::on(&LINES, Self::terminal(), OF_TEXT, (begun, 0, 0))
    }

    /// The progress towards `total` objects, or an unknown number of them, which begins now.
    pub(super) fn of_objects(total: Option<u64>) -> Self {
        let template = if total.is_some() { OF_OBJECTS } else { COUNTED_OBJECTS };
        Self::on(&LINES, Self::terminal(), template, (Instant::now(), 0, total.unwrap_or(u64::MAX)))
    }

    fn terminal() -> Option<fn() -> ProgressDrawTarget> {
        is_wanted().then_some(|| ProgressDrawTarget::stderr_with_hz(MAX_HZ))
    }

    fn on(
        lines: &'static Mutex<LineStack>,
        target: Option<fn() -> ProgressDrawTarget>,
        template: &str,
        (begun, done, total): (Instant, u64, u64),
    ) -> Self {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let meter = hidden_bar(ProgressStyle::default_bar(), total, done.min(total));
        let (of_bytes, of_objects, left) = (meter.clone(), meter.clone(), meter.clone());
        let style = style
            .with_key("byte_rate", move |_: &ProgressState, out: &mut dyn fmt::Write| write_byte_rate(&of_bytes, out))
            .with_key("rate", move |_: &ProgressState, out: &mut dyn fmt::Write| write_rate(&of_objects, out))
            .with_key("left", move |_: &ProgressState, out: &mut dyn fmt::Write| write_time_left(&left, out));
        let mut stack = lock(lines);
        stack.last = stack.last.saturating_add(1);
        let number = stack.last;
        stack.alive.push(number);
        drop(stack);
        let bar = hidden_bar(style.clone(), total, done.min(total));
        Self { lines, number, begun, bar, meter, style, target, message: String::new(), total, done }
    }

    /// Adds to what is done.
    pub(super) fn advance(&mut self, done: u64) {
        self.done = self.done.saturating_add(done);
        self.update();
    }

    /// Sets what is done, and the total.
    pub(super) fn set(&mut self, done: u64, total: u64) {
        (self.done, self.total) = (done, total);
        self.update();
    }

    /// Sets the text before the numbers, which the next update shows.
    pub(super) fn describe(&mut self, text: String) {
        self.message = text;
    }

    /// The amount that is done.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// The time from which on the progress counts.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Removes the line at the end.
    pub(super) fn clear(&self) {
        let mut stack = lock(self.lines);
        stack.alive.retain(|number| *number != self.number);
        if stack.shown.as_ref().is_some_and(|(number, _)| *number == self.number) {
            stack.hide();
        }
    }

    fn update(&mut self) {
        self.meter.set_length(self.total);
        self.meter.set_position(self.done.min(self.total));
        let Some(target) = self.target.filter(|_| self.begun.elapsed() >= SHOWN_AFTER) else { return };
        let mut stack = lock(self.lines);
        let is_held = stack.held.is_some_and(|since| since.elapsed() >= HOLD_AFTER);
        if is_held || stack.pauses > 0 || stack.alive.last() != Some(&self.number) {
            return;
        }
        let is_shown = stack.shown.as_ref().is_some_and(|(number, _)| *number == self.number);
        if !is_shown {
            stack.hide();
            // A line that was removed is over. The first time it is shown it has all numbers.
            self.bar = hidden_bar(self.style.clone(), self.total, self.done.min(self.total));
            self.bar.set_message(self.message.clone());
            self.bar.set_draw_target(target());
            stack.shown = Some((self.number, self.bar.clone()));
        }
        // Each of these draws.
        if self.bar.message() != self.message {
            self.bar.set_message(self.message.clone());
        }
        if self.bar.length() != Some(self.total) {
            self.bar.set_length(self.total);
        }
        self.bar.set_position(self.done.min(self.total));
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A bar that is not shown, whose rate is measured from `done` on.
fn hidden_bar(style: ProgressStyle, total: u64, done: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    bar.set_style(style);
    if done > 0 {
        bar.set_position(done);
        bar.reset_eta();
    }
    bar
}

fn write_byte_rate(meter: &ProgressBar, out: &mut dyn fmt::Write) {
    // A duration converts to whole numbers without a cast that could wrap.
    let whole = Duration::try_from_secs_f64(meter.per_sec()).unwrap_or_default().as_secs();
    // A failure shows no rate.
    let _ = write!(out, "{}/s", BinaryBytes(whole));
}

fn write_rate(meter: &ProgressBar, out: &mut dyn fmt::Write) {
    let _ = write!(out, "{:.0}/s", meter.per_sec());
}

/// Writes the time that is left. It is unknown before the first bytes.
fn write_time_left(meter: &ProgressBar, out: &mut dyn fmt::Write) {
    let _ = match meter.per_sec() > 0.0 {
        true => write!(out, "{:#} left", HumanDuration(meter.eta())),
        false => write!(out, "time left unknown"),
    };
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

    thread_local! {
        static TERMINAL: RecordedTerminal = RecordedTerminal::default();
    }

    fn text() -> String {
        TERMINAL.with(|terminal| lock(&terminal.0).clone())
    }

    fn print(text: &str) {
        TERMINAL.with(|terminal| lock(&terminal.0).push_str(text));
    }

    /// A line on the terminal of this thread, of work that began `SHOWN_AFTER` ago.
    fn shown_line(lines: &'static Mutex<LineStack>, total: u64) -> ProgressLine {
        let target = || TERMINAL.with(|terminal| ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let begun = Instant::now().checked_sub(SHOWN_AFTER).unwrap();
        ProgressLine::on(lines, Some(target), OF_BYTES, (begun, 0, total))
    }

    fn own_lines() -> &'static Mutex<LineStack> {
        Box::leak(Box::default())
    }

    #[test]
    fn progress_is_shown_after_a_second_and_cleared_at_the_end() {
        let lines = own_lines();
        let mut line = shown_line(lines, 100 << 20);
        let begun = line.begun;
        line.begun = Instant::now();
        line.describe("volume 1 of 4, ".to_owned());
        line.advance(25 << 20);
        assert_eq!(text(), "");
        line.begun = begun;
        line.set(25 << 20, 50 << 20);
        assert!(text().contains("volume 1 of 4, 25.00 MiB of 50.00 MiB, "), "{}", text());
        assert!(text().contains("/s, ") && text().trim_end().ends_with(" left"), "{}", text());
        lock(lines).suspend(|| print("<printed>"));
        assert!(text().contains("<cleared><printed>") && !text().ends_with("<printed>"), "{}", text());
        lock(lines).print_without(|| print("<shown>"));
        assert!(text().ends_with("<cleared><shown>"), "{}", text());
        // More than was expected.
        line.advance(80 << 20);
        assert!(text().contains("50.00 MiB of 50.00 MiB"), "{}", text());
        line.clear();
        assert!(text().ends_with("<cleared>"), "{}", text());
        line.advance(1);
        assert!(text().ends_with("<cleared>"), "{}", text());
    }

    #[test]
    fn no_line_is_shown_during_a_question() {
        let lines = own_lines();
        let mut line = shown_line(lines, 100);
        line.advance(10);
        assert!(text().contains("10 B of 100 B, "), "{}", text());
        let pause = LinePause::begin(lines);
        assert!(text().ends_with("<cleared>"), "{}", text());
        print("<question>");
        line.advance(10);
        assert!(text().ends_with("<question>"), "{}", text());
        drop(pause);
        lock(lines).held = Instant::now().checked_sub(HOLD_AFTER);
        line.advance(5);
        assert!(text().ends_with("<question>"), "{}", text());
        lock(lines).held = None;
        line.advance(5);
        assert!(text().contains("30 B of 100 B, "), "{}", text());
    }

    #[test]
    fn the_newest_line_is_shown() {
        let lines = own_lines();
        let (mut outer, mut inner) = (shown_line(lines, 100), shown_line(lines, 10));
        outer.advance(10);
        assert_eq!(text(), "");
        inner.advance(1);
        assert!(text().contains("1 B of 10 B, "), "{}", text());
        drop(inner);
        assert!(text().ends_with("<cleared>"), "{}", text());
        outer.advance(10);
        assert!(text().contains("20 B of 100 B, "), "{}", text());
    }
}
