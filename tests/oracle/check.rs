//! One snapshot, mounted and restored, compared.

use std::path::Path;

use crate::exchanged;
use crate::support::duplicity::{Repository, stamp};
use crate::support::mount::Mount;
use crate::support::tree::{Kind, Rules, Tree, assert_same};
use crate::verify;

/// Restores the snapshot of `time` and compares it with the one mounted.
pub fn snapshot(what: &str, repo: &Repository, mount: &Mount, time: i64, rules: &Rules, scratch: &Path) -> Tree {
    let dest = scratch.join(format!("restored-{time}"));
    repo.restore(&time.to_string(), &dest, &[]);
    let restored = Tree::walk(&dest);
    let shown = Tree::walk(&mount.path().join("snapshots").join(stamp(time)));
    assert_same(what, &restored, &shown, rules);
    restored
}

/// Mounts the repository and compares the snapshots of `times` with their restores. The modification times of links,
/// which restore does not set, are taken from the sources; no link may change between them.
pub fn every_snapshot(what: &str, repo: &Repository, times: &[i64], sources: &[&Path], scratch: &Path) {
    every_snapshot_by(what, repo, &repo.reader(), times, sources, scratch);
}

/// The same with the dupfs of the caller.
pub fn every_snapshot_by(
    what: &str,
    repo: &Repository,
    reader: &crate::support::exec::Dupfs,
    times: &[i64],
    sources: &[&Path],
    scratch: &Path,
) {
    exchanged::no_false_alarm(reader, &repo.url());
    if std::env::var_os("DUPFS_TEST_ROUNDS").is_some() {
        verify::proves_all(reader, &repo.url());
    }
    let mount = Mount::new(reader, &repo.url(), &scratch.join("mnt"));
    assert_eq!(snapshots(&mount), times.iter().map(|t| stamp(*t)).collect::<Vec<_>>(), "{what}: the snapshots listed");
    for (&time, source) in times.iter().zip(sources) {
        let source = Tree::walk(source);
        let links = source.entries.iter().filter(|(_, e)| e.kind == Kind::Link).map(|(p, e)| (p.clone(), e.mtime));
        let rules = Rules { link_mtimes: links.collect(), sane: true, ..Rules::default() };
        let restored = snapshot(&format!("{what}, snapshot {}", stamp(time)), repo, &mount, time, &rules, scratch);
        assert_same(&format!("{what}, restore of {}", stamp(time)), &source, &restored, &Rules::default());
        let dest = scratch.join("by-dupfs");
        reader.run("restore", &["--time", &time.to_string(), &repo.url(), dest.to_str().unwrap()]);
        let rules = Rules { sane: false, ..rules };
        assert_same(&format!("{what}, dupfs restore of {}", stamp(time)), &restored, &Tree::walk(&dest), &rules);
        std::fs::remove_dir_all(&dest).unwrap();
    }
    mount.unmount();
}

/// The names in the mount's `snapshots`, sorted.
pub fn snapshots(mount: &Mount) -> Vec<String> {
    let list = std::fs::read_dir(mount.path().join("snapshots")).unwrap();
    let mut names: Vec<_> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
