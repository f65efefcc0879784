//! The encoder: writes trees as the objects that duplicity would store, and records the location of each part.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

use super::layout::{BlockRule, Footer, Layout, Mangle, Parts, Restart, SetLayout, Wrap};
use super::naming::{SetNames, VolumeRecord, manifest, utc};
use super::rdiff::{self, Op};
use super::tar::{self, Dialect};
use super::tree::{Dice, Kind, Node, Path, Tree, joined};

/// A run of a file's or a delta's bytes in one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Number of the volume, from 1.
    pub(crate) volume: usize,
    /// Offset of the run in the file or delta stream.
    pub(crate) at: usize,
    pub(crate) len: usize,
}

/// The form in which a set stores a path.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// Nothing but metadata.
    Header,
    Deleted,
    Snapshot(Vec<Part>),
    Diff {
        parts: Vec<Part>,
        ops: Vec<Op>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct EncodedSet {
    pub(crate) time: i64,
    /// The time of the set before it; `None` for a full one.
    pub(crate) start: Option<i64>,
    pub(crate) manifest: String,
    pub(crate) sigtar: String,
    /// Object names by volume number - 1.
    pub(crate) volumes: Vec<String>,
    pub(crate) stored: BTreeMap<Path, Stored>,
    /// Files whose content is missing or uncertain: reads give the right bytes or an error, and the names always
    /// exist.
    pub(crate) uncertain: BTreeSet<Path>,
    pub(crate) tree: Tree,
}

impl EncodedSet {
    /// The name of its snapshot.
    pub(crate) fn snapshot(&self) -> String {
        utc(self.time)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) objects: BTreeMap<String, Arc<Vec<u8>>>,
    pub(crate) sets: Vec<EncodedSet>,
    pub(crate) prefixes: [&'static str; 4],
}

/// Encodes `trees`. `fulls[i]` is true for those that start a chain; the first one always does.
pub(crate) fn encode(trees: &[Tree], fulls: &[bool], layout: &Layout) -> Repository {
    let mut repository = Repository { objects: BTreeMap::new(), sets: Vec::new(), prefixes: layout.prefixes };
    for (i, tree) in trees.iter().enumerate() {
        let set = &layout.sets[i % layout.sets.len()];
        let base = if i == 0 || fulls[i] { None } else { repository.sets.last().cloned() };
        let time = layout.start + layout.interval * i as i64;
        let names = SetNames::new(layout, set, base.as_ref().map(|base| base.time), time);
        let encoded = SetWriter::new(set, &names, i).write(tree, base.as_ref(), time, &mut repository.objects);
        repository.sets.push(encoded);
        if layout.clutter {
            clutter(&mut repository.objects, &names, repository.sets.last().unwrap().volumes.len());
        }
    }
    repository
}

/// Adds objects that a reader has to ignore (FORMAT.md 1).
fn clutter(objects: &mut BTreeMap<String, Arc<Vec<u8>>>, names: &SetNames, volumes: usize) {
    let junk = Arc::new(b"no backup of anything".to_vec());
    let volume = names.volume(1);
    let foreign = [
        "notes.txt".to_owned(),
        "lockfile.lock".to_owned(),
        "duplicity-full.20010101T000000Z.vol1.difftar.gz".to_owned(),
        "duplicity-full-signatures.20010102T000000Z.sigtar.gz".to_owned(),
        "duplicity-full.20010103T000000Z.jsonstat.gz".to_owned(),
        format!("{volume}.par2"),
        format!("{volume}.vol00+20.par2"),
        format!("{}.par2", names.manifest()),
        names.volume(volumes + 3),
    ];
    for name in foreign {
        objects.entry(name).or_insert_with(|| junk.clone());
    }
}

#[derive(Default)]
struct Volume {
    bytes: Vec<u8>,
    /// Path and shown part number of each entry.
    places: Vec<(Path, Option<usize>)>,
}

struct SetWriter<'a> {
    set: &'a SetLayout,
    names: &'a SetNames,
    dice: Dice,
    done: Vec<Volume>,
    current: Volume,
    sigtar: Vec<u8>,
    files: Vec<(&'static str, Path)>,
    stored: BTreeMap<Path, Stored>,
}

impl<'a> SetWriter<'a> {
    fn new(set: &'a SetLayout, names: &'a SetNames, index: usize) -> Self {
        Self {
            set,
            names,
            dice: Dice::new(set.seed + 1000 * index as u64),
            done: Vec::new(),
            current: Volume::default(),
            sigtar: Vec::new(),
            files: Vec::new(),
            stored: BTreeMap::new(),
        }
    }

    fn write(
        mut self,
        tree: &Tree,
        base: Option<&EncodedSet>,
        time: i64,
        objects: &mut BTreeMap<String, Arc<Vec<u8>>>,
    ) -> EncodedSet {
        let none = Tree::new();
        let before = base.map_or(&none, |base| &base.tree);
        let mut uncertain = base.map_or_else(BTreeSet::new, |base| base.uncertain.clone());
        let ghosts = self.ghosts(tree, before);
        let half: Path = vec![b"half.uploaded".to_vec()];
        let mut paths: BTreeSet<&Path> = tree.keys().chain(before.keys()).collect();
        let half_uploaded = self.set.half_uploaded && tree[&Path::new()].kind == Kind::Dir && paths.insert(&half);
        for path in paths {
            if half_uploaded && *path == half {
                self.half_uploaded(path);
                continue;
            }
            match (before.get(path), tree.get(path)) {
                (old, Some(new)) if old != Some(new) => {
                    if !self.changed(path, old, new, ghosts.contains(path)) {
                        uncertain.remove(path);
                    }
                    if ghosts.contains(path) && new.content().is_some() {
                        uncertain.insert(path.clone());
                    }
                }
                (Some(old), None) => {
                    self.deleted(path, old);
                    uncertain.remove(path);
                }
                _ => {}
            }
        }
        uncertain.extend(self.ambiguous());
        let (records, volumes) = self.volumes(objects);
        let mut text = manifest(&records, &self.files, self.set);
        if self.names.gzipped_manifest {
            text = gzip(&text, Some(self.names.manifest()));
        }
        objects.insert(self.names.manifest(), Arc::new(text));
        self.sigtar.extend([0; 1024]);
        self.sigtar.resize(self.sigtar.len().div_ceil(10_240) * 10_240, 0);
        let sigtar = if self.set.wrap == Wrap::Plain { self.sigtar.clone() } else { gzip(&self.sigtar, None) };
        objects.insert(self.names.sigtar(), Arc::new(sigtar));
        EncodedSet {
            time,
            start: base.map(|base| base.time),
            manifest: self.names.manifest(),
            sigtar: self.names.sigtar(),
            volumes,
            stored: self.stored,
            uncertain,
            tree: tree.clone(),
        }
    }

    fn ghosts(&self, tree: &Tree, before: &Tree) -> BTreeSet<Path> {
        let fresh: Vec<&Path> = tree.keys().filter(|path| !path.is_empty() && !before.contains_key(*path)).collect();
        let picks = self.set.ghosts.iter().filter(|_| !fresh.is_empty());
        picks.map(|pick| fresh[usize::from(*pick) % fresh.len()].clone()).collect()
    }

    /// Writes the change of `path`. Returns true if it depends on the content of the base.
    fn changed(&mut self, path: &Path, old: Option<&Node>, new: &Node, ghost: bool) -> bool {
        let dialect = self.set.dialect;
        let name = joined(path);
        let Kind::File(content) = &new.kind else {
            let (link, slash) = match &new.kind {
                Kind::Symlink(target) => (target.clone(), &b""[..]),
                Kind::Dir => (vec![], &b"/"[..]),
                _ => (vec![], &b""[..]),
            };
            let slash = if path.is_empty() { b"" } else { slash };
            let signed = [b"snapshot/", &name[..], slash].concat();
            self.sigtar.extend(tar::entry(&signed, Some(new), &link, b"", dialect));
            if !ghost {
                let shown = if path.is_empty() { b"snapshot/./".to_vec() } else { signed };
                self.put(path, None, &shown, Some(new), &link, b"");
            }
            self.stored.insert(path.clone(), Stored::Header);
            return false;
        };
        let block_len = self.block_len(content.0.len());
        let signed = [b"signature/", &name[..]].concat();
        let sums = rdiff::signature(&content.0, block_len);
        self.sigtar.extend(tar::entry(&signed, Some(new), b"", &sums, dialect));
        self.files.push((if old.is_some() { "changed" } else { "new" }, path.clone()));
        match old.and_then(Node::content) {
            Some(was) => {
                let block_len = self.block_len(was.len());
                let (stream, ops) = rdiff::delta(was, &content.0, block_len, &mut self.dice);
                assert_eq!(rdiff::patched(was, &stream, &ops), *content.0, "the encoder's own delta is wrong");
                let parts = self.stream("diff", path, new, &stream);
                self.stored.insert(path.clone(), Stored::Diff { parts, ops });
                true
            }
            None => {
                let parts = if ghost { vec![] } else { self.stream("snapshot", path, new, &content.0) };
                self.stored.insert(path.clone(), Stored::Snapshot(parts));
                false
            }
        }
    }

    fn deleted(&mut self, path: &Path, old: &Node) {
        let name = [b"deleted/", &joined(path)[..]].concat();
        self.sigtar.extend(tar::entry(&name, None, b"", b"", self.set.dialect));
        self.put(path, None, &name, None, b"", b"");
        if old.content().is_some() {
            self.files.push(("deleted", path.clone()));
        }
        self.stored.insert(path.clone(), Stored::Deleted);
    }

    /// Writes parts of a file whose upload was interrupted and that was deleted before the backup was resumed.
    fn half_uploaded(&mut self, path: &Path) {
        let node = Node {
            kind: Kind::File(super::tree::Content(Arc::default())),
            mode: 0o644,
            uid: 0,
            gid: 0,
            uname: vec![],
            gname: vec![],
            mtime: 1,
        };
        for part in 1..=2 {
            let name = format!("multivol_snapshot/half.uploaded/{part}");
            self.put(path, Some(part), name.as_bytes(), Some(&node), b"", &vec![part as u8; 65_536]);
        }
    }

    fn block_len(&mut self, size: usize) -> usize {
        match self.set.blocks {
            BlockRule::Capped if size < 1_024_000 => 512,
            BlockRule::Capped => (512 * (size / 1_024_000)).min(2048),
            BlockRule::Root => size.isqrt().div_ceil(512).max(1) * 512,
            BlockRule::Stale => 512 * (1 + self.dice.below(9)),
        }
    }

    /// Writes a stream as one entry, or as parts if it is too long for one.
    fn stream(&mut self, what: &str, path: &Path, node: &Node, bytes: &[u8]) -> Vec<Part> {
        let mut max_part = self.part_limit();
        let multivol = bytes.len() >= max_part;
        let (mut parts, mut at) = (Vec::new(), 0);
        loop {
            let len = (bytes.len() - at).min(max_part);
            let last = len < max_part;
            let number = parts.len() + 1;
            let name = match (multivol, path.is_empty()) {
                (false, _) => [what.as_bytes(), b"/", &joined(path)].concat(),
                (true, true) => format!("multivol_{what}/./{number}").into_bytes(),
                (true, false) => {
                    [b"multivol_", what.as_bytes(), b"/", &joined(path), format!("/{number}").as_bytes()].concat()
                }
            };
            let shown = (!last).then_some(number);
            let volume = self.put(path, shown, &name, Some(node), b"", &bytes[at..at + len]);
            parts.push(Part { volume, at, len });
            at += len;
            if last {
                return parts;
            }
            max_part = self.part_limit();
        }
    }

    /// Returns the maximum number of data bytes of the next entry, after closing a full volume.
    fn part_limit(&mut self) -> usize {
        let Parts::Shrinking(ratio) = self.set.parts else { return 65_536 };
        let least = 32 * 1024;
        let left = self.set.volume_bytes.saturating_sub(self.current.bytes.len() / ratio);
        if left < least {
            self.close();
        }
        let left = self.set.volume_bytes.saturating_sub(self.current.bytes.len() / ratio);
        left.clamp(least, 65_536) - 512
    }

    fn close(&mut self) {
        if !self.current.places.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    /// Writes one entry; returns the number of its volume.
    fn put(
        &mut self,
        path: &Path,
        part: Option<usize>,
        name: &[u8],
        node: Option<&Node>,
        link: &[u8],
        data: &[u8],
    ) -> usize {
        let full = self.current.bytes.len() >= self.set.volume_bytes;
        if full && self.set.parts == Parts::Fixed {
            self.close();
        }
        let dialect = if self.set.mixed && self.dice.one_in(2) {
            if self.set.dialect == Dialect::Gnu { Dialect::Pax } else { Dialect::Gnu }
        } else {
            self.set.dialect
        };
        let (name, link) = (mangled(name, self.set.mangle), mangled(link, self.set.mangle));
        self.current.bytes.extend(tar::entry(&name, node, &link, data, dialect));
        self.current.places.push((path.clone(), part));
        self.done.len() + 1
    }

    /// Files whose name in the volumes is also that of another object there.
    fn ambiguous(&self) -> BTreeSet<Path> {
        let mut by_name: BTreeMap<Vec<u8>, Vec<&Path>> = BTreeMap::new();
        for path in self.stored.keys() {
            by_name.entry(mangled(&joined(path), self.set.mangle)).or_default().push(path);
        }
        let is_file = |path: &Path| matches!(self.stored[path], Stored::Snapshot(_) | Stored::Diff { .. });
        let clashes = by_name.into_values().filter(|paths| paths.len() > 1).flatten();
        clashes.filter(|path| is_file(path)).cloned().collect()
    }

    /// Stores the volumes; returns their manifest records and object names.
    fn volumes(&mut self, objects: &mut BTreeMap<String, Arc<Vec<u8>>>) -> (Vec<VolumeRecord>, Vec<String>) {
        self.close();
        if self.done.is_empty() || self.set.empty_last_volume {
            self.done.push(Volume::default());
        }
        let (mut records, mut names) = (Vec::new(), Vec::new());
        let mut end = (Path::new(), None);
        for (i, volume) in self.done.iter().enumerate() {
            let bytes = self.finished(volume);
            let late = usize::from(self.set.late_start && volume.places.len() > 1);
            let start = volume.places.get(late).cloned().unwrap_or_default();
            end = volume.places.last().cloned().unwrap_or((end.0, None));
            let hash = if self.set.md5 {
                format!("MD5 {}", hex(&<md5::Md5 as md5::Digest>::digest(&bytes)))
            } else {
                format!("SHA1 {}", hex(&<sha1::Sha1 as sha1::Digest>::digest(&bytes)))
            };
            records.push(VolumeRecord { number: i + 1, start, end: end.clone(), hash });
            names.push(self.names.volume(i + 1));
            objects.insert(self.names.volume(i + 1), Arc::new(bytes));
        }
        if let Restart::Lost(..) = self.set.restart {
            // a volume of the interrupted backup that the manifest no longer lists
            objects.insert(self.names.volume(names.len() + 1), Arc::new(b"left over".to_vec()));
        }
        (records, names)
    }

    fn finished(&self, volume: &Volume) -> Vec<u8> {
        let mut bytes = volume.bytes.clone();
        match self.set.footer {
            Footer::None => {}
            Footer::Padded => bytes.resize((bytes.len() / 10_240 + 1) * 10_240, 0),
            Footer::Garbage => {
                let beginning = bytes[..bytes.len().min(30_000)].to_vec();
                bytes.resize(bytes.len() + 512, 0);
                bytes.extend(beginning);
            }
        }
        if self.set.wrap == Wrap::Plain { bytes } else { gzip(&bytes, None) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn gzip(bytes: &[u8], name: Option<String>) -> Vec<u8> {
    let mut builder = flate2::GzBuilder::new();
    if let Some(name) = name {
        builder = builder.filename(name);
    }
    let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `name` as an old Python wrote it (FORMAT.md 4.3).
fn mangled(name: &[u8], mangle: Mangle) -> Vec<u8> {
    let bad: &[u8] = match mangle {
        Mangle::No => return name.to_vec(),
        Mangle::QuestionMark => b"?",
        Mangle::Replacement => "\u{fffd}".as_bytes(),
    };
    let mut out = Vec::new();
    for chunk in name.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        out.extend(chunk.invalid().iter().flat_map(|_| bad));
    }
    out
}
