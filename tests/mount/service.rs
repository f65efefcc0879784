//! The program as a service: notifications to a socket, credentials, priorities for the journal, and the units of `packaging/`.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Scratch;
use crate::support::exec::{Dupfs, output, run};
use crate::support::mount::{is_mounted, release, require_fuse};

/// Upper bound of every wait.
const LIMIT: Duration = Duration::from_secs(60);

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn url() -> String {
    format!("file://{}", in_repository("samples/backup").display())
}

/// The next message to the service manager that has a line which starts with `part`.
fn next(socket: &UnixDatagram, part: &str) -> String {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    loop {
        let mut buffer = [0; 4000];
        let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {part}: {error}"));
        let message = String::from_utf8(buffer[..len].to_vec()).unwrap();
        if message.lines().any(|line| line.starts_with(part)) {
            return message;
        }
    }
}

/// Credentials as `LoadCredential=` gives them.
fn credentials(scratch: &Scratch) -> PathBuf {
    let directory = scratch.dir("credentials");
    fs::copy(in_repository("samples/demo-key.secret.asc"), directory.join("dupfs.secret-key")).unwrap();
    fs::copy(in_repository("samples/demo-passphrase"), directory.join("dupfs.passphrase")).unwrap();
    directory
}

/// A process that is ended, and its mount point, which is unmounted.
struct Service<'a>(Child, &'a Path);

impl Drop for Service<'_> {
    fn drop(&mut self) {
        release(self.1);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_reports_each_state_and_is_listed_again_by_sighup() {
    require_fuse();
    let scratch = Scratch::new();
    let socket = UnixDatagram::bind(scratch.path().join("notify")).unwrap();
    let (mnt, log) = (scratch.dir("mnt"), scratch.path().join("log"));
    let stderr = fs::File::create(&log).unwrap();
    let meta = stderr.metadata().unwrap();
    let mut command = Dupfs::new(scratch.path()).command("mount");
    command.args(["-v", "-f", &url()]).arg(&mnt).stdin(Stdio::null()).stderr(stderr);
    command.env("NOTIFY_SOCKET", scratch.path().join("notify")).env("WATCHDOG_USEC", "200000");
    command.env("CREDENTIALS_DIRECTORY", credentials(&scratch));
    command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    let mut service = Service(command.spawn().unwrap(), &mnt);
    let pid = service.0.id();

    assert!(next(&socket, "STATUS=").contains("opening the backup"));
    let ready = next(&socket, "READY=1");
    assert!(is_mounted(&mnt));
    assert!(ready.contains(&format!("MAINPID={pid}\n")) && ready.contains("STATUS=4 snapshots, newest "), "{ready}");
    for _ in 0..2 {
        next(&socket, "WATCHDOG=1");
    }
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::HUP).unwrap();
    next(&socket, "RELOADING=1");
    next(&socket, "READY=1");
    assert!(fs::read_dir(mnt.join("latest")).unwrap().count() > 0);
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
    next(&socket, "STOPPING=1");
    assert!(service.0.wait().unwrap().success());
    assert!(!is_mounted(&mnt));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.lines().count() > 1 && log.lines().all(|line| line.starts_with("<6>info: ")), "{log}");
}

/// Mounts in the foreground by the arguments of the script, and leaves the mount to itself once it answers.
const IN_FOREGROUND: &str = "\"$@\" -f >/dev/null 2>&1 & for mnt; do :; done; \
                             until mountpoint -q \"$mnt\"; do kill -0 $! && sleep 0.1 || exit 1; done";

/// Runs `script` by `shell` with a command that mounts on `mnt` below `scratch` as its arguments, and the notifications go to
/// the abstract socket `name`.
fn mount_by(shell: &Path, script: &str, scratch: &Scratch, name: &str) {
    let own = Dupfs::new(scratch.path()).command("mount");
    let mut command = Command::new(shell);
    command.args(["-c", script, "sh"]).arg(own.get_program()).args(own.get_args()).arg(url()).arg(scratch.dir("mnt"));
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env_remove("SYSTEMD_EXEC_PID").env_remove("INVOCATION_ID");
    run(command.env("NOTIFY_SOCKET", format!("@{name}")).env("CREDENTIALS_DIRECTORY", credentials(scratch)));
}

/// The process that serves the mount.
fn daemon_of(mnt: &Path) -> String {
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(mnt, "user.dupfs.pid", &mut value).unwrap();
    std::str::from_utf8(&value[..len]).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn under_a_systemd_before_248_a_mount_reports_only_if_its_parent_is_systemd() {
    require_fuse();
    let scratch = Scratch::new();
    let name = format!("dupfs-test-old-manager-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let (mnt, dupfs) = (scratch.dir("mnt"), Dupfs::new(scratch.path()));
    // A shell with the name of the manager.
    let manager = scratch.path().join("systemd");
    fs::copy("/bin/sh", &manager).unwrap();
    for form in [IN_FOREGROUND, "\"$@\"; true"] {
        let script = format!("INVOCATION_ID=1; export INVOCATION_ID; {form}");
        mount_by(&manager, &script, &scratch, &name);
        let ready = next(&socket, "READY=1");
        assert!(ready.contains(&format!("MAINPID={}\n", daemon_of(&mnt))), "{form}: {ready}");
        dupfs.run("umount", &[mnt.to_str().unwrap()]);
        // All messages of this mount have been sent, because its process has ended.
        socket.set_nonblocking(true).unwrap();
        while socket.recv(&mut [0; 4000]).is_ok() {}

        mount_by(Path::new("sh"), &script, &scratch, &name);
        assert!(is_mounted(&mnt));
        dupfs.run("umount", &[mnt.to_str().unwrap()]);
        assert!(socket.recv(&mut [0; 4000]).is_err(), "{form}: a mount reported the service ready that ran it");
        socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_daemon_takes_the_place_of_the_process_that_the_manager_started_and_of_no_other() {
    require_fuse();
    let scratch = Scratch::new();
    let name = format!("dupfs-test-service-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mnt = scratch.dir("mnt");
    let dupfs = Dupfs::new(scratch.path());
    let mounted = |script: &str| mount_by(Path::new("sh"), script, &scratch, &name);
    mounted("SYSTEMD_EXEC_PID=$$ exec \"$@\"");
    let ready = next(&socket, "READY=1");
    let daemon = daemon_of(&mnt);
    assert!(ready.contains(&format!("MAINPID={daemon}\n")), "{daemon}: {ready}");
    dupfs.run("umount", &[mnt.to_str().unwrap()]);

    // All messages of the first mount have been sent, because its process has ended.
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 4000]).is_ok() {}
    mounted("SYSTEMD_EXEC_PID=$$ ; export SYSTEMD_EXEC_PID; \"$@\"");
    assert!(is_mounted(&mnt));
    dupfs.run("umount", &[mnt.to_str().unwrap()]);
    // Nor does a mount in the foreground, which stays the process that the script started.
    mounted(&format!("SYSTEMD_EXEC_PID=$$ ; export SYSTEMD_EXEC_PID; {IN_FOREGROUND}"));
    assert!(is_mounted(&mnt));
    dupfs.run("umount", &[mnt.to_str().unwrap()]);
    assert!(socket.recv(&mut [0; 4000]).is_err(), "a mount reported the service ready that ran it");
}

#[test]
fn an_error_has_the_priority_of_errors_in_the_journal() {
    let scratch = Scratch::new();
    let log = scratch.path().join("log");
    let stderr = fs::File::create(&log).unwrap();
    let meta = stderr.metadata().unwrap();
    let mut command = Dupfs::new(scratch.path()).command("ls");
    command.arg("file:///no/such/directory").stdin(Stdio::null()).stderr(stderr);
    command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    assert_eq!(command.status().unwrap().code(), Some(3));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.starts_with("<3>error: ") && log.contains("/no/such/directory") && log.lines().count() == 1, "{log}");
}

/// The overall level that docs/INSTALL.md states for the unit.
fn documented_exposure(unit: &str) -> String {
    let text = fs::read_to_string(in_repository("docs/INSTALL.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with(&format!("| `{unit}` |")));
    row.unwrap_or_else(|| panic!("no row for {unit}")).split('|').nth(2).unwrap().trim().to_owned()
}

#[test]
fn systemd_accepts_the_units_and_their_exposure_is_as_documented() {
    let scratch = Scratch::new();
    let units = |directory: &str, extensions: &[&str]| -> Vec<PathBuf> {
        let files = fs::read_dir(in_repository(directory)).unwrap().map(|entry| entry.unwrap().path());
        let is_unit = |file: &PathBuf| file.extension().is_some_and(|own| extensions.iter().any(|known| own == *known));
        files.filter(is_unit).collect()
    };
    let system = units("packaging/systemd/system", &["service", "timer"]);
    let all = [system.clone(), units("packaging/examples", &["mount", "automount"])].concat();
    let user = units("packaging/systemd/user", &["service"]);
    assert!(all.len() >= 8 && user.len() == 1, "{all:?}");
    for unit in all.iter().chain(&user) {
        // `my-repo` would become `my/repo`.
        assert!(!std::fs::read_to_string(unit).unwrap().contains("%I"), "{} unescapes the name", unit.display());
    }
    let verify = |options: &[&str], units: &[PathBuf]| {
        // The units call the installed program.
        let script = "mount -t tmpfs tmpfs .; cd \"$PWD\"; mkdir upper work; cp \"$DUPFS\" upper/dupfs\n\
                      mount -t overlay overlay -o lowerdir=/usr/bin,upperdir=upper,workdir=work /usr/bin\n\
                      exec systemd-analyze verify --man=no \"$@\"";
        let place = scratch.dir(if options.is_empty() { "system" } else { "user" });
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]).args(options).args(units);
        command.env("DUPFS", "/bin/true").env("XDG_RUNTIME_DIR", &place).current_dir(&place);
        let output = output(&mut command);
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && report.is_empty(), "{report}");
    };
    verify(&[], &all);
    verify(&["--user"], &user);
    for unit in system.iter().filter(|unit| unit.extension().is_some_and(|own| own == "service")) {
        let report = run(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(unit));
        let report = String::from_utf8(report).unwrap();
        let (_, level) = report.rsplit_once("exposure level for ").unwrap();
        let level = level.split(": ").nth(1).unwrap().split(' ').next().unwrap();
        assert_eq!(documented_exposure(unit.file_name().unwrap().to_str().unwrap()), level);
    }
}
