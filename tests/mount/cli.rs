//! The program on the in-memory file system: daemon, signals, unmounting, exit codes, other users.
//!
//! The test binary is also the program: started again with arguments in the environment, [`act_as_dupfs`] runs them.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::memory::MemoryFs;
use crate::support::exec::test_name;
use dupfs::cli::{
    App, Backend, BackupLocation, CacheArgs, CatArgs, CliError, DiffArgs, FindArgs, HistoryArgs, IndexArgs, LsArgs,
    OpenRequest, RepoArgs, RestoreArgs, SetsArgs, VerifyArgs, VolumesArgs,
};
use dupfs::fuse::{mount_at, unmount};
use dupfs::vfs::FileSystem;
use dupfs_base::ErrorKind;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const ARGUMENTS: &str = "DUPFS_TEST_ARGUMENTS";
const NOBODY: u32 = 65_534;

/// Opens the sample for every URL, except for those named after a failure.
struct Memory;

impl Backend for Memory {
    fn locate(&self, repo: &RepoArgs, _: &CacheArgs) -> Result<BackupLocation, CliError> {
        let url = repo.url.to_str().unwrap().to_owned();
        let local = url.strip_prefix("file://").map(|dir| ("the backup", PathBuf::from(dir)));
        Ok(BackupLocation { url, local: local.into_iter().collect() })
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Arc<dyn FileSystem>, CliError> {
        match request.repo.url.to_str().unwrap() {
            "memory:no-backup" => Err(CliError::failed(ErrorKind::NotFound, "memory: no backup there")),
            "memory:locked" => match request.passphrases.given().iter().any(|p| p.expose() == b"right") {
                true => Ok(Arc::new(MemoryFs::sample())),
                false => Err(CliError::failed(ErrorKind::KeyMissing, "memory: no passphrase\nfits")),
            },
            "memory:dies" => std::process::abort(),
            _ => Ok(Arc::new(MemoryFs::sample())),
        }
    }

    fn sets(&self, _: &SetsArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn ls(&self, _: &LsArgs) -> Result<(), CliError> {
        use std::io::Write;
        loop {
            writeln!(std::io::stdout(), "name").map_err(|error| CliError::output(&error))?;
        }
    }

    fn find(&self, _: &FindArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn history(&self, _: &HistoryArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn diff(&self, _: &DiffArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn cat(&self, _: &CatArgs) -> Result<(), CliError> {
        Err(CliError::failed(ErrorKind::Corrupt, "vol1 is damaged"))
    }

    fn restore(&self, _: &RestoreArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn verify(&self, _: &VerifyArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn volumes(&self, _: &VolumesArgs) -> Result<(), CliError> {
        Ok(())
    }

    fn index(&self, _: &IndexArgs) -> Result<(), CliError> {
        Ok(())
    }
}

fn command(program: &Path, args: &[OsString]) -> Command {
    let mut line = OsString::new();
    for arg in args {
        line.push(arg);
        line.push("\n");
    }
    let mut command = Command::new(program);
    let test = test_name(module_path!(), "act_as_dupfs");
    command.args(["--exact", &test, "--nocapture"]).env(ARGUMENTS, line);
    command
}

#[test]
fn act_as_dupfs() {
    let Some(line) = std::env::var_os(ARGUMENTS) else { return };
    let line = line.into_string().unwrap();
    let typed = std::iter::once("dupfs").chain(line.lines()).map(OsString::from).collect();
    let own = std::env::current_exe().unwrap();
    let respawn = |args: &[OsString]| command(&own, args);
    let app = App { backend: &Memory, respawn: &respawn };
    std::process::exit(app.run(typed).into());
}

/// A mount point that every user may use. It is unmounted when the test ends, also on failure.
struct TestMountPoint {
    dir: TempDir,
    /// A copy of the program that other users can run.
    program: PathBuf,
}

impl TestMountPoint {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("program");
        let own = std::env::current_exe().unwrap();
        fs::hard_link(&own, &program).or_else(|_| fs::copy(&own, &program).map(drop)).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir, program }
    }

    fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn dupfs(&self, args: &[&str]) -> Command {
        let mnt = self.mnt();
        let args: Vec<OsString> =
            args.iter().map(|arg| if *arg == "MNT" { mnt.clone().into() } else { OsString::from(arg) }).collect();
        let mut command = command(&self.program, &args);
        command.env_remove("PASSPHRASE").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.dupfs(args).output().unwrap()
    }

    /// Mounts in the background. Returns the process id of the daemon.
    fn mount(&self, args: &[&str]) -> Pid {
        let output = self.run(args);
        assert!(output.status.success(), "{output:?}");
        self.daemon()
    }

    fn daemon(&self) -> Pid {
        let mut value = [0; 100];
        let len = rustix::fs::getxattr(self.mnt(), dupfs::fuse::PID_ATTRIBUTE, &mut value[..]).unwrap();
        let text = std::str::from_utf8(&value[..len]).unwrap();
        Pid::from_raw(text.split(' ').next().unwrap().parse().unwrap()).unwrap()
    }

    fn is_mounted(&self) -> bool {
        mount_at(&self.mnt()).unwrap().is_some()
    }
}

impl Drop for TestMountPoint {
    fn drop(&mut self) {
        while self.is_mounted() && unmount(&self.mnt(), true).is_ok() {}
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Runs the command as another user, or in a private set of mounts prepared by `script`.
fn wrapped(wrapper: &[&str], inner: &Command) -> Command {
    let mut outer = Command::new(wrapper[0]);
    outer.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Gives `/dev/fuse` its usual mode.
fn open_device() {
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
}

#[test]
fn mount_returns_once_the_mount_answers_and_umount_once_the_daemon_is_gone() {
    let place = TestMountPoint::new();
    let daemon = place.mount(&["mount", "memory:", "MNT"]);
    assert_eq!(fs::read(place.mnt().join("hello.txt")).unwrap(), b"hello, world\n");
    let proc = PathBuf::from(format!("/proc/{}", daemon.as_raw_nonzero()));
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    for fd in ["0", "1", "2"] {
        assert_eq!(fs::read_link(proc.join("fd").join(fd)).unwrap(), Path::new("/dev/null"));
    }
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split(' ').nth(4).unwrap().to_owned();
    assert_eq!(session, daemon.as_raw_nonzero().to_string());
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    assert!(limits.lines().any(|l| l.starts_with("Max core file size") && l.split_whitespace().nth(4) == Some("0")));
    // The files of a process that cannot be dumped belong to root, so the user nobody cannot read its environment.
    let peek = Command::new(AS_NOBODY[0]).args(&AS_NOBODY[1..]).arg("cat").arg(proc.join("environ")).output().unwrap();
    assert!(!peek.status.success());

    let output = place.run(&["umount", "MNT"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!place.is_mounted());
    assert!(!runs(daemon));
}

#[test]
fn the_daemon_keeps_no_file_of_its_parent() {
    let place = TestMountPoint::new();
    let lock = place.dir.path().join("lock");
    let script = format!("exec 9>{}; flock -n 9 && \"$@\"", lock.display());
    let output =
        wrapped(&["bash", "-c", &script, "bash"], &place.dupfs(&["mount", "memory:", "MNT"])).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap().success(), "still locked");
    assert!(place.run(&["umount", "MNT"]).status.success());

    // A secret from a descriptor is read before the descriptor is closed, and the other pipe ends with the script.
    let script = "exec 3>&1 4<<<right; \"$@\" >/dev/null 2>&1";
    let args = ["mount", "memory:locked", "MNT", "--passphrase-file", "/dev/fd/4"];
    let mut script = wrapped(&["bash", "-c", script, "bash"], &place.dupfs(&args));
    let mut script = script.stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = script.stdout.take().unwrap();
    let (tx, rx) = std::sync::mpsc::channel();
    thread::spawn(move || tx.send(std::io::copy(&mut pipe, &mut std::io::sink())));
    assert!(script.wait().unwrap().success());
    assert!(place.is_mounted());
    rx.recv_timeout(Duration::from_secs(20)).expect("the pipe has ended").unwrap();
    assert_eq!(fs::read(place.mnt().join("hello.txt")).unwrap(), b"hello, world\n");
}

#[test]
fn of_several_mounts_that_start_on_one_directory_one_succeeds() {
    let place = TestMountPoint::new();
    for _ in 0..3 {
        let starts: Vec<Child> =
            (0..4).map(|_| place.dupfs(&["mount", "memory:", "MNT"]).stderr(Stdio::piped()).spawn().unwrap()).collect();
        let outputs: Vec<Output> = starts.into_iter().map(|start| start.wait_with_output().unwrap()).collect();
        let (mounted, refused): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
        assert_eq!((mounted.len(), refused.len()), (1, 3), "{outputs:?}");
        for output in refused {
            assert!(stderr(output).contains("is in use: dupfs:memory:"), "{output:?}");
        }
        assert!(place.run(&["umount", "MNT"]).status.success());
        assert!(!place.is_mounted(), "another mount was below");
    }
}

#[test]
fn errors_are_one_line_with_an_exit_code_and_nothing_is_mounted() {
    let place = TestMountPoint::new();
    fs::write(place.dir.path().join("secret"), "wrong\n").unwrap();
    let secret = place.dir.path().join("secret");
    let secret = secret.to_str().unwrap();
    for (args, code, expected) in [
        (vec!["mount", "memory:no-backup", "MNT"], 3, "dupfs: memory: no backup there\n"),
        (vec!["mount", "memory:locked", "MNT", "--passphrase-file", secret], 5, "dupfs: memory: no passphrase fits\n"),
        (vec!["mount", "memory:no-backup", "MNT", "-f"], 3, "dupfs: memory: no backup there\n"),
        (
            vec!["mount", "memory:", "MNT", "-o", "speed=9"],
            2,
            "dupfs: unknown mount option speed: dupfs mount --help lists them\n",
        ),
        (vec!["cat", "memory:", "x"], 6, "dupfs: vol1 is damaged\n"),
    ] {
        let output = place.run(&args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let message = stderr(&output);
        assert!(message.ends_with(expected), "{message}");
        assert!(!place.is_mounted());
    }
    let output = place.run(&["mount", "memory:dies", "MNT"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("killed by signal 6"), "{output:?}");
    assert!(!place.is_mounted());
}

#[test]
fn passphrases_come_from_the_environment_a_file_or_a_command() {
    let place = TestMountPoint::new();
    let file = place.dir.path().join("secret");
    fs::write(&file, "wrong\nright\n").unwrap();
    let with_file = ["mount", "memory:locked", "MNT", "--passphrase-file", file.to_str().unwrap()];
    let with_command = ["mount", "memory:locked", "MNT", "--passphrase-command", "echo right"];
    let with_list = ["mount", "memory:locked", "MNT", "-o", "passphrase-command=test -z \"$PASSPHRASE\" && echo right"];
    for args in [&with_file, &with_command, &with_list] {
        let output = place.dupfs(args).env("PASSPHRASE", "other").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(place.run(&["umount", "MNT"]).status.success());
    }
    let output = place.dupfs(&with_file[..3]).env("PASSPHRASE", "right").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_overlap_and_a_mount_point_in_use_are_reported_before_a_prompt() {
    let place = TestMountPoint::new();
    let asked = place.dir.path().join("asked");
    let ask = format!("touch {}; echo right", asked.display());
    let url = format!("file://{}", place.dir.path().display());
    let output = place.run(&["mount", &url, "MNT", "--passphrase-command", &ask]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("overlap"), "{output:?}");
    let inside = format!("file://{}/mnt/deeper", place.dir.path().display());
    assert!(stderr(&place.run(&["mount", &inside, "MNT", "--passphrase-command", &ask])).contains("overlap"));

    place.mount(&["mount", "memory:", "MNT"]);
    let output = place.run(&["mount", "memory:locked", "MNT", "--passphrase-command", &ask]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("dupfs umount"), "{output:?}");
    assert!(!asked.exists());
}

#[test]
fn sigterm_ends_the_daemon_cleanly_and_sighup_does_not() {
    let place = TestMountPoint::new();
    let daemon = place.mount(&["mount", "memory:", "MNT"]);
    kill_process(daemon, Signal::HUP).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(runs(daemon));
    assert!(place.mnt().join("hello.txt").exists());
    kill_process(daemon, Signal::TERM).unwrap();
    eventually("the daemon ends", || !runs(daemon));
    assert!(!place.is_mounted());
}

/// Starts a mount in the foreground, and waits for its message that it is mounted. Before, it may still read its own
/// root.
fn foreground(place: &TestMountPoint, args: &[&str]) -> Child {
    let mut all = vec!["mount", "memory:", "MNT", "-f", "-v"];
    all.extend(args);
    let mut child = place.dupfs(&all).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("mounted on")));
    child
}

#[test]
fn each_ending_signal_ends_a_mount_in_the_foreground_with_exit_code_0() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let place = TestMountPoint::new();
        let mut child = foreground(&place, &[]);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal:?}");
        assert!(!place.is_mounted());
    }
}

#[test]
fn the_memory_of_a_mount_is_bounded_in_the_daemon_and_in_the_foreground() {
    let bound = |pid: Pid| {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap();
        environment.split(|&b| b == 0).any(|word| word == b"MALLOC_ARENA_MAX=1")
    };
    let place = TestMountPoint::new();
    assert!(bound(place.mount(&["mount", "memory:", "MNT"])));
    let place = TestMountPoint::new();
    let mut child = foreground(&place, &[]);
    let pid = Pid::from_child(&child);
    assert!(bound(pid));
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn unmounting_from_outside_ends_a_mount_in_the_foreground_with_exit_code_0() {
    let place = TestMountPoint::new();
    let mut child = foreground(&place, &[]);
    assert!(Command::new("umount").arg(place.mnt()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stale_mount_is_recognised_and_umount_clears_it() {
    let place = TestMountPoint::new();
    let mut child = foreground(&place, &[]);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(place.is_mounted());
    let output = place.run(&["mount", "memory:", "MNT"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("stale mount") && stderr(&output).contains("dupfs umount"), "{output:?}");
    assert!(place.run(&["umount", "MNT"]).status.success());
    assert!(!place.is_mounted());
    let daemon = place.mount(&["mount", "memory:", "MNT"]);
    // By a link with a slash, through which nothing of a stale mount can be reached. One that answers is left as it is.
    let link = place.mnt().with_file_name("link");
    std::os::unix::fs::symlink(place.mnt().file_name().unwrap(), &link).unwrap();
    let link = format!("{}/", link.display());
    for is_stale in [false, true, true] {
        let output = place.run(&["umount", "--stale", &link]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(place.is_mounted(), !is_stale);
        if !is_stale {
            kill_process(daemon, Signal::KILL).unwrap();
            eventually("the daemon has ended", || fs::read_dir(place.mnt()).is_err());
        }
    }
}

#[test]
fn a_mount_whose_daemon_hangs_blocks_no_command() {
    let place = TestMountPoint::new();
    let daemon = place.mount(&["mount", "memory:", "MNT"]);
    kill_process(daemon, Signal::STOP).unwrap();
    // A thread that still runs could accept a request and then stop. The process that waits for it could not be
    // killed.
    let tasks = format!("/proc/{}/task", daemon.as_raw_nonzero());
    eventually("every thread has stopped", || {
        let mut states =
            fs::read_dir(&tasks).unwrap().map(|task| fs::read_to_string(task.unwrap().path().join("stat")));
        states.all(|stat| stat.unwrap().contains(") T "))
    });
    let output = place.run(&["mount", "memory:", "MNT"]);
    assert!(stderr(&output).contains("in use"), "{output:?}");
    // A directory may be a mount point in the wrong place.
    let dir = place.dir.path().to_str().unwrap();
    assert!(!place.run(&["mount", dir, "MNT"]).status.success());
    // And so may one below it.
    let below = place.mnt().join("below");
    assert!(place.run(&["history", "/no/such/backup", below.to_str().unwrap()]).status.success());
    let output = place.run(&["umount", "--lazy", "MNT"]);
    kill_process(daemon, Signal::CONT).unwrap();
    assert!(output.status.success(), "{output:?}");
    eventually("the daemon ends", || !runs(daemon));
}

#[test]
fn umount_reports_why_it_fails_and_succeeds_with_lazy() {
    let place = TestMountPoint::new();
    let output = place.run(&["umount", "MNT"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).ends_with("; dupfs status shows all mounts\n"), "{output:?}");
    assert!(stderr(&place.run(&["umount", "/proc"])).contains("not a dupfs mount"));

    let daemon = place.mount(&["mount", "memory:", "MNT"]);
    let open = fs::File::open(place.mnt().join("hello.txt")).unwrap();
    let output = place.run(&["umount", "MNT"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in use") && stderr(&output).contains("--lazy"), "{output:?}");
    assert!(place.run(&["umount", "--lazy", "MNT"]).status.success());
    assert!(!place.is_mounted());
    assert!(runs(daemon));
    drop(open);
    eventually("the daemon ends", || !runs(daemon));
}

#[test]
fn the_log_file_has_each_failure_once_and_nothing_else() {
    let place = TestMountPoint::new();
    let log = place.dir.path().join("log");
    place.mount(&["mount", "memory:", "MNT", "--log-file", log.to_str().unwrap()]);
    for _ in 0..5 {
        assert!(fs::read(place.mnt().join("odd/damaged")).is_err());
        assert!(!place.mnt().join("none").exists());
    }
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("dupfs: error: read of inode") && text.contains("vol1 of set X: on purpose"), "{text}");
    let output = place.run(&["umount", "MNT", "--log-file", "/no/such/dir/log"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_closed_pipe_ends_the_program_silently() {
    let place = TestMountPoint::new();
    let mut child = place.dupfs(&["ls", "memory:"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(100));
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(libc::SIGPIPE));
    assert_eq!(stderr(&output), "");
}

#[test]
fn another_user_mounts_through_fusermount_and_reads_everything() {
    open_device();
    let place = TestMountPoint::new();
    std::os::unix::fs::chown(place.mnt(), Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |args: &[&str]| wrapped(&AS_NOBODY, &place.dupfs(args)).output().unwrap();
    let output = as_nobody(&["mount", "memory:", "MNT"]);
    assert!(output.status.success(), "{output:?}");
    let entry = mount_at(&place.mnt()).unwrap().unwrap();
    assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("fuse.dupfs", "dupfs:memory:"));
    let read = |name: &str| {
        let file = place.mnt().join(name);
        Command::new(AS_NOBODY[0]).args(&AS_NOBODY[1..]).arg("cat").arg(file).output().unwrap().stdout
    };
    assert_eq!(read("private"), b"private");
    assert_eq!(read("sub/deep.bin"), crate::memory::pattern(crate::memory::BIG));
    let output = as_nobody(&["mount", "memory:", "MNT"]);
    assert!(stderr(&output).contains("in use"), "{output:?}");
    let other = place.run(&["umount", "MNT"]);
    assert!(other.status.success(), "root may unmount it: {other:?}");

    assert!(as_nobody(&["mount", "memory:", "MNT"]).status.success());
    let output = as_nobody(&["umount", "MNT"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!place.is_mounted());

    let mut child = wrapped(&AS_NOBODY, &place.dupfs(&["mount", "memory:", "MNT", "-f"])).spawn().unwrap();
    eventually("it is mounted", || place.is_mounted());
    thread::sleep(Duration::from_millis(200));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!place.is_mounted());
}

#[test]
fn a_mount_of_root_cannot_be_unmounted_by_others() {
    let place = TestMountPoint::new();
    place.mount(&["mount", "memory:", "MNT"]);
    let output = wrapped(&AS_NOBODY, &place.dupfs(&["umount", "MNT"])).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(place.is_mounted());
}

#[test]
fn a_stale_mount_of_another_user_is_cleared_by_them() {
    open_device();
    let place = TestMountPoint::new();
    std::os::unix::fs::chown(place.mnt(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut child =
        wrapped(&AS_NOBODY, &place.dupfs(&["mount", "memory:", "MNT", "-f"])).stdout(Stdio::null()).spawn().unwrap();
    eventually("it is mounted", || place.is_mounted());
    thread::sleep(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    let output = wrapped(&AS_NOBODY, &place.dupfs(&["mount", "memory:", "MNT"])).output().unwrap();
    assert!(stderr(&output).contains("stale mount"), "{output:?}");
    let output = wrapped(&AS_NOBODY, &place.dupfs(&["umount", "MNT"])).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn allow_other_gives_others_access_within_the_modes() {
    let place = TestMountPoint::new();
    place.mount(&["mount", "memory:", "MNT", "-o", "allow_other"]);
    let try_read = |name: &str| {
        let file = place.mnt().join(name);
        Command::new(AS_NOBODY[0]).args(&AS_NOBODY[1..]).arg("cat").arg(file).output().unwrap()
    };
    assert_eq!(try_read("hello.txt").stdout, b"hello, world\n");
    assert!(stderr(&try_read("private")).contains("Permission denied"));
    assert!(stderr(&try_read("sub/deep.bin")).contains("Permission denied"));
    assert_eq!(fs::read(place.mnt().join("private")).unwrap(), b"private");
}

#[test]
fn programs_run_unless_noexec_forbids_it() {
    let place = TestMountPoint::new();
    place.mount(&["mount", "memory:", "MNT"]);
    assert_eq!(Command::new(place.mnt().join("run")).output().unwrap().stdout, b"ran\n");
    assert!(rustix::fs::access(place.mnt().join("hello.txt"), rustix::fs::Access::EXEC_OK).is_err());
    assert!(place.run(&["umount", "MNT"]).status.success());
    place.mount(&["mount", "memory:", "MNT", "-o", "noexec"]);
    assert!(Command::new(place.mnt().join("run")).output().is_err());
}

#[test]
fn errors_of_a_machine_without_fuse_differ_by_cause() {
    open_device();
    let place = TestMountPoint::new();
    std::os::unix::fs::chown(place.mnt(), Some(NOBODY), Some(NOBODY)).unwrap();
    let file = place.dir.path().join("no-device");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let nobody = AS_NOBODY.join(" ");
    let mount = place.dupfs(&["mount", "memory:", "MNT"]);
    let mount_for_others = place.dupfs(&["mount", "memory:", "MNT", "-o", "allow_other"]);
    for (script, command, code, message) in [
        ("mount -t tmpfs none /dev; exec \"$@\"".to_owned(), &mount, 1, "modprobe fuse"),
        (format!("mount --bind {file} /dev/fuse; exec {nobody} \"$@\""), &mount, 4, "chmod 666 /dev/fuse"),
        (
            format!("mount --bind /dev/null /etc/fuse.conf; exec {nobody} \"$@\""),
            &mount_for_others,
            4,
            "user_allow_other",
        ),
        (format!("exec setpriv --no-new-privs {nobody} \"$@\""), &mount, 4, "NoNewPrivileges="),
    ] {
        // A new mount namespace also has the mounts of other tests, and would keep them alive after they are
        // unmounted.
        let script = format!("umount -alt fuse.dupfs; {script}");
        let output = wrapped(&["unshare", "-m", "sh", "-c", &script, "sh"], command).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{message}: {output:?}");
        assert!(stderr(&output).contains(message), "{output:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    }
    let output = wrapped(&AS_NOBODY, &mount).env("FUSERMOUNT_PATH", "/no/such/helper").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("install the package fuse3"), "{output:?}");
    // The user nobody may not mount on a directory of root.
    std::os::unix::fs::chown(place.mnt(), Some(0), Some(0)).unwrap();
    let output = wrapped(&AS_NOBODY, &mount).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("may not write to it"), "{output:?}");
}

/// The JSON of `status`, as its last line: the test program prints others before it.
fn status_json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let at = text.find("[\n  {").unwrap_or_else(|| panic!("no JSON: {output:?}"));
    serde_json::from_str(&text[at..]).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn status_reports_who_waits_the_last_errors_and_nothing_to_other_users() {
    let place = TestMountPoint::new();
    let daemon = place.mount(&["mount", "memory:", "MNT", "-o", "allow_other"]);
    let shown = || status_json(&place.run(&["status", "MNT", "--json"]));
    let report = shown();
    let status = &report[0]["status"];
    assert_eq!(report[0]["state"], "serving");
    assert_eq!((status["url"].as_str(), status["pid"].as_i64()), (Some("memory:"), Some(daemon.as_raw_pid().into())));
    assert_eq!(status["mountpoint"].as_str(), place.mnt().to_str());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 60..=now).contains(&status["since"].as_u64().unwrap()), "{status}");
    assert_eq!((&status["waiting"], &status["errors"]), (&serde_json::json!([]), &serde_json::json!([])));

    let mut reader = Command::new("cat").arg(place.mnt().join("odd/stuck")).stdout(Stdio::null()).spawn().unwrap();
    eventually("the read waits", || {
        let waiting = &shown()[0]["status"]["waiting"][0];
        let process = (waiting["pid"].as_u64(), waiting["command"].as_str());
        waiting["operation"] == "read" && process == (Some(reader.id().into()), Some("cat"))
    });
    let text = String::from_utf8(place.run(&["status", "MNT"]).stdout).unwrap();
    assert!(text.contains(&format!("by cat ({}) for ", reader.id())), "{text}");
    reader.kill().unwrap();
    reader.wait().unwrap();
    eventually("nothing waits", || shown()[0]["status"]["waiting"].as_array().unwrap().is_empty());
    assert!(fs::read(place.mnt().join("odd/damaged")).is_err());
    let report = shown();
    let errors = report[0]["status"]["errors"].as_array().unwrap();
    assert!(errors.last().unwrap().as_str().unwrap().contains("EIO read of"), "{errors:?}");

    // getfattr asks for the length first.
    let len = rustix::fs::getxattr_query(place.mnt(), dupfs::fuse::STATUS_ATTRIBUTE).unwrap();
    let mut value = vec![0; len];
    let len = rustix::fs::getxattr(place.mnt(), dupfs::fuse::STATUS_ATTRIBUTE, &mut value[..]).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&value[..len]).unwrap();
    assert_eq!(value["pid"], daemon.as_raw_pid());
    let output = wrapped(&AS_NOBODY, &place.dupfs(&["status", "MNT", "--json"])).output().unwrap();
    assert_eq!((output.status.code(), &status_json(&output)[0]["state"]), (Some(4), &"denied".into()), "{output:?}");
    assert_eq!(status_json(&output)[0]["status"], serde_json::Value::Null);
}

#[test]
fn status_watches_until_the_mount_ends() {
    let place = TestMountPoint::new();
    assert_eq!(place.run(&["status", "MNT"]).status.code(), Some(3));
    place.mount(&["mount", "memory:", "MNT"]);
    let mut watch = place.dupfs(&["status", "--watch", "1", "MNT"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut lines = lines.filter(|line| line.contains(" serving fetching=0 waiting=0 "));
    for _ in 0..2 {
        assert!(lines.next().unwrap().contains(place.mnt().to_str().unwrap()));
    }
    eventually("it is unmounted", || place.run(&["umount", "MNT"]).status.success());
    assert_eq!(lines.count(), 0);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

/// In a namespace of its own, as the requests of `status` would disturb the unmounting of other tests.
#[test]
fn a_mount_that_hangs_or_is_stale_does_not_delay_the_status_of_others() {
    let place = TestMountPoint::new();
    let script = r#"
        umount -alt fuse.dupfs
        cd "$1"; shift
        mkdir hangs stale serves
        run() { DUPFS_TEST_ARGUMENTS=$(printf '%s\n' "$@") "${program[@]}"; }
        program=("$@")
        for name in hangs stale serves; do run mount memory: "$PWD/$name" || exit 90; done
        pid() { python3 -c 'import os, sys; print(int(os.getxattr(sys.argv[1], "user.dupfs.pid").split()[0]))' "$1"; }
        hanging=$(pid hangs); dead=$(pid stale)
        kill -KILL "$dead"
        kill -STOP "$hanging"
        until ! grep -hv ') T ' /proc/"$hanging"/task/*/stat; do sleep 0.01; done
        while kill -0 "$dead" 2>/dev/null && ! grep -q ') Z ' /proc/"$dead"/stat; do sleep 0.01; done
        run status --json
        code=$?
        run status "$PWD/serves" >/dev/null || code=91
        umount -l hangs; kill -KILL "$hanging"
        umount -l stale serves
        exit "$code"
    "#;
    let program = place.dupfs(&[]);
    let dir = place.dir.path().to_str().unwrap();
    let started = Instant::now();
    let output = wrapped(&["unshare", "-m", "bash", "-c", script, "bash", dir], &program).output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = status_json(&output);
    let state = |name: &str| {
        let path = place.dir.path().join(name);
        let reports = report.as_array().unwrap();
        reports.iter().find(|found| found["mountpoint"].as_str() == path.to_str()).unwrap()["state"].clone()
    };
    assert_eq!([state("hangs"), state("stale"), state("serves")], ["hangs", "stale", "serving"]);
}
