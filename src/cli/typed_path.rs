//! A path as the user types it for `ls` and `cat`: a path of the snapshot, one that the mount would have (`latest/etc`), an
//! absolute path of the source, or a name as `ls` shows it on a terminal (`caf\xe9`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::error::CliError;
use super::exit::CommandExit;
use super::request_timeout::RequestTimeout;
use super::resolve::{LastLink, parse, resolve};
use super::similar::most_similar;
use super::time_suggestion;
use crate::vfs::{Attr, FileSystem, NodeKind};
use dupfs_base::escape_bytes;
use dupfs_format::{ArchivePath, timespec};

/// The names at the root of a mount.
const MOUNT_NAMES: [&[u8]; 5] = [b"latest", b"snapshots", b"at", b"versions", b"unpacked"];

/// The directory with all paths of all snapshots.
const VERSIONS: &[u8] = b"versions";

/// Returns true for a path as a mount of all snapshots has it.
pub(super) fn is_of_mount(typed: &OsStr) -> bool {
    first_name(typed).is_some_and(|first| MOUNT_NAMES.contains(&first))
}

/// Returns true for a path below `unpacked/` of a mount of all snapshots.
pub(super) fn is_unpacked(typed: &OsStr) -> bool {
    first_name(typed) == Some(b"unpacked")
}

/// The first name of a path.
fn first_name(typed: &OsStr) -> Option<&[u8]> {
    typed.as_bytes().split(|&b| b == b'/').find(|name| !matches!(*name, b"" | b"."))
}

/// Finds the path that the user means by `typed`: the text itself if it exists, else the first of its other readings
/// that exists. Returns the attributes, whose size may not be exact, and the path that was found.
///
/// # Errors
/// [`CliError`]; one that says that the path does not exist names a similar one if there is one.
pub(super) fn find(
    fs: &dyn FileSystem,
    typed: &OsStr,
    last: LastLink,
    timeout: RequestTimeout,
) -> Result<(Attr, ArchivePath), CliError> {
    let missing = match find_reading(fs, typed, last, timeout) {
        Err(error) if is_missing(&error) => error,
        result => return result,
    };
    let path = parse(typed)?;
    let source = fs.source_directory(&timeout.start());
    let of_mount = if fs.shows_snapshots() { other_snapshot(fs, &path, timeout) } else { None };
    let meant = of_mount.or_else(|| similar(fs, &ArchivePath::root(), &path, timeout)).or_else(|| {
        let mut below = below_relative(typed.as_bytes(), source.as_deref()?);
        let is_found = |path: &ArchivePath| resolve_shown(fs, path, last, timeout).is_ok();
        below.find(|path| !path.is_root() && is_found(path)).map(|path| path.to_string())
    });
    Err(with_remedy(&missing, typed, meant, source.as_deref()))
}

/// As [`find`], without the search for a similar path, which lists directories.
///
/// # Errors
/// [`CliError`]; if no reading exists, that of the text itself.
pub(super) fn find_reading(
    fs: &dyn FileSystem,
    typed: &OsStr,
    last: LastLink,
    timeout: RequestTimeout,
) -> Result<(Attr, ArchivePath), CliError> {
    let path = parse(typed)?;
    let missing = match resolve_shown(fs, &path, last, timeout) {
        Err(error) if is_missing(&error) => error,
        result => return Ok((result?, path)),
    };
    let source = fs.source_directory(&timeout.start());
    for other in other_readings(typed.as_bytes(), source.as_deref()) {
        match resolve_shown(fs, &other, last, timeout) {
            Err(error) if is_missing(&error) => {}
            result => return Ok((result?, other)),
        }
    }
    Err(missing)
}

/// Resolves `path` in the snapshot, or among the names of the mount if `fs` shows all snapshots.
fn resolve_shown(
    fs: &dyn FileSystem,
    path: &ArchivePath,
    last: LastLink,
    timeout: RequestTimeout,
) -> Result<Attr, CliError> {
    if !fs.shows_snapshots() {
        return resolve(fs, path, last, timeout);
    }
    // The snapshot has precedence over the names of the mount.
    resolve(fs, &below(b"latest", path), last, timeout).or_else(|missing| {
        let link = if is_link_of_mount(path) { LastLink::Follow } else { last };
        if is_missing(&missing) { resolve(fs, path, link, timeout) } else { Err(missing) }
    })
}

/// The path that is meant by one whose snapshot or time is mistyped: `at/3d/etc`, `snapshots/20240115/etc`.
fn other_snapshot(fs: &dyn FileSystem, path: &ArchivePath, timeout: RequestTimeout) -> Option<String> {
    let names: Vec<&[u8]> = path.components().collect();
    let [dir @ (b"at" | b"snapshots"), typed, rest @ ..] = names.as_slice() else { return None };
    let typed = std::str::from_utf8(typed).ok()?;
    let snapshots = resolve(fs, &ArchivePath::parse(b"snapshots").ok()?, LastLink::Follow, timeout).ok()?;
    let mut known = Vec::new();
    let listing = &mut |entry: crate::vfs::DirEntry<'_>| {
        known.push(String::from_utf8_lossy(entry.name).into_owned());
        true
    };
    fs.readdir(snapshots.ino, 0, &timeout.start(), listing).ok()?;
    if known.iter().any(|name| name == typed) {
        return None;
    }
    let is_time = timespec::parse_by_local_clock(typed).is_ok();
    let meant = match *dir {
        b"at" if is_time => return None,
        b"at" => time_suggestion::meant_among(typed, known)?,
        _ => {
            let mut beginning = known.iter().filter(|name| name.starts_with(typed));
            match (beginning.next(), beginning.next()) {
                (Some(name), None) => name.clone(),
                _ => time_suggestion::nearest_name(typed, known)?,
            }
        }
    };
    let parts: Vec<&[u8]> = [dir, meant.as_bytes()].into_iter().chain(rest.iter().copied()).collect();
    Some(escape_bytes(&parts.join(&b'/')))
}

/// The parts of an absolute path that may be below the directory `source` if that is a relative path.
fn below_relative(typed: &[u8], source: &[u8]) -> impl Iterator<Item = ArchivePath> {
    let source = source.strip_suffix(b"/").unwrap_or(source);
    let is_meant = typed.starts_with(b"/") && !source.starts_with(b"/") && !matches!(source, b"" | b".");
    let starts = typed.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at.saturating_add(1));
    let rests = starts.filter(|_| is_meant).filter_map(|at| strip_directory(typed.get(at..)?, source));
    let paths: Vec<ArchivePath> = rests.filter_map(|rest| ArchivePath::parse(rest).ok()).collect();
    paths.into_iter()
}

/// Finds the path that the user means by `typed` among all paths that any snapshot has. `fs` shows all snapshots, and `source` is
/// the source directory as duplicity was given it. Symbolic links are not followed.
///
/// # Errors
/// [`CliError`]; one that says that the path does not exist names a similar one if there is one.
pub(super) fn find_in_any(
    fs: &dyn FileSystem,
    typed: &OsStr,
    source: Option<Vec<u8>>,
    timeout: RequestTimeout,
) -> Result<ArchivePath, CliError> {
    let (path, readings) = readings_in_any(typed, source.as_deref())?;
    for reading in readings {
        match resolve(fs, &below(VERSIONS, &reading), LastLink::Keep, timeout) {
            Ok(attr) if attr.kind == NodeKind::Dir => return Ok(reading),
            // A version of the path above, as `versions/` has it.
            Ok(_) => return Ok(reading.parent().unwrap_or_default()),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let missing = missing_in_any(&path);
    let top = ArchivePath::parse(VERSIONS).unwrap_or_default();
    let meant = similar(fs, &top, &path, timeout);
    Err(with_remedy(&missing, typed, meant, source.as_deref()))
}

/// The path `typed` itself, and its readings as a path of any snapshot, the most likely first.
///
/// # Errors
/// [`CliError::Usage`].
pub(super) fn readings_in_any(
    typed: &OsStr,
    source: Option<&[u8]>,
) -> Result<(ArchivePath, Vec<ArchivePath>), CliError> {
    let path = parse(typed)?;
    let mut readings = vec![path.clone()];
    readings.extend(other_readings(typed.as_bytes(), source));
    let inner: Vec<ArchivePath> = readings.iter().filter_map(below_mount_names).collect();
    readings.extend(inner);
    Ok((path, readings))
}

/// The path in its snapshot of a path as the mount has it.
fn below_mount_names(path: &ArchivePath) -> Option<ArchivePath> {
    let names: Vec<&[u8]> = path.components().collect();
    let inner = match names.as_slice() {
        [b"latest" | b"versions", inner @ ..] | [b"snapshots" | b"at", _, inner @ ..] => inner,
        _ => return None,
    };
    ArchivePath::parse(&inner.join(&b'/')).ok()
}

/// The failure to find `path` in any of several snapshots.
pub(super) fn missing_in_any(path: &ArchivePath) -> CliError {
    let is_unpacked = path.components().next() == Some(b"unpacked");
    let remedy = match is_unpacked {
        true => "; give the path of the stored archive itself",
        false => "; search all snapshots with: dupfs find --all URL 'NAME'",
    };
    CliError::new(CommandExit::NotFound, format!("{path}: no snapshot has this path{remedy}"))
}

/// The failure `missing` with the path that may be meant, the command for a pattern, or the source directory if `typed` is
/// absolute.
pub(super) fn with_remedy(missing: &CliError, typed: &OsStr, meant: Option<String>, source: Option<&[u8]>) -> CliError {
    let source = source.filter(|_| typed.as_bytes().starts_with(b"/"));
    let is_pattern = typed.as_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
    match (meant, source) {
        (None, _) if is_pattern => {
            let line = format!("{missing}; patterns are for dupfs find: dupfs find URL 'PATTERN'");
            CliError::new(missing.exit(), line)
        }
        (Some(meant), _) => CliError::new(missing.exit(), format!("{missing}; did you mean {meant}?")),
        (None, Some(source)) => {
            let source = escape_bytes(source);
            CliError::new(missing.exit(), format!("{missing}; paths are relative to the source directory {source}"))
        }
        (None, None) => missing.clone(),
    }
}

fn is_missing(error: &CliError) -> bool {
    error.exit() == CommandExit::NotFound
}

/// Returns true for the links at the top of a mount, which a listing follows as `ls DIR/` does.
fn is_link_of_mount(path: &ArchivePath) -> bool {
    let names: Vec<&[u8]> = path.components().collect();
    matches!(names.as_slice(), [b"latest"] | [b"at", _] | [b"unpacked", b"latest"])
}

fn below(dir: &[u8], path: &ArchivePath) -> ArchivePath {
    // Both parts are valid paths.
    ArchivePath::parse(&[dir, b"/", path.as_bytes()].concat()).unwrap_or_default()
}

/// The other readings of a path that does not exist, the most likely first. `source` is the source directory as duplicity was
/// given it, absolute or not.
fn other_readings(typed: &[u8], source: Option<&[u8]>) -> Vec<ArchivePath> {
    let unescaped = unescape(typed);
    let mut readings: Vec<Vec<u8>> = unescaped.clone().into_iter().collect();
    if let Some(source) = source {
        let forms = [Some(typed.to_vec()), unescaped];
        readings.extend(forms.into_iter().flatten().filter_map(|path| Some(strip_directory(&path, source)?.to_vec())));
    }
    readings.iter().filter_map(|bytes| ArchivePath::parse(bytes).ok()).collect()
}

/// The part of `path` below the directory `dir`.
fn strip_directory<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    let rest = path.strip_prefix(dir).filter(|_| !dir.is_empty())?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// `typed` with each `\xHH` as the byte that it represents in the output of `ls`; `None` without one.
fn unescape(typed: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(typed.len());
    let mut rest = typed;
    let mut found = false;
    while let Some((&byte, after)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2)).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(code) => {
                found = true;
                out.push(code);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    found.then_some(out)
}

/// The path below the directory `top` that `path`, also in its reading as `ls` shows it, may be a slip for: the first name that
/// does not exist is replaced by the most similar one beside it.
pub(super) fn similar(
    fs: &dyn FileSystem,
    top: &ArchivePath,
    path: &ArchivePath,
    timeout: RequestTimeout,
) -> Option<String> {
    let unescaped = unescape(path.as_bytes()).and_then(|bytes| ArchivePath::parse(&bytes).ok());
    // The reading of a path with escapes is the more likely one, and the names that it has in common with a stored path exist.
    unescaped.and_then(|path| similar_to(fs, top, &path, timeout)).or_else(|| similar_to(fs, top, path, timeout))
}

fn similar_to(fs: &dyn FileSystem, top: &ArchivePath, path: &ArchivePath, timeout: RequestTimeout) -> Option<String> {
    let names: Vec<&[u8]> = path.components().collect();
    let mut parent = top.clone();
    for (depth, name) in names.iter().enumerate() {
        let child = if parent.is_root() {
            ArchivePath::parse(name).ok()?
        } else {
            below(parent.as_bytes(), &ArchivePath::parse(name).ok()?)
        };
        if resolve(fs, &child, LastLink::Follow, timeout).is_ok() {
            parent = child;
            continue;
        }
        let dir = resolve(fs, &parent, LastLink::Follow, timeout).ok().filter(|attr| attr.kind == NodeKind::Dir)?;
        let mut known = Vec::new();
        let listing = &mut |entry: crate::vfs::DirEntry<'_>| {
            known.push(entry.name.to_vec());
            true
        };
        fs.readdir(dir.ino, 0, &timeout.start(), listing).ok()?;
        if known.iter().any(|known| known == name) {
            // The name is right, and leads nowhere.
            return None;
        }
        // A name is also compared as `ls` shows it, because an escape may be the part that is mistyped.
        let shown = || known.iter().map(|known| escape_bytes(known));
        let position = |meant: String| known.iter().position(|known| escape_bytes(known) == meant);
        let meant = most_similar(name, known.iter().map(Vec::as_slice))
            .or_else(|| known.get(position(most_similar(name, shown())?)?).map(Vec::as_slice))?;
        let rest = names.get(depth + 1..).unwrap_or_default();
        let known = parent.components().skip(top.components().count());
        let parts = known.chain([meant]).chain(rest.iter().copied());
        return Some(escape_bytes(&parts.collect::<Vec<_>>().join(&b'/')));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::ROOT_INO;
    use crate::vfs::memory_fs::{MemoryFs, MemoryNodeKind};

    fn found(fs: &MemoryFs, typed: &[u8]) -> Result<String, String> {
        let found = find(fs, OsStr::from_bytes(typed), LastLink::Keep, RequestTimeout::default());
        found.map(|(_, path)| path.to_string()).map_err(|error| error.to_string())
    }

    fn tree() -> MemoryFs {
        let mut fs = MemoryFs::new();
        let etc = fs.add(ROOT_INO, b"etc", MemoryNodeKind::Dir);
        fs.file(etc, b"hosts", b"x".as_slice());
        fs.file(etc, b"caf\xe9", b"x".as_slice());
        fs.file(etc, b"a\\x41", b"x".as_slice());
        fs.source = Some(b"/src/".to_vec());
        fs
    }

    #[test]
    fn names_are_found_as_ls_shows_them() {
        let fs = tree();
        assert_eq!(found(&fs, b"etc/caf\\xe9").unwrap(), "etc/caf\\xe9");
        assert_eq!(found(&fs, b"etc/a\\x5cx41").unwrap(), "etc/a\\x5cx41");
        // A name that exists as it is typed is not read in another way.
        assert_eq!(found(&fs, b"etc/a\\x41").unwrap(), "etc/a\\x5cx41");
        assert!(found(&fs, b"etc/\\xzz").is_err());
    }

    #[test]
    fn paths_of_the_source_are_found_below_it() {
        let fs = tree();
        for typed in [&b"etc/hosts"[..], b"/etc/hosts", b"/src/etc/hosts", b"./etc//hosts"] {
            assert_eq!(found(&fs, typed).unwrap(), "etc/hosts");
        }
        assert_eq!(found(&fs, b"/src").unwrap(), ArchivePath::root().to_string());
        assert!(found(&fs, b"/srcetc/hosts").is_err());
        let error = found(&fs, b"/var/lib/x").unwrap_err();
        assert!(error.ends_with("paths are relative to the source directory /src/"), "{error}");
        assert!(!found(&fs, b"var/lib/x").unwrap_err().contains("relative"));
    }

    #[test]
    fn a_pattern_is_answered_with_the_command_for_it() {
        let fs = tree();
        for typed in [&b"etc/*"[..], b"/var/log?", b"[ab]"] {
            assert!(found(&fs, typed).unwrap_err().ends_with("dupfs find URL 'PATTERN'"));
        }
    }

    #[test]
    fn an_absolute_path_below_a_relative_source_gets_a_suggestion() {
        let mut fs = tree();
        fs.source = Some(b"data/src".to_vec());
        let error = found(&fs, b"/home/u/data/src/etc/hosts").unwrap_err();
        assert!(error.ends_with("did you mean etc/hosts?"), "{error}");
        for typed in [&b"/home/u/data/src/var"[..], b"/home/u/data/src", b"/home/u/data/srcs/etc/hosts"] {
            assert!(!found(&fs, typed).unwrap_err().contains("did you mean"));
        }
    }

    #[test]
    fn a_mistyped_snapshot_of_the_mount_gets_a_suggestion() {
        let mut fs = MemoryFs::new();
        fs.overview = true;
        let snapshots = fs.add(ROOT_INO, b"snapshots", MemoryNodeKind::Dir);
        fs.add(ROOT_INO, b"at", MemoryNodeKind::Dir);
        for name in ["20240115T021500Z", "20240116T021500Z"] {
            let snapshot = fs.add(snapshots, name.as_bytes(), MemoryNodeKind::Dir);
            fs.file(snapshot, b"hosts", b"x".as_slice());
        }
        for (typed, meant) in [
            ("at/3d/hosts", "at/3D/hosts"),
            ("at/yesterday", "at/1D"),
            ("at/20240115T02150Z/hosts", "at/20240115T021500Z/hosts"),
            ("snapshots/20240116/hosts", "snapshots/20240116T021500Z/hosts"),
            ("snapshots/20240151T021500Z", "snapshots/20240115T021500Z"),
        ] {
            let error = found(&fs, typed.as_bytes()).unwrap_err();
            assert!(error.ends_with(&format!("did you mean {meant}?")), "{typed}: {error}");
        }
        for typed in ["at/x", "snapshots/2024011", "snapshots/20240115T021500Z/x/y"] {
            assert!(!found(&fs, typed.as_bytes()).unwrap_err().contains("did you mean"), "{typed}");
        }
    }

    #[test]
    fn a_relative_source_directory_is_left_out_too() {
        let mut fs = tree();
        fs.source = Some(b"data/src".to_vec());
        for typed in [&b"data/src/etc/hosts"[..], b"etc/hosts"] {
            assert_eq!(found(&fs, typed).unwrap(), "etc/hosts");
        }
        assert!(found(&fs, b"src/etc/hosts").is_err());
    }

    #[test]
    fn a_mistyped_path_gets_a_suggestion() {
        let fs = tree();
        assert!(found(&fs, b"etc/hsots").unwrap_err().ends_with("did you mean etc/hosts?"));
        assert!(found(&fs, b"ect/hosts").unwrap_err().ends_with("did you mean etc/hosts?"));
        assert!(!found(&fs, b"var/lib").unwrap_err().contains("did you mean"));
        // Names as `ls` shows them: a slip beside an escape, in it, and below a directory with one.
        let mut escaped = tree();
        let dir = escaped.add(ROOT_INO, b"d\xe9j\xe0", MemoryNodeKind::Dir);
        escaped.file(dir, b"bad\xffname", b"x".as_slice());
        for typed in [&b"d\\xe9j\\xe0/bad\\xffnam"[..], b"d\\xe9j\\xe0/bad\\xfname", b"d\xe9j\xe0/bad\\xffnmae"] {
            let error = found(&escaped, typed).unwrap_err();
            assert!(error.ends_with("did you mean d\\xe9j\\xe0/bad\\xffname?"), "{error}");
        }
        assert!(found(&escaped, b"d\\xe9j\\xe").unwrap_err().ends_with("did you mean d\\xe9j\\xe0?"));
        assert!(found(&escaped, b"etc/a\\x4").unwrap_err().ends_with("did you mean etc/a\\x5cx41?"));
        // A link that leads out of the backup is no slip.
        let mut fs = tree();
        fs.add(ROOT_INO, b"link", MemoryNodeKind::Link(b"/etc/passwd".to_vec()));
        let error = find(&fs, OsStr::new("link"), LastLink::Follow, RequestTimeout::default()).unwrap_err().to_string();
        assert!(error.ends_with("name the target's own path"), "{error}");
    }

    #[test]
    fn paths_of_a_mount_are_recognized() {
        for (typed, expected) in [("latest/etc", true), ("./at/3D", true), ("/snapshots", true), ("etc/latest", false)]
        {
            assert_eq!(is_of_mount(OsStr::new(typed)), expected, "{typed}");
        }
    }
}
