//! Tests of the encoder against duplicity itself, which must restore its output to the same trees.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path as FsPath;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use crate::reference::encode::{Repository, encode};
use crate::reference::history::{History, histories};
use crate::reference::layout::{Layout, Names, Oddities, Wrap, layouts};
use crate::reference::tree::{Content, Kind, Node, Path, Tree, shown};

fn run(program: &str, arguments: &[&OsStr]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A repository in a directory, and the environment in which duplicity reads it.
struct DuplicityRun<'a> {
    dir: tempfile::TempDir,
    repository: &'a Repository,
    layout: &'a Layout,
}

impl<'a> DuplicityRun<'a> {
    fn new(repository: &'a Repository, layout: &'a Layout) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["store", "archive", "temp"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        for (name, bytes) in &repository.objects {
            std::fs::write(dir.path().join("store").join(name), &**bytes).unwrap();
        }
        Self { dir, repository, layout }
    }

    fn duplicity(&self, command: &[&str], tail: &[&OsStr]) -> Vec<u8> {
        let path = |sub: &str| self.dir.path().join(sub).into_os_string().into_string().unwrap();
        let (archive, temp, url) = (path("archive"), path("temp"), format!("file://{}", path("store")));
        let mut arguments: Vec<&str> = command.to_vec();
        arguments.extend(["--no-encryption", "--numeric-owner", "--archive-dir", &archive, "--tempdir", &temp]);
        let flags = ["--file-prefix", "--file-prefix-archive", "--file-prefix-manifest", "--file-prefix-signature"];
        for (flag, prefix) in flags.iter().zip(self.repository.prefixes) {
            if !prefix.is_empty() {
                arguments.extend([*flag, prefix]);
            }
        }
        let separator;
        if let Names::Old(_, c) = self.layout.names {
            separator = c.to_string();
            arguments.extend(["--time-separator", &separator]);
        }
        arguments.push(&url);
        let mut arguments: Vec<&OsStr> = arguments.into_iter().map(OsStr::new).collect();
        arguments.extend(tail);
        run("duplicity", &arguments)
    }

    /// The tree that duplicity restores as of `time`.
    fn restored(&self, time: i64) -> Tree {
        let target = self.dir.path().join("restored");
        self.duplicity(&["restore", "--time", &time.to_string()], &[target.as_os_str()]);
        let mut tree = Tree::new();
        read_tree(&target, Path::new(), &mut tree);
        run("rm", &[OsStr::new("-rf"), target.as_os_str()]);
        tree
    }

    fn check(&self) {
        let status = String::from_utf8(self.duplicity(&["collection-status"], &[])).unwrap();
        assert!(status.contains("No orphaned or incomplete backup sets found"), "{status}");
        for set in &self.repository.sets {
            let found = self.restored(set.time);
            assert_same(&set.tree, &found, &set.snapshot());
            let list = self.duplicity(&["list-current-files", "--time", &set.time.to_string()], &[]);
            let names = list.split(|b| *b == b'\n').count();
            // the heading and the last end of line; a name may contain a line feed
            let feeds = set.tree.keys().flatten().flatten().filter(|b| **b == b'\n').count();
            let heading = 2;
            assert!(
                names >= set.tree.len() + feeds + heading,
                "{}: {}",
                set.snapshot(),
                String::from_utf8_lossy(&list)
            );
        }
    }
}

fn read_tree(at: &FsPath, path: Path, tree: &mut Tree) {
    let meta = std::fs::symlink_metadata(at).unwrap();
    let kind = meta.file_type();
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let kind = if kind.is_dir() {
        for entry in std::fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let mut below = path.clone();
            below.push(entry.file_name().as_bytes().to_vec());
            read_tree(&entry.path(), below, tree);
        }
        Kind::Dir
    } else if kind.is_symlink() {
        Kind::Symlink(std::fs::read_link(at).unwrap().as_os_str().as_bytes().to_vec())
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_char_device() {
        Kind::Char(major, minor)
    } else if kind.is_block_device() {
        Kind::Block(major, minor)
    } else {
        Kind::File(Content(std::sync::Arc::new(std::fs::read(at).unwrap())))
    };
    let (mode, mtime) = ((meta.mode() & 0o7777) as u16, meta.mtime());
    let node = Node { kind, mode, uid: meta.uid(), gid: meta.gid(), uname: vec![], gname: vec![], mtime };
    tree.insert(path, node);
}

/// `node` as far as a restore to a disk shows it.
fn restorable(node: &Node) -> Node {
    let link = matches!(node.kind, Kind::Symlink(_));
    Node {
        uname: vec![],
        gname: vec![],
        mode: if link { 0o777 } else { node.mode },
        mtime: if link { 0 } else { node.mtime },
        ..node.clone()
    }
}

fn assert_same(wanted: &Tree, found: &Tree, what: &str) {
    for (path, node) in wanted {
        let there = found.get(path).unwrap_or_else(|| panic!("{what}: duplicity lacks {}", shown(path)));
        let (node, there) = (restorable(node), restorable(there));
        assert!(node == there, "{what}: {} should be {node:?} and duplicity has {there:?}", shown(path));
    }
    let extra: BTreeMap<_, _> = found.iter().filter(|(path, _)| !wanted.contains_key(*path)).collect();
    assert!(extra.is_empty(), "{what}: duplicity has {extra:?}");
}

/// The history and layout of a seed, without forms that Debian's duplicity cannot read.
fn case(runner: &mut TestRunner) -> (History, Layout) {
    let (history, mut layout) = (histories(), layouts(Oddities::None)).new_tree(runner).unwrap().current();
    for set in &mut layout.sets {
        // gzip without a suffix: only 0.6 recognises it
        if set.wrap == Wrap::GzipUnmarked {
            set.wrap = Wrap::Plain;
        }
    }
    (history, layout)
}

#[test]
fn the_encoder_is_checked_by_duplicity_itself() {
    let mut runner = TestRunner::deterministic();
    let histories = std::env::var("PROPTEST_CASES").map_or(6, |n| n.parse::<usize>().unwrap().div_ceil(10));
    for i in 0..histories {
        let (history, layout) = case(&mut runner);
        let fulls: Vec<bool> = [true].into_iter().chain(history.steps.iter().map(|step| step.full)).collect();
        let repository = encode(&history.trees(), &fulls, &layout);
        eprintln!("history {i}: {} sets, {} objects, {layout:?}", repository.sets.len(), repository.objects.len());
        DuplicityRun::new(&repository, &layout).check();
    }
}

#[test]
fn signatures_are_what_librsync_writes() {
    let program = "import sys\n\
        from duplicity import librsync\n\
        data = open(sys.argv[1], 'rb').read()\n\
        sig = librsync.SigGenerator(int(sys.argv[2]))\n\
        sig.update(data)\n\
        sys.stdout.buffer.write(sig.getsig())\n";
    // the interpreter that duplicity itself runs on
    let duplicity = String::from_utf8(run("sh", &[OsStr::new("-c"), OsStr::new("command -v duplicity")])).unwrap();
    let script = std::fs::read_to_string(duplicity.trim()).unwrap();
    let python = script.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap().trim();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("content");
    for (size, block_len) in [(0usize, 512usize), (1, 512), (512, 512), (5000, 512), (70_000, 2048), (65_536, 4608)] {
        let content = crate::reference::tree::Dice::new(size as u64).bytes(size);
        std::fs::write(&file, &content).unwrap();
        let blocks = block_len.to_string();
        let arguments = [OsStr::new("-c"), OsStr::new(program), file.as_os_str(), OsStr::new(&blocks)];
        assert!(crate::reference::rdiff::signature(&content, block_len) == run(python, &arguments), "{size} bytes");
    }
}
