//! Fetches the volumes of small sets ahead: a reader of many files finds the small changes of each increment in a volume of its own,
//! and would wait for a round trip for each.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::live_collection::LiveCollection;
use crate::storage::{StagedBatch, StagedStore};
use dupfs_base::sync::lock;
use dupfs_base::{CancelToken, RequestContext};
use dupfs_format::{SetIndex, VolumeId};

/// Upper bound of the stored bytes of a small volume.
const MAX_SMALL_BYTES: u64 = 128 << 10;
/// Files in small volumes of different sets, read within [`MAX_PAUSE`], after which the others are expected to be read too.
const SCANNED_FILES: usize = 3;
/// Upper bound of the volumes that are fetched ahead at a time, and of their bytes.
const MAX_AHEAD: usize = 64;
const MAX_AHEAD_BYTES: u64 = 4 << 20;
/// The time after which volumes that were fetched ahead and not read are forgotten, at the next read of a volume.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// The small volumes that readers requested last, and those that are fetched ahead.
#[derive(Debug)]
pub(super) struct SmallVolumes {
    staging: Arc<StagedStore>,
    collection: Arc<LiveCollection>,
    state: Mutex<SmallVolumesState>,
}

#[derive(Debug)]
struct SmallVolumesState {
    /// The sets whose small volumes were read or fetched ahead.
    seen: HashSet<SetIndex>,
    /// The number of files in new sets that were read one after the other, and the last of them.
    run: usize,
    file: Option<u64>,
    last: Instant,
    ahead: Option<StagedBatch>,
}

impl SmallVolumes {
    /// Fetches into `staging`.
    pub(super) fn new(staging: Arc<StagedStore>, collection: Arc<LiveCollection>) -> Self {
        let state = SmallVolumesState { seen: HashSet::new(), run: 0, file: None, last: Instant::now(), ahead: None };
        Self { staging, collection, state: Mutex::new(state) }
    }

    /// Records a read of the file that hints name as `file`, from volume `id`. Fetches the small volumes of other sets if files in
    /// several were read. The deltas of one file say nothing about other sets.
    pub(super) fn record_read(&self, id: VolumeId, file: u64) {
        let Ok(set) = self.collection.set(id.set) else { return };
        let Some(object) = set.volumes.get(&id.number) else { return };
        let mut state = lock(&self.state);
        let is_late = state.last.elapsed() > MAX_PAUSE;
        let forgotten = if is_late { state.ahead.take() } else { None };
        if is_late {
            state.run = 0;
            state.seen.clear();
        }
        state.last = Instant::now();
        let is_new = object.size <= MAX_SMALL_BYTES && state.seen.insert(id.set);
        let is_other_file = is_new && state.file.replace(file) != Some(file);
        if is_other_file {
            state.run = state.run.saturating_add(1);
        }
        let replaced = if is_other_file && state.run >= SCANNED_FILES { self.stage(&mut state) } else { None };
        drop(state);
        drop((forgotten, replaced));
    }

    /// Fetches the next small volumes. Returns the batch before.
    fn stage(&self, state: &mut SmallVolumesState) -> Option<StagedBatch> {
        let collection = self.collection.current();
        let mut bytes = 0u64;
        let small = collection.sets().iter().filter(|set| !collection.is_removed(set.index)).filter_map(|set| {
            let object = set.volumes.values().next().filter(|_| set.volumes.len() == 1)?;
            let is_wanted =
                object.size <= MAX_SMALL_BYTES && object.archived.is_none() && !state.seen.contains(&set.index);
            is_wanted.then(|| (set.index, object.clone()))
        });
        let within = small.take(MAX_AHEAD).take_while(|(_, object)| {
            bytes = bytes.saturating_add(object.size);
            bytes <= MAX_AHEAD_BYTES
        });
        let (sets, objects): (Vec<_>, Vec<_>) = within.unzip();
        if sets.is_empty() {
            return None;
        }
        state.seen.extend(sets);
        // The next ones are fetched when as many were read again.
        state.run = 0;
        let context = RequestContext::new(Instant::now().checked_add(MAX_PAUSE), CancelToken::new());
        state.ahead.replace(self.staging.stage(objects, &context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{CountingStore, MemoryStore, ObjectStore};
    use dupfs_base::ByteRange;
    use dupfs_format::VolumeNumber;
    use dupfs_format::collection::{Collection, PrefixOptions};
    use std::io::Read;

    #[test]
    fn the_third_small_volume_brings_those_of_all_sets() {
        let memory = MemoryStore::new();
        let day = |n: usize| format!("202601{:02}T000000Z", n + 1);
        for n in 0..20 {
            let name = match n {
                0 => format!("full.{}", day(0)),
                n => format!("inc.{}.to.{}", day(n - 1), day(n)),
            };
            let len = if n == 0 { 300 << 10 } else { 1000 + n };
            memory.put(&format!("duplicity-{name}.vol1.difftar.gz"), vec![1; len]);
            memory.put(&format!("duplicity-{name}.manifest"), vec![1; 10]);
            let kind = if n == 0 { "full-signatures".to_owned() } else { "new-signatures".to_owned() };
            let times = name.split_once('.').unwrap().1;
            memory.put(&format!("duplicity-{kind}.{times}.sigtar.gz"), vec![1; 10]);
        }
        let store = Arc::new(CountingStore::new(memory));
        let context = RequestContext::unlimited();
        let collection = Collection::from_listing(&store.list(&context).unwrap(), &PrefixOptions::default()).unwrap();
        let staging = Arc::new(StagedStore::new(Arc::<CountingStore<MemoryStore>>::clone(&store)));
        let sets: Vec<_> = collection.sets().to_vec();
        let live = Arc::new(LiveCollection::new(Arc::<StagedStore>::clone(&staging), collection, None));
        let small = SmallVolumes::new(Arc::clone(&staging), live);
        let read = |index: usize| {
            let set = &sets[index];
            let object = set.volumes.values().next().unwrap();
            let mut stream = staging.open(object, ByteRange::at(0, object.size), &context).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            small.record_read(VolumeId { set: set.index, number: VolumeNumber(1) }, index as u64);
            store.total().opens
        };
        // The full set is no small one.
        assert_eq!([0, 1, 2].map(read), [1, 2, 3]);
        read(3);
        for index in 4..20 {
            read(index);
        }
        assert_eq!(store.total().opens, 20, "each volume once");
    }
}
