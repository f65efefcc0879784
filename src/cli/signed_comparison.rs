//! Compares the contents of files by their signatures: each signature archive that is needed is read once, and no volume.

use std::collections::{BTreeMap, HashSet};

use super::error::CliError;
use super::exit::CommandExit;
use super::object_change::ContentComparison;
use super::printer::Printer;
use super::request_timeout::RequestTimeout;
use crate::vfs::{RecordedObject, RecordedTrees};
use dupfs_base::HasKind;
use dupfs_format::{ArchivePath, SetIndex};
use dupfs_read::volume::SignedContent;

/// The sets that signed the two contents of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContentQuestion {
    old: SetIndex,
    new: SetIndex,
}

impl ContentQuestion {
    /// The question for the contents of two files; `None` if one of them is of no set.
    pub(super) fn of(old: &RecordedObject, new: &RecordedObject) -> Option<Self> {
        Some(Self { old: old.record?.set, new: new.record?.set })
    }
}

/// Answers `questions`, in their order. `path_of` returns the path of a question by its position. A signature archive that
/// cannot be read is reported; contents that need it are undecided. Reading one may take `timeout`.
pub(super) fn compare(
    trees: &RecordedTrees<'_>,
    questions: &[ContentQuestion],
    path_of: impl Fn(usize) -> ArchivePath,
    timeout: RequestTimeout,
    printer: &mut Printer<'_>,
) -> Vec<ContentComparison> {
    let mut by_set: BTreeMap<SetIndex, Vec<usize>> = BTreeMap::new();
    for (position, question) in questions.iter().enumerate() {
        for set in HashSet::from([question.old, question.new]) {
            by_set.entry(set).or_default().push(position);
        }
    }
    let mut signed: Vec<(Option<SignedContent>, Option<SignedContent>)> = vec![(None, None); questions.len()];
    for (set, positions) in by_set {
        for &position in &positions {
            let content = match trees.signed_content(set, &path_of(position), &timeout.start()) {
                Ok(content) => content,
                Err(error) => {
                    let line = format!("the contents of {} files cannot be compared: {error}", positions.len());
                    printer.report(&CliError::new(CommandExit::of_read(error.kind()), line));
                    break;
                }
            };
            let Some((question, (old, new))) = questions.get(position).zip(signed.get_mut(position)) else { continue };
            if question.old == set {
                *old = content;
            }
            if question.new == set {
                *new = content;
            }
        }
    }
    signed.iter().map(|(old, new)| ContentComparison::by_signature(old.as_ref(), new.as_ref())).collect()
}
