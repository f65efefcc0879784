//! `dupfs find`: the paths of a snapshot, or of all snapshots, that match a pattern. Reads trees only, no volume.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::ops::Range;

use serde::Serialize;

use super::attr_json::{json_bytes, json_type};
use super::error::CliError;
use super::exit::CommandExit;
use super::path_pattern::{PathPattern, PatternForm};
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve;
use crate::vfs::{
    Attr, FileSystem, FsError, Ino, ListedSnapshot, NodeKind, ROOT_INO, RecordedBranch, RecordedTrees, TreeFs,
    parts_within,
};
use dupfs_base::escape_bytes;
use dupfs_format::{ArchivePath, BackupTime};
use dupfs_read::tree::NodeId;

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

/// The paths that were found in any snapshot.
struct FoundPaths {
    /// The position of each snapshot in the list of snapshots, by its index.
    order: HashMap<usize, usize>,
    paths: BTreeMap<ArchivePath, FoundPath>,
}

impl FoundPaths {
    /// Adds an object that `snapshots` have.
    fn insert(&mut self, found: FoundObject, snapshots: &[&ListedSnapshot]) {
        let positions = snapshots.iter().filter_map(|snapshot| self.order.get(&snapshot.index).copied());
        let mut positions: Vec<usize> = positions.collect();
        positions.sort_unstable();
        match self.paths.get_mut(&found.path) {
            None => drop(self.paths.insert(found.path.clone(), FoundPath { newest: found, snapshots: positions })),
            Some(earlier) => {
                if positions.last() > earlier.snapshots.last() {
                    earlier.newest = found;
                }
                earlier.snapshots.extend(positions);
                earlier.snapshots.sort_unstable();
            }
        }
    }
}

/// The parts of `spans` within `ranges`; both are ascending.
fn within(spans: &[(Range<u32>, NodeKind)], ranges: &[Range<u32>]) -> Vec<(Range<u32>, NodeKind)> {
    spans.iter().flat_map(|(span, kind)| parts_within(span, ranges).map(|part| (part, *kind))).collect()
}

/// Prints what matches in one snapshot, whose tree `fs` has at its root. Each call of the file system may take `timeout`.
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
    let mut search = PathSearch { fs, options, pattern, timeout, printer, printed: 0, examined: 0 };
    search.begin()?;
    // Each match is printed when it is found.
    search.search(ROOT_INO, &ArchivePath::root(), &mut |search, found| search.print(&found, None))?;
    search.end("nothing in this snapshot matches; --all searches all snapshots")
}

/// Prints what matches in any snapshot of `fs`, which shows all snapshots, each path once.
///
/// # Errors
/// As [`run`].
pub fn run_all(
    fs: &TreeFs,
    options: &FindOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let pattern = parse(options, None)?;
    let mut search = PathSearch { fs, options, pattern, timeout, printer, printed: 0, examined: 0 };
    search.begin()?;
    search.all_snapshots(&RecordedTrees::of(fs))?;
    search.end("nothing in any snapshot matches")
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
    /// Number of objects that were examined.
    examined: u64,
}

impl PathSearch<'_, '_> {
    /// Counts an object that is examined.
    fn examine(&mut self) {
        self.examined = self.examined.saturating_add(1);
        let examined = self.examined;
        self.printer.working(|| format!("{examined} objects examined"));
    }

    fn begin(&mut self) -> Result<(), CliError> {
        if self.options.json { self.printer.text("[") } else { Ok(()) }
    }

    /// Ends the output. If nothing was found, reports that with `remark`.
    fn end(self, remark: &str) -> Result<CommandExit, CliError> {
        if self.options.json {
            self.printer.text(if self.printed == 0 { "]\n" } else { "\n]\n" })?;
        }
        if self.printed == 0 {
            let failure = self.nothing_found(remark);
            self.printer.report(&failure);
        }
        self.printer.finish()
    }

    /// Prints the matches in all snapshots.
    fn all_snapshots(&mut self, trees: &RecordedTrees<'_>) -> Result<(), CliError> {
        let snapshots = trees.snapshots();
        let mut branches: BTreeMap<usize, Vec<&ListedSnapshot>> = BTreeMap::new();
        for snapshot in &snapshots {
            branches.entry(snapshot.branch).or_default().push(snapshot);
        }
        let order = snapshots.iter().enumerate().map(|(position, snapshot)| (snapshot.index, position)).collect();
        let mut paths = FoundPaths { order, paths: BTreeMap::new() };
        for own in branches.values_mut() {
            own.sort_by_key(|snapshot| snapshot.position);
            match trees.branch(own, &self.timeout.start()) {
                Some(branch) => self.search_branch(trees, &branch, own, &mut paths),
                None => self.search_each(trees, own, &mut paths)?,
            }
        }
        let names: Vec<String> = snapshots.iter().map(|snapshot| snapshot.name.to_string()).collect();
        for found in paths.paths.values() {
            self.print(&found.newest, Some((&names, &found.snapshots)))?;
        }
        Ok(())
    }

    /// Searches the tree of each of `snapshots`.
    fn search_each(
        &mut self,
        trees: &RecordedTrees<'_>,
        snapshots: &[&ListedSnapshot],
        paths: &mut FoundPaths,
    ) -> Result<(), CliError> {
        for snapshot in snapshots {
            let Some(label) = child_of(&ArchivePath::root(), snapshot.name.as_bytes()) else { continue };
            match trees.root_ino(snapshot) {
                Ok(root) => self.search(root, &label, &mut |_, found| {
                    paths.insert(found, &[*snapshot]);
                    Ok(())
                })?,
                Err(error) => self.printer.report(&resolve::read_failed(&label, &error)),
            }
        }
        Ok(())
    }

    /// Searches all snapshots of a branch at once: each path is examined once, with its states. `snapshots` are in the order of
    /// the branch.
    fn search_branch(
        &mut self,
        trees: &RecordedTrees<'_>,
        branch: &RecordedBranch,
        snapshots: &[&ListedSnapshot],
        paths: &mut FoundPaths,
    ) {
        // Directories, with the positions at which they exist.
        let mut pending = vec![(NodeId::ROOT, ArchivePath::root(), vec![branch.positions()])];
        while let Some((dir, path, reachable)) = pending.pop() {
            for entry in branch.entries(dir) {
                let Some(child) = child_of(&path, &entry.name) else { continue };
                self.examine();
                let mut below: Vec<Range<u32>> = Vec::new();
                let is_match = self.pattern.matches(&child);
                for (positions, kind) in within(&entry.spans, &reachable) {
                    let is_of_kind = self.options.kinds.is_empty() || self.options.kinds.contains(&kind);
                    if is_match && is_of_kind {
                        let at = |position: u32| snapshots.partition_point(|snapshot| snapshot.position < position);
                        let having = snapshots.get(at(positions.start)..at(positions.end)).unwrap_or_default();
                        self.select(trees, (entry.node, &child, kind), having, paths);
                    }
                    if kind == NodeKind::Dir {
                        match below.last_mut() {
                            Some(before) if before.end == positions.start => before.end = positions.end,
                            _ => below.push(positions),
                        }
                    }
                }
                if !below.is_empty() {
                    pending.push((entry.node, child, below));
                }
            }
        }
    }

    /// Adds a state of an object, which all of `snapshots` have, unless its attributes exclude it.
    fn select(
        &mut self,
        trees: &RecordedTrees<'_>,
        (node, path, kind): (NodeId, &ArchivePath, NodeKind),
        snapshots: &[&ListedSnapshot],
        paths: &mut FoundPaths,
    ) {
        let Some(first) = snapshots.first() else { return };
        let mut attr = None;
        if self.options.needs_attributes() {
            let tree = trees.tree(first.index, &self.timeout.start());
            match tree.and_then(|tree| tree.attr(node, &self.timeout.start())) {
                Ok(found) if self.options.selects(&found) => attr = Some(found),
                Ok(_) => return,
                Err(error) => {
                    let label = child_of(&ArchivePath::root(), first.name.as_bytes()).unwrap_or_default();
                    return self.printer.report(&resolve::read_failed(&labelled(&label, path), &error));
                }
            }
        }
        paths.insert(FoundObject { path: path.clone(), kind, attr }, snapshots);
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
            match listed {
                // The root of a backup of a single file has no entries.
                Ok(()) | Err(FsError::NotDir) => {}
                Err(error) => self.printer.report(&resolve::read_failed(&labelled(label, &path), &error)),
            }
            children.sort_by(|(a, ..), (b, ..)| a.as_bytes().cmp(b.as_bytes()));
            let first_below = pending.len();
            for (child, ino, kind) in children {
                self.examine();
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

    fn nothing_found(&self, remark: &str) -> CliError {
        let typed = escape_bytes(self.options.pattern.as_encoded_bytes());
        let mut line = format!("{typed}: {remark}");
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
