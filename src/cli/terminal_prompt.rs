//! A prompt for a secret on the terminal, without echo. The terminal is restored afterwards in every case.
//!
//! The terminal sends no signals during the question. The keys that would send one arrive as characters, so that the modes
//! are restored before anything else happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, SpecialCodes, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::progress_line;

/// The terminal of this process.
const TERMINAL: &str = "/dev/tty";

/// Upper bound of the bytes of an answer; further input is ignored.
const MAX_ANSWER: usize = 4096;

/// The end of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PromptAnswer {
    /// The line that was typed, without its end.
    Line(Zeroizing<Vec<u8>>),
    /// The user wants to end the program (Ctrl-C).
    Interrupted,
}

/// Prompts the user with `prompt`.
///
/// # Errors
/// When there is no terminal.
pub(super) fn ask(prompt: &str) -> io::Result<PromptAnswer> {
    let terminal = OpenOptions::new().read(true).write(true).open(TERMINAL)?;
    let _pause = progress_line::pause();
    loop {
        let quiet = QuietTerminal::new(&terminal)?;
        (&terminal).write_all(prompt.as_bytes())?;
        let typed = TypedLine::read(&terminal, &quiet.before.special_codes)?;
        drop(quiet);
        (&terminal).write_all(b"\n")?;
        match typed.end {
            LineEnd::Complete => return Ok(PromptAnswer::Line(typed.bytes)),
            LineEnd::Interrupt => return Ok(PromptAnswer::Interrupted),
            // The process that waits for a daemon stops too, as the shell expects. Prompts again when they continue.
            LineEnd::Suspend => kill_current_process_group(Signal::TSTP)?,
        }
    }
}

/// A terminal without echo and signals; dropping it restores the modes.
struct QuietTerminal<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> QuietTerminal<'t> {
    fn new(terminal: &'t File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        // A read returns with each byte.
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Now, and without dropping earlier input.
        tcsetattr(terminal, OptionalActions::Now, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for QuietTerminal<'_> {
    fn drop(&mut self) {
        // Fails only if the terminal was closed.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Complete,
    Interrupt,
    Suspend,
}

/// A line as the user edits it.
struct TypedLine {
    bytes: Zeroizing<Vec<u8>>,
    end: LineEnd,
}

impl TypedLine {
    /// Reads up to the end of the line or of the input. `keys` are the keys for editing.
    fn read(mut terminal: impl Read, keys: &SpecialCodes) -> io::Result<Self> {
        // One allocation, because a vector that grows leaves copies in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        let mut byte = Zeroizing::new([0; 1]);
        let is = |typed: u8, key: SpecialCodeIndex| typed != 0 && typed == keys[key];
        let end = loop {
            match terminal.read(&mut *byte) {
                Ok(0) => break LineEnd::Complete,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let [typed] = *byte;
            if matches!(typed, b'\n' | b'\r') || is(typed, SpecialCodeIndex::VEOF) {
                break LineEnd::Complete;
            } else if is(typed, SpecialCodeIndex::VINTR) || is(typed, SpecialCodeIndex::VQUIT) {
                break LineEnd::Interrupt;
            } else if is(typed, SpecialCodeIndex::VSUSP) {
                break LineEnd::Suspend;
            } else if is(typed, SpecialCodeIndex::VERASE) || matches!(typed, 0x08 | 0x7f) {
                erase_character(&mut bytes);
            } else if is(typed, SpecialCodeIndex::VKILL) {
                bytes.clear();
            } else if bytes.len() < MAX_ANSWER {
                bytes.push(typed);
            }
        };
        Ok(Self { bytes, end })
    }
}

/// Removes the last character, of one or more bytes in UTF-8.
fn erase_character(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_character_is_erased_with_all_its_bytes() {
        let mut line = "aü€".as_bytes().to_vec();
        for left in ["aü", "a", "", ""] {
            erase_character(&mut line);
            assert_eq!(line, left.as_bytes());
        }
    }
}
