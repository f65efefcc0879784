//! The copies of each object in the stores of a `multi:` URL, and those of them that readers have found damaged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::super::{ObjectInfo, StorageError};
use dupfs_base::sync::lock;

/// Objects whose reads are recorded, apart from those with rejected copies.
const MAX_READS: usize = 4096;

/// The copies of one object: the stores that have it, and its state in each. Copies of one size replace each other within a read;
/// those of another size are read only if a reader has rejected all larger ones.
pub(super) type Copies = Vec<(usize, ObjectInfo)>;

/// The copies of all objects by the last listing, and the reads of them.
#[derive(Debug, Default)]
pub(super) struct ObjectCopies {
    listed: Mutex<Arc<HashMap<Arc<str>, Copies>>>,
    reads: Mutex<HashMap<Arc<str>, ObjectReads>>,
}

/// The reads of an object, as long as its copies are these.
#[derive(Debug)]
struct ObjectReads {
    copies: Copies,
    /// The stores whose copy is damaged.
    damaged: Vec<usize>,
    versions: Vec<ReadVersion>,
}

/// A version of an object by which readers name it: that of the listing, or one without the copies that they rejected.
#[derive(Debug)]
struct ReadVersion {
    version: Arc<str>,
    rejected: Vec<usize>,
    /// The store from which it was read last.
    member: Option<usize>,
}

impl ObjectReads {
    fn new(copies: &Copies) -> Self {
        Self { copies: copies.clone(), damaged: Vec::new(), versions: Vec::new() }
    }

    fn version(&self, version: &str) -> Option<&ReadVersion> {
        self.versions.iter().find(|read| &*read.version == version)
    }

    /// The copies that are read for `object`: those of its size, no rejected ones, and damaged ones only if there are no others.
    fn choose(&self, object: &ObjectInfo) -> Copies {
        let is_rejected = |at: &usize| self.version(&object.version).is_some_and(|read| read.rejected.contains(at));
        let copies = self.copies.iter().filter(|(_, copy)| copy.size == object.size);
        let left: Copies = copies.filter(|(at, _)| !is_rejected(at)).cloned().collect();
        let sound: Copies = left.iter().filter(|(at, _)| !self.damaged.contains(at)).cloned().collect();
        if sound.is_empty() { left } else { sound }
    }
}

impl ObjectCopies {
    /// Adopts the copies of a new listing.
    pub(super) fn replace(&self, copies: HashMap<Arc<str>, Copies>) {
        lock(&self.reads).retain(|name, reads| copies.get(name).is_some_and(|listed| *listed == reads.copies));
        *lock(&self.listed) = Arc::new(copies);
    }

    /// The copies from which `object` may be read, in the order of their stores.
    ///
    /// # Errors
    /// [`StorageError`] if the object is not listed, or was replaced.
    pub(super) fn choose(&self, object: &ObjectInfo) -> Result<Copies, StorageError> {
        let all = Arc::clone(&lock(&self.listed));
        let copies = all.get(&object.name).ok_or_else(|| StorageError::missing(object))?;
        let reads = lock(&self.reads);
        let reads = reads.get(&object.name).filter(|reads| reads.copies == *copies);
        let is_listed = copies.iter().any(|(_, copy)| copy == object);
        match reads {
            Some(reads) if is_listed || reads.version(&object.version).is_some() => Ok(reads.choose(object)),
            None if is_listed => Ok(ObjectReads::new(copies).choose(object)),
            _ => Err(StorageError::replaced(object)),
        }
    }

    /// Records that `object` is read from its first byte in the store `member`.
    pub(super) fn record(&self, object: &ObjectInfo, member: usize) {
        let all = Arc::clone(&lock(&self.listed));
        let Some(copies) = all.get(&object.name) else { return };
        let mut reads = lock(&self.reads);
        if reads.len() >= MAX_READS && !reads.contains_key(&object.name) {
            reads.retain(|_, reads| !reads.damaged.is_empty() || reads.versions.len() > 1);
        }
        let reads = reads.entry(Arc::clone(&object.name)).or_insert_with(|| ObjectReads::new(copies));
        let ObjectReads { damaged, versions, .. } = reads;
        match versions.iter_mut().find(|read| read.version == object.version) {
            // Another reader may have the damaged copy and not know it yet.
            Some(read) if read.member.is_some_and(|before| damaged.contains(&before)) => {}
            Some(read) => read.member = Some(member),
            None => {
                let version = Arc::clone(&object.version);
                versions.push(ReadVersion { version, rejected: Vec::new(), member: Some(member) });
            }
        }
    }

    /// Rejects the copy from which `object` was read last, for all readers if it `is_damaged`. Returns its store, and the object
    /// without this copy if there are others. `None` if the object is not listed any more.
    ///
    /// A read that another store continued counts as one of the first store: if the other copy is sound as a whole, the
    /// damage was in the part of the first one.
    pub(super) fn reject(&self, object: &ObjectInfo, is_damaged: bool) -> Option<(usize, Option<ObjectInfo>)> {
        let candidates = self.choose(object).ok()?;
        let all = Arc::clone(&lock(&self.listed));
        let copies = all.get(&object.name)?;
        let mut reads = lock(&self.reads);
        let reads = reads.entry(Arc::clone(&object.name)).or_insert_with(|| ObjectReads::new(copies));
        let read = reads.version(&object.version);
        let mut rejected = read.map(|read| read.rejected.clone()).unwrap_or_default();
        let member = read.and_then(|read| read.member).or_else(|| candidates.first().map(|(at, _)| *at))?;
        rejected.push(member);
        if is_damaged && !reads.damaged.contains(&member) {
            reads.damaged.push(member);
        }
        // The largest one that is left: the copies are in this order.
        let size = reads.copies.iter().find(|(at, _)| !rejected.contains(at)).map(|(_, copy)| copy.size);
        let other = size.map(|size| {
            let version: Arc<str> = format!("{}, not of store {member}", object.version).into();
            if reads.version(&version).is_none() {
                let version = Arc::clone(&version);
                reads.versions.push(ReadVersion { version, rejected, member: None });
            }
            ObjectInfo { version, size, ..object.clone() }
        });
        Some((member, other))
    }
}
