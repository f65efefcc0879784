//! A mount through the kernel that cannot outlive its test. When it is dropped it is unmounted, lazily if necessary,
//! and its daemon, which the test started, is ended by its pid.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::exec::Dupfs;

/// Upper bound of the time until a mount answers.
const READY: Duration = Duration::from_secs(60);
/// Upper bound of the lifetime of a mount. After it the daemon is killed, so that a request that hangs becomes an
/// error.
const LIFE: Duration = Duration::from_secs(300);

/// A foreground `dupfs mount` and its mount point.
pub struct Mount {
    dir: PathBuf,
    log: PathBuf,
    child: Arc<Mutex<Child>>,
    over: Arc<AtomicBool>,
}

impl Mount {
    /// Mounts `url` on the empty directory `dir` and waits until it answers. Its log is `dir` + `.log`.
    pub fn new(dupfs: &Dupfs, url: &str, dir: &Path) -> Self {
        require_fuse();
        fs::create_dir_all(dir).unwrap();
        if let Some(uid) = dupfs.user() {
            std::os::unix::fs::chown(dir, Some(uid), Some(uid)).unwrap();
        }
        let mut log = dir.as_os_str().to_owned();
        log.push(".log");
        let log = PathBuf::from(log);
        let out = fs::File::create(&log).unwrap();
        let mut command = dupfs.command("mount");
        command.arg("-f").arg(url).arg(dir).stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mount = Self {
            dir: dir.to_owned(),
            log,
            child: Arc::new(Mutex::new(child)),
            over: Arc::new(AtomicBool::new(false)),
        };
        mount.wait_until_ready();
        mount.limit_life();
        mount
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Returns the target of the symbolic link `name` in the mount.
    pub fn link(&self, name: &str) -> String {
        fs::read_link(self.dir.join(name)).unwrap().into_os_string().into_string().unwrap()
    }

    /// Returns the standard output and error of the daemon so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// The peak of the daemon's resident memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Unmounts, and requires that the daemon ends by itself with exit code 0, without having panicked.
    pub fn unmount(self) {
        if !fusermount(&self.dir, Duration::from_secs(20)) {
            let users = users_below(&self.dir).join("\n");
            panic!("fusermount3 -u {} failed; open there:\n{users}\n{}", self.dir.display(), self.log());
        }
        let status = self.wait(Duration::from_secs(20));
        let log = self.log();
        assert!(status.is_some_and(|s| s.success()), "after the unmount the daemon ended with {status:?}\n{log}");
        assert!(!log.contains("panicked"), "the daemon panicked\n{log}");
        assert!(!is_mounted(&self.dir), "{} is still mounted", self.dir.display());
    }

    /// Kills the daemon, which ends all requests that wait for it, and unmounts.
    pub fn kill(self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(child);
        release(&self.dir);
        assert!(!self.log().contains("panicked"), "the daemon panicked\n{}", self.log());
    }

    fn wait_until_ready(&self) {
        let start = Instant::now();
        while !is_mounted(&self.dir) {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "dupfs mount ended with {ended:?}\n{}", self.log());
            assert!(start.elapsed() < READY, "no mount after {READY:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn limit_life(&self) {
        let (child, over, dir) = (Arc::clone(&self.child), Arc::clone(&self.over), self.dir.clone());
        std::thread::spawn(move || {
            let start = Instant::now();
            while start.elapsed() < LIFE {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            eprintln!("{} still in use after {LIFE:?}: its daemon is killed", dir.display());
            let _ = child.lock().unwrap().kill();
        });
    }

    /// The exit status of the daemon; `None` if it still runs after `limit`.
    pub fn exits(&self, limit: Duration) -> Option<ExitStatus> {
        self.wait(limit)
    }

    fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let ended = self.child.lock().unwrap().try_wait();
            if let Ok(Some(status)) = ended {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        release(&self.dir);
        if self.wait(Duration::from_secs(5)).is_none() {
            let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the mount at {}\n{}", self.dir.display(), self.log());
        }
    }
}

/// Unmounts `dir` if it is mounted: by fusermount3, then by umount, then lazily.
pub fn release(dir: &Path) {
    if is_mounted(dir) && !fusermount(dir, Duration::from_secs(2)) {
        let quiet = |args: &[&str]| {
            Command::new("umount").args(args).arg(dir).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        let _ = quiet(&[]) || quiet(&["-l"]);
    }
}

/// The processes with open files or working directories below `dir`.
fn users_below(dir: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let links = processes.flat_map(|process| {
        let fds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        fds.chain([process.path().join("cwd")]).collect::<Vec<_>>()
    });
    let below = |link: &PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    links.filter(below).map(|link| format!("{} -> {:?}", link.display(), fs::read_link(&link).ok())).collect()
}

/// `fusermount3 -u`, retried until `limit`: a process that just closed its last file may still be counted, and a process
/// that another test starts has all open files of the test program until it is the other program.
fn fusermount(dir: &Path, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        let output = Command::new("fusermount3").arg("-u").arg(dir).stdin(Stdio::null()).output();
        if output.is_ok_and(|o| o.status.success()) {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns true if the kernel's mount table has `dir`.
pub fn is_mounted(dir: &Path) -> bool {
    mount_line(dir).is_some()
}

/// The line of the kernel's mount table for `dir`.
pub fn mount_line(dir: &Path) -> Option<String> {
    let table = fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    let wanted = dir.to_str().expect("mount points of tests are plain names");
    String::from_utf8_lossy(&table).lines().find(|line| line.split(' ').nth(4) == Some(wanted)).map(str::to_owned)
}

/// Fails unless every user can use /dev/fuse: some containers do not have the usual mode.
pub fn require_fuse() {
    let meta = fs::metadata("/dev/fuse").expect("/dev/fuse is missing: the tests mount through the kernel");
    if meta.permissions().mode() & 0o666 != 0o666 && meta.uid() == rustix::process::geteuid().as_raw() {
        let _ = fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666));
    }
    let mode = fs::metadata("/dev/fuse").unwrap().permissions().mode();
    assert!(mode & 0o666 == 0o666, "/dev/fuse has mode {:o}, not its usual 666; scripts/test mends it", mode & 0o777);
}
