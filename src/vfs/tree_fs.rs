//! The mounted tree over a repository: `latest`, `snapshots/<time>/...`, or one directory of one snapshot as the root.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::error::FsError;
use super::inode::Inode;
use super::ops::{Attr, DirEntry, FileSystem, FsStats, Ino, Opened};
use super::owners::{OwnerOptions, Owners};
use super::versions::Stalled;
use super::view::View;
use dupfs_base::{ByteRange, ErrorKind, HasKind, RequestContext};
use dupfs_format::collection::Snapshot;
use dupfs_format::{ArchivePath, EntryMeta, SetIndex};
use dupfs_read::content::{ContentError, ContentResolver, ExtentMap, FileRef};
use dupfs_read::tree::{Branch, Branches, NodeId, TreeError};
use dupfs_read::volume::{Repository, RequestVolumes, Volumes};

/// Snapshots never change, so the kernel may keep what it was told of them.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// `latest` and the list of snapshots follow new backups.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// What a mount shows at its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// `latest` and `snapshots/`.
    #[default]
    Overview,
    /// One path of one snapshot (an index into the collection's snapshots).
    Path(usize, ArchivePath),
}

/// How the tree is shown.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// What the root is.
    pub root: Root,
    /// Owners and modes.
    pub owners: OwnerOptions,
    /// Show the signature's upper bound as the size of files that were not opened (`-o sizes=bound`).
    pub size_bounds: bool,
    /// Bytes for plans and parsed deltas.
    pub plan_bytes: u64,
}

#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: FileRef,
    pub(super) plan: Arc<ExtentMap>,
}

/// The root as it was found at mount.
#[derive(Clone, Debug)]
pub(super) enum RootNode {
    Overview,
    Dir(usize, NodeId),
    /// The root's path is no directory: the root holds just it, under this name.
    Single(usize, NodeId, Vec<u8>),
}

/// A repository as a file system. See [`FileSystem`].
#[derive(Debug)]
pub struct TreeFs {
    pub(super) repository: Arc<Repository>,
    pub(super) forest: Branches,
    pub(super) content: ContentResolver,
    /// What is shown; replaced whole when the store was listed again.
    pub(super) view: RwLock<Arc<View>>,
    pub(super) owners: Owners,
    pub(super) root: RootNode,
    pub(super) size_bounds: bool,
    handles: Mutex<HashMap<u64, Arc<OpenFile>>>,
    next_handle: AtomicU64,
    pub(super) subdirs: Mutex<HashMap<(usize, NodeId), u32>>,
    pub(super) stalled: Stalled,
    pub(super) peeked: Mutex<HashMap<SetIndex, Option<EntryMeta>>>,
}

impl TreeFs {
    /// The file system over `repository`. With a path as the root its snapshot's tree is read here, so that a wrong
    /// path or key is found before anything is mounted.
    ///
    /// # Errors
    /// [`FsError`]: NotFound if the root's path does not exist in its snapshot.
    pub fn new(repository: Arc<Repository>, options: TreeOptions, context: &RequestContext) -> Result<Self, FsError> {
        let mut fs = Self {
            forest: Branches::default(),
            content: ContentResolver::new(options.plan_bytes),
            view: RwLock::new(Arc::new(View::new(repository.collection()))),
            owners: Owners::new(options.owners),
            root: RootNode::Overview,
            size_bounds: options.size_bounds,
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            subdirs: Mutex::default(),
            stalled: Stalled::default(),
            peeked: Mutex::default(),
            repository,
        };
        if let Root::Path(snapshot, path) = options.root {
            fs.root = fs.find_root(snapshot, &path, context)?;
        }
        Ok(fs)
    }

    /// The repository below.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    fn find_root(&self, snapshot: usize, path: &ArchivePath, context: &RequestContext) -> Result<RootNode, FsError> {
        let (line, depth) = self.loaded_line(snapshot, context)?;
        let name = self.snapshot(snapshot)?.name.clone();
        let table = line.table();
        let missing = || match table.missing_range_at(path, false, depth) {
            Some(gap) => FsError::failed(gap.kind, format!("{path}: cannot be looked up: {}", gap.reason)),
            None => FsError::failed(
                ErrorKind::NotFound,
                format!("{path}: no such path in snapshot {name}; `dupfs ls` shows what there is"),
            ),
        };
        let node = table.find(path).ok_or_else(missing)?;
        let version = table.version(node, depth);
        let is_dir = version.map_or(node == NodeId::ROOT || table.is_implied_dir(node, depth), |v| table.is_dir(v));
        match (is_dir, version) {
            (true, _) => Ok(RootNode::Dir(snapshot, node)),
            (false, None) => Err(missing()),
            (false, Some(_)) => {
                let own = table.name(node).to_vec();
                drop(table);
                Ok(RootNode::Single(
                    snapshot,
                    node,
                    if own.is_empty() { self.source_name(snapshot, context) } else { own },
                ))
            }
        }
    }

    /// The name of a backup whose root is a single file: the last component of the path that was backed up.
    fn source_name(&self, snapshot: usize, context: &RequestContext) -> Vec<u8> {
        let set = self.snapshot(snapshot).ok().and_then(|s| s.lineage().last().copied());
        let manifest = set.and_then(|set| self.repository.manifest(set, context).ok());
        let source = manifest.and_then(|m| m.localdir.clone()).unwrap_or_default();
        let name = source.rsplit(|&b| b == b'/').find(|name| !matches!(*name, b"" | b"." | b".."));
        name.map_or_else(|| b"file".to_vec(), <[u8]>::to_vec)
    }

    pub(super) fn snapshot(&self, index: usize) -> Result<Snapshot, FsError> {
        self.view().snapshot(index).cloned()
    }

    /// The line of a snapshot with all its sets loaded, and how many of its sets the snapshot shows.
    pub(super) fn loaded_line(&self, index: usize, context: &RequestContext) -> Result<(Arc<Branch>, u32), FsError> {
        let view = self.view();
        let snapshot = view.snapshot(index)?;
        let sets = view.collection.branches().get(snapshot.branch).ok_or_else(FsError::not_found)?;
        let line = self.forest.branch(snapshot.branch, sets);
        let depth = u32::try_from(snapshot.depth).unwrap_or(u32::MAX);
        if !line.is_loaded(depth) {
            if !context.may_block() {
                return Err(FsError::WouldBlock);
            }
            line.ensure(&self.repository, depth, context).map_err(|e| tree_error(&snapshot.name, &e))?;
        }
        Ok((line, depth))
    }

    pub(super) fn resolve(&self, ino: Ino) -> Result<Inode, FsError> {
        match self.view().resolve(ino)? {
            Inode::Root => Ok(match self.root {
                RootNode::Dir(snapshot, node) => Inode::Node(snapshot, node),
                RootNode::Overview | RootNode::Single(..) => Inode::Root,
            }),
            other => Ok(other),
        }
    }

    /// The inode number of `inode`; the root's where it is the mount's root.
    pub(super) fn number(&self, inode: Inode) -> Ino {
        match (&self.root, inode) {
            (RootNode::Dir(snapshot, node), Inode::Node(s, n)) if *snapshot == s && *node == n => {
                self.view().number(Inode::Root)
            }
            _ => self.view().number(inode),
        }
    }

    pub(super) fn file(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<FileRef, FsError> {
        let (line, depth) = self.loaded_line(snapshot, context)?;
        {
            let table = line.table();
            if let Some(version) = table.version(node, depth) {
                super::nodes::known_state(&table, node, version, depth)?;
            }
        }
        FileRef::at(&line, node, depth).ok_or_else(|| {
            let path = line.table().path(node);
            FsError::failed(ErrorKind::Invalid, format!("{path}: not a regular file in this snapshot"))
        })
    }

    /// Asks the content layer within the limits of the request.
    pub(super) fn ask<T>(
        &self,
        context: &RequestContext,
        question: impl Fn(&dyn Volumes) -> Result<T, ContentError>,
    ) -> Result<T, FsError> {
        let answer = question(&RequestVolumes::new(&self.repository, context));
        answer.map_err(|error| content_error(&error))
    }

    pub(super) fn open_file(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    fn open_node(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<OpenFile, FsError> {
        let file = self.file(snapshot, node, context)?;
        self.ask(context, |volumes| self.content.stat(volumes, &file))?;
        let plan = self.ask(context, |volumes| self.content.extent_map(volumes, &file))?;
        Ok(OpenFile { file, plan })
    }

    fn node_of(&self, ino: Ino) -> Result<(usize, NodeId), FsError> {
        match self.resolve(ino)? {
            Inode::Node(snapshot, node) => Ok((snapshot, node)),
            Inode::Root | Inode::Snapshots | Inode::At | Inode::Versions | Inode::History(..) => Err(FsError::IsDir),
            Inode::Latest(_) | Inode::AtLink(_) => Err(FsError::failed(ErrorKind::Invalid, "is a symbolic link")),
        }
    }
}

impl FileSystem for TreeFs {
    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        self.look_up(self.resolve(parent)?, name, context)
    }

    fn getattr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        self.exact_attr(self.resolve(ino)?, context)
    }

    fn readlink(&self, ino: Ino, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        self.link_target(self.resolve(ino)?, context)
    }

    fn parent(&self, ino: Ino) -> Result<Ino, FsError> {
        self.parent_of(self.resolve(ino)?)
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        self.list(self.resolve(ino)?, offset, context, emit)
    }

    fn open(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        let (snapshot, node) = self.node_of(ino)?;
        let open = self.open_node(snapshot, node, context)?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(open));
        Ok(Opened { handle, keep_cache: true, direct_io: false })
    }

    fn read(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let open = match self.open_file(handle) {
            Some(open) => open,
            None => {
                let (snapshot, node) = self.node_of(ino)?;
                Arc::new(self.open_node(snapshot, node, context)?)
            }
        };
        let left = open.plan.size().saturating_sub(offset);
        let len = u64::try_from(size).unwrap_or(u64::MAX).min(left);
        let range = ByteRange::at(offset, len);
        self.ask(context, |volumes| {
            let mut out = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
            open.plan.read(volumes, &open.file, range, &mut out)?;
            Ok(out)
        })
    }

    fn release(&self, _ino: Ino, handle: u64) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    }

    fn getxattr(&self, ino: Ino, name: &[u8], context: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        self.xattr(self.resolve(ino)?, name, context)
    }

    fn refresh(&self, context: &RequestContext) -> Result<Option<String>, FsError> {
        self.take_news(context)
    }

    fn content_identity(&self, ino: Ino, context: &RequestContext) -> Option<Vec<u8>> {
        let (snapshot, node) = self.node_of(ino).ok()?;
        let (identity, set) =
            self.file(snapshot, node, context).ok()?.identity(&RequestVolumes::new(&self.repository, context))?;
        Some([&self.repository.index().group(set).to_le_bytes()[..], &identity.0].concat())
    }

    fn path(&self, ino: Ino) -> Option<String> {
        let Inode::Node(snapshot, node) = self.resolve(ino).ok()? else { return None };
        let (line, _) = self.loaded_line(snapshot, &RequestContext::cached_only()).ok()?;
        let path = line.table().path(node);
        Some(format!("{}/{path}", self.snapshot(snapshot).ok()?.name))
    }

    fn cost(&self) -> Option<String> {
        Some(self.repository.cost())
    }

    fn finish(&self) {
        self.forest.finish();
        if let Some(index) = self.repository.index().on_disk() {
            index.flush();
        }
    }

    fn stats(&self) -> FsStats {
        let collection = &self.view().collection;
        let sets = collection.sets().iter().filter(|set| !collection.is_removed(set.index));
        let objects = sets.flat_map(|s| s.volumes.values().chain(&s.manifest).chain(&s.signatures));
        FsStats { total_bytes: objects.map(|o| o.size).fold(0, u64::saturating_add), files: self.forest.paths() }
    }
}

pub(super) fn tree_error(snapshot: &str, error: &TreeError) -> FsError {
    FsError::failed(error.kind(), format!("snapshot {snapshot}: {error}"))
}

pub(super) fn content_error(error: &ContentError) -> FsError {
    FsError::failed(error.kind(), error.to_string())
}

/// How long attributes and names of a snapshot may be kept, and those of the overview.
pub(super) fn ttl(inode: Inode) -> Duration {
    match inode {
        Inode::Node(..) => FOREVER,
        _ => SOON,
    }
}
