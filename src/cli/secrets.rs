//! Passphrases: from the environment, files, a command, and the terminal when nothing else opened an object.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use zeroize::{Zeroize, Zeroizing};

use dupfs_base::{ErrorKind, Secret};

use super::errors::CliError;
use super::options::KeyArgs;

/// What may hold a passphrase in the environment; children of dupfs do not get it.
const VARIABLES: [&str; 2] = ["PASSPHRASE", "SIGN_PASSPHRASE"];

/// More than this in one file or from one command are no passphrases.
const LIMIT: u64 = 64 * 1024;

/// The passphrases to try, in order, and the user at the terminal as the last resort.
#[derive(Debug)]
pub struct Passphrases {
    given: Vec<Secret>,
    silent: AtomicBool,
    /// One question at a time.
    asking: Mutex<()>,
}

impl Passphrases {
    /// Gathers what `keys` and the environment name: PASSPHRASE first, then the files, then the command's.
    ///
    /// # Errors
    /// When a file cannot be read, or the command fails.
    pub fn gather(keys: &KeyArgs) -> Result<Self, CliError> {
        let mut given = Vec::new();
        // SIGN_PASSPHRASE opens signing keys, which a reader does not need.
        if let Some(value) = std::env::var_os("PASSPHRASE").filter(|value| !value.is_empty()) {
            given.push(Secret::new(value.into_vec()));
        }
        for path in &keys.passphrase_file {
            let bytes = read_file(path).map_err(|error| unreadable(path, &error))?;
            lines(&bytes, &mut given);
        }
        if let Some(command) = &keys.passphrase_command {
            let bytes = run(command)?;
            lines(&bytes, &mut given);
        }
        Ok(Self { given, silent: AtomicBool::new(false), asking: Mutex::new(()) })
    }

    /// The passphrases given beforehand, to be tried in this order.
    pub fn given(&self) -> &[Secret] {
        &self.given
    }

    /// Asks the user at the terminal for the passphrase of `what`; `None` if there is no terminal, nobody answers, or the
    /// mount is up and nobody sits there any more.
    pub fn ask(&self, what: &str) -> Option<Secret> {
        let one_at_a_time = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.silent.load(Ordering::Acquire) {
            return None;
        }
        let typed = rpassword::prompt_password(format!("Passphrase for {what}: "));
        drop(one_at_a_time);
        typed.ok().map(Secret::from).filter(|secret| !secret.is_empty())
    }

    /// Asks nobody from here on.
    pub fn stop_asking(&self) {
        self.silent.store(true, Ordering::Release);
    }
}

/// Takes the variables that hold passphrases out of the environment that `command` will get.
pub fn without_secrets(command: &mut Command) -> &mut Command {
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        log::warn!("{}: others may read this file of passphrases: chmod 600 it", path.display());
    }
    read_all(file)
}

/// Reads without leaving pieces behind in memory, as a vector that grows would.
fn read_all(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let capacity = usize::try_from(LIMIT + 1).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let read = from.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if read >= capacity {
        return Err(io::Error::other("too long to be passphrases"));
    }
    Ok(bytes)
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |reason: String| CliError::failed(ErrorKind::KeyMissing, format!("--passphrase-command {reason}"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = without_secrets(&mut shell).spawn().map_err(|error| failed(format!("cannot be run: {error}")))?;
    let output = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?;
    let bytes = read_all(output).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let status = child.wait().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    if !status.success() {
        return Err(failed(format!("failed ({status})")));
    }
    if bytes.iter().all(|b| *b == b'\n') {
        return Err(failed("printed no passphrase".to_owned()));
    }
    Ok(bytes)
}

/// One passphrase a line, without the line's end; empty lines are none.
fn lines(bytes: &[u8], into: &mut Vec<Secret>) {
    for line in bytes.split(|&b| b == b'\n') {
        let mut line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        if line.is_empty() {
            line.zeroize();
        } else {
            into.push(Secret::new(line));
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Io,
    };
    CliError::failed(kind, format!("--passphrase-file {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> KeyArgs {
        KeyArgs {
            secret_key: Vec::new(),
            passphrase_file: Vec::new(),
            passphrase_command: None,
            sign_key: None,
            verify_key: None,
            allow_unauthenticated: false,
        }
    }

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
            ..keys()
        };
        let passphrases = Passphrases::gather(&keys).unwrap();
        assert_eq!(exposed(&passphrases), [&b"first"[..], b"second ", b"\xff third", b"fourth", b"fifth"]);
        assert!(!format!("{passphrases:?}").contains("first"));
    }

    #[test]
    fn what_cannot_be_had_is_an_error_with_its_exit_code() {
        let missing = KeyArgs { passphrase_file: vec!["/no/such/file".into()], ..keys() };
        assert_eq!(Passphrases::gather(&missing).unwrap_err().code(), 3);
        for command in ["exit 3", "true", "echo"] {
            let failing = KeyArgs { passphrase_command: Some(command.to_owned()), ..keys() };
            assert_eq!(Passphrases::gather(&failing).unwrap_err().code(), 5, "{command}");
        }
        let endless = KeyArgs { passphrase_file: vec!["/dev/zero".into()], ..keys() };
        assert_eq!(Passphrases::gather(&endless).unwrap_err().code(), 1);
    }

    #[test]
    fn nobody_is_asked_once_the_mount_is_up() {
        let passphrases = Passphrases::gather(&keys()).unwrap();
        passphrases.stop_asking();
        assert_eq!(passphrases.ask("key 0x1234"), None);
    }
}
