//! Comparison of two trees in all attributes of lstat and every byte, by raw names.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The kind of an object, as a backup records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File,
    Link,
    Fifo,
    Char,
    Block,
    Socket,
}

/// One object as lstat shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub size: u64,
    pub rdev: u64,
    pub nlink: u64,
    pub blocks: u64,
    pub target: Vec<u8>,
}

/// The whole content of a directory: raw relative path (empty for the directory itself) to entry.
#[derive(Clone)]
pub struct Tree {
    pub root: PathBuf,
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

impl Tree {
    /// Walks `root` without following links. Panics if anything cannot be read, so that trees are always compared
    /// completely.
    pub fn walk(root: &Path) -> Self {
        let mut tree = Self { root: root.to_owned(), entries: BTreeMap::new() };
        tree.entries.insert(Vec::new(), entry(root));
        if tree.entries[&Vec::new()].kind == Kind::Dir {
            tree.descend(root, &[]);
        }
        tree
    }

    fn descend(&mut self, dir: &Path, prefix: &[u8]) {
        let list = fs::read_dir(dir).unwrap_or_else(|e| panic!("reading directory {}: {e}", dir.display()));
        for item in list {
            let item = item.unwrap_or_else(|e| panic!("reading directory {}: {e}", dir.display()));
            let name = item.file_name().into_vec();
            let mut path = prefix.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let found = entry(&item.path());
            // The type that readdir gave must be the one that lstat gives.
            let listed = item.file_type().unwrap();
            assert_eq!(listed.is_dir(), found.kind == Kind::Dir, "readdir's type of {}", show(&path));
            assert_eq!(listed.is_symlink(), found.kind == Kind::Link, "readdir's type of {}", show(&path));
            let is_dir = found.kind == Kind::Dir;
            assert!(self.entries.insert(path.clone(), found).is_none(), "{} is listed twice", show(&path));
            if is_dir {
                self.descend(&item.path(), &path);
            }
        }
    }

    /// The path of `path` on this machine.
    pub fn locate(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(std::ffi::OsStr::from_bytes(path)) }
    }
}

fn entry(path: &Path) -> Entry {
    lstat(path).unwrap_or_else(|e| panic!("lstat {}: {e}", path.display()))
}

fn lstat(path: &Path) -> std::io::Result<Entry> {
    let meta = fs::symlink_metadata(path)?;
    let kind = match meta.file_type() {
        t if t.is_dir() => Kind::Dir,
        t if t.is_symlink() => Kind::Link,
        t if t.is_fifo() => Kind::Fifo,
        t if t.is_char_device() => Kind::Char,
        t if t.is_block_device() => Kind::Block,
        t if t.is_socket() => Kind::Socket,
        _ => Kind::File,
    };
    let target = match kind {
        Kind::Link => fs::read_link(path)?.into_os_string().into_vec(),
        _ => Vec::new(),
    };
    Ok(Entry {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: meta.mtime(),
        size: meta.size(),
        rdev: meta.rdev(),
        nlink: meta.nlink(),
        blocks: meta.blocks(),
        target,
    })
}

/// Exceptions from the comparison: attributes that the expected side does not have.
#[derive(Clone, Default)]
pub struct Rules {
    /// Modification times of symbolic links, by path: duplicity stores them but does not restore them.
    pub link_mtimes: BTreeMap<Vec<u8>, i64>,
    /// Leave out owners (a restore or a mount by an unprivileged user has none to give).
    pub ignore_owner: bool,
    /// Leave out sockets, which exist only on the expected side.
    pub ignore_sockets: bool,
    /// Modification times before 1970 are expected as 0.
    pub clamp_mtime: bool,
    /// Paths whose content is not compared.
    pub ignore_content: Vec<Vec<u8>>,
    /// Check `st_blocks` and `st_nlink` of the actual side.
    pub sane: bool,
}

/// Returns all differences, one line each: missing, extra, metadata, bytes.
pub fn differences(expected: &Tree, actual: &Tree, rules: &Rules) -> Vec<String> {
    let mut out = Vec::new();
    for (path, want) in &expected.entries {
        if rules.ignore_sockets && want.kind == Kind::Socket {
            continue;
        }
        match actual.entries.get(path) {
            None => out.push(format!("{}: missing ({:?})", show(path), want.kind)),
            Some(have) => compare(path, want, have, rules, &mut out),
        }
    }
    for (path, have) in &actual.entries {
        if !expected.entries.contains_key(path) {
            out.push(format!("{}: extra ({:?})", show(path), have.kind));
        }
    }
    for (path, want) in &expected.entries {
        let both_files = want.kind == Kind::File && actual.entries.get(path).is_some_and(|e| e.kind == Kind::File);
        if both_files && !rules.ignore_content.contains(path) {
            bytes(path, &expected.locate(path), &actual.locate(path), &mut out);
        }
    }
    out
}

/// Panics with up to forty differences, if there are any.
pub fn assert_same(what: &str, expected: &Tree, actual: &Tree, rules: &Rules) {
    let diffs = differences(expected, actual, rules);
    let shown = diffs.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    assert!(diffs.is_empty(), "{what}: {} differences\n  {shown}", diffs.len());
}

fn compare(path: &[u8], want: &Entry, have: &Entry, rules: &Rules, out: &mut Vec<String>) {
    let mut differs = |what: &str, want: String, have: String| {
        if want != have {
            out.push(format!("{}: {what} is {have}, expected {want}", show(path)));
        }
    };
    differs("type", format!("{:?}", want.kind), format!("{:?}", have.kind));
    if want.kind != have.kind {
        return;
    }
    if want.kind != Kind::Link {
        differs("mode", format!("{:o}", want.mode), format!("{:o}", have.mode));
    }
    if !rules.ignore_owner {
        differs("owner", format!("{}:{}", want.uid, want.gid), format!("{}:{}", have.uid, have.gid));
    }
    let mtime = match want.kind {
        Kind::Link => rules.link_mtimes.get(path).copied(),
        _ => Some(want.mtime),
    };
    if let Some(mtime) = mtime {
        let mtime = if rules.clamp_mtime { mtime.max(0) } else { mtime };
        differs("mtime", mtime.to_string(), have.mtime.to_string());
    }
    if matches!(want.kind, Kind::File | Kind::Link) {
        differs("size", want.size.to_string(), have.size.to_string());
    }
    if matches!(want.kind, Kind::Char | Kind::Block) {
        differs("device number", want.rdev.to_string(), have.rdev.to_string());
    }
    differs("target", show(&want.target), show(&have.target));
    if rules.sane {
        let blocks =
            if have.kind == Kind::File { have.size.div_ceil(512).to_string() } else { have.blocks.to_string() };
        let seen = if have.kind == Kind::File && have.blocks * 512 >= have.size && have.blocks * 512 < have.size + 65536
        {
            blocks.clone()
        } else {
            have.blocks.to_string()
        };
        differs("st_blocks", blocks, seen);
        differs("st_nlink >= 1", "true".to_owned(), (have.nlink >= 1).to_string());
    }
}

/// Compares content. Reads from the middle of the file first: the result must not depend on earlier reads.
fn bytes(path: &[u8], expected: &Path, actual: &Path, out: &mut Vec<String>) {
    let want = fs::read(expected).unwrap_or_else(|e| panic!("reading {}: {e}", expected.display()));
    let mut file = match fs::File::open(actual) {
        Ok(file) => file,
        Err(error) => return out.push(format!("{}: cannot be opened: {error}", show(path))),
    };
    let middle = want.len() / 3 * 2;
    let mut part = vec![0; (want.len() - middle).min(5000)];
    if let Err(error) = file.read_exact_at(&mut part, middle as u64) {
        return out.push(format!("{}: reading at {middle}: {error}", show(path)));
    }
    if part != want[middle..middle + part.len()] {
        out.push(format!("{}: wrong bytes in a read at {middle}", show(path)));
    }
    let mut have = Vec::new();
    if let Err(error) = file.read_to_end(&mut have) {
        return out.push(format!("{}: reading after {} bytes: {error}", show(path), have.len()));
    }
    if have != want {
        let at = want.iter().zip(&have).take_while(|(a, b)| a == b).count();
        out.push(format!(
            "{}: {} bytes, expected {}; the first difference is at {at}",
            show(path),
            have.len(),
            want.len()
        ));
    }
}

/// Returns a raw path as text.
pub fn show(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { path.escape_ascii().to_string() }
}

/// Tests that the comparison finds every kind of difference.
#[test]
fn differences_are_reported() {
    let scratch = super::Scratch::new();
    let (a, b) = (scratch.dir("a"), scratch.dir("b"));
    for dir in [&a, &b] {
        for name in ["same", "bytes", "longer", "mode"] {
            fs::write(dir.join(name), "content").unwrap();
        }
        std::os::unix::fs::symlink("there", dir.join("link")).unwrap();
    }
    fs::write(b.join("bytes"), "contenT").unwrap();
    fs::write(b.join("longer"), "content and more").unwrap();
    fs::set_permissions(b.join("mode"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    fs::remove_file(b.join("link")).unwrap();
    std::os::unix::fs::symlink("where", b.join("link")).unwrap();
    fs::write(a.join("lost"), "").unwrap();
    fs::create_dir(b.join("extra")).unwrap();
    let mtime = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
    fs::File::open(a.join("same")).unwrap().set_modified(mtime).unwrap();
    let diffs = differences(&Tree::walk(&a), &Tree::walk(&b), &Rules::default()).join("\n");
    for wanted in
        ["bytes: 7 bytes", "longer: size", "mode: mode", "link: target", "lost: missing", "extra: extra", "same: mtime"]
    {
        assert!(diffs.contains(wanted), "not seen: {wanted}\n{diffs}");
    }
}
