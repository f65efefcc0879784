//! The branches of a collection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::branch::Branch;
use dupfs_base::sync::lock;
use dupfs_format::SetIndex;

/// All branches of a collection.
#[derive(Debug, Default)]
pub struct Branches {
    branches: Mutex<HashMap<usize, Arc<Branch>>>,
}

impl Branches {
    /// The branch numbered `number` over `sets`; created at its first use. It grows with `sets`, which always begin with those
    /// that the branch had before.
    pub fn branch(&self, number: usize, sets: &Arc<[SetIndex]>) -> Arc<Branch> {
        let mut branches = lock(&self.branches);
        let branch = Arc::clone(branches.entry(number).or_insert_with(|| Arc::new(Branch::new(Arc::clone(sets)))));
        drop(branches);
        branch.grow(sets);
        branch
    }

    /// Saves the trees that are not in the index, and waits until they are.
    pub fn finish(&self) {
        self.all().iter().for_each(|branch| branch.finish());
    }

    fn all(&self) -> Vec<Arc<Branch>> {
        lock(&self.branches).values().cloned().collect()
    }

    /// Number of paths in the sets that are loaded.
    pub fn paths(&self) -> u64 {
        let branches = self.all();
        branches.iter().map(|branch| branch.table().len() as u64).fold(0, u64::saturating_add)
    }
}

impl Drop for Branches {
    fn drop(&mut self) {
        self.finish();
    }
}
