//! `dupfs ls`: lists a snapshot.

use std::collections::HashMap;
use std::ffi::OsStr;

use nix::unistd::{Gid, Group, Uid, User};
use serde::Serialize;

use super::error::CliError;
use super::exit::CommandExit;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve::{self, LastLink};
use super::typed_path;
use crate::vfs::{Attr, FileSystem, Ino, NodeKind};
use dupfs_base::{escape_bytes, hex};
use dupfs_format::{ArchivePath, BackupTime};

/// The options of a listing by `dupfs ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LsOptions {
    /// Mode, links, owner, group, exact size, time and link target. Sizes may need volumes.
    pub long: bool,
    /// Everything below, as paths from the snapshot's root.
    pub recursive: bool,
    /// End names with NUL instead of a line feed, and never escape them.
    pub print0: bool,
    /// An array of objects (docs/CLI.md).
    pub json: bool,
    /// Owners as numbers even if this machine has names for them.
    pub numeric: bool,
}

/// One object to print.
struct LsEntry {
    ino: Ino,
    kind: NodeKind,
    /// Name or path, as it is printed.
    shown: Vec<u8>,
    path: ArchivePath,
    details: Option<LsDetails>,
}

/// The additional columns of `-l`.
struct LsDetails {
    attr: Attr,
    /// The exact size is unknown: damage was reported.
    unknown_size: bool,
    target: Option<Vec<u8>>,
}

/// Lists `path` (the root if it is `None`) of `fs`, which has the snapshot's tree at its root. Reports objects that cannot be
/// read, and lists the others. Each call of the file system may take `timeout`.
///
/// # Errors
/// [`CliError`] when the path does not exist, or the output cannot be written.
pub fn run(
    fs: &dyn FileSystem,
    path: Option<&OsStr>,
    options: &LsOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let (attr, path) = typed_path::find(fs, path.unwrap_or_default(), LastLink::Keep, timeout)?;
    let mut lister = SnapshotLister { fs, options, timeout, printer, printed: 0, names: OwnerNames::default() };
    if options.json {
        lister.printer.text("[")?;
    }
    if attr.kind == NodeKind::Dir {
        lister.tree(attr.ino, path)?;
    } else {
        let shown = path.as_bytes().to_vec();
        let mut row = LsEntry { ino: attr.ino, kind: attr.kind, shown, path, details: None };
        lister.describe(&mut row, attr);
        lister.rows(&[row])?;
    }
    if options.json {
        lister.printer.text("\n]\n")?;
    }
    printer.finish()
}

/// Prints the entries of a snapshot.
struct SnapshotLister<'a, 'b> {
    fs: &'a dyn FileSystem,
    options: &'a LsOptions,
    timeout: RequestTimeout,
    printer: &'a mut Printer<'b>,
    printed: u64,
    names: OwnerNames,
}

/// Names of owners on this machine, each looked up once.
#[derive(Default)]
struct OwnerNames {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl OwnerNames {
    fn user(&mut self, uid: u32) -> &str {
        self.users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| escape_bytes(user.name.as_bytes()))
        })
    }

    fn group(&mut self, gid: u32) -> &str {
        self.groups.entry(gid).or_insert_with(|| {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            group.map_or_else(|| gid.to_string(), |group| escape_bytes(group.name.as_bytes()))
        })
    }
}

impl SnapshotLister<'_, '_> {
    /// Lists a directory and, if requested, everything below it, each directory before its content.
    fn tree(&mut self, ino: Ino, path: ArchivePath) -> Result<(), CliError> {
        let mut pending = vec![(ino, path)];
        while let Some((ino, path)) = pending.pop() {
            let rows = self.directory(ino, &path);
            self.rows(&rows)?;
            if self.options.recursive {
                let dirs = rows.into_iter().rev().filter(|row| row.kind == NodeKind::Dir);
                pending.extend(dirs.map(|row| (row.ino, row.path)));
            }
        }
        Ok(())
    }

    /// The rows of a directory by name; a failure is reported and leaves those that could be read.
    fn directory(&mut self, ino: Ino, path: &ArchivePath) -> Vec<LsEntry> {
        let mut rows = Vec::new();
        let listed = self.fs.readdir(ino, 0, &self.timeout.start(), &mut |entry| {
            // A name that is not a path component cannot be requested.
            if let Some(child) = join(path, entry.name) {
                let shown = if self.options.recursive { child.as_bytes().to_vec() } else { entry.name.to_vec() };
                rows.push(LsEntry { ino: entry.ino, kind: entry.kind, shown, path: child, details: None });
            }
            true
        });
        if let Err(error) = listed {
            self.printer.report(&resolve::read_failed(path, &error));
        }
        rows.sort_by(|a, b| a.shown.cmp(&b.shown));
        if self.options.long {
            for row in &mut rows {
                match self.fs.lookup(ino, row.path.name(), &self.timeout.start()) {
                    Ok(attr) => self.describe(row, attr),
                    Err(error) => self.printer.report(&resolve::read_failed(&row.path, &error)),
                }
            }
        }
        rows
    }

    /// Adds the columns of `-l`; `attr` may lack the exact size.
    fn describe(&mut self, row: &mut LsEntry, attr: Attr) {
        if !self.options.long {
            return;
        }
        let mut details = LsDetails { attr, unknown_size: false, target: None };
        if attr.kind == NodeKind::File && !attr.exact {
            match self.fs.getattr(attr.ino, &self.timeout.start()) {
                Ok(exact) => details.attr = exact,
                Err(error) => {
                    details.unknown_size = true;
                    self.printer.report(&resolve::read_failed(&row.path, &error));
                }
            }
        }
        if attr.kind == NodeKind::Symlink {
            match self.fs.readlink(attr.ino, &self.timeout.start()) {
                Ok(target) => details.target = Some(target),
                Err(error) => self.printer.report(&resolve::read_failed(&row.path, &error)),
            }
        }
        row.details = Some(details);
    }

    fn rows(&mut self, rows: &[LsEntry]) -> Result<(), CliError> {
        let width = rows.iter().filter_map(|row| row.details.as_ref()).map(|d| size_text(d).len()).max().unwrap_or(0);
        for row in rows {
            if self.options.json {
                self.printer.text(if self.printed == 0 { "\n" } else { ",\n" })?;
                self.printer.json(&LsJsonEntry::of(row), false)?;
            } else {
                self.line(row, width)?;
            }
            self.printed += 1;
        }
        Ok(())
    }

    fn line(&mut self, row: &LsEntry, width: usize) -> Result<(), CliError> {
        if self.options.long {
            let text = match &row.details {
                Some(details) => self.long_text(details, width),
                None => "?????????? ".to_owned(),
            };
            self.printer.text(&text)?;
        }
        let name: &[u8] = if row.shown.is_empty() { b"." } else { &row.shown };
        let target = row.details.as_ref().and_then(|details| details.target.as_deref());
        if self.options.print0 {
            self.printer.bytes(name)?;
        } else {
            self.printer.name(name)?;
        }
        if let Some(target) = target {
            self.printer.text(" -> ")?;
            if self.options.print0 {
                self.printer.bytes(target)?;
            } else {
                self.printer.name(target)?;
            }
        }
        self.printer.text(if self.options.print0 { "\0" } else { "\n" })
    }

    /// `-rw-r--r--   1 root     root     123 2017-01-28T02:15:00Z `.
    fn long_text(&mut self, details: &LsDetails, width: usize) -> String {
        let attr = &details.attr;
        let (user, group) = if self.options.numeric {
            (attr.uid.to_string(), attr.gid.to_string())
        } else {
            (self.names.user(attr.uid).to_owned(), self.names.group(attr.gid).to_owned())
        };
        let size = size_text(details);
        let time = match jiff::Timestamp::from_second(attr.mtime) {
            Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            Err(_) => BackupTime(attr.mtime).to_string(),
        };
        format!("{} {:>3} {user:<8} {group:<8} {size:>width$} {time} ", mode_text(attr), attr.nlink)
    }
}

fn join(dir: &ArchivePath, name: &[u8]) -> Option<ArchivePath> {
    let joined = [dir.as_bytes(), b"/", name].concat();
    ArchivePath::parse(&joined).ok().filter(|path| path.name() == name)
}

/// The size; of devices their numbers, as `ls` has it. `<=` before an upper bound, `?` if it cannot be determined.
fn size_text(details: &LsDetails) -> String {
    let attr = &details.attr;
    match attr.kind {
        NodeKind::CharDevice | NodeKind::BlockDevice => format!("{}, {}", attr.rdev.0, attr.rdev.1),
        _ if details.unknown_size => "?".to_owned(),
        _ if !attr.exact => format!("<={}", attr.size),
        _ => attr.size.to_string(),
    }
}

fn mode_text(attr: &Attr) -> String {
    let kind = match attr.kind {
        NodeKind::File => '-',
        NodeKind::Dir => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = attr.perm >> shift;
        let execute = match (bits & 1 != 0, attr.perm & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        };
        let read = if bits & 4 != 0 { 'r' } else { '-' };
        let write = if bits & 2 != 0 { 'w' } else { '-' };
        text.extend([read, write, execute]);
    }
    text
}

/// An object in `--json`. Keys are stable (docs/CLI.md).
#[derive(Serialize)]
struct LsJsonEntry {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    details: Option<LsJsonDetails>,
}

#[derive(Serialize)]
struct LsJsonDetails {
    mode: String,
    nlink: u32,
    uid: u32,
    gid: u32,
    size: Option<u64>,
    size_is_exact: bool,
    mtime: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

impl LsJsonEntry {
    fn of(row: &LsEntry) -> Self {
        let (path, path_hex) = json_bytes(row.path.as_bytes());
        Self { path, path_hex, kind: json_type(row.kind), details: row.details.as_ref().map(LsJsonDetails::of) }
    }
}

impl LsJsonDetails {
    fn of(details: &LsDetails) -> Self {
        let attr = &details.attr;
        let target = details.target.as_deref().map(json_bytes);
        let is_device = matches!(attr.kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        Self {
            mode: format!("{:04o}", attr.perm),
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            size: (!details.unknown_size).then_some(attr.size),
            size_is_exact: attr.exact && !details.unknown_size,
            mtime: attr.mtime,
            target_hex: target.as_ref().and_then(|(_, hex)| hex.clone()),
            target: target.map(|(text, _)| text),
            device: is_device.then_some(attr.rdev),
        }
    }
}

/// The name of a type in JSON.
pub(super) fn json_type(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::CharDevice => "char-device",
        NodeKind::BlockDevice => "block-device",
    }
}

/// Bytes as JSON has them: as they are if they are UTF-8; else with replacement characters, and the bytes in hex.
pub(super) fn json_bytes(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(hex(bytes))),
    }
}

#[cfg(test)]
mod tests;
