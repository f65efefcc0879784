//! Several versions of the program with one cache directory: an index of another format is read again from the backup, and a
//! running mount is not disturbed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Scratch;
use crate::support::exec::Dupfs;
use crate::support::mount::Mount;

const MAGIC: &[u8] = b"dupfsIDX";

/// The files of all indexes below `cache` that have a version, with it.
fn versions(cache: &Path) -> Vec<(PathBuf, u32)> {
    let entries = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let indexes = entries(cache).into_iter().filter(|path| path.is_dir());
    let files = indexes.flat_map(|index| entries(&index));
    let with_version = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        let version = bytes.strip_prefix(MAGIC)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
        Some((path, version))
    };
    files.filter_map(with_version).collect()
}

/// Makes the files those of another version of the format. They are replaced, as a program replaces them.
fn rewrite_as(cache: &Path, version: u32) {
    for (path, _) in versions(cache) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&version.to_le_bytes());
        let new = path.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }
}

#[test]
fn an_index_of_another_version_is_read_again_and_a_mount_is_not_disturbed() {
    let scratch = Scratch::new();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let passphrase = fs::read_to_string(samples.join("demo-passphrase")).unwrap();
    let dupfs = Dupfs::new(scratch.path()).passphrase(passphrase.trim_end());
    let dupfs = dupfs.secret_key(&samples.join("demo-key.secret.asc"));
    let url = format!("file://{}", samples.join("backup").display());
    let cache = scratch.path().join("cache/dupfs");
    let listed = |what: &str| {
        let text = dupfs.run("ls", &["-lR", &url]);
        assert!(text.len() > 1000, "{what}");
        text
    };
    let expected = listed("without an index");
    let current = versions(&cache).first().unwrap().1;
    assert!(versions(&cache).iter().all(|(_, version)| *version == current));

    let mount = Mount::new(&dupfs, &url, &scratch.dir("mnt"));
    let dump = "latest/var/backups/mysql/shop.sql";
    let contents = fs::read(mount.path().join(dump)).unwrap();
    for other in [current - 1, current + 1] {
        rewrite_as(&cache, other);
        assert_eq!(listed("with an index of another version"), expected, "{other}");
        // What this version writes stays valid for it, beside what the other one has written.
        assert!(versions(&cache).iter().any(|(_, version)| *version == current), "{other}");
        assert_eq!(listed("with the new index"), expected, "{other}");
        assert_eq!(fs::read(mount.path().join(dump)).unwrap(), contents, "{other}");
        let again = fs::read_dir(mount.path().join("snapshots/20260119T021500Z")).unwrap().count();
        assert!(again > 0, "{other}");
    }
    // The files of an older version are removed by any use.
    rewrite_as(&cache, current - 1);
    listed("with an index of an older version");
    assert!(versions(&cache).iter().all(|(_, version)| *version == current));
    mount.unmount();
}
