//! Archives in use, and their members as lookups found them.

use std::sync::Arc;

use super::shown_names::shown_in;
use dupfs_base::RequestContext;
use dupfs_unpack::{Archive, EntryNumber, NodeKey, PassInterest, PassProgress, UnpackError};

/// An archive in use.
#[derive(Debug)]
pub(super) struct OpenArchive {
    pub(super) archive: Arc<Archive>,
    /// The member that it is, in another archive.
    pub(super) outer: Option<MemberRef>,
}

/// A member of an archive as it was found.
#[derive(Clone, Debug)]
pub(super) struct MemberRef {
    /// The archive that it is in.
    pub(super) parent: Arc<OpenArchive>,
    pub(super) key: NodeKey,
    /// Number of the entry that it had then.
    pub(super) entry: EntryNumber,
    /// The name that it was found under, if that is not its own.
    pub(super) shown: Option<Vec<u8>>,
}

impl OpenArchive {
    /// Returns true if nothing can change in it any more, nor in the archives around it.
    pub(super) fn is_complete(&self) -> bool {
        self.archive.is_complete() && self.outer.as_ref().is_none_or(MemberRef::is_complete)
    }

    /// Waits until the passes over it and the archives around it have ended, successfully or not.
    ///
    /// # Errors
    /// [`UnpackError`] if its name belongs to another member meanwhile.
    pub(super) fn wait_for_passes(&self, context: &RequestContext) -> Result<PassProgress, UnpackError> {
        let progress = self.archive.wait_for_pass(context)?;
        if let Some(outer) = &self.outer {
            outer.parent.wait_for_passes(context)?;
            if !outer.is_current() {
                return Err(UnpackError::Replaced { object: outer.parent.archive.path(outer.key) });
            }
        }
        Ok(progress)
    }

    /// Waits until the enclosing archives are verified: names have no separate checks.
    ///
    /// # Errors
    /// As [`MemberRef::content_matches`].
    pub(super) fn confirm_outer(&self, context: &RequestContext) -> Result<(), UnpackError> {
        self.outer.as_ref().map_or(Ok(()), |outer| outer.content_matches(context))
    }
}

impl MemberRef {
    /// Keeps the passes over its archive and those around it running until the result is dropped.
    pub(super) fn join_passes(&self) -> Vec<PassInterest> {
        let outer = self.parent.outer.as_ref().map(MemberRef::join_passes);
        let mut all = outer.unwrap_or_default();
        all.push(self.parent.archive.join_pass());
        all
    }

    fn is_current(&self) -> bool {
        self.parent.archive.entry_number(self.key) == Some(self.entry)
    }

    /// Returns true if its name belongs to it, and nothing can change that any more.
    pub(super) fn is_complete(&self) -> bool {
        self.parent.is_complete() && self.is_current()
    }

    /// Waits until nothing can change it any more.
    ///
    /// # Errors
    /// [`UnpackError`] if its name belongs to another member meanwhile, or damage may affect it.
    pub(super) fn content_matches(&self, context: &RequestContext) -> Result<(), UnpackError> {
        let archive = &self.parent.archive;
        archive.confirm_end(self.key, self.entry, context)?;
        let still_shown = archive.with_table(|table| match (&self.shown, table.node(self.key)) {
            (Some(shown), Some(node)) => shown_in(table, node.parent, &node.name) == *shown,
            _ => true,
        });
        if !still_shown {
            return Err(UnpackError::Replaced { object: archive.path(self.key) });
        }
        self.parent.confirm_outer(context)
    }
}
