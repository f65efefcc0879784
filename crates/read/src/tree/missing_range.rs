//! Parts of a tree that are not known: ranges of paths whose records were lost.

use std::sync::Arc;

use dupfs_base::ErrorKind;
use dupfs_format::ArchivePath;
use dupfs_format::difftar::mangled_forms;

/// Part of the tree that could not be read: keys after `after` up to and including `last` in the set at `position`.
#[derive(Clone, Debug)]
pub struct MissingRange {
    /// True if only `last` is missing, with everything below it, and `after` is its directory.
    pub is_single: bool,
    /// Position in the branch of the set whose records are lost.
    pub position: u32,
    /// Last path known before the missing range; `None` if it begins at the root.
    pub after: Option<ArchivePath>,
    /// Last path that may be in the missing range; `None` if it has no end.
    pub last: Option<ArchivePath>,
    /// The cause, in one line.
    pub reason: Arc<str>,
    /// The kind of the failure.
    pub kind: ErrorKind,
}

/// The reason why the state of a path at a snapshot is not known.
#[derive(Clone, Debug)]
pub struct Uncertainty {
    /// The cause, in one line.
    pub reason: Arc<str>,
    /// The kind of the failure.
    pub kind: ErrorKind,
}

const MANGLED: &str = "a set without a readable signature archive may have a newer state under a name that its writer \
                       mangled: look for one with '?' in it, or put the signature archive back";

impl MissingRange {
    /// The range of the one name `name` in the directory `dir`, with everything below it.
    pub(super) fn single(position: u32, dir: ArchivePath, name: &[u8], reason: &Arc<str>, kind: ErrorKind) -> Self {
        let (last, reason) = (dir.join(name), Arc::clone(reason));
        Self { is_single: true, position, after: Some(dir), last, reason, kind }
    }

    /// Returns true if an object at `path` (or, with `below`, anything below it) may be among the lost records.
    fn touches(&self, path: &ArchivePath, below: bool) -> bool {
        if self.is_single {
            return if below { self.after.as_ref() == Some(path) } else { self.last.as_ref() == Some(path) };
        }
        let ends_before = self.last.as_ref().is_some_and(|last| last < path);
        let starts_after = self
            .after
            .as_ref()
            .is_some_and(|after| if below { after > path && !is_below(after, path) } else { after >= path });
        !ends_before && !starts_after
    }
}

/// The parts of a table that are not known: ranges of lost records, and sets whose records were rebuilt from their volumes,
/// which may mangle names.
#[derive(Debug, Default)]
pub(super) struct LostRecords {
    ranges: Vec<MissingRange>,
    rebuilt: Vec<u32>,
}

impl LostRecords {
    /// Records that part of a set could not be read.
    pub(super) fn push_range(&mut self, range: MissingRange) {
        self.ranges.push(range);
    }

    /// Records that the set at `position` was rebuilt from its volumes.
    pub(super) fn push_rebuilt(&mut self, position: u32) {
        self.rebuilt.push(position);
    }

    /// Returns true if everything is known.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.rebuilt.is_empty()
    }

    /// Returns true if any part of the first `depth` sets could not be read.
    pub(super) fn has_ranges(&self, depth: u32) -> bool {
        self.ranges.iter().any(|range| range.position < depth)
    }

    /// Returns true if the set at `position` was rebuilt from its volumes.
    pub(super) fn is_rebuilt(&self, position: u32) -> bool {
        self.rebuilt.contains(&position)
    }

    /// The range that may hide an object at `path` (or, with `below`, anything below it) from a snapshot of `depth` sets.
    pub(super) fn range_at(&self, path: &ArchivePath, below: bool, depth: u32) -> Option<&MissingRange> {
        self.ranges.iter().find(|range| range.position < depth && range.touches(path, below))
    }

    /// The reason why it is not known whether a set between those at `after` and `until` (neither included) changed `path`.
    /// `is_named` returns true if the set at a position names a path.
    pub(super) fn uncertainty(
        &self,
        path: &ArchivePath,
        after: u32,
        until: u32,
        is_named: impl Fn(&ArchivePath, u32) -> bool,
    ) -> Option<Uncertainty> {
        let between = |position: u32| after < position && position < until;
        if let Some(range) = self.ranges.iter().find(|range| between(range.position) && range.touches(path, false)) {
            return Some(Uncertainty { reason: Arc::clone(&range.reason), kind: range.kind });
        }
        let rebuilt: Vec<u32> = self.rebuilt.iter().copied().filter(|&position| between(position)).collect();
        if rebuilt.is_empty() {
            return None;
        }
        let forms: Vec<ArchivePath> =
            mangled_forms(path).iter().filter_map(|form| ArchivePath::parse(form).ok()).collect();
        let named = rebuilt.into_iter().any(|position| forms.iter().any(|form| is_named(form, position)));
        named.then(|| Uncertainty { reason: Arc::from(MANGLED), kind: ErrorKind::Corrupt })
    }
}

fn is_below(path: &ArchivePath, dir: &ArchivePath) -> bool {
    dir.is_root() || path.as_bytes().strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}
