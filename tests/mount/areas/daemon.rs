//! A mount in the background, as users have it. SIGHUP makes it list the backup again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::exec::{self, Dupfs};
use crate::support::mount::{release, require_fuse};

/// Upper bound of every wait.
const LIMIT: Duration = Duration::from_secs(60);

/// A daemon and its mount; both end when it is dropped.
pub struct Daemon {
    dir: PathBuf,
    log: PathBuf,
    pid: Pid,
}

impl Daemon {
    /// Mounts `url` on `dir`, with all messages in a log file beside it.
    pub fn mount(dupfs: &Dupfs, url: &str, dir: &Path) -> Self {
        require_fuse();
        std::fs::create_dir_all(dir).unwrap();
        let log = dir.with_extension("log");
        exec::run(dupfs.command("mount").args(["-vv", "--log-file"]).arg(&log).arg(url).arg(dir));
        let mut value = [0u8; 64];
        let len = rustix::fs::getxattr(dir, "user.dupfs.pid", &mut value).unwrap();
        let value = std::str::from_utf8(&value[..len]).unwrap();
        let pid = value.split(' ').next().unwrap().parse().unwrap();
        Self { dir: dir.to_owned(), log, pid: Pid::from_raw(pid).unwrap() }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Sends SIGHUP.
    pub fn hup(&self) {
        kill_process(self.pid, Signal::HUP).unwrap();
    }

    /// Sends SIGHUP and waits until the log has one more `line`.
    pub fn hup_until(&self, line: &str) {
        let count = || self.log().matches(line).count();
        let before = count();
        self.hup();
        self.wait_for(line, || count() > before);
    }

    /// Waits until `done`.
    pub fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The names in `dir`, sorted.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let list = std::fs::read_dir(self.dir.join(dir)).unwrap();
        let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Unmounts. The daemon must exit and must not have panicked.
    pub fn unmount(self) {
        release(&self.dir);
        self.wait_for("the daemon's end", || !self.runs());
        let log = self.log();
        assert!(!log.contains("panicked") && !log.contains("internal error"), "{log}");
    }

    fn runs(&self) -> bool {
        rustix::process::test_kill_process(self.pid).is_ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        release(&self.dir);
        let start = Instant::now();
        while self.runs() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.runs() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log of the mount at {}\n{}", self.dir.display(), self.log());
        }
    }
}
