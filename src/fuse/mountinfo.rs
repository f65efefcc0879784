//! The kernel's table of mounts, `/proc/self/mountinfo`, which can be read even if the daemon of a mount has exited.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Upper bound of the symbolic links that are followed one after the other, as in the kernel.
const MAX_LINKS: u32 = 40;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Device number, as `major:minor`.
    pub device: String,
    /// The mount point.
    pub target: PathBuf,
    /// Type, such as `fuse.dupfs`.
    pub kind: String,
    /// Source, such as `dupfs:file:///backups/site`.
    pub source: String,
    /// The user who mounted a FUSE file system.
    pub user_id: Option<u32>,
}

impl MountEntry {
    /// Returns true if dupfs serves it, or did before its daemon exited.
    pub fn is_dupfs(&self) -> bool {
        self.kind == "fuse.dupfs" || (self.kind == "fuse" && self.source.starts_with("dupfs:"))
    }

    /// Returns true if a process or another machine serves it, or will when it is entered.
    pub fn has_server(&self) -> bool {
        const KINDS: [&str; 10] = ["fuse", "fuseblk", "autofs", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs"];
        self.kind.starts_with("fuse.") || KINDS.contains(&&*self.kind)
    }
}

/// The topmost mount on `target` (absolute, without symbolic links); `None` if there is none.
///
/// # Errors
/// When the table of mounts cannot be read.
pub fn mount_at(target: &Path) -> io::Result<Option<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|&b| b == b'\n').filter_map(parse).rfind(|mount| mount.target == target))
}

/// The dupfs mounts that are not covered by other mounts, in the order of the table.
///
/// # Errors
/// When the table of mounts cannot be read.
pub fn dupfs_mounts() -> io::Result<Vec<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(uncovered(table.split(|&b| b == b'\n').filter_map(parse).collect()))
}

/// The dupfs mounts among `mounts` that are the topmost ones on their mount points.
fn uncovered(mounts: Vec<MountEntry>) -> Vec<MountEntry> {
    let topmost: HashMap<PathBuf, usize> =
        mounts.iter().enumerate().map(|(at, mount)| (mount.target.clone(), at)).collect();
    let shown = mounts.into_iter().enumerate().filter(|(at, mount)| topmost.get(&mount.target) == Some(at));
    shown.map(|(_, mount)| mount).filter(MountEntry::is_dupfs).collect()
}

/// The topmost mount on `path`, which may be relative and have symbolic links; `None` if there is none. A mount whose
/// daemon hangs does not delay it.
///
/// # Errors
/// When the table of mounts cannot be read.
pub fn mount_on(path: &Path) -> io::Result<Option<MountEntry>> {
    for spelling in spellings(path) {
        if let Some(found) = mount_at(&spelling)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The mount with a server that `path` lies on or is. A server that hangs does not delay it: the path is followed component by
/// component, and not beyond such a mount.
///
/// # Errors
/// When the table of mounts cannot be read, and when there are too many links.
pub fn remote_mount_above(path: &Path) -> io::Result<Option<MountEntry>> {
    let mut place = PathBuf::from("/");
    let mut pending = components(&std::path::absolute(path)?);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            place.pop();
            continue;
        }
        place.push(&name);
        if let Some(found) = mount_at(&place)?.filter(MountEntry::has_server) {
            return Ok(Some(found));
        }
        let Ok(target) = std::fs::read_link(&place) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        place.pop();
        if target.is_absolute() {
            place = PathBuf::from("/");
        }
        pending.extend(components(&target));
    }
    Ok(None)
}

/// The names in `path`, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// Parses one line (proc(5), `/proc/pid/mountinfo`): six fields, optional fields up to a lone `-`, then type,
/// source and options.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&b| b == b' ');
    let device = fields.nth(2)?;
    let target = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = rest.next()?;
    let source = rest.next()?;
    let mut options = rest.next().unwrap_or_default().split(|&b| b == b',');
    let user_id = options.find_map(|option| std::str::from_utf8(option.strip_prefix(b"user_id=")?).ok()?.parse().ok());
    Some(MountEntry {
        device: String::from_utf8_lossy(device).into_owned(),
        target: OsString::from_vec(unescape(target)).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        user_id,
    })
}

/// Decodes the kernel's `\ooo` for space, tab, newline, backslash and hash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let value = octal.and_then(|d| u8::from_str_radix(OsString::from_vec(d.to_vec()).to_str()?, 8).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Makes `path` absolute without accessing its last component, which may be a stale mount.
///
/// # Errors
/// When the parent directory does not exist or cannot be entered.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

/// Follows symbolic links without accessing the directory at their end, which may be a stale mount. `link/` with a stale
/// mount at its end can neither be resolved nor read.
///
/// # Errors
/// As [`absolute`], and when there are too many links.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = absolute(path)?;
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&path) else { return Ok(path) };
        path = absolute(&path.parent().unwrap_or(Path::new("/")).join(target))?;
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// The forms of `path` that the table of mounts may contain: with its last component as it is, and with symbolic links
/// followed.
fn spellings(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for found in [path.canonicalize(), followed(path), absolute(path)].into_iter().flatten() {
        if !all.iter().any(|known| known.as_os_str().as_bytes() == found.as_os_str().as_bytes()) {
            all.push(found);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields_is_parsed() {
        let line =
            br"36 35 0:52 / /mnt/my\040dir\134x rw,noatime master:1 shared:7 - fuse.dupfs dupfs:file:///a\040b ro,user_id=1000,group_id=7";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "0:52");
        assert_eq!(mount.target, Path::new("/mnt/my dir\\x"));
        assert_eq!(mount.source, "dupfs:file:///a b");
        assert_eq!(mount.user_id, Some(1000));
        assert!(mount.is_dupfs());
    }

    #[test]
    fn only_the_topmost_mount_of_a_mount_point_is_listed() {
        let line = |target: &str, kind: &str, source: &str| {
            parse(format!("36 35 0:52 / {target} rw - {kind} {source} ro").as_bytes()).unwrap()
        };
        let mounts = vec![
            line("/a", "fuse.dupfs", "dupfs:file:///1"),
            line("/a", "fuse.dupfs", "dupfs:file:///2"),
            line("/b", "fuse", "dupfs:file:///3"),
            line("/c", "fuse.dupfs", "dupfs:file:///4"),
            line("/c", "tmpfs", "none"),
            line("/d", "fuse.sshfs", "dupfs"),
        ];
        let sources: Vec<String> = uncovered(mounts).into_iter().map(|mount| mount.source).collect();
        assert_eq!(sources, ["dupfs:file:///2", "dupfs:file:///3"]);
    }

    #[test]
    fn lines_in_another_format_are_ignored() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 98:0 / /mnt rw"), None);
        assert_eq!(unescape(br"a\04"), br"a\04");
    }

    #[test]
    fn kinds_of_mounts_that_may_hang_have_a_server() {
        let mount = |kind: &str| parse(format!("36 35 0:52 / /m rw - {kind} x ro").as_bytes()).unwrap();
        for (kind, has_server) in [("fuse.dupfs", true), ("nfs4", true), ("ext4", false), ("fusectl", false)] {
            assert_eq!(mount(kind).has_server(), has_server, "{kind}");
        }
    }

    #[test]
    fn a_local_path_lies_on_no_mount_of_a_server() {
        for path in ["/proc/self/status", "/proc/self/cwd", "/no/such/path", "../no-such-path"] {
            assert_eq!(remote_mount_above(Path::new(path)).unwrap(), None, "{path}");
        }
        let tmp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("loop", tmp.path().join("loop")).unwrap();
        assert_eq!(remote_mount_above(&tmp.path().join("loop/x")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn the_root_is_a_mount_and_not_of_dupfs() {
        assert!(!mount_at(Path::new("/")).unwrap().unwrap().is_dupfs());
        assert_eq!(mount_at(Path::new("/no/such/mount")).unwrap(), None);
    }
}
