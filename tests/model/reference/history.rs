//! Histories of small trees as proptest generates and shrinks them, and the plain trees that they describe.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tree::{Content, Dice, Kind, Node, Path, Tree};

/// Upper bound of the bytes of all files of one history over all its states.
const BUDGET: usize = 1_600_000;

/// A choice among the objects that exist when it is applied, modulo their number.
pub(crate) type Pick = u16;

#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) owner: (&'static str, &'static str),
    pub(crate) mtime: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum Sort {
    File { size: usize, seed: u64, grain: usize },
    Dir,
    Symlink(Vec<u8>),
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Addition {
    pub(crate) parent: Pick,
    pub(crate) name: Vec<u8>,
    pub(crate) sort: Sort,
    pub(crate) meta: Meta,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Overwrite { at: usize, len: usize },
    Insert { at: usize, len: usize },
    Cut { at: usize, len: usize },
    Append { len: usize },
    Truncate { to: usize },
    Move { from: usize, to: usize, len: usize },
    Swap { at: usize },
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Add(Addition),
    Delete(Pick),
    Content(Pick, Vec<Change>),
    Meta(Pick, Meta),
    Retype(Pick, Sort, Meta),
    Rename(Pick, Pick, Vec<u8>),
}

/// One more backup: a full one or an increment, after some edits.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) full: bool,
    pub(crate) edits: Vec<Edit>,
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    /// The backed up object is a single file, not a directory.
    pub(crate) lone_file: Option<Sort>,
    pub(crate) root_meta: Meta,
    pub(crate) base: Vec<Addition>,
    pub(crate) steps: Vec<Step>,
}

impl History {
    /// The trees at each backup, the first for the first full one.
    pub(crate) fn trees(&self) -> Vec<Tree> {
        let mut state = State { tree: Tree::new(), spent: 0, clock: 0 };
        let root = match &self.lone_file {
            Some(sort @ Sort::File { .. }) => sort.clone(),
            _ => Sort::Dir,
        };
        state.put(Path::new(), &root, &self.root_meta);
        for addition in &self.base {
            state.add(addition);
        }
        let mut trees = vec![state.tree.clone()];
        for step in &self.steps {
            state.clock += 1;
            let before = state.tree.clone();
            for edit in &step.edits {
                state.apply(edit);
            }
            state.settle(&before);
            trees.push(state.tree.clone());
        }
        trees
    }
}

struct State {
    tree: Tree,
    spent: usize,
    clock: i64,
}

impl State {
    fn put(&mut self, path: Path, sort: &Sort, meta: &Meta) {
        let kind = match sort {
            Sort::File { size, seed, grain } => {
                let size = if self.spent + size > BUDGET { size % 700 } else { *size };
                self.spent += size;
                Kind::File(Content(Arc::new(fill(size, *seed, *grain))))
            }
            Sort::Dir => Kind::Dir,
            Sort::Symlink(target) => Kind::Symlink(target.clone()),
            Sort::Fifo => Kind::Fifo,
            Sort::Char(major, minor) => Kind::Char(*major, *minor),
            Sort::Block(major, minor) => Kind::Block(*major, *minor),
        };
        self.tree.insert(path, node(kind, meta));
    }

    fn add(&mut self, addition: &Addition) {
        let dirs: Vec<Path> =
            self.tree.iter().filter(|(_, node)| node.kind == Kind::Dir).map(|(path, _)| path.clone()).collect();
        if dirs.is_empty() {
            return;
        }
        let mut path = dirs[usize::from(addition.parent) % dirs.len()].clone();
        path.push(addition.name.clone());
        if !self.tree.contains_key(&path) {
            self.put(path, &addition.sort, &addition.meta);
        }
    }

    fn pick(&self, pick: Pick, want: impl Fn(&Path, &Node) -> bool) -> Option<Path> {
        let found: Vec<&Path> =
            self.tree.iter().filter(|(path, node)| want(path, node)).map(|(path, _)| path).collect();
        (!found.is_empty()).then(|| found[usize::from(pick) % found.len()].clone())
    }

    fn remove(&mut self, path: &Path) {
        self.tree.retain(|other, _| !other.starts_with(path));
    }

    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Add(addition) => self.add(addition),
            Edit::Delete(pick) => {
                if let Some(path) = self.pick(*pick, |path, _| !path.is_empty()) {
                    self.remove(&path);
                }
            }
            Edit::Content(pick, changes) => {
                if let Some(path) = self.pick(*pick, |_, node| node.content().is_some()) {
                    let clock = self.clock;
                    let node = self.tree.get_mut(&path).unwrap();
                    let mut bytes = node.content().unwrap().clone();
                    for change in changes {
                        change.apply(&mut bytes, clock);
                    }
                    self.spent += bytes.len() / 4;
                    node.kind = Kind::File(Content(Arc::new(bytes)));
                }
            }
            Edit::Meta(pick, meta) => {
                if let Some(path) = self.pick(*pick, |_, _| true) {
                    let changed = node(self.tree[&path].kind.clone(), meta);
                    self.tree.insert(path, changed);
                }
            }
            Edit::Retype(pick, sort, meta) => {
                if let Some(path) = self.pick(*pick, |path, _| !path.is_empty()) {
                    if !matches!(sort, Sort::Dir) {
                        self.remove(&path);
                    }
                    self.put(path, sort, meta);
                }
            }
            Edit::Rename(pick, parent, name) => self.rename(*pick, *parent, name),
        }
    }

    fn rename(&mut self, pick: Pick, parent: Pick, name: &[u8]) {
        let Some(from) = self.pick(pick, |path, _| !path.is_empty()) else { return };
        let Some(mut to) = self.pick(parent, |path, node| node.kind == Kind::Dir && !path.starts_with(&from)) else {
            return;
        };
        to.push(name.to_vec());
        if self.tree.contains_key(&to) {
            return;
        }
        let moved: Vec<(Path, Node)> = self
            .tree
            .iter()
            .filter(|(path, _)| path.starts_with(&from))
            .map(|(path, node)| (to.iter().chain(&path[from.len()..]).cloned().collect(), node.clone()))
            .collect();
        self.remove(&from);
        self.tree.extend(moved);
    }

    /// Undoes changes that duplicity does not see, and gives those that it must see different metadata: new content
    /// comes with a new mtime, and a symbolic link counts as changed only if its target did (FORMAT.md 6).
    fn settle(&mut self, before: &Tree) {
        for (path, node) in &mut self.tree {
            let Some(old) = before.get(path) else { continue };
            match (&node.kind, &old.kind) {
                (Kind::File(new), Kind::File(was)) if new != was => {
                    let same =
                        node.mode == old.mode && node.uid == old.uid && node.gid == old.gid && node.mtime == old.mtime;
                    if same {
                        node.mtime += self.clock;
                    }
                }
                (Kind::Symlink(new), Kind::Symlink(was)) if new == was => *node = old.clone(),
                _ => {}
            }
            // a change of owner names alone does not count either
            let same_but_names = Node { uname: old.uname.clone(), gname: old.gname.clone(), ..node.clone() } == *old;
            if same_but_names {
                *node = old.clone();
            }
        }
    }
}

fn node(kind: Kind, meta: &Meta) -> Node {
    // Linux gives every symbolic link all permissions
    let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { meta.mode };
    Node {
        kind,
        mode,
        uid: meta.uid,
        gid: meta.gid,
        uname: meta.owner.0.as_bytes().to_vec(),
        gname: meta.owner.1.as_bytes().to_vec(),
        mtime: meta.mtime,
    }
}

/// `size` bytes: random if `grain` is 0, else grains of that size taken from a few, so that blocks repeat.
fn fill(size: usize, seed: u64, grain: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    if grain == 0 {
        return dice.bytes(size);
    }
    let grains = [dice.bytes(grain), dice.bytes(grain), vec![0; grain]];
    let mut out = Vec::with_capacity(size + grain);
    while out.len() < size {
        out.extend_from_slice(&grains[dice.below(3)]);
    }
    out.truncate(size);
    out
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, clock: i64) {
        let mut dice = Dice::new(clock as u64 * 7919 + bytes.len() as u64);
        let len_now = bytes.len();
        match *self {
            Self::Overwrite { at, len } => {
                let at = at % (len_now + 1);
                let end = (at + len).min(len_now);
                let new = dice.bytes(end - at);
                bytes[at..end].copy_from_slice(&new);
            }
            Self::Insert { at, len } => {
                let at = at % (len_now + 1);
                bytes.splice(at..at, dice.bytes(len));
            }
            Self::Cut { at, len } => {
                let at = at % (len_now + 1);
                bytes.drain(at..(at + len).min(len_now));
            }
            Self::Append { len } => bytes.extend(dice.bytes(len)),
            Self::Truncate { to } => bytes.truncate(to % (len_now + 1)),
            Self::Move { from, to, len } => {
                let from = from % (len_now + 1);
                let moved: Vec<u8> = bytes.drain(from..(from + len).min(len_now)).collect();
                let to = to % (bytes.len() + 1);
                bytes.splice(to..to, moved);
            }
            Self::Swap { at } => bytes.rotate_left(at % (len_now + 1)),
        }
    }
}

/// Names with a difficult order, quoting or encoding.
const SPECIAL: &[&[u8]] = &[
    b"sp ace",
    b"quo\"te",
    b"apo's",
    b"back\\slash",
    b"new\nline",
    b"tab\t",
    b"lat-\xe9",
    b"lat-\xe8",
    b"\xff",
    b"\x85\xa0",
    "n\u{a0}b".as_bytes(),
    "gr\u{fc}\u{df}e".as_bytes(),
    b"1",
    b"7",
    b"signature",
    b"\\x20",
    b"~",
    b"\x01",
    &[b'n'; 90],
    &[b'n'; 101],
    &[b'm'; 255],
    b"diff",
];

pub(crate) fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(prop::sample::select(b"a.!-".to_vec()), 1..=3)
            .prop_map(|name| if name.iter().all(|b| *b == b'.') && name.len() < 3 { vec![b'a'; name.len()] } else { name }),
        2 => prop::sample::select(SPECIAL).prop_map(<[u8]>::to_vec),
    ]
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..3000usize,
        3 => prop::sample::select(vec![0usize, 1, 511, 512, 513, 1024, 2047, 2048, 2049, 4096, 10240]),
        3 => 65_535..=65_537usize,
        1 => 65_023..=65_025usize,
        1 => 130_047..=130_049usize,
        2 => 131_071..=131_073usize,
        1 => 196_607..=196_609usize,
        1 => 262_100..=262_200usize,
        1 => 3000..400_000usize,
        1 => prop::sample::select(vec![327_680usize, 524_288, 655_361, 1_024_000, 1_100_000]),
    ]
}

fn files() -> impl Strategy<Value = Sort> {
    (sizes(), 0..1000u64, prop::sample::select(vec![0usize, 0, 1, 512, 700, 2048]))
        .prop_map(|(size, seed, grain)| Sort::File { size, seed, grain })
}

fn sorts() -> impl Strategy<Value = Sort> {
    let targets = prop::sample::select(vec![
        b"a".to_vec(),
        b"../a/.!-".to_vec(),
        b"/etc/passwd".to_vec(),
        b"caf\xe9".to_vec(),
        "caf\u{e9}".as_bytes().to_vec(),
        vec![b't'; 100],
        vec![b't'; 101],
        [&[b't'; 150][..], b"/", &[b'u'; 150][..]].concat(),
        b"sp ace \\".to_vec(),
    ]);
    let devices = prop::sample::select(vec![(1u32, 3u32), (8, 0), (255, 65_535), (4095, 1_048_575), (0, 0)]);
    prop_oneof![
        8 => files(),
        5 => Just(Sort::Dir),
        2 => targets.prop_map(Sort::Symlink),
        1 => Just(Sort::Fifo),
        1 => devices.clone().prop_map(|(major, minor)| Sort::Char(major, minor)),
        1 => devices.prop_map(|(major, minor)| Sort::Block(major, minor)),
    ]
}

pub(crate) fn metas() -> impl Strategy<Value = Meta> {
    (
        prop::sample::select(vec![0o644u16, 0o600, 0o755, 0o700, 0o4755, 0o2711, 0o1777, 0o000, 0o7777]),
        prop::sample::select(vec![0u32, 1000, 65_534, 2_097_151, 2_097_152, 4_294_967_294]),
        prop::sample::select(vec![0u32, 1000, 2_097_152, 4_294_967_294]),
        prop::sample::select(vec![
            ("", ""),
            ("root", "root"),
            ("nobody such", "gr\u{fc}ppe"),
            ("a-name-that-has-thirty-two-bytes", "a-group-whose-name-is-longer-than-32-bytes"),
        ]),
        prop_oneof![
            4 => 1_000_000_000..1_700_000_000i64,
            1 => prop::sample::select(vec![0i64, 1, 2_147_483_648, 8_589_934_591, 8_589_934_592]),
        ],
    )
        .prop_map(|(mode, uid, gid, owner, mtime)| Meta { mode, uid, gid, owner, mtime })
}

fn additions() -> impl Strategy<Value = Addition> {
    (any::<Pick>(), names(), sorts(), metas()).prop_map(|(parent, name, sort, meta)| Addition {
        parent,
        name,
        sort,
        meta,
    })
}

fn changes() -> impl Strategy<Value = Change> {
    let at = 0..400_000usize;
    let len = || prop_oneof![3 => 0..40usize, 3 => 500..3000usize, 1 => 60_000..70_000usize];
    prop_oneof![
        (at.clone(), len()).prop_map(|(at, len)| Change::Overwrite { at, len }),
        (at.clone(), len()).prop_map(|(at, len)| Change::Insert { at, len }),
        (at.clone(), len()).prop_map(|(at, len)| Change::Cut { at, len }),
        len().prop_map(|len| Change::Append { len }),
        at.clone().prop_map(|to| Change::Truncate { to }),
        (at.clone(), at.clone(), len()).prop_map(|(from, to, len)| Change::Move { from, to, len }),
        at.prop_map(|at| Change::Swap { at }),
    ]
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => additions().prop_map(Edit::Add),
        2 => any::<Pick>().prop_map(Edit::Delete),
        6 => (any::<Pick>(), vec(changes(), 0..3)).prop_map(|(pick, changes)| Edit::Content(pick, changes)),
        2 => (any::<Pick>(), metas()).prop_map(|(pick, meta)| Edit::Meta(pick, meta)),
        2 => (any::<Pick>(), sorts(), metas()).prop_map(|(pick, sort, meta)| Edit::Retype(pick, sort, meta)),
        1 => (any::<Pick>(), any::<Pick>(), names()).prop_map(|(a, b, name)| Edit::Rename(a, b, name)),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    (prop::bool::weighted(0.12), prop_oneof![1 => Just(vec![]).boxed(), 5 => vec(edits(), 1..7).boxed()])
        .prop_map(|(full, edits)| Step { full, edits })
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    (
        prop_oneof![15 => Just(None).boxed(), 1 => files().prop_map(Some).boxed()],
        metas(),
        vec(additions(), 0..14),
        vec(steps(), 0..5),
    )
        .prop_map(|(lone_file, root_meta, base, steps)| History { lone_file, root_meta, base, steps })
}

/// The configuration of a property that is checked for this number of cases, or for `PROPTEST_CASES`.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").map_or(cases, |n| n.parse().expect("PROPTEST_CASES is a number"));
    // failures become named tests, no seed files
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::default() }
}
