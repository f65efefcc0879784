//! Sizes that are not exact at once: upper bounds, and files that are read without their sizes.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::world::{World, eventually, is_volume, put};
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::mount::Mount;
use crate::support::noise;
use crate::support::proxy::Fault;

/// Bytes a second of a link that takes longer for a volume than content waits to be verified.
const SLOW: f64 = 3e6;

/// A bucket with a file of three volumes that duplicity wrote, the file, and the name of its last volume.
fn large_file(world: &World) -> (PathBuf, String) {
    let source = world.scratch.dir("source");
    fs::write(source.join("dump.sql"), noise(1, 2_900_000)).unwrap();
    let repository = Repository::new("0.8.22", |_| Mode::Gzip, &world.scratch.dir("duplicity"));
    repository.backup(true, &source, 1_700_000_000);
    put(repository.dir(), &world.disk("bucket/p"));
    let volumes =
        fs::read_dir(repository.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut volumes: Vec<String> = volumes.filter(|name| name.contains(".vol")).collect();
    volumes.sort();
    assert!(volumes.len() >= 3, "{volumes:?}");
    (source.join("dump.sql"), volumes.pop().unwrap())
}

#[test]
fn copies_of_files_with_bounds_as_sizes_are_exact() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let exact = world.mount(&world.reader(), "bucket/p");
    let latest = exact.path().join("latest");
    let files =
        exec::run(Command::new("find").arg("-H").arg(&latest).args(["-type", "f", "-size", "+0", "-printf", "%P\n"]));
    let files = String::from_utf8_lossy(&files);
    let files: Vec<&str> = files.lines().filter(|file| file.is_ascii()).collect();
    let files = files.join("\n");
    assert!(files.lines().count() > 5, "{files}");
    let script = "set -e
        mkdir rsync cp tar
        rsync -a --no-specials --no-devices \"$1/\" rsync/
        cp -a \"$2/.\" cp/
        tar cf a.tar -C \"$3\" . && tar xf a.tar -C tar
        while IFS= read -r file; do
            for copy in rsync cp tar; do cmp \"$copy/$file\" \"$5/$file\"; done
            cmp \"$4/$file\" \"$5/$file\"
        done <<< \"$6\"";
    let to = world.scratch.dir("copies");
    // A mount for each program, because a file that was opened once has its exact size.
    let mounts: Vec<Mount> = (0..4)
        .map(|i| {
            let dupfs = world.reader().option("-osizes=bound");
            Mount::new(&dupfs, "s3://bucket/p", &world.scratch.dir(&format!("bound-{i}")))
        })
        .collect();
    world.proxy.clear_log();
    let larger = files.lines().filter(|file| {
        let size = |mount: &Mount| fs::metadata(mount.path().join("latest").join(file)).unwrap().len();
        let (bound, exact) = (size(&mounts[0]), fs::metadata(latest.join(file)).unwrap().len());
        assert!(bound >= exact, "{file}: {bound} is shown, and it has {exact} bytes");
        bound > exact
    });
    assert!(larger.count() > 2, "no size was a bound");
    assert!(!world.proxy.log().iter().any(is_volume), "a bound needs a volume");
    let mut command = Command::new("bash");
    command.current_dir(&to).args(["-c", script, "bash"]);
    command.args(mounts.iter().map(|mount| mount.path().join("latest"))).arg(&latest).arg(&files);
    exec::run(&mut command);
    mounts.into_iter().chain([exact]).for_each(Mount::unmount);
}

#[test]
fn copies_are_exact_while_the_volume_with_the_end_of_the_file_is_being_fetched() {
    let world = World::new();
    let source = world.scratch.dir("source");
    let content = noise(1, 1_101_004);
    fs::write(source.join("file"), &content).unwrap();
    // The volume goes on for some seconds after the end of the file, which proves its size.
    fs::write(source.join("other"), noise(2, 9_000_000)).unwrap();
    let repository = Repository::new("0.8.22", |_| Mode::Gzip, &world.scratch.dir("duplicity")).option("--volsize=50");
    repository.backup(true, &source, 1_700_000_000);
    put(repository.dir(), &world.disk("bucket/p"));
    world.proxy.set_link(Duration::ZERO, Some(SLOW));
    let copy = world.scratch.path().join("copy");
    for script in ["cp \"$0\" \"$1\"", "rsync \"$0\" \"$1\"", "cat \"$0\" >\"$1\"", "tail -c +1 \"$0\" >\"$1\""] {
        let mount = world.mount(&world.reader().option("-osizes=bound"), "bucket/p");
        let file = mount.path().join("latest/file");
        // The bound is longer.
        assert!(fs::metadata(&file).unwrap().len() > content.len() as u64);
        exec::run(Command::new("sh").args(["-e", "-c", script]).arg(&file).arg(&copy));
        let copied = fs::read(&copy).unwrap();
        assert!(copied == content, "{script}: {} bytes", copied.len());
        assert_eq!(fs::metadata(&file).unwrap().len(), content.len() as u64, "{script}: it was opened");
        fs::remove_file(&copy).unwrap();
        mount.unmount();
    }
}

#[test]
fn cat_writes_the_beginning_of_a_file_before_the_volume_with_its_end_is_fetched() {
    let world = World::new();
    let (file, last) = large_file(&world);
    let expected = fs::read(file).unwrap();
    world.proxy.set_link(Duration::ZERO, Some(SLOW));
    world.proxy.set_plan(move |request| request.target.contains(&last).then_some(Fault::Stall(0)));
    let mut cat = world.reader().command("cat");
    let mut cat = cat.args(["s3://bucket/p", "dump.sql"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = cat.stdout.take().unwrap();
    let mut read = vec![0; 1 << 20];
    output.read_exact(&mut read).unwrap();
    eventually("the end is fetched", Duration::from_secs(20), || world.proxy.stalled() > 0);
    world.proxy.set_plan(|_| None);
    world.proxy.end_stalled();
    output.read_to_end(&mut read).unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(read == expected, "{} bytes", read.len());
}
