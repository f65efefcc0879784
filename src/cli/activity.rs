//! The present work of a command, in words, for the line of progress.

use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::progress_line;
use dupfs_base::sync::lock;

/// Interval in which the text is made at most once: some commands advance millions of times.
const INTERVAL: Duration = Duration::from_millis(100);

/// The text that a command sets while it works.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    shown: Arc<Mutex<ActivityText>>,
    /// `None` if no progress is shown.
    next: Option<Instant>,
}

#[derive(Debug, Default)]
struct ActivityText {
    text: Option<String>,
    /// The command shows a line of its own.
    has_line: bool,
}

impl Activity {
    /// An activity that is shown if progress is.
    pub(super) fn new() -> Self {
        Self { shown: Arc::default(), next: progress_line::is_wanted().then(Instant::now) }
    }

    /// Sets the text before a step that may take long, unless none is shown.
    pub(super) fn set_now<T: Display>(&self, text: impl FnOnce() -> T) {
        if self.next.is_some() {
            self.replace(text().to_string());
        }
    }

    /// Sets the text, unless it was set just before or none is shown.
    pub(super) fn set<T: Display>(&mut self, text: impl FnOnce() -> T) {
        // The clock is read only if the text is shown.
        let Some(next) = self.next else { return };
        let now = Instant::now();
        if now >= next {
            self.next = now.checked_add(INTERVAL);
            self.replace(text().to_string());
        }
    }

    /// Sets the text.
    pub(super) fn replace(&self, text: String) {
        lock(&self.shown).text = Some(text);
    }

    /// The text that was set last.
    pub(super) fn text(&self) -> Option<String> {
        lock(&self.shown).text.clone()
    }

    /// States that the command shows its own line from now on.
    pub(super) fn set_own_line(&self) {
        lock(&self.shown).has_line = true;
    }

    /// Returns true if the command shows its own line.
    pub(super) fn has_own_line(&self) -> bool {
        lock(&self.shown).has_line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_made_only_if_it_is_shown_and_not_too_often() {
        let mut hidden = Activity { shown: Arc::default(), next: None };
        hidden.set(|| -> String { panic!("it is not shown") });
        let mut shown = Activity { shown: Arc::default(), next: Some(Instant::now()) };
        let copy = shown.clone();
        shown.set(|| "first");
        assert_eq!(copy.text().as_deref(), Some("first"));
        shown.next = Instant::now().checked_add(Duration::from_secs(3600));
        shown.set(|| -> String { panic!("it was set just before") });
        assert_eq!(copy.text().as_deref(), Some("first"));
        shown.set_now(|| "second");
        assert_eq!(copy.text().as_deref(), Some("second"));
        hidden.set_now(|| -> String { panic!("it is not shown") });
    }
}
