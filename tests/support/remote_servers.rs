//! Servers on loopback with a directory of backups: a real sshd, and WebDAV and FTP by rclone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dupfs_base::Secret;
use dupfs_read::storage::{Location, SecretSource, StoreOptions, parse_url};

use super::exec::run;
use super::s3;

pub const PASSWORD: &str = "geheim {$}";

/// A server of FTP, with the form of TLS, the port, the password, the directory and that of the certificate as its arguments.
const FTP_SERVER: &str = r#"
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer
form, port, password, root, keys = sys.argv[1:]
class ImplicitHandler(TLS_FTPHandler):
    def handle(self):
        self.secure_connection(self.ssl_context)
    def handle_ssl_established(self):
        TLS_FTPHandler.handle(self)
handler = {'plain': FTPHandler, 'explicit': TLS_FTPHandler, 'implicit': ImplicitHandler}[form]
handler.authorizer = DummyAuthorizer()
handler.authorizer.add_user('joe', password, root, perm='elradfmwMT')
if form != 'plain':
    handler.certfile, handler.keyfile = keys + '/ca.pem', keys + '/key.pem'
    handler.tls_control_required = handler.tls_data_required = True
FTPServer(('127.0.0.1', int(port)), handler).serve_forever()
"#;

/// rclone of Debian.
pub fn debian_rclone() -> PathBuf {
    let program = PathBuf::from("/usr/bin/rclone");
    assert!(program.exists(), "Debian's rclone is missing: run scripts/test, which installs it");
    program
}

/// The protocol of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Ssh,
    Webdav,
    Ftp,
    /// WebDAV over TLS.
    WebdavTls,
    /// An FTP server that is not rclone's: pyftpdlib.
    RealFtp,
    /// The same, which encrypts a connection on request.
    RealFtpExplicitTls,
    /// The same, which encrypts every connection from the beginning.
    RealFtpImplicitTls,
}

/// A server, and the directory that it offers.
pub struct RemoteServer {
    protocol: Protocol,
    child: Option<Child>,
    dir: tempfile::TempDir,
    pub port: u16,
    uses_password: bool,
}

/// Starts a server with `command`, whose argument is a free port, and waits until it accepts connections.
fn start(command: impl Fn(u16) -> Command) -> (Child, u16) {
    for _ in 0..5 {
        // Another program may take the port in between.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if let Some(child) = start_at(&command, port) {
            return (child, port);
        }
    }
    panic!("the server does not start");
}

fn start_at(command: &impl Fn(u16) -> Command, port: u16) -> Option<Child> {
    let mut command = command(port);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

impl RemoteServer {
    /// A real sshd, as root. Logs in by the key `key`, and by [`PASSWORD`]. Relative paths are below the root of the server.
    pub fn ssh() -> Self {
        let dir = Self::directory();
        for name in ["host", "host_ecdsa", "key", "other_key"] {
            let kind = if name == "host_ecdsa" { "ecdsa" } else { "ed25519" };
            let file = dir.path().join(name);
            run(Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-C", name, "-f"]).arg(&file));
        }
        let shadow = fs::read_to_string("/etc/shadow").unwrap();
        let hash = run(Command::new("openssl").args(["passwd", "-6", PASSWORD]));
        let hash = String::from_utf8(hash).unwrap();
        let lines = shadow.lines().map(|line| match line.strip_prefix("root:") {
            Some(rest) => format!("root:{}:{}\n", hash.trim(), rest.split_once(':').unwrap().1),
            None => format!("{line}\n"),
        });
        let file = dir.path().join("shadow");
        fs::write(&file, lines.collect::<String>()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy(dir.path().join("key.pub"), dir.path().join("authorized")).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut server = Self { protocol: Protocol::Ssh, child: None, dir, port: 0, uses_password: false };
        server.restart();
        server.trust();
        server
    }

    /// WebDAV.
    pub fn webdav() -> Self {
        Self::with_login(Protocol::Webdav, Self::directory())
    }

    /// FTP.
    pub fn ftp() -> Self {
        Self::with_login(Protocol::Ftp, Self::directory())
    }

    /// WebDAV over TLS, and then pyftpdlib: without TLS, and with TLS in its two forms. `ca.pem` has the certificate.
    pub fn others() -> [Self; 4] {
        let forms =
            [Protocol::WebdavTls, Protocol::RealFtp, Protocol::RealFtpExplicitTls, Protocol::RealFtpImplicitTls];
        forms.map(|protocol| {
            let dir = Self::directory();
            let mut command = Command::new("openssl");
            command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
            command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(dir.path().join("key.pem"));
            run(command.arg("-out").arg(dir.path().join("ca.pem")).stderr(Stdio::null()));
            Self::with_login(protocol, dir)
        })
    }

    /// A server below `dir` into which joe logs in by [`PASSWORD`].
    fn with_login(protocol: Protocol, dir: tempfile::TempDir) -> Self {
        let mut server = Self { protocol, child: None, dir, port: 0, uses_password: true };
        server.restart();
        server
    }

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("dupfs-").tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        dir
    }

    /// The same with a login by password.
    pub fn with_password(mut self) -> Self {
        self.uses_password = true;
        self
    }

    /// The directory with the objects.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A file of the server: `key`, `other_key`, `known_hosts`, `ssh_config`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Stops the server. Its connections end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // sshd serves each connection by a process of its own.
        for pid in descendants(child.id()) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts the server again at the same port; the first time at any.
    pub fn restart(&mut self) {
        self.stop();
        let (protocol, dir) = (self.protocol, self.dir.path().to_owned());
        let command = move |port| server_command(protocol, &dir, port);
        if self.port == 0 {
            let (child, port) = start(command);
            (self.child, self.port) = (Some(child), port);
            return;
        }
        let begun = Instant::now();
        while self.child.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the server does not start again");
            self.child = start_at(&command, self.port);
        }
    }

    /// Stops or continues all processes of the server.
    pub fn signal(&self, signal: &str) {
        let own = self.child.as_ref().unwrap().id();
        for pid in descendants(own).into_iter().chain([own]) {
            let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// Writes the server's host keys into the file of known hosts.
    pub fn trust(&self) {
        let mut known = fs::File::create(self.file("known_hosts")).unwrap();
        for key in ["host.pub", "host_ecdsa.pub"] {
            let key = fs::read_to_string(self.file(key)).unwrap();
            writeln!(known, "[127.0.0.1]:{} {}", self.port, key.trim()).unwrap();
        }
        self.log_in_by("key");
    }

    /// Makes ssh log in by the key `name` only.
    pub fn log_in_by(&self, name: &str) {
        let config = format!(
            "Host *\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n IdentityFile {}\n IdentitiesOnly yes\n",
            self.file("known_hosts").display(),
            self.file(name).display()
        );
        fs::write(self.file("ssh_config"), config).unwrap();
    }

    /// The URL of a directory below the root of the server, without the password; `""` for all of it.
    pub fn url(&self, below: &str) -> String {
        let (port, below) = (self.port, below.trim_matches('/'));
        let root = self.root();
        match self.protocol {
            Protocol::Ssh => format!("sftp://root@127.0.0.1:{port}/{}/{below}", root.display()),
            Protocol::Webdav => format!("webdav://joe@127.0.0.1:{port}/{below}"),
            Protocol::WebdavTls => format!("webdavs://joe@127.0.0.1:{port}/{below}"),
            Protocol::Ftp | Protocol::RealFtp => format!("ftp://joe@127.0.0.1:{port}/{below}"),
            Protocol::RealFtpExplicitTls => format!("ftpes://joe@127.0.0.1:{port}/{below}"),
            Protocol::RealFtpImplicitTls => format!("ftps://joe@127.0.0.1:{port}/{below}"),
        }
    }

    pub fn location(&self) -> Location {
        parse_url(&self.url("")).unwrap()
    }

    /// Options that open it with the program `rclone`.
    pub fn options(&self, rclone: &Path) -> StoreOptions {
        let none = SecretSource::new(|_| None);
        StoreOptions {
            rclone: Some(rclone.to_owned()),
            ssh_options: self.ssh_options(),
            secrets: if self.uses_password { none.with("FTP_PASSWORD", Secret::new(PASSWORD)) } else { none },
            timeout: Duration::from_secs(10),
            ..StoreOptions::default()
        }
    }

    pub fn ssh_options(&self) -> Vec<String> {
        if self.protocol == Protocol::Ssh {
            vec!["-F".to_owned(), self.file("ssh_config").display().to_string()]
        } else {
            Vec::new()
        }
    }
}

fn server_command(protocol: Protocol, dir: &Path, port: u16) -> Command {
    let root = dir.join("root");
    match protocol {
        Protocol::Ssh => {
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nHostKey {0}/host_ecdsa\nPidFile none\nUsePAM no\n\
                 AuthorizedKeysFile {0}/authorized\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication yes\n\
                 MaxStartups 100\nSubsystem sftp internal-sftp -d {0}/root\n",
                dir.display()
            );
            fs::write(dir.join("sshd_config"), config).unwrap();
            let mut command = Command::new("unshare");
            let script = format!(
                "mount --bind {0}/shadow /etc/shadow || exit 1\n\
                 findmnt -rno TARGET,FSTYPE | while read -r point type; do\n\
                 case $type in fuse*) umount -l \"$point\" ;; esac\ndone\n\
                 exec /usr/sbin/sshd -D -e -f {0}/sshd_config 2>>{0}/sshd.log",
                dir.display()
            );
            // The copies of mounts in this namespace would keep the mounts of other tests alive.
            command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
            command
        }
        Protocol::RealFtp | Protocol::RealFtpExplicitTls | Protocol::RealFtpImplicitTls => {
            let form = match protocol {
                Protocol::RealFtpExplicitTls => "explicit",
                Protocol::RealFtpImplicitTls => "implicit",
                _ => "plain",
            };
            // That of Debian, which has the library.
            let mut command = Command::new("/usr/bin/python3");
            command.args(["-c", FTP_SERVER, form, &port.to_string(), PASSWORD]).arg(root).arg(dir);
            command
        }
        Protocol::Webdav | Protocol::WebdavTls | Protocol::Ftp => {
            let mut command = Command::new(s3::rclone());
            command.args(["serve", if protocol == Protocol::Ftp { "ftp" } else { "webdav" }]);
            if protocol == Protocol::WebdavTls {
                command.arg("--cert").arg(dir.join("ca.pem")).arg("--key").arg(dir.join("key.pem"));
            }
            command.args(["--addr", &format!("127.0.0.1:{port}"), "--user", "joe", "--pass", PASSWORD]);
            command.args(["--dir-cache-time", "0s"]).arg(root).env("RCLONE_CONFIG", "/dev/null");
            command
        }
    }
}

/// The processes below `pid`.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut out = Vec::new();
    let mut parents = vec![pid];
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    while let Some(parent) = parents.pop() {
        let below = all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
        below.for_each(|pid| {
            out.push(pid);
            parents.push(pid);
        });
    }
    out
}

/// The processes of rclone below `pid` that serve a store.
pub fn store_processes(pid: u32) -> Vec<u32> {
    let serves = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|&b| b == 0).any(|word| word == b"--rc-serve")
    };
    descendants(pid).into_iter().filter(serves).collect()
}

impl Drop for RemoteServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An agent of ssh that has one key.
pub struct SshAgent {
    child: Child,
    pub socket: PathBuf,
}

impl SshAgent {
    pub fn new(socket: &Path, key: &Path) -> Self {
        let mut child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        run(Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", socket));
        Self { child, socket: socket.to_owned() }
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
