//! The programs that read a file whose size is not known yet.
//!
//! `fstat` of an open file carries no handle. A size of 0 in place of an unknown one is understood by programs that read to
//! the end whatever the size is, as in `/proc`. Others copy nothing, or take a database for empty. So only programs that were
//! tested get it, and only of a file that they have opened. All others wait for the exact size.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Mutex;

use dupfs_base::sync::lock;

use crate::vfs::Ino;

use super::waiter::WaiterId;

/// Programs that read a file to its end whatever its size is. `tests/mount/unpacked/programs.rs` runs those that need no server,
/// and `databases.rs` beside it the others.
/// Interpreters are not among them, as their programs differ.
const PROGRAMS: [&str; 14] = [
    "awk",
    "cat",
    "grep",
    "head",
    "less",
    "mariadb",
    "mawk",
    "md5sum",
    "mysql",
    "psql",
    "sed",
    "sha1sum",
    "sha256sum",
    "wc",
];

/// Programs that are links to files of other names. `awk` may also be gawk, whose extensions ask for the size.
const SYNONYMS: [(&str, &str); 2] = [("awk", "mawk"), ("mysql", "mariadb")];

/// Directories of these programs as distributions install them. Programs of the same names elsewhere may rely on the size, as
/// `head` of uutils does.
const DIRECTORIES: [&str; 2] = ["/bin", "/usr/bin"];

/// Returns true if the process of `opener` is a program that reads the file that it opens to its end whatever size is shown: then
/// the file may be opened without its size. A shell that will become one is none, because it may also read the file itself, byte
/// by byte, and direct I/O makes each byte a request.
pub(super) fn may_open_unsized(opener: Option<WaiterId>) -> bool {
    opener.is_some_and(|opener| accepts(opener.process()))
}

/// Returns true if the process runs one of [`PROGRAMS`].
fn accepts((process, name): (u32, Option<String>)) -> bool {
    let Some(name) = name.filter(|name| PROGRAMS.contains(&name.as_str())) else { return false };
    let Ok(executable) = std::fs::read_link(format!("/proc/{process}/exe")) else { return false };
    let file = executable.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let directory = executable.parent().and_then(Path::to_str).unwrap_or_default();
    // The client of PostgreSQL is started by a script of the same name.
    let is_psql = name == "psql" && directory.starts_with("/usr/lib/postgresql/");
    let is_installed = DIRECTORIES.contains(&directory) || is_psql;
    is_installed && (file == name || SYNONYMS.contains(&(name.as_str(), file)))
}

/// The files that are open for direct I/O because their size or end is not known, and the processes that opened them.
#[derive(Debug, Default)]
pub(super) struct StreamReaders {
    /// The process by inode and handle; `None` if it is not visible.
    files: Mutex<BTreeMap<(Ino, u64), Option<u32>>>,
}

impl StreamReaders {
    /// Records that the thread `opener` has opened `file`, an inode and a handle.
    pub(super) fn record_open(&self, file: (Ino, u64), opener: Option<WaiterId>) {
        let process = opener.map(|opener| opener.process().0);
        lock(&self.files).insert(file, process);
    }

    /// Records that `file` was closed.
    pub(super) fn record_close(&self, file: (Ino, u64)) {
        lock(&self.files).remove(&file);
    }

    /// Returns true if the process of `thread` has opened `ino` and reads it to its end whatever size is shown.
    pub(super) fn accepts_any_size(&self, ino: Ino, thread: Option<WaiterId>) -> bool {
        let Some(thread) = thread else { return false };
        let openers: Vec<u32> = {
            let files = lock(&self.files);
            files.range((ino, 0)..=(ino, u64::MAX)).filter_map(|(_, process)| *process).collect()
        };
        if openers.is_empty() {
            return false;
        }
        let (process, name) = thread.process();
        openers.contains(&process) && accepts((process, name))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// `program` waiting for its input.
    fn waiting(program: &str) -> (Child, Option<WaiterId>) {
        running(Path::new(program))
    }

    fn running(path: &Path) -> (Child, Option<WaiterId>) {
        let program = path.file_name().unwrap().to_str().unwrap();
        let child = Command::new(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let id = WaiterId::new(child.id());
        let started = Instant::now();
        while id.unwrap().process().1.as_deref() != Some(program) {
            assert!(started.elapsed() < Duration::from_secs(20), "{program} does not start");
            std::thread::yield_now();
        }
        (child, id)
    }

    #[test]
    fn only_a_known_program_that_has_opened_the_file_accepts_any_size() {
        let readers = StreamReaders::default();
        let (mut cat, reader) = waiting("cat");
        let (mut other, stranger) = waiting("sort");
        let (mut again, unrelated) = waiting("cat");
        readers.record_open((7, 1), reader);
        readers.record_open((7, 2), stranger);
        readers.record_open((7, 3), None);
        readers.record_open((8, 4), unrelated);
        for (ino, thread, accepts) in [
            (7, reader, true),
            (8, reader, false),
            (6, reader, false),
            (7, stranger, false),
            (7, unrelated, false),
            (8, unrelated, true),
            (7, None, false),
        ] {
            assert_eq!(readers.accepts_any_size(ino, thread), accepts, "{ino} {thread:?}");
        }
        readers.record_close((7, 1));
        assert!(!readers.accepts_any_size(7, reader));
        for child in [&mut cat, &mut other, &mut again] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn only_installed_programs_are_known() {
        let scratch = tempfile::tempdir().unwrap();
        let copy = scratch.path().join("cat");
        std::fs::copy("/bin/cat", &copy).unwrap();
        for (path, is_known) in [(Path::new("/bin/cat"), true), (&copy, false), (Path::new("/bin/sort"), false)] {
            let (mut child, opener) = running(path);
            assert_eq!(may_open_unsized(opener), is_known, "{}", path.display());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(!may_open_unsized(None));
    }
}
