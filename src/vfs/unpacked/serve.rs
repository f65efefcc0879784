//! The operations: what is below `unpacked/` is answered here, everything else by the file system below.

use super::super::error::FsError;
use super::super::ops::{Attr, DirEntry, FileSystem, FsStats, Ino, Opened, ROOT_INO, Wait};
use super::entered::failed;
use super::spaces::{Place, Spaces, TOP_INO};
use super::{Dir, NAME, UnpackedFs};
use dupfs_base::ErrorKind;
use dupfs_unpack::Progress;

impl FileSystem for UnpackedFs {
    fn unpacks(&self, ino: Ino) -> bool {
        Spaces::is_ours(ino)
    }

    fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> Result<Attr, FsError> {
        let Some(place) = self.place(parent)? else {
            return match (parent, name) {
                (ROOT_INO, NAME) => self.top_attr(wait),
                _ => self.below.lookup(parent, name, wait),
            };
        };
        match self.as_dir(parent, place, wait)? {
            Dir::Top if name == b"latest" => self.latest_attr(wait),
            Dir::Top => self.mirrored(self.below.lookup(self.snapshots(wait)?, name, wait)?),
            Dir::Mirror(below) => self.look_up_mirror(below, name, wait),
            Dir::Members(gate, key) => self.look_up_member(&gate, key, name, wait),
        }
    }

    fn lookup_listed(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        if !Spaces::is_ours(parent) {
            return self.lookup(parent, name, Wait::Never);
        }
        match self.lookup(parent, name, Wait::Never) {
            // A listing must not open every file whose name promises something.
            Err(FsError::WouldBlock) => Err(FsError::failed(ErrorKind::Invalid, "not looked at yet")),
            answer => answer,
        }
    }

    fn getattr(&self, ino: Ino, wait: Wait) -> Result<Attr, FsError> {
        match self.place(ino)? {
            None if ino == ROOT_INO => {
                let attr = self.below.getattr(ino, wait)?;
                Ok(Attr { nlink: attr.nlink.saturating_add(1), ..attr })
            }
            None => self.below.getattr(ino, wait),
            Some(place) => self.get_attr(ino, place, wait),
        }
    }

    fn readlink(&self, ino: Ino, wait: Wait) -> Result<Vec<u8>, FsError> {
        match self.place(ino)? {
            None => self.below.readlink(ino, wait),
            Some(Place::Latest(below)) => self.latest_target(below, wait),
            Some(Place::Mirror(below)) => self.below.readlink(below, wait),
            Some(Place::Top) => Err(not_link()),
            Some(Place::Member(gate, key)) => {
                let entered = self.entered(&gate, wait)?;
                if !entered.is_settled() {
                    if wait == Wait::Never {
                        return Err(FsError::WouldBlock);
                    }
                    // The kernel keeps targets: none is told that a later member of the name could replace.
                    match entered.settle().map_err(|e| failed(&e))? {
                        Progress::Failed(error) if error.may_pass() => return Err(failed(&error)),
                        Progress::Failed(_) | Progress::Done | Progress::Idle | Progress::Running => {}
                    }
                }
                entered.archive.link_target(key).map_err(|e| failed(&e))?.ok_or_else(not_link)
            }
        }
    }

    fn parent(&self, ino: Ino) -> Result<Ino, FsError> {
        let below_parent = |below: Ino| -> Result<Ino, FsError> {
            let parent = self.below.parent(below)?;
            if parent == self.snapshots(Wait::Never)? { Ok(TOP_INO) } else { self.mirror(parent) }
        };
        match self.place(ino)? {
            None => self.below.parent(ino),
            Some(Place::Top) => Ok(ROOT_INO),
            Some(Place::Latest(_)) => Err(FsError::NotDir),
            Some(Place::Mirror(below)) => below_parent(below),
            Some(Place::Member(gate, key)) => self.member_parent(&gate, key),
        }
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        wait: Wait,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        match self.place(ino)? {
            None if ino == ROOT_INO => self.list_root(offset, wait, emit),
            None => self.below.readdir(ino, offset, wait, emit),
            Some(place) => match self.as_dir(ino, place, wait)? {
                Dir::Top => self.list_top(offset, wait, emit),
                Dir::Mirror(below) => self.list_mirror(below, offset, wait, emit),
                Dir::Members(gate, key) => self.list_members(&gate, key, offset, wait, emit),
            },
        }
    }

    fn open(&self, ino: Ino, wait: Wait) -> Result<Opened, FsError> {
        match self.place(ino)? {
            None => self.below.open(ino, wait),
            Some(place) => self.open_place(ino, place, wait),
        }
    }

    fn read(&self, ino: Ino, handle: u64, offset: u64, size: usize, wait: Wait) -> Result<Vec<u8>, FsError> {
        match self.place(ino)? {
            None => self.below.read(ino, handle, offset, size, wait),
            Some(place) => self.read_place(ino, place, handle, (offset, size), wait),
        }
    }

    fn release(&self, ino: Ino, handle: u64) {
        match self.place(ino) {
            Ok(None) => self.below.release(ino, handle),
            Ok(Some(place)) => self.release_place(ino, place, handle),
            Err(error) => log::debug!("release of inode {ino}: {error}"),
        }
    }

    fn getxattr(&self, ino: Ino, name: &[u8], wait: Wait) -> Result<Option<Vec<u8>>, FsError> {
        match self.place(ino)? {
            None => self.below.getxattr(ino, name, wait),
            Some(Place::Mirror(below)) => self.below.getxattr(below, name, wait),
            Some(Place::Top | Place::Latest(_) | Place::Member(..)) => Ok(None),
        }
    }

    fn path(&self, ino: Ino) -> Option<String> {
        match self.place(ino).ok()? {
            None => self.below.path(ino),
            Some(Place::Mirror(below)) => self.below.path(below),
            Some(Place::Top | Place::Latest(_)) => None,
            Some(Place::Member(gate, key)) => Some(gate.live()?.archive.path(key).to_string()),
        }
    }

    fn refresh(&self) -> Result<Option<String>, FsError> {
        self.below.refresh()
    }

    fn cost(&self) -> Option<String> {
        self.below.cost()
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
