//! A problem as the report has it. Keys of its JSON are stable (docs/CLI.md).

use serde::Serialize;

use dupfs_format::collection::{BackupSet, Problem, Severity};

/// A problem in the report.
#[derive(Clone, Serialize)]
pub(super) struct ReportedProblem {
    pub(super) severity: &'static str,
    pub(super) kind: &'static str,
    pub(super) set: Option<u32>,
    pub(super) object: Option<String>,
    pub(super) message: String,
    /// True if manifests were not read for a reason that is not the backup's own. The exit code is that of the reason.
    #[serde(skip)]
    pub(super) is_unread: bool,
}

impl ReportedProblem {
    pub(super) fn new(severity: Severity, kind: &'static str, set: Option<&BackupSet>, message: String) -> Self {
        Self {
            severity: word(severity),
            kind,
            set: set.map(|set| set.index.0),
            object: None,
            message,
            is_unread: false,
        }
    }

    /// Manifests could not be read because of a key, of permissions, or of the store.
    pub(super) fn unread(message: String) -> Self {
        Self { is_unread: true, ..Self::new(Severity::Error, "manifest-unreadable", None, message) }
    }

    /// Returns true if something of the backup is lost or damaged.
    pub(super) fn is_damage(&self) -> bool {
        self.severity == word(Severity::Error) && !self.is_unread
    }

    /// The order in the report: errors first.
    pub(super) fn rank(&self) -> usize {
        ["error", "warning", "note"].iter().position(|word| *word == self.severity).unwrap_or(usize::MAX)
    }
}

impl From<&Problem> for ReportedProblem {
    fn from(problem: &Problem) -> Self {
        Self {
            severity: word(problem.severity),
            kind: problem.kind.code(),
            set: problem.set.map(|set| set.0),
            object: problem.object.as_ref().map(ToString::to_string),
            message: problem.message.clone(),
            is_unread: false,
        }
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}
