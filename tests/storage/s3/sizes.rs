//! Sizes that are not exact at once: upper bounds, and files that are opened without their sizes.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
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

#[test]
fn a_file_that_is_opened_without_its_size_shows_0_to_its_opener_only() {
    let world = World::new();
    let (file, last) = large_file(&world);
    let expected = fs::read(file).unwrap();
    let mount = world.mount(&world.reader().option("-osizes=late"), "bucket/p");
    let path = mount.path().join("latest/dump.sql");
    world.proxy.set_link(Duration::ZERO, Some(SLOW));
    world.proxy.set_plan(move |request| request.target.contains(&last).then_some(Fault::Stall(0)));
    let mut open = fs::File::open(&path).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 0, "it is not known");
    let mut read = vec![0; 1 << 20];
    open.read_exact(&mut read).unwrap();
    assert!(read == expected[..1 << 20]);
    // Another process gets the exact size, and waits for it.
    let stat = Command::new("stat").args(["-c", "%s"]).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the size is asked for", Duration::from_secs(20), || world.proxy.stalled() > 0);
    assert_eq!(open.metadata().unwrap().len(), 0);
    world.proxy.set_plan(|_| None);
    world.proxy.end_stalled();
    assert_eq!(stat.wait_with_output().unwrap().stdout, b"2900000\n");
    assert_eq!(open.metadata().unwrap().len(), 2_900_000);
    open.read_to_end(&mut read).unwrap();
    assert!(read == expected);
    drop(open);
    assert!(fs::read(&path).unwrap() == expected);
    mount.unmount();

    // SEEK_END needs the exact size.
    let mount = world.mount(&world.reader().option("-osizes=late"), "bucket/p");
    let mut open = fs::File::open(mount.path().join("latest/dump.sql")).unwrap();
    assert_eq!(open.seek(SeekFrom::End(-9)).unwrap(), 2_899_991);
    let mut end = Vec::new();
    open.read_to_end(&mut end).unwrap();
    assert!(end == expected[2_899_991..]);
    drop(open);
    mount.unmount();
}

#[test]
fn programs_that_read_in_order_get_the_beginning_of_a_file_before_its_end() {
    let world = World::new();
    let (file, last) = large_file(&world);
    let expected = fs::read(file).unwrap();
    world.proxy.set_link(Duration::ZERO, Some(SLOW));
    world.proxy.set_plan(move |request| request.target.contains(&last).then_some(Fault::Stall(0)));
    for script in
        ["cat \"$1\"", "cat < \"$1\"", "dd if=\"$1\" bs=64k", "gzip -c \"$1\" | gzip -dc", "tail -c +1 \"$1\""]
    {
        let mount = world.mount(&world.reader().option("-osizes=late"), "bucket/p");
        let mut command = Command::new("bash");
        let script = format!("set +o pipefail; {{ {script} | head -c 1000000; }} 2>&-");
        let output = exec::output(command.args(["-c", &script, "bash"]).arg(mount.path().join("latest/dump.sql")));
        assert!(output.stdout == expected[..1_000_000], "{script}: {} bytes", output.stdout.len());
        world.proxy.end_stalled();
        mount.unmount();
    }
}

#[test]
fn programs_read_files_right_whose_sizes_are_found_late() {
    let world = World::new();
    let (file, _) = large_file(&world);
    world.proxy.set_link(Duration::ZERO, Some(SLOW));
    for script in [
        "cat \"$1\" | cmp - \"$2\"",
        "cp \"$1\" copy && cmp copy \"$2\"",
        "cp -a \"$1\" copy && cmp copy \"$2\"",
        "rsync \"$1\" copy && cmp copy \"$2\"",
        "dd if=\"$1\" of=copy bs=1M status=none && cmp copy \"$2\"",
        "tar cf - -C \"${1%/*}\" dump.sql | tar xf - && cmp dump.sql \"$2\"",
        "cmp \"$1\" \"$2\"",
        "cmp \"$2\" - < \"$1\"",
        "[ \"$(wc -c < \"$1\")\" = 2900000 ]",
        "tail -c 1000 \"$1\" > end && tail -c 1000 \"$2\" | cmp end -",
        "gzip -c \"$1\" | gzip -dc | cmp - \"$2\"",
        "python3 -c 'import sys; assert open(sys.argv[1], \"rb\").read() == open(sys.argv[2], \"rb\").read()' \"$1\" \"$2\"",
    ] {
        let mount = world.mount(&world.reader().option("-osizes=late"), "bucket/p");
        let mut command = Command::new("bash");
        command.current_dir(world.scratch.dir("copies")).args(["-euc", script, "bash"]);
        let output = exec::output(command.arg(mount.path().join("latest/dump.sql")).arg(&file));
        assert!(output.status.success(), "{script}: {}", exec::tail(&output.stderr));
        mount.unmount();
    }
}
