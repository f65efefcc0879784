//! What the file system shows at one time: the collection as the last listing had it, and the inode numbers of its snapshots.

use std::sync::{Arc, PoisonError};

use super::error::FsError;
use super::inode::{Inode, Tags};
use super::ops::Ino;
use super::tree_fs::TreeFs;
use dupfs_base::{HasKind, RequestContext};
use dupfs_format::collection::{Collection, Problem, Snapshot};
use dupfs_read::volume::Refreshed;

/// One listing's state. Places of snapshots and lines are good in every later one.
#[derive(Debug)]
pub(super) struct View {
    pub(super) collection: Arc<Collection>,
    tags: Tags,
    lines: Vec<usize>,
}

impl View {
    pub(super) fn new(collection: Arc<Collection>) -> Self {
        Self::after(&Tags::default(), collection)
    }

    fn after(tags: &Tags, collection: Arc<Collection>) -> Self {
        let mut view = Self { tags: tags.extend(collection.snapshots()), collection, lines: Vec::new() };
        view.lines = view.listed().map(|(_, snapshot)| snapshot.branch).collect();
        view.lines.sort_unstable();
        view.lines.dedup();
        view
    }

    /// The lines, in order, that have a snapshot which is listed.
    pub(super) fn lines(&self) -> &[usize] {
        &self.lines
    }

    /// The place of the snapshot that `latest` leads to.
    pub(super) fn latest(&self) -> Option<usize> {
        let latest = self.collection.latest()?;
        self.collection.snapshot_position(latest.set)
    }

    pub(super) fn snapshot(&self, index: usize) -> Result<&Snapshot, FsError> {
        self.collection.snapshots().get(index).ok_or_else(FsError::not_found)
    }

    /// The snapshots that are listed, with their places: those that are gone from the store are reached only by who holds
    /// something of them open.
    pub(super) fn listed(&self) -> impl Iterator<Item = (usize, &Snapshot)> {
        let snapshots = self.collection.snapshots().iter().enumerate();
        snapshots.filter(|(_, snapshot)| !self.collection.is_removed(snapshot.set))
    }

    pub(super) fn number(&self, inode: Inode) -> Ino {
        self.tags.number(inode)
    }

    pub(super) fn resolve(&self, ino: Ino) -> Result<Inode, FsError> {
        self.tags.resolve(ino).ok_or_else(FsError::not_found)
    }
}

impl TreeFs {
    /// What is shown now. Whoever needs two things of it takes both from one view.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lists the store again, and shows what changed; in words, if anything did.
    pub(super) fn take_news(&self, context: &RequestContext) -> Result<Option<String>, FsError> {
        let news = self.repository.refresh(context).map_err(|error| {
            let message = format!("the backup cannot be listed again, and what was shown stays: {error}");
            FsError::failed(error.kind(), message)
        })?;
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *view = Arc::new(View::after(&view.tags, self.repository.collection()));
        drop(view);
        news.problems.iter().for_each(Problem::log);
        Ok(words(&news))
    }
}

fn words(news: &Refreshed) -> Option<String> {
    let some = |what: &str, names: &[Arc<str>]| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")));
    let parts = [some("new snapshots", &news.new), some("no longer in the store", &news.gone)];
    let told: Vec<String> = parts.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}
