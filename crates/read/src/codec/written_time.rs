//! The time at which an encrypted message was written, against the time in the name of its object.
//!
//! The names of objects are not authenticated: anyone who can write to the store can copy an old set to the names of a new
//! time. The literal data packet has the time at which gpg encrypted it, under the integrity code, and a signature has the
//! time at which it was made. duplicity encrypts the objects of a set after the time of the set, or much later if a run is
//! resumed, but never before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::backdated_object::BackdatedObject;
use super::error::CodecError;
use super::object_context::ObjectContext;
use dupfs_format::BackupTime;

/// The objects that were found to be older than their sets, one for each set.
#[derive(Debug, Default)]
pub(super) struct BackdatedObjects(Mutex<BTreeMap<BackupTime, BackdatedObject>>);

impl BackdatedObjects {
    /// Adds the object `ctx` if it was `written` before the time of its set. The first one of each set is logged.
    pub(super) fn check(&self, ctx: &ObjectContext, written: BackupTime) {
        let Some(found) = find(ctx, written) else { return };
        let line = format!("{}: {}; use it only if you know why; --sign-key refuses it", found.object, found.finding());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !known.contains_key(&found.set_time);
        known.entry(found.set_time).or_insert(found);
        drop(known);
        if is_first {
            log::warn!("{line}");
        }
    }

    /// Returns all objects found so far, by the times of their sets.
    pub(super) fn all(&self) -> Vec<BackdatedObject> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The rule that a message must meet about the time at which it was written.
#[derive(Clone, Debug)]
pub(super) enum WrittenTimeRule {
    /// Messages that are too old are recorded and logged.
    Record(Arc<BackdatedObjects>),
    /// Messages that are too old are refused.
    Refuse,
}

impl WrittenTimeRule {
    /// Applies the rule to the object `ctx`, whose literal data packet has `date`. 0 means unknown (RFC 4880 section 5.9).
    ///
    /// # Errors
    /// [`CodecError::Backdated`].
    pub(super) fn apply(&self, ctx: &ObjectContext, date: u32) -> Result<(), CodecError> {
        if date == 0 {
            return Ok(());
        }
        let written = BackupTime(date.into());
        match self {
            Self::Record(objects) => objects.check(ctx, written),
            Self::Refuse => refuse(ctx, written)?,
        }
        Ok(())
    }
}

fn find(ctx: &ObjectContext, written: BackupTime) -> Option<BackdatedObject> {
    BackdatedObject::find(&ctx.object, ctx.set_time?, written)
}

/// Refuses the object `ctx` if it was `written` before the time of its set.
///
/// # Errors
/// [`CodecError::Backdated`].
pub(super) fn refuse(ctx: &ObjectContext, written: BackupTime) -> Result<(), CodecError> {
    match find(ctx, written) {
        Some(found) => Err(CodecError::Backdated(found)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dated_name::DatedName;
    use super::*;

    fn found(set_time: Option<i64>, date: u32) -> bool {
        let ctx = ObjectContext::new(DatedName { name: "x", set_time: set_time.map(BackupTime) });
        let objects = Arc::new(BackdatedObjects::default());
        WrittenTimeRule::Record(Arc::clone(&objects)).apply(&ctx, date).unwrap();
        let refused = WrittenTimeRule::Refuse.apply(&ctx, date).is_err();
        assert_eq!(refused, !objects.all().is_empty());
        refused
    }

    #[test]
    fn a_message_may_be_a_day_older_than_its_set_and_any_time_newer() {
        let set = 1_700_000_000;
        assert!(found(Some(i64::from(set)), set - 86_401));
        for date in [set - 86_400, set, set + 500 * 86_400, 0] {
            assert!(!found(Some(i64::from(set)), date), "{date}");
        }
        assert!(!found(None, 1));
        assert!(found(Some(i64::MAX), u32::MAX));
        assert!(!found(Some(i64::MIN), 1));
    }
}
