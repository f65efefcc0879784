//! Processes that wait for a store that does not answer: a signal ends them at once, and a mount ends although they
//! wait.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::{Pid, Signal, kill_process};

use super::world::{World, eventually, fetched, is_volume, put};
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::Dupfs;
use crate::support::mount::{Mount, is_mounted, release};
use crate::support::proxy::{Fault, mix};
use crate::support::{Scratch, dump, noise};

/// Upper bound for about one second, on a machine that is busy with other tests. The store stays silent for longer.
const SOON: Duration = Duration::from_secs(20);
/// Upper bound of the time in which `dupfs umount` and SIGTERM end a mount whose store hangs.
const UNMOUNTED: Duration = Duration::from_secs(5);
/// Upper bound of the time until a process waits.
const STARTED: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65_534;

/// A backup of files that do not compress, in volumes of 1 MB, and of a compressed one.
fn backup() -> &'static Path {
    static BACKUP: OnceLock<(Scratch, PathBuf)> = OnceLock::new();
    let (_, dir) = BACKUP.get_or_init(|| {
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        for i in 0..8 {
            fs::write(source.join(format!("noise-{i}")), noise(i, 1_500_000)).unwrap();
        }
        let mut packed = GzEncoder::new(File::create(source.join("dump.sql.gz")).unwrap(), Compression::fast());
        Write::write_all(&mut packed, &[dump(1, 400_000), noise(9, 2_000_000)].concat()).unwrap();
        packed.finish().unwrap();
        let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r")).option("--volsize=1");
        repo.backup(true, &source, 1_700_000_000);
        let dir = repo.dir().to_owned();
        (scratch, dir)
    });
    dir
}

/// A store that can be made silent, and the program with timeouts that are too long to matter.
fn world() -> (World, Dupfs) {
    let world = World::new();
    put(backup(), &world.disk("bucket/p"));
    let dupfs = world.reader().option("--timeout=600").option("--memory=8M");
    (world, dupfs)
}

fn silent(world: &World) {
    world.proxy.set_plan(|_| Some(Fault::Stall(0)));
}

fn answers(world: &World) {
    world.proxy.set_plan(|_| None);
}

/// Starts `command`, and returns once its request has reached the store and is not answered.
fn waits(world: &World, command: &mut Command) -> Child {
    let faults = world.proxy.faults();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(&format!("{command:?} waits"), STARTED, || {
        assert_eq!(child.try_wait().unwrap(), None, "{command:?} has ended by itself");
        world.proxy.faults() > faults
    });
    child
}

fn ended(what: &str, child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually(what, SOON, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

fn send(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// A mount in the foreground of `process`. It ends when this is dropped, also if the test fails.
struct ForegroundMount {
    process: Child,
    dir: PathBuf,
}

impl Drop for ForegroundMount {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        release(&self.dir);
    }
}

/// The program that `wrapper` has started as its only child.
fn only_child(wrapper: u32) -> u32 {
    let list = format!("/proc/{wrapper}/task/{wrapper}/children");
    let mut found = None;
    eventually("the wrapper has started its program", STARTED, || {
        found = fs::read_to_string(&list).unwrap().split_whitespace().next().map(|pid| pid.parse().unwrap());
        found.is_some()
    });
    found.unwrap()
}

/// Waits until no connection waits for the store.
fn nothing_waits(world: &World) {
    // The client retains idle connections for a while. A stalled one is not idle and is closed.
    eventually("no request waits for the store", SOON, || world.proxy.stalled() == 0);
}

/// Reads all files but `noise-0` and drops their pages and blocks, so that `noise-0` must be fetched again.
fn forget_first(shown: &Path) {
    for i in 0..8 {
        assert!(fs::read(shown.join(format!("noise-{i}"))).unwrap() == noise(i, 1_500_000));
    }
    let file = File::open(shown.join("noise-0")).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn sizes_are_found_ahead_of_a_program_that_asks_in_order_until_it_stops() {
    let (world, _) = world();
    let mount = world.mount(&world.reader().option("--timeout=600"), "bucket/p");
    let latest = mount.path().join("latest");
    let first = fs::metadata(latest.join("noise-0")).unwrap();
    assert_eq!(first.len(), 1_500_000);
    let known = fetched(&world.proxy.log());
    world.proxy.set_plan(|request| is_volume(request).then_some(Fault::Stall(0)));
    // The second question in the order of the listing: its own volume, and two for the files after it.
    let mut asking = waits(&world, &mut command("stat", &[&latest.join("noise-1")]));
    eventually("three volumes are fetched", STARTED, || world.proxy.stalled() >= 3);
    send(asking.id(), Signal::KILL);
    asking.wait().unwrap();
    nothing_waits(&world);
    let volumes: BTreeSet<_> = fetched(&world.proxy.log()).into_iter().filter(|name| !known.contains(name)).collect();
    assert_eq!(volumes.len(), 3, "{volumes:?}");
    answers(&world);
    for i in 1..8 {
        assert_eq!(fs::metadata(latest.join(format!("noise-{i}"))).unwrap().len(), 1_500_000);
    }
    mount.unmount();
}

fn command(program: &str, operands: &[&Path]) -> Command {
    let mut command = Command::new(program);
    command.args(operands);
    command
}

/// Runs `plain` in the environment that `wrapped` makes, and ends it by `signal` while it waits. Adds the time that this takes to
/// `times`.
fn ends(
    world: &World,
    times: &mut Vec<Duration>,
    what: &str,
    plain: Command,
    wrapped: &dyn Fn(Command) -> Command,
    signal: Signal,
) -> ExitStatus {
    let program = plain.get_program().to_owned();
    let mut command = wrapped(plain);
    let mut child = waits(world, &mut command);
    // setpriv becomes the program. unshare starts a shell as the first process of the namespace, which starts the
    // program.
    let direct = command.get_program() != "unshare";
    let process = if direct { child.id() } else { only_child(only_child(child.id())) };
    let start = Instant::now();
    send(process, signal);
    let status = ended(&format!("{what} after {signal:?}"), &mut child);
    let time = start.elapsed();
    println!("{what} ({program:?}) {signal:?}: {} ms", time.as_millis());
    times.push(time);
    nothing_waits(world);
    assert!(!direct || status.code().is_some() || status.signal() == Some(signal.as_raw()), "{what}: {status:?}");
    status
}

/// Requires that most of the waits ended within a second: a single one may be slower on a machine that is busy with other tests.
fn assert_soon(mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_secs(1), "{median:?} in the middle of {times:?}");
}

const SIGNALS: [Signal; 2] = [Signal::INT, Signal::KILL];

/// Ends first-time lookups of names, sizes and content.
fn finding_ends(world: &World, times: &mut Vec<Duration>, mount: &Path, wrapped: &dyn Fn(Command) -> Command) {
    let shown = mount.join("latest");
    silent(world);
    for signal in SIGNALS {
        assert!(!ends(world, times, "readdir", command("ls", &[&shown.join("")]), wrapped, signal).success());
    }
    answers(world);
    assert!(wrapped(command("ls", &[&shown.join("")])).stdout(Stdio::null()).status().unwrap().success());
    silent(world);
    for signal in SIGNALS {
        for (what, program, file) in [
            ("stat", "stat", shown.join("noise-7")),
            ("open", "cat", shown.join("noise-6")),
            ("unpacked", "cat", mount.join("unpacked/latest/dump.sql")),
        ] {
            assert!(!ends(world, times, what, command(program, &[&file]), wrapped, signal).success());
        }
    }
    answers(world);
}

/// Ends reads of a file that is open.
fn reading_ends(world: &World, times: &mut Vec<Duration>, mount: &Path, wrapped: &dyn Fn(Command) -> Command) {
    let shown = mount.join("latest");
    let file = shown.join("noise-0");
    // As `forget_first`, by a process that may read the mount.
    let forget = "import os,sys\nfor i in range(8): open(f'{sys.argv[1]}/noise-{i}','rb').read()\n\
                  f=os.open(sys.argv[1]+'/noise-0',os.O_RDONLY)\nos.posix_fadvise(f,0,0,os.POSIX_FADV_DONTNEED)";
    let mut python = Command::new("python3");
    python.args(["-c", forget]).arg(&shown);
    assert!(wrapped(python).status().unwrap().success());
    silent(world);
    for signal in SIGNALS {
        assert!(!ends(world, times, "read", command("cat", &[&file]), wrapped, signal).success());
        assert!(!ends(world, times, "cp", command("cp", &[&file, Path::new("/dev/null")]), wrapped, signal).success());
        let map = format!(
            "import mmap,signal\nsignal.signal(2,signal.SIG_DFL)\nf=open({file:?},'rb')\nm=mmap.mmap(f.fileno(),0,prot=1)\nm[0]"
        );
        let direct = format!(
            "import mmap,os,signal\nsignal.signal(2,signal.SIG_DFL)\nf=os.open({file:?},os.O_RDONLY|os.O_DIRECT)\n\
             os.preadv(f,[mmap.mmap(-1,16384)],65536)"
        );
        let random = format!(
            "import os,signal\nsignal.signal(2,signal.SIG_DFL)\nf=os.open({file:?},os.O_RDONLY)\n\
             os.posix_fadvise(f,0,0,os.POSIX_FADV_RANDOM)\nos.pread(f,16384,65536)"
        );
        for (what, script) in [("mmap", map), ("O_DIRECT", direct), ("random", random)] {
            let mut python = Command::new("python3");
            python.args(["-c", &script]);
            assert!(!ends(world, times, what, python, wrapped, signal).success());
        }
    }
    // A program that handles SIGINT: its wait ends, and so its handler runs.
    let script = format!("import sys\ntry:\n  open({file:?},'rb').read()\nexcept KeyboardInterrupt:\n  sys.exit(9)");
    let mut python = Command::new("python3");
    python.args(["-c", &script]);
    assert_eq!(ends(world, times, "handled", python, wrapped, Signal::INT).code(), Some(9));
    answers(world);
    let expected = world.scratch.path().join("expected");
    fs::write(&expected, noise(0, 1_500_000)).unwrap();
    assert!(wrapped(command("cmp", &[&file, &expected])).status().unwrap().success(), "afterwards");
}

#[test]
fn a_signal_ends_each_wait_for_a_silent_store() {
    let (world, dupfs) = world();
    let mount = world.mount(&dupfs, "bucket/p");
    let mut times = Vec::new();
    finding_ends(&world, &mut times, mount.path(), &|plain| plain);
    reading_ends(&world, &mut times, mount.path(), &|plain| plain);
    assert_soon(times);
    mount.unmount();
}

/// A program of two threads: one calls stat on its argument. Once a line comes in, the other has children that end while it blocks
/// SIGCHLD, as posix_spawn(3) does for a moment; then it prints a line. The exit code is 9 if stat fails.
const CHILDREN_END: &str = "
import os,signal,sys,threading
def stat():
    try: os.stat(sys.argv[1])
    except OSError as error: print(error,file=sys.stderr); os._exit(9)
    os._exit(0)
threading.Thread(target=stat).start()
signal.pthread_sigmask(signal.SIG_BLOCK,[signal.SIGCHLD])
sys.stdin.readline()
for i in range(20):
    child=os.fork()
    if child==0: os._exit(0)
    os.waitpid(child,0)
print('ready',flush=True)
signal.pause()
";

#[test]
fn a_child_that_ends_does_not_end_the_wait_of_another_thread() {
    let (world, dupfs) = world();
    let mount = world.mount(&dupfs, "bucket/p");
    silent(&world);
    let faults = world.proxy.faults();
    let mut python = Command::new("python3");
    python.args(["-c", CHILDREN_END]).arg(mount.path().join("latest/noise-3"));
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the thread waits", STARTED, || world.proxy.faults() > faults);
    writeln!(python.stdin.take().unwrap()).unwrap();
    let mut line = String::new();
    BufReader::new(python.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // The daemon reads later requests after the interrupt. These need no store.
    (0..20).for_each(|i| drop(fs::symlink_metadata(mount.path().join(format!("no-such-name-{i}")))));
    answers(&world);
    world.proxy.end_stalled();
    assert_eq!(ended("the program", &mut python).code(), Some(0));
    mount.unmount();
}

#[test]
fn a_signal_ends_each_wait_on_the_mount_of_an_ordinary_user() {
    let (world, dupfs) = world();
    let home = world.scratch.dir("nobody");
    let program = home.join("dupfs");
    fs::copy(env!("CARGO_BIN_EXE_dupfs"), &program).unwrap();
    for path in [home.as_path(), world.scratch.path()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let id = NOBODY.to_string();
    let dupfs = dupfs.with_user(NOBODY, &program).variable("HOME", home.to_str().unwrap());
    let dir = world.scratch.dir("mnt");
    let mount = Mount::new(&dupfs, "s3://bucket/p", &dir);
    let wrapped = |plain: Command| {
        let mut command = Command::new("setpriv");
        // Programs in a home directory are not for other users.
        command.env("PATH", "/usr/bin:/bin");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        command.arg(plain.get_program()).args(plain.get_args());
        command
    };
    let mut times = Vec::new();
    finding_ends(&world, &mut times, mount.path(), &wrapped);
    reading_ends(&world, &mut times, mount.path(), &wrapped);
    assert_soon(times);
    mount.unmount();
}

#[test]
fn a_signal_ends_each_wait_in_a_pid_namespace_below() {
    let (world, dupfs) = world();
    let mount = world.mount(&dupfs, "bucket/p");
    let wrapped = |plain: Command| {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "sh", "-c", "\"$@\"; exit $?", "sh"])
            .arg(plain.get_program())
            .args(plain.get_args());
        command
    };
    let mut times = Vec::new();
    finding_ends(&world, &mut times, mount.path(), &wrapped);
    reading_ends(&world, &mut times, mount.path(), &wrapped);
    assert_soon(times);
    mount.unmount();
}

#[test]
fn a_signal_ends_a_wait_that_the_daemon_cannot_see() {
    let (world, dupfs) = world();
    let dir = world.scratch.dir("mnt");
    let inner = dupfs.command("mount");
    let mut outer = Command::new("unshare");
    outer.args(["--pid", "--fork", "--kill-child"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        outer.env(name, value);
    }
    let daemon = outer.arg("-f").arg("s3://bucket/p").arg(&dir).stdin(Stdio::null()).spawn().unwrap();
    let mut daemon = ForegroundMount { process: daemon, dir: dir.clone() };
    eventually("the mount is there", STARTED, || is_mounted(&dir));
    let mut times = Vec::new();
    finding_ends(&world, &mut times, &dir, &|plain| plain);
    assert_soon(times);
    // A read in the readahead gets no interrupt; the end of the process closes the file.
    forget_first(&dir.join("latest"));
    silent(&world);
    let mut reader = waits(&world, &mut command("cat", &[&dir.join("latest/noise-0")]));
    send(reader.id(), Signal::INT);
    assert_eq!(ended("the reader", &mut reader).signal(), Some(Signal::INT.as_raw()));
    nothing_waits(&world);
    // A process that shares the open file is not disturbed when another closes it.
    let script = "exec 3<\"$1\"; cat <&3 >\"$2\" & exec 3<&-; wait $!";
    let copy = world.scratch.path().join("copy");
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(dir.join("latest/noise-0")).arg(&copy);
    let mut sharing = waits(&world, &mut shell);
    answers(&world);
    world.proxy.end_stalled();
    assert!(ended("the copy", &mut sharing).success());
    assert!(fs::read(&copy).unwrap() == noise(0, 1_500_000));
    answers(&world);
    release(&dir);
    assert!(ended("the daemon", &mut daemon.process).success());
}

#[test]
fn umount_and_sigterm_end_a_mount_whose_store_is_silent() {
    let (world, dupfs) = world();
    for by_signal in [true, false] {
        let mount = world.mount(&dupfs, "bucket/p");
        let shown = mount.path().join("latest");
        silent(&world);
        let mut reader = waits(&world, &mut command("ls", &[&shown.join("")]));
        if !by_signal {
            send(reader.id(), Signal::KILL);
            ended("the reader", &mut reader);
        }
        let start = Instant::now();
        if by_signal {
            send(mount.pid(), Signal::TERM);
        } else {
            let mut umount = Command::new(env!("CARGO_BIN_EXE_dupfs"));
            assert!(umount.arg("umount").arg(mount.path()).status().unwrap().success());
        }
        let status = mount.exits(UNMOUNTED.saturating_sub(start.elapsed()));
        println!("by signal: {by_signal}, after {:?}", start.elapsed());
        assert!(status.is_some_and(|status| status.success()), "{status:?} after {:?}", start.elapsed());
        assert!(!is_mounted(mount.path()));
        assert!(!ended("the reader", &mut reader).success());
        answers(&world);
    }
}

/// Starts `script` with `args`, and returns once it has printed a line.
fn reported(script: &str, args: &[&Path]) -> Child {
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// A backup of `content` under `name`, in volumes of 4 MB.
fn large(world: &World, name: &str, content: &[u8]) {
    let source = world.scratch.dir("source");
    fs::write(source.join(name), content).unwrap();
    let repo = Repository::new("0.8.22", |_| Mode::Gzip, &world.scratch.dir("r")).option("--volsize=4");
    repo.backup(true, &source, 1_700_000_000);
    put(repo.dir(), &world.disk("bucket/large"));
}

/// Reads the first volume of `shown`, a file in a mount of [`large`], and runs `end` while the next volume is prefetched for the
/// process, which has executed `then`.
fn while_prefetching(world: &World, shown: &str, then: &str, end: impl FnOnce(&mut Child, Mount)) {
    let dupfs = world.reader().option("--timeout=600").option("--memory=64M");
    let mount = world.mount(&dupfs, "bucket/large");
    let file = mount.path().join(shown);
    for stored in fs::read_dir(mount.path().join("latest")).unwrap() {
        stored.unwrap().metadata().unwrap();
    }
    // Another process has the file open too.
    let other = File::open(&file).unwrap();
    world
        .proxy
        .set_plan(|request| (is_volume(request) && !request.target.contains(".vol1.")).then_some(Fault::Stall(0)));
    let script = format!(
        "import os,sys,time\nf=os.open(sys.argv[1],os.O_RDONLY)\nos.posix_fadvise(f,0,0,os.POSIX_FADV_RANDOM)\n\
         for i in range(15): os.pread(f,100000,100000*i)\n{then}\nprint('ready',flush=True)\ntime.sleep(600)"
    );
    let mut reader = reported(&script, &[&file]);
    eventually("a volume is prefetched", STARTED, || world.proxy.stalled() > 0);
    drop(other);
    end(&mut reader, mount);
    answers(world);
}

fn prefetching_ends_with_its_reader(world: &World, shown: &str, then: &str) {
    while_prefetching(world, shown, then, |reader, mount| {
        send(reader.id(), Signal::KILL);
        ended("the reader", reader);
        nothing_waits(world);
        mount.unmount();
    });
}

#[test]
fn prefetching_for_a_process_that_is_gone_stops() {
    let (world, _) = world();
    large(&world, "noise", &noise(5, 16_000_000));
    prefetching_ends_with_its_reader(&world, "latest/noise", "");
    // The process exits between two files.
    prefetching_ends_with_its_reader(&world, "latest/noise", "os.close(f)");
}

#[test]
fn prefetching_for_an_unpacking_process_that_is_gone_stops() {
    let (world, _) = world();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    Write::write_all(&mut packed, &noise(6, 16_000_000)).unwrap();
    large(&world, "noise.gz", &packed.finish().unwrap());
    prefetching_ends_with_its_reader(&world, "unpacked/latest/noise", "");
}

#[test]
fn prefetching_continues_for_a_process_between_two_files() {
    let (world, _) = world();
    large(&world, "noise", &noise(5, 16_000_000));
    while_prefetching(&world, "latest/noise", "os.close(f)\ntime.sleep(1.5)", |reader, mount| {
        assert!(world.proxy.stalled() > 0, "the process may continue with the next file");
        // It waits for nothing, so the mount ends although the store does not answer.
        let start = Instant::now();
        send(mount.pid(), Signal::TERM);
        assert!(mount.exits(UNMOUNTED).is_some_and(|status| status.success()), "{}", mount.log());
        println!("prefetching: {} ms", start.elapsed().as_millis());
        reader.kill().unwrap();
        ended("the reader", reader);
    });
}

#[test]
fn sigterm_ends_a_mount_that_prefetches_for_an_open_file() {
    let (world, _) = world();
    large(&world, "noise", &noise(5, 16_000_000));
    while_prefetching(&world, "latest/noise", "", |reader, mount| {
        let start = Instant::now();
        send(mount.pid(), Signal::TERM);
        assert!(mount.exits(UNMOUNTED).is_some_and(|status| status.success()), "{}", mount.log());
        println!("prefetching for an open file: {} ms", start.elapsed().as_millis());
        reader.kill().unwrap();
        ended("the reader", reader);
    });
}

#[test]
fn the_bytes_before_an_interrupt_are_not_fetched_again() {
    const CAME: u64 = 700_000;
    let (world, dupfs) = world();
    let mount = world.mount(&dupfs, "bucket/p");
    let shown = mount.path().join("latest");
    forget_first(&shown);
    world.proxy.clear_log();
    // The first volume comes in part.
    world.proxy.set_plan(|request| Some(Fault::Stall(if request.number == 0 { CAME } else { 0 })));
    let fetched = || number_before(&xattr(mount.path(), "user.dupfs.cost"), " bytes fetched");
    let before = fetched();
    let mut reader = waits(&world, &mut command("cat", &[&shown.join("noise-0")]));
    eventually("the part has come", STARTED, || fetched() >= before + CAME);
    send(reader.id(), Signal::KILL);
    ended("the reader", &mut reader);
    nothing_waits(&world);
    answers(&world);
    let interrupted = world.proxy.log();
    assert!(fs::read(shown.join("noise-0")).unwrap() == noise(0, 1_500_000));
    let log = world.proxy.log();
    let first = &interrupted[0];
    let again = log[interrupted.len()..].iter().filter(|request| request.target == first.target);
    let ranges: Vec<_> = again.map(|request| request.range.unwrap()).collect();
    assert_eq!(ranges, [(CAME, first.range.unwrap().1)], "the rest alone is fetched");
    mount.unmount();
}

/// The number in front of `unit`.
fn number_before(text: &str, unit: &str) -> u64 {
    text.split(unit).next().unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

fn xattr(path: &Path, name: &str) -> String {
    let mut value = [0; 4096];
    let len = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
    String::from_utf8(value[..len].to_vec()).unwrap()
}

/// The kernel's connection of a mount: the number of requests that wait for the daemon.
struct Connection {
    dir: PathBuf,
    id: u32,
}

impl Connection {
    fn new(world: &World, mount: &Path) -> Self {
        let dir = world.scratch.dir("fusectl");
        let status = Command::new("mount").args(["-t", "fusectl", "none"]).arg(&dir).status().unwrap();
        assert!(status.success());
        Self { dir, id: rustix::fs::minor(rustix::fs::stat(mount).unwrap().st_dev) }
    }

    fn waiting(&self) -> u32 {
        let file = self.dir.join(self.id.to_string()).join("waiting");
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.dir).status();
    }
}

/// The names of the threads of `process` that work for single requests: they end with them.
fn working_threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    // As the kernel shortens them.
    let working = ["volume", "prefetch", "tree", "chain", "signature", "manifest", "members", "decrypt"];
    let works = |name: &String| working.iter().any(|work| name.strip_prefix("dupfs-") == Some(work));
    names.map(|name| name.trim().to_owned()).filter(works).collect()
}

#[test]
fn random_kills_leak_nothing() {
    let rounds = if std::env::var_os("DUPFS_TEST_ROUNDS").is_some() { 200 } else { 20 };
    let (world, dupfs) = world();
    let mount = world.mount(&dupfs, "bucket/p");
    let connection = Connection::new(&world, mount.path());
    let shown = mount.path().join("latest");
    forget_first(&shown);
    for round in 0..rounds {
        let random = mix(round);
        // Requests are answered fully, partly or not at all, at random.
        world.proxy.set_plan(move |request| match mix(random ^ request.number) % 3 {
            0 => None,
            1 => Some(Fault::Stall(0)),
            _ => Some(Fault::Stall(mix(request.number) % 900_000)),
        });
        let file = shown.join(format!("noise-{}", random % 8));
        let mut child = match (random >> 8) % 4 {
            0 => command("cat", &[&file]),
            1 => command("stat", &[&file]),
            2 => command("cat", &[&mount.path().join("unpacked/latest/dump.sql")]),
            _ => command("ls", &[&shown.join("")]),
        }
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        std::thread::sleep(Duration::from_millis((random >> 16) % 60));
        if child.try_wait().unwrap().is_none() {
            send(child.id(), if random >> 32 & 1 == 0 { Signal::INT } else { Signal::KILL });
        }
        ended(&format!("round {round}"), &mut child);
    }
    eventually("no request waits for the daemon", SOON, || connection.waiting() == 0);
    nothing_waits(&world);
    eventually("no thread works", SOON, || working_threads(mount.pid()).is_empty());
    answers(&world);
    for i in 0..8 {
        assert!(fs::read(shown.join(format!("noise-{i}"))).unwrap() == noise(i, 1_500_000), "noise-{i} afterwards");
    }
    drop(connection);
    mount.unmount();
}

/// Ends a mount in the foreground by SIGTERM, in a state that `prepare` makes. Its processes end with the result.
fn sigterm_ends(what: &str, prepare: impl FnOnce(&World, &Mount) -> Vec<Child>) {
    let (world, dupfs) = world();
    let mount = world.mount(&dupfs.option("--refresh=1"), "bucket/p");
    forget_first(&mount.path().join("latest"));
    let mut processes = prepare(&world, &mount);
    let start = Instant::now();
    send(mount.pid(), Signal::TERM);
    let status = mount.exits(UNMOUNTED);
    println!("{what}: {} ms", start.elapsed().as_millis());
    assert!(status.is_some_and(|status| status.success()), "{what}: {status:?}\n{}", mount.log());
    assert!(!is_mounted(mount.path()), "{what}");
    for process in &mut processes {
        let _ = process.kill();
        ended(what, process);
    }
}

#[test]
fn sigterm_ends_a_mount_with_a_silent_store_in_each_state() {
    let first = |mount: &Mount| mount.path().join("latest/noise-0");
    sigterm_ends("refresh", |world, _| {
        let faults = world.proxy.faults();
        silent(world);
        eventually("the store is listed again", STARTED, || world.proxy.faults() > faults);
        Vec::new()
    });
    // The others take some seconds each.
    if std::env::var_os("DUPFS_TEST_ROUNDS").is_none() {
        return;
    }
    sigterm_ends("many readers", |world, mount| {
        silent(world);
        let mut readers = vec![waits(world, &mut command("cat", &[&first(mount)]))];
        for i in 1..50 {
            let mut dd = Command::new("dd");
            dd.arg(format!("if={}", mount.path().join(format!("latest/noise-{}", i % 8)).display()));
            dd.arg(format!("skip={}", i * 7)).args(["bs=4096", "count=1"]);
            readers.push(dd.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        readers
    });
    sigterm_ends("detached", |world, mount| {
        silent(world);
        let reader = waits(world, &mut command("cat", &[&first(mount)]));
        let umount = |lazy: bool| {
            let mut umount = Command::new(env!("CARGO_BIN_EXE_dupfs"));
            umount.arg("umount").args(lazy.then_some("--lazy")).arg(mount.path());
            umount.stderr(Stdio::null()).status().unwrap().success()
        };
        assert!(!umount(false), "it is in use");
        assert!(umount(true));
        vec![reader]
    });
    sigterm_ends("busy", |world, mount| {
        silent(world);
        let mut sleep = Command::new("sleep");
        let sleeping = sleep.arg("600").current_dir(mount.path().join("latest")).spawn().unwrap();
        vec![sleeping, waits(world, &mut command("cat", &[&first(mount)]))]
    });
}

#[test]
fn sigterm_ends_the_start_of_a_mount_with_a_silent_store() {
    let (world, dupfs) = world();
    let dir = world.scratch.dir("mnt");
    silent(&world);
    for in_foreground in [true, false] {
        let mut mount = dupfs.command("mount");
        mount.args(in_foreground.then_some("-f")).arg("s3://bucket/p").arg(&dir);
        let mut mount = waits(&world, &mut mount);
        let daemon = if in_foreground { mount.id() } else { only_child(mount.id()) };
        send(mount.id(), Signal::TERM);
        ended("the command", &mut mount);
        eventually("the daemon has ended", SOON, || {
            rustix::process::test_kill_process(Pid::from_raw(daemon.try_into().unwrap()).unwrap()).is_err()
        });
        nothing_waits(&world);
        assert!(!is_mounted(&dir));
    }
}

/// The error has the time that was waited for.
#[test]
fn opening_a_silent_store_ends_at_the_deadline() {
    let (world, dupfs) = world();
    silent(&world);
    let mnt = world.scratch.dir("mnt");
    let (url, shown) = ("s3://bucket/p", mnt.to_str().unwrap());
    let fails = |dupfs: &Dupfs, command: &str, operands: &[&str], waited: &str| {
        let (code, error) = dupfs.fails(command, operands);
        assert_eq!(code, Some(1), "{command}: {error}");
        assert!(error.contains(&format!("no answer within {waited} s")), "{command}: {error}");
    };
    let with_deadline = dupfs.option("--deadline=1");
    for (command, operands) in
        [("sets", vec![url]), ("ls", vec![url]), ("cat", vec![url, "noise-0"]), ("find", vec![url, "noise-0"])]
    {
        fails(&with_deadline, command, &operands, "1");
    }
    fails(&with_deadline, "mount", &[url, shown], "1");
    assert!(!is_mounted(&mnt));
}
