//! The passphrases that were given or typed, and the prompt for more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dupfs_base::Secret;

/// Prompts the user for a passphrase with the given text. Returns `None` if there is no terminal or the user enters
/// nothing.
pub type PassphrasePrompt = Box<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// Upper bound of the questions for one key or object.
const MAX_QUESTIONS: usize = 3;

/// The known passphrases, in the order in which they are tried. Grows by the answers of the user and is never reordered,
/// because secret keys remember how many of them they have tried.
pub(super) struct PassphraseList {
    known: Mutex<Vec<Arc<Secret>>>,
    /// Number of the passphrase that last opened an object.
    last_good: AtomicUsize,
    prompt: Option<PassphrasePrompt>,
    /// True once the user gave up. Locked during a question, so that there is one at a time.
    gave_up: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are consistent after each single step, so a panic elsewhere does not invalidate them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PassphraseList {
    pub(super) fn new(given: Vec<Secret>, prompt: Option<PassphrasePrompt>) -> Self {
        Self {
            known: Mutex::new(given.into_iter().map(Arc::new).collect()),
            last_good: AtomicUsize::new(0),
            prompt,
            gave_up: Mutex::new(false),
        }
    }

    /// Returns all known passphrases.
    pub(super) fn all(&self) -> Vec<Arc<Secret>> {
        lock(&self.known).clone()
    }

    fn len(&self) -> usize {
        lock(&self.known).len()
    }

    /// Returns the first result of `open` on the passphrases from number `from` on. The passphrase that last succeeded is
    /// tried first.
    pub(super) fn find<T>(&self, from: usize, mut open: impl FnMut(&Secret) -> Option<T>) -> Option<T> {
        let known = self.all();
        let last = self.last_good.load(Ordering::Relaxed);
        let order = (last >= from).then_some(last).into_iter().chain((from..known.len()).filter(|&i| i != last));
        for index in order {
            let found = known.get(index).and_then(|passphrase| open(passphrase));
            if found.is_some() {
                self.last_good.store(index, Ordering::Relaxed);
                return found;
            }
        }
        None
    }

    /// Prompts the user until `open` succeeds with the answers, at most [`MAX_QUESTIONS`] times, and never again once the
    /// user gave up. `open` receives the number of the first passphrase that it has not tried.
    pub(super) fn ask<T>(&self, prompt: &str, open: impl Fn(usize) -> Option<T>) -> Option<T> {
        let ask = self.prompt.as_ref()?;
        let known = self.len();
        let mut gave_up = lock(&self.gave_up);
        // The question of another reader may have been answered while this one waited.
        let answered = self.len() > known;
        if let Some(found) = answered.then(|| open(known)).flatten() {
            return Some(found);
        }
        for number in 1..=MAX_QUESTIONS {
            if *gave_up {
                return None;
            }
            let again = format!("wrong passphrase, try again ({number} of {MAX_QUESTIONS})\n{prompt}");
            let Some(answer) = ask(if number == 1 { prompt } else { &again }) else {
                *gave_up = true;
                return None;
            };
            let from = {
                let mut known = lock(&self.known);
                known.push(Arc::new(answer));
                known.len() - 1
            };
            if let Some(found) = open(from) {
                return Some(found);
            }
        }
        *gave_up = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_also_serves_a_reader_that_waited_for_the_question() {
        let (asked_tx, asked_rx) = std::sync::mpsc::channel();
        let (answer_tx, answer_rx) = std::sync::mpsc::channel::<()>();
        let answer_rx = Mutex::new(answer_rx);
        let prompt: PassphrasePrompt = Box::new(move |_| {
            asked_tx.send(()).unwrap();
            lock(&answer_rx).recv().ok().map(|()| Secret::new("right"))
        });
        let list = Arc::new(PassphraseList::new(Vec::new(), Some(prompt)));
        let (found_tx, found_rx) = std::sync::mpsc::channel();
        let ask = || {
            let (list, found_tx) = (Arc::clone(&list), found_tx.clone());
            std::thread::spawn(move || {
                let open = |from| list.find(from, |secret| (secret.expose() == b"right").then_some(()));
                found_tx.send(list.ask("Passphrase: ", open)).unwrap();
            });
        };
        ask();
        asked_rx.recv().unwrap();
        ask();
        // Time for the second reader to wait for the question of the first one.
        std::thread::sleep(Duration::from_millis(100));
        answer_tx.send(()).unwrap();
        for _ in 0..2 {
            assert_eq!(found_rx.recv_timeout(Duration::from_secs(30)), Ok(Some(())));
        }
        assert!(asked_rx.try_recv().is_err(), "the second reader asks nothing");
    }

    #[test]
    fn a_prompt_after_a_wrong_passphrase_reports_it() {
        let prompts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&prompts);
        let prompt: PassphrasePrompt = Box::new(move |text| {
            let mut seen = lock(&seen);
            seen.push(text.to_owned());
            Some(Secret::new(format!("answer {}", seen.len())))
        });
        let list = PassphraseList::new(vec![Secret::new("given")], Some(prompt));
        let open = |from| list.find(from, |secret| (secret.expose() == b"answer 2").then_some(from));
        assert_eq!(list.ask("Passphrase: ", open), Some(2));
        assert_eq!(*lock(&prompts), ["Passphrase: ", "wrong passphrase, try again (2 of 3)\nPassphrase: "]);
    }
}
