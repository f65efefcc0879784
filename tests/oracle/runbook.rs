//! Runs `scripts/provision` and `scripts/runbook`: MariaDB, duplicity to an S3 server with a rotated key, and both
//! restores from mounts. The commands of docs/RUNBOOK.md must be among those that were run.
//!
//! If the scripts are killed, the test removes the mounts below their directory and ends the processes that they
//! started, by process id.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Scratch, mount};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Upper bound of the duration of a script, which takes less than a minute on an idle machine.
const LIMIT: Duration = Duration::from_secs(540);

/// The directory of the scripts. Their mounts and processes end when it is dropped.
struct ScriptRun {
    scratch: Scratch,
}

impl ScriptRun {
    fn new() -> Self {
        mount::require_fuse();
        let scratch = Scratch::new();
        // The runbook also runs as other users.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { scratch }
    }

    fn work(&self) -> PathBuf {
        self.scratch.path().join("w")
    }

    /// Mount points below the directory, the deepest first.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut here: Vec<_> = points.filter(|point| point.starts_with(self.scratch.path())).collect();
        here.sort_by(|a, b| b.cmp(a));
        here
    }

    /// Processes whose program, arguments or working directory are in the directory.
    fn processes(&self) -> Vec<i32> {
        let own = std::process::id().cast_signed();
        let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<i32>().ok());
        all.filter(|&pid| pid != own && self.names_it(Path::new(&format!("/proc/{pid}")))).collect()
    }

    fn names_it(&self, process: &Path) -> bool {
        let dir = self.scratch.path();
        let links = ["exe", "cwd"].map(|link| fs::read_link(process.join(link)));
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let wanted = dir.as_os_str().as_encoded_bytes();
        links.iter().flatten().any(|target| target.starts_with(dir)) || line.windows(wanted.len()).any(|w| w == wanted)
    }

    /// Runs a script in a separate process group, with its output in a file. Returns the output, and true if it
    /// succeeded in time.
    fn run(&self, script: &str, args: &[&str]) -> (String, bool) {
        let log = self.scratch.path().join("log");
        let out = fs::File::create(&log).unwrap();
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script));
        command
            .args(args)
            .args(["--program", env!("CARGO_BIN_EXE_dupfs")])
            .env("DUPFS_TEST_DIR", crate::support::duplicity::environments());
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).process_group(0);
        let done = succeeds_in_time(&mut command.spawn().unwrap());
        (String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned(), done)
    }
}

impl Drop for ScriptRun {
    fn drop(&mut self) {
        for point in self.mounts() {
            mount::release(&point);
        }
        for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Returns true if it ends with exit code 0 within the limit. Otherwise its process group gets SIGTERM, and then
/// SIGKILL.
fn succeeds_in_time(child: &mut Child) -> bool {
    let start = Instant::now();
    let group = Pid::from_child(child);
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success() && !asked;
        }
        if start.elapsed() > LIMIT && !asked {
            eprintln!("not done after {LIMIT:?}: it is ended");
            let _ = kill_process_group(group, Signal::TERM);
            asked = true;
        }
        if start.elapsed() > LIMIT + Duration::from_secs(30) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The commands after a prompt in the document's indented blocks.
fn commands_to_type(document: &str) -> Vec<String> {
    let blocks = document.lines().filter_map(|line| line.strip_prefix("    "));
    blocks.filter(|line| line.starts_with("$ ") || line.starts_with("# ")).map(str::to_owned).collect()
}

#[test]
fn both_runbooks_restore_everything_and_leave_nothing_on_the_machine() {
    let script_run = ScriptRun::new();
    let work = script_run.work();
    let (output, done) = script_run.run("runbook", &["--work", work.to_str().unwrap()]);
    assert!(done, "scripts/runbook failed\n{output}");
    assert!(output.ends_with("== Both restores are complete\n"), "{output}");
    assert!(!work.exists(), "{} was left", work.display());
    assert_eq!(script_run.mounts(), Vec::<PathBuf>::new(), "mounts left by scripts/runbook");
    assert_eq!(script_run.processes(), Vec::<i32>::new(), "processes left by scripts/runbook");

    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RUNBOOK.md")).unwrap();
    let commands = commands_to_type(&document);
    assert!(commands.len() >= 20, "docs/RUNBOOK.md has {} commands only: {commands:?}", commands.len());
    let typed: Vec<&str> = output.lines().collect();
    for line in commands {
        assert!(
            typed.contains(&line.as_str()),
            "docs/RUNBOOK.md has a command that scripts/runbook does not run: {line}"
        );
    }
}

#[test]
fn provisioning_again_changes_nothing_and_down_ends_it() {
    let script_run = ScriptRun::new();
    let work = script_run.work();
    let root = ["--root", work.to_str().unwrap()];
    let units = work.join("etc/systemd/system");
    let state = || {
        let mut all = script_run.processes();
        all.sort_unstable();
        (
            all,
            script_run.mounts(),
            fs::read(work.join("etc/dupfs/s3.env")).unwrap(),
            fs::read_dir(&units).unwrap().count(),
        )
    };
    let (output, done) = script_run.run("provision", &root);
    assert!(done, "scripts/provision failed\n{output}");
    let first = state();
    assert_eq!(
        (first.0.len(), first.1.len(), first.3),
        (2, 1, 2),
        "the server and the daemon, a mount, two units\n{output}"
    );
    let (output, done) = script_run.run("provision", &root);
    assert!(done, "scripts/provision failed the second time\n{output}");
    assert_eq!(first, state(), "{output}");
    let sample = fs::read_dir(work.join("mnt/sample/snapshots")).unwrap().count();
    assert_eq!(sample, 4);

    let (output, done) = script_run.run("provision", &[&root[..], &["--down"]].concat());
    assert!(done, "scripts/provision --down failed\n{output}");
    assert_eq!((script_run.processes(), script_run.mounts()), (vec![], vec![]), "{output}");
}

#[test]
fn impossible_requests_are_errors_of_one_line() {
    let script_run = ScriptRun::new();
    fs::create_dir(script_run.work()).unwrap();
    fs::write(script_run.work().join("something"), "").unwrap();
    let work = script_run.work().to_str().unwrap().to_owned();
    let cases: [(&str, &[&str], &str); 4] = [
        ("runbook", &["--work", &work], "is not empty"),
        ("runbook", &["--wrok"], "usage: scripts/runbook"),
        ("provision", &["--root", "/tmp/a b"], "are not possible"),
        ("provision", &["--rot"], "usage: scripts/provision"),
    ];
    for (script, args, wanted) in cases {
        let (output, done) = script_run.run(script, args);
        assert!(!done && output.lines().count() == 1 && output.contains(wanted), "{script} {args:?}: {output}");
    }
}
