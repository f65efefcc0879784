//! The index on disk, over backups of real duplicity: a mount that finds an index shows the same as the first mount
//! and as a restore.

use std::path::Path;
use std::process::Command;

use crate::check;
use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{self, Dupfs};
use crate::support::source;

const TIMES: [i64; 4] = [1_700_000_000, 1_700_003_600, 1_700_007_200, 1_700_010_800];

fn files_below(dir: &Path) -> Vec<String> {
    let found = exec::run(Command::new("find").arg(dir).args(["-type", "f"]));
    String::from_utf8(found).unwrap().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_mount_with_an_index_equals_restore_also_after_more_backups() {
    for (version, passphrase) in [("0.8.22", "curve passphrase"), ("3.2.1", "another")] {
        let scratch = Scratch::new();
        let states = source::small(scratch.path());
        let mode = |home: &crate::support::gpg::Home| match version {
            "0.8.22" => Mode::Key(home.generate("index", "future-default", passphrase)),
            _ => Mode::Symmetric(passphrase.to_owned()),
        };
        let repo = Repository::new(version, mode, &scratch.dir("r"));
        repo.backup(true, &states[0], TIMES[0]);
        repo.backup(false, &states[1], TIMES[1]);
        let compare = |sets: usize| {
            let sources = [&*states[0], &*states[1], &*states[2], &*states[0]];
            for visit in ["first", "second"] {
                let what = format!("{version}, {sets} sets, {visit} mount");
                let place = scratch.dir(&format!("{version}-{sets}-{visit}"));
                check::every_snapshot(&what, &repo, &TIMES[..sets], &sources[..sets], &place);
            }
        };
        compare(2);
        repo.backup(false, &states[2], TIMES[2]);
        compare(3);
        repo.backup(true, &states[0], TIMES[3]);
        compare(4);
    }
}

#[test]
fn without_index_and_cache_nothing_is_left_on_the_disk() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    let home = scratch.dir("home");
    let nothing = Dupfs::new(&home).option("--no-index").option("--cache-size=0");
    nothing.run("ls", &["-lR", &repo.url()]);
    nothing.run("cat", &[&repo.url(), "dir/big"]);
    nothing.run("sets", &[&repo.url()]);
    crate::support::mount::Mount::new(&nothing, &repo.url(), &scratch.path().join("mnt")).unmount();
    assert_eq!(files_below(&home), Vec::<String>::new());
    assert!(!home.join("cache").exists());
    // by default there is an index, and --cache-dir moves it
    Dupfs::new(&home).run("ls", &["-lR", &repo.url()]);
    assert!(files_below(&home.join("cache/dupfs")).iter().any(|file| file.contains("/tree-")));
    let elsewhere = scratch.path().join("elsewhere");
    let moved = Dupfs::new(&scratch.dir("home-2")).option(&format!("--cache-dir={}", elsewhere.display()));
    moved.run("ls", &["-lR", &repo.url()]);
    assert!(files_below(&elsewhere).iter().any(|file| file.contains("/tree-")));
    assert_eq!(files_below(&scratch.path().join("home-2")), Vec::<String>::new());
}

#[test]
fn a_full_disk_and_a_read_only_or_missing_home_cause_no_error() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &states[0], TIMES[0]);
    repo.backup(false, &states[1], TIMES[1]);
    let plain = Dupfs::new(&scratch.dir("home")).option("--no-index");
    let expected = plain.run("ls", &["-lR", &repo.url()]);
    // a directory in which nothing can be created, and none at all
    let missing = scratch.path().join("missing");
    for (home, cache) in [("/proc/1", "/proc/1"), (missing.to_str().unwrap(), ""), ("", "")] {
        let reader = Dupfs::new(&scratch.dir("home")).variable("HOME", home).variable("XDG_CACHE_HOME", cache);
        let output = exec::output(reader.command("ls").args(["-lR", &repo.url()]));
        assert!(output.status.success() && output.stdout == expected, "HOME={home:?}: {output:?}");
    }
    // a disk with room for a page
    let disk = scratch.dir("disk");
    let full = Dupfs::new(&scratch.dir("home")).option("--cache-size=0");
    let full = full.option(&format!("--cache-dir={}", disk.join("cache").display()));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=4k tmpfs \"$0\" && exec \"$@\""]).arg(&disk);
    let inner = full.command("ls");
    command.arg(inner.get_program()).args(inner.get_args()).args(["-lR", &repo.url()]);
    command.env("HOME", scratch.path());
    let output = exec::output(&mut command);
    assert!(output.status.success() && output.stdout == expected, "{output:?}");
    assert_eq!(exec::tail(&output.stderr).matches("the index cannot be written to disk").count(), 1, "{output:?}");
}
