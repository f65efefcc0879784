//! Directory entries gathered for one reply to readdir or readdirplus.
//!
//! They are gathered before the attributes are looked up, so that no call into the file system happens inside another.
//! Offsets of the kernel are those of the file system plus 2, because `.` and `..` come first and are made here.

use std::ops::Range;

use crate::vfs::{Attr, FileSystem, FsError, Ino, NodeKind};
use dupfs_base::{ErrorKind, RequestContext};

/// Longest name that the kernel accepts in a reply (`FUSE_NAME_MAX`).
const MAX_NAME: usize = 1024;
/// Upper bound of the entries of one batch: about what fits one page of a plain listing.
const MAX_ENTRIES: usize = 128;

/// Consecutive entries of a directory.
#[derive(Debug, Default)]
pub(super) struct DirBatch {
    names: Vec<u8>,
    rows: Vec<BatchRow>,
}

#[derive(Debug)]
struct BatchRow {
    ino: Ino,
    kind: NodeKind,
    next: u64,
    name: Range<usize>,
    attr: BatchAttr,
}

/// The attributes that a readdirplus entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchAttr {
    /// Inode number and type only: the kernel has to look the name up.
    TypeOnly,
    /// All attributes.
    Full(Attr),
}

/// One entry of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchEntry<'a> {
    /// Inode number.
    pub(super) ino: Ino,
    /// Type.
    pub(super) kind: NodeKind,
    /// The kernel's offset of the entry after this one.
    pub(super) next: u64,
    /// Raw name.
    pub(super) name: &'a [u8],
    /// Attributes, if they were requested.
    pub(super) attr: BatchAttr,
}

fn name_too_long(name: &[u8]) -> FsError {
    let begins = String::from_utf8_lossy(name.get(..32).unwrap_or(name)).into_owned();
    let (len, reason) = (name.len(), "longer than the kernel accepts; the names after it are not listed either");
    FsError::failed(ErrorKind::Unsupported, format!("the directory has a name of {len} bytes ({begins}...): {reason}"))
}

/// The directory to list, the kernel's offset to start at, and the kind of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirRequest {
    /// The directory.
    pub(super) dir: Ino,
    /// The kernel's offset; 0 for the start.
    pub(super) offset: u64,
    /// True to look up attributes too.
    pub(super) plus: bool,
}

impl DirBatch {
    /// The next entries of `listing`; an empty batch means that the directory has ended.
    ///
    /// With [`RequestContext::cached_only`] the batch ends before the first entry that is not cached.
    ///
    /// # Errors
    /// [`FsError`], also WouldBlock, if not even the first entry is available. Never an empty batch instead.
    pub(super) fn gather(fs: &dyn FileSystem, listing: DirRequest, context: &RequestContext) -> Result<Self, FsError> {
        let mut batch = Self::default();
        if listing.offset < 1 {
            batch.push(listing.dir, NodeKind::Dir, 1, b".");
        }
        if listing.offset < 2 {
            batch.push(fs.parent(listing.dir, context)?, NodeKind::Dir, 2, b"..");
        }
        let dots = batch.rows.len();
        let mut too_long = None;
        let listed = fs.readdir(listing.dir, listing.offset.saturating_sub(2), context, &mut |entry| {
            if entry.name.len() > MAX_NAME {
                too_long = Some(name_too_long(entry.name));
                return false;
            }
            batch.push(entry.ino, entry.kind, entry.next_offset.saturating_add(2), entry.name);
            batch.rows.len() < MAX_ENTRIES
        });
        match listed.and(too_long.map_or(Ok(()), Err)) {
            Ok(()) => {}
            Err(FsError::WouldBlock) if !batch.rows.is_empty() => {}
            // The known names are returned first; the next request, at the offset after them, fails again.
            Err(_) if batch.rows.len() > dots => {}
            Err(error) => return Err(error),
        }
        if listing.plus {
            batch.look_up(fs, listing.dir, dots, context)?;
        }
        Ok(batch)
    }

    /// Returns true if there are no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = BatchEntry<'_>> {
        self.rows.iter().filter_map(|row| {
            let name = self.names.get(row.name.clone())?;
            Some(BatchEntry { ino: row.ino, kind: row.kind, next: row.next, name, attr: row.attr })
        })
    }

    fn push(&mut self, ino: Ino, kind: NodeKind, next: u64, name: &[u8]) {
        let start = self.names.len();
        self.names.extend_from_slice(name);
        self.rows.push(BatchRow { ino, kind, next, name: start..self.names.len(), attr: BatchAttr::TypeOnly });
    }

    /// Looks up the attributes of the rows after the first `dots`. Truncates the batch before the first row that would
    /// block, except that the first one of all may block if `context` allows it. A name whose attributes are
    /// unavailable stays listed.
    fn look_up(&mut self, fs: &dyn FileSystem, dir: Ino, dots: usize, context: &RequestContext) -> Result<(), FsError> {
        let mut keep = self.rows.len();
        for (i, row) in self.rows.iter_mut().enumerate().skip(dots) {
            let Some(name) = self.names.get(row.name.clone()) else { continue };
            let mut found = fs.lookup_listed(dir, name);
            if i == 0 && context.may_block() && matches!(found, Err(FsError::WouldBlock)) {
                found = fs.lookup(dir, name, context);
            }
            match found {
                Ok(attr) => row.attr = BatchAttr::Full(attr),
                Err(FsError::WouldBlock) => {
                    keep = i;
                    break;
                }
                Err(error) => {
                    log::debug!("attributes for the listing of {}: {error}", fs.path(dir).unwrap_or_default())
                }
            }
        }
        self.rows.truncate(keep);
        if self.rows.is_empty() && keep == 0 && !self.names.is_empty() { Err(FsError::WouldBlock) } else { Ok(()) }
    }
}
