//! The operations: requests for inodes below `unpacked/` are answered here, all others by the file system below.

use super::super::error::FsError;
use super::super::fs_status::FsStatus;
use super::super::ops::{Attr, DirEntry, FileSystem, FsStats, Ino, Opened, ROOT_INO};
use super::inode_number::TOP_INO;
use super::inode_spaces::{InodeSpaces, InodeTarget};
use super::member_dirs::MemberDirs;
use super::{AwaitEnd, DirTarget, NAME, UnpackedFs};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_read::volume::ExpectedProgress;
use dupfs_unpack::PassProgress;

impl FileSystem for UnpackedFs {
    fn unpacks(&self, ino: Ino, names: bool) -> bool {
        match self.target_of(ino) {
            Ok(Some(InodeTarget::Member(..) | InodeTarget::StoredMember(..))) => true,
            // A file without a suffix that hints at anything is served unchanged.
            Ok(Some(InodeTarget::Mirror(_))) => names || self.files.candidates.get(ino).is_some(),
            Ok(Some(InodeTarget::Top | InodeTarget::Latest(_)) | None) | Err(_) => false,
        }
    }

    fn lookup(&self, parent: Ino, name: &[u8], context: &RequestContext) -> Result<Attr, FsError> {
        let Some(target) = self.target_of(parent)? else {
            return match (parent, name) {
                (ROOT_INO, NAME) => self.top_attr(context),
                _ => self.below.lookup(parent, name, context),
            };
        };
        match self.as_dir(parent, target, context)? {
            DirTarget::Top if name == b"latest" => self.latest_attr(context),
            DirTarget::Top => self.mirrored(self.below.lookup(self.snapshots(context)?, name, context)?),
            DirTarget::Mirror(below) => self.look_up_mirror(below, name, context),
            DirTarget::Members(slot, key) => MemberDirs { files: &self.files }.look_up(&slot, key, name, context),
        }
    }

    fn lookup_listed(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        if !InodeSpaces::is_ours(parent) {
            return self.lookup(parent, name, &RequestContext::cached_only());
        }
        match self.lookup(parent, name, &RequestContext::cached_only()) {
            // A listing must not open every file whose suffix is a hint.
            Err(FsError::WouldBlock) => Err(FsError::failed(ErrorKind::Invalid, "not examined yet")),
            answer => answer,
        }
    }

    fn getattr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        match self.target_of(ino)? {
            None if ino == ROOT_INO => {
                let attr = self.below.getattr(ino, context)?;
                Ok(Attr { nlink: attr.nlink.saturating_add(1), ..attr })
            }
            None => self.below.getattr(ino, context),
            Some(target) => self.get_attr(ino, target, AwaitEnd::Yes, context),
        }
    }

    fn reader_attr(&self, ino: Ino, context: &RequestContext) -> Result<Attr, FsError> {
        match self.target_of(ino)? {
            None => self.below.reader_attr(ino, context),
            Some(target) => self.get_attr(ino, target, AwaitEnd::No, context),
        }
    }

    fn readlink(&self, ino: Ino, context: &RequestContext) -> Result<Vec<u8>, FsError> {
        match self.target_of(ino)? {
            None => self.below.readlink(ino, context),
            Some(InodeTarget::Latest(below)) => self.latest_target(below, context),
            Some(InodeTarget::Mirror(below)) => self.below.readlink(below, context),
            Some(InodeTarget::Top | InodeTarget::StoredMember(..)) => Err(not_link()),
            Some(InodeTarget::Member(slot, key)) => {
                let open = self.files.sources.open_archive(&slot, context)?;
                if !open.is_complete() {
                    if !context.may_block() {
                        return Err(FsError::WouldBlock);
                    }
                    // The kernel caches targets: none is given that a later member of the name could replace.
                    match open.wait_for_passes(context)? {
                        PassProgress::Failed(error) if error.is_transient() => return Err(error.into()),
                        PassProgress::Failed(_) | PassProgress::Done | PassProgress::Idle | PassProgress::Running => {}
                    }
                }
                open.archive.link_target(key, context)?.ok_or_else(not_link)
            }
        }
    }

    fn parent(&self, ino: Ino, context: &RequestContext) -> Result<Ino, FsError> {
        let below_parent = |below: Ino| -> Result<Ino, FsError> {
            let parent = self.below.parent(below, context)?;
            if parent == self.snapshots(context)? { Ok(TOP_INO) } else { self.mirror(parent) }
        };
        match self.target_of(ino)? {
            None => self.below.parent(ino, context),
            Some(InodeTarget::Top) => Ok(ROOT_INO),
            Some(InodeTarget::Latest(_) | InodeTarget::StoredMember(..)) => Err(FsError::NotDir),
            Some(InodeTarget::Mirror(below)) => below_parent(below),
            Some(InodeTarget::Member(slot, key)) => MemberDirs { files: &self.files }.parent(&slot, key, context),
        }
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        context: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        match self.target_of(ino)? {
            None if ino == ROOT_INO => self.list_root(offset, context, emit),
            None => self.below.readdir(ino, offset, context, emit),
            Some(target) => match self.as_dir(ino, target, context)? {
                DirTarget::Top => self.list_top(offset, context, emit),
                DirTarget::Mirror(below) => self.list_mirror(below, offset, context, emit),
                DirTarget::Members(slot, key) => {
                    MemberDirs { files: &self.files }.list(&slot, key, offset, context, emit)
                }
            },
        }
    }

    fn open(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        match self.target_of(ino)? {
            None => self.below.open(ino, context),
            Some(target) => self.files.open(ino, target, context),
        }
    }

    fn open_unsized(&self, ino: Ino, context: &RequestContext) -> Result<Opened, FsError> {
        match self.target_of(ino)? {
            None => self.below.open_unsized(ino, context),
            // One that is shown as it is stored is opened with its size.
            Some(target) => self.files.open(ino, target, context),
        }
    }

    fn read(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        match self.target_of(ino)? {
            None => self.below.read(ino, handle, offset, size, context),
            Some(target) => self.files.read(ino, target, handle, (offset, size), context),
        }
    }

    fn read_page(
        &self,
        ino: Ino,
        handle: u64,
        offset: u64,
        size: usize,
        context: &RequestContext,
    ) -> Result<Vec<u8>, FsError> {
        match self.target_of(ino)? {
            None => self.below.read_page(ino, handle, offset, size, context),
            Some(target) => self.files.read_page(ino, target, handle, (offset, size), context),
        }
    }

    fn release(&self, ino: Ino, handle: u64) {
        match self.target_of(ino) {
            Ok(None) => self.below.release(ino, handle),
            Ok(Some(target)) => self.files.release(target, handle),
            Err(error) => log::debug!("release of {}: {error}", self.path(ino).unwrap_or_default()),
        }
    }

    fn getxattr(&self, ino: Ino, name: &[u8], context: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        match self.target_of(ino)? {
            None => self.below.getxattr(ino, name, context),
            Some(InodeTarget::Mirror(below)) => self.below.getxattr(below, name, context),
            Some(
                InodeTarget::Top | InodeTarget::Latest(_) | InodeTarget::Member(..) | InodeTarget::StoredMember(..),
            ) => Ok(None),
        }
    }

    fn path(&self, ino: Ino) -> Option<String> {
        match self.target_of(ino).ok()? {
            None => self.below.path(ino),
            Some(InodeTarget::Mirror(below)) => self.below.path(below),
            Some(InodeTarget::Top | InodeTarget::Latest(_)) => None,
            Some(InodeTarget::Member(slot, key) | InodeTarget::StoredMember(slot, key)) => {
                Some(slot.live()?.archive.path(key).to_string())
            }
        }
    }

    fn refresh(&self, context: &RequestContext) -> Result<Option<String>, FsError> {
        self.below.refresh(context)
    }

    fn stored_ino(&self, ino: Ino, handle: u64) -> Ino {
        match self.target_of(ino) {
            Ok(Some(target)) => self.files.stored_ino(target, handle).unwrap_or(ino),
            Ok(None) | Err(_) => ino,
        }
    }

    fn leave(&self, ino: Ino) {
        self.below.leave(ino);
    }

    fn is_prefetching(&self) -> bool {
        self.below.is_prefetching()
    }

    fn stop_prefetch(&self) {
        self.below.stop_prefetch();
    }

    fn shows_snapshots(&self) -> bool {
        self.below.shows_snapshots()
    }

    fn summary(&self) -> Option<String> {
        self.below.summary()
    }

    fn cost(&self) -> Option<String> {
        self.below.cost()
    }

    fn expected_progress(&self) -> Option<ExpectedProgress> {
        self.below.expected_progress()
    }

    fn count_objects(&self, ino: Ino) -> Option<u64> {
        // In `unpacked/` an archive has any number of objects.
        if InodeSpaces::is_ours(ino) { None } else { self.below.count_objects(ino) }
    }

    fn unpacking(&self) -> Option<(u64, u64)> {
        self.files.sources.unpacking()
    }

    fn status(&self) -> FsStatus {
        self.below.status()
    }

    fn finish(&self) {
        self.below.finish();
    }

    fn stats(&self) -> FsStats {
        self.below.stats()
    }
}

fn not_link() -> FsError {
    FsError::failed(ErrorKind::Invalid, "not a symbolic link")
}
