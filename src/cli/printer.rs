//! Where commands print: standard output and standard error, a terminal or not.

use std::fmt;
use std::io::Write;

use serde::Serialize;

use super::failure::{Exit, Failure};
use dupfs_base::escape_bytes;

/// The output of a command.
pub struct Printer<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    terminal: bool,
    exit: Exit,
}

impl fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer").field("terminal", &self.terminal).field("exit", &self.exit).finish_non_exhaustive()
    }
}

impl<'a> Printer<'a> {
    /// A printer on `out`, which is a terminal or not, and on `err` for failures that do not end the command.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, terminal: bool) -> Self {
        Self { out, err, terminal, exit: Exit::Done }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// [`Failure`] when the output does not take them.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|e| Failure::output(&e))
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Prints a name: escaped on a terminal, where its bytes could do harm, raw elsewhere.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn name(&mut self, name: &[u8]) -> Result<(), Failure> {
        if self.terminal { self.text(&escape_bytes(name)) } else { self.bytes(name) }
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn json(&mut self, value: &impl Serialize, pretty: bool) -> Result<(), Failure> {
        let written = match pretty {
            true => serde_json::to_writer_pretty(&mut *self.out, value),
            false => serde_json::to_writer(&mut *self.out, value),
        };
        written.map_err(|e| Failure::output(&e.into()))
    }

    /// Reports a failure that does not end the command; its code counts in [`Self::finish`].
    pub fn report(&mut self, failure: &Failure) {
        if let Some(line) = &failure.line {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(self.err, "dupfs: {line}");
        }
        self.exit = self.exit.max(failure.exit);
    }

    /// Flushes, and tells how the command ended: the greatest code of the failures reported.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn finish(&mut self) -> Result<Exit, Failure> {
        self.out.flush().map_err(|e| Failure::output(&e))?;
        Ok(self.exit)
    }
}
