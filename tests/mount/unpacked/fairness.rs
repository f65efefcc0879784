//! Ordinary readers beside archives that are made to keep the mount busy.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Backup, pipe, run};
use crate::support::{exec, noise};

/// Long enough for anything that is not starved, on any machine.
const SOON: Duration = Duration::from_secs(100);

/// A gzip file of `head` followed by `mib` MiB of zeros, as a sequence of identical gzip members.
fn zeros(head: &[u8], mib: usize) -> Vec<u8> {
    let piece = pipe(&vec![0; 64 << 20], "gzip", &["-c"]);
    let mut out = pipe(head, "gzip", &["-c"]);
    (0..mib / 64).for_each(|_| out.extend_from_slice(&piece));
    out
}

/// The header of a tar member of `mib` MiB.
fn tar_header(work: &Path, mib: usize) -> Vec<u8> {
    run(work, "truncate", &["-s", &format!("{mib}M"), "z.bin"]);
    // A pipe that is closed after the header ends tar.
    run(work, "sh", &["-c", "tar -cf - z.bin | head -c 512"])
}

/// Returns four nested archives around `z.bin` of `mib` MiB of zeros: `n0.tar.gz` in `n1.tar.gz` in `n2.tar.gz` in
/// the result.
pub(super) fn nested(work: &Path, mib: usize) -> Vec<u8> {
    let mut packed = zeros(&tar_header(work, mib), mib);
    packed.extend_from_slice(&pipe(&[0; 1024], "gzip", &["-c"]));
    for level in 0..3 {
        let name = format!("n{level}.tar.gz");
        fs::write(work.join(&name), &packed).unwrap();
        packed = run(work, "sh", &["-c", &format!("tar -cf - {name} | gzip -9")]);
    }
    packed
}

/// Processes that are killed when this is dropped. One that waits for an answer of the mount ends once it has it.
struct HostileReaders(Vec<Child>);

impl HostileReaders {
    fn start(commands: impl Iterator<Item = Command>) -> Self {
        let quiet = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self(commands.map(quiet).collect())
    }

    fn ended(&mut self) -> usize {
        self.0.iter_mut().map(|child| usize::from(child.try_wait().unwrap().is_some())).sum()
    }
}

impl Drop for HostileReaders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
    }
}

/// Returns the CPU time of the daemon so far, in hundredths of a second.
fn ticks(backup: &Backup) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", backup.mount.as_ref().unwrap().pid())).unwrap();
    // User and system time are fields 14 and 15; the second field, in brackets, is the name.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn command(program: &str, args: &[&str], path: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(path);
    command
}

/// Requires that an ordinary file is read, and its size found, while all of `hostile` still run.
fn require_service(mut backup: Backup, mut hostile: HostileReaders, honest: &[u8]) {
    let start = Instant::now();
    let before = ticks(&backup);
    while ticks(&backup) < before + 200 {
        assert!(start.elapsed() < SOON, "the hostile programs do not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let read = exec::run(&mut command("timeout", &["100", "cat"], &backup.at("honest")));
    assert!(read == honest, "{} bytes", read.len());
    let size = exec::run(&mut command("timeout", &["100", "stat", "-c", "%s"], &backup.at("sized")));
    assert_eq!(String::from_utf8_lossy(&size).trim(), honest.len().to_string());
    let member = exec::run(&mut command("timeout", &["100", "cat"], &backup.at("honest.tar.gz/member")));
    assert!(member == honest, "{} bytes", member.len());
    assert_eq!(hostile.ended(), 0, "hostile programs ended before an honest one was served");
    // Without this they would run for another half minute.
    backup.mount.take().unwrap().kill();
}

fn put_honest(source: &Path, honest: &[u8]) {
    let packed = pipe(honest, "gzip", &["-c"]);
    fs::write(source.join("honest.gz"), &packed).unwrap();
    fs::write(source.join("sized.gz"), &packed).unwrap();
    let work = source.parent().unwrap().join("work");
    fs::write(work.join("member"), honest).unwrap();
    run(&work, "tar", &["-czf", source.join("honest.tar.gz").to_str().unwrap(), "member"]);
}

#[test]
fn a_reader_is_served_while_nested_bombs_are_opened() {
    let honest = noise(1, 3 << 20);
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        let bomb = nested(&work, 40 << 10);
        assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
        (0..24).for_each(|n| fs::write(source.join(format!("t{n}.tar.gz")), &bomb).unwrap());
        put_honest(source, &honest);
    });
    let inner = |n: usize| backup.at(&format!("t{n}.tar.gz/n2.tar.gz/n1.tar.gz/n0.tar.gz"));
    let lookers = HostileReaders::start((0..24).map(|n| command("ls", &[], &inner(n))));
    require_service(backup, lookers, &honest);
}

#[test]
fn a_reader_is_served_while_many_different_bombs_are_measured_and_read() {
    let honest = noise(2, 3 << 20);
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        // Each decodes from a few bytes to the maximum size of a file.
        let gz = zeros(b"", 1024);
        run(&work, "truncate", &["-s", "64M", "zeros"]);
        let pack = |program: &str| run(&work, "sh", &["-c", &format!("{program} -c zeros")]);
        let (bz2, xz, zst) = (pack("bzip2").repeat(16), pack("xz -0").repeat(16), pack("zstd -q").repeat(16));
        let mut tar = zeros(&tar_header(&work, 1000), 1000);
        tar.extend_from_slice(&zeros(b"", 64));
        for n in 0..8 {
            for (name, bytes) in [("gz", &gz), ("bz2", &bz2), ("xz", &xz), ("zst", &zst), ("tar.gz", &tar)] {
                fs::write(source.join(format!("{n}-{name}.{name}")), bytes).unwrap();
            }
        }
        put_honest(source, &honest);
    });
    let at = |n: usize, name: &str| backup.at(&format!("{n}-{name}"));
    let lookers = (0..8).flat_map(|n| {
        [
            command("stat", &[], &at(n, "gz")),
            command("stat", &[], &at(n, "bz2")),
            command("cat", &[], &at(n, "bz2")),
            command("cat", &[], &at(n, "xz")),
            command("stat", &[], &at(n, "zst")),
            command("ls", &[], &at(n, "tar.gz.tar.gz")),
        ]
    });
    let lookers = HostileReaders::start(lookers);
    require_service(backup, lookers, &honest);
}
