//! What a tree does not know: the stretch of paths whose records were lost.

use std::sync::Arc;

use super::version_table::VersionTable;
use dupfs_base::ErrorKind;
use dupfs_format::ArchivePath;
use dupfs_format::difftar::mangled_forms;

/// Part of the tree that could not be read: keys after `after` up to and including `last` in the set at `position`.
#[derive(Clone, Debug)]
pub struct MissingRange {
    /// Position in the branch of the set whose records are lost.
    pub position: u32,
    /// Last path known before the missing range; `None` if it begins at the root.
    pub after: Option<ArchivePath>,
    /// Last path that may be in the missing range; `None` if it has no end.
    pub last: Option<ArchivePath>,
    /// Why, in onebranch.
    pub reason: Arc<str>,
    /// What the failure means.
    pub kind: ErrorKind,
}

/// Why the state of a path at a snapshot is not known.
#[derive(Clone, Debug)]
pub struct Uncertainty {
    /// In onebranch.
    pub reason: Arc<str>,
    /// What the failure means.
    pub kind: ErrorKind,
}

const MANGLED: &str = "a set without a readable signature archive may hold a newer state under a name that its writer \
                       mangled: look for one with '?' in it, or put the signature archive back";

impl MissingRange {
    /// Whether an object at `path`, or for directories below it, may be among what is lost.
    pub(super) fn touches(&self, path: &ArchivePath, below: bool) -> bool {
        let ends_before = self.last.as_ref().is_some_and(|last| last < path);
        let starts_after = self
            .after
            .as_ref()
            .is_some_and(|after| if below { after > path && !is_below(after, path) } else { after >= path });
        !ends_before && !starts_after
    }
}

impl VersionTable {
    /// Records that part of the current set could not be read.
    pub fn push_missing_range(&mut self, range: MissingRange) {
        self.missing.push(range);
    }

    /// The missing range that may hide an object at `path` (or, with `below`, anything below it) from a snapshot of `depth` sets.
    pub fn missing_range_at(&self, path: &ArchivePath, below: bool, depth: u32) -> Option<&MissingRange> {
        self.missing.iter().find(|range| range.position < depth && range.touches(path, below))
    }

    /// Why it is not known whether a set between those at `after` and `until` (neither included) changed `path`; `None` if it
    /// is known. Both ends are positions of sets in the branch.
    ///
    /// A set whose records were lost may have changed it, as may one whose tree was rebuilt from its volumes and that names it
    /// in a mangled form (FORMAT.md 4.3).
    pub fn uncertainty(&self, path: &ArchivePath, after: u32, until: u32) -> Option<Uncertainty> {
        let between = |position: u32| after < position && position < until;
        if let Some(range) = self.missing.iter().find(|range| between(range.position) && range.touches(path, false)) {
            return Some(Uncertainty { reason: Arc::clone(&range.reason), kind: range.kind });
        }
        let rebuilt: Vec<u32> = self.rebuilt.iter().copied().filter(|&position| between(position)).collect();
        if rebuilt.is_empty() {
            return None;
        }
        let names = |form: &[u8], position: u32| {
            let node = ArchivePath::parse(form).ok().and_then(|form| self.find(&form));
            node.is_some_and(|node| self.is_named(node, position))
        };
        let forms = mangled_forms(path);
        let named = rebuilt.into_iter().any(|position| forms.iter().any(|form| names(form, position)));
        named.then(|| Uncertainty { reason: Arc::from(MANGLED), kind: ErrorKind::Corrupt })
    }

    /// Whether there is anything that [`Self::uncertainty`] could tell.
    pub fn has_uncertainty(&self) -> bool {
        !self.missing.is_empty() || !self.rebuilt.is_empty()
    }

    /// Notes that the entries of the set that was begun are from its volumes, whose names may be mangled.
    pub fn note_rebuilt(&mut self) {
        self.rebuilt.push(self.depth());
    }

    /// Whether any part of the first `depth` sets could not be read.
    pub fn has_missing_ranges(&self, depth: u32) -> bool {
        self.missing.iter().any(|range| range.position < depth)
    }
}

fn is_below(path: &ArchivePath, dir: &ArchivePath) -> bool {
    dir.is_root() || path.as_bytes().strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}
