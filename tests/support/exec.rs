//! Processes that must succeed; a failure is reported with all output.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs `command` to its end. Returns its output for any exit code.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    match command.output() {
        Ok(output) => output,
        Err(error) => {
            panic!("cannot start {:?}: {error}; scripts/test installs what the tests need", command.get_program())
        }
    }
}

/// Runs `command` and requires exit code 0. Returns its standard output.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}\n{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        tail(&output.stdout),
        tail(&output.stderr)
    );
    output.stdout
}

/// Returns the name by which a test program selects the test `function` of the module whose `module_path!()` is
/// given, for tests that run their own program again.
pub fn test_name(module: &str, function: &str) -> String {
    match module.split_once("::") {
        Some((_program, module)) => format!("{module}::{function}"),
        None => function.to_owned(),
    }
}

/// Returns the last 4000 bytes as text.
pub fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned()
}

/// The program under test with the environment of every test: no keyring, no cache and no key but those of the test.
#[derive(Clone)]
pub struct Dupfs {
    program: PathBuf,
    home: PathBuf,
    args: Vec<String>,
    passphrase: Option<String>,
    user: Option<u32>,
    variables: Vec<(String, String)>,
}

impl Dupfs {
    /// dupfs with `home` as its HOME, cache and (empty) gpg home.
    pub fn new(home: &Path) -> Self {
        Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_dupfs")),
            home: home.to_owned(),
            args: Vec::new(),
            passphrase: None,
            user: None,
            variables: Vec::new(),
        }
    }

    /// With PASSPHRASE in its environment.
    pub fn passphrase(mut self, passphrase: &str) -> Self {
        self.passphrase = Some(passphrase.to_owned());
        self
    }

    /// With `--secret-key`.
    pub fn secret_key(self, file: &Path) -> Self {
        self.option("--secret-key").option(file.to_str().unwrap())
    }

    /// With one more option, given after the command's name.
    pub fn option(mut self, option: &str) -> Self {
        self.args.push(option.to_owned());
        self
    }

    /// With this variable in its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As another user (root only), by setpriv; `program` is a copy of the program that this user can run.
    pub fn with_user(mut self, uid: u32, program: &Path) -> Self {
        self.user = Some(uid);
        self.program = program.to_owned();
        self
    }

    /// The command line for `command`, its options first.
    pub fn command(&self, command: &str) -> Command {
        let mut cmd = match self.user {
            None => Command::new(&self.program),
            Some(uid) => {
                let mut cmd = Command::new("setpriv");
                let id = uid.to_string();
                cmd.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&self.program);
                cmd
            }
        };
        cmd.arg(command).args(&self.args);
        cmd.env_remove("PASSPHRASE").env_remove("GPG_AGENT_INFO").env_remove("XDG_CONFIG_HOME");
        cmd.env("HOME", &self.home).env("XDG_CACHE_HOME", self.home.join("cache"));
        cmd.env("GNUPGHOME", self.home.join("no-keyring"));
        if let Some(passphrase) = &self.passphrase {
            cmd.env("PASSPHRASE", passphrase);
        }
        cmd.envs(self.variables.iter().map(|(name, value)| (name, value)));
        cmd
    }

    /// The user it runs as, if it is not that of the test.
    pub fn user(&self) -> Option<u32> {
        self.user
    }

    /// Runs `command` with `operands` and requires success. Returns its standard output.
    pub fn run(&self, command: &str, operands: &[&str]) -> Vec<u8> {
        run(self.command(command).args(operands))
    }

    /// Runs `command` with `operands`. Returns the exit code and standard error, whatever they are.
    pub fn fails(&self, command: &str, operands: &[&str]) -> (Option<i32>, String) {
        let output = output(self.command(command).args(operands));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
