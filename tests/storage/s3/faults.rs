//! A bad network under a mount: reads give the right bytes or a clear error in time, and everything works again
//! afterwards.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::world::{World, eventually, put};
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::mount::Mount;
use crate::support::proxy::{Fault, mix, seeded};
use crate::support::tree::{Kind, Rules, Tree, assert_same, show};
use crate::support::{Scratch, dump, noise};

/// `--timeout` in seconds, and the resulting upper bound of the duration of one read, which may need two volumes.
const TIMEOUT: &str = "--timeout=3";
const LONGEST_READ: Duration = Duration::from_secs(25);

/// A source of 12 files of 1.5 MB that do not compress and a few others, and its backup in volumes of 4 MB.
struct Backup {
    _scratch: Scratch,
    source: PathBuf,
    repo: PathBuf,
}

fn backup() -> &'static Backup {
    static BACKUP: OnceLock<Backup> = OnceLock::new();
    BACKUP.get_or_init(|| {
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        for i in 0..12 {
            fs::write(source.join(format!("noise-{i:02}")), noise(i, 1_500_000)).unwrap();
        }
        fs::write(source.join("dump.sql"), dump(1, 400_000)).unwrap();
        let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r")).option("--volsize=4");
        repo.backup(true, &source, 1_700_000_000);
        let repo = repo.dir().to_owned();
        Backup { _scratch: scratch, source, repo }
    })
}

/// A mount of the backup with so little memory that reading again fetches again.
fn mounted(world: &World, timeout: &str) -> Mount {
    put(&backup().repo, &world.disk("bucket/p"));
    world.mount(&world.reader().option(timeout).option("--memory=8M"), "bucket/p")
}

impl World {
    /// Injects faults into `percent` of the fetches; at 100 no request succeeds.
    fn inject_faults(&self, seed: u64, percent: u64) {
        self.proxy.clear_log();
        if percent < 100 {
            self.proxy.set_plan(seeded(seed, percent));
        } else {
            let ways = [Fault::Status(503, "SlowDown"), Fault::Reset(0), Fault::Stall(0), Fault::Status(500, "")];
            self.proxy.set_plan(move |request| Some(ways[(mix(seed ^ request.number) % 4) as usize].clone()));
        }
    }

    fn is_healed(&self) {
        self.proxy.set_plan(|_| None);
    }
}

/// Reads the whole file from the daemon, not from the kernel's cache.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    drop_pages(&file);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map(|_| bytes)
}

/// Makes the kernel drop the cached pages of a file.
fn drop_pages(file: &File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Returns true for an error that a bad network explains.
fn is_clear(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ETIMEDOUT))
}

/// The numbers of resources that the daemon uses.
#[derive(Clone, Copy, Debug)]
struct Resources {
    /// Threads except for the workers, which are started on demand and retained.
    threads: usize,
    workers: usize,
    /// Open files other than sockets.
    files: usize,
    sockets: usize,
}

impl Resources {
    fn by(mount: &Mount) -> Self {
        let proc = PathBuf::from(format!("/proc/{}", mount.pid()));
        let files = fs::read_dir(proc.join("fd")).unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let (sockets, files): (Vec<_>, Vec<_>) = files.partition(|to| to.to_string_lossy().starts_with("socket:"));
        let names = fs::read_dir(proc.join("task")).unwrap();
        let names = names.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        let (workers, threads): (Vec<_>, Vec<_>) =
            names.partition(|name| ["dupfs-index", "dupfs-size", "dupfs-content"].contains(&name.trim_end()));
        Self { threads: threads.len(), workers: workers.len(), files: files.len(), sockets: sockets.len() }
    }

    /// Returns true if it is no more than `before`. Connections are retained for a while, up to the limit on
    /// concurrent ones.
    fn is_like(&self, before: &Self) -> bool {
        self.threads <= before.threads
            && self.workers <= 32
            && self.files <= before.files
            && self.sockets <= before.sockets.max(10)
    }
}

#[test]
fn reads_under_many_faults_are_right_or_fail_clearly_and_nothing_is_leaked() {
    let world = World::new();
    let mount = mounted(&world, TIMEOUT);
    let shown = mount.path().join("latest");
    assert_same("before the storms", &Tree::walk(&backup().source), &Tree::walk(&shown.join("")), &Rules::default());
    let before = Resources::by(&mount);
    assert!(before.workers > 0, "the threads of the daemon have other names");
    let (mut right, mut failed) = (0, 0);
    for seed in 0..4 {
        let faults = world.proxy.faults();
        world.inject_faults(seed, if seed == 2 { 100 } else { 60 });
        for i in (0..12).step_by(4).map(|i| (i + seed) % 12) {
            let name = format!("noise-{i:02}");
            let start = Instant::now();
            match read(&shown.join(&name)) {
                Ok(bytes) => {
                    assert!(bytes == noise(i, 1_500_000), "{name}: wrong bytes with seed {seed}");
                    right += 1;
                }
                Err(error) => {
                    assert!(is_clear(&error), "{name} with seed {seed}: {error}");
                    failed += 1;
                }
            }
            assert!(start.elapsed() < LONGEST_READ, "{name} with seed {seed} took {:?}", start.elapsed());
        }
        assert!(world.proxy.faults() > faults, "seed {seed} met no fault");
    }
    println!("{right} reads right, {failed} failed");
    assert!(right >= 6 && failed > 0, "{right} reads came through, {failed} failed");
    world.is_healed();
    for i in 0..12 {
        let name = format!("noise-{i:02}");
        assert!(read(&shown.join(&name)).unwrap() == noise(i, 1_500_000), "{name} after the storms");
    }
    assert_same("after the storms", &Tree::walk(&backup().source), &Tree::walk(&shown.join("")), &Rules::default());
    println!("{before:?} before the storms, {:?} after", Resources::by(&mount));
    let limit = Duration::from_secs(10);
    eventually("what the daemon holds is back", limit, || Resources::by(&mount).is_like(&before));
    mount.unmount();
    eventually("no connection is left", Duration::from_secs(5), || world.proxy.open_connections() == 0);
}

#[test]
fn cp_a_under_faults_copies_correctly_or_reports_each_failure() {
    let world = World::new();
    let mount = mounted(&world, "--timeout=1");
    let shown = mount.path().join("latest/");
    let source = Tree::walk(&backup().source);
    let copy = |name: &str| {
        (0..12).for_each(|i| drop_pages(&File::open(shown.join(format!("noise-{i:02}"))).unwrap()));
        let dest = world.scratch.path().join(name);
        let output = exec::output(Command::new("cp").arg("-a").arg(&shown).arg(&dest).env("LC_ALL", "C"));
        (dest, output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Many faults, then one volume that cannot be fetched.
    for calm in [false, true] {
        world.inject_faults(11, 25);
        if calm {
            world.proxy.set_plan(|request| request.target.contains(".vol2.").then_some(Fault::Status(503, "SlowDown")));
        }
        let (dest, done, stderr) = copy(if calm { "without-a-volume" } else { "in-a-storm" });
        let clear = |line: &str| line.ends_with("Input/output error") || line.ends_with("Connection timed out");
        assert!(done == stderr.is_empty() && stderr.lines().all(clear), "{stderr}");
        assert!(!(calm && done), "the volume was not needed");
        for (path, _) in source.entries.iter().filter(|(path, e)| e.kind == Kind::File && !stderr.contains(&show(path)))
        {
            let name = dest.join(show(path));
            assert!(fs::read(name).unwrap() == fs::read(source.locate(path)).unwrap(), "{} is wrong", show(path));
        }
    }
    // The failed files can be read afterwards, without a remount.
    world.is_healed();
    let (dest, done, stderr) = copy("afterwards");
    assert!(done, "{stderr}");
    assert_same("cp -a afterwards", &source, &Tree::walk(&dest), &Rules::default());
    mount.unmount();
}

#[test]
fn cat_under_faults_gives_all_bytes_or_fails() {
    let world = World::new();
    put(&backup().repo, &world.disk("bucket/p"));
    let dupfs = world.reader().option(TIMEOUT);
    let mut right = 0;
    for seed in 20..24 {
        world.inject_faults(seed, if seed == 22 { 100 } else { 40 });
        let start = Instant::now();
        let output = exec::output(dupfs.command("cat").args(["s3://bucket/p", "noise-05"]));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(start.elapsed() < LONGEST_READ * 2, "seed {seed} took {:?}", start.elapsed());
        let whole = output.stdout == noise(5, 1_500_000);
        assert_eq!(
            output.status.success(),
            whole,
            "seed {seed}: {} bytes, {:?} {stderr}",
            output.stdout.len(),
            output.status
        );
        assert!(noise(5, 1_500_000).starts_with(&output.stdout), "seed {seed}: wrong bytes");
        assert!(whole || stderr.trim_end().lines().count() == 1, "seed {seed}: one line was promised\n{stderr}");
        right += usize::from(whole);
    }
    assert!(right >= 2, "only {right} of 4 came through");
}

#[test]
fn without_a_network_requests_time_out_and_cached_data_is_still_served() {
    let world = World::new();
    let mount = mounted(&world, TIMEOUT);
    let shown = mount.path().join("latest");
    let known = Tree::walk(&shown.join(""));
    for fault in [Fault::Stall(0), Fault::Stall(1000)] {
        // Fills the cache with other data, so that the next read has to fetch.
        for i in 6..12 {
            read(&shown.join(format!("noise-{i:02}"))).unwrap();
        }
        let all = fault.clone();
        world.proxy.set_plan(move |_| Some(all.clone()));
        let start = Instant::now();
        let waiting = std::thread::spawn({
            let path = shown.join("noise-00");
            move || (read(&path).map(|bytes| bytes.len()), start.elapsed())
        });
        std::thread::sleep(Duration::from_millis(500));
        let asked = Instant::now();
        let listed = exec::run(Command::new("ls").arg("-lR").arg(shown.join("")));
        assert!(listed.len() > 500 && asked.elapsed() < Duration::from_secs(1), "ls took {:?}", asked.elapsed());
        let (result, took) = waiting.join().unwrap();
        let error = result.expect_err("nobody answered");
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{fault:?}: {error}");
        assert!(took < Duration::from_secs(10), "{fault:?}: {took:?}");
        assert!(mount.log().contains("check the endpoint and the network"), "{}", mount.log());
        world.is_healed();
        let start = Instant::now();
        assert!(read(&shown.join("noise-00")).unwrap() == noise(0, 1_500_000));
        assert!(start.elapsed() < Duration::from_secs(3), "back after {:?}", start.elapsed());
    }
    assert_same("afterwards", &known, &Tree::walk(&shown.join("")), &Rules::default());
    mount.unmount();
}
