//! Handles of inodes that the kernel has dropped from its cache, as NFS servers use them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{Dupfs, run};
use crate::support::mount::Mount;
use crate::support::{Scratch, noise};

/// Takes a handle of each file and directory below the given paths, makes the kernel drop its inodes, and opens each
/// by its handle: it must have the inode number, the names and the bytes that it had before. Prints the number of
/// handles.
const SCRIPT: &str = r#"
import ctypes, hashlib, os, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
mount, tops = sys.argv[1], sys.argv[2:]
def state(fd):
    s = os.fstat(fd)
    if stat.S_ISDIR(s.st_mode):
        return (s.st_ino, sorted(os.listdir(fd)))
    digest, at = hashlib.md5(), 0
    while True:
        piece = os.pread(fd, 1 << 20, at)
        if not piece: break
        digest.update(piece); at += len(piece)
    return (s.st_ino, s.st_size, digest.hexdigest())
known = {}
for top in tops:
    for dir, dirs, files in os.walk(top):
        for path in [dir] + [os.path.join(dir, f) for f in files]:
            if os.path.islink(path): continue
            handle, id = Handle(128), ctypes.c_int()
            if libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(id), 0):
                sys.exit(f'{path}: name_to_handle_at: {os.strerror(ctypes.get_errno())}')
            fd = os.open(path, os.O_RDONLY)
            known[path] = (handle, state(fd))
            os.close(fd)
root = os.open(mount, os.O_RDONLY)
open('/proc/sys/vm/drop_caches', 'w').write('2')
wrong = 0
# The deepest first: their parents are not in the cache either.
for path in sorted(known, key=lambda path: -path.count('/')):
    handle, before = known[path]
    fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
    if fd < 0:
        print(f'{path}: open_by_handle_at: {os.strerror(ctypes.get_errno())}'); wrong += 1
        continue
    after = state(fd)
    os.close(fd)
    if after != before:
        print(f'{path}: {before} before, {after} after'); wrong += 1
print(len(known))
sys.exit(wrong != 0)
"#;

fn archive(source: &Path) {
    let work = source.parent().unwrap().join("work/dir/deep");
    fs::create_dir_all(&work).unwrap();
    fs::write(work.join("member"), noise(3, 10_000)).unwrap();
    let tar = source.join("sub/archive.tar.gz");
    run(Command::new("tar").arg("-C").arg(source.parent().unwrap().join("work")).arg("-czf").arg(tar).arg("dir"));
    let mut packed = GzEncoder::new(File::create(source.join("sub/dump.sql.gz")).unwrap(), Compression::fast());
    packed.write_all(&noise(4, 50_000)).unwrap();
    packed.finish().unwrap();
}

#[test]
fn handles_outlive_the_inodes_in_the_cache() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::create_dir_all(source.join("sub/deep")).unwrap();
    fs::write(source.join("sub/deep/file"), noise(1, 300_000)).unwrap();
    fs::write(source.join("top"), b"top").unwrap();
    archive(&source);
    let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &source, 1_700_000_000);
    let dupfs = Dupfs::new(&scratch.dir("home"));
    let mount = Mount::new(&dupfs, &format!("file://{}", repo.dir().display()), &scratch.dir("mnt"));
    let shown = mount.path();
    let mut script = Command::new("python3");
    script.arg("-c").arg(SCRIPT).arg(shown);
    for top in ["snapshots", "versions", "unpacked", "at/now/sub"] {
        script.arg(shown.join(top));
    }
    let count: usize = String::from_utf8(run(&mut script)).unwrap().trim().parse().unwrap();
    // 4 + 3 files and directories of a snapshot, the same twice more, and those in the archive.
    assert!(count >= 25, "{count} handles");
    mount.unmount();
}
