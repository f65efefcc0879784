//! Names of owners and groups, shared by consecutive entries.

use std::sync::Arc;

/// The names of the owner and the group of the entry before. Most entries of an archive have the same ones, so that an
/// entry takes no memory for them.
#[derive(Clone, Debug, Default)]
pub struct LastOwnerNames {
    uname: Arc<[u8]>,
    gname: Arc<[u8]>,
}

impl LastOwnerNames {
    /// Returns the names of the next entry: those of the entry before where they are equal.
    pub fn share(&mut self, uname: &[u8], gname: &[u8]) -> (Arc<[u8]>, Arc<[u8]>) {
        for (last, name) in [(&mut self.uname, uname), (&mut self.gname, gname)] {
            if **last != *name {
                *last = name.into();
            }
        }
        (Arc::clone(&self.uname), Arc::clone(&self.gname))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_shared_and_others_are_not() {
        let mut names = LastOwnerNames::default();
        let (first, group) = names.share(b"root", b"adm");
        let (second, other) = names.share(b"root", b"");
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((&*group, &*other), (b"adm".as_slice(), b"".as_slice()));
        let (third, _) = names.share(b"roo", b"");
        assert_eq!((&*first, &*third), (b"root".as_slice(), b"roo".as_slice()));
    }
}
