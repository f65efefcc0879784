//! The user's own gpg as a key oracle: agent, smartcard and pinentry give the session key of one object.
//!
//! gpg sees only the object's first bytes, writes nothing into the user's keyring, and is given up at a deadline. The
//! passphrase goes through its standard input; the session key comes back through its standard output.

use std::collections::HashMap;
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

use super::error::CodecError;
use super::esk::checked;
use super::secret::{Secret, Session};
use super::source::Ctx;
use dupfs_base::escape_bytes;

/// Which gpg to ask, and how long to wait.
#[derive(Clone, Debug)]
pub struct GpgOptions {
    /// The program: a path, or a name looked up in PATH.
    pub binary: PathBuf,
    /// gpg's home directory; `None`: GNUPGHOME or ~/.gnupg.
    pub home: Option<PathBuf>,
    /// How long one question may take, the user's typing included.
    pub deadline: Duration,
}

impl Default for GpgOptions {
    fn default() -> Self {
        Self { binary: "gpg".into(), home: None, deadline: Duration::from_secs(60) }
    }
}

/// What gpg keeps of the environment: what it needs to find its home, its agent and the user's terminal or screen, but no
/// secret of ours, which an agent that it starts would keep for ever.
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

/// How long a refusal is remembered for other objects with the same recipients, so that a cancelled pinentry does not
/// come back for each of them.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// Most that is read of what gpg prints.
const MAX_OUTPUT: u64 = 1 << 20;

/// The oracle.
#[derive(Debug)]
pub(super) struct Gpg {
    options: GpgOptions,
    version: OnceLock<Option<(u32, u32)>>,
    /// Refusals by recipients. Held during a call, so that there is one pinentry at a time.
    refused: Mutex<HashMap<String, (Instant, Refusal)>>,
}

#[derive(Clone, Debug)]
enum Refusal {
    Timeout,
    Reason(Arc<str>),
}

impl Refusal {
    fn reason(text: impl AsRef<str>) -> Self {
        Self::Reason(text.as_ref().into())
    }
}

/// What one run of gpg gave.
struct Outcome {
    status: Zeroizing<Vec<u8>>,
    messages: Zeroizing<Vec<u8>>,
}

impl Gpg {
    pub(super) fn new(options: GpgOptions) -> Self {
        Self { options, version: OnceLock::new(), refused: Mutex::default() }
    }

    /// Asks for the session key of the object that begins with `head` (OpenPGP without armour, 20 kB or all of it).
    ///
    /// # Errors
    /// [`CodecError::NoKey`] with gpg's reason, [`CodecError::GpgTimeout`].
    pub(super) fn session(
        &self,
        ctx: &Ctx,
        head: &[u8],
        recipients: &[Option<KeyID>],
        passphrases: &[Arc<Secret>],
    ) -> Result<Session, CodecError> {
        let mut to = passphrases.len().to_string();
        for id in recipients {
            let _ = write!(to, " {id:?}");
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = refused.get(&to).filter(|(at, _)| at.elapsed() < REFUSED_FOR).map(|(_, why)| why.clone());
        let why = match recent {
            Some(why) => why,
            None => match self.ask(head, passphrases) {
                Ok(session) => return Ok(session),
                Err(why) => {
                    refused.insert(to, (Instant::now(), why.clone()));
                    why
                }
            },
        };
        let object = ctx.object.clone();
        Err(match why {
            Refusal::Timeout => CodecError::GpgTimeout { object, seconds: self.options.deadline.as_secs() },
            Refusal::Reason(reason) => CodecError::NoKey { object, reason },
        })
    }

    fn ask(&self, head: &[u8], passphrases: &[Arc<Secret>]) -> Result<Session, Refusal> {
        let version = self.usable()?;
        if passphrases.is_empty() {
            return self.run(head, None, version)?.session();
        }
        let mut last = Refusal::reason("gpg: no passphrase");
        for passphrase in passphrases.iter().filter(|p| !p.expose().contains(&b'\n')) {
            let outcome = self.run(head, Some(passphrase), version)?;
            match outcome.session() {
                Ok(session) => return Ok(session),
                Err(why) => last = why,
            }
            // A wrong PIN counts: a card locks itself after three, and the passphrases may be meant for something else.
            if !outcome.wrong_passphrase() || outcome.asked_card() {
                break;
            }
        }
        Err(last)
    }

    /// gpg's version, if there is a gpg and a keyring that it would use without changing it.
    fn usable(&self) -> Result<(u32, u32), Refusal> {
        let home = self.options.home.clone().or_else(|| std::env::var_os("GNUPGHOME").map(PathBuf::from));
        let home = home.or_else(|| std::env::home_dir().map(|dir| dir.join(".gnupg")));
        let holds = |name: &str| home.as_ref().is_some_and(|home| home.join(name).exists());
        if !["pubring.kbx", "pubring.gpg", "public-keys.d", "gpg.conf"].into_iter().any(holds) {
            return Err(Refusal::reason("gpg has no keyring here"));
        }
        let version = (*self.version.get_or_init(|| version(&self.options.binary)))
            .ok_or_else(|| Refusal::reason(format!("there is no working {}", self.options.binary.display())))?;
        if version >= (2, 1) && holds("secring.gpg") && !holds(".gpg-v21-migrated") {
            return Err(Refusal::reason(
                "gpg would convert its old secret keyring first, which is not for dupfs to cause; run gpg -K once",
            ));
        }
        Ok(version)
    }

    fn command(&self, passphrase: bool, version: (u32, u32)) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.env_clear().envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("LC_ALL", "C");
        if let Some(tty) = terminal().filter(|_| std::env::var_os("GPG_TTY").is_none()) {
            command.env("GPG_TTY", tty);
        }
        if let Some(home) = &self.options.home {
            command.arg("--homedir").arg(home);
        }
        command.args(["--batch", "--no-tty", "--yes", "--no-greeting", "--no-permission-warning"]);
        // Nothing may be written, nor anything fetched.
        command.args(["--no-random-seed-file", "--no-auto-check-trustdb", "--trust-model", "always", "--lock-never"]);
        command.args(["--no-auto-key-retrieve", "--no-auto-key-locate"]);
        if passphrase {
            if version >= (2, 1) {
                command.args(["--pinentry-mode", "loopback"]);
            }
            command.args(["--passphrase-fd", "0"]);
        }
        command.args(["--status-fd", "1", "--show-session-key", "--output", "/dev/null", "--decrypt"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, head: &[u8], passphrase: Option<&Secret>, version: (u32, u32)) -> Result<Outcome, Refusal> {
        let mut child = self
            .command(passphrase.is_some(), version)
            .spawn()
            .map_err(|e| Refusal::reason(format!("{}: {e}", self.options.binary.display())))?;
        let until = Instant::now() + self.options.deadline;
        // gpg reads the passphrase up to the end of its line and takes what follows for the message.
        let mut input = Zeroizing::new(Vec::new());
        if let Some(passphrase) = passphrase {
            input.reserve(passphrase.expose().len() + 1 + head.len());
            input.extend_from_slice(passphrase.expose());
            input.push(b'\n');
        }
        input.extend_from_slice(head);
        if let Some(mut stdin) = child.stdin.take() {
            // It may close its end early: what it says then is what counts, and so it is where there is no thread to write.
            let _ = thread::Builder::new().spawn(move || stdin.write_all(&input));
        }
        let status = child.stdout.take().map(read_in_background);
        let messages = child.stderr.take().map(read_in_background);
        let outcome = receive(status, until).zip(receive(messages, until));
        reap(child, until);
        match outcome {
            Some((status, messages)) => Ok(Outcome { status, messages }),
            None => Err(Refusal::Timeout),
        }
    }
}

fn read_in_background(from: impl Read + Send + 'static) -> Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = channel();
    // Without a thread the receiver learns that nothing will come.
    let _ = thread::Builder::new().spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let _ = from.take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

fn receive(from: Option<Receiver<Zeroizing<Vec<u8>>>>, until: Instant) -> Option<Zeroizing<Vec<u8>>> {
    from?.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// Waits for the process that closed its outputs, and ends it if it is still there at the deadline.
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

/// The terminal this process has, for a pinentry that needs one.
fn terminal() -> Option<PathBuf> {
    [0, 2, 1]
        .into_iter()
        .filter_map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok())
        .find(|path| path.starts_with("/dev/pts") || path.to_string_lossy().starts_with("/dev/tty"))
}

/// Major and minor version, from `gpg (GnuPG) 2.2.40`.
fn version(binary: &Path) -> Option<(u32, u32)> {
    let output = Command::new(binary).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.lines().next()?.rsplit(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Outcome {
    /// The arguments of each status line with `keyword`.
    fn lines<'o>(&'o self, keyword: &'o [u8]) -> impl Iterator<Item = &'o [u8]> {
        self.status.split(|&b| b == b'\n').filter_map(move |line| {
            line.strip_prefix(b"[GNUPG:] ")?.strip_prefix(keyword)?.strip_prefix(b" ").map(<[u8]>::trim_ascii)
        })
    }

    /// The session key, or why gpg gave none.
    fn session(&self) -> Result<Session, Refusal> {
        self.lines(b"SESSION_KEY").find_map(parse_session).ok_or_else(|| Refusal::reason(self.reason()))
    }

    /// gpg's own words, from its messages. Only what follows "failed:" is passed on, never a line with a key in it.
    fn reason(&self) -> String {
        let failed = self.messages.split(|&b| b == b'\n').find_map(|line| {
            let at = line.windows(8).position(|window| window == b"failed: ")?;
            line.get(at + 8..)
        });
        format!("gpg: {}", failed.map_or_else(|| "no session key".into(), escape_bytes))
    }

    /// Error codes of libgpg-error that the attempt ended with: where it arose, and what it is.
    fn errors(&self) -> impl Iterator<Item = (u32, u32)> {
        self.lines(b"ERROR").filter_map(|line| {
            let code: u32 = std::str::from_utf8(line.strip_prefix(b"pkdecrypt_failed ")?).ok()?.parse().ok()?;
            Some((code >> 24, code & 0xffff))
        })
    }

    fn wrong_passphrase(&self) -> bool {
        const BAD_PASSPHRASE: u32 = 11;
        self.errors().any(|(_, code)| code == BAD_PASSPHRASE) || self.lines(b"BAD_PASSPHRASE").next().is_some()
    }

    fn asked_card(&self) -> bool {
        const FROM_CARD: u32 = 6;
        self.errors().any(|(source, _)| source == FROM_CARD) || self.lines(b"CARDCTRL").next().is_some()
    }
}

/// The session in `9:0011..`: the cipher's number and the key in hexadecimal; `9.2:0011..` for packet 20, with its mode.
fn parse_session(text: &[u8]) -> Option<Session> {
    let colon = text.iter().position(|&b| b == b':')?;
    let (algorithm, hex) = text.split_at_checked(colon)?;
    let cipher: u8 = std::str::from_utf8(algorithm.split(|&b| b == b'.').next()?).ok()?.parse().ok()?;
    let mut key = Zeroizing::new(Vec::with_capacity(32));
    for pair in hex.get(1..)?.chunks(2) {
        key.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
    }
    checked(cipher, &key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: &str, messages: &str) -> Outcome {
        Outcome { status: Zeroizing::new(status.into()), messages: Zeroizing::new(messages.into()) }
    }

    #[test]
    fn a_session_key_is_taken_from_the_status_lines_only() {
        let key = "00112233445566778899AABBCCDDEEFF";
        let good = outcome(&format!("[GNUPG:] BEGIN_DECRYPTION\n[GNUPG:] SESSION_KEY 7:{key}\n"), "");
        let session = good.session().unwrap();
        assert_eq!((session.cipher, session.key.len(), session.key[1]), (7, 16, 0x11));
        let ocb = outcome(&format!("[GNUPG:] SESSION_KEY 7.2:{key}\n"), "");
        assert_eq!(ocb.session().unwrap().cipher, 7);
        for bad in
            [format!("SESSION_KEY 7:{key}"), format!("[GNUPG:] SESSION_KEY 9:{key}"), "[GNUPG:] SESSION_KEY ".into()]
        {
            outcome(&bad, "").session().unwrap_err();
        }
    }

    #[test]
    fn the_reason_is_gpgs_and_never_shows_a_key() {
        let messages = "gpg: session key: '7:0011'\ngpg: public key decryption failed: Bad passphrase\n";
        let bad = outcome("[GNUPG:] ERROR pkdecrypt_failed 67108875\n", messages);
        assert_eq!(bad.reason(), "gpg: Bad passphrase");
        assert!(bad.wrong_passphrase() && !bad.asked_card());
        assert!(outcome("[GNUPG:] ERROR pkdecrypt_failed 100663383\n", "").asked_card());
    }
}
