//! Mirrors in which the copy of an object in the first store is damaged: the other store has a sound one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dupfs::cli::RequestTimeout;
use dupfs::cli::open::{RepositoryOptions, ViewOptions, open_file_system};
use dupfs::cli::printer::Printer;
use dupfs::cli::verify::{self, VerifyOptions};
use dupfs::vfs::{FileSystem, FsError, ROOT_INO, TreeFs};
use dupfs_base::{ErrorKind, HasKind, RequestContext};
use dupfs_read::codec::{KeyOptions, Secret};
use dupfs_read::storage::{StoreOptions, open, parse_url};
use serde_json::Value;

use crate::corruption::{content, record};
use crate::support::{Scratch, fixtures};

const PASSPHRASE: &str = "fixture passphrase";
const BACKUPS: [&str; 2] = ["duplicity-0.7.13-gz", "duplicity-0.6.23-sym"];

/// Two stores with the objects of a backup.
struct Mirror {
    scratch: Scratch,
    names: Vec<String>,
}

impl Mirror {
    fn of(backup: &str) -> Self {
        let scratch = Scratch::new();
        let entries = fs::read_dir(fixtures::path(backup)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
        for store in ["a", "b"] {
            let dir = scratch.dir(store);
            for file in &files {
                fs::copy(file, dir.join(name(file))).unwrap();
            }
        }
        let url = |store: &str| format!(r#"{{"url": "file://{}"}}"#, scratch.path().join(store).display());
        fs::write(scratch.path().join("multi.json"), format!("[{}, {}]", url("a"), url("b"))).unwrap();
        Self { names: files.iter().map(name).collect(), scratch }
    }

    fn object(&self, store: &str, name: &str) -> PathBuf {
        self.scratch.path().join(store).join(name)
    }

    fn url(&self, store: &str) -> String {
        format!("file://{}", self.scratch.path().join(store).display())
    }

    /// Flips a bit in the middle of an object, or in the first entry of a manifest without encryption.
    fn damage(&self, store: &str, name: &str) {
        let file = self.object(store, name);
        let mut bytes = fs::read(&file).unwrap();
        let entry = bytes.windows(9).position(|window| window == b"Volume 1:");
        let at = entry.filter(|_| name.ends_with(".manifest")).unwrap_or(bytes.len() / 2);
        bytes[at] ^= 0x10;
        fs::write(file, bytes).unwrap();
    }

    fn open(&self, prove_after: Option<Duration>) -> Arc<TreeFs> {
        let url = format!("multi://{}?mode=mirror", self.scratch.path().join("multi.json").display());
        let store = open(&parse_url(&url).unwrap(), &StoreOptions::default()).unwrap();
        let keys = KeyOptions { passphrases: vec![Secret::from(PASSPHRASE.to_owned())], ..KeyOptions::default() };
        let options = RepositoryOptions { keys, memory: 64 << 20, prove_after, ..RepositoryOptions::default() };
        open_file_system(store, options, ViewOptions::default(), RequestTimeout::default()).unwrap()
    }

    /// The contents of all files.
    fn contents(&self, prove_after: Option<Duration>) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut nodes = BTreeMap::new();
        record(&*self.open(prove_after), ROOT_INO, Vec::new(), &mut nodes);
        nodes.into_iter().map(|(path, node)| (path, node.content)).collect()
    }

    /// The report of a verification, its exit code, and the bytes that it fetched.
    fn verify(&self) -> (Value, u8, u64) {
        let fs = self.open(None);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(&mut out, &mut err, false);
        let options = VerifyOptions { json: true, ..VerifyOptions::default() };
        let end = verify::run(&fs, fs.repository(), options, RequestTimeout::default(), &mut printer).unwrap();
        let fetched = fs.repository().traffic().bytes;
        (serde_json::from_slice(&out).unwrap(), end.exit.code(), fetched)
    }
}

fn len(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

#[test]
fn an_object_whose_first_copy_is_damaged_is_read_from_the_second_store() {
    for backup in BACKUPS {
        let sound = Mirror::of(backup);
        let expected = sound.contents(None);
        let (report, exit, sound_bytes) = sound.verify();
        assert_eq!((exit, report["sound"].as_bool()), (0, Some(true)), "{report}");
        for name in &sound.names {
            let mirror = Mirror::of(backup);
            mirror.damage("a", name);
            for prove_after in [None, Some(Duration::ZERO)] {
                assert!(mirror.contents(prove_after) == expected, "{name}, {prove_after:?}");
            }
            let (report, exit, bytes) = mirror.verify();
            assert_eq!((exit, report["complete"].as_bool(), report["sound"].as_bool()), (6, Some(true), Some(false)));
            let findings = report["findings"].as_array().unwrap();
            let [finding] = &findings[..] else { panic!("{name}: {report}") };
            assert_eq!((&finding["kind"], &finding["object"]), (&"copy".into(), &name.as_str().into()), "{report}");
            assert!(finding["message"].as_str().unwrap().contains(&mirror.url("a")), "{report}");
            assert_eq!((finding["paths"].as_array().unwrap().len(), &finding["damaged"]), (0, &true.into()));
            // The damaged copy was fetched once.
            let most = sound_bytes + len(&mirror.object("a", name));
            assert!(bytes > sound_bytes && bytes <= most, "{name}: {bytes} bytes, {sound_bytes} of sound copies");
        }
    }
}

#[test]
fn an_object_whose_copies_are_all_damaged_is_damaged() {
    for backup in BACKUPS {
        let mirror = Mirror::of(backup);
        let expected = mirror.contents(None);
        let name = mirror.names.iter().find(|name| name.contains("vol2")).unwrap();
        ["a", "b"].iter().for_each(|store| mirror.damage(store, name));
        let (report, exit, _) = mirror.verify();
        assert_eq!(exit, 6);
        let findings = report["findings"].as_array().unwrap();
        let [finding] = &findings[..] else { panic!("{report}") };
        assert_eq!((&finding["kind"], &finding["object"]), (&"volume".into(), &name.as_str().into()));
        let message = finding["message"].as_str().unwrap();
        assert!(["a", "b"].iter().all(|store| message.contains(&mirror.url(store))), "{message}");
        let fs = mirror.open(None);
        let path = expected.keys().find(|path| path.ends_with(b"/automysqlbackup/latest.tbz2")).unwrap();
        let context = RequestContext::unlimited();
        let read = || -> Result<Vec<u8>, FsError> {
            let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
            let ino = names.try_fold(ROOT_INO, |ino, name| fs.lookup(ino, name, &context).map(|found| found.ino));
            content(&*fs, &fs.getattr(ino?, &context)?)
        };
        for _ in 0..3 {
            let before = fs.repository().traffic().bytes;
            assert_eq!(read().unwrap_err().kind(), ErrorKind::Corrupt);
            let fetched = fs.repository().traffic().bytes - before;
            let whole: u64 = mirror.names.iter().map(|name| len(&mirror.object("a", name))).sum();
            assert!(fetched <= whole + len(&mirror.object("a", name)), "{fetched} bytes for one attempt");
        }
        // It is read again once one of them was mended.
        fs::copy(fixtures::path(backup).join(name), mirror.object("b", name)).unwrap();
        assert!(mirror.contents(None) == expected);
    }
}
