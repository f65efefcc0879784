//! Volumes in cold storage: the tree and all other files stay usable, and the log has the remedy.

use std::fs;
use std::io;

use super::world::{World, is_listing};
use crate::support::exec::Dupfs;
use crate::support::fixtures;
use crate::support::mount::Mount;
use crate::support::proxy::Fault;
use crate::support::tree::{Tree, show};

/// The volume that is in cold storage: the full set's first one.
const COLD: &str = "duplicity-full.20261122T131027Z.vol1.difftar.gz";

#[test]
fn a_volume_in_glacier_is_eremote_with_the_remedy_in_the_log_and_all_else_is_served() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    world.proxy.set_plan(|request| {
        if is_listing(request) {
            Some(Fault::Class(COLD, "GLACIER"))
        } else {
            request.target.contains(COLD).then_some(Fault::Status(403, "InvalidObjectState"))
        }
    });
    let local = Dupfs::new(&world.scratch.dir("home-local"));
    let local = Mount::new(&local, &fixtures::url("duplicity-0.7.13-gz"), &world.scratch.dir("mnt-local"));
    let want = Tree::walk(&local.path().join("latest/"));
    let mount = world.mount(&world.reader(), "bucket/p");
    let mut names = vec![Vec::new()];
    list(&mount.path().join("latest/"), &[], &mut names);
    names.sort();
    assert_eq!(names, want.entries.keys().cloned().collect::<Vec<_>>(), "the tree is listed whole");

    let (mut cold, mut served) = (Vec::new(), 0);
    for (path, _) in want.entries.iter().filter(|(_, e)| e.kind == crate::support::tree::Kind::File) {
        let here = mount.path().join("latest").join(want.locate(path).strip_prefix(&want.root).unwrap());
        match fs::read(&here) {
            Ok(bytes) => {
                assert!(bytes == fs::read(want.locate(path)).unwrap(), "{}: wrong bytes", show(path));
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EREMOTE), "{}: {error}", show(path));
                cold.push(path.clone());
            }
        }
    }
    assert!(!cold.is_empty() && served > 2, "{} in cold storage, {served} served", cold.len());
    let log = mount.log();
    for wanted in [COLD, "GLACIER", "aws s3api restore-object"] {
        assert!(log.contains(wanted), "{wanted} is not in the log\n{log}");
    }

    // With bounds for sizes, `ls -l` works everywhere, and no size is too small.
    let bounds = Mount::new(&world.reader().option("-osizes=bound"), "s3://bucket/p", &world.scratch.dir("mnt-bound"));
    let shown = Tree::walk(&bounds.path().join("latest/"));
    assert!(shown.entries.keys().eq(want.entries.keys()));
    assert!(cold.iter().all(|path| shown.entries[path].size >= want.entries[path].size));
    bounds.unmount();

    // Restored: readable without a remount.
    world.proxy.set_plan(|_| None);
    for path in &cold {
        let here = mount.path().join("latest").join(want.locate(path).strip_prefix(&want.root).unwrap());
        assert!(fs::read(&here).unwrap() == fs::read(want.locate(path)).unwrap(), "{} after the restore", show(path));
    }
    mount.unmount();
    local.unmount();
}

/// Collects the names below `dir` by readdir, without requesting attributes.
fn list(dir: &std::path::Path, prefix: &[u8], out: &mut Vec<Vec<u8>>) {
    use std::os::unix::ffi::OsStrExt;
    let entries: io::Result<Vec<_>> = fs::read_dir(dir).unwrap().collect();
    for entry in entries.unwrap() {
        let mut path = prefix.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.file_name().as_bytes());
        out.push(path.clone());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &path, out);
        }
    }
}
