//! The time at which an encrypted message was written, against the time in the name of its object.
//!
//! The names of objects are not authenticated: anyone who can write to the store can copy an old set to the names of a new
//! time. The literal data packet has the time at which gpg encrypted it, under the integrity code, and a signature has the
//! time at which it was made. duplicity encrypts the objects of a set after the time of the set, or much later if a run is
//! resumed, but never before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::backdated_object::BackdatedObject;
use super::error::CodecError;
use super::object_context::ObjectContext;
use dupfs_format::BackupTime;

/// The times at which objects were written, as far as they are of interest.
#[derive(Debug, Default)]
pub(super) struct WrittenTimes {
    /// The objects that were found to be older than their sets, one for each set.
    backdated: Mutex<BTreeMap<BackupTime, BackdatedObject>>,
    /// Of the objects whose times are recorded: one manifest and one signature archive for each set.
    by_name: Mutex<HashMap<Arc<str>, BackupTime>>,
}

impl WrittenTimes {
    /// Records that the object `ctx` was `written` at that time, if its time is to be recorded.
    fn record(&self, ctx: &ObjectContext, written: BackupTime) {
        if ctx.records_time {
            let mut times = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
            times.insert(Arc::clone(&ctx.object), written);
        }
    }

    /// Returns the time at which `object` was written, if it was recorded.
    pub(super) fn of(&self, object: &str) -> Option<BackupTime> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).get(object).copied()
    }

    /// Adds the object `ctx` if it was `written` before the time of its set. The first one of each set is logged.
    fn check(&self, ctx: &ObjectContext, written: BackupTime) {
        let Some(found) = find(ctx, written) else { return };
        let line = format!("{}: {}; use it only if you know why; --sign-key refuses it", found.object, found.finding());
        let mut known = self.backdated.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !known.contains_key(&found.set_time);
        known.entry(found.set_time).or_insert(found);
        drop(known);
        if is_first {
            log::warn!("{line}");
        }
    }

    /// Returns all backdated objects found so far, by the times of their sets.
    pub(super) fn backdated(&self) -> Vec<BackdatedObject> {
        self.backdated.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The rule that a message must meet about the time at which it was written.
#[derive(Clone, Debug)]
pub(super) struct WrittenTimeRule {
    pub(super) times: Arc<WrittenTimes>,
    /// True if messages that are too old are refused. Otherwise they are recorded and logged.
    pub(super) refuses: bool,
}

impl WrittenTimeRule {
    /// Applies the rule to the object `ctx`, whose literal data packet has `date`. 0 means unknown (RFC 4880 section 5.9).
    /// It counts as written when it was `signed`, if a good signature states that.
    ///
    /// # Errors
    /// [`CodecError::Backdated`].
    pub(super) fn apply(&self, ctx: &ObjectContext, date: u32, signed: Option<BackupTime>) -> Result<(), CodecError> {
        let dated = (date != 0).then_some(BackupTime(date.into()));
        if let Some(written) = dated {
            match self.refuses {
                false => self.times.check(ctx, written),
                true => refuse(ctx, written)?,
            }
        }
        if let Some(written) = signed.or(dated) {
            self.times.record(ctx, written);
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

    fn context(set_time: Option<i64>, records_time: bool) -> ObjectContext {
        ObjectContext::new(DatedName { name: "x", set_time: set_time.map(BackupTime), records_time })
    }

    fn rule(refuses: bool) -> WrittenTimeRule {
        WrittenTimeRule { times: Arc::default(), refuses }
    }

    fn found(set_time: Option<i64>, date: u32) -> bool {
        let ctx = context(set_time, false);
        let recording = rule(false);
        recording.apply(&ctx, date, None).unwrap();
        let refused = rule(true).apply(&ctx, date, None).is_err();
        assert_eq!(refused, !recording.times.backdated().is_empty());
        assert_eq!(recording.times.of("x"), None);
        refused
    }

    #[test]
    fn the_time_of_the_signature_counts_before_that_of_the_data() {
        let rule = rule(true);
        let recorded = |date, signed: Option<i64>| {
            rule.apply(&context(Some(5), true), date, signed.map(BackupTime)).unwrap();
            rule.times.of("x")
        };
        assert_eq!(recorded(0, None), None);
        assert_eq!(recorded(7, None), Some(BackupTime(7)));
        assert_eq!(recorded(7, Some(6)), Some(BackupTime(6)));
        assert_eq!(recorded(0, Some(8)), Some(BackupTime(8)));
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
