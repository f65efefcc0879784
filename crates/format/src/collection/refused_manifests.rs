//! The manifests that a caller has read and refused, such as those without the signature that it requires.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::set::BackupSet;
use crate::ObjectInfo;

/// The manifests that were refused, with the reasons. An object that was replaced since then is not refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedManifests(BTreeMap<(Arc<str>, Arc<str>), Arc<str>>);

impl RefusedManifests {
    /// Adds `object`, the [`BackupSet::proof`] of a set, with the `reason` for which it is refused.
    pub fn add(&mut self, object: &ObjectInfo, reason: Arc<str>) {
        self.0.insert((Arc::clone(&object.name), Arc::clone(&object.version)), reason);
    }

    /// Returns the reason for which the manifest of `set` was refused.
    pub(super) fn reason(&self, set: &BackupSet) -> Option<Arc<str>> {
        let object = set.proof()?;
        self.0.get(&(Arc::clone(&object.name), Arc::clone(&object.version))).cloned()
    }
}
