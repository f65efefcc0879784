//! The program rclone: found, its version, and the environment in which it runs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::http::USER;
use super::remote::{NAME, RcloneRemote};
use crate::storage::StorageError;
use crate::storage::secret_source::SecretSource;
use dupfs_base::{ErrorKind, Secret, io_reason};

/// The variable with the password of rclone's own configuration.
const CONFIG_PASSWORD: &str = "RCLONE_CONFIG_PASS";

/// A program that was found to be rclone.
#[derive(Clone, Debug)]
pub(super) struct RcloneProgram {
    path: PathBuf,
    /// Its version: major and minor.
    pub(super) version: (u32, u32),
}

impl RcloneProgram {
    /// Finds `given`, or `rclone` in the path, and asks for its version.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if it is not installed, [`ErrorKind::Invalid`] if `given` is not rclone.
    pub(super) fn find(given: Option<&Path>, url: &str) -> Result<Self, StorageError> {
        let path = given.unwrap_or(Path::new("rclone")).to_owned();
        let mut command = Command::new(&path);
        clean_environment(&mut command, false);
        let output = command.arg("version").env("RCLONE_CONFIG", "/dev/null").stdin(Stdio::null()).output();
        let output = output.map_err(|e| match (e.kind(), given) {
            (io::ErrorKind::NotFound, None) => {
                let reason = "is read with the program rclone, which is not installed: apt install rclone (or give --rclone PATH)";
                StorageError::new(ErrorKind::Unsupported, url, reason)
            }
            _ => unusable(&path, &format!("cannot be run: {}", io_reason(&e))),
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text).filter(|_| output.status.success());
        let version = version.ok_or_else(|| unusable(&path, "is not rclone: its command version prints none"))?;
        log::debug!("{}: {}", path.display(), text.lines().next().unwrap_or_default());
        Ok(Self { path, version })
    }

    /// A command that serves `remote` on a free port of the loopback interface to those who know `password`. It is killed
    /// when the thread that starts it ends.
    pub(super) fn serve(
        &self,
        remote: &RcloneRemote,
        password: &Secret,
        timeout: Duration,
        secrets: &SecretSource,
    ) -> Command {
        let mut command = Command::new("setpriv");
        clean_environment(&mut command, remote.options.is_none());
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.path);
        command.args(["rcd", "--rc-serve", "--rc-addr", "127.0.0.1:0"]);
        let seconds = format!("{}s", timeout.as_secs().max(1));
        let connect = format!("{}s", (timeout.as_secs() / 2).clamp(1, 20));
        command.env("RCLONE_RC_USER", USER).env("RCLONE_RC_PASS", OsStr::from_bytes(password.expose()));
        command.env("RCLONE_TIMEOUT", seconds).env("RCLONE_CONTIMEOUT", connect);
        // Requests are repeated by the store.
        command.env("RCLONE_LOW_LEVEL_RETRIES", "1").env("RCLONE_RETRIES", "1");
        // A listing would need a request for each object otherwise.
        command.env("RCLONE_USE_SERVER_MODTIME", "true");
        command.env("RCLONE_ASK_PASSWORD", "false").env("RCLONE_LOG_LEVEL", "NOTICE");
        // Times in answers are those of UTC.
        command.env("TZ", "UTC");
        match &remote.options {
            Some(options) => {
                command.env("RCLONE_CONFIG", "/dev/null");
                for (name, value) in options {
                    let variable = format!("RCLONE_CONFIG_{NAME}_{}", name.to_ascii_uppercase());
                    command.env(variable, OsStr::from_bytes(value.expose()));
                }
            }
            None => {
                if let Some(value) = secrets.get(CONFIG_PASSWORD) {
                    command.env(CONFIG_PASSWORD, OsStr::from_bytes(value.expose()));
                }
            }
        }
        command
    }
}

fn unusable(path: &Path, reason: &str) -> StorageError {
    let reason = format!("{reason}; give another one with --rclone PATH");
    StorageError::new(ErrorKind::Invalid, &path.display().to_string(), reason)
}

/// Parses `rclone v1.60.1-DEV`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.lines().next()?.strip_prefix("rclone v")?.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Removes the variables that would change what rclone does: its own options, for it could serve without a password or log
/// more; and all secrets that it does not need. With `is_configured` the user's options of remotes stay.
fn clean_environment(command: &mut Command, is_configured: bool) {
    let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_removed(name, is_configured)) {
        command.env_remove(name);
    }
}

/// Options of rclone that are removed for every remote, by the beginnings of their names: what it serves, and what it logs, which
/// may have secrets.
const REMOVED_OPTIONS: [&str; 4] = ["RCLONE_RC", "RCLONE_LOG", "RCLONE_VERBOSE", "RCLONE_DUMP"];

/// Returns true if rclone does not get the variable `name`.
fn is_removed(name: &str, is_configured: bool) -> bool {
    let is_option = name.starts_with("RCLONE_")
        && (!is_configured || REMOVED_OPTIONS.iter().any(|option| name.starts_with(option)));
    let is_secret = SecretSource::VARIABLES.contains(&name) || name == "SIGN_PASSPHRASE";
    // The account of AWS may be that of a remote of the user.
    is_option || (is_secret && !(is_configured && name.starts_with("AWS_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_first_line() {
        assert_eq!(parse_version("rclone v1.60.1-DEV\n- os/version: debian"), Some((1, 60)));
        assert_eq!(parse_version("rclone v1.75.2\n"), Some((1, 75)));
        assert_eq!((parse_version("rsync v3"), parse_version("rclone v1"), parse_version("")), (None, None, None));
    }

    #[test]
    fn a_missing_program_is_named_with_the_remedy() {
        let error = RcloneProgram::find(Some(Path::new("/no/such/rclone")), "sftp://h/d").unwrap_err();
        assert!(error.to_string().starts_with("/no/such/rclone: cannot be run: "), "{error}");
        let error = RcloneProgram::find(Some(Path::new("true")), "sftp://h/d").unwrap_err();
        assert_eq!((error.kind, error.to_string().contains("--rclone PATH")), (ErrorKind::Invalid, true), "{error}");
    }

    #[test]
    fn options_that_log_secrets_are_removed_also_for_remotes_of_the_user() {
        for name in ["RCLONE_VERBOSE", "RCLONE_DUMP", "RCLONE_DUMP_HEADERS", "RCLONE_LOG_FILE", "RCLONE_RC_NO_AUTH"] {
            assert!(is_removed(name, true) && is_removed(name, false), "{name}");
        }
        for name in ["RCLONE_CONFIG", "RCLONE_FTP_PASS", "AWS_SECRET_ACCESS_KEY"] {
            assert!(!is_removed(name, true) && is_removed(name, false), "{name}");
        }
        assert!(!is_removed("HOME", true) && !is_removed("HOME", false));
    }

    #[test]
    fn no_secret_is_in_the_arguments() {
        let program = RcloneProgram { path: "rclone".into(), version: (1, 60) };
        let remote = RcloneRemote::configured("ftp", "ftp://h", "d").with("pass", "geheim");
        let command = program.serve(&remote, &Secret::new("secret"), Duration::from_secs(30), &SecretSource::default());
        let arguments: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(arguments, ["--pdeathsig", "KILL", "--", "rclone", "rcd", "--rc-serve", "--rc-addr", "127.0.0.1:0"]);
        let variables: Vec<_> =
            command.get_envs().filter_map(|(name, value)| name.to_str().zip(value?.to_str())).collect();
        for expected in [
            ("RCLONE_RC_USER", "dupfs"),
            ("RCLONE_RC_PASS", "secret"),
            ("RCLONE_CONFIG", "/dev/null"),
            ("RCLONE_CONFIG_DUPFS_TYPE", "ftp"),
            ("RCLONE_CONFIG_DUPFS_PASS", "geheim"),
        ] {
            assert!(variables.contains(&expected), "{expected:?} {variables:?}");
        }
    }
}
