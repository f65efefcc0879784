//! Large files that are opened without their sizes: programs that need no size read the beginning before the end is fetched, and all
//! copies are whole.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::world::{World, eventually, is_volume, put};
use crate::support::copies::{Holder, all_ways, copy};
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::mount::Mount;
use crate::support::proxy::Fault;
use crate::support::{Scratch, noise};

const LEN: usize = 3_300_000;
/// Upper bound of a wait for another process.
const LONG_ENOUGH: Duration = Duration::from_secs(30);

/// Lines of characters that do not compress well.
fn content() -> Vec<u8> {
    let character = |(at, byte): (usize, u8)| if at % 80 == 79 { b'\n' } else { b' ' + byte % 95 };
    noise(3, LEN).into_iter().enumerate().map(character).collect()
}

/// A backup of one file in four volumes.
fn backup() -> &'static Path {
    static BACKUP: OnceLock<(Scratch, PathBuf)> = OnceLock::new();
    let (_, dir) = BACKUP.get_or_init(|| {
        let scratch = Scratch::new();
        let source = scratch.dir("source");
        fs::write(source.join("dump.sql"), content()).unwrap();
        let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r")).option("--volsize=1");
        repo.backup(true, &source, 1_700_000_000);
        let dir = repo.dir().to_owned();
        (scratch, dir)
    });
    dir
}

/// A mount that has read nothing, on which all volumes but the first are not answered until [`Self::answer`].
struct Stalled {
    world: World,
    mount: Mount,
    file: PathBuf,
}

impl Stalled {
    fn new() -> Self {
        let world = World::new();
        put(backup(), &world.disk("bucket/p"));
        Self::on(world)
    }

    /// As new, with the same store.
    fn again(self) -> Self {
        self.mount.unmount();
        Self::on(self.world)
    }

    fn on(world: World) -> Self {
        let mount = world.mount(&world.reader().option("--timeout=600"), "bucket/p");
        let file = mount.path().join("latest/dump.sql");
        let this = Self { world, mount, file };
        this.stall();
        this
    }

    fn stall(&self) {
        let is_later = |target: &str| !target.contains(".vol1.");
        self.world
            .proxy
            .set_plan(move |request| (is_volume(request) && is_later(&request.target)).then_some(Fault::Stall(0)));
    }

    fn answer(&self) {
        self.world.proxy.set_plan(|_| None);
        self.world.proxy.end_stalled();
    }

    /// A shell that runs `command` with the file as `$0`.
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).arg(&self.file).stdin(Stdio::null());
        shell
    }

    /// Starts `command`, which writes to `output`. Returns once a volume is requested that is not answered.
    fn waits(&self, command: &str, output: &Path) -> Child {
        let before = self.world.proxy.faults();
        let child = self.shell(command).stdout(File::create(output).unwrap()).spawn().unwrap();
        eventually(command, LONG_ENOUGH, || self.world.proxy.faults() > before);
        child
    }
}

#[test]
fn programs_that_need_no_size_read_the_beginning_before_the_end_is_fetched() {
    let mut stalled = Stalled::new();
    let plain = content();
    for script in ["cat \"$0\"", "head -c 400000 \"$0\""] {
        let mut child = stalled.shell(script).stdout(Stdio::piped()).spawn().unwrap();
        // The first read of each program.
        let mut first = vec![0; 4000];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        assert!(first == plain[..first.len()], "{script}");
        stalled.answer();
        child.stdout.as_mut().unwrap().read_to_end(&mut first).unwrap();
        let wanted = if script.starts_with("head") { &plain[..400_000] } else { &plain[..] };
        assert!(first == wanted, "{script}: {} bytes", first.len());
        assert!(child.wait().unwrap().success());
        // Once it was read to its end the size is known to all.
        if !script.starts_with("head") {
            assert_eq!(fs::metadata(&stalled.file).unwrap().size(), LEN as u64);
        }
        stalled = stalled.again();
    }
    // Others wait for the size.
    let output = stalled.world.scratch.path().join("output");
    let python = "python3 -c 'import os, sys; print(os.fstat(os.open(sys.argv[1], 0)).st_size)' \"$0\"";
    // The shell opens the file, and may also read it itself.
    let shell = "python3 -c 'import mmap; print(len(mmap.mmap(0, 0, access=mmap.ACCESS_READ)))' < \"$0\"";
    for script in ["stat -c %s \"$0\"", python, shell] {
        let mut child = stalled.waits(script, &output);
        assert_eq!(child.try_wait().unwrap(), None, "{script}");
        stalled.answer();
        assert!(child.wait().unwrap().success());
        assert_eq!(fs::read_to_string(&output).unwrap(), format!("{LEN}\n"), "{script}");
        stalled = stalled.again();
    }
    stalled.mount.unmount();
}

#[test]
fn a_copy_is_whole_although_another_program_reads_the_file_without_its_size() {
    let (mut stalled, plain) = (Stalled::new(), content());
    let dir = stalled.world.scratch.dir("out");
    exec::run(Command::new("git").args(["init", "-q"]).arg(&dir));
    for way in all_ways() {
        // It gets its bytes while the end of the file is not answered.
        let holder = Holder::new(&stalled.file);
        stalled.answer();
        assert_eq!(copy(&dir, &stalled.file, way, &plain), way != "copy_file_range", "{way}");
        drop(holder);
        stalled = stalled.again();
    }
    stalled.mount.unmount();
}

#[test]
fn a_copy_is_whole_after_a_program_that_read_the_file_without_its_size() {
    let (mut stalled, plain) = (Stalled::new(), content());
    let dir = stalled.world.scratch.dir("out");
    for way in ["sendfile", "splice", "aio", "end", "map", "cp", "cat"] {
        let mut holder = Holder::new(&stalled.file);
        stalled.answer();
        if way == "cat" {
            // To its end.
            let mut rest = Vec::new();
            holder.0.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
            assert!(rest == plain[100..]);
            assert!(holder.0.wait().unwrap().success());
        }
        drop(holder);
        assert!(copy(&dir, &stalled.file, way, &plain), "{way}");
        stalled = stalled.again();
    }
    stalled.mount.unmount();
}

#[test]
fn every_program_of_the_list_reads_the_whole_file_and_no_more() {
    let (mut stalled, plain) = (Stalled::new(), content());
    let plain_file = stalled.world.scratch.path().join("plain");
    fs::write(&plain_file, &plain).unwrap();
    let output = stalled.world.scratch.path().join("output");
    for script in [
        "cat \"$0\"",
        "cat < \"$0\"",
        "head -c 100000000 \"$0\"",
        "grep -a '' \"$0\"",
        "sed -n p \"$0\"",
        "awk '{ print }' \"$0\"",
        "mawk '{ print }' \"$0\"",
        "less \"$0\"",
        "wc -c < \"$0\"",
        "wc -l < \"$0\"",
        "md5sum < \"$0\"",
        "sha1sum < \"$0\"",
        "sha256sum < \"$0\"",
        "gzip -c < \"$0\" | gunzip",
        "dd if=\"$0\" bs=100k status=none",
    ] {
        let run = |file: &Path| exec::output(Command::new("bash").args(["-c", script]).arg(file));
        let expected = run(&plain_file);
        let mut child = stalled.waits(script, &output);
        stalled.answer();
        let status = child.wait().unwrap();
        let found = fs::read(&output).unwrap();
        assert!(status == expected.status && found == expected.stdout, "{script}: {} bytes", found.len());
        stalled = stalled.again();
    }
    stalled.mount.unmount();
}
