//! The identity of a file's state: what a file system keeps of it.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;

use dupfs_base::sync::lock;

/// File systems whose inode numbers belong to files, also over mounts: ext2 to ext4, XFS, Btrfs, F2FS, bcachefs, ZFS, JFS,
/// ReiserFS, NFS, tmpfs and overlayfs.
const WITH_STABLE_INODES: [u64; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x3153_464a,
    0x5265_4973,
    0x6969,
    0x0102_1994,
    0x794c_7630,
];
/// FAT, which has times of two seconds, and exFAT.
const FAT: [u64; 2] = [0x4d44, 0x2011_bab0];
/// Bytes at each end of a file that tell files of one size and time apart.
const END_BYTES: u64 = 4096;

/// The identification of the state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileIdentity {
    /// By inode, size and time. For file systems with stable inode numbers.
    Inode,
    /// By size and time in steps of this many seconds. The inode numbers of FUSE (sshfs, rclone, mergerfs), FAT,
    /// CIFS and others may change.
    Time(i64),
}

impl FileIdentity {
    /// The identity of files on a file system of this kind, as statfs(2) has it.
    fn of_file_system(kind: Option<u64>) -> Self {
        match kind {
            Some(kind) if WITH_STABLE_INODES.contains(&kind) => Self::Inode,
            Some(kind) if FAT.contains(&kind) => Self::Time(2),
            _ => Self::Time(1),
        }
    }

    /// The version of a file. It does not include the device number, which changes with each mount of many file systems:
    /// records in the index stay valid.
    pub(super) fn version(self, metadata: &Metadata) -> String {
        match self {
            Self::Inode => {
                format!("{:x}-{:x}-{:x}.{:09}", metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
            }
            Self::Time(step) => {
                let time = metadata.mtime() - metadata.mtime().rem_euclid(step.max(1));
                format!("{:x}-{time:x}", metadata.len())
            }
        }
    }

    /// A number that differs for files of other content, as far as their ends do; `None` if the inode is enough.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn fingerprint(self, file: &impl FileExt, size: u64) -> io::Result<Option<u64>> {
        if self == Self::Inode {
            return Ok(None);
        }
        let mut hasher = DefaultHasher::new();
        let mut bytes = [0; 4096];
        for start in [0, size.saturating_sub(END_BYTES)] {
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, start.saturating_add(filled as u64)) {
                    Ok(0) => break,
                    Ok(got) => filled += got,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            bytes.get(..filled).hash(&mut hasher);
        }
        Ok(Some(hasher.finish()))
    }
}

/// The identifications of files, by the devices on which they are. A directory may have links to files of another file system,
/// and may be mounted again, on another device, or as another file system.
#[derive(Debug)]
pub(super) struct FileIdentities {
    /// The identification for a kind of file system.
    of_file_system: fn(Option<u64>) -> FileIdentity,
    by_device: Mutex<HashMap<u64, KnownIdentity>>,
}

/// The identification of files on a device.
#[derive(Clone, Copy, Debug)]
struct KnownIdentity {
    identity: FileIdentity,
    /// False if the device may be another file system by now.
    is_current: bool,
}

impl Default for FileIdentities {
    fn default() -> Self {
        Self { of_file_system: FileIdentity::of_file_system, by_device: Mutex::default() }
    }
}

impl FileIdentities {
    /// The same identification for all files.
    #[cfg(test)]
    pub(super) fn of_kind(of_file_system: fn(Option<u64>) -> FileIdentity) -> Self {
        Self { of_file_system, ..Self::default() }
    }

    /// Asks for the kind of each device again: another file system may have the number of one now.
    pub(super) fn forget(&self) {
        lock(&self.by_device).values_mut().for_each(|known| known.is_current = false);
    }

    /// The identification of the file `path`, whose metadata are given.
    pub(super) fn of_path(&self, path: &Path, metadata: &Metadata) -> FileIdentity {
        self.of(metadata, || rustix::fs::statfs(path))
    }

    /// The identification of an open file, whose metadata are given.
    pub(super) fn of_file(&self, file: &File, metadata: &Metadata) -> FileIdentity {
        self.of(metadata, || rustix::fs::fstatfs(file))
    }

    fn of(&self, metadata: &Metadata, stat: impl FnOnce() -> rustix::io::Result<rustix::fs::StatFs>) -> FileIdentity {
        let known = lock(&self.by_device).get(&metadata.dev()).copied();
        if let Some(known) = known.filter(|known| known.is_current) {
            return known.identity;
        }
        // A request to a server, on some file systems.
        match stat() {
            Ok(stat) => {
                let identity = (self.of_file_system)(u64::try_from(stat.f_type).ok());
                lock(&self.by_device).insert(metadata.dev(), KnownIdentity { identity, is_current: true });
                identity
            }
            // One failure must not change the version of a file.
            Err(_) => known.map_or_else(|| (self.of_file_system)(None), |known| known.identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_copy_with_the_same_time_is_the_same_file_without_stable_inodes() {
        let tmp = tempfile::tempdir().unwrap();
        let file = |name: &str, seconds: u64, nanos: u32| {
            let path = tmp.path().join(name);
            fs::write(&path, name).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(UNIX_EPOCH + Duration::new(seconds, nanos))
                .unwrap();
            fs::metadata(path).unwrap()
        };
        let (a, b, c) = (file("a", 100, 7), file("b", 100, 8), file("c", 101, 7));
        let same =
            |identity: FileIdentity, one: &Metadata, other: &Metadata| identity.version(one) == identity.version(other);
        assert!(!same(FileIdentity::Inode, &a, &b));
        assert!(same(FileIdentity::Time(1), &a, &b) && !same(FileIdentity::Time(1), &a, &c));
        assert!(same(FileIdentity::Time(2), &a, &c));
        assert!(!same(FileIdentity::Time(1), &a, &file("longer", 100, 7)));
    }

    #[test]
    fn inodes_count_only_where_they_are_known_to_be_stable() {
        for (name, kind, identity) in [
            ("ext4", Some(0xef53), FileIdentity::Inode),
            ("nfs", Some(0x6969), FileIdentity::Inode),
            ("fuse", Some(0x6573_5546), FileIdentity::Time(1)),
            ("cifs", Some(0xff53_4d42), FileIdentity::Time(1)),
            ("smb2", Some(0xfe53_4d42), FileIdentity::Time(1)),
            ("vfat", Some(0x4d44), FileIdentity::Time(2)),
            ("exfat", Some(0x2011_bab0), FileIdentity::Time(2)),
            ("another", Some(1), FileIdentity::Time(1)),
            ("unknown", None, FileIdentity::Time(1)),
        ] {
            assert_eq!(FileIdentity::of_file_system(kind), identity, "{name}");
        }
    }

    #[test]
    fn a_file_system_that_cannot_be_examined_once_is_that_of_before() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let identities = FileIdentities::of_kind(|kind| match kind {
            Some(_) => FileIdentity::Inode,
            None => FileIdentity::Time(1),
        });
        let failing = || identities.of(&metadata, || Err(rustix::io::Errno::IO));
        assert_eq!(failing(), FileIdentity::Time(1));
        assert_eq!(identities.of_file(&file, &metadata), FileIdentity::Inode, "a failure is not stored");
        identities.forget();
        assert_eq!(failing(), FileIdentity::Inode);
    }

    #[test]
    fn the_ends_of_a_file_distinguish_contents() {
        let print = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            assert_eq!(FileIdentity::Inode.fingerprint(&file, bytes.len() as u64).unwrap(), None);
            FileIdentity::Time(1).fingerprint(&file, bytes.len() as u64).unwrap()
        };
        let mut bytes = vec![7; 20_000];
        let before = print(&bytes);
        assert_eq!(print(&bytes), before);
        for at in [0, 4095, 15_904, 19_999] {
            bytes[at] = 8;
            assert_ne!(print(&bytes), before, "{at}");
            bytes[at] = 7;
        }
        assert_ne!(print(b""), print(b"x"));
    }
}
