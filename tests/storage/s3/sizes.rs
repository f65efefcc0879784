//! Copies from a mount that shows upper bounds as sizes: each program opens a file before it copies, and gets the exact size.

use std::fs;
use std::process::Command;

use super::world::{World, is_volume};
use crate::support::exec;
use crate::support::mount::Mount;

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
