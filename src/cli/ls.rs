//! `dupfs ls`: lists a snapshot.

use std::ffi::OsStr;

use serde::Serialize;

use super::attr_json::{AttrJson, json_bytes, json_type};
use super::attr_text::{OwnerNames, mode_text, mtime_text, size_text};
use super::error::CliError;
use super::exit::CommandExit;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve::{self, LastLink};
use super::typed_path;
use crate::vfs::{Attr, FileSystem, Ino, NodeKind};
use dupfs_format::ArchivePath;

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

/// One object to print. A directory may have millions of them.
struct LsEntry {
    ino: Ino,
    kind: NodeKind,
    path: ArchivePath,
    /// The position in `path` from which it is printed: its beginning, or that of the name.
    shown_from: usize,
    details: Option<Box<LsDetails>>,
}

impl LsEntry {
    /// Name or path, as it is printed.
    fn shown(&self) -> &[u8] {
        self.path.as_bytes().get(self.shown_from..).unwrap_or_default()
    }
}

/// The additional columns of `-l`.
struct LsDetails {
    attr: Attr,
    /// The exact size is unknown: damage was reported.
    unknown_size: bool,
    target: Option<Vec<u8>>,
}

impl LsDetails {
    fn size_text(&self) -> String {
        if self.unknown_size { "?".to_owned() } else { size_text(&self.attr) }
    }

    fn json(&self) -> AttrJson {
        let json = AttrJson::of(&self.attr, self.target.as_deref()).with_nlink(self.attr.nlink);
        if self.unknown_size { json.without_size() } else { json }
    }
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
    let mut lister =
        SnapshotLister { fs, options, timeout, printer, printed: 0, names: OwnerNames::new(options.numeric) };
    if options.json {
        lister.printer.text("[")?;
    }
    if attr.kind == NodeKind::Dir {
        lister.tree(attr.ino, path)?;
    } else {
        let mut row = LsEntry { ino: attr.ino, kind: attr.kind, path, shown_from: 0, details: None };
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

impl SnapshotLister<'_, '_> {
    /// Lists a directory and, if requested, everything below it, each directory before its content.
    fn tree(&mut self, ino: Ino, path: ArchivePath) -> Result<(), CliError> {
        let mut pending = vec![(ino, path)];
        while let Some((ino, path)) = pending.pop() {
            self.printer.waiting(|| format!("{path}: opening"));
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
                self.printer.working(|| format!("{path}: {} objects", rows.len()));
                let shown_from =
                    if self.options.recursive { 0 } else { child.as_bytes().len().saturating_sub(entry.name.len()) };
                rows.push(LsEntry { ino: entry.ino, kind: entry.kind, path: child, shown_from, details: None });
            }
            true
        });
        if let Err(error) = listed {
            self.printer.report(&resolve::read_failed(path, &error));
        }
        // The names in a directory differ.
        rows.sort_unstable_by(|a, b| a.shown().cmp(b.shown()));
        if self.options.long {
            let count = rows.len();
            for (place, row) in rows.iter_mut().enumerate() {
                // Its size may need a volume.
                self.printer.waiting(|| format!("{path}: object {} of {count}", place.saturating_add(1)));
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
        row.details = Some(Box::new(details));
    }

    fn rows(&mut self, rows: &[LsEntry]) -> Result<(), CliError> {
        let width = rows.iter().filter_map(|row| row.details.as_ref()).map(|d| d.size_text().len()).max().unwrap_or(0);
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
        let name: &[u8] = if row.shown().is_empty() { b"." } else { row.shown() };
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
        let (owner, size, time) = (self.names.text(attr), details.size_text(), mtime_text(attr));
        format!("{} {:>3} {owner} {size:>width$} {time} ", mode_text(attr), attr.nlink)
    }
}

fn join(dir: &ArchivePath, name: &[u8]) -> Option<ArchivePath> {
    let joined = [dir.as_bytes(), b"/", name].concat();
    ArchivePath::parse(&joined).ok().filter(|path| path.name() == name)
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
    details: Option<AttrJson>,
}

impl LsJsonEntry {
    fn of(row: &LsEntry) -> Self {
        let (path, path_hex) = json_bytes(row.path.as_bytes());
        Self { path, path_hex, kind: json_type(row.kind), details: row.details.as_deref().map(LsDetails::json) }
    }
}

#[cfg(test)]
mod tests;
