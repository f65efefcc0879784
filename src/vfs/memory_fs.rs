//! A small file system in memory, for tests of its users.

use std::sync::Mutex;
use std::time::Duration;

use super::error::FsError;
use super::ops::{Attr, DirEntry, FileSystem, FsStats, Ino, NodeKind, Opened, ROOT_INO};
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind, RequestContext, Stopped};

/// The type and content of a node.
#[derive(Debug)]
pub(crate) enum MemoryNodeKind {
    Dir,
    /// Bytes; reads from `damaged_from` on fail.
    File {
        bytes: Vec<u8>,
        damaged_from: Option<u64>,
    },
    Link(Vec<u8>),
    Fifo,
    Device(u32, u32),
}

#[derive(Debug)]
struct MemoryNode {
    parent: Ino,
    name: Vec<u8>,
    content: MemoryNodeKind,
}

/// Inode n is node n - 1.
#[derive(Debug)]
pub(crate) struct MemoryFs {
    nodes: Vec<MemoryNode>,
    /// Directories whose listing ends in an error.
    pub(crate) incomplete_dirs: Vec<Ino>,
    /// Inodes whose operations block until the request stops, as those of a store that does not answer.
    pub(crate) hanging: Vec<Ino>,
    /// The reasons why blocked operations stopped.
    pub(crate) stopped: Mutex<Vec<Stopped>>,
    /// The directory that was backed up.
    pub(crate) source: Option<Vec<u8>>,
    /// All snapshots are shown.
    pub(crate) overview: bool,
}

fn at(ino: Ino) -> usize {
    usize::try_from(ino).unwrap() - 1
}

impl MemoryFs {
    pub(crate) fn new() -> Self {
        let root = MemoryNode { parent: ROOT_INO, name: Vec::new(), content: MemoryNodeKind::Dir };
        Self {
            nodes: vec![root],
            incomplete_dirs: Vec::new(),
            hanging: Vec::new(),
            stopped: Mutex::default(),
            source: None,
            overview: false,
        }
    }

    pub(crate) fn add(&mut self, parent: Ino, name: &[u8], content: MemoryNodeKind) -> Ino {
        self.nodes.push(MemoryNode { parent, name: name.to_vec(), content });
        self.nodes.len() as u64
    }

    pub(crate) fn file(&mut self, parent: Ino, name: &[u8], bytes: impl Into<Vec<u8>>) -> Ino {
        self.add(parent, name, MemoryNodeKind::File { bytes: bytes.into(), damaged_from: None })
    }

    fn attr(&self, ino: Ino, exact: bool) -> Attr {
        let (kind, size, rdev) = match &self.nodes[at(ino)].content {
            MemoryNodeKind::Dir => (NodeKind::Dir, 4096, (0, 0)),
            MemoryNodeKind::File { bytes, .. } => {
                (NodeKind::File, bytes.len() as u64 + if exact { 0 } else { 100 }, (0, 0))
            }
            MemoryNodeKind::Link(target) => (NodeKind::Symlink, target.len() as u64, (0, 0)),
            MemoryNodeKind::Fifo => (NodeKind::Fifo, 0, (0, 0)),
            MemoryNodeKind::Device(major, minor) => (NodeKind::BlockDevice, 0, (*major, *minor)),
        };
        Attr {
            ino,
            kind,
            perm: if kind == NodeKind::Dir { 0o1755 } else { 0o4640 },
            nlink: 1,
            uid: 1000,
            gid: 7,
            size,
            blocks: 0,
            mtime: 1_485_569_700,
            rdev,
            exact: exact || kind != NodeKind::File,
            attr_ttl: Duration::ZERO,
            entry_ttl: Duration::ZERO,
        }
    }

    /// Blocks until the request stops if `ino` is one of those that hang.
    fn hang(&self, ino: Ino, context: &RequestContext) -> Result<(), FsError> {
        while self.hanging.contains(&ino) {
            if let Err(stopped) = context.check_may_block() {
                if stopped != Stopped::WouldBlock {
                    lock(&self.stopped).push(stopped);
                }
                return Err(FsError::failed(stopped.kind(), stopped.to_string()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn damage(&self) -> FsError {
        FsError::failed(ErrorKind::Corrupt, "duplicity-full.T.vol7.difftar.gpg: damaged")
    }
}

impl FileSystem for MemoryFs {
    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        self.hang(parent, context)?;
        let found = self.nodes.iter().skip(1).position(|node| node.parent == parent && node.name == name);
        found.map(|index| self.attr(index as u64 + 2, false)).ok_or_else(FsError::not_found)
    }

    fn getattr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        self.hang(ino, context)?;
        match &self.nodes[at(ino)].content {
            MemoryNodeKind::File { damaged_from: Some(_), .. } => Err(self.damage()),
            _ => Ok(self.attr(ino, true)),
        }
    }

    fn readlink(&self, ino: Ino, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        self.hang(ino, context)?;
        match &self.nodes[at(ino)].content {
            MemoryNodeKind::Link(target) => Ok(target.clone()),
            _ => Err(FsError::failed(ErrorKind::Invalid, "not a link")),
        }
    }

    fn parent(&self, ino: Ino, _: &RequestContext) -> Result<Ino, FsError> {
        Ok(self.nodes[at(ino)].parent)
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        self.hang(ino, context)?;
        // The newest is the first.
        let end = if offset == 0 { self.nodes.len() } else { at(offset) };
        for (index, node) in self.nodes.iter().enumerate().take(end).skip(1).rev().filter(|(_, n)| n.parent == ino) {
            let child = index as u64 + 1;
            let kind = self.attr(child, true).kind;
            if !emit(DirEntry { ino: child, kind, next_offset: child, name: &node.name }) {
                return Ok(());
            }
        }
        if self.incomplete_dirs.contains(&ino) { Err(self.damage()) } else { Ok(()) }
    }

    fn open(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        self.hang(ino, context)?;
        Ok(Opened { handle: ino, keep_cache: true, direct_io: false })
    }

    fn read(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        self.hang(ino, context)?;
        assert_eq!(ino, handle);
        let MemoryNodeKind::File { bytes, damaged_from } = &self.nodes[at(ino)].content else {
            return Err(FsError::IsDir);
        };
        let end = (offset + size as u64).min(bytes.len() as u64);
        if damaged_from.is_some_and(|damaged| end > damaged) {
            return Err(self.damage());
        }
        let range = usize::try_from(offset).unwrap()..usize::try_from(end).unwrap();
        Ok(bytes.get(range).unwrap_or_default().to_vec())
    }

    fn shows_snapshots(&self) -> bool {
        self.overview
    }

    fn source_directory(&self, _context: &RequestContext) -> Option<Vec<u8>> {
        self.source.clone()
    }

    fn release(&self, _: Ino, _: u64) {}

    fn getxattr(&self, _: Ino, _: &[u8], _: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        Ok(None)
    }

    fn stats(&self) -> FsStats {
        FsStats { total_bytes: 0, files: 0 }
    }
}

/// A pipe that accepts this number of bytes and is then closed by its reader.
pub(crate) struct ClosingPipe(pub(crate) usize);

impl std::io::Write for ClosingPipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
