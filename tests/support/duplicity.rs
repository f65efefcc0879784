//! Real duplicity in the four versions of the oracle tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::exec;
use super::gpg::{Home, Key};

/// The versions: Debian's, and three from PyPI that `scripts/test` puts into virtual environments.
pub const VERSIONS: [&str; 4] = ["0.8.22", "1.2.3", "2.2.4", "3.2.1"];

/// Returns the directory of the virtual environments that `scripts/test` installed.
pub fn environments() -> PathBuf {
    match std::env::var_os("DUPFS_TEST_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".dupfs-test"),
    }
}

/// Returns the program of one version. Fails if it is not installed, or another version is.
pub fn program(version: &str) -> PathBuf {
    let path = match version {
        "0.8.22" => PathBuf::from("/usr/bin/duplicity"),
        _ => environments().join(format!("duplicity-{version}/bin/duplicity")),
    };
    assert!(path.exists(), "{} is missing: run scripts/test, which installs it", path.display());
    let output = exec::run(Command::new(&path).arg("--version").env("LC_ALL", "C.UTF-8"));
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(output.contains(&format!("duplicity {version}")), "{} is {output:?}, not {version}", path.display());
    path
}

/// The form in which a backup is stored.
pub enum Mode {
    /// gpg, to a passphrase.
    Symmetric(String),
    /// gpg, to a key.
    Key(Key),
    /// gzip.
    Gzip,
    /// Neither encrypted nor compressed.
    Plain,
}

/// A repository, and the duplicity that writes and restores it.
pub struct Repository {
    program: PathBuf,
    dir: PathBuf,
    work: PathBuf,
    home: Home,
    mode: Mode,
    options: Vec<String>,
}

impl Repository {
    /// A repository in `work/repo`; `work` also contains duplicity's archive directory, gpg home and temporary files.
    pub fn new(version: &str, mode: impl FnOnce(&Home) -> Mode, work: &Path) -> Self {
        let home = Home::new(&work.join("gnupg"));
        let mode = mode(&home);
        let dir = work.join("repo");
        for dir in [&dir, &work.join("tmp")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        Self {
            program: program(version),
            dir,
            work: work.to_owned(),
            home,
            mode,
            options: vec!["--volsize=1".to_owned()],
        }
    }

    /// One more option for every backup.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Sets the form of later sets.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The directory of the repository.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The gpg home of duplicity.
    pub fn gpg_home(&self) -> &Home {
        &self.home
    }

    /// Its URL, for duplicity and dupfs alike.
    pub fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    /// Backs up `source` at `time`: a full set, or an increment on the existing sets.
    pub fn backup(&self, full: bool, source: &Path, time: i64) {
        exec::run(&mut self.backup_command(full, source, time));
    }

    /// The command for [`Self::backup`].
    pub fn backup_command(&self, full: bool, source: &Path, time: i64) -> Command {
        let mut command = self.command(if full { "full" } else { "incremental" });
        command.arg("--allow-source-mismatch").arg("--no-print-statistics").arg(format!("--current-time={time}"));
        command.args(&self.options).arg(source).arg(self.url());
        command
    }

    /// Restores the snapshot of `time` (any time string of duplicity's) to `dest`.
    pub fn restore(&self, time: &str, dest: &Path, more: &[&str]) {
        let mut command = self.command("restore");
        command.args(["--force", "--time", time]).args(more).args(self.naming_options());
        exec::run(command.arg(self.url()).arg(dest));
    }

    /// Runs a command without operands (`list-current-files`, `collection-status`, `cleanup` ...). Returns its standard
    /// output.
    pub fn ask(&self, what: &str, more: &[&str]) -> String {
        let mut command = self.command(what);
        command.args(more).args(self.naming_options());
        String::from_utf8_lossy(&exec::run(command.arg(self.url()))).into_owned()
    }

    /// The options that select the files of this repository, which are also needed to read it.
    fn naming_options(&self) -> Vec<&String> {
        self.options.iter().filter(|o| o.starts_with("--file-prefix") || o.starts_with("--time-sep")).collect()
    }

    /// duplicity with the environment of this repository, and with the options for its mode.
    pub fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LC_ALL", "C.UTF-8").env("HOME", &self.work).env("GNUPGHOME", self.home.path());
        command.env("TMPDIR", self.work.join("tmp")).env_remove("PASSPHRASE").env_remove("SIGN_PASSPHRASE");
        command.arg(what).arg(format!("--archive-dir={}", self.work.join("archive").display()));
        match &self.mode {
            Mode::Symmetric(passphrase) => {
                command.env("PASSPHRASE", passphrase);
            }
            Mode::Key(key) => {
                command.env("PASSPHRASE", &key.passphrase).arg(format!("--encrypt-key={}", key.fingerprint));
                command.arg("--gpg-options=--trust-model always --pinentry-mode loopback");
            }
            Mode::Gzip => {
                command.arg("--no-encryption");
            }
            Mode::Plain => {
                command.args(["--no-encryption", "--no-compression"]);
            }
        }
        command
    }

    /// dupfs with the keys for this repository and a separate home directory.
    pub fn reader(&self) -> exec::Dupfs {
        let home = self.work.join("dupfs-home");
        std::fs::create_dir_all(&home).unwrap();
        let dupfs = exec::Dupfs::new(&home);
        match &self.mode {
            Mode::Symmetric(passphrase) => dupfs.passphrase(passphrase),
            Mode::Key(key) => dupfs.passphrase(&key.passphrase).secret_key(&key.secret),
            Mode::Gzip | Mode::Plain => dupfs,
        }
    }
}

/// `time` as duplicity writes it into file names, and dupfs as a snapshot's name.
pub fn stamp(time: i64) -> String {
    let stamp = jiff::Timestamp::from_second(time).unwrap();
    stamp.strftime("%Y%m%dT%H%M%SZ").to_string()
}
