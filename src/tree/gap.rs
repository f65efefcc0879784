//! What a tree does not know: the stretch of paths whose records were lost.

use std::sync::Arc;

use crate::types::{ArchivePath, ErrorClass};

/// Part of the tree that could not be read: keys after `after` up to and including `upto` in the set at `position`.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Position in the line of the set whose records are lost.
    pub position: u32,
    /// Last path known before the gap; `None` if it begins at the root.
    pub after: Option<ArchivePath>,
    /// Last path that may be in the gap; `None` if it has no end.
    pub upto: Option<ArchivePath>,
    /// Why, in one line.
    pub reason: Arc<str>,
    /// What the failure means.
    pub class: ErrorClass,
}

impl Gap {
    /// Whether an object at `path`, or for directories below it, may be among what is lost.
    pub(super) fn touches(&self, path: &ArchivePath, below: bool) -> bool {
        let ends_before = self.upto.as_ref().is_some_and(|upto| upto < path);
        let starts_after = self
            .after
            .as_ref()
            .is_some_and(|after| if below { after > path && !is_below(after, path) } else { after >= path });
        !ends_before && !starts_after
    }
}

fn is_below(path: &ArchivePath, dir: &ArchivePath) -> bool {
    dir.is_root() || path.as_bytes().strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}
