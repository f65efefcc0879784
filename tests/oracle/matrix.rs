//! Versions by modes: every snapshot of a full set and four increments, one of them without changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::check;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::gpg::Home;
use crate::support::mount::Mount;
use crate::support::source;
use crate::support::tree::{Kind, Rules, Tree, assert_same};
use crate::support::{Scratch, fixtures};

/// The times of the sets, and the state of the source that each stores.
const SETS: [(i64, usize); 5] =
    [(1_700_000_000, 0), (1_700_003_600, 1), (1_700_007_200, 2), (1_700_010_800, 2), (1_700_014_401, 3)];

#[test]
fn debian_0_8_22_to_a_key_gz_and_plain() {
    all_modes("0.8.22", |home| Mode::Key(home.generate("oracle", "future-default", "curve passphrase")));
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn pypi_1_2_3_symmetric_gz_and_plain() {
    all_modes("1.2.3", |_| Mode::Symmetric("sym passphrase \u{e9}".to_owned()));
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn pypi_2_2_4_to_an_rsa_key_gz_and_plain() {
    all_modes("2.2.4", |home| Mode::Key(home.import(&fixtures::path("old-key.secret.asc"), "old key")));
}

#[test]
fn pypi_3_2_1_symmetric_gz_and_plain() {
    all_modes("3.2.1", |_| Mode::Symmetric("another one".to_owned()));
}

/// Makes a mode, given the gpg home of the repository it is for.
type MakeMode = fn(&Home) -> Mode;

fn all_modes(version: &str, encrypted: MakeMode) {
    let modes: [(&str, MakeMode); 3] = [("gpg", encrypted), ("gz", |_| Mode::Gzip), ("plain", |_| Mode::Plain)];
    for (name, mode) in modes {
        let scratch = Scratch::new();
        let repo = Repository::new(version, mode, &scratch.dir("r"));
        every_snapshot_equals_restore(&format!("{version} {name}"), &repo, scratch.path());
    }
}

fn every_snapshot_equals_restore(what: &str, repo: &Repository, scratch: &Path) {
    let states = &sources().states;
    for (i, (time, state)) in SETS.into_iter().enumerate() {
        repo.backup(i == 0, &states[state].root, time);
    }
    let mount = Mount::new(&repo.reader(), &repo.url(), &scratch.join("mnt"));
    assert_eq!(check::snapshots(&mount), SETS.map(|(time, _)| stamp(time)), "{what}: the snapshots listed");
    let latest = std::fs::read_link(mount.path().join("latest")).unwrap();
    assert_eq!(latest, Path::new("snapshots").join(stamp(SETS[4].0)), "{what}: where latest points");

    let mut links = BTreeMap::new();
    for (i, (time, state)) in SETS.into_iter().enumerate() {
        let earlier = if i == 0 { None } else { Some(&states[SETS[i - 1].1]) };
        stored_link_times(&mut links, earlier, &states[state]);
        let rules = Rules { link_mtimes: links.clone(), clamp_mtime: true, sane: true, ..Rules::default() };
        let restored = check::snapshot(&format!("{what}, snapshot {i}"), repo, &mount, time, &rules, scratch);
        oracle_is_not_vacuous(&format!("{what}, restore of snapshot {i}"), &states[state], &restored, state);
        let dest = scratch.join("by-dupfs");
        let rules = Rules { sane: false, ..rules };
        repo.reader().run("restore", &["--time", &time.to_string(), &repo.url(), dest.to_str().unwrap()]);
        assert_same(&format!("{what}, dupfs restore of snapshot {i}"), &restored, &Tree::walk(&dest), &rules);
        std::fs::remove_dir_all(&dest).unwrap();
        std::fs::remove_dir_all(&restored.root).unwrap();
    }
    mount.unmount();
}

/// Requires that the restored tree has everything that the source had, except for duplicity's known losses: sockets,
/// times before 1970, hard links and the edit without a new modification time.
fn oracle_is_not_vacuous(what: &str, source: &Tree, restored: &Tree, state: usize) {
    let same_mtime = source::SAME_MTIME.as_bytes().to_vec();
    let rules = Rules {
        ignore_sockets: true,
        clamp_mtime: true,
        ignore_owner: true,
        ignore_content: if state >= 2 { vec![same_mtime] } else { Vec::new() },
        ..Rules::default()
    };
    assert_same(what, source, restored, &rules);
}

/// Records the modification time that duplicity stored with each link: that of the last change of its target
/// (FORMAT.md section 6), in whole seconds. Restore does not set it, so it is taken from the source.
fn stored_link_times(times: &mut BTreeMap<Vec<u8>, i64>, earlier: Option<&Tree>, now: &Tree) {
    times.retain(|path, _| now.entries.get(path).is_some_and(|e| e.kind == Kind::Link));
    for (path, entry) in now.entries.iter().filter(|(_, e)| e.kind == Kind::Link) {
        let before = earlier.and_then(|tree| tree.entries.get(path));
        if before.is_none_or(|b| b.kind != Kind::Link || b.target != entry.target) {
            times.insert(path.clone(), entry.mtime);
        }
    }
}

/// The source trees, built once for all versions and modes.
struct Sources {
    states: Vec<Tree>,
}

fn sources() -> &'static Sources {
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    SOURCES.get_or_init(|| {
        // Below the target directory and replaced by the next run, since a static is never dropped.
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("oracle-source");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Sources { states: source::build(&dir).iter().map(|root| Tree::walk(root)).collect() }
    })
}
