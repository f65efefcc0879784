//! Rank 5: a file at a snapshot as extents over volumes, and their bytes.
//!
//! A full snapshot of a file is a stream of 64 KiB parts; *offset to part to volume* is arithmetic over the manifest. A
//! delta's copies are slices of the version before, its literals ranges of the delta's own stream: a chain of deltas
//! composes into one flat list of extents.

mod chain;
mod delta;
mod error;
mod file;
mod finder;
mod keep;
mod plan;
mod proof;
mod stream;

use std::sync::{Arc, Mutex};

use crate::tree::VersionId;
use crate::volume::Volumes;
use dupfs_base::sync::lock;
use dupfs_cache::ByteLru;
use dupfs_format::EntryMeta;
use dupfs_format::difftar::DiffKind;

use delta::{Delta, MOST_PIECES, Op};
use file::FileKey;

pub use error::ContentError;
pub use file::FileRef;
pub use plan::Plan;
pub use stream::Stream;

/// What was learnt of one version's stored stream.
#[derive(Clone, Debug)]
struct Located {
    stream: Arc<Stream>,
    delta: Option<Arc<Delta>>,
}

/// What the content layer has learnt: located streams, parsed deltas and composed plans, bounded in bytes.
#[derive(Debug)]
pub struct Content {
    located: Mutex<ByteLru<FileKey, Located>>,
    plans: Mutex<ByteLru<FileKey, Arc<Plan>>>,
    /// Most bytes that one of them counts for: what belongs to a file too large for that is kept all the same, as learning it
    /// again for each request could take hours.
    most: u64,
}

impl Content {
    /// A content layer that keeps up to `bytes` of what it learns.
    pub fn new(bytes: u64) -> Self {
        let half = bytes / 2;
        Self { located: Mutex::new(ByteLru::new(half)), plans: Mutex::new(ByteLru::new(half)), most: half / 4 }
    }

    /// The exact size of `file` in bytes, and the metadata that stands beside its data where that differs from the
    /// signature archive's in time (FORMAT.md 2.3: `duplicity restore` shows the former).
    ///
    /// Costs at most the file's last volume in the newest set that holds it; for a delta, the delta's volumes.
    ///
    /// # Errors
    /// [`ContentError`] when the size cannot be known.
    pub fn stat(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<(u64, Option<EntryMeta>), ContentError> {
        let version = file.version().ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        if let Some(plan) = self.known_plan(file, version.id).or_else(|| self.recall_plan(volumes, file)) {
            // Only of files that are stored as they were signed there is a plan.
            keep::learn_size(volumes, file, version, plan.size());
            return Ok((plan.size(), None));
        }
        let newest = self.locate(volumes, file, 0)?;
        let size = newest.delta.as_ref().map_or(newest.stream.len, |d| d.out_len);
        if version.bounds.is_some_and(|b| !b.contains(size)) && newest.stream.meta.mtime == version.mtime {
            let set = file::set_label(volumes, newest.stream.set);
            return Err(ContentError::Size { path: file.path.clone(), set, size });
        }
        let other = (newest.stream.meta.mtime != version.mtime).then(|| newest.stream.meta.clone());
        if other.is_none() {
            keep::learn_size(volumes, file, version, size);
        }
        Ok((size, other))
    }

    /// The plan of a file with deltas as the index has it.
    fn recall_plan(&self, volumes: &dyn Volumes, file: &FileRef) -> Option<Arc<Plan>> {
        let plan = Arc::new(keep::recall_plan(volumes, file)?);
        self.keep_plan(file, file.version()?.id, &plan);
        Some(plan)
    }

    fn keep_plan(&self, file: &FileRef, version: VersionId, plan: &Arc<Plan>) {
        let evicted = lock(&self.plans).insert(file.key(version), Arc::clone(plan), plan.weight().min(self.most));
        drop(evicted);
    }

    /// The plan of `file`.
    ///
    /// # Errors
    /// [`ContentError`] when a delta or the base of the chain cannot be found or read.
    pub fn plan(&self, volumes: &dyn Volumes, file: &FileRef) -> Result<Arc<Plan>, ContentError> {
        let version = file.version().ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        if let Some(plan) = self.known_plan(file, version.id).or_else(|| self.recall_plan(volumes, file)) {
            return Ok(plan);
        }
        let mut pending: Vec<(Arc<Stream>, Arc<Delta>)> = Vec::new();
        let mut base: Option<Arc<Plan>> = None;
        // Whether the newest version is stored in the state that was signed: others are no base, so their plans are not kept.
        let mut signed = true;
        let mut located = 1;
        for (index, older) in file.history.iter().enumerate() {
            if let Some(newer) = index.checked_sub(1).and_then(|i| file.history.get(i)) {
                file.check_succession(volumes, *newer, *older)?;
            }
            if let Some(known) = self.known_plan(file, older.id) {
                base = Some(known);
                break;
            }
            if index == located {
                located = self.locate_ahead(volumes, file, index);
            }
            let Located { stream, delta } = self.locate_base(volumes, file, index)?;
            let size = delta.as_ref().map_or(stream.len, |d| d.out_len);
            if index > 0 {
                file.check_base(volumes, &stream, size)?;
            } else {
                signed = stream.meta.mtime == older.mtime && older.bounds.is_none_or(|b| b.contains(size));
            }
            match delta {
                None => {
                    base = Some(Arc::new(Plan::of_stream(stream)));
                    break;
                }
                Some(delta) => {
                    let goes_on = delta.has_copies();
                    pending.push((stream, delta));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        if base.is_none()
            && let Some((stream, delta)) = pending.last()
            && delta.has_copies()
        {
            let set = file::set_label(volumes, stream.set);
            return Err(ContentError::NoBase { path: file.path.clone(), set });
        }
        let composed = !pending.is_empty();
        for (stream, delta) in pending.into_iter().rev() {
            let set = stream.set;
            let composed = Plan::compose(base.as_deref(), &delta, stream, MOST_PIECES);
            base = Some(Arc::new(composed.ok_or_else(|| delta::too_many(volumes, file, set))?));
        }
        let plan = base.ok_or_else(|| ContentError::NotFile { path: file.path.clone() })?;
        if signed {
            self.keep_plan(file, version.id, &plan);
            if composed {
                keep::keep_plan(volumes, file, &plan);
            }
        }
        Ok(plan)
    }

    /// As [`Self::locate`], but the oldest version that a delta may apply to is located only as far as it is read.
    fn locate_base(&self, volumes: &dyn Volumes, file: &FileRef, index: usize) -> Result<Located, ContentError> {
        let oldest = index > 0 && index.saturating_add(1) == file.history.len();
        let version = file.history.get(index).filter(|_| oldest);
        let known = version.and_then(|version| lock(&self.located).get(&file.key(version.id)).cloned());
        if let Some(located) = known {
            return Ok(located);
        }
        match version.and_then(|version| Stream::assume_base(file, version.position)) {
            Some(stream) => Ok(Located { stream: Arc::new(stream), delta: None }),
            None => self.locate(volumes, file, index),
        }
    }

    fn known_plan(&self, file: &FileRef, version: VersionId) -> Option<Arc<Plan>> {
        lock(&self.plans).get(&file.key(version)).cloned()
    }

    /// The stream, and for deltas the ops, of the version `index` steps back in the file's history.
    fn locate(&self, volumes: &dyn Volumes, file: &FileRef, index: usize) -> Result<Located, ContentError> {
        let not_file = || ContentError::NotFile { path: file.path.clone() };
        let version = file.history.get(index).ok_or_else(not_file)?;
        let key = file.key(version.id);
        let known = lock(&self.located).get(&key).cloned();
        if let Some(located) = known {
            return Ok(located);
        }
        let stream = Arc::new(Stream::locate(volumes, file, version.position)?);
        let delta = match stream.kind {
            DiffKind::Diff => Some(Arc::new(Delta::read(volumes, file, &stream)?)),
            DiffKind::Snapshot | DiffKind::Deleted => None,
        };
        let ops = delta.as_ref().map_or(0, |d| d.ops.len() * size_of::<Op>());
        let weight = stream.weight().saturating_add((ops + size_of::<Delta>()) as u64);
        let located = Located { stream, delta };
        let evicted = lock(&self.located).insert(key, located.clone(), weight.min(self.most));
        drop(evicted);
        Ok(located)
    }
}
