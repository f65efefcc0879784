//! A file system that answers from the trees of the oracle with one injected fault. It proves that the checks find
//! it.

use std::sync::Mutex;

use dupfs::vfs::{Attr, DirEntry, FileSystem, FsError, FsStats, Ino, NodeKind, Opened, ROOT_INO};
use dupfs_base::{ErrorKind, RequestContext};

use super::encode::Repository;
use super::tree::{Kind, Node, Path, children};

/// A fault of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InjectedFault {
    None,
    WrongByte,
    ShortRead,
    EmptyFile,
    Size,
    Mode,
    Owner,
    Mtime,
    Target,
    Device,
    Links,
    MissingName,
    ExtraName,
    HiddenName,
    EmptyListing,
    NoSuchFile,
    DeletedRemains,
    DoubleInode,
    LostSnapshot,
}

/// The location of an inode: a fixed name at the top, or a path of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Latest,
    Snapshots,
    Object(usize, Path),
}

pub(crate) struct Mirror<'a> {
    repository: &'a Repository,
    lie: InjectedFault,
    places: Mutex<Vec<Place>>,
}

impl<'a> Mirror<'a> {
    pub(crate) fn new(repository: &'a Repository, lie: InjectedFault) -> Self {
        Self { repository, lie, places: Mutex::new(vec![Place::Root]) }
    }

    fn ino(&self, place: Place) -> Ino {
        let mut places = self.places.lock().unwrap();
        if self.lie == InjectedFault::DoubleInode
            && let Place::Object(set, path) = &place
        {
            let twin = |other: &Place| match other {
                Place::Object(s, p) => s == set && p.len() == path.len() && p != path,
                _ => false,
            };
            if let Some(i) = places.iter().position(twin) {
                return i as Ino + ROOT_INO;
            }
        }
        let at = places.iter().position(|known| *known == place).unwrap_or_else(|| {
            places.push(place);
            places.len() - 1
        });
        at as Ino + ROOT_INO
    }

    fn place(&self, ino: Ino) -> Place {
        self.places.lock().unwrap()[(ino - ROOT_INO) as usize].clone()
    }

    fn node(&self, ino: Ino) -> Option<&Node> {
        match self.place(ino) {
            Place::Object(set, path) => self.repository.sets[set].tree.get(&path),
            _ => None,
        }
    }

    fn names(&self, ino: Ino) -> Result<Vec<(Vec<u8>, Place, NodeKind)>, FsError> {
        let mut names = match self.place(ino) {
            Place::Root => vec![
                (b"latest".to_vec(), Place::Latest, NodeKind::Symlink),
                (b"snapshots".to_vec(), Place::Snapshots, NodeKind::Dir),
            ],
            Place::Latest => return Err(FsError::NotDir),
            Place::Snapshots => {
                let sets = self.repository.sets.iter().enumerate();
                let skip = usize::from(self.lie == InjectedFault::LostSnapshot);
                sets.skip(skip)
                    .map(|(i, set)| {
                        (set.snapshot().into_bytes(), Place::Object(i, vec![]), set.tree[&Path::new()].kind.node_kind())
                    })
                    .collect()
            }
            Place::Object(set, path) => {
                let tree = &self.repository.sets[set].tree;
                if tree[&path].kind != Kind::Dir {
                    return Err(FsError::NotDir);
                }
                let below = |name: &[u8]| path.iter().cloned().chain([name.to_vec()]).collect::<Path>();
                let mut names: Vec<_> = children(tree, &path)
                    .map(|(name, node)| (name.to_vec(), Place::Object(set, below(name)), node.kind.node_kind()))
                    .collect();
                match self.lie {
                    InjectedFault::MissingName => drop(names.pop()),
                    InjectedFault::EmptyListing => names.clear(),
                    InjectedFault::ExtraName if !names.is_empty() => {
                        let (_, place, kind) = names[0].clone();
                        names.push((b"extra".to_vec(), place, kind));
                    }
                    InjectedFault::DeletedRemains if set > 0 => {
                        let before = &self.repository.sets[set - 1].tree;
                        if before.get(&path).is_some_and(|node| node.kind == Kind::Dir) {
                            let gone = children(before, &path).filter(|(name, _)| !tree.contains_key(&below(name)));
                            names.extend(gone.map(|(name, node)| {
                                (name.to_vec(), Place::Object(set - 1, below(name)), node.kind.node_kind())
                            }));
                        }
                    }
                    _ => {}
                }
                names
            }
        };
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }
}

impl FileSystem for Mirror<'_> {
    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        if self.lie == InjectedFault::NoSuchFile && self.node(parent).is_some() {
            return Err(FsError::not_found());
        }
        let names = self.names(parent)?;
        let mut found = names.into_iter().filter(|entry| entry.0 == name);
        if self.lie == InjectedFault::HiddenName && self.node(parent).is_some() {
            found.next();
        }
        let (_, place, _) = found.next().ok_or_else(FsError::not_found)?;
        self.getattr(self.ino(place), context)
    }

    fn getattr(&self, ino: Ino, _: &RequestContext) -> Result<Attr, FsError> {
        let mut attr = Attr { perm: 0o555, nlink: 2, exact: true, ..Attr::type_only(ino, NodeKind::Dir) };
        if self.place(ino) == Place::Latest {
            attr.kind = NodeKind::Symlink;
        }
        let Some(node) = self.node(ino) else { return Ok(attr) };
        attr.kind = node.kind.node_kind();
        attr.perm = node.mode ^ u16::from(self.lie == InjectedFault::Mode);
        attr.uid = node.uid ^ u32::from(self.lie == InjectedFault::Owner);
        (attr.gid, attr.mtime) = (node.gid, node.mtime + i64::from(self.lie == InjectedFault::Mtime));
        attr.nlink = match (&node.kind, self.place(ino)) {
            (Kind::Dir, Place::Object(set, path)) => {
                let tree = &self.repository.sets[set].tree;
                2 + children(tree, &path).filter(|(_, child)| child.kind == Kind::Dir).count() as u32
            }
            _ => 1,
        };
        attr.nlink += u32::from(self.lie == InjectedFault::Links);
        match &node.kind {
            Kind::Char(major, minor) | Kind::Block(major, minor) => {
                attr.rdev = (*major, *minor + u32::from(self.lie == InjectedFault::Device));
            }
            Kind::Symlink(target) => attr.size = target.len() as u64,
            Kind::File(content) => attr.size = content.0.len() as u64 + u64::from(self.lie == InjectedFault::Size),
            _ => {}
        }
        attr.blocks = attr.size.div_ceil(512);
        Ok(attr)
    }

    fn readlink(&self, ino: Ino, _: &RequestContext) -> Result<Vec<u8>, FsError> {
        match self.node(ino).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) if self.lie == InjectedFault::Target => Ok([target, &b"x"[..]].concat()),
            Some(Kind::Symlink(target)) => Ok(target.clone()),
            _ => Ok(format!("snapshots/{}", self.repository.sets.last().unwrap().snapshot()).into_bytes()),
        }
    }

    fn parent(&self, ino: Ino, _: &RequestContext) -> Result<Ino, FsError> {
        Ok(match self.place(ino) {
            Place::Object(_, path) if path.is_empty() => self.ino(Place::Snapshots),
            Place::Object(set, path) => self.ino(Place::Object(set, path[..path.len() - 1].to_vec())),
            _ => ROOT_INO,
        })
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        _: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        for (i, (name, place, kind)) in self.names(ino)?.into_iter().enumerate().skip(offset as usize) {
            if !emit(DirEntry { ino: self.ino(place), kind, next_offset: i as u64 + 1, name: &name }) {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, _: Ino, _: &RequestContext) -> Result<Opened, FsError> {
        Ok(Opened { handle: 0, keep_cache: true, direct_io: false })
    }

    fn read(&self, ino: Ino, _: u64, offset: u64, size: usize, _: &RequestContext) -> Result<Vec<u8>, FsError> {
        let content =
            self.node(ino).and_then(Node::content).ok_or_else(|| FsError::failed(ErrorKind::Invalid, "no"))?;
        let at = (offset as usize).min(content.len());
        let mut bytes = content[at..at.saturating_add(size).min(content.len())].to_vec();
        match self.lie {
            InjectedFault::WrongByte if at + bytes.len() == content.len() => {
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
            }
            InjectedFault::ShortRead if size > 4096 => drop(bytes.pop()),
            InjectedFault::EmptyFile => bytes.clear(),
            _ => {}
        }
        Ok(bytes)
    }

    fn release(&self, _: Ino, _: u64) {}

    fn getxattr(&self, _: Ino, _: &[u8], _: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        Ok(None)
    }

    fn stats(&self) -> FsStats {
        FsStats { total_bytes: 0, files: 0 }
    }
}
