//! Handles of inodes that the kernel has dropped from its cache, as NFS servers use them.

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest, Sha1};

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

/// Looks files up over NFS, makes the kernel drop the inodes of the mount, and reads the files. Prints a digest of each.
const CLIENT: &str = r#"
import ctypes, hashlib, os, subprocess, sys
lib = ctypes.CDLL('libnfs.so.13')
P, S, U, I = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int
for name, result, *arguments in [
    ('nfs_init_context', P), ('nfs_parse_url_dir', P, P, S), ('nfs_mount', I, P, S, S), ('nfs_get_error', S, P),
    ('nfs_stat64', I, P, S, P), ('nfs_open', I, P, S, I, P), ('nfs_pread', I, P, P, U, U, P)]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
port, mount, paths = sys.argv[1], sys.argv[2], [os.fsencode(path) for path in sys.argv[3:]]
nfs = lib.nfs_init_context()
def ok(result, what):
    if result < 0: sys.exit(f'{what}: {lib.nfs_get_error(nfs)}')
    return result
lib.nfs_parse_url_dir(nfs, f'nfs://127.0.0.1/backup?version=4&nfsport={port}'.encode())
ok(lib.nfs_mount(nfs, b'127.0.0.1', b'/backup'), 'mount')
for path in paths:
    ok(lib.nfs_stat64(nfs, path, ctypes.create_string_buffer(512)), path)
# The names are dropped, and with them the inodes: FUSE retains none that is not in use.
subprocess.run(['mount', '-i', '-o', 'remount,ro', mount], check=True)
for path in paths:
    file, buffer, digest, at = P(), ctypes.create_string_buffer(65536), hashlib.sha1(), 0
    ok(lib.nfs_open(nfs, path, os.O_RDONLY, ctypes.byref(file)), path)
    while got := ok(lib.nfs_pread(nfs, file, at, len(buffer), buffer), path):
        digest.update(buffer.raw[:got]); at += got
    print(digest.hexdigest())
"#;

/// nfs-ganesha with one export. It ends when this is dropped.
struct NfsServer {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl NfsServer {
    /// Exports `mount`, and waits until the server answers. Its files are in `dir`.
    fn start(mount: &Path, dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, log) = (dir.join("config"), dir.join("log"));
        let text = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; Bind_addr = 127.0.0.1; Protocols = 4; Enable_NLM = false;
               Enable_RQUOTA = false; }}
             NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {dir}; }}
             EXPORT {{ Export_Id = 1; Path = {mount}; Pseudo = /backup; Access_Type = RO; Squash = no_root_squash;
               SecType = sys; Protocols = 4; Filesystem_Id = 17.17; FSAL {{ Name = VFS; }} }}",
            dir = dir.display(),
            mount = mount.display(),
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("ganesha.nfsd");
        command.arg("-F").arg("-f").arg(&config).arg("-L").arg(&log).arg("-p").arg(dir.join("pid"));
        let process = command.stdin(Stdio::null()).spawn().expect("nfs-ganesha, which scripts/test installs");
        let mut server = Self { process, port, log };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.process.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(60), "{ended:?}\n{}", server.log());
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_nfs_server_reads_files_whose_inodes_the_kernel_has_dropped() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::create_dir_all(source.join("sub/deep")).unwrap();
    fs::write(source.join("sub/deep/file"), noise(1, 300_000)).unwrap();
    archive(&source);
    let repo = Repository::new("0.8.22", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &source, 1_700_000_000);
    let dupfs = Dupfs::new(&scratch.dir("home"));
    let url = format!("file://{}", repo.dir().display());
    let mount = Mount::new(&dupfs, &url, &scratch.dir("mnt"));
    let server = NfsServer::start(mount.path(), &scratch.dir("nfs"));
    let mut client = Command::new("python3");
    client.arg("-c").arg(CLIENT).arg(server.port.to_string()).arg(mount.path());
    // By the name of the snapshot: libnfs reads beyond the end of the targets of some links.
    let shown = "/unpacked/20231114T221320Z/sub";
    client.arg("/snapshots/20231114T221320Z/sub/deep/file");
    client.args(["archive.tar.gz/dir/deep/member", "dump.sql"].map(|name| format!("{shown}/{name}")));
    let output = client.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}\n{}\n{}", server.log(), mount.log());
    let expected = [noise(1, 300_000), noise(3, 10_000), noise(4, 50_000)].map(|content| digest(&content));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), expected);
    drop(server);
    mount.unmount();
}

/// The SHA-1 of `bytes` in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

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
