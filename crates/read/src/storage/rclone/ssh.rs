//! SFTP: the options of rclone that do what ssh would do for the same host, with its configuration and its known hosts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::MAX_CONNECTIONS;
use super::obscure::obscure;
use super::remote::RcloneRemote;
use crate::storage::{RemoteLocation, StorageError, StoreOptions};
use dupfs_base::{ErrorKind, Secret};

/// The first version of rclone that can run ssh.
const RUNS_SSH: (u32, u32) = (1, 64);
/// A version of rclone that limits its connections itself.
const LIMITS_CONNECTIONS: (u32, u32) = (1, 70);
/// Upper bound of the objects that are read at once then. rclone needs five and a half round trips for an object, one after the
/// other, and uses a connection of its own only for two of them.
const MAX_STREAMS: u32 = 16;
/// Upper bound of the keys that are tried: a server ends a connection after some failures.
const MAX_KEYS: usize = 4;
/// Types of host keys that rclone can parse. A line with another one would make it refuse the whole file.
const KEY_TYPES: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The configuration of ssh for one host.
#[derive(Debug, Default)]
struct SshConfiguration {
    /// By names in lower case, in their order.
    values: BTreeMap<String, Vec<String>>,
}

/// The remotes to try, in their order. Without a password, rclone from 1.64 runs ssh itself; an older one gets the options
/// that ssh has for the host.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if the host is behind another one, and rclone is too old.
pub(super) fn remotes(
    location: &RemoteLocation,
    version: (u32, u32),
    password: Option<Secret>,
    options: &StoreOptions,
) -> Result<Vec<RcloneRemote>, StorageError> {
    let url = location.display();
    let arguments = arguments(location, options);
    let configuration = SshConfiguration::read(&arguments);
    let known_hosts = configuration.known_hosts();
    let base = RcloneRemote {
        known_hosts: Some(known_hosts),
        ..RcloneRemote::configured("sftp", &url, &location.dir)
            .with("known_hosts_file", "/dev/stdin")
            .with("disable_hashcheck", "true")
            .with("shell_type", "none")
            .with("set_modtime", "false")
    };
    let base = if version >= LIMITS_CONNECTIONS {
        RcloneRemote { max_streams: MAX_STREAMS, ..base.with("connections", MAX_CONNECTIONS.to_string()) }
    } else {
        base
    };
    if version >= RUNS_SSH && password.is_none() && configuration.is_known() {
        let command: Vec<String> = [checked(options.timeout), arguments.clone()].concat();
        let diagnosis = [command.clone(), vec!["-s".to_owned(), "sftp".to_owned()]].concat();
        let joined: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        return Ok(vec![RcloneRemote { diagnosis: Some(diagnosis), ..base.with("ssh", joined.join(" ")) }]);
    }
    if configuration.is_behind_another() {
        let reason = "the host is reached by ProxyJump or ProxyCommand of ssh, which needs rclone 1.64 or newer (--rclone PATH) \
                      and a key instead of a password";
        return Err(StorageError::new(ErrorKind::Unsupported, &url, reason));
    }
    let host = configuration.first("hostname").unwrap_or(&location.host).trim_matches(['[', ']']).to_owned();
    let port = configuration.first("port").map(str::to_owned).or_else(|| location.port.map(|port| port.to_string()));
    let user = configuration.first("user").map(str::to_owned).or_else(|| location.user.clone());
    let user = user.or_else(|| std::env::var("USER").ok());
    let base = base.with("host", host).with_some("port", port).with_some("user", user);
    let keys = configuration.keys();
    if let Some(password) = password {
        let pass = obscure(&password)?;
        let plain = base.clone().with("pass", pass.expose());
        // The password may be that of a key.
        let mut remotes = vec![plain];
        for key in keys.iter().take(MAX_KEYS) {
            let with_key = base.clone().with("key_file", key.as_os_str().as_encoded_bytes());
            remotes.push(if is_protected(key) { with_key.with("key_file_pass", pass.expose()) } else { with_key });
        }
        return Ok(remotes);
    }
    let agent = std::env::var_os("SSH_AUTH_SOCK").is_some_and(|socket| Path::new(&socket).exists());
    let files = keys.iter().filter(|key| !is_protected(key)).take(MAX_KEYS);
    let files = files.map(|key| base.clone().with("key_file", key.as_os_str().as_encoded_bytes()));
    let remotes: Vec<RcloneRemote> =
        agent.then(|| base.clone().with("key_use_agent", "true")).into_iter().chain(files).collect();
    if remotes.is_empty() {
        let reason = "there is no way to log in: no agent (SSH_AUTH_SOCK), no key without a passphrase in ~/.ssh, and no \
                      password (BACKEND_PASSWORD or FTP_PASSWORD)";
        return Err(StorageError::new(ErrorKind::Denied, &url, reason));
    }
    Ok(remotes)
}

/// The beginning of a command of ssh that never asks and always checks the key of the host. The first value of an option
/// counts.
fn checked(timeout: Duration) -> Vec<String> {
    let connect = format!("-oConnectTimeout={}", (timeout.as_secs() / 2).clamp(1, 20));
    [
        "ssh",
        "-oBatchMode=yes",
        "-oStrictHostKeyChecking=yes",
        &connect,
        "-oServerAliveInterval=15",
        "-oServerAliveCountMax=2",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The arguments of ssh that name the host.
fn arguments(location: &RemoteLocation, options: &StoreOptions) -> Vec<String> {
    let mut out = options.ssh_options.clone();
    if let Some(port) = location.port {
        out.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &location.user {
        out.extend(["-l".to_owned(), user.clone()]);
    }
    out.push(location.host.trim_matches(['[', ']']).to_owned());
    out
}

/// A word in a list of rclone that is separated by spaces.
fn quoted(word: &str) -> String {
    if word.contains([' ', '"', ',']) { format!("\"{}\"", word.replace('"', "\"\"")) } else { word.to_owned() }
}

impl SshConfiguration {
    /// Asks ssh. Empty if there is no ssh, or if it does not know its options.
    fn read(arguments: &[String]) -> Self {
        let output = Command::new("ssh").arg("-G").args(arguments).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => Self::parse(&String::from_utf8_lossy(&output.stdout)),
            Ok(output) => {
                log::warn!("ssh -G: {}", dupfs_base::escape_bytes(output.stderr.trim_ascii()));
                Self::default()
            }
            Err(error) => {
                log::debug!("ssh cannot be asked for its configuration: {error}");
                Self::default()
            }
        }
    }

    fn parse(text: &str) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            values.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        Self { values }
    }

    fn is_known(&self) -> bool {
        !self.values.is_empty()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.first().map(|value| &**value).filter(|value| !value.is_empty())
    }

    /// Returns true if other hosts or programs are between.
    fn is_behind_another(&self) -> bool {
        ["proxyjump", "proxycommand"].iter().any(|name| self.first(name).is_some_and(|value| value != "none"))
    }

    /// The lines of all files of known hosts that rclone can parse.
    fn known_hosts(&self) -> Vec<u8> {
        let named = ["userknownhostsfile", "globalknownhostsfile"].iter().filter_map(|name| self.first(name));
        let mut files: Vec<String> = named.flat_map(str::split_whitespace).map(str::to_owned).collect();
        if files.is_empty() {
            files = ["~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"].map(str::to_owned).to_vec();
        }
        let texts = files.iter().filter_map(|file| fs::read(expanded(file)).ok());
        let mut out = Vec::new();
        for text in texts {
            for line in text.split(|&b| b == b'\n').filter(|line| is_known_host(line)) {
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
        out
    }

    /// The keys that exist: those of the configuration, or else the usual ones.
    fn keys(&self) -> Vec<PathBuf> {
        let usual = || ["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"].map(str::to_owned).to_vec();
        let named = self.values.get("identityfile").cloned().unwrap_or_else(usual);
        named.iter().map(|file| expanded(file)).filter(|file| file.is_file()).collect()
    }
}

/// A path with `~` replaced.
fn expanded(path: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match path.strip_prefix("~/").zip(home) {
        Some((rest, home)) => home.join(rest),
        None => PathBuf::from(path),
    }
}

/// Returns true for a line of known hosts that rclone can parse.
fn is_known_host(line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    let mut words = text.split_whitespace().peekable();
    if words.peek().is_none_or(|word| word.starts_with('#')) {
        return false;
    }
    if words.peek().is_some_and(|word| word.starts_with('@')) {
        words.next();
    }
    let (host, kind, key) = (words.next(), words.next(), words.next());
    let is_base64 = |key: &str| {
        key.len().is_multiple_of(4) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    host.is_some() && kind.is_some_and(|kind| KEY_TYPES.contains(&kind)) && key.is_some_and(is_base64)
}

/// Returns true if a secret key has a passphrase.
fn is_protected(key: &Path) -> bool {
    let Ok(text) = fs::read_to_string(key) else { return false };
    if text.contains("ENCRYPTED") {
        return true;
    }
    // OpenSSH's form begins with the name of the cipher after its magic: `none` at the 15th byte with its length in front.
    let body: String = text.lines().skip(1).take(1).collect();
    text.contains("BEGIN OPENSSH PRIVATE KEY") && !body.starts_with("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Location, parse_url};

    fn location(url: &str) -> RemoteLocation {
        match parse_url(url) {
            Ok(Location::Remote(remote)) => remote,
            other => panic!("{other:?}"),
        }
    }

    fn option<'a>(remote: &'a RcloneRemote, name: &str) -> Option<&'a str> {
        let (_, value) = remote.options.as_ref().unwrap().iter().find(|(known, _)| *known == name)?;
        Some(std::str::from_utf8(value.expose()).unwrap())
    }

    #[test]
    fn the_first_options_check_the_key_of_the_host_whatever_the_user_gives() {
        let options =
            StoreOptions { ssh_options: vec!["-oStrictHostKeyChecking=no".to_owned()], ..StoreOptions::default() };
        let found = remotes(&location("sftp://joe@host:2222//d"), (1, 75), None, &options).unwrap();
        let [remote] = &found[..] else { panic!("{found:?}") };
        let ssh = option(remote, "ssh").unwrap();
        let checks = ssh.find("-oStrictHostKeyChecking=yes").unwrap();
        assert!(checks < ssh.find("-oStrictHostKeyChecking=no").unwrap(), "{ssh}");
        assert!(ssh.ends_with("-p 2222 -l joe host"), "{ssh}");
        assert_eq!(
            (&*remote.fs, &*remote.dir, option(remote, "known_hosts_file")),
            ("dupfs:/", "d", Some("/dev/stdin"))
        );
    }

    #[test]
    fn a_password_is_obscured_and_makes_rclone_connect_itself() {
        let password = Some(Secret::new("geheim"));
        let found = remotes(&location("sftp://joe@host/d"), (1, 75), password, &StoreOptions::default()).unwrap();
        assert_eq!(
            (option(&found[0], "ssh"), option(&found[0], "user"), option(&found[0], "host")),
            (None, Some("joe"), Some("host"))
        );
        assert!(option(&found[0], "pass").is_some_and(|pass| pass.len() > 20 && pass != "geheim"));
        assert_eq!(option(&found[0], "known_hosts_file"), Some("/dev/stdin"));
    }

    #[test]
    fn more_objects_are_read_at_once_where_rclone_limits_its_connections() {
        let password = || Some(Secret::new("geheim"));
        for (version, connections, streams) in [((1, 60), None, 8), ((1, 70), Some("8"), 16)] {
            let found = remotes(&location("sftp://joe@host/d"), version, password(), &StoreOptions::default()).unwrap();
            assert_eq!((option(&found[0], "connections"), found[0].max_streams), (connections, streams));
        }
    }

    #[test]
    fn an_old_rclone_is_refused_for_a_host_behind_another() {
        let options = StoreOptions { ssh_options: vec!["-oProxyJump=gate".to_owned()], ..StoreOptions::default() };
        let error = remotes(&location("sftp://host/d"), (1, 60), None, &options).unwrap_err();
        assert!(error.to_string().contains("rclone 1.64"), "{error}");
    }

    #[test]
    fn lines_that_rclone_cannot_parse_are_left_out() {
        for line in ["h ssh-ed25519 AAAA", "|1|x=|y= ecdsa-sha2-nistp256 AAAA= comment", "@revoked h ssh-rsa AAAA"] {
            assert!(is_known_host(line.as_bytes()) || line.contains("AAAA="), "{line}");
        }
        for line in ["", "# comment", "h ssh-unknown AAAA", "h ssh-rsa", "h ssh-rsa AA!A", "h 1024 35 1234"] {
            assert!(!is_known_host(line.as_bytes()), "{line}");
        }
        assert!(!is_known_host(b"\xff ssh-rsa AAAA"));
    }

    #[test]
    fn protected_keys_are_recognized_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let is_protected_with = |kind: &str, body: &str| {
            let file = dir.path().join("key");
            fs::write(&file, format!("-----BEGIN {kind} PRIVATE KEY-----\n{body}\n")).unwrap();
            is_protected(&file)
        };
        // The names of the ciphers: none, and aes256-ctr.
        assert!(!is_protected_with("OPENSSH", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAA"));
        assert!(is_protected_with("OPENSSH", "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAG"));
        assert!(is_protected_with("RSA", "Proc-Type: 4,ENCRYPTED"));
        assert!(is_protected_with("ENCRYPTED", "MII"));
        assert!(!is_protected_with("RSA", "MII") && !is_protected(&dir.path().join("none")));
    }

    #[test]
    fn words_with_spaces_are_quoted() {
        assert_eq!((quoted("-p"), quoted("-oX=a \"b\"")), ("-p".to_owned(), "\"-oX=a \"\"b\"\"\"".to_owned()));
    }
}
