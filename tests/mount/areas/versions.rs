//! Comparison of `versions/` with the restores of each time by duplicity.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::maker::Maker;
use crate::support::mount::Mount;
use crate::support::tree::{Entry, Kind, Rules, Tree, assert_same, show};
use crate::support::{Scratch, noise};

const HOUR: i64 = 3600;
const FIRST: i64 = 1_700_000_000;

fn time(i: usize) -> i64 {
    FIRST + i64::try_from(i).unwrap() * HOUR
}

fn first(maker: &mut Maker) {
    maker.file("keep", noise(1, 1_400_000));
    maker.file("edited", noise(2, 300_000));
    maker.file("gone", noise(3, 70_000));
    maker.file("back", "first");
    maker.file("gone-dir/sub/file", "below");
    maker.link("gone-dir/link", "sub/file");
    maker.file("shape", "a file");
    maker.file("collide", "a file");
    maker.file("bytes-\u{fc}", "");
    maker.fifo("pipe", 0o640);
    maker.dir("modes", 0o755);
    maker.file("modes/inside", "inside");
    maker.dir("owners", 0o750);
    maker.dir("empty", 0o755);
}

fn second(maker: &mut Maker) {
    maker.edit("edited", |content| drop(content.splice(100..200, noise(4, 5000))));
    maker.remove("gone");
    maker.remove("back");
    maker.remove("shape");
    maker.file("shape/child/deep", "now a directory");
    maker.remove("collide");
    maker.file(format!("collide/{}", stamp(time(0))), "named as the version is");
    maker.file(format!("collide/{}.version", stamp(time(0))), "and so is this");
    maker.chmod("modes", 0o700);
    maker.chown("owners", 33, 33);
}

fn third(maker: &mut Maker) {
    maker.edit("edited", |content| content.truncate(1000));
    maker.file("back", "third");
    maker.remove("gone-dir");
    maker.remove("shape");
    maker.file("shape", noise(5, 100_000));
    maker.chmod("keep", 0o600);
}

/// The second chain's full set.
fn fourth(maker: &mut Maker) {
    maker.remove("shape");
    maker.link("shape", "keep");
    maker.file("late/only", "in the second chain");
}

fn fifth(maker: &mut Maker) {
    maker.edit("edited", |content| content.extend(noise(6, 70_000)));
    maker.remove("shape");
    maker.node("shape", FileType::CharacterDevice, 0o600, 1, 3);
    maker.remove("late");
    maker.remove("pipe");
}

const FULL: [bool; 5] = [true, false, false, true, false];

fn backups(version: &str, mode: Mode, scratch: &Scratch) -> (Repository, Vec<Tree>) {
    let repo = Repository::new(version, |_| mode, &scratch.dir("r"));
    let mut maker = Maker::new(&scratch.path().join("source"), 1_400_000_000);
    let steps: [fn(&mut Maker); 5] = [first, second, third, fourth, fifth];
    let mut trees = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        step(&mut maker);
        repo.backup(FULL[i], maker.root(), time(i));
        let dest = scratch.path().join(format!("restored-{i}"));
        repo.restore(&time(i).to_string(), &dest, &[]);
        trees.push(Tree::walk(&dest));
    }
    (repo, trees)
}

/// Returns true if duplicity stores `now` in an increment on `before`.
fn stored(before: Option<&Entry>, now: &Entry) -> bool {
    let Some(before) = before else { return true };
    let same = match now.kind {
        Kind::Link => before.target == now.target,
        _ => (before.mode, before.uid, before.gid, before.mtime) == (now.mode, now.uid, now.gid, now.mtime),
    };
    before.kind != now.kind || !same
}

/// The sets that stored a path as anything but a directory, and the names that ever existed below it.
type Life = (Vec<usize>, BTreeSet<Vec<u8>>);

/// Returns the life of each path that ever existed.
fn expected(trees: &[Tree]) -> BTreeMap<Vec<u8>, Life> {
    let mut expected: BTreeMap<Vec<u8>, Life> = BTreeMap::new();
    for (i, tree) in trees.iter().enumerate() {
        for (path, entry) in &tree.entries {
            let before = i.checked_sub(1).filter(|_| !FULL[i]).and_then(|b| trees[b].entries.get(path));
            let own = expected.entry(path.clone()).or_default();
            if entry.kind != Kind::Dir && stored(before, entry) {
                own.0.push(i);
            }
            if let Some(cut) = path.iter().rposition(|b| *b == b'/') {
                expected.entry(path[..cut].to_vec()).or_default().1.insert(path[cut + 1..].to_vec());
            } else if !path.is_empty() {
                expected.entry(Vec::new()).or_default().1.insert(path.clone());
            }
        }
    }
    expected
}

fn names(dir: &Path) -> Vec<Vec<u8>> {
    let list = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name().into_vec()).collect();
    names.sort();
    names
}

fn below(dir: &Path, name: &[u8]) -> PathBuf {
    if name.is_empty() { dir.to_owned() } else { dir.join(OsStr::from_bytes(name)) }
}

fn every_version(version: &str, mode: Mode) {
    let scratch = Scratch::new();
    let (repo, trees) = backups(version, mode, &scratch);
    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
    let top = mount.path().join("versions");
    assert_eq!(std::fs::symlink_metadata(&top).unwrap().mode() & 0o7777, 0o700, "closed until it is known");
    let expected = expected(&trees);
    for (path, (sets, children)) in &expected {
        let dir = below(&top, path);
        let mut wanted: Vec<Vec<u8>> = children.iter().cloned().collect();
        for &set in sets {
            let mut name = stamp(time(set)).into_bytes();
            while children.contains(&name) {
                name.extend(b".version");
            }
            let at = below(&dir, &name);
            let one = Tree::walk(&at);
            let restored = Tree::walk(&trees[set].locate(path));
            assert_same(
                &format!("version {set} of {}", show(path)),
                &restored,
                &one,
                &Rules { sane: true, ..Rules::default() },
            );
            let snapshot = below(&mount.path().join("snapshots").join(stamp(time(set))), path);
            let ino = |path: &Path| std::fs::symlink_metadata(path).unwrap().ino();
            assert_eq!(ino(&at), ino(&snapshot), "{}", show(path));
            wanted.push(name);
        }
        wanted.sort();
        assert_eq!(names(&dir), wanted, "in versions/{}", show(path));
        assert!(std::fs::symlink_metadata(&dir).unwrap().is_dir());
    }
    assert!(expected[b"collide".as_slice()].1.len() == 2, "the collision is there");
    let mode = |path: &str| std::fs::symlink_metadata(top.join(path)).unwrap();
    assert_eq!(mode("modes").mode() & 0o7777, 0o700, "as closed as it ever was");
    assert_eq!((mode("owners").uid(), mode("owners").mode() & 0o7777), (0, 0o700), "of several owners none may enter");
    for missing in ["never", "keep/20200101T000000Z", "gone-dir/never", "keep/now"] {
        let error = std::fs::symlink_metadata(top.join(missing)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{missing}");
    }
    mount.unmount();
}

#[test]
fn every_version_of_0_8_22() {
    every_version("0.8.22", Mode::Gzip);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn every_version_of_3_2_1() {
    every_version("3.2.1", Mode::Symmetric("secret".to_owned()));
}

#[test]
fn a_new_backup_adds_its_versions() {
    let scratch = Scratch::new();
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    let mut maker = Maker::new(&scratch.path().join("source"), 1_400_000_000);
    first(&mut maker);
    repo.backup(true, maker.root(), time(0));
    let daemon = super::daemon::Daemon::mount(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
    assert_eq!(daemon.names("versions/edited"), [stamp(time(0))]);
    assert_eq!(daemon.names("versions/shape"), [stamp(time(0))]);
    second(&mut maker);
    repo.backup(false, maker.root(), time(1));
    daemon.hup_until("new snapshots: ");
    assert_eq!(daemon.names("versions/edited"), [stamp(time(0)), stamp(time(1))]);
    assert_eq!(daemon.names("versions/shape"), [stamp(time(0)), "child".to_owned()]);
    assert_eq!(daemon.names("versions/shape/child/deep"), [stamp(time(1))]);
    third(&mut maker);
    fourth(&mut maker);
    repo.backup(true, maker.root(), time(2));
    daemon.hup_until("new snapshots: ");
    assert_eq!(daemon.names("versions/late/only"), [stamp(time(2))]);
    assert_eq!(daemon.names("versions/gone"), [stamp(time(0))]);
    let read = std::fs::read(daemon.path().join("versions/gone").join(stamp(time(0)))).unwrap();
    assert!(read == noise(3, 70_000));
    // With a removed chain the paths disappear that only it had.
    repo.ask("remove-all-but-n-full", &["1", "--force"]);
    daemon.hup_until("no longer in the store: ");
    assert!(!daemon.names("versions").contains(&"gone".to_owned()));
    assert_eq!(daemon.names("versions/edited"), [stamp(time(2))]);
    daemon.unmount();
}

#[test]
fn lost_versions_are_errors_and_the_others_are_served() {
    let scratch = Scratch::new();
    let (repo, trees) = backups("0.8.22", Mode::Gzip, &scratch);
    for entry in std::fs::read_dir(repo.dir()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let second = name.starts_with("duplicity-full") && name.contains(&stamp(time(3)));
        if second && (name.contains("sigtar") || name.contains(".vol1.")) {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
    let top = mount.path().join("versions");
    let (mut known, mut failed) = (BTreeSet::new(), None);
    for entry in std::fs::read_dir(&top).unwrap() {
        match entry {
            Ok(entry) => drop(known.insert(entry.file_name())),
            Err(error) => failed = error.raw_os_error(),
        }
    }
    assert_eq!(failed, Some(libc::EIO), "the listing ends in an error");
    for name in ["keep", "edited", "gone", "gone-dir", "shape"] {
        assert!(known.contains(&OsString::from(name)), "{name} is not listed");
    }
    let error = std::fs::symlink_metadata(top.join("a-never")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "it may be among what is lost");
    for (set, tree) in trees.iter().enumerate().take(3) {
        let shown = std::fs::read(top.join("edited").join(stamp(time(set)))).unwrap();
        assert!(shown == std::fs::read(tree.locate(b"edited")).unwrap());
    }
    mount.unmount();
}
