//! The bare rate of FUSE: a synthetic tree without a backup, served as dupfs serves its own. `scripts/bench` runs it
//! to measure the part of a time that the kernel and the FUSE crate take.
//!
//! `bare_fuse DIRS FILES WIDE MIN MAX MOUNTPOINT`: DIRS directories of FILES files each, one of WIDE files, and sizes from MIN
//! to MAX bytes. Names and attributes are computed, the content is zeros. Serves until it is unmounted.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dupfs::fuse::{MountPoint, MountSettings, Mounted};
use dupfs::vfs::{Attr, DirEntry, FileSystem, FsError, FsStats, Ino, NodeKind, Opened, ROOT_INO};
use dupfs_base::RequestContext;

/// Time for which the kernel may cache names and attributes, as for the real tree.
const TTL: Duration = Duration::from_secs(365 * 86_400);

/// Inode numbers: 1 is the root, `d + 2` directory `d`, and file `i` of it `(d + 2) << 32 | i + 1`.
struct Bare {
    dirs: u64,
    files: u64,
    wide: u64,
    min_size: u64,
    max_size: u64,
    zeros: Vec<u8>,
}

impl Bare {
    fn all_dirs(&self) -> u64 {
        self.dirs + u64::from(self.wide > 0)
    }

    fn files_of(&self, dir: Ino) -> u64 {
        if dir - 2 < self.dirs { self.files } else { self.wide }
    }

    fn is_dir(ino: Ino) -> bool {
        ino >> 32 == 0
    }

    fn size(&self, ino: Ino) -> u64 {
        self.min_size + ino.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (self.max_size - self.min_size + 1)
    }

    fn attr(&self, ino: Ino) -> Attr {
        let dir = Self::is_dir(ino);
        let size = if dir { 4096 } else { self.size(ino) };
        Attr {
            ino,
            kind: if dir { NodeKind::Dir } else { NodeKind::File },
            perm: if dir { 0o755 } else { 0o644 },
            nlink: if dir { 2 } else { 1 },
            uid: 0,
            gid: 0,
            size,
            blocks: size.div_ceil(512),
            mtime: 1_768_700_000,
            rdev: (0, 0),
            exact: true,
            attr_ttl: TTL,
            entry_ttl: TTL,
        }
    }
}

/// Writes the name of directory `dir` or of file `i`.
fn name(out: &mut Vec<u8>, letter: u8, width: usize, number: u64) {
    out.clear();
    out.push(letter);
    write!(out, "{number:0width$}").unwrap();
}

impl FileSystem for Bare {
    fn lookup(&self, parent: Ino, name: &[u8], _: &RequestContext) -> Result<Attr, FsError> {
        let number = std::str::from_utf8(&name[1..]).ok().and_then(|digits| digits.parse::<u64>().ok());
        match (parent, number) {
            (ROOT_INO, Some(dir)) if dir < self.dirs => Ok(self.attr(dir + 2)),
            (ROOT_INO, None) if name == b"wide" && self.wide > 0 => Ok(self.attr(self.dirs + 2)),
            (dir, Some(i)) if dir != ROOT_INO && i < self.files_of(dir) => Ok(self.attr(dir << 32 | (i + 1))),
            _ => Err(FsError::not_found()),
        }
    }

    fn getattr(&self, ino: Ino, _: &RequestContext) -> Result<Attr, FsError> {
        Ok(self.attr(ino))
    }

    fn readlink(&self, _ino: Ino, _: &RequestContext) -> Result<Vec<u8>, FsError> {
        Err(FsError::not_found())
    }

    fn parent(&self, ino: Ino, _: &RequestContext) -> Result<Ino, FsError> {
        Ok(if Self::is_dir(ino) { ROOT_INO } else { ino >> 32 })
    }

    fn readdir(
        &self,
        ino: Ino,
        offset: u64,
        _: &RequestContext,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), FsError> {
        let mut text = Vec::new();
        let count = if ino == ROOT_INO { self.all_dirs() } else { self.files_of(ino) };
        for i in offset..count {
            let (child, kind) = if ino == ROOT_INO {
                name(&mut text, b'd', 4, i);
                if i == self.dirs {
                    text = b"wide".to_vec();
                }
                (i + 2, NodeKind::Dir)
            } else {
                name(&mut text, b'f', 6, i);
                (ino << 32 | (i + 1), NodeKind::File)
            };
            if !emit(DirEntry { ino: child, kind, next_offset: i + 1, name: &text }) {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, _ino: Ino, _: &RequestContext) -> Result<Opened, FsError> {
        Ok(Opened { handle: 0, keep_cache: true, direct_io: false })
    }

    fn read(&self, ino: Ino, _handle: u64, offset: u64, size: usize, _: &RequestContext) -> Result<Vec<u8>, FsError> {
        let left = usize::try_from(self.size(ino).saturating_sub(offset)).unwrap();
        Ok(self.zeros[..size.min(left).min(self.zeros.len())].to_vec())
    }

    fn release(&self, _ino: Ino, _handle: u64) {}

    fn getxattr(&self, _ino: Ino, _name: &[u8], _: &RequestContext) -> Result<Option<Vec<u8>>, FsError> {
        Ok(None)
    }

    fn stats(&self) -> FsStats {
        FsStats { total_bytes: 0, files: self.dirs * self.files + self.wide }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [numbers @ .., mountpoint] = &arguments[..] else { panic!("bare_fuse DIRS FILES WIDE MIN MAX MOUNTPOINT") };
    let [dirs, files, wide, min_size, max_size] = numbers.iter().map(|n| n.parse().unwrap()).collect::<Vec<u64>>()[..]
    else {
        panic!("bare_fuse DIRS FILES WIDE MIN MAX MOUNTPOINT")
    };
    let fs = Bare { dirs, files, wide, min_size, max_size, zeros: vec![0; 1 << 20] };
    let settings = MountSettings {
        url: "bare".to_owned(),
        allow_other: false,
        default_permissions: false,
        noexec: false,
        deadline: Duration::from_secs(60),
    };
    let point = MountPoint::check(Path::new(mountpoint), false).unwrap();
    Mounted::mount(Arc::new(fs), &point, &settings).unwrap().wait().unwrap();
}
