//! The objects in snapshots: attributes, names, links and content.

use std::sync::Arc;
use std::time::Duration;

use super::attr::{IMMUTABLE_TTL, NodeSize, kind_of};
use super::error::FsError;
use super::inode::Inode;
use super::link_counts::LinkCounts;
use super::ops::{Attr, DirEntry, NodeKind};
use super::owners::{OwnerOptions, Owners};
use super::pagination::{last_before, offset_after};
use super::shown_sizes::ShownSizes;
use super::size_ahead::SizeAhead;
use super::snapshot_tree::{NodeState, SnapshotTree};
use super::snapshot_trees::SnapshotTrees;
use super::snapshot_view::{CurrentView, SnapshotView};
use dupfs_base::{ByteRange, ErrorKind, HasKind, RequestContext, clamp_len};
use dupfs_format::EntryKind;
use dupfs_read::content::{ContentError, ContentResolver, FileContent, FileRef, NeededVolumes};
use dupfs_read::tree::NodeId;
use dupfs_read::volume::{Repository, RequestVolumes, Volumes};

/// Upper bound of the target of a symbolic link in bytes; the kernel itself answers EIO to a longer one.
const MAX_TARGET_BYTES: usize = 4095;

/// An open regular file.
#[derive(Debug)]
pub(super) struct OpenFile {
    snapshot: usize,
    node: NodeId,
    file: FileRef,
    content: FileContent,
}

impl OpenFile {
    /// The file's size in bytes, if it is known.
    pub(super) fn known_size(&self) -> Option<u64> {
        self.content.known_size()
    }

    /// Returns true if it is the file at `node` of `snapshot`.
    pub(super) fn is_at(&self, snapshot: usize, node: NodeId) -> bool {
        (self.snapshot, self.node) == (snapshot, node)
    }
}

/// The objects of all snapshots of a repository.
#[derive(Debug)]
pub(super) struct SnapshotNodes {
    pub(super) repository: Arc<Repository>,
    pub(super) trees: SnapshotTrees,
    pub(super) owners: Owners,
    current: CurrentView,
    content: ContentResolver,
    link_counts: LinkCounts,
    pub(super) sizes: SizeAhead,
    shown_sizes: ShownSizes,
}

impl SnapshotNodes {
    /// The objects of `repository`, with `extent_map_bytes` of memory for extent maps.
    pub(super) fn new(
        repository: Arc<Repository>,
        owners: OwnerOptions,
        shown_sizes: ShownSizes,
        extent_map_bytes: u64,
    ) -> Self {
        Self {
            trees: SnapshotTrees::new(Arc::clone(&repository)),
            owners: Owners::new(owners),
            current: CurrentView::new(repository.collection()),
            content: ContentResolver::new(extent_map_bytes),
            link_counts: LinkCounts::default(),
            sizes: SizeAhead::new(Arc::clone(&repository)),
            shown_sizes,
            repository,
        }
    }

    /// The holder of the view.
    pub(super) fn current(&self) -> &CurrentView {
        &self.current
    }

    /// The view that is shown now.
    pub(super) fn view(&self) -> Arc<SnapshotView> {
        self.current.get()
    }

    /// The loaded tree of a snapshot.
    ///
    /// # Errors
    /// As [`SnapshotTrees::load`].
    pub(super) fn tree(&self, snapshot: usize, context: &RequestContext) -> Result<SnapshotTree, FsError> {
        self.trees.load(&self.view(), snapshot, context)
    }

    /// The state of a node; of a snapshot's root without loading the tree where that is possible.
    ///
    /// # Errors
    /// NotFound; any failure to load the tree.
    pub(super) fn state(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<NodeState, FsError> {
        if node == NodeId::ROOT
            && let Some(meta) = self.trees.peek_root(&self.view(), snapshot, context)?
        {
            return Ok(NodeState::of_dir(meta));
        }
        self.tree(snapshot, context)?.state(node)
    }

    /// Attributes with the exact size, or with the bound if sizes are shown so and it is not known.
    ///
    /// # Errors
    /// [`FsError`] when the size cannot be determined.
    pub(super) fn exact_attr(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<Attr, FsError> {
        let mut state = self.state(snapshot, node, context)?;
        if self.needs_size(&state) {
            self.find_size_in_order(snapshot, node, &mut state, context)?;
        } else if state.meta.kind == EntryKind::File && state.exact.is_none() {
            // A bound is shown only as long as nothing has found the size, as opening the file does.
            let _ = self.find_size(snapshot, node, &mut state, &RequestContext::cached_only());
        }
        self.attr(snapshot, node, &state, context)
    }

    /// As [`Self::exact_attr`], but a size that is not known is 0 and not exact.
    ///
    /// # Errors
    /// [`FsError`].
    pub(super) fn unsized_attr(
        &self,
        snapshot: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        match self.exact_attr(snapshot, node, &RequestContext::cached_only()) {
            Err(FsError::WouldBlock) => {}
            // A bound is no size for a program that takes 0 for an unknown one.
            Ok(attr) if attr.kind == NodeKind::File && !attr.exact => {}
            found => return found,
        }
        let state = self.state(snapshot, node, context)?;
        let attr = self.attr(snapshot, node, &state, context)?;
        Ok(if attr.exact { attr } else { Attr { size: 0, blocks: 0, ..attr } })
    }

    /// Attributes whose size may be a bound: `lookup` returns these, so that a walk over the tree fetches no volume.
    /// The size is exact if its volume is cached, which saves the kernel a second request.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub(super) fn provisional_attr(
        &self,
        snapshot: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let mut state = self.state(snapshot, node, context)?;
        if self.needs_size(&state) && self.repository.has_cached_members() {
            // A failure here occurs again, and is reported, when the exact attributes are requested.
            let _ = self.find_size(snapshot, node, &mut state, &RequestContext::cached_only());
        }
        self.attr(snapshot, node, &state, context)
    }

    fn needs_size(&self, state: &NodeState) -> bool {
        let is_shown = self.shown_sizes == ShownSizes::Bound && state.is_bounded;
        state.meta.kind == EntryKind::File && state.exact.is_none() && !is_shown
    }

    /// As [`Self::find_size`]. The sizes of the files after it are found ahead if they are asked for one after the other.
    fn find_size_in_order(
        &self,
        snapshot: usize,
        node: NodeId,
        state: &mut NodeState,
        context: &RequestContext,
    ) -> Result<(), FsError> {
        match self.find_size(snapshot, node, state, &RequestContext::cached_only()) {
            Err(FsError::WouldBlock) if context.may_block() => {
                let _question = self.sizes.wait(snapshot, node, &self.tree(snapshot, context)?);
                self.find_size(snapshot, node, state, context)
            }
            Err(FsError::WouldBlock) => Err(FsError::WouldBlock),
            found => {
                self.sizes.record(snapshot, node);
                found
            }
        }
    }

    fn find_size(
        &self,
        snapshot: usize,
        node: NodeId,
        state: &mut NodeState,
        context: &RequestContext,
    ) -> Result<(), FsError> {
        let file = self.file(snapshot, node, context)?;
        let (size, stored_meta) = self.ask(context, |volumes| self.content.stat(volumes, &file))?;
        state.exact = Some(size);
        if let Some(meta) = stored_meta {
            log::warn!(
                "{}: the stored state differs from the signed one (the backup was interrupted and resumed while the file \
                 changed, or the signature archive is that of another set); it is shown with the metadata it was stored \
                 with, as duplicity restores it",
                file.path
            );
            state.meta = meta;
        }
        Ok(())
    }

    fn attr(
        &self,
        snapshot: usize,
        node: NodeId,
        state: &NodeState,
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let size = match &state.meta.kind {
            EntryKind::Symlink(target) => NodeSize::exact(target.len() as u64),
            _ => NodeSize { bytes: state.exact.unwrap_or(state.bound), exact: state.exact.is_some() },
        };
        let loaded = self.tree(snapshot, &RequestContext::cached_only()).ok();
        let nlink = match (&state.meta.kind, &loaded) {
            (EntryKind::Dir, Some(tree)) => self.link_counts.of(snapshot, tree, node),
            // File systems that do not count subdirectories return 1.
            _ => 1,
        };
        let owner = self.owners.ids(&state.meta, context).map_err(|_| FsError::WouldBlock)?;
        let perm = self.owners.mode(state.meta.mode);
        let ino = self.view().number(Inode::Node(snapshot, node))?;
        let attr = Attr::of(ino, &state.meta, (owner, perm), size, nlink, IMMUTABLE_TTL);
        let is_final = node != NodeId::ROOT || loaded.is_some();
        Ok(if is_final { attr } else { Attr { attr_ttl: Duration::ZERO, ..attr } })
    }

    /// The attributes of `name` in directory `dir`.
    ///
    /// # Errors
    /// [`FsError`]: NotFound only if it does not exist.
    pub(super) fn look_up(
        &self,
        snapshot: usize,
        dir: NodeId,
        name: &[u8],
        context: &RequestContext,
    ) -> Result<Attr, FsError> {
        let child = self.tree(snapshot, context)?.child(dir, name)?;
        self.provisional_attr(snapshot, child, context)
    }

    /// Emits the entries of directory `dir` after `offset`.
    ///
    /// # Errors
    /// [`FsError`], also after all known names if others may be missing.
    pub(super) fn list(
        &self,
        snapshot: usize,
        dir: NodeId,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let (tree, view) = (self.tree(snapshot, context)?, self.view());
        let number = view.numbers_in(snapshot)?;
        tree.list(dir, last_before(offset).map(NodeId), |node, kind, name| {
            emit(DirEntry { ino: number(node), kind, next_offset: offset_after(node.0), name })
        })
    }

    /// The type of a snapshot's root as far as it is known without loading its tree.
    pub(super) fn cached_root_kind(&self, snapshot: usize) -> NodeKind {
        let state = self.state(snapshot, NodeId::ROOT, &RequestContext::cached_only());
        state.map_or(NodeKind::Dir, |state| kind_of(&state.meta.kind))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// Invalid if it is not a link; Unsupported if the target is longer than the kernel takes.
    pub(super) fn link_target(
        &self,
        snapshot: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        match self.state(snapshot, node, context)?.meta.kind {
            EntryKind::Symlink(target) if target.len() > MAX_TARGET_BYTES => {
                let path = self.tree(snapshot, context)?.path(node);
                let len = target.len();
                let message = format!(
                    "{path}: the target of this symbolic link has {len} bytes, but Linux supports at most \
                     {MAX_TARGET_BYTES}: the signature archive is damaged or forged"
                );
                Err(FsError::failed(ErrorKind::Unsupported, message))
            }
            EntryKind::Symlink(target) => Ok(target.into_vec()),
            EntryKind::File
            | EntryKind::Dir
            | EntryKind::Fifo
            | EntryKind::CharDevice(..)
            | EntryKind::BlockDevice(..) => Err(FsError::failed(ErrorKind::Invalid, "not a symbolic link")),
        }
    }

    /// The regular file at a node.
    ///
    /// # Errors
    /// As [`SnapshotTree::file`].
    pub(super) fn file(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<FileRef, FsError> {
        self.tree(snapshot, context)?.file(node)
    }

    /// The volumes that a read of a regular file needs.
    ///
    /// # Errors
    /// [`FsError`] when the tree or a manifest cannot be read.
    pub(super) fn needed_volumes(
        &self,
        snapshot: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<NeededVolumes, FsError> {
        let file = self.file(snapshot, node, context)?;
        self.ask(context, |volumes| self.content.needed_volumes(volumes, &file))
    }

    /// Opens a regular file without its size, if that is not known yet and the file can be read in order without it; else as
    /// [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_unsized(
        &self,
        snapshot: usize,
        node: NodeId,
        context: &RequestContext,
    ) -> Result<OpenFile, FsError> {
        match self.open(snapshot, node, &RequestContext::cached_only()) {
            Ok(opened) => return Ok(opened),
            Err(FsError::WouldBlock) if context.may_block() => {}
            // A failure is found again, and within the limits of the request.
            Err(_) => return self.open(snapshot, node, context),
        }
        let file = self.file(snapshot, node, context)?;
        match self.ask(context, |volumes| FileContent::open_unsized(volumes, &file))? {
            Some(content) => Ok(OpenFile { snapshot, node, file, content }),
            None => self.open(snapshot, node, context),
        }
    }

    /// Opens a regular file with its size.
    ///
    /// # Errors
    /// [`FsError`] when its content cannot be located.
    pub(super) fn open(&self, snapshot: usize, node: NodeId, context: &RequestContext) -> Result<OpenFile, FsError> {
        let file = self.file(snapshot, node, context)?;
        let content = self.ask(context, |volumes| FileContent::open(&self.content, volumes, &file))?;
        Ok(OpenFile { snapshot, node, file, content })
    }

    /// The bytes `range` of an open file, cut at its end.
    ///
    /// # Errors
    /// [`FsError`] when a byte cannot be read.
    pub(super) fn read(&self, open: &OpenFile, range: ByteRange, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        self.ask(context, |volumes| {
            let mut out = Vec::with_capacity(clamp_len(range.len(), usize::MAX));
            open.content.read(&self.content, volumes, &open.file, range, &mut out)?;
            Ok(out)
        })
    }

    /// Calls the content layer within the limits of the request.
    ///
    /// # Errors
    /// Its error.
    pub(super) fn ask<T>(
        &self,
        context: &RequestContext,
        question: impl Fn(&dyn Volumes) -> Result<T, ContentError>,
    ) -> Result<T, FsError> {
        let answer = question(&RequestVolumes::new(&self.repository, context));
        answer.map_err(|error| FsError::failed(error.kind(), error.to_string()))
    }
}
