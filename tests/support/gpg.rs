//! gpg homes of a test, with or without keys. Their agents end with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::exec;

/// A GNUPGHOME. Its agent is ended when it is dropped.
pub struct Home {
    dir: PathBuf,
}

/// A key pair: duplicity encrypts to it, and dupfs is given the secret key.
pub struct Key {
    /// Fingerprint, for `--encrypt-key`.
    pub fingerprint: String,
    /// The exported secret key, armoured.
    pub secret: PathBuf,
    /// Its passphrase.
    pub passphrase: String,
}

impl Home {
    /// An empty home at `dir`.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
        // A fixed count: without one each agent first measures how fast the machine is.
        fs::write(dir.join("gpg-agent.conf"), "allow-loopback-pinentry\ns2k-count 65536\n").unwrap();
        Self { dir: dir.to_owned() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// gpg in this home, without prompts.
    pub fn gpg(&self, passphrase: &str) -> Command {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", &self.dir);
        command.args(["--batch", "--quiet", "--no-tty", "--yes", "--pinentry-mode", "loopback"]);
        command.args(["--trust-model", "always", "--passphrase", passphrase]);
        command
    }

    /// Makes a key pair, the primary key for signing and a subkey to encrypt to (`algo` as gpg names it: `rsa2048`, `future-default`).
    pub fn generate(&self, name: &str, algo: &str, passphrase: &str) -> Key {
        exec::run(self.gpg(passphrase).args(["--quick-gen-key", name, algo, "default", "never"]));
        if algo != "future-default" {
            let fingerprint = self.fingerprint(name);
            exec::run(self.gpg(passphrase).args(["--quick-add-key", &fingerprint, algo, "encrypt", "never"]));
        }
        let secret = self.dir.join(format!("{}.secret.asc", name.replace(' ', "-")));
        exec::run(self.gpg(passphrase).arg("--armor").arg("-o").arg(&secret).args(["--export-secret-keys", name]));
        Key { fingerprint: self.fingerprint(name), secret, passphrase: passphrase.to_owned() }
    }

    /// Imports an exported secret key.
    pub fn import(&self, secret: &Path, passphrase: &str) -> Key {
        exec::run(self.gpg(passphrase).arg("--import").arg(secret));
        Key { fingerprint: self.fingerprint(""), secret: secret.to_owned(), passphrase: passphrase.to_owned() }
    }

    fn fingerprint(&self, name: &str) -> String {
        let mut command = self.gpg("");
        command.args(["--with-colons", "--list-secret-keys"]);
        if !name.is_empty() {
            command.arg(name);
        }
        let listing = String::from_utf8(exec::run(&mut command)).unwrap();
        let line = listing.lines().find(|l| l.starts_with("fpr:")).expect("a secret key in the keyring");
        line.split(':').nth(9).unwrap().to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut kill = Command::new("gpgconf");
        kill.env("GNUPGHOME", &self.dir).args(["--kill", "gpg-agent"]);
        let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
