//! `dupfs find`: the paths of a snapshot, or of all snapshots, that match a pattern. Reads trees only, no volume.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::Serialize;

use super::attr_json::{json_bytes, json_type};
use super::error::CliError;
use super::exit::CommandExit;
use super::path_pattern::{PathPattern, PatternForm};
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve;
use crate::vfs::{Attr, FileSystem, Ino, NodeKind, ROOT_INO};
use dupfs_base::escape_bytes;
use dupfs_format::{ArchivePath, BackupTime};

/// The options of a search by `dupfs find`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindOptions {
    /// A glob or, with `regex`, a regular expression.
    pub pattern: OsString,
    /// The pattern is a regular expression for a part of the path.
    pub regex: bool,
    /// Letter case does not count.
    pub ignore_case: bool,
    /// The types to print; empty: all.
    pub kinds: Vec<NodeKind>,
    /// Only what was modified after this time.
    pub newer: Option<BackupTime>,
    /// Only regular files of more bytes.
    pub larger: Option<u64>,
    /// End names with NUL instead of a line feed, and never escape them.
    pub print0: bool,
    /// An array of objects (docs/CLI.md).
    pub json: bool,
}

impl FindOptions {
    /// Returns true if objects are selected or printed by their attributes.
    fn needs_attributes(&self) -> bool {
        self.json || self.newer.is_some() || self.larger.is_some()
    }

    /// Returns true if the attributes are those of an object to print. A size that is not known counts as its upper bound.
    fn selects(&self, attr: &Attr) -> bool {
        self.newer.is_none_or(|time| attr.mtime > time.0)
            && self.larger.is_none_or(|size| attr.kind == NodeKind::File && attr.size > size)
    }
}

/// One object that was found.
struct FoundObject {
    path: ArchivePath,
    kind: NodeKind,
    /// With the size as far as the trees have it; `None` if no option needs it.
    attr: Option<Attr>,
}

/// A path that was found in some of the snapshots.
struct FoundPath {
    /// The object in the newest of them.
    newest: FoundObject,
    /// Positions in the list of snapshots, ascending.
    snapshots: Vec<usize>,
}

/// Prints what matches. `fs` has one snapshot's tree at its root, or shows all snapshots: then all are searched. Each call of
/// the file system may take `timeout`.
///
/// # Errors
/// [`CliError`] when the pattern is invalid, nothing matches, or the output cannot be written.
pub fn run(
    fs: &dyn FileSystem,
    options: &FindOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let source = fs.source_directory(&timeout.start());
    let pattern = parse(options, source.as_deref())?;
    let mut search = PathSearch { fs, options, pattern, timeout, printer, printed: 0 };
    if options.json {
        search.printer.text("[")?;
    }
    if fs.shows_snapshots() {
        search.all_snapshots()?;
    } else {
        search.one_snapshot()?;
    }
    if options.json {
        search.printer.text(if search.printed == 0 { "]\n" } else { "\n]\n" })?;
    }
    if search.printed == 0 {
        let failure = search.nothing_found();
        printer.report(&failure);
    }
    printer.finish()
}

/// Checks the pattern, which needs no backup.
///
/// # Errors
/// [`CliError::Usage`].
pub fn check(options: &FindOptions) -> Result<(), CliError> {
    parse(options, None).map(drop)
}

fn parse(options: &FindOptions, source: Option<&[u8]>) -> Result<PathPattern, CliError> {
    let form = if options.regex { PatternForm::Regex } else { PatternForm::Glob };
    PathPattern::parse(&options.pattern, form, options.ignore_case, source)
}

/// A search in the trees of a backup.
struct PathSearch<'a, 'b> {
    fs: &'a dyn FileSystem,
    options: &'a FindOptions,
    pattern: PathPattern,
    timeout: RequestTimeout,
    printer: &'a mut Printer<'b>,
    printed: u64,
}

impl PathSearch<'_, '_> {
    /// Prints each match in the tree at the root when it is found.
    fn one_snapshot(&mut self) -> Result<(), CliError> {
        self.search(ROOT_INO, &ArchivePath::root(), &mut |search, found| search.print(&found, None))
    }

    /// Prints the matches in all snapshots, each path once.
    fn all_snapshots(&mut self) -> Result<(), CliError> {
        let mut names: Vec<(Vec<u8>, Ino)> = Vec::new();
        let top = ArchivePath::root();
        let snapshots = self.fs.lookup(ROOT_INO, b"snapshots", &self.timeout.start());
        let snapshots = snapshots.map_err(|error| resolve::read_failed(&top, &error))?;
        let listed = self.fs.readdir(snapshots.ino, 0, &self.timeout.start(), &mut |entry| {
            names.push((entry.name.to_vec(), entry.ino));
            true
        });
        listed.map_err(|error| resolve::read_failed(&top, &error))?;
        names.sort();
        let mut paths: BTreeMap<ArchivePath, FoundPath> = BTreeMap::new();
        for (position, (name, ino)) in names.iter().enumerate() {
            let Some(label) = child_of(&top, name) else { continue };
            self.search(*ino, &label, &mut |_, newest| {
                let snapshots = match paths.get_mut(&newest.path) {
                    Some(earlier) => std::mem::take(&mut earlier.snapshots),
                    None => Vec::new(),
                };
                let snapshots = snapshots.into_iter().chain([position]).collect();
                paths.insert(newest.path.clone(), FoundPath { newest, snapshots });
                Ok(())
            })?;
        }
        let names: Vec<String> = names.iter().map(|(name, _)| escape_bytes(name)).collect();
        for found in paths.values() {
            self.print(&found.newest, Some((&names, &found.snapshots)))?;
        }
        Ok(())
    }

    /// Passes each match below the directory `root` to `emit`, a directory before its content. A directory that cannot be
    /// read is reported, and the others are searched. `label` is the root's path, for messages.
    fn search(
        &mut self,
        root: Ino,
        label: &ArchivePath,
        emit: &mut dyn FnMut(&mut Self, FoundObject) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut pending = vec![(root, ArchivePath::root())];
        while let Some((dir, path)) = pending.pop() {
            let mut children = Vec::new();
            let listed = self.fs.readdir(dir, 0, &self.timeout.start(), &mut |entry| {
                // A name that is not a path component cannot be requested.
                if let Some(child) = child_of(&path, entry.name) {
                    children.push((child, entry.ino, entry.kind));
                }
                true
            });
            if let Err(error) = listed {
                self.printer.report(&resolve::read_failed(&labelled(label, &path), &error));
            }
            children.sort_by(|(a, ..), (b, ..)| a.as_bytes().cmp(b.as_bytes()));
            let first_below = pending.len();
            for (child, ino, kind) in children {
                if kind == NodeKind::Dir {
                    pending.push((ino, child.clone()));
                }
                let is_of_kind = self.options.kinds.is_empty() || self.options.kinds.contains(&kind);
                if !is_of_kind || !self.pattern.matches(&child) {
                    continue;
                }
                let mut attr = None;
                if self.options.needs_attributes() {
                    match self.fs.lookup(dir, child.name(), &self.timeout.start()) {
                        Ok(found) if self.options.selects(&found) => attr = Some(found),
                        Ok(_) => continue,
                        Err(error) => {
                            self.printer.report(&resolve::read_failed(&labelled(label, &child), &error));
                            continue;
                        }
                    }
                }
                emit(self, FoundObject { path: child, kind, attr })?;
            }
            // The first name is to be searched next.
            if let Some(below) = pending.get_mut(first_below..) {
                below.reverse();
            }
        }
        Ok(())
    }

    /// Prints one match; `snapshots` are the names of all snapshots and the positions of those that have it.
    fn print(&mut self, found: &FoundObject, snapshots: Option<(&[String], &[usize])>) -> Result<(), CliError> {
        if self.options.json {
            self.printer.text(if self.printed == 0 { "\n" } else { ",\n" })?;
            self.printer.json(&FindJsonEntry::of(found, snapshots), false)?;
        } else if self.options.print0 {
            self.printer.bytes(found.path.as_bytes())?;
            self.printer.bytes(b"\0")?;
        } else {
            if let Some((names, positions)) = snapshots {
                self.printer.text(&format!("{} ", runs(names, positions)))?;
            }
            self.printer.name(found.path.as_bytes())?;
            self.printer.text("\n")?;
        }
        self.printed += 1;
        Ok(())
    }

    fn nothing_found(&self) -> CliError {
        let typed = escape_bytes(self.options.pattern.as_encoded_bytes());
        let mut line = match self.fs.shows_snapshots() {
            true => format!("{typed}: nothing in any snapshot matches"),
            false => format!("{typed}: nothing in this snapshot matches; --all searches all snapshots"),
        };
        if self.pattern.is_literal() && !typed.contains('/') {
            line.push_str(&format!("; a part of a name is written '*{typed}*'"));
        }
        CliError::new(CommandExit::NotFound, line)
    }
}

/// The path of `name` in `dir`, if it is a path component.
fn child_of(dir: &ArchivePath, name: &[u8]) -> Option<ArchivePath> {
    let joined = [dir.as_bytes(), b"/", name].concat();
    ArchivePath::parse(&joined).ok().filter(|path| path.name() == name)
}

/// `path` below `label`, for a message.
fn labelled(label: &ArchivePath, path: &ArchivePath) -> ArchivePath {
    ArchivePath::parse(&[label.as_bytes(), b"/", path.as_bytes()].concat()).unwrap_or_default()
}

/// The snapshots at `positions`, consecutive ones as `FIRST..LAST`, separated by commas.
fn runs(names: &[String], positions: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &position in positions {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == position => *last = position,
            _ => runs.push((position, position)),
        }
    }
    let name = |position: usize| names.get(position).map_or("", String::as_str);
    let text = |(first, last): (usize, usize)| match first == last {
        true => name(first).to_owned(),
        false => format!("{}..{}", name(first), name(last)),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// An object in `--json`. Keys are stable (docs/CLI.md).
#[derive(Serialize)]
struct FindJsonEntry<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    size_is_exact: bool,
    mtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshots: Option<Vec<&'a str>>,
}

impl<'a> FindJsonEntry<'a> {
    fn of(found: &FoundObject, snapshots: Option<(&'a [String], &[usize])>) -> Self {
        let (path, path_hex) = json_bytes(found.path.as_bytes());
        let attr = found.attr.as_ref();
        let names = |(names, positions): (&'a [String], &[usize])| {
            positions.iter().filter_map(|&position| names.get(position).map(String::as_str)).collect()
        };
        Self {
            path,
            path_hex,
            kind: json_type(found.kind),
            mode: attr.map(|attr| format!("{:04o}", attr.perm)),
            uid: attr.map(|attr| attr.uid),
            gid: attr.map(|attr| attr.gid),
            size: attr.map(|attr| attr.size),
            size_is_exact: attr.is_some_and(|attr| attr.exact),
            mtime: attr.map(|attr| attr.mtime),
            snapshots: snapshots.map(names),
        }
    }
}

#[cfg(test)]
mod tests;
