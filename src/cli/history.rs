//! `dupfs history`: every distinct version of a path over all snapshots. Reads trees and signatures only, no volume.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;

use serde::Serialize;

use super::attr_json::{AttrJson, json_bytes, json_type};
use super::attr_text::{OwnerNames, mode_text, mtime_text, size_text};
use super::error::CliError;
use super::exit::CommandExit;
use super::object_change::{ContentComparison, ObjectDifference};
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use super::resolve::read_failed;
use super::signed_comparison::{self, ContentQuestion};
use super::typed_path;
use crate::vfs::{Attr, FsError, ListedSnapshot, RecordedObject, RecordedTrees, TreeFs};
use dupfs_format::ArchivePath;
use dupfs_read::tree::NodeId;

/// The options of `dupfs history`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Also print the sets that stored the path again although nothing changed.
    pub all: bool,
    /// An array of objects (docs/CLI.md).
    pub json: bool,
    /// Owners as numbers even if this machine has names for them.
    pub numeric: bool,
}

/// Prints the history of `typed`, a path of any snapshot of `fs`, which shows all snapshots. Each call of the file system may
/// take `timeout`.
///
/// # Errors
/// [`CliError`] when no snapshot has the path, or the output cannot be written.
pub fn run(
    fs: &TreeFs,
    typed: &OsStr,
    options: HistoryOptions,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    let trees = RecordedTrees::of(fs);
    let path = typed_path::find_in_any(fs, typed, trees.source_directory(&timeout.start()), timeout)?;
    let snapshots = trees.snapshots();
    let history = PathHistory { trees: &trees, path: &path, snapshots: &snapshots, timeout };
    let states = history.states(printer);
    let mut rows = history.rows(&states, printer);
    if !options.all {
        rows.retain(|row| row.event != PathEvent::Unchanged);
    }
    if options.json {
        history.print_json(&rows, printer)?;
    } else {
        history.print_text(&rows, options.numeric, printer)?;
    }
    printer.finish()
}

/// The state of the path in one snapshot.
enum PathState {
    /// It was reported why it is not known.
    Unknown,
    Absent,
    Present(NodeId, Box<RecordedObject>),
}

impl PathState {
    fn object(&self) -> Option<&RecordedObject> {
        match self {
            Self::Present(_, object) => Some(object),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// The event by which a snapshot differs from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathEvent {
    Created,
    Changed(ObjectDifference),
    Deleted,
    Reappeared,
    /// The set stored the path again.
    Unchanged,
}

impl PathEvent {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed(_) => "changed",
            Self::Deleted => "deleted",
            Self::Reappeared => "reappeared",
            Self::Unchanged => "unchanged",
        }
    }

    /// The event in one word; a change as the list of what changed.
    fn text(self) -> String {
        match self {
            Self::Changed(difference) => difference.to_string(),
            Self::Created | Self::Deleted | Self::Reappeared | Self::Unchanged => self.name().to_owned(),
        }
    }

    fn changes(self) -> Vec<&'static str> {
        match self {
            Self::Changed(difference) => difference.names().collect(),
            Self::Created | Self::Deleted | Self::Reappeared | Self::Unchanged => Vec::new(),
        }
    }
}

/// A version of the path: the snapshot that brought it, and those that have it.
struct HistoryRow {
    /// Position in the list of snapshots.
    snapshot: usize,
    event: PathEvent,
    /// The object; `None` after a deletion.
    shown: Option<(Attr, Option<Vec<u8>>)>,
    /// Positions in the list of snapshots.
    shown_in: Vec<usize>,
}

/// The history of one path.
struct PathHistory<'a> {
    trees: &'a RecordedTrees<'a>,
    path: &'a ArchivePath,
    /// The oldest first.
    snapshots: &'a [ListedSnapshot],
    timeout: RequestTimeout,
}

impl PathHistory<'_> {
    /// The state in each snapshot. Those that are not known are reported.
    fn states(&self, printer: &mut Printer<'_>) -> Vec<PathState> {
        let mut failed_branches = HashSet::new();
        let mut states = Vec::with_capacity(self.snapshots.len());
        for snapshot in self.snapshots {
            let state = self.state_in(snapshot).unwrap_or_else(|error| {
                // The trees of the other snapshots of the branch fail for the same reason.
                if failed_branches.insert(snapshot.branch) {
                    printer.report(&read_failed(self.path, &error));
                }
                PathState::Unknown
            });
            states.push(state);
        }
        states
    }

    fn state_in(&self, snapshot: &ListedSnapshot) -> Result<PathState, FsError> {
        let tree = self.trees.tree(snapshot.index, &self.timeout.start())?;
        let Some(node) = tree.find(self.path)? else { return Ok(PathState::Absent) };
        Ok(PathState::Present(node, Box::new(tree.object(node)?)))
    }

    /// The events, the oldest first.
    fn rows(&self, states: &[PathState], printer: &mut Printer<'_>) -> Vec<HistoryRow> {
        let before = positions_before(self.snapshots, states);
        let mut events: Vec<Option<PathEvent>> = Vec::with_capacity(states.len());
        let mut questions = Vec::new();
        let mut asked = Vec::new();
        let mut has_existed = false;
        for (position, (state, before)) in states.iter().zip(&before).enumerate() {
            let old = before.and_then(|before| states.get(before)).and_then(PathState::object);
            let event = match (old, state) {
                (_, PathState::Unknown) | (None, PathState::Absent) => None,
                (Some(_), PathState::Absent) => Some(PathEvent::Deleted),
                (None, PathState::Present(..)) if has_existed => Some(PathEvent::Reappeared),
                (None, PathState::Present(..)) => Some(PathEvent::Created),
                (Some(old), PathState::Present(_, new)) if old.is_same_record(new) => None,
                (Some(old), PathState::Present(_, new)) => {
                    let mut difference = ObjectDifference::of_metadata(old, new);
                    match (ContentComparison::by_size(old, new), ContentQuestion::of(old, new)) {
                        (ContentComparison::Undecided, Some(question)) => {
                            questions.push(question);
                            asked.push(position);
                        }
                        (contents, _) => difference = difference.with_contents(contents),
                    }
                    Some(PathEvent::Changed(difference))
                }
            };
            has_existed |= state.object().is_some();
            events.push(event);
        }
        let answers = signed_comparison::compare(self.trees, &questions, |_| self.path.clone(), self.timeout, printer);
        for (position, contents) in asked.into_iter().zip(answers) {
            if let Some(Some(PathEvent::Changed(difference))) = events.get_mut(position) {
                *difference = difference.with_contents(contents);
            }
        }
        self.collect(states, &before, events, printer)
    }

    /// The rows of the events, with the snapshots that have each version.
    fn collect(
        &self,
        states: &[PathState],
        before: &[Option<usize>],
        events: Vec<Option<PathEvent>>,
        printer: &mut Printer<'_>,
    ) -> Vec<HistoryRow> {
        let mut rows: Vec<HistoryRow> = Vec::new();
        // By snapshot: the row of its state.
        let mut row_of: Vec<Option<usize>> = vec![None; states.len()];
        for (position, event) in events.into_iter().enumerate() {
            let Some(state) = states.get(position) else { continue };
            let mut row =
                before.get(position).copied().flatten().and_then(|before| row_of.get(before).copied().flatten());
            if let Some(event) = event {
                let event = match event {
                    PathEvent::Changed(difference) if difference.is_empty() => PathEvent::Unchanged,
                    event => event,
                };
                let shown = self.shown(position, state, printer);
                let own = HistoryRow { snapshot: position, event, shown, shown_in: Vec::new() };
                rows.push(own);
                // The version is still the one that an earlier row brought.
                if event != PathEvent::Unchanged || row.is_none() {
                    row = rows.len().checked_sub(1);
                }
            }
            if let (PathState::Present(..), Some(row)) = (state, row.and_then(|row| rows.get_mut(row))) {
                row.shown_in.push(position);
            }
            if let Some(slot) = row_of.get_mut(position) {
                *slot = row;
            }
        }
        rows
    }

    /// The attributes to show of a state.
    fn shown(&self, position: usize, state: &PathState, printer: &mut Printer<'_>) -> Option<(Attr, Option<Vec<u8>>)> {
        let PathState::Present(node, object) = state else { return None };
        let index = self.snapshots.get(position)?.index;
        let tree = self.trees.tree(index, &self.timeout.start());
        match tree.and_then(|tree| tree.attr(*node, &self.timeout.start())) {
            Ok(attr) => Some((attr, object.target().map(<[u8]>::to_vec))),
            Err(error) => {
                printer.report(&read_failed(self.path, &error));
                None
            }
        }
    }

    fn snapshot_name(&self, position: usize) -> &str {
        self.snapshots.get(position).map_or("", |snapshot| &snapshot.name)
    }

    fn set_type(&self, position: usize) -> &'static str {
        if self.snapshots.get(position).is_some_and(|snapshot| snapshot.is_full) { "full" } else { "inc" }
    }

    /// `20170128T021500Z inc  contents,mtime -rw-r--r-- root     root     123 2017-01-28T02:15:00Z`.
    fn print_text(&self, rows: &[HistoryRow], numeric: bool, printer: &mut Printer<'_>) -> Result<(), CliError> {
        let width = |text: &dyn Fn(&HistoryRow) -> usize| rows.iter().map(text).max().unwrap_or(0);
        let size = |row: &HistoryRow| row.shown.as_ref().map(|(attr, _)| size_text(attr)).unwrap_or_default();
        let name_width = width(&|row| self.snapshot_name(row.snapshot).len());
        let event_width = width(&|row| row.event.text().len());
        let size_width = width(&|row| size(row).len());
        let mut owners = OwnerNames::new(numeric);
        for row in rows {
            let (name, set) = (self.snapshot_name(row.snapshot), self.set_type(row.snapshot));
            let event = row.event.text();
            match &row.shown {
                None => printer.text(&format!("{name:<name_width$} {set:<4} {event}"))?,
                Some((attr, target)) => {
                    let (mode, owner, size, mtime) = (mode_text(attr), owners.text(attr), size(row), mtime_text(attr));
                    printer.text(&format!(
                        "{name:<name_width$} {set:<4} {event:<event_width$} {mode} {owner} {size:>size_width$} {mtime}"
                    ))?;
                    if let Some(target) = target {
                        printer.text(" -> ")?;
                        printer.name(target)?;
                    }
                }
            }
            printer.text("\n")?;
        }
        Ok(())
    }

    fn print_json(&self, rows: &[HistoryRow], printer: &mut Printer<'_>) -> Result<(), CliError> {
        let (path, path_hex) = json_bytes(self.path.as_bytes());
        printer.text("[")?;
        for (position, row) in rows.iter().enumerate() {
            printer.text(if position == 0 { "\n" } else { ",\n" })?;
            let entry = HistoryJsonEntry {
                path: &path,
                path_hex: path_hex.as_deref(),
                snapshot: self.snapshot_name(row.snapshot),
                epoch: self.snapshots.get(row.snapshot).map_or(0, |snapshot| snapshot.time.0),
                set: self.set_type(row.snapshot),
                event: row.event.name(),
                changes: row.event.changes(),
                snapshots: row.shown_in.iter().map(|&position| self.snapshot_name(position)).collect(),
                kind: row.shown.as_ref().map(|(attr, _)| json_type(attr.kind)),
                attr: row.shown.as_ref().map(|(attr, target)| AttrJson::of(attr, target.as_deref())),
            };
            printer.json(&entry, false)?;
        }
        printer.text(if rows.is_empty() { "]\n" } else { "\n]\n" })
    }
}

/// For each snapshot the position of the snapshot before it, in which the state is known.
fn positions_before(snapshots: &[ListedSnapshot], states: &[PathState]) -> Vec<Option<usize>> {
    let positions: HashMap<usize, usize> =
        snapshots.iter().enumerate().map(|(position, snapshot)| (snapshot.index, position)).collect();
    let step = |position: usize| positions.get(&snapshots.get(position)?.before?).copied();
    let mut known: Vec<Option<usize>> = Vec::with_capacity(snapshots.len());
    for position in 0..snapshots.len() {
        let before = step(position).filter(|before| *before < position);
        known.push(match before {
            Some(before) if matches!(states.get(before), Some(PathState::Unknown)) => {
                known.get(before).copied().flatten()
            }
            before => before,
        });
    }
    known
}

/// A version in `--json`. Keys are stable (docs/CLI.md).
#[derive(Serialize)]
struct HistoryJsonEntry<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<&'a str>,
    snapshot: &'a str,
    epoch: i64,
    set: &'static str,
    event: &'static str,
    changes: Vec<&'static str>,
    snapshots: Vec<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(flatten)]
    attr: Option<AttrJson>,
}
