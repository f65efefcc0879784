//! The limits of the entries of one set: their memory, and the length of their paths.

use std::sync::Arc;

use super::growth_estimate::GrowthEstimate;
use super::missing_range::MissingRange;
use super::version_table::Change;
use crate::volume::{TableAllowance, VolumeError};
use dupfs_base::ErrorKind;
use dupfs_format::{ArchivePath, MAX_PATH_LEN};

/// Overlong paths of a set whose directories are known; their listings end in an error.
const MAX_RANGES: usize = 16;
/// Upper bound of the bytes of a name that is kept of an overlong path. The kernel requests no longer one.
const MAX_NAME_LEN: usize = 1024;

/// Checks the entries of one set before they are stored.
#[derive(Debug)]
pub(super) struct SetLimits {
    allowance: TableAllowance,
    growth: GrowthEstimate,
    position: u32,
    reason: Arc<str>,
    overlong: u64,
    first_overlong: Option<ArchivePath>,
    ranges: Vec<MissingRange>,
    range_bytes: u64,
}

impl SetLimits {
    /// The limits of the set at `position`, whose entries come from `object`.
    pub(super) fn new(position: u32, object: &str, allowance: TableAllowance) -> Self {
        let reason = format!(
            "{object}: it has a path of more than {MAX_PATH_LEN} bytes, which is left out; duplicity writes no such path"
        );
        Self {
            allowance,
            growth: GrowthEstimate::default(),
            position,
            reason: reason.into(),
            overlong: 0,
            first_overlong: None,
            ranges: Vec::new(),
            range_bytes: 0,
        }
    }

    /// Checks the next entry; `staged` bytes of memory are used for those before it beside the table. Returns false if it is
    /// to be left out, because its path is too long.
    ///
    /// # Errors
    /// [`VolumeError`] if there is no memory for it.
    pub(super) fn admit(&mut self, path: &ArchivePath, change: &Change, staged: u64) -> Result<bool, VolumeError> {
        if let Some((dir, name)) = path.overlong() {
            self.overlong = self.overlong.saturating_add(1);
            self.first_overlong.get_or_insert_with(|| dir.clone());
            if self.ranges.len() < MAX_RANGES {
                let name = name.get(..MAX_NAME_LEN).unwrap_or(name);
                self.range_bytes = self.range_bytes.saturating_add(4 * MAX_PATH_LEN as u64);
                let kind = ErrorKind::Unsupported;
                self.ranges.push(MissingRange::single(self.position, dir, name, &self.reason, kind));
            }
            return Ok(false);
        }
        let bytes = self.growth.add(path, change).saturating_add(staged).saturating_add(self.range_bytes);
        self.allowance.check(bytes).map(|()| true)
    }

    /// Ends the set. Returns its share of memory, and where paths were left out, which is logged.
    pub(super) fn finish(self) -> (TableAllowance, Vec<MissingRange>) {
        if let Some(dir) = &self.first_overlong {
            log::error!("{} ({} such entries; the first is below {dir})", self.reason, self.overlong);
        }
        (self.allowance, self.ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::path;
    use super::*;
    use crate::volume::TableMemory;
    use dupfs_base::HasKind;

    #[test]
    fn an_overlong_path_is_left_out_and_hides_nothing_else() {
        let memory = TableMemory::new(1 << 20);
        let mut limits = SetLimits::new(0, "x.sigtar.gz", memory.allowance(&"x.sigtar.gz".into(), 1000));
        let dir = "d/".repeat(2000);
        let mut admit = |text: &str| limits.admit(&path(text), &Change::Deleted, 0).unwrap();
        assert!(admit("a") && !admit(&format!("{dir}{}", "n".repeat(200))) && admit("b"));
        let (_allowance, ranges) = limits.finish();
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges.first().and_then(|range| range.after.clone()), Some(path(&dir)));
        assert_eq!(ranges.first().map(|range| range.kind), Some(ErrorKind::Unsupported));
    }

    #[test]
    fn paths_that_the_stored_bytes_do_not_explain_are_refused() {
        let memory = TableMemory::new(1 << 20);
        let mut limits = SetLimits::new(0, "x.sigtar.gz", memory.allowance(&"x.sigtar.gz".into(), 1000));
        // Each has 2,000 directories that no other has.
        let refused = (0..100).find_map(|i| {
            let text = format!("{i}/{}", "d/".repeat(2000));
            limits.admit(&path(&text), &Change::Deleted, 0).err()
        });
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(refused.to_string().contains("raise --memory"), "{refused}");
    }
}
