//! The file in the destination that states the objects that are being restored there. While it exists, the same restore
//! continues and another one is refused. Its lock excludes a second process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::destination;
use super::wanted_tree::RESERVED_PREFIX;
use crate::cli::error::CliError;
use crate::cli::exit::CommandExit;

/// The name of the marker. Temporary names begin with it too.
const NAME: &str = RESERVED_PREFIX;
/// Upper bound of the bytes of a marker that are read.
const MAX_BYTES: u64 = 1 << 20;

/// The marker of this run.
#[derive(Debug)]
pub(super) struct RunMarker {
    /// Open and locked.
    _file: File,
    /// True if no earlier run has left the marker.
    is_new: bool,
}

impl RunMarker {
    /// Claims the directory `dir`, which the user calls `shown`, for the restore of `what`: an empty one, one in which the same
    /// restore was interrupted, or with `force` any one.
    ///
    /// # Errors
    /// [`CliError`] for any other directory.
    pub(super) fn claim(dir: BorrowedFd<'_>, shown: &Path, what: &str, force: bool) -> Result<Self, CliError> {
        let failed = |error: &io::Error| destination::failed(shown, error);
        let refused = |why: &str| CliError::new(CommandExit::Failed, format!("{}: {why}", shown.display()));
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match fs::openat(dir, NAME, flags, Mode::empty()) {
            Ok(file) => Some(File::from(file)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(failed(&error.into())),
        };
        let (mut file, is_new) = match opened {
            Some(file) => (file, false),
            None => {
                if !force && !is_empty(dir).map_err(|error| failed(&error))? {
                    return Err(refused(
                        "the directory is not empty; choose another one, or replace what differs in it with --force",
                    ));
                }
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                let file = fs::openat(dir, NAME, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(&e.into()))?;
                (File::from(file), true)
            }
        };
        // Nothing else is emptied: another user could have made the name a link to a file of this one.
        let stat = fs::fstat(&file).map_err(|error| failed(&error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
            return Err(refused(&format!("{NAME} in it is not a file of dupfs restore; remove it")));
        }
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(refused("another dupfs restore is writing here")),
            Err(error) => return Err(failed(&error.into())),
        }
        let mut known = String::new();
        Read::by_ref(&mut file).take(MAX_BYTES).read_to_string(&mut known).map_err(|error| failed(&error))?;
        // A marker without content is that of a run that ended before it wrote anything.
        if !is_new && !known.is_empty() && known != what && !force {
            let first = known.lines().next().unwrap_or_default().escape_debug();
            return Err(refused(&format!(
                "contains the interrupted restore of {first}; finish it with the --time and paths of that run, or replace what \
                 differs with --force"
            )));
        }
        file.set_len(0).and_then(|()| io::Seek::rewind(&mut file)).map_err(|error| failed(&error))?;
        file.write_all(what.as_bytes()).map_err(|error| failed(&error))?;
        Ok(Self { _file: file, is_new })
    }

    /// Removes the marker of a run that is refused before it wrote anything. That of an earlier run stays.
    pub(super) fn retract(self, dir: BorrowedFd<'_>) {
        if self.is_new {
            // A marker that stays is no worse than one of an interrupted run.
            let _ = fs::unlinkat(dir, NAME, AtFlags::empty());
        }
    }

    /// Removes the marker: everything is restored.
    pub(super) fn remove(self, dir: BorrowedFd<'_>) -> io::Result<()> {
        Ok(fs::unlinkat(dir, NAME, AtFlags::empty())?)
    }
}

fn is_empty(dir: BorrowedFd<'_>) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
