//! Backups that were killed and started again (FORMAT.md 2.3).

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::check;
use crate::exchanged;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::exec;
use crate::support::maker::Maker;
use crate::support::mount::Mount;
use crate::support::tree::{Kind, Tree, show};
use crate::support::{Scratch, noise};

const FULL: i64 = 1_700_000_000;
const INC: i64 = 1_700_003_600;

/// Fourteen megabytes in files that volumes of one megabyte split in the middle.
fn source(scratch: &Scratch) -> Maker {
    let mut maker = Maker::new(&scratch.path().join("source"), 1_400_000_000);
    for i in 0..14 {
        maker.file(format!("f{i:02}/data"), noise(i + 1, 900_000 + 40_000 * usize::try_from(i).unwrap()));
        maker.file(format!("f{i:02}/small"), format!("{i}"));
    }
    maker
}

/// Starts the backup and kills it, with the gpg it has started, once volume `volume` is in the repository.
fn killed_after(repo: &Repository, full: bool, source: &Path, time: i64, volume: usize) {
    let mut command = repo.backup_command(full, source, time);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let there = |name: &str| {
        let of_set = if full { name.contains("-full.") } else { name.contains("-inc.") };
        of_set && name.contains(&format!(".vol{volume}.difftar"))
    };
    loop {
        let list = std::fs::read_dir(repo.dir()).unwrap();
        if list.filter_map(Result::ok).any(|e| there(&e.file_name().to_string_lossy())) {
            break;
        }
        assert!(child.try_wait().unwrap().is_none(), "duplicity ended before its volume {volume} was seen");
        assert!(start.elapsed() < Duration::from_secs(60), "no volume {volume} within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "duplicity was done before it was killed");
}

/// Starts the backup again at a later time. duplicity resumes the unfinished set.
fn restarted(repo: &Repository, full: bool, source: &Path, time: i64) {
    let output = exec::run(&mut repo.backup_command(full, source, time + 60));
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(output.contains("Restarting after volume"), "duplicity did not restart the set:\n{output}");
}

fn unchanged_source(version: &str, mode: Mode) {
    let scratch = Scratch::new();
    let mut maker = source(&scratch);
    let repo = Repository::new(version, |_| mode, &scratch.dir("r"));
    killed_after(&repo, true, maker.root(), FULL, 3);
    restarted(&repo, true, maker.root(), FULL);
    let first = Tree::walk(maker.root());
    let state_1 = Maker::copy_of(&maker, &scratch.path().join("state-1"), 0);

    for i in 0..14 {
        maker.edit(&format!("f{i:02}/data"), |c| *c = noise(100 + i, 700_000));
    }
    killed_after(&repo, false, maker.root(), INC, 4);
    restarted(&repo, false, maker.root(), INC);
    assert_eq!(first.entries.len(), Tree::walk(state_1.root()).entries.len());
    check::every_snapshot(version, &repo, &[FULL, INC], &[state_1.root(), maker.root()], scratch.path());
}

#[test]
fn restarted_sets_0_8_22_gz() {
    unchanged_source("0.8.22", Mode::Gzip);
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn restarted_sets_1_2_3_symmetric() {
    unchanged_source("1.2.3", Mode::Symmetric("restart".to_owned()));
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn restarted_sets_2_2_4_plain() {
    unchanged_source("2.2.4", Mode::Plain);
}

#[test]
fn restarted_sets_3_2_1_symmetric() {
    unchanged_source("3.2.1", Mode::Symmetric("restart".to_owned()));
}

/// The source changes between the kill and the restart. Files that neither side can have completely are an error or
/// equal to the restore, and files that restore writes as in the source are shown like that.
fn changed_source(version: &str, mode: Mode) {
    let scratch = Scratch::new();
    let mut maker = source(&scratch);
    let repo = Repository::new(version, |_| mode, &scratch.dir("r"));
    killed_after(&repo, true, maker.root(), FULL, 5);
    maker.file("f00/appeared-too-late", "at a place already passed\n");
    maker.file("f99/appeared-in-time", "at a place still to come\n");
    maker.remove("f03/data");
    let mut changed = vec!["f01/data".to_owned(), "f12/data".to_owned()];
    maker.edit("f01/data", |c| c.rotate_left(1000));
    maker.edit("f12/data", |c| c.truncate(300_000));
    for i in 4..8 {
        // One of these is partly stored at the time of the kill. The volume sizes of the version determine which.
        let name = format!("f{i:02}/data");
        maker.edit(&name, |c| c.truncate(500_000));
        changed.push(name);
    }
    restarted(&repo, true, maker.root(), FULL);

    exchanged::no_false_alarm(&repo.reader(), &repo.url());
    let dest = scratch.path().join("restored");
    let mut restore = repo.command("restore");
    restore.args(["--force", "--ignore-errors"]).arg(repo.url()).arg(&dest);
    let status = exec::output(&mut restore).status;
    let source = Tree::walk(maker.root());
    let restored = if dest.exists() { Tree::walk(&dest) } else { Tree { root: dest, entries: BTreeMap::new() } };
    assert!(
        status.success() && restored.entries.len() > 20,
        "{version}: restore made {} objects",
        restored.entries.len()
    );

    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.dir("mnt"));
    let shown = mount.path().join("snapshots").join(stamp(FULL));
    let by_dupfs = scratch.path().join("restored-by-dupfs");
    let operands = ["--time", &FULL.to_string(), &repo.url(), by_dupfs.to_str().unwrap()];
    let output = exec::output(repo.reader().command("restore").args(operands));
    let by_dupfs = Tree::walk(&by_dupfs);
    let mut wrong = Vec::new();
    let mut has_failed = false;
    for (path, entry) in source.entries.iter().filter(|(_, e)| e.kind == Kind::File) {
        let content = std::fs::read(source.locate(path)).unwrap();
        let by_restore = std::fs::read(restored.locate(path)).ok();
        let by_mount = std::fs::read(shown.join(std::ffi::OsStr::from_bytes(path)));
        let whole = by_restore.as_ref() == Some(&content);
        // `dupfs restore` writes what the mount shows and nothing else, and what duplicity writes too with the same attributes. A
        // file of two states that its signature proves has those of the source; duplicity gives it those of its first part.
        let written = std::fs::read(by_dupfs.locate(path)).ok();
        let same = |tree: &Tree| tree.entries.get(path).map(|entry| (entry.mode, entry.mtime));
        if written.as_ref() != by_mount.as_ref().ok()
            || (written.is_some()
                && written == by_restore
                && ![same(&restored), same(&source)].contains(&same(&by_dupfs)))
        {
            wrong.push(format!("{}: dupfs restore brought {:?} bytes", show(path), written.map(|bytes| bytes.len())));
        }
        has_failed |= by_mount.is_err();
        match by_mount {
            Ok(bytes) if bytes == content => {}
            Ok(bytes) if !whole && Some(&bytes) == by_restore.as_ref() => {}
            // A file in the signature archive is never reported as missing. Where the parts of two states happen to
            // fit together, as they do if a file was only truncated, the signature proves it.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound && !whole => {}
            other => wrong.push(format!(
                "{} ({} bytes): {:?}; restore brought {:?} bytes, whole: {whole}",
                show(path),
                entry.size,
                other.map(|b| b.len()),
                by_restore.map(|b| b.len()),
            )),
        }
    }
    assert!(wrong.is_empty(), "{version}: neither right nor an error:\n  {}", wrong.join("\n  "));
    let stderr = exec::tail(&output.stderr);
    assert_eq!(output.status.code(), Some(if has_failed { 6 } else { 0 }), "{version}: {stderr}");
    mount.unmount();
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn restarted_over_a_changed_source_0_8_22_gz() {
    changed_source("0.8.22", Mode::Gzip);
}

#[test]
fn restarted_over_a_changed_source_3_2_1_symmetric() {
    changed_source("3.2.1", Mode::Symmetric("changed".to_owned()));
}

#[test]
fn a_set_killed_and_never_finished_does_not_hide_the_others() {
    let scratch = Scratch::new();
    let mut maker = source(&scratch);
    let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, maker.root(), FULL);
    let before = Maker::copy_of(&maker, &scratch.path().join("before"), 0);
    for i in 0..14 {
        maker.edit(&format!("f{i:02}/data"), |c| *c = noise(200 + i, 700_000));
    }
    killed_after(&repo, false, maker.root(), INC, 3);
    // A copy without duplicity's own archive directory, as on a new machine.
    let fresh = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("fresh"));
    for entry in std::fs::read_dir(repo.dir()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), fresh.dir().join(entry.file_name())).unwrap();
    }
    check::every_snapshot("an unfinished increment", &fresh, &[FULL], &[before.root()], scratch.path());
    let output = fresh.reader().run("sets", &[&fresh.url()]);
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(output.contains(&stamp(INC)), "sets does not report the unfinished increment {}:\n{output}", stamp(INC));
}
