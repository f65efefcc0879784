//! The user's own gpg, which gives the session key of an object by its agent, smartcard and pinentry.
//!
//! gpg receives only the first bytes of the object, writes nothing into the user's keyring, and has a deadline. The
//! passphrase goes through its standard input, and the session key is returned through its standard output.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sequoia_openpgp::KeyID;
use zeroize::Zeroizing;

use super::gpg_output::GpgOutput;
use super::session_key::SessionKey;
use dupfs_base::Secret;

/// The gpg to ask, and the time that it may take.
#[derive(Clone, Debug)]
pub struct GpgOptions {
    /// The program: a path, or a name that is searched in PATH.
    pub binary: PathBuf,
    /// The home directory of gpg; `None`: GNUPGHOME or ~/.gnupg.
    pub home: Option<PathBuf>,
    /// Further options that decide where gpg finds keys, such as `--keyring` and a file.
    pub arguments: Vec<OsString>,
    /// The time that one question may take, the typing of the user included.
    pub deadline: Duration,
    /// Called with true before a question that a pinentry on the terminal may put to the user, and with false after it.
    pub on_question: Option<fn(bool)>,
}

impl Default for GpgOptions {
    fn default() -> Self {
        Self {
            binary: "gpg".into(),
            home: None,
            arguments: Vec::new(),
            deadline: Duration::from_secs(60),
            on_question: None,
        }
    }
}

/// The environment variables that gpg receives: those by which it finds its home, its agent and the terminal or screen of
/// the user. No secret of dupfs is among them, because an agent that gpg starts would keep it.
const ENVIRONMENT: [&str; 17] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "GNUPGHOME",
    "GPG_TTY",
    "GPG_AGENT_INFO",
    "TERM",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
    "DBUS_SESSION_BUS_ADDRESS",
    "PINENTRY_USER_DATA",
    "TMPDIR",
    "SSH_AUTH_SOCK",
];

/// The time for which a refusal also counts for other objects with the same recipients, so that a cancelled pinentry does
/// not appear for each of them.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(60);

/// Upper bound of the bytes that are read of each output of gpg.
const MAX_OUTPUT: u64 = 1 << 20;

/// The user's own gpg.
#[derive(Debug)]
pub(super) struct UserGpg {
    options: GpgOptions,
    version: OnceLock<Option<(u32, u32)>>,
    /// Refusals by recipients. Locked during a call, so that there is one pinentry at a time.
    refused: Mutex<HashMap<String, (Instant, GpgRefusal)>>,
}

/// The reason why gpg gave no session key.
#[derive(Clone, Debug)]
pub(super) enum GpgRefusal {
    /// gpg did not answer within this number of seconds.
    Timeout(u64),
    /// gpg could not start or reach its agent; its messages.
    Agent(Arc<str>),
    /// gpg has the key, and could not ask for its passphrase; its message.
    CannotAsk(Arc<str>),
    /// gpg has the key, and no passphrase that it was given opens it; its message.
    WrongPassphrase(Arc<str>),
    /// Another reason, in gpg's words.
    Reason(Arc<str>),
}

impl GpgRefusal {
    fn reason(text: impl AsRef<str>) -> Self {
        Self::Reason(text.as_ref().into())
    }

    fn of(output: &GpgOutput) -> Self {
        if let Some(messages) = output.agent_failure() {
            Self::Agent(messages.into())
        } else if output.prompt_failed() {
            Self::CannotAsk(output.reason().into())
        } else if output.wrong_passphrase() {
            Self::WrongPassphrase(output.reason().into())
        } else {
            Self::reason(output.reason())
        }
    }
}

impl UserGpg {
    pub(super) fn new(options: GpgOptions) -> Self {
        Self { options, version: OnceLock::new(), refused: Mutex::default() }
    }

    /// Requests the session key of the object that begins with `head` (OpenPGP without armour, 20 kB or all of it).
    ///
    /// # Errors
    /// The reason why gpg gives none.
    pub(super) fn session_key(
        &self,
        head: &[u8],
        recipients: &[Option<KeyID>],
        passphrases: &[Arc<Secret>],
    ) -> Result<SessionKey, GpgRefusal> {
        let mut question = passphrases.len().to_string();
        for id in recipients {
            let _ = write!(question, " {id:?}");
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = refused.get(&question).filter(|(at, _)| at.elapsed() < REFUSAL_LIFETIME).map(|(_, why)| why);
        if let Some(refusal) = recent {
            return Err(refusal.clone());
        }
        let answer = self.ask(head, passphrases);
        if let Err(refusal) = &answer {
            refused.insert(question, (Instant::now(), refusal.clone()));
        }
        answer
    }

    fn ask(&self, head: &[u8], passphrases: &[Arc<Secret>]) -> Result<SessionKey, GpgRefusal> {
        let version = self.check_usable()?;
        if passphrases.is_empty() {
            let output = self.run(head, None, version)?;
            return output.session_key().ok_or_else(|| GpgRefusal::of(&output));
        }
        let mut last = GpgRefusal::reason("gpg: no passphrase");
        for passphrase in passphrases.iter().filter(|p| !p.expose().contains(&b'\n')) {
            let output = self.run(head, Some(passphrase), version)?;
            if let Some(key) = output.session_key() {
                return Ok(key);
            }
            last = GpgRefusal::of(&output);
            // A wrong PIN counts: a card locks itself after three, and the passphrases may be meant for something else.
            if !output.wrong_passphrase() || output.needed_card() {
                break;
            }
        }
        Err(last)
    }

    /// Returns the version of gpg, if there is a gpg and a keyring that it would use without changing it.
    fn check_usable(&self) -> Result<(u32, u32), GpgRefusal> {
        let home = self.options.home.clone().or_else(|| std::env::var_os("GNUPGHOME").map(PathBuf::from));
        let home = home.or_else(|| std::env::home_dir().map(|dir| dir.join(".gnupg")));
        let holds = |name: &str| home.as_ref().is_some_and(|home| home.join(name).exists());
        let names_keyring = self.options.arguments.iter().any(|argument| argument == "--keyring") && holds("");
        if !names_keyring && !["pubring.kbx", "pubring.gpg", "public-keys.d", "gpg.conf"].into_iter().any(holds) {
            return Err(GpgRefusal::reason("gpg has no keyring here"));
        }
        let version = (*self.version.get_or_init(|| version_of(&self.options.binary)))
            .ok_or_else(|| GpgRefusal::reason(format!("there is no working {}", self.options.binary.display())))?;
        if version >= (2, 1) && holds("secring.gpg") && !holds(".gpg-v21-migrated") {
            return Err(GpgRefusal::reason(
                "gpg would first convert its old secret keyring, which dupfs must not change; run gpg -K once",
            ));
        }
        Ok(version)
    }

    fn command(&self, with_passphrase: bool, version: (u32, u32)) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.env_clear().envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("LC_ALL", "C");
        if let Some(tty) = terminal().filter(|_| std::env::var_os("GPG_TTY").is_none()) {
            command.env("GPG_TTY", tty);
        }
        if let Some(home) = &self.options.home {
            command.arg("--homedir").arg(home);
        }
        command.args(&self.options.arguments);
        command.args(["--batch", "--no-tty", "--yes", "--no-greeting", "--no-permission-warning"]);
        // Nothing may be written or fetched.
        command.args(["--no-random-seed-file", "--no-auto-check-trustdb", "--trust-model", "always", "--lock-never"]);
        command.args(["--no-auto-key-retrieve", "--no-auto-key-locate"]);
        if with_passphrase {
            if version >= (2, 1) {
                command.args(["--pinentry-mode", "loopback"]);
            }
            command.args(["--passphrase-fd", "0"]);
        }
        command.args(["--status-fd", "1", "--show-session-key", "--output", "/dev/null", "--decrypt"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, head: &[u8], passphrase: Option<&Secret>, version: (u32, u32)) -> Result<GpgOutput, GpgRefusal> {
        // With a passphrase there is no pinentry.
        let _question = self.options.on_question.filter(|_| passphrase.is_none()).map(QuestionNotice::begin);
        let mut child = self
            .command(passphrase.is_some(), version)
            .spawn()
            .map_err(|e| GpgRefusal::reason(format!("{}: {e}", self.options.binary.display())))?;
        let until = Instant::now() + self.options.deadline;
        // gpg reads the passphrase up to the end of its line and takes the rest for the message.
        let mut input = Zeroizing::new(Vec::new());
        if let Some(passphrase) = passphrase {
            input.reserve(passphrase.expose().len() + 1 + head.len());
            input.extend_from_slice(passphrase.expose());
            input.push(b'\n');
        }
        input.extend_from_slice(head);
        if let Some(mut stdin) = child.stdin.take() {
            // gpg may close its end early, and there may be no thread to write: its output then has the reason.
            let _ = thread::Builder::new().spawn(move || stdin.write_all(&input));
        }
        let status = child.stdout.take().map(read_in_background);
        let messages = child.stderr.take().map(read_in_background);
        let outputs = receive(status, until).zip(receive(messages, until));
        reap(child, until);
        match outputs {
            Some((status, messages)) => Ok(GpgOutput { status, messages }),
            None => Err(GpgRefusal::Timeout(self.options.deadline.as_secs())),
        }
    }
}

/// The time of a question.
struct QuestionNotice(fn(bool));

impl QuestionNotice {
    fn begin(notify: fn(bool)) -> Self {
        notify(true);
        Self(notify)
    }
}

impl Drop for QuestionNotice {
    fn drop(&mut self) {
        (self.0)(false);
    }
}

fn read_in_background(from: impl Read + Send + 'static) -> Receiver<Zeroizing<Vec<u8>>> {
    let (tx, rx) = channel();
    // Without a thread the receiver finds the channel closed.
    let _ = thread::Builder::new().spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let _ = from.take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _ = tx.send(bytes);
    });
    rx
}

fn receive(rx: Option<Receiver<Zeroizing<Vec<u8>>>>, until: Instant) -> Option<Zeroizing<Vec<u8>>> {
    rx?.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// Waits for the process, which has closed its outputs, and ends it if it still runs at the deadline.
fn reap(mut child: Child, until: Instant) {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// Returns the terminal of this process, for a pinentry that needs one.
fn terminal() -> Option<PathBuf> {
    [0, 2, 1]
        .into_iter()
        .filter_map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok())
        .find(|path| path.starts_with("/dev/pts") || path.to_string_lossy().starts_with("/dev/tty"))
}

/// Returns the major and minor version of a gpg, from a line such as `gpg (GnuPG) 2.2.40`.
fn version_of(binary: &Path) -> Option<(u32, u32)> {
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.lines().next()?.rsplit(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
