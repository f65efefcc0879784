//! The requests that a mount sends to the service, by the log of the proxy, and the reports of the mount about them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::world::{World, eventually, fetched, is_listing, is_volume, snapshots};
use crate::support::exec;
use crate::support::proxy::Request;
use crate::support::tree::{Kind, Tree, show};

fn xattr(path: &Path, name: &str) -> String {
    let mut value = vec![0; 64 * 1024];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
    String::from_utf8(value[..length].to_vec()).unwrap()
}

/// Returns the number in front of `what`.
fn number(text: &str, what: &str) -> u64 {
    let (before, _) = text.split_once(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
    before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_listing_fetches_no_volume_and_a_file_only_its_own() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let mount = world.mount(&world.reader(), "bucket/p");
    let stamps = snapshots(&mount);
    for stamp in &stamps {
        let found = exec::run(Command::new("find").arg(mount.path().join("snapshots").join(stamp)));
        assert!(found.iter().filter(|b| **b == b'\n').count() > 15, "{stamp}");
    }
    let log = world.proxy.log();
    assert!(!log.iter().any(is_volume), "a listing fetched volumes: {:?}", fetched(&log));
    let names = fetched(&log);
    let wanted = |name: &String| name.contains(".sigtar.") || name.ends_with(".manifest");
    assert!(names.iter().all(wanted), "neither manifests nor signatures: {names:?}");
    assert_eq!(names.iter().filter(|n| n.contains(".sigtar.")).count(), 3, "{names:?}");
    let lists = log.iter().filter(|r| is_listing(r)).count();
    assert!(lists <= 2, "{lists} requests to list ten objects");

    // A new mount, of which one file is read.
    mount.unmount();
    let mount = world.mount(&world.reader(), "bucket/p");
    let files = Tree::walk(&mount.path().join("snapshots").join(&stamps[0]));
    mount.unmount();
    for (path, _) in files.entries.iter().filter(|(_, e)| e.kind == Kind::File && e.size > 0).step_by(4) {
        let mount = world.mount(&world.reader(), "bucket/p");
        let here = mount.path().join("snapshots").join(&stamps[0]).join(path_of(path));
        let volumes = xattr(&here, "user.dupfs.volumes");
        let volumes: Vec<_> = volumes.lines().map(str::to_owned).collect();
        world.proxy.clear_log();
        fs::read(&here).unwrap();
        let log = world.proxy.log();
        let got = fetched(&log).into_iter().filter(|name| name.contains(".difftar.")).collect::<Vec<_>>();
        assert!(
            !got.is_empty() && got.iter().all(|name| volumes.contains(name)),
            "{}: {got:?}, not {volumes:?}",
            show(path)
        );
        let once = log.iter().filter(|r| is_volume(r)).count();
        assert_eq!(once, got.len(), "{}: a volume was fetched twice", show(path));
        assert!(!log.iter().any(is_listing), "reading a file lists the bucket");
        world.proxy.clear_log();
        fs::read(&here).unwrap();
        assert!(world.proxy.log().is_empty(), "{}: read again, fetched again", show(path));
        mount.unmount();
    }
}

fn path_of(path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(path).into()
}

/// The requests that the proxy received.
#[derive(Debug)]
struct Asked {
    lists: u64,
    gets: u64,
    /// Bytes of all ranges, and of the largest range of each object.
    bytes: u64,
    once: u64,
}

fn asked(log: &[Request]) -> Asked {
    let lists = log.iter().filter(|request| is_listing(request)).count() as u64;
    let ranges = log.iter().filter_map(|r| r.range.map(|(first, last)| (r.target.as_str(), last + 1 - first)));
    let mut largest = BTreeMap::<&str, u64>::new();
    for (target, length) in ranges.clone() {
        let largest = largest.entry(target).or_default();
        *largest = length.max(*largest);
    }
    Asked {
        lists,
        gets: log.len() as u64 - lists,
        bytes: ranges.map(|(_, length)| length).sum(),
        once: largest.values().sum(),
    }
}

#[test]
fn the_cost_is_reported_by_an_attribute_a_signal_and_at_unmount() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let mount = world.mount(&world.reader().option("-v"), "bucket/p");
    let tree = Tree::walk(&mount.path().join("latest/"));
    let largest = tree.entries.iter().filter(|(_, e)| e.kind == Kind::File).max_by_key(|(_, e)| e.size).unwrap();
    fs::read(tree.locate(largest.0)).unwrap();
    let cost = || xattr(mount.path(), "user.dupfs.cost");
    // Prefetched volumes may still be in transit. Of a signature archive the head is read first, and then all is
    // fetched. The network determines the number of bytes that arrive before the first stream is dropped.
    eventually("all that was asked for has come", Duration::from_secs(10), || {
        number(&cost(), " bytes fetched") >= asked(&world.proxy.log()).once
    });
    let (asked, cost) = (asked(&world.proxy.log()), cost());
    let (gets, bytes) = (asked.gets, number(&cost, " bytes fetched"));
    assert_eq!(number(&cost, " list requests"), asked.lists, "{cost}");
    assert_eq!(number(&cost, " get requests"), gets, "{cost}");
    assert!(asked.once <= bytes && bytes <= asked.bytes, "{cost}, and {asked:?}");
    assert!(asked.once > 1_000_000 && asked.bytes - asked.once < 150_000, "{asked:?}");

    let wanted = format!("{gets} get requests");
    let pid = rustix::process::Pid::from_raw(i32::try_from(mount.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    eventually("SIGUSR1 logged the cost", Duration::from_secs(5), || mount.log().contains(&wanted));
    let mut file = mount.path().as_os_str().to_owned();
    file.push(".log");
    mount.unmount();
    let log = fs::read_to_string(file).unwrap();
    assert_eq!(log.matches(&wanted).count(), 2, "once by the signal, once at the unmount\n{log}");
}
