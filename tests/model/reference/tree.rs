//! Plain trees: the backed-up state in the form of the oracle.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use dupfs::vfs::NodeKind;

/// A path as its components; the order of `Vec<Vec<u8>>` is duplicity's order of index tuples.
pub(crate) type Path = Vec<Vec<u8>>;

/// A tree of explicit objects; the root has the empty path.
pub(crate) type Tree = BTreeMap<Path, Node>;

/// Bytes of a file, cheap to clone and short to print.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content(pub(crate) Arc<Vec<u8>>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Content),
    Dir,
    Symlink(Vec<u8>),
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

impl Kind {
    /// Returns true if two objects have the same type.
    pub(crate) fn same_type(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Returns the type as dupfs shows it.
    pub(crate) fn node_kind(&self) -> NodeKind {
        match self {
            Self::File(_) => NodeKind::File,
            Self::Dir => NodeKind::Dir,
            Self::Symlink(_) => NodeKind::Symlink,
            Self::Fifo => NodeKind::Fifo,
            Self::Char(..) => NodeKind::CharDevice,
            Self::Block(..) => NodeKind::BlockDevice,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) uname: Vec<u8>,
    pub(crate) gname: Vec<u8>,
    pub(crate) mtime: i64,
}

impl Node {
    pub(crate) fn content(&self) -> Option<&Vec<u8>> {
        match &self.kind {
            Kind::File(content) => Some(&content.0),
            _ => None,
        }
    }
}

/// The path as bytes joined by `/`; empty for the root.
pub(crate) fn joined(path: &Path) -> Vec<u8> {
    path.join(&b'/')
}

/// The path for a failure message.
pub(crate) fn shown(path: &Path) -> String {
    format!("'{}'", joined(path).escape_ascii())
}

/// Names and nodes of the objects directly below `dir`.
pub(crate) fn children<'a>(tree: &'a Tree, dir: &'a Path) -> impl Iterator<Item = (&'a [u8], &'a Node)> {
    tree.range(dir.clone()..)
        .skip(1)
        .take_while(move |(path, _)| path.starts_with(dir))
        .filter(move |(path, _)| path.len() == dir.len() + 1)
        .map(|(path, node)| (path.last().unwrap().as_slice(), node))
}

/// A small deterministic generator, so that a case is a function of what proptest shrinks.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}
