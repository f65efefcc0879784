//! `dupfs diff`: the changes between two snapshots. Reads trees and signatures only, no volume, unless patches are printed.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};

use serde::Serialize;

use super::attr_json::{AttrJson, json_bytes, json_type};
use super::error::CliError;
use super::exit::CommandExit;
use super::object_change::{ChangedPart, ContentComparison, ObjectDifference};
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve::read_failed;
use super::signed_comparison::{self, ContentQuestion};
use super::snapshot_operand::{is_snapshot, snapshot_of};
use super::text_patch::{self, PatchSide};
use super::{time_suggestion, typed_path};
use crate::vfs::{FileSystem, FsError, ListedSnapshot, RecordedObject, RecordedTree, RecordedTrees, TreeFs};
use dupfs_base::{HasKind, escape_bytes};
use dupfs_format::{ArchivePath, EntryKind};
use dupfs_read::tree::NodeId;

/// The options of `dupfs diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// One or two times, and a path: `TIME [TIME] [PATH]`.
    pub operands: Vec<OsString>,
    /// An object (docs/CLI.md).
    pub json: bool,
    /// End lines with NUL instead of a line feed, and never escape paths.
    pub print0: bool,
    /// Exit with a separate code if anything differs.
    pub exit_code: bool,
    /// Print a patch after each regular file whose content differs.
    pub patch: bool,
    /// With a patch also for files that one of the snapshots lacks.
    pub new_file: bool,
}

/// Prints the changes between two snapshots of `fs`, which shows all snapshots. Each call of the file system may take
/// `timeout`.
///
/// # Errors
/// [`CliError`] when there is no such snapshot or path, or the output cannot be written.
pub fn run(
    fs: &TreeFs,
    options: &DiffOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let trees = RecordedTrees::of(fs);
    let snapshots = trees.snapshots();
    let operands = DiffOperands::parse(&options.operands, &trees, &snapshots)?;
    let load = |snapshot: &ListedSnapshot| {
        let tree = trees.tree(snapshot.index, &timeout.start());
        tree.map_err(|error| CliError::new(CommandExit::of_read(error.kind()), error.to_string()))
    };
    let sides = DiffSides { old: operands.old.map(load).transpose()?, new: load(operands.new)? };
    let (old, new) = match operands.path {
        Some(typed) => sides.find(fs, &trees, &operands, typed, timeout)?,
        None => (sides.old.as_ref().map(|_| NodeId::ROOT), Some(NodeId::ROOT)),
    };
    let mut comparison =
        TreeComparison { sides: &sides, changes: Vec::new(), questions: Vec::new(), asked: Vec::new() };
    comparison.compare(old, new, printer);
    let changes = comparison.decide(&trees, timeout, printer);
    let mut report = DiffReport { fs, sides: &sides, operands: &operands, options, timeout, printed: 0 };
    report.begin(printer)?;
    for change in &changes {
        report.print(change, printer)?;
    }
    report.end(printer)?;
    let exit = printer.finish()?;
    let differs = options.exit_code && !changes.is_empty();
    Ok(if differs && exit == CommandExit::Done { CommandExit::Different } else { exit })
}

/// The operands: the snapshots to compare, and the path.
struct DiffOperands<'a> {
    /// `None`: nothing was there before.
    old: Option<&'a ListedSnapshot>,
    new: &'a ListedSnapshot,
    path: Option<&'a OsStr>,
    /// False if the path is an argument that may also be a time.
    is_path_certain: bool,
}

impl<'a> DiffOperands<'a> {
    fn parse(
        operands: &'a [OsString],
        trees: &RecordedTrees<'_>,
        snapshots: &'a [ListedSnapshot],
    ) -> Result<Self, CliError> {
        let find = |typed: &OsStr| snapshot_of(typed, trees, snapshots);
        let one = |new: &'a ListedSnapshot, path: Option<&'a OsStr>| {
            let old = new.before.and_then(|before| snapshots.iter().find(|snapshot| snapshot.index == before));
            Self { old, new, path, is_path_certain: false }
        };
        // `diff URL etc now`, and a path without a time.
        if let [first, rest @ ..] = operands
            && !is_snapshot(first, snapshots)
            && first.to_str().is_some_and(|first| {
                time_suggestion::meant_by(first).is_none() && !time_suggestion::is_like_a_name(first)
            })
        {
            let times: Vec<_> = rest.iter().filter(|operand| is_snapshot(operand, snapshots)).collect();
            let times = match times.as_slice() {
                [] => "now".to_owned(),
                times => times.iter().map(|time| escape_bytes(time.as_encoded_bytes())).collect::<Vec<_>>().join(" "),
            };
            let first = escape_bytes(first.as_encoded_bytes());
            return Err(CliError::Usage(format!(
                "'{first}' is not a time; a path comes after the times: dupfs diff URL {times} {first}"
            )));
        }
        let parsed = match operands {
            [new] => one(find(new)?, None),
            [new, path] if !is_snapshot(path, snapshots) => one(find(new)?, Some(path.as_os_str())),
            [old, new] => Self { old: Some(find(old)?), new: find(new)?, path: None, is_path_certain: false },
            [old, new, path] => {
                Self { old: Some(find(old)?), new: find(new)?, path: Some(path.as_os_str()), is_path_certain: true }
            }
            _ => {
                return Err(CliError::Usage(
                    "give one or two times, and a path: dupfs diff URL TIME [TIME] [PATH]".into(),
                ));
            }
        };
        match parsed.old {
            Some(old) if old.index == parsed.new.index => {
                log::warn!("both times select the snapshot {}; dupfs sets URL shows all", old.name);
            }
            Some(old) => log::info!("comparing the snapshots {} and {}", old.name, parsed.new.name),
            None => log::info!("the snapshot {} is the first one", parsed.new.name),
        }
        Ok(parsed)
    }
}

/// The trees to compare.
struct DiffSides<'a> {
    old: Option<RecordedTree<'a>>,
    new: RecordedTree<'a>,
}

impl DiffSides<'_> {
    /// The nodes at the path that the user means by `typed`, if both or one of the snapshots have it.
    fn find(
        &self,
        fs: &dyn FileSystem,
        trees: &RecordedTrees<'_>,
        operands: &DiffOperands<'_>,
        typed: &OsStr,
        timeout: RequestTimeout,
    ) -> Result<(Option<NodeId>, Option<NodeId>), CliError> {
        let source = trees.source_directory(&timeout.start());
        let (path, readings) = typed_path::readings_in_any(typed, source.as_deref())?;
        for reading in readings {
            let failed = |error: FsError| read_failed(&reading, &error);
            let old = self.old.as_ref().map(|tree| tree.find(&reading)).transpose().map_err(failed)?.flatten();
            let new = self.new.find(&reading).map_err(failed)?;
            if old.is_some() || new.is_some() {
                return Ok((old, new));
            }
        }
        let in_snapshot = |snapshot: &ListedSnapshot| {
            let top = ArchivePath::parse(format!("snapshots/{}", snapshot.name).as_bytes()).unwrap_or_default();
            typed_path::similar(fs, &top, &path, timeout)
        };
        let meant = in_snapshot(operands.new).or_else(|| operands.old.and_then(in_snapshot));
        // A mistyped time is taken for a path.
        let as_time = || {
            let text = typed.to_str().filter(|_| !operands.is_path_certain)?;
            let names = trees.snapshots().into_iter().map(|snapshot| snapshot.name.to_string());
            time_suggestion::meant_among(text, names)
        };
        let meant = meant.or_else(as_time);
        let line = match operands.is_path_certain {
            true => format!("{path}: neither snapshot has this path; search all with: dupfs find --all URL 'NAME'"),
            false => format!(
                "{path}: neither a time nor a path of these snapshots; see dupfs sets URL and dupfs find --all URL"
            ),
        };
        let missing = CliError::new(CommandExit::NotFound, line);
        Err(typed_path::with_remedy(&missing, typed, meant, source.as_deref()))
    }

    /// The path of a change.
    fn path(&self, old: Option<NodeId>, new: Option<NodeId>) -> ArchivePath {
        match (&self.old, old, new) {
            (_, _, Some(node)) => self.new.path(node),
            (Some(tree), Some(node), None) => tree.path(node),
            _ => ArchivePath::root(),
        }
    }
}

/// A path that differs: its nodes in both trees, one of which may be missing.
#[derive(Clone, Copy, Debug)]
struct PathChange {
    old: Option<NodeId>,
    new: Option<NodeId>,
    difference: ObjectDifference,
}

impl PathChange {
    /// Returns true if the path differs, once the contents are compared.
    fn is_change(&self) -> bool {
        self.old.is_none() || self.new.is_none() || !self.difference.is_empty()
    }

    fn name(&self) -> &'static str {
        match (self.old, self.new) {
            (None, _) => "added",
            (Some(_), None) => "removed",
            (Some(_), Some(_)) => "changed",
        }
    }

    /// The change in one word; that of an object in both trees is the list of what changed.
    fn text(&self) -> String {
        if self.difference.is_empty() { self.name().to_owned() } else { self.difference.to_string() }
    }
}

/// A comparison of two trees.
struct TreeComparison<'a> {
    sides: &'a DiffSides<'a>,
    /// In the order of the paths; also those whose contents are not compared yet.
    changes: Vec<PathChange>,
    questions: Vec<ContentQuestion>,
    /// Positions in `changes` of the questions.
    asked: Vec<usize>,
}

impl TreeComparison<'_> {
    /// Compares everything at and below two nodes at the same path.
    fn compare(&mut self, old: Option<NodeId>, new: Option<NodeId>, printer: &mut Printer<'_>) {
        let sides = self.sides;
        let mut pending = vec![(old, new)];
        let mut compared = 0u64;
        while let Some((old, new)) = pending.pop() {
            compared = compared.saturating_add(1);
            printer.working(|| format!("{compared} objects compared"));
            let old_object = old.and_then(|node| Some(sides.old.as_ref()?.object(node)));
            let new_object = new.map(|node| sides.new.object(node));
            let (old_object, new_object) = match (old_object.transpose(), new_object.transpose()) {
                (Ok(old), Ok(new)) => (old, new),
                (Err(error), _) | (_, Err(error)) => {
                    printer.report(&read_failed(&sides.path(old, new), &error));
                    continue;
                }
            };
            self.compare_objects((old, old_object.as_ref()), (new, new_object.as_ref()));
            let mut list = |tree: Option<&RecordedTree<'_>>, node: Option<NodeId>, object: Option<&RecordedObject>| {
                let Some((tree, node)) = tree.zip(node).filter(|_| object.is_some_and(RecordedObject::is_dir)) else {
                    return Vec::new();
                };
                let (children, failure) = tree.children(node);
                if let Some(error) = failure {
                    printer.report(&read_failed(&tree.path(node), &error));
                }
                children
            };
            let old_children = list(sides.old.as_ref(), old, old_object.as_ref());
            let new_children = list(Some(&sides.new), new, new_object.as_ref());
            let first = pending.len();
            pending.extend(pairs(&old_children, &new_children));
            // The first name is compared next.
            if let Some(children) = pending.get_mut(first..) {
                children.reverse();
            }
        }
    }

    fn compare_objects(
        &mut self,
        (old, old_object): (Option<NodeId>, Option<&RecordedObject>),
        (new, new_object): (Option<NodeId>, Option<&RecordedObject>),
    ) {
        let mut change = PathChange { old, new, difference: ObjectDifference::default() };
        if let Some((old, new)) = old_object.zip(new_object) {
            change.difference = ObjectDifference::of_metadata(old, new);
            match (ContentComparison::by_size(old, new), ContentQuestion::of(old, new)) {
                (ContentComparison::Undecided, Some(question)) => {
                    self.questions.push(question);
                    self.asked.push(self.changes.len());
                    self.changes.push(change);
                    return;
                }
                (contents, _) => change.difference = change.difference.with_contents(contents),
            }
        }
        if change.is_change() {
            self.changes.push(change);
        }
    }

    /// Compares the contents that the sizes did not decide, and returns the changes.
    fn decide(
        mut self,
        trees: &RecordedTrees<'_>,
        timeout: RequestTimeout,
        printer: &mut Printer<'_>,
    ) -> Vec<PathChange> {
        let path_of = |question: usize| {
            let change = self.asked.get(question).and_then(|at| self.changes.get(*at));
            change.map(|change| self.sides.path(change.old, change.new)).unwrap_or_default()
        };
        let answers = signed_comparison::compare(trees, &self.questions, path_of, timeout, printer);
        for (at, contents) in self.asked.into_iter().zip(answers) {
            if let Some(change) = self.changes.get_mut(at) {
                change.difference = change.difference.with_contents(contents);
            }
        }
        self.changes.retain(PathChange::is_change);
        self.changes
    }
}

/// The nodes of each name of two sorted listings.
fn pairs(old: &[(Vec<u8>, NodeId)], new: &[(Vec<u8>, NodeId)]) -> Vec<(Option<NodeId>, Option<NodeId>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut pairs = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return pairs,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let from_old = if order.is_le() { old.next() } else { None };
        let from_new = if order.is_ge() { new.next() } else { None };
        pairs.push((from_old.map(|(_, node)| *node), from_new.map(|(_, node)| *node)));
    }
}

/// The output.
struct DiffReport<'a> {
    fs: &'a dyn FileSystem,
    sides: &'a DiffSides<'a>,
    operands: &'a DiffOperands<'a>,
    options: &'a DiffOptions,
    timeout: RequestTimeout,
    printed: u64,
}

impl DiffReport<'_> {
    fn begin(&self, printer: &mut Printer<'_>) -> Result<(), CliError> {
        if !self.options.json {
            return Ok(());
        }
        let names = DiffJsonSnapshots { old: self.operands.old.map(|old| &*old.name), new: &self.operands.new.name };
        printer.text("{\"snapshots\":")?;
        printer.json(&names, false)?;
        printer.text(",\"changes\":[")
    }

    fn end(&self, printer: &mut Printer<'_>) -> Result<(), CliError> {
        match (self.options.json, self.printed) {
            (false, _) => Ok(()),
            (true, 0) => printer.text("]}\n"),
            (true, _) => printer.text("\n]}\n"),
        }
    }

    /// `contents,mtime etc/hosts`.
    fn print(&mut self, change: &PathChange, printer: &mut Printer<'_>) -> Result<(), CliError> {
        let path = self.sides.path(change.old, change.new);
        if self.options.json {
            printer.text(if self.printed == 0 { "\n" } else { ",\n" })?;
            let (text, path_hex) = json_bytes(path.as_bytes());
            let mut json = |tree: Option<&RecordedTree<'_>>, node: Option<NodeId>| {
                let (tree, node) = tree.zip(node)?;
                let json = DiffJsonObject::of(tree, node, self.timeout);
                json.map_err(|error| printer.report(&read_failed(&path, &error))).ok()
            };
            let (old, new) = (json(self.sides.old.as_ref(), change.old), json(Some(&self.sides.new), change.new));
            let changes = change.difference.names().collect();
            let entry = DiffJsonEntry { path: text, path_hex, change: change.name(), changes, old, new };
            printer.json(&entry, false)?;
        } else {
            printer.text(&change.text())?;
            printer.text(" ")?;
            let shown: &[u8] = if path.is_root() { b"." } else { path.as_bytes() };
            if self.options.print0 {
                printer.bytes(shown)?;
                printer.bytes(b"\0")?;
            } else if self.options.patch {
                // A line feed in a name must not begin a line of the patch.
                printer.text(&format!("{}\n", escape_bytes(shown)))?;
                self.print_patch(change, &path, printer)?;
            } else {
                printer.name(shown)?;
                printer.text("\n")?;
            }
        }
        self.printed += 1;
        Ok(())
    }

    /// Prints the patch of a regular file, if its content differs or may differ.
    fn print_patch(&self, change: &PathChange, path: &ArchivePath, printer: &mut Printer<'_>) -> Result<(), CliError> {
        let contents = [ChangedPart::Contents, ChangedPart::PossiblyContents];
        let has_other_content = contents.into_iter().any(|part| change.difference.has(part));
        let is_whole = change.old.is_none() || change.new.is_none();
        let is_printed = has_other_content || (is_whole && self.options.new_file);
        if !is_printed {
            return Ok(());
        }
        // The inode of a regular file; `None` if the snapshot has no object.
        let file = |tree: Option<&RecordedTree<'_>>, node: Option<NodeId>| {
            let Some((tree, node)) = tree.zip(node) else { return Ok(Some(None)) };
            let is_file = tree.object(node)?.meta.kind == EntryKind::File;
            Ok::<_, FsError>(if is_file { Some(Some(tree.ino(node)?)) } else { None })
        };
        let files = file(self.sides.old.as_ref(), change.old)
            .and_then(|old| Ok((old, file(Some(&self.sides.new), change.new)?)));
        let (old, new) = match files {
            Ok((Some(old), Some(new))) => (old, new),
            Ok(_) => return Ok(()),
            Err(error) => {
                printer.report(&read_failed(path, &error));
                return Ok(());
            }
        };
        let sides = [
            PatchSide { ino: old, snapshot: self.operands.old.map_or("", |old| &*old.name) },
            PatchSide { ino: new, snapshot: &self.operands.new.name },
        ];
        if let Err(failure) = text_patch::print(self.fs, path, sides, self.timeout, printer)? {
            printer.report(&failure);
        }
        Ok(())
    }
}

/// The snapshots in `--json`. Keys are stable (docs/CLI.md).
#[derive(Serialize)]
struct DiffJsonSnapshots<'a> {
    old: Option<&'a str>,
    new: &'a str,
}

/// A change in `--json`. Keys are stable (docs/CLI.md).
#[derive(Serialize)]
struct DiffJsonEntry {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    change: &'static str,
    changes: Vec<&'static str>,
    old: Option<DiffJsonObject>,
    new: Option<DiffJsonObject>,
}

/// An object in `--json`. Keys are stable (docs/CLI.md).
#[derive(Serialize)]
struct DiffJsonObject {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    attr: AttrJson,
}

impl DiffJsonObject {
    fn of(tree: &RecordedTree<'_>, node: NodeId, timeout: RequestTimeout) -> Result<Self, FsError> {
        let (attr, object) = (tree.attr(node, &timeout.start())?, tree.object(node)?);
        Ok(Self { kind: json_type(attr.kind), attr: AttrJson::of(&attr, object.target()) })
    }
}
