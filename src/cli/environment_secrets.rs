//! The secrets that the user gives in the environment, out of the environment of the process that reads the backup.
//!
//! The environment of a process stays readable in `/proc/PID/environ` as long as it runs, whatever it does to its own copy.
//! A program that finds secrets there therefore starts itself again without them and hands them over in an anonymous file.
//! The new process reads that file once and empties it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zeroize::Zeroizing;

use dupfs_base::Secret;
use dupfs_read::storage::SecretSource;

/// The variables that are handed over.
const SECRET_VARIABLES: &[&str] = &SecretSource::VARIABLES;

/// Variables with secrets that duplicity uses and dupfs does not.
const DROPPED: [&str; 1] = ["SIGN_PASSPHRASE"];

/// The option that names the descriptor of the anonymous file, in front of all other arguments.
const FLAG: &str = "--secrets-fd";

/// The secrets that were handed over to this process.
static HANDED_OVER: OnceLock<Vec<(&'static str, Secret)>> = OnceLock::new();

/// Returns true if the environment of this process contains a secret.
pub(super) fn in_environment() -> bool {
    SECRET_VARIABLES.iter().chain(&DROPPED).any(|name| std::env::var_os(name).is_some())
}

/// Returns the secret `name`: handed over, or from the environment.
pub(super) fn get(name: &str) -> Option<Secret> {
    match HANDED_OVER.get() {
        Some(secrets) => secrets.iter().find(|(known, _)| *known == name).map(|(_, secret)| secret.clone()),
        None => std::env::var_os(name).map(|value| Secret::new(value.as_bytes())),
    }
}

/// Removes the secrets from the environment of `command`, which this process starts.
pub(super) fn remove_from(command: &mut Command) -> &mut Command {
    SECRET_VARIABLES.iter().chain(&DROPPED).fold(command, |command, name| command.env_remove(name))
}

/// Adds the secrets of the store to the environment of `command`, which may use the same account.
pub(super) fn add_account(command: &mut Command) -> &mut Command {
    SECRET_VARIABLES.iter().filter(|name| **name != "PASSPHRASE").fold(command, |command, name| match get(name) {
        Some(secret) => command.env(name, std::ffi::OsStr::from_bytes(secret.expose())),
        None => command,
    })
}

/// An anonymous file with the secrets, which a child process inherits.
#[derive(Debug)]
pub(super) struct SecretsFile(OwnedFd);

impl SecretsFile {
    /// Writes the secrets of the environment into a new file.
    ///
    /// # Errors
    /// When the kernel gives no such file.
    pub(super) fn from_environment() -> io::Result<Self> {
        // Not closed on exec.
        let mut file = File::from(memfd_create("dupfs-secrets", MemfdFlags::empty())?);
        for name in SECRET_VARIABLES {
            let Some(value) = get(name) else { continue };
            file.write_all(name.as_bytes())?;
            file.write_all(b"=")?;
            file.write_all(value.expose())?;
            file.write_all(b"\0")?;
        }
        file.rewind()?;
        Ok(Self(file.into()))
    }

    /// Returns the arguments that hand the file over.
    pub(super) fn argument(&self) -> std::ffi::OsString {
        format!("{FLAG}={}", self.0.as_raw_fd()).into()
    }
}

/// Takes over the secrets from the file with the descriptor `fd`, which is emptied and closed.
///
/// # Errors
/// When it cannot be read.
pub(super) fn take_over(fd: i32) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(format!("/proc/self/fd/{fd}"))?;
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    // Room for all of it: a vector that grows leaves copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len + 1));
    file.read_to_end(&mut bytes)?;
    ftruncate(&file, 0)?;
    nix::unistd::close(fd)?;
    let mut secrets = Vec::new();
    for entry in bytes.split(|&b| b == 0) {
        let Some(at) = entry.iter().position(|&b| b == b'=') else { continue };
        let (name, value) = (entry.get(..at).unwrap_or_default(), entry.get(at + 1..).unwrap_or_default());
        let known = SECRET_VARIABLES.iter().copied().find(|known| known.as_bytes() == name);
        secrets.extend(known.map(|name| (name, Secret::new(value))));
    }
    // Set once, at the start of the program.
    let _ = HANDED_OVER.set(secrets);
    Ok(())
}
