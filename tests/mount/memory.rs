//! An in-memory file system for the tests of mounts: a small fixed tree with slow, endless and failing files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use dupfs::vfs::{Attr, DirEntry, FileSystem, FsError, FsStats, Ino, NodeKind, Opened, ROOT_INO};
use dupfs_base::{ErrorKind, RequestContext};

pub const MTIME: i64 = 1_485_569_700;
pub const BIG: usize = 3 << 20;
/// Length of the file whose reads are late.
pub const LATE: usize = 150_000;
/// Length of a second one, within the first of the two requests into which the kernel's readahead divides the fourth piece that
/// it reads in sequence. The second request begins after the end.
pub const LATE_LONG: usize = 2_048_000;

/// The behaviour of a file when it is read or its size is requested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers at once.
    Quick,
    /// Would block; takes this long.
    Slow(Duration),
    /// Would block until the stuck requests of the file system are released.
    Stuck,
    /// Cannot be read.
    Fails(ErrorKind),
    /// The size is a bound until `getattr`, which takes this long.
    Unsized(Duration),
    /// The size is a bound until `getattr`. Reads of existing bytes take this long, reads beyond the end do not.
    Late(Duration),
    /// Panics when read.
    Panics,
}

#[derive(Debug)]
pub struct Node {
    parent: Ino,
    name: Vec<u8>,
    kind: NodeKind,
    perm: u16,
    content: Vec<u8>,
    rdev: (u32, u32),
    behaviour: Behaviour,
}

#[derive(Debug, Default)]
pub struct MemoryFs {
    nodes: BTreeMap<Ino, Node>,
    /// Directories whose listing ends in an error.
    torn: BTreeSet<Ino>,
    /// The directory whose listing has no attributes.
    unlisted: Ino,
    release_stuck: Mutex<bool>,
    wake: Condvar,
    pub open_handles: AtomicUsize,
    pub sizes_resolved: AtomicUsize,
    next_handle: AtomicU64,
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i / 7 + i) % 251).unwrap()).collect()
}

impl MemoryFs {
    pub fn sample() -> Self {
        let mut fs = Self::default();
        fs.add(ROOT_INO, b"", NodeKind::Dir, 0o755, b"");
        fs.add(ROOT_INO, b"hello.txt", NodeKind::File, 0o644, b"hello, world\n");
        fs.add(ROOT_INO, b"lat-\xe9", NodeKind::File, 0o600, b"latin");
        fs.add(ROOT_INO, b"private", NodeKind::File, 0o000, b"private");
        fs.add(ROOT_INO, b"run", NodeKind::File, 0o755, b"#!/bin/sh\necho ran\n");
        fs.add(ROOT_INO, b"link", NodeKind::Symlink, 0o777, b"sub/deep.bin");
        fs.add(ROOT_INO, b"pipe", NodeKind::Fifo, 0o644, b"");
        let device = fs.add(ROOT_INO, b"null", NodeKind::CharDevice, 0o666, b"");
        fs.nodes.get_mut(&device).unwrap().rdev = (1, 3);
        let sub = fs.add(ROOT_INO, b"sub", NodeKind::Dir, 0o750, b"");
        fs.add(sub, b"deep.bin", NodeKind::File, 0o440, &pattern(BIG));
        let many = fs.add(ROOT_INO, b"many", NodeKind::Dir, 0o755, b"");
        for n in 0..3000 {
            fs.add(many, format!("file-{n:05}").as_bytes(), NodeKind::File, 0o644, format!("{n}").as_bytes());
        }
        let odd = fs.add(ROOT_INO, b"odd", NodeKind::Dir, 0o755, b"");
        for n in 0..40 {
            let name = format!("slow-{n:02}");
            fs.behave(odd, name.as_bytes(), Behaviour::Slow(Duration::from_millis(1500)));
        }
        fs.behave(odd, b"stuck", Behaviour::Stuck);
        fs.behave(odd, b"damaged", Behaviour::Fails(ErrorKind::Corrupt));
        fs.behave(odd, b"no-key", Behaviour::Fails(ErrorKind::KeyMissing));
        fs.behave(odd, b"cold", Behaviour::Fails(ErrorKind::Archived));
        fs.behave(odd, b"unsized", Behaviour::Unsized(Duration::from_millis(300)));
        fs.behave(odd, b"panics", Behaviour::Panics);
        for (name, len) in [(&b"late"[..], LATE), (b"late-long", LATE_LONG)] {
            let late = fs.add(odd, name, NodeKind::File, 0o644, &pattern(len));
            fs.nodes.get_mut(&late).unwrap().behaviour = Behaviour::Late(Duration::from_millis(300));
        }
        let unlisted = fs.add(ROOT_INO, b"unlisted", NodeKind::Dir, 0o755, b"");
        fs.add(unlisted, b"big", NodeKind::File, 0o644, &pattern(BIG));
        fs.unlisted = unlisted;
        let torn = fs.add(ROOT_INO, b"torn", NodeKind::Dir, 0o755, b"");
        for (name, count) in [(&b"none"[..], 0), (b"few", 3), (b"lots", 300)] {
            let dir = fs.add(torn, name, NodeKind::Dir, 0o755, b"");
            fs.torn.insert(dir);
            for n in 0..count {
                fs.add(dir, format!("known-{n:03}").as_bytes(), NodeKind::File, 0o644, b"");
            }
        }
        let long = fs.add(torn, b"long", NodeKind::Dir, 0o755, b"");
        for name in [&b"before"[..], &[b'n'; 5000], b"behind"] {
            fs.add(long, name, NodeKind::File, 0o644, b"");
        }
        fs
    }

    fn add(&mut self, parent: Ino, name: &[u8], kind: NodeKind, perm: u16, content: &[u8]) -> Ino {
        let ino = u64::try_from(self.nodes.len()).unwrap() + ROOT_INO;
        let (name, content, behaviour) = (name.to_vec(), content.to_vec(), Behaviour::Quick);
        self.nodes.insert(ino, Node { parent, name, kind, perm, content, rdev: (0, 0), behaviour });
        ino
    }

    fn behave(&mut self, parent: Ino, name: &[u8], behaviour: Behaviour) {
        let ino = self.add(parent, name, NodeKind::File, 0o644, b"exactly this");
        self.nodes.get_mut(&ino).unwrap().behaviour = behaviour;
    }

    /// Releases stuck requests.
    pub fn release_stuck(&self) {
        *self.release_stuck.lock().unwrap() = true;
        self.wake.notify_all();
    }

    fn node(&self, ino: Ino) -> Result<&Node, FsError> {
        self.nodes.get(&ino).ok_or_else(FsError::not_found)
    }

    fn attr(&self, ino: Ino, node: &Node, exact: bool) -> Attr {
        let dirs = self.nodes.iter().filter(|(i, n)| n.parent == ino && **i != ino && n.kind == NodeKind::Dir).count();
        let ttl = if exact { Duration::from_secs(3600) } else { Duration::ZERO };
        let len = u64::try_from(node.content.len()).unwrap();
        let excess = if matches!(node.behaviour, Behaviour::Late(_)) { 1_000_000 } else { 1000 };
        let size = if exact { len } else { len + excess };
        Attr {
            ino,
            kind: node.kind,
            perm: node.perm,
            nlink: if node.kind == NodeKind::Dir { 2 + u32::try_from(dirs).unwrap() } else { 1 },
            uid: 0,
            gid: 0,
            size,
            blocks: size.div_ceil(512),
            mtime: MTIME,
            rdev: node.rdev,
            exact,
            attr_ttl: ttl,
            entry_ttl: Duration::from_secs(3600),
        }
    }
}

impl FileSystem for MemoryFs {
    fn lookup(&self, parent: Ino, name: &[u8], _: &RequestContext) -> Result<Attr, FsError> {
        if self.node(parent)?.kind != NodeKind::Dir {
            return Err(FsError::NotDir);
        }
        let found = self.nodes.iter().find(|(ino, n)| n.parent == parent && **ino != ROOT_INO && n.name == name);
        let (ino, node) = found.ok_or_else(FsError::not_found)?;
        Ok(self.attr(*ino, node, !matches!(node.behaviour, Behaviour::Unsized(_) | Behaviour::Late(_))))
    }

    fn lookup_listed(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        if parent == self.unlisted {
            return Err(FsError::failed(ErrorKind::Invalid, "not examined yet"));
        }
        self.lookup(parent, name, &RequestContext::cached_only())
    }

    fn getattr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        let node = self.node(ino)?;
        if let Behaviour::Unsized(time) = node.behaviour {
            if !context.may_block() {
                return Err(FsError::WouldBlock);
            }
            std::thread::sleep(time);
            self.sizes_resolved.fetch_add(1, Ordering::SeqCst);
        }
        Ok(self.attr(ino, node, true))
    }

    fn readlink(&self, ino: Ino, _: &RequestContext) -> Result<Vec<u8>, FsError> {
        let node = self.node(ino)?;
        match node.kind {
            NodeKind::Symlink => Ok(node.content.clone()),
            _ => Err(FsError::failed(ErrorKind::Invalid, "not a link")),
        }
    }

    fn parent(&self, ino: Ino, _: &RequestContext) -> Result<Ino, FsError> {
        Ok(self.node(ino)?.parent)
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        _: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        if self.node(ino)?.kind != NodeKind::Dir {
            return Err(FsError::NotDir);
        }
        let children = self.nodes.iter().filter(|(i, n)| n.parent == ino && **i != ROOT_INO);
        for (n, (child, node)) in (1..).zip(children) {
            if n > offset && !emit(DirEntry { ino: *child, kind: node.kind, next_offset: n, name: &node.name }) {
                return Ok(());
            }
        }
        if self.torn.contains(&ino) {
            return Err(FsError::failed(ErrorKind::Corrupt, "the listing may lack names: on purpose"));
        }
        Ok(())
    }

    fn open(&self, ino: Ino, _: &RequestContext) -> Result<Opened, FsError> {
        if self.node(ino)?.kind != NodeKind::File {
            return Err(FsError::IsDir);
        }
        self.open_handles.fetch_add(1, Ordering::SeqCst);
        let handle = self.next_handle.fetch_add(1, Ordering::SeqCst);
        Ok(Opened { handle, keep_cache: true, direct_io: false })
    }

    fn read(
        &self,
        ino: Ino,
        _handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let node = self.node(ino)?;
        let at_once = match node.behaviour {
            Behaviour::Quick | Behaviour::Unsized(_) => true,
            Behaviour::Late(_) => offset >= u64::try_from(node.content.len()).unwrap(),
            _ => false,
        };
        if !at_once && !context.may_block() {
            return Err(FsError::WouldBlock);
        }
        match node.behaviour {
            Behaviour::Quick | Behaviour::Unsized(_) => {}
            Behaviour::Late(_) if at_once => {}
            Behaviour::Slow(time) | Behaviour::Late(time) => std::thread::sleep(time),
            Behaviour::Stuck => {
                let mut free = self.release_stuck.lock().unwrap();
                while !*free {
                    free = self.wake.wait(free).unwrap();
                }
            }
            Behaviour::Fails(kind) => return Err(FsError::failed(kind, "vol1 of set X: on purpose")),
            Behaviour::Panics => panic!("on purpose"),
        }
        let start = usize::try_from(offset).unwrap().min(node.content.len());
        let end = start.saturating_add(size).min(node.content.len());
        Ok(node.content[start..end].to_vec())
    }

    fn release(&self, _ino: Ino, _handle: u64) {
        self.open_handles.fetch_sub(1, Ordering::SeqCst);
    }

    fn getxattr(&self, ino: Ino, name: &[u8], context: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        match name {
            b"user.dupfs.set" => Ok(Some(ino.to_string().into_bytes())),
            b"user.dupfs.volumes" if !context.may_block() => Err(FsError::WouldBlock),
            b"user.dupfs.volumes" => Ok(Some(b"vol1".to_vec())),
            _ => Ok(None),
        }
    }

    fn stats(&self) -> FsStats {
        FsStats { total_bytes: 10_000_000, files: u64::try_from(self.nodes.len()).unwrap() }
    }
}
