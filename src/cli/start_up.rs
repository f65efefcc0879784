//! The deadline of opening a backup: one for all steps together. The time at a passphrase prompt does not count.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_read::codec::{KeyOptions, PassphrasePrompt};

use super::request_timeout::RequestTimeout;

/// The opening of one backup.
pub(super) struct StartUp {
    timeout: RequestTimeout,
    context: RequestContext,
    questions: Arc<QuestionLog>,
}

/// The questions to the user.
#[derive(Default)]
struct QuestionLog {
    state: Mutex<QuestionState>,
    idle: Condvar,
}

#[derive(Default)]
struct QuestionState {
    count: u64,
    pending: u64,
    /// No further question is asked.
    is_over: bool,
}

impl StartUp {
    /// Begins now. Observes the prompt of `keys`.
    pub(super) fn begin(timeout: RequestTimeout, keys: &mut KeyOptions) -> Self {
        let questions = Arc::new(QuestionLog::default());
        let log = Arc::clone(&questions);
        keys.ask = keys.ask.take().map(|ask| -> PassphrasePrompt {
            Box::new(move |prompt| {
                let _pending = PendingQuestion::begin(&log)?;
                ask(prompt)
            })
        });
        Self { timeout, context: timeout.start(), questions }
    }

    /// The limits of the next step.
    pub(super) fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Makes every later question go unanswered.
    pub(super) fn stop_asking(&self) {
        lock(&self.questions.state).is_over = true;
    }

    /// Runs a step that may ask for a passphrase. If the deadline passes because of the question, the step starts again once
    /// the question is answered, with the whole timeout.
    ///
    /// # Errors
    /// Those of the step.
    pub(super) fn run<T, E: HasKind>(&mut self, mut step: impl FnMut(&RequestContext) -> Result<T, E>) -> Result<T, E> {
        loop {
            let before = self.questions.count();
            match step(&self.context) {
                Err(error) if error.kind() == ErrorKind::Timeout && self.questions.wait_until_idle() != before => {
                    self.context = self.timeout.start();
                }
                result => return result,
            }
        }
    }
}

impl QuestionLog {
    fn count(&self) -> u64 {
        lock(&self.state).count
    }

    /// Waits until no question is pending. Returns the number of questions so far.
    fn wait_until_idle(&self) -> u64 {
        let state = lock(&self.state);
        self.idle.wait_while(state, |state| state.pending > 0).unwrap_or_else(PoisonError::into_inner).count
    }
}

/// A question that waits for its answer.
struct PendingQuestion<'a>(&'a QuestionLog);

impl<'a> PendingQuestion<'a> {
    fn begin(log: &'a QuestionLog) -> Option<Self> {
        let mut state = lock(&log.state);
        if state.is_over {
            return None;
        }
        state.count = state.count.saturating_add(1);
        state.pending = state.pending.saturating_add(1);
        Some(Self(log))
    }
}

impl Drop for PendingQuestion<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.pending = state.pending.saturating_sub(1);
        drop(state);
        self.0.idle.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use dupfs_base::Stopped;

    use super::*;

    fn keys_with_prompt(ask: impl Fn() + Send + Sync + 'static) -> KeyOptions {
        let ask = move |_: &str| {
            ask();
            None
        };
        KeyOptions { ask: Some(Box::new(ask)), ..KeyOptions::default() }
    }

    /// Waits for the deadline.
    fn time_out(context: &RequestContext) -> Stopped {
        loop {
            if let Err(stopped) = context.check() {
                return stopped;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn all_steps_share_one_deadline() {
        let mut keys = KeyOptions::default();
        let mut start = StartUp::begin(RequestTimeout(Duration::from_millis(50)), &mut keys);
        let mut runs = 0;
        for _ in 0..2 {
            let stopped = start.run(|context| -> Result<(), Stopped> {
                runs += 1;
                Err(time_out(context))
            });
            assert_eq!(stopped, Err(Stopped::Deadline));
        }
        assert_eq!(runs, 2);
        assert!(start.context().check().is_err());
    }

    #[test]
    fn a_deadline_that_passes_during_a_question_starts_again_after_the_answer() {
        let (answer, answered) = channel::<()>();
        let answered = Mutex::new(answered);
        let (asked_tx, asked_rx) = channel();
        let mut keys = keys_with_prompt(move || {
            asked_tx.send(()).unwrap();
            lock(&answered).recv().unwrap();
        });
        let mut start = StartUp::begin(RequestTimeout(Duration::from_millis(50)), &mut keys);
        let ask = Arc::new(keys.ask.take().unwrap());
        let mut questioners = Vec::new();
        let mut runs = 0;
        let result = start.run(|context| {
            runs += 1;
            if runs > 1 {
                return context.check().map(|()| runs);
            }
            let ask = Arc::clone(&ask);
            questioners.push(std::thread::spawn(move || ask("Passphrase: ")));
            asked_rx.recv().unwrap();
            let stopped = time_out(context);
            // The answer comes after the deadline.
            answer.send(()).unwrap();
            Err(stopped)
        });
        assert_eq!(result, Ok(2));
        questioners.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_none()));
    }
}
