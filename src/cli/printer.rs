//! The output of commands: standard output and standard error.

use std::fmt;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::activity::Activity;
use super::error::CliError;
use super::exit::CommandExit;
use super::logging::one_line;
use super::progress_line::TerminalOutput;
use dupfs_base::escape_bytes;

/// Runs a command that prints to standard output.
///
/// # Errors
/// [`CliError`] of the command, or [`CliError::Reported`] with the exit code of the failures that it has reported.
pub(super) fn print(command: impl FnOnce(&mut Printer<'_>) -> Result<CommandExit, CliError>) -> Result<(), CliError> {
    print_with(None, command)
}

/// As [`print`], for a command that sets the text of `activity`.
///
/// # Errors
/// As [`print`].
pub(super) fn print_with(
    activity: Option<Activity>,
    command: impl FnOnce(&mut Printer<'_>) -> Result<CommandExit, CliError>,
) -> Result<(), CliError> {
    let stdout = std::io::stdout();
    let terminal = stdout.is_terminal();
    let locked = stdout.lock();
    let locked: Box<dyn Write> = if terminal { Box::new(TerminalOutput(locked)) } else { Box::new(locked) };
    let mut out = std::io::BufWriter::with_capacity(64 << 10, locked);
    let mut err = TerminalOutput(std::io::stderr());
    let result = command(&mut Printer { activity, ..Printer::new(&mut out, &mut err, terminal) });
    let flushed = out.flush();
    match result {
        Ok(CommandExit::Done) => flushed.map_err(|error| CliError::output(&error)),
        Ok(exit) => Err(CliError::Reported(exit.code())),
        Err(error) => Err(error),
    }
}

/// The output of a command.
pub struct Printer<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    terminal: bool,
    exit: CommandExit,
    /// The text for the line of progress; `None` if the command has none.
    activity: Option<Activity>,
}

impl fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer").field("terminal", &self.terminal).field("exit", &self.exit).finish_non_exhaustive()
    }
}

impl<'a> Printer<'a> {
    /// A printer on `out` and, for failures that do not end the command, on `err`. `terminal` is true if `out` is a terminal.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, terminal: bool) -> Self {
        Self { out, err, terminal, exit: CommandExit::Done, activity: None }
    }

    /// States what the command works on, for the line of progress. `text` is called only if that is shown.
    pub(super) fn working<T: Display>(&mut self, text: impl FnOnce() -> T) {
        if let Some(activity) = &mut self.activity {
            activity.set(text);
        }
    }

    /// Returns true if the output is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// As [`Self::working`], before a step that may take long.
    pub(super) fn waiting<T: Display>(&self, text: impl FnOnce() -> T) {
        if let Some(activity) = &self.activity {
            activity.set_now(text);
        }
    }

    /// States that the command shows its own line of progress from now on.
    pub(super) fn show_own_line(&self) {
        if let Some(activity) = &self.activity {
            activity.set_own_line();
        }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// [`CliError`] when the output cannot be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).map_err(|e| CliError::output(&e))
    }

    /// Prints text unchanged.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Prints a name: escaped on a terminal, where its bytes could do harm, raw elsewhere.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn name(&mut self, name: &[u8]) -> Result<(), CliError> {
        if self.terminal { self.text(&escape_bytes(name)) } else { self.bytes(name) }
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn json(&mut self, value: &impl Serialize, pretty: bool) -> Result<(), CliError> {
        let written = match pretty {
            true => serde_json::to_writer_pretty(&mut *self.out, value),
            false => serde_json::to_writer(&mut *self.out, value),
        };
        written.map_err(|e| CliError::output(&e.into()))
    }

    /// Reports a failure that does not end the command; its code counts in [`Self::finish`].
    pub fn report(&mut self, failure: &CliError) {
        // If standard error is closed nothing can be reported.
        let _ = writeln!(self.err, "dupfs: {}", one_line(&failure.to_string()));
        self.exit = self.exit.max(failure.exit());
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(|e| CliError::output(&e))
    }

    /// Flushes, and returns the greatest code of the failures reported.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn finish(&mut self) -> Result<CommandExit, CliError> {
        self.flush()?;
        Ok(self.exit)
    }
}
