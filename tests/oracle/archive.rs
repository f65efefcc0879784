//! `--archive-dir`: duplicity's own cache of manifests and signature archives, read instead of the stored ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{self, Dupfs};
use crate::support::mount::Mount;
use crate::support::source;

const TIMES: [i64; 3] = [1_700_000_000, 1_700_003_600, 1_700_007_200];

/// A full set and two increments, written by `version`, and its archive directory.
fn backup(scratch: &Scratch, version: &str, key: bool) -> (Repository, PathBuf) {
    let states = source::small(scratch.path());
    let mode = |home: &crate::support::gpg::Home| match key {
        true => Mode::Key(home.generate("archive", "future-default", "pass phrase")),
        false => Mode::Gzip,
    };
    let repo = Repository::new(version, mode, &scratch.dir("r"));
    for (i, (state, time)) in states.iter().zip(TIMES).enumerate() {
        repo.backup(i == 0, state, time);
    }
    (repo, scratch.path().join("r/archive"))
}

/// The only directory in `archive`.
fn only(archive: &Path) -> PathBuf {
    let dirs: Vec<_> = fs::read_dir(archive).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    dirs[0].clone()
}

fn names(dir: &Path, part: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = all.filter(|path| path.to_string_lossy().contains(part)).collect();
    found.sort();
    found
}

fn with_archive(dupfs: &Dupfs, archive: &Path) -> Dupfs {
    dupfs.clone().option("--no-index").option(&format!("--archive-dir={}", archive.display()))
}

fn listings(dupfs: &Dupfs, repo: &Repository) -> Vec<Vec<u8>> {
    TIMES.map(|time| dupfs.run("ls", &["-R", "--json", "--time", &time.to_string(), &repo.url()])).to_vec()
}

#[test]
fn trees_are_listed_without_a_key_and_no_signature_archive_is_fetched() {
    for version in ["0.8.22", "3.2.1"] {
        let scratch = Scratch::new();
        let (repo, archive) = backup(&scratch, version, true);
        let expected = listings(&repo.reader().option("--no-index"), &repo);
        let keyless = Dupfs::new(&scratch.dir("nobody"));
        assert_eq!(keyless.clone().option("--no-index").fails("ls", &[&repo.url()]).0, Some(5), "{version}");
        assert_eq!(listings(&with_archive(&keyless, &archive), &repo), expected, "{version}");

        let mount = Mount::new(&with_archive(&keyless, &archive), &repo.url(), &scratch.path().join("mnt"));
        assert!(mount.path().join("latest/dir/edited").symlink_metadata().is_err(), "a size that needs a volume");
        let error = fs::read(mount.path().join("latest/dir/big")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOKEY), "{version}: {error}");
        mount.unmount();

        // named as by --name; the stored objects were changed and are not read
        fs::rename(only(&archive), archive.join("other-name")).unwrap();
        assert_eq!(with_archive(&keyless, &archive).fails("ls", &[&repo.url()]).0, Some(5), "{version}");
        for object in names(repo.dir(), "sigtar").iter().chain(&names(repo.dir(), "manifest")) {
            fs::write(object, b"not what was stored").unwrap();
        }
        let named = with_archive(&keyless, &archive).option("--name=other-name");
        assert_eq!(listings(&named, &repo), expected, "{version}");
    }
}

/// A change to the content of a file.
type Damage = fn(&[u8]) -> Vec<u8>;

#[test]
fn copies_that_are_damaged_or_of_another_backup_are_not_used() {
    for key in [true, false] {
        let scratch = Scratch::new();
        let (repo, archive) = backup(&scratch, "0.8.22", key);
        // a command that reads all signature archives, and one that reads all manifests
        let ask = |dupfs: &Dupfs, part: &str| match part {
            "manifest" => exec::output(dupfs.command("sets").args(["--json", &repo.url()])),
            _ => exec::output(dupfs.command("ls").args(["-R", "--json", &repo.url()])),
        };
        let plain = repo.reader().option("--no-index");
        let expected = ["sigtar", "manifest"].map(|part| (part, ask(&plain, part).stdout));
        let dir = only(&archive);
        let reader = with_archive(&repo.reader(), &archive);
        let mut damages: Vec<(&str, Damage)> = vec![
            ("sigtar", |bytes| bytes[..bytes.len() / 2].to_vec()),
            ("sigtar", |bytes| bytes.iter().enumerate().map(|(i, b)| b ^ u8::from(i == bytes.len() / 2)).collect()),
            ("sigtar", |_| Vec::new()),
            ("manifest", |bytes| bytes[..bytes.len() / 3].to_vec()),
            ("manifest", |_| b"Volume x".to_vec()),
        ];
        if !key {
            // intact, but not the stored one
            damages.push(("sigtar", |_| include_bytes!("../fixtures/empty.sigtar.gz").to_vec()));
        }
        for (part, damage) in damages {
            for file in names(&dir, part) {
                let sound = fs::read(&file).unwrap();
                fs::write(&file, damage(&sound)).unwrap();
                let output = ask(&reader, part);
                assert!(output.status.success(), "{}: {output:?}", file.display());
                assert!(expected.contains(&(part, output.stdout.clone())), "{}: {output:?}", file.display());
                assert!(exec::tail(&output.stderr).contains("ignored: "), "{}: {output:?}", file.display());
                fs::write(&file, sound).unwrap();
            }
        }
        for (part, content) in &expected {
            assert!(ask(&reader, part).stdout == *content && !content.is_empty(), "{part}");
        }
    }
}
