//! `dupfs volumes` against the volumes that reads fetch, on backups of real duplicity.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use dupfs::cli::RequestTimeout;
use dupfs::cli::open::{RepositoryOptions, open_snapshot};
use dupfs::vfs::{FileSystem, Ino, NodeKind, ROOT_INO, TreeFs};
use dupfs_base::RequestContext;
use dupfs_format::BackupTime;
use dupfs_read::content::NeededVolumes;
use dupfs_read::storage::{CountingStore, LocalStore};
use serde_json::Value;

use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::source;
use crate::support::terminal::on_terminal;

const TIMES: [i64; 3] = [1_700_000_000, 1_700_003_600, 1_700_007_200];

/// The tree of a snapshot, opened by itself, over a store that counts.
struct Opened {
    store: Arc<CountingStore<LocalStore>>,
    tree: Arc<TreeFs>,
}

impl Opened {
    fn new(repo: &Repository, time: i64, index: Option<&Path>) -> Self {
        let store = Arc::new(CountingStore::new(LocalStore::open(repo.dir()).unwrap()));
        // Too little for a prefetch, which may fetch more than a read needs.
        let memory = 1 << 20;
        let index = index.map(Path::to_owned);
        let options = RepositoryOptions { memory, index, ..RepositoryOptions::default() };
        let opened = open_snapshot(
            Arc::<CountingStore<LocalStore>>::clone(&store),
            options,
            Some(BackupTime(time)),
            RequestTimeout::default(),
        );
        let (_, _, tree) = opened.unwrap();
        store.reset();
        Self { store, tree: tree.unwrap() }
    }

    /// All regular files.
    fn files(&self) -> Vec<(String, Ino)> {
        let (mut files, mut pending) = (Vec::new(), vec![(String::new(), ROOT_INO)]);
        while let Some((dir, ino)) = pending.pop() {
            let listed = self.tree.readdir(ino, 0, &RequestContext::unlimited(), &mut |entry| {
                let path = format!("{dir}/{}", String::from_utf8(entry.name.to_vec()).unwrap());
                match entry.kind {
                    NodeKind::Dir => pending.push((path, entry.ino)),
                    NodeKind::File => files.push((path, entry.ino)),
                    _ => {}
                }
                true
            });
            listed.unwrap();
        }
        files
    }

    fn needed(&self, ino: Ino) -> (BTreeSet<String>, BTreeSet<String>) {
        let NeededVolumes { certain, possible } = self.tree.needed_volumes(ino, &RequestContext::unlimited()).unwrap();
        let repository = self.tree.repository();
        let name = |id: dupfs_format::VolumeId| {
            repository.set(id.set).unwrap().volumes.get(&id.number).unwrap().name.to_string()
        };
        (certain.into_iter().map(name).collect(), possible.into_iter().map(name).collect())
    }

    /// The volumes fetched so far.
    fn fetched(&self) -> BTreeSet<String> {
        let names = self.store.reads().into_keys().map(|name| name.to_string());
        names.filter(|name| name.contains(".difftar")).collect()
    }

    fn read(&self, ino: Ino) {
        let context = RequestContext::unlimited();
        let (opened, mut at) = (self.tree.open(ino, &context).unwrap(), 0);
        loop {
            let bytes = self.tree.read(ino, opened.handle, at, 100_000, &context).unwrap();
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
        }
        self.tree.release(ino, opened.handle);
        self.tree.finish();
    }
}

#[test]
fn the_volumes_of_each_file_are_those_that_a_read_of_it_fetches() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Plain, &scratch.dir("r"));
    for (i, state) in states.iter().enumerate() {
        repo.backup(i == 0, state, TIMES[i]);
    }
    let (mut exact, mut bounds, mut spanning) = (0, 0, 0);
    for time in TIMES {
        let files = Opened::new(&repo, time, None).files();
        assert!(files.len() >= 6, "{files:?}");
        for (number, (path, ino)) in files.into_iter().enumerate() {
            let index = scratch.dir(&format!("index-{time}-{number}"));
            let first = Opened::new(&repo, time, Some(&index));
            let (certain, possible) = first.needed(ino);
            assert_eq!(first.fetched(), BTreeSet::new(), "{path}: a volume was fetched to name them");
            first.read(ino);
            let fetched = first.fetched();
            let all: BTreeSet<_> = certain.union(&possible).cloned().collect();
            assert!(fetched.is_subset(&all), "{path} at {time}: {fetched:?} is more than {all:?}");
            assert!(certain.is_subset(&fetched), "{path} at {time}: {certain:?} is more than {fetched:?}");
            if possible.is_empty() {
                exact += 1
            } else {
                bounds += 1
            }
            spanning += usize::from(all.len() > 1);
            drop(first);
            // The index has the extents of changed files.
            let second = Opened::new(&repo, time, Some(&index));
            let (certain, possible) = second.needed(ino);
            if possible.is_empty() {
                second.read(ino);
                assert_eq!(second.fetched(), certain, "{path} at {time}, with an index");
            } else {
                assert!(path == "/\u{fc}ml\u{e4}ut" || path == "/a file", "{path} at {time}: {possible:?}");
            }
        }
    }
    assert!(exact > 10 && bounds > 2 && spanning > 2, "{exact} exact, {bounds} bounds, {spanning} in several volumes");
}

fn report(repo: &Repository, args: &[&str]) -> Value {
    serde_json::from_slice(&repo.reader().run("volumes", &[args, &["--json", &repo.url()]].concat())).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn volumes_are_reported_with_sizes_and_sums() {
    let scratch = Scratch::new();
    let states = source::small(scratch.path());
    let repo = Repository::new("0.8.22", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("r"));
    let repo = repo.option("--gpg-options=--s2k-count 1024");
    repo.backup(true, &states[0], TIMES[0]);
    repo.backup(false, &states[1], TIMES[1]);
    let all = report(&repo, &[]);
    let expected = [
        "bytes",
        "certain_bytes",
        "certain_count",
        "cold_bytes",
        "cold_count",
        "count",
        "known",
        "metadata",
        "paths",
        "snapshot",
        "url",
        "volumes",
    ];
    assert_eq!(keys(&all), expected);
    let volume = ["certain", "cold", "indexed", "number", "object", "set", "size", "storage_class"];
    assert_eq!(keys(&all["volumes"][0]), volume);
    assert_eq!(keys(&all["metadata"][0]), ["cold", "kind", "object", "set", "size", "storage_class"]);
    assert_eq!((&all["snapshot"], &all["known"]), (&stamp(TIMES[1]).into(), &true.into()));
    assert_eq!((&all["paths"], &all["cold_count"]), (&Value::Array(Vec::new()), &0.into()));
    // Every volume of the two sets holds a part of the snapshot.
    let stored: BTreeSet<(String, u64)> = std::fs::read_dir(repo.dir())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    let volumes: BTreeSet<_> = stored.iter().filter(|(name, _)| name.contains(".difftar")).cloned().collect();
    let objects = |value: &Value| -> BTreeSet<(String, u64)> {
        let entries = value.as_array().unwrap().iter();
        entries.map(|o| (o["object"].as_str().unwrap().to_owned(), o["size"].as_u64().unwrap())).collect()
    };
    assert_eq!(objects(&all["volumes"]), volumes);
    assert_eq!(objects(&all["metadata"]), stored.difference(&volumes).cloned().collect());
    assert_eq!(all["count"], volumes.len());
    assert_eq!(all["bytes"], volumes.iter().map(|(_, size)| size).sum::<u64>());

    // One file, in the older set and by a path as a mount has it; then its volume is in the index.
    let one = |args: &[&str]| -> Value {
        let url = repo.url();
        let args = [&["--json", url.as_str()], args].concat();
        serde_json::from_slice(&repo.reader().run("volumes", &args)).unwrap()
    };
    let file = one(&["dir/gone", "--time", &TIMES[0].to_string()]);
    assert_eq!((&file["count"], &file["certain_count"]), (&1.into(), &1.into()), "{file}");
    assert_eq!((&file["paths"][0]["path"], &file["volumes"][0]["indexed"]), (&"dir/gone".into(), &false.into()));
    let mounted = format!("snapshots/{}/dir/gone", stamp(TIMES[0]));
    assert_eq!(one(&[&mounted])["volumes"], file["volumes"]);
    repo.reader().run("cat", &[&repo.url(), &mounted]);
    let cached = one(&[&mounted]);
    assert_eq!(cached["volumes"][0]["indexed"], true);
    assert_eq!(one(&["link", "dir/fifo"])["paths"][0]["path"], "link", "{cached}");
    assert_eq!(one(&["dir/fifo"])["count"], 0);

    // Text: exact sizes in a pipe, units on a terminal.
    let bytes = file["bytes"].as_u64().unwrap();
    let object = file["volumes"][0]["object"].as_str().unwrap();
    let text = String::from_utf8(repo.reader().run("volumes", &[&repo.url(), &mounted])).unwrap();
    let set = stamp(TIMES[0]);
    assert_eq!(text, format!("{bytes} - -    indexed needed {set} {object}\n1 volume, {bytes} bytes\n"));
    let mut command = repo.reader().command("volumes");
    let shown = on_terminal(command.args([&repo.url(), &mounted]), &[]).output;
    assert!(shown.contains(" KiB - ") || shown.contains(" MiB - "), "{shown}");
    let bound = String::from_utf8(repo.reader().run("volumes", &[&repo.url(), "dir/edited"])).unwrap();
    assert!(bound.lines().last().unwrap().starts_with("at most "), "{bound}");

    // Nothing is in cold storage.
    let thaw = crate::support::exec::output(repo.reader().command("volumes").args(["--thaw", &repo.url()]));
    assert!(thaw.status.success() && thaw.stdout.is_empty(), "{thaw:?}");
    assert!(String::from_utf8_lossy(&thaw.stderr).contains("none of these objects is in cold storage"), "{thaw:?}");

    for (args, code, part) in [
        (vec![repo.url(), "dir/gon".into()], 3, "no such path"),
        (vec![repo.url(), "unpacked/latest/x".into()], 2, "name the archive"),
        (vec!["--days=3".into(), repo.url()], 2, "--thaw"),
        (vec!["--thaw".into(), "--days=0".into(), repo.url()], 2, "0"),
        (vec!["--thaw".into(), "--tier=fast".into(), repo.url()], 2, "expedited"),
        (vec!["--thaw".into(), "--json".into(), repo.url()], 2, "cannot be used with"),
        (vec!["dir/gone".into(), repo.url()], 2, "the wrong way round"),
        (vec![], 2, "URL"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (got, error) = repo.reader().fails("volumes", &args);
        assert!(got == Some(code) && error.contains(part), "{args:?}: {got:?} {error}");
    }
    assert_eq!(repo.reader().passphrase("wrong").fails("volumes", &["--no-index", &repo.url()]).0, Some(5));
    // A reader of the output that has gone ends the program silently.
    let mut child = repo.reader().command("volumes");
    let mut child = child.arg(repo.url()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), &*output.stderr), (Some(libc::SIGPIPE), &b""[..]));
}
