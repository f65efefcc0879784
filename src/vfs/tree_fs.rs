//! The mounted tree over a repository: `latest`, `snapshots/<time>/...`, or one directory of one snapshot as the root.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::attr::{MUTABLE_TTL, kind_of};
use super::error::FsError;
use super::fs_status::{FsStatus, LastListing, ShownRange};
use super::handle_table::HandleTable;
use super::inode::Inode;
use super::ops::{Attr, DirEntry, FileSystem, FsStats, Ino, NodeKind, Opened, ROOT_INO};
use super::owners::OwnerOptions;
use super::shown_sizes::ShownSizes;
use super::snapshot_nodes::{OpenFile, SnapshotNodes};
use super::snapshot_view::RootInode;
use super::versions_dir::VersionsDir;
use super::{at_dir, node_xattrs, overview};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, ErrorKind, HasKind, RequestContext, clamp_len};
use dupfs_format::collection::Problem;
use dupfs_format::{ArchivePath, BackupTime};
use dupfs_read::content::{NeededVolumes, hint_number};
use dupfs_read::tree::NodeId;
use dupfs_read::volume::{ExpectedProgress, Refreshed, Repository, RequestVolumes, SignedContent};

/// The content of the root of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MountRoot {
    /// `latest`, `snapshots/`, `at/` and `versions/`.
    #[default]
    Overview,
    /// One path of one snapshot (an index into the collection's snapshots).
    Path(usize, ArchivePath),
}

/// The options by which the tree is shown.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// The root.
    pub root: MountRoot,
    /// Owners and modes.
    pub owners: OwnerOptions,
    /// The sizes of files whose exact size needs a volume.
    pub sizes: ShownSizes,
    /// Bytes for extent maps and parsed deltas.
    pub extent_map_bytes: u64,
}

/// A repository as a file system. See [`FileSystem`].
#[derive(Debug)]
pub struct TreeFs {
    pub(super) nodes: SnapshotNodes,
    versions: VersionsDir,
    handles: HandleTable<OpenFile>,
    /// The end of the last listing, and the reason if it failed.
    listed: Mutex<(Instant, Option<String>)>,
}

impl TreeFs {
    /// The file system over `repository`. With a path as the root its snapshot's tree is loaded here, so that a wrong path or
    /// key is found before anything is mounted.
    ///
    /// # Errors
    /// [`FsError`]: NotFound if the root's path does not exist in its snapshot.
    pub fn new(repository: Arc<Repository>, options: TreeOptions, context: &RequestContext) -> Result<Self, FsError> {
        let nodes = SnapshotNodes::new(repository, options.owners, options.sizes, options.extent_map_bytes);
        let listed = Mutex::new((Instant::now(), None));
        let fs = Self { nodes, versions: VersionsDir::default(), handles: HandleTable::default(), listed };
        if let MountRoot::Path(snapshot, path) = options.root {
            let root = fs.find_root(snapshot, &path, context)?;
            fs.nodes.current().set_root(root);
        }
        Ok(fs)
    }

    /// The repository below.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.nodes.repository
    }

    /// The volumes that a read of regular file `ino` needs. Fetches none.
    ///
    /// # Errors
    /// [`FsError`] if it is no regular file, or the tree or a manifest cannot be read.
    pub fn needed_volumes(&self, ino: Ino, context: &RequestContext) -> Result<NeededVolumes, FsError> {
        let (snapshot, node) = self.node_of(ino)?;
        self.nodes.needed_volumes(snapshot, node, context)
    }

    /// Loads the tree of the snapshot at `snapshot` in the list of the collection, with those of the snapshots that it builds on.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn load_tree(&self, snapshot: usize, context: &RequestContext) -> Result<(), FsError> {
        self.nodes.tree(snapshot, context).map(drop)
    }

    /// The number of regular files that the set of a snapshot stores, and those of them whose exact size is not known, in
    /// stored order.
    ///
    /// # Errors
    /// [`FsError::WouldBlock`] if its tree is not loaded.
    pub fn unmeasured_files(&self, snapshot: usize) -> Result<(usize, Vec<Ino>), FsError> {
        let (count, nodes) = self.nodes.tree(snapshot, &RequestContext::cached_only())?.unmeasured_files();
        let number = self.nodes.view().numbers_in(snapshot)?;
        Ok((count, nodes.into_iter().map(number).collect()))
    }

    /// `attr` with the exact size if the file is open and its size is known: the kernel ends reads at the size that it has, and
    /// shows zeros up to it.
    fn with_open_size(&self, snapshot: usize, node: NodeId, attr: Attr) -> Attr {
        if attr.exact || attr.kind != NodeKind::File {
            return attr;
        }
        let size = self.handles.find_map(|open| open.is_at(snapshot, node).then(|| open.known_size())?);
        size.map_or(attr, |size| Attr { size, blocks: size.div_ceil(512), exact: true, ..attr })
    }

    fn opened(&self, file: OpenFile) -> Opened {
        let direct_io = file.known_size().is_none();
        Opened { handle: self.handles.insert(file), keep_cache: !direct_io, direct_io }
    }

    /// The open file of `handle`, and the number of its bytes after `offset`: as many as there are numbers if its size is not known,
    /// and `None` if it ends before `offset`.
    fn open_file(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        context: &RequestContext,
    ) -> Result<(Arc<OpenFile>, Option<u64>), FsError> {
        let file = match self.handles.get(handle) {
            Some(open) => open,
            None => {
                let (snapshot, node) = self.node_of(ino)?;
                Arc::new(self.nodes.open(snapshot, node, context)?)
            }
        };
        let left = file.known_size().map_or(Some(u64::MAX), |size| size.checked_sub(offset));
        Ok((file, left))
    }

    fn find_root(&self, snapshot: usize, path: &ArchivePath, context: &RequestContext) -> Result<RootInode, FsError> {
        let tree = self.nodes.tree(snapshot, context)?;
        let (node, is_dir) = tree.find(path)?;
        if is_dir {
            return Ok(RootInode::Dir(snapshot, node));
        }
        let name = match tree.node_name(node) {
            name if name.is_empty() => self.source_name(snapshot, context),
            name => name,
        };
        Ok(RootInode::Single(snapshot, node, name))
    }

    /// The name of a backup whose root is a single file: the last component of the path that was backed up.
    fn source_name(&self, snapshot: usize, context: &RequestContext) -> Vec<u8> {
        let source = self.source_of(snapshot, context).unwrap_or_default();
        let name = source.rsplit(|&b| b == b'/').find(|name| !matches!(*name, b"" | b"." | b".."));
        name.map_or_else(|| b"file".to_vec(), <[u8]>::to_vec)
    }

    /// The directory that was backed up in a snapshot, if its manifest names it.
    pub(super) fn source_of(&self, snapshot: usize, context: &RequestContext) -> Option<Vec<u8>> {
        let set = self.nodes.view().snapshot(snapshot).ok()?.lineage().last().copied()?;
        Some(self.nodes.repository.manifest(set, context).ok()?.localdir.clone()?.into_vec())
    }

    fn resolve(&self, ino: Ino) -> Result<Inode, FsError> {
        self.nodes.view().resolve(ino)
    }

    fn attr(&self, inode: Inode, context: &RequestContext) -> Result<Attr, FsError> {
        match inode {
            Inode::Node(snapshot, node) => {
                let attr = self.nodes.exact_attr(snapshot, node, context)?;
                Ok(self.with_open_size(snapshot, node, attr))
            }
            Inode::Versions | Inode::VersionsOf(..) => self.versions.attr(&self.nodes, inode, context),
            _ => overview::attr(&self.nodes.view(), &self.nodes.owners, inode),
        }
    }

    fn look_up_in_root(&self, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        let view = self.nodes.view();
        match &view.root {
            RootInode::Overview => self.attr(overview::child(&view, name)?, context),
            RootInode::Single(snapshot, node, own) if name == own.as_slice() => {
                self.nodes.provisional_attr(*snapshot, *node, context)
            }
            RootInode::Single(..) | RootInode::Dir(..) => Err(FsError::not_found()),
        }
    }

    fn look_up_snapshot(&self, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        let view = self.nodes.view();
        let found = view.listed().find(|(_, snapshot)| snapshot.name.as_bytes() == name);
        let (index, _) = found.ok_or_else(FsError::not_found)?;
        let attr = self.nodes.provisional_attr(index, NodeId::ROOT, context)?;
        // Shorter than its content: the name disappears when the snapshot is deleted from the store.
        Ok(Attr { entry_ttl: MUTABLE_TTL, ..attr })
    }

    fn list_root(
        &self,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let view = self.nodes.view();
        match &view.root {
            RootInode::Single(snapshot, node, name) if offset == 0 => {
                let kind = kind_of(&self.nodes.state(*snapshot, *node, context)?.meta.kind);
                let ino = view.number(Inode::Node(*snapshot, *node))?;
                emit(DirEntry { ino, kind, next_offset: 1, name });
            }
            RootInode::Single(..) => {}
            RootInode::Overview | RootInode::Dir(..) => overview::list(&view, offset, emit)?,
        }
        Ok(())
    }

    fn list_snapshots(&self, offset: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<(), FsError> {
        self.nodes.trees.record_listing();
        let view = self.nodes.view();
        // No list is longer than memory.
        let Ok(start) = usize::try_from(offset) else { return Ok(()) };
        for (index, snapshot) in view.listed().filter(|(index, _)| *index >= start) {
            let ino = view.number(Inode::Node(index, NodeId::ROOT))?;
            let next_offset = (index as u64).saturating_add(1);
            let kind = self.nodes.cached_root_kind(index);
            if !emit(DirEntry { ino, kind, next_offset, name: snapshot.name.as_bytes() }) {
                break;
            }
        }
        Ok(())
    }

    fn node_of(&self, ino: Ino) -> Result<(usize, NodeId), FsError> {
        match self.resolve(ino)? {
            Inode::Node(snapshot, node) => Ok((snapshot, node)),
            Inode::Root | Inode::Snapshots | Inode::At | Inode::Versions | Inode::VersionsOf(..) => Err(FsError::IsDir),
            Inode::Latest(_) | Inode::AtLink(_) => Err(FsError::failed(ErrorKind::Invalid, "is a symbolic link")),
        }
    }
}

impl FileSystem for TreeFs {
    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        match self.resolve(parent)? {
            Inode::Latest(_) | Inode::AtLink(_) => Err(FsError::NotDir),
            Inode::At => {
                let view = self.nodes.view();
                let link = Inode::AtLink(at_dir::snapshot_at(&view, name)?);
                Ok(overview::uncached_name(overview::attr(&view, &self.nodes.owners, link)?))
            }
            dir @ (Inode::Versions | Inode::VersionsOf(..)) => self.versions.look_up(&self.nodes, dir, name, context),
            Inode::Root => self.look_up_in_root(name, context),
            Inode::Snapshots => self.look_up_snapshot(name, context),
            Inode::Node(snapshot, dir) => self.nodes.look_up(snapshot, dir, name, context),
        }
    }

    fn getattr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        self.attr(self.resolve(ino)?, context)
    }

    fn readlink(&self, ino: Ino, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        match self.resolve(ino)? {
            Inode::Node(snapshot, node) => self.nodes.link_target(snapshot, node, context),
            inode => overview::link_target(&self.nodes.view(), inode),
        }
    }

    fn parent(&self, ino: Ino, context: &RequestContext) -> Result<Ino, FsError> {
        let view = self.nodes.view();
        let inode = view.resolve(ino)?;
        let parent = match inode {
            Inode::Root | Inode::Snapshots | Inode::At | Inode::Versions => Inode::Root,
            Inode::VersionsOf(branch, node) => self.versions.parent(&self.nodes, branch, node, context)?,
            Inode::Latest(_) | Inode::AtLink(_) => return Err(FsError::NotDir),
            Inode::Node(..) if view.number(inode)? == ROOT_INO => return Ok(ROOT_INO),
            Inode::Node(_, NodeId::ROOT) => Inode::Snapshots,
            Inode::Node(snapshot, node) => {
                let tree = self.nodes.tree(snapshot, context)?;
                Inode::Node(snapshot, tree.parent(node)?)
            }
        };
        view.number(parent)
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        match self.resolve(ino)? {
            Inode::Latest(_) | Inode::AtLink(_) => Err(FsError::NotDir),
            // It contains every time string, so none is listed.
            Inode::At => Ok(()),
            dir @ (Inode::Versions | Inode::VersionsOf(..)) => {
                self.versions.list(&self.nodes, dir, offset, context, emit)
            }
            Inode::Root => self.list_root(offset, context, emit),
            Inode::Snapshots => {
                self.list_snapshots(offset, emit)?;
                Ok(())
            }
            Inode::Node(snapshot, dir) => self.nodes.list(snapshot, dir, offset, context, emit),
        }
    }

    fn reader_attr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        match self.resolve(ino)? {
            Inode::Node(snapshot, node) => {
                let attr = self.nodes.unsized_attr(snapshot, node, context)?;
                Ok(self.with_open_size(snapshot, node, attr))
            }
            inode => self.attr(inode, context),
        }
    }

    fn open(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        let (snapshot, node) = self.node_of(ino)?;
        Ok(self.opened(self.nodes.open(snapshot, node, context)?))
    }

    fn open_unsized(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        let (snapshot, node) = self.node_of(ino)?;
        Ok(self.opened(self.nodes.open_unsized(snapshot, node, context)?))
    }

    fn read(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let (file, left) = self.open_file(ino, handle, offset, context)?;
        let range = ByteRange::at(offset, clamp_len(left.unwrap_or_default(), size) as u64);
        self.nodes.read(&file, range, context)
    }

    fn read_page(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        let (file, left) = self.open_file(ino, handle, offset, context)?;
        let left = left.ok_or(FsError::BeyondEnd)?;
        let bytes = self.nodes.read(&file, ByteRange::at(offset, clamp_len(left, size) as u64), context)?;
        // The read may have found the size.
        if file.known_size().is_some_and(|size| size < offset) { Err(FsError::BeyondEnd) } else { Ok(bytes) }
    }

    fn release(&self, _ino: Ino, handle: u64) {
        self.handles.remove(handle);
    }

    fn leave(&self, ino: Ino) {
        if let Ok((_, node)) = self.node_of(ino) {
            self.nodes.repository.leave(hint_number(node));
        }
    }

    fn getxattr(&self, ino: Ino, name: &[u8], context: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        node_xattrs::xattr(&self.nodes, self.resolve(ino)?, name, context)
    }

    fn refresh(&self, context: &RequestContext) -> Result<Option<String>, FsError> {
        let repository = &self.nodes.repository;
        let refreshed = repository.refresh(context);
        *lock(&self.listed) = (Instant::now(), refreshed.as_ref().err().map(ToString::to_string));
        let outcome = refreshed.map_err(|error| {
            let message = format!("the backup cannot be listed again, the mount is unchanged: {error}");
            FsError::failed(error.kind(), message)
        })?;
        self.nodes.current().replace(|| repository.collection());
        outcome.problems.iter().for_each(Problem::log);
        Ok(summary(&outcome))
    }

    fn content_identity(&self, ino: Ino, context: &RequestContext) -> Option<Vec<u8>> {
        let (snapshot, node) = self.node_of(ino).ok()?;
        let file = self.nodes.file(snapshot, node, context).ok()?;
        let repository = &self.nodes.repository;
        let (identity, set) = file.identity(&RequestVolumes::new(repository, context))?;
        Some([&repository.index().group(set)?.to_le_bytes()[..], &identity.0].concat())
    }

    fn signed_content(&self, ino: Ino, context: &RequestContext) -> Result<Option<SignedContent>, FsError> {
        let (snapshot, node) = self.node_of(ino)?;
        let file = self.nodes.file(snapshot, node, context)?;
        let set = file.version().and_then(|version| file.branch.set_at(version.position));
        let Some(set) = set else { return Ok(None) };
        let signed = self.nodes.repository.signed_content(set, &file.path, context);
        signed.map_err(|error| FsError::failed(error.kind(), error.to_string()))
    }

    fn path(&self, ino: Ino) -> Option<String> {
        let (snapshot, node) = match self.resolve(ino).ok()? {
            Inode::Root => return None,
            Inode::Snapshots => return Some("snapshots".to_owned()),
            Inode::Latest(_) => return Some("latest".to_owned()),
            Inode::At | Inode::AtLink(_) => return Some("at".to_owned()),
            Inode::Versions | Inode::VersionsOf(..) => return Some("versions".to_owned()),
            Inode::Node(snapshot, node) => (snapshot, node),
        };
        let name = Arc::clone(&self.nodes.view().snapshot(snapshot).ok()?.name);
        // The root of a snapshot, also of one whose tree cannot be loaded, has its name alone.
        match self.nodes.tree(snapshot, &RequestContext::cached_only()) {
            Ok(tree) if node != NodeId::ROOT => Some(format!("{name}/{}", tree.path(node))),
            Ok(_) | Err(_) => Some(name.to_string()),
        }
    }

    fn summary(&self) -> Option<String> {
        let view = self.nodes.view();
        match &view.root {
            RootInode::Overview => {
                let count = view.listed().count();
                let latest = minute_in_utc(view.snapshot(view.latest()?).ok()?.time);
                let word = if count == 1 { "snapshot" } else { "snapshots" };
                Some(format!("{count} {word}, newest {latest}"))
            }
            RootInode::Dir(snapshot, _) | RootInode::Single(snapshot, ..) => {
                Some(format!("snapshot of {}", minute_in_utc(view.snapshot(*snapshot).ok()?.time)))
            }
        }
    }

    fn shows_snapshots(&self) -> bool {
        matches!(self.nodes.view().root, RootInode::Overview)
    }

    fn source_directory(&self, context: &RequestContext) -> Option<Vec<u8>> {
        match &self.nodes.view().root {
            RootInode::Overview => None,
            RootInode::Dir(snapshot, _) | RootInode::Single(snapshot, ..) => self.source_of(*snapshot, context),
        }
    }

    fn is_prefetching(&self) -> bool {
        self.nodes.repository.is_prefetching()
    }

    fn stop_prefetch(&self) {
        self.nodes.sizes.stop();
        self.nodes.repository.stop_prefetch();
    }

    fn cost(&self) -> Option<String> {
        Some(self.nodes.repository.cost())
    }

    fn expected_progress(&self) -> Option<ExpectedProgress> {
        self.nodes.repository.expected_progress()
    }

    fn count_objects(&self, ino: Ino) -> Option<u64> {
        let (snapshot, node) = self.node_of(ino).ok()?;
        Some(self.nodes.tree(snapshot, &RequestContext::cached_only()).ok()?.count_below(node))
    }

    fn status(&self) -> FsStatus {
        let view = self.nodes.view();
        let name = |index: usize| view.snapshot(index).ok().map(|snapshot| snapshot.name.to_string());
        let (snapshots, path) = match &view.root {
            RootInode::Overview => {
                let mut by_time: Vec<_> = view.listed().map(|(_, snapshot)| (snapshot.time, &snapshot.name)).collect();
                by_time.sort_unstable();
                let names = [by_time.first(), by_time.last()].map(|found| found.map(|(_, name)| name.to_string()));
                let [oldest, newest] = names;
                (ShownRange { count: by_time.len() as u64, oldest, newest }, None)
            }
            RootInode::Dir(snapshot, node) | RootInode::Single(snapshot, node, _) => {
                let only = name(*snapshot);
                let tree = self.nodes.tree(*snapshot, &RequestContext::cached_only());
                let path = tree.map(|tree| tree.path(*node).to_string()).unwrap_or_default();
                (ShownRange { count: 1, oldest: only.clone(), newest: only }, Some(path))
            }
        };
        let (ended, error) = lock(&self.listed).clone();
        FsStatus {
            snapshots,
            path,
            listing: LastListing { seconds: ended.elapsed().as_secs(), error },
            paths: self.nodes.trees.path_count(),
            ..FsStatus::of_repository(self.nodes.repository.status())
        }
    }

    fn finish(&self) {
        self.nodes.trees.finish();
        if let Some(index) = self.nodes.repository.index().on_disk() {
            index.flush();
        }
    }

    fn stats(&self) -> FsStats {
        let collection = &self.nodes.view().collection;
        let sets = collection.sets().iter().filter(|set| !collection.is_removed(set.index));
        let objects = sets.flat_map(|s| s.volumes.values().chain(&s.manifest).chain(&s.signatures));
        let total_bytes = objects.map(|object| object.size).fold(0, u64::saturating_add);
        FsStats { total_bytes, files: self.nodes.trees.path_count() }
    }
}

/// `time` as people write it.
fn minute_in_utc(time: BackupTime) -> String {
    match jiff::Timestamp::from_second(time.0) {
        Ok(utc) => utc.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => time.to_string(),
    }
}

/// The changes of a listing in one line; `None` if there are none.
fn summary(outcome: &Refreshed) -> Option<String> {
    let part = |what: &str, names: &[Arc<str>]| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")));
    let parts = [part("new snapshots", &outcome.new), part("no longer in the store", &outcome.removed)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
