//! Passphrases: from the environment, files, a command, and from the terminal when nothing else opens an object.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use dupfs_base::{ErrorKind, Secret, io_reason};

use super::environment_secrets;
use super::error::CliError;
use super::exit::CommandExit;
use super::options::KeyArgs;
use super::service_credentials;
use super::terminal_prompt::{self, PromptAnswer};

/// Upper bound of the bytes of one file or of the output of one command.
const MAX_BYTES: usize = 64 * 1024;

/// The byte order mark that some editors write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The passphrases to try, in order, and the user at the terminal as the last resort.
#[derive(Debug)]
pub struct Passphrases {
    given: Vec<Secret>,
    silent: AtomicBool,
    /// One question at a time.
    asking: Mutex<()>,
}

impl Passphrases {
    /// Gathers the passphrases that `keys` and the environment name: PASSPHRASE first, then the files, then the command.
    ///
    /// # Errors
    /// When a file cannot be read, or the command fails.
    pub fn gather(keys: &KeyArgs) -> Result<Self, CliError> {
        let mut given = Vec::new();
        // SIGN_PASSPHRASE opens signing keys, which a reader does not need.
        given.extend(environment_secrets::get("PASSPHRASE").and_then(|value| first_line(&value)));
        for path in &keys.passphrase_file {
            let bytes = read_file(path).map_err(|error| unreadable(path, &error))?;
            add_lines(&bytes, &mut given);
        }
        if let Some(command) = &keys.passphrase_command {
            let bytes = run(command)?;
            add_lines(&bytes, &mut given);
        }
        Ok(Self { given, silent: AtomicBool::new(false), asking: Mutex::new(()) })
    }

    /// Returns the passphrases that were given beforehand, in the order in which they are tried.
    pub fn given(&self) -> &[Secret] {
        &self.given
    }

    /// Prompts the user at the terminal with `prompt`. Returns `None` if there is no terminal or no answer, or once the mount
    /// is up.
    pub fn ask(&self, prompt: &str) -> Option<Secret> {
        let one_at_a_time = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.silent.load(Ordering::Acquire) {
            return None;
        }
        let answer = terminal_prompt::ask(prompt);
        drop(one_at_a_time);
        match answer {
            Ok(PromptAnswer::Line(line)) => Some(Secret::new(line.as_slice())).filter(|secret| !secret.is_empty()),
            // Nothing has begun that would have to end first: the prompt precedes the mount.
            Ok(PromptAnswer::Interrupted) => std::process::exit(CommandExit::Interrupted.code().into()),
            Err(_) => None,
        }
    }

    /// Makes every later question go unanswered.
    pub fn stop_asking(&self) {
        self.silent.store(true, Ordering::Release);
    }
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.mode() & 0o077 != 0 && !service_credentials::is_credential(path) {
        log::warn!("{}: other users may read this file of passphrases: chmod 600 it", path.display());
    }
    read_all(file)
}

/// Reads into one allocation, because a vector that grows leaves copies in memory.
fn read_all(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let read = from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if read > MAX_BYTES {
        return Err(io::Error::other("too long to be passphrases"));
    }
    Ok(bytes)
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |reason: String| CliError::failed(ErrorKind::KeyMissing, format!("--passphrase-command {reason}"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
    // The command may fetch the passphrase by the account of the store.
    let shell = environment_secrets::add_account(environment_secrets::remove_from(&mut shell));
    let mut child = shell.spawn().map_err(|error| failed(format!("cannot be run: {}", io_reason(&error))))?;
    let output = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?;
    let bytes = read_all(output).map_err(|error| failed(format!("cannot be read: {}", io_reason(&error))))?;
    let status = child.wait().map_err(|error| failed(format!("cannot be waited for: {}", io_reason(&error))))?;
    if !status.success() {
        return Err(failed(format!("failed ({status}); run the command in a shell to see why")));
    }
    if bytes.iter().all(|b| *b == b'\n') {
        return Err(failed("printed no passphrase; run the command in a shell to see what it prints".to_owned()));
    }
    Ok(bytes)
}

/// Returns the passphrase in the value of a variable: its first line, because gpg reads no more of what duplicity writes to
/// it.
fn first_line(value: &Secret) -> Option<Secret> {
    let line = value.expose().split(|&b| b == b'\n').next().unwrap_or_default();
    let whole = line.len() == value.expose().len();
    Some(if whole { value.clone() } else { Secret::new(line) }).filter(|secret| !secret.is_empty())
}

/// Adds one passphrase for each line that is not empty, without the line feed. A byte order mark at the start and a carriage
/// return at the end of a line are left out, and then the line is added with them too, because duplicity counts them.
fn add_lines(bytes: &[u8], into: &mut Vec<Secret>) {
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let text = if number == 0 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        into.push(Secret::new(text));
        if text.len() < line.len() {
            into.push(Secret::new(line));
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    let kind = match error.kind() {
        // Of the option, not of the backup.
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => ErrorKind::Invalid,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    let remedy = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => {
            "; give the path of a file with the passphrase, or leave the option out to be asked"
        }
        io::ErrorKind::PermissionDenied => "; run as a user who may read it",
        _ => "",
    };
    CliError::failed(kind, format!("passphrase file {}: {}{remedy}", path.display(), io_reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(passphrases: &Passphrases) -> Vec<&[u8]> {
        passphrases.given().iter().map(Secret::expose).collect()
    }

    #[test]
    fn files_and_command_give_one_passphrase_a_line() {
        let tmp = tempfile::tempdir().unwrap();
        let (one, two) = (tmp.path().join("one"), tmp.path().join("two"));
        std::fs::write(&one, b"first\nsecond \n\n").unwrap();
        std::fs::write(&two, b"\xff third").unwrap();
        let keys = KeyArgs {
            passphrase_file: vec![one, two],
            passphrase_command: Some("echo fourth; printf 'fifth'".to_owned()),
            ..KeyArgs::default()
        };
        let passphrases = Passphrases::gather(&keys).unwrap();
        assert_eq!(exposed(&passphrases), [&b"first"[..], b"second ", b"\xff third", b"fourth", b"fifth"]);
        assert!(!format!("{passphrases:?}").contains("first"));
    }

    #[test]
    fn the_passphrase_of_a_variable_ends_at_the_first_line_feed() {
        let passphrase = |value: &str| first_line(&Secret::new(value)).map(|secret| secret.expose().to_vec());
        assert_eq!(passphrase("first\nsecond\n"), Some(b"first".to_vec()));
        assert_eq!(passphrase("first\n"), Some(b"first".to_vec()));
        assert_eq!(passphrase(" with blanks \r"), Some(b" with blanks \r".to_vec()));
        assert_eq!(passphrase(""), None);
        assert_eq!(passphrase("\nsecond"), None);
    }

    #[test]
    fn byte_order_marks_and_carriage_returns_are_left_out_first() {
        let mut given = Vec::new();
        add_lines(b"\xef\xbb\xbffirst\r\nsecond\r\n\r\n\xef\xbb\xbfthird\n", &mut given);
        let exposed: Vec<_> = given.iter().map(Secret::expose).collect();
        assert_eq!(exposed, [&b"first"[..], b"\xef\xbb\xbffirst\r", b"second", b"second\r", b"\xef\xbb\xbfthird"]);
    }

    #[test]
    fn missing_files_and_failing_commands_are_errors_with_their_exit_codes() {
        let missing = KeyArgs { passphrase_file: vec!["/no/such/file".into()], ..KeyArgs::default() };
        assert_eq!(Passphrases::gather(&missing).unwrap_err().code(), 2);
        for command in ["exit 3", "true", "echo"] {
            let failing = KeyArgs { passphrase_command: Some(command.to_owned()), ..KeyArgs::default() };
            let error = Passphrases::gather(&failing).unwrap_err();
            assert!(
                error.code() == 5 && error.to_string().contains("; run the command in a shell"),
                "{command}: {error}"
            );
        }
        let endless = KeyArgs { passphrase_file: vec!["/dev/zero".into()], ..KeyArgs::default() };
        assert_eq!(Passphrases::gather(&endless).unwrap_err().code(), 1);
    }

    #[test]
    fn no_prompt_appears_once_the_mount_is_running() {
        let passphrases = Passphrases::gather(&KeyArgs::default()).unwrap();
        passphrases.stop_asking();
        assert_eq!(passphrases.ask("key 0x1234"), None);
    }
}
