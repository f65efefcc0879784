//! Ways to copy a file whose size is not known yet, and a program that holds such a file open.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::exec;

/// Copies the file `sys.argv[1]` to `sys.argv[2]` in the way `sys.argv[3]`, without asking for its size unless the way does.
const COPY: &str = r#"
import ctypes, mmap, os, shutil, sqlite3, struct, sys
src, dst, way = sys.argv[1:]
out = os.open(dst, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
def aio(fd):
    # io_setup, io_submit and io_getevents of x86-64 and arm64.
    setup, submit, events = (206, 209, 208) if os.uname().machine == 'x86_64' else (0, 2, 4)
    libc = ctypes.CDLL(None, use_errno=True)
    context = ctypes.c_ulong(0)
    assert libc.syscall(setup, 1, ctypes.byref(context)) == 0
    buffer = ctypes.create_string_buffer(1 << 18)
    at = 0
    while True:
        block = ctypes.create_string_buffer(struct.pack('<QLLHhLQQqQLL', 0, 0, 0, 0, 0, fd, ctypes.addressof(buffer), 1 << 18, at, 0, 0, 0))
        list = (ctypes.c_void_p * 1)(ctypes.addressof(block))
        assert libc.syscall(submit, context, 1, list) == 1
        event = ctypes.create_string_buffer(32)
        assert libc.syscall(events, context, 1, 1, event, None) == 1
        got = struct.unpack('<QQqq', event.raw)[2]
        assert got >= 0, got
        if got == 0: break
        os.write(out, buffer.raw[:got]); at += got
if way == 'copyfile':
    shutil.copyfile(src, dst)
elif way == 'fast copy':
    with open(src, 'rb') as a, open(dst, 'wb') as b:
        shutil._fastcopy_sendfile(a, b)
else:
    fd = os.open(src, os.O_RDONLY)
    if way == 'sendfile':
        while os.sendfile(out, fd, None, 1 << 20): pass
    elif way == 'splice':
        r, w = os.pipe()
        while True:
            n = os.splice(fd, w, 1 << 16)
            if n == 0: break
            while n: n -= os.splice(r, out, n)
    elif way == 'aio':
        aio(fd)
    elif way == 'end':
        end = os.lseek(fd, 0, os.SEEK_END)
        os.write(out, os.pread(fd, end, 0))
    elif way == 'size':
        os.write(out, os.pread(fd, os.fstat(fd).st_size, 0))
    elif way == 'map':
        os.write(out, mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
    elif way == 'copy_file_range':
        while os.copy_file_range(fd, out, 1 << 20): pass
    else:
        sys.exit(way)
"#;

/// The ways of [`COPY`].
pub const WAYS: [&str; 9] =
    ["copyfile", "fast copy", "sendfile", "splice", "aio", "end", "size", "map", "copy_file_range"];

/// Other programs that copy a file: the arguments for a shell, with the file as `$0` and the copy as `$1`.
pub const PROGRAMS: [(&str, &str); 8] = [
    ("cp", r#"cp "$0" "$1""#),
    ("cat", r#"cat "$0" > "$1""#),
    ("dd", r#"dd if="$0" of="$1" bs=64k status=none"#),
    ("rsync", r#"rsync -a "$0" "$1""#),
    ("tar", r#"tar -c -C "$(dirname "$0")" "$(basename "$0")" | tar -x -O > "$1""#),
    ("head", r#"head -c 100000000 "$0" > "$1""#),
    ("install", r#"install "$0" "$1""#),
    ("git", r#"git hash-object -w -- "$0" > id && git cat-file blob "$(cat id)" > "$1""#),
];

/// A `cat` that has opened `file`, has asked for its size, and waits for the reader of its output.
pub struct Holder(pub Child);

impl Holder {
    /// Returns once it has read 100 bytes.
    pub fn new(file: &Path) -> Self {
        let mut child = Command::new("cat").arg(file).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 100]).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies `file` and requires that the copy is `plain`, or that the program fails. Returns true if it succeeds.
pub fn copy(dir: &Path, file: &Path, way: &str, plain: &[u8]) -> bool {
    let (file, out) = (file.to_str().unwrap(), dir.join(format!("{way}.out")));
    let out_name = out.to_str().unwrap();
    let mut command = match PROGRAMS.iter().find(|(name, _)| *name == way) {
        Some((_, script)) => {
            let mut command = Command::new("sh");
            command.args(["-e", "-c", script, file, out_name]);
            command
        }
        None => {
            let mut command = Command::new("python3");
            command.args(["-c", COPY, file, out_name, way]);
            command
        }
    };
    let output = exec::output(command.current_dir(dir));
    if output.status.success() {
        let copied = fs::read(&out).unwrap();
        assert!(copied == plain, "{way}: {} of {} bytes, exit code 0", copied.len(), plain.len());
    } else {
        eprintln!("{way}: {}", exec::tail(&output.stderr));
    }
    output.status.success()
}

/// All ways of [`copy`].
pub fn all_ways() -> impl Iterator<Item = &'static str> {
    WAYS.into_iter().chain(PROGRAMS.iter().map(|(name, _)| *name))
}
