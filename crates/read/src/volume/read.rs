//! Reading from a volume: from the cache where it holds the blocks, else by one decode that all readers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::VolumeError;
use super::member_table::MemberTable;
use super::pass::{self, BLOCK, BlockSink};
use super::prefetcher::ReadHint;
use super::repository::{Repository, WORTH_TWO};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, RequestContext, Stopped};
use dupfs_format::VolumeId;

/// A block: its volume, the pass that decoded it, and its number.
type BlockKey = (VolumeId, u32, u32);

/// Blocks of plaintext, in order.
type Blocks = Vec<Arc<[u8]>>;

/// Called with the number of each block while a volume is prefetched.
pub(super) type Progress = Box<dyn FnMut(u32) + Send>;

/// The outcome of a pass over a volume that requests share.
#[derive(Clone, Debug)]
pub(super) struct DecodedVolume {
    table: Arc<MemberTable>,
    /// The blocks that the request wanted whose pass it was: it is served however small the cache is.
    first: u32,
    blocks: Arc<[Arc<[u8]>]>,
}

impl DecodedVolume {
    /// The blocks of `range`, if they are all among those that came with the pass.
    fn blocks_of(&self, range: ByteRange) -> Option<Blocks> {
        block_range(range).map(|index| self.blocks.get(index.checked_sub(self.first)? as usize).cloned()).collect()
    }
}

/// How often a reader joins somebody else's decode before it runs one for its own range.
const JOINS: usize = 2;

impl Repository {
    /// The member table of volume `id`, decoding the volume if it is not at hand.
    ///
    /// # Errors
    /// [`VolumeError`] when the volume is missing, damaged or cannot be decrypted.
    pub fn members(self: &Arc<Self>, id: VolumeId, context: &RequestContext) -> Result<Arc<MemberTable>, VolumeError> {
        if let Some(table) = self.cached_members(id) {
            return Ok(table);
        }
        context.check_may_block()?;
        match self.load_members(id, context)? {
            Some(table) => Ok(table),
            None => self.decode_for_reader(id, ByteRange::at(0, 0), context).map(|decoded| decoded.table),
        }
    }

    /// Decodes volume `id`, for which nobody waits yet, if its blocks are not at hand; `progress` is told the number of each.
    ///
    /// # Errors
    /// As [`Self::members`].
    pub(super) fn prepare(
        self: &Arc<Self>,
        id: VolumeId,
        progress: Progress,
        context: &RequestContext,
    ) -> Result<(), VolumeError> {
        if self.is_cached(id) {
            return Ok(());
        }
        self.decode(id, ByteRange::at(0, 0), Some(progress), context).map(drop)
    }

    /// Whether volume `id` was decoded since the repository was opened.
    pub fn was_decoded(&self, id: VolumeId) -> bool {
        self.verified.pass_of(id, 0).is_some()
    }

    /// Whether the beginning of volume `id` can be read without decoding it.
    pub(super) fn is_cached(&self, id: VolumeId) -> bool {
        self.verified.pass_of(id, 0).is_some_and(|pass| self.blocks.contains(&(id, pass, 0)))
    }

    /// The member table of volume `id` if it is at hand.
    pub fn cached_members(&self, id: VolumeId) -> Option<Arc<MemberTable>> {
        let kept = lock(&self.tables).get(&id).cloned();
        kept.or_else(|| lock(&self.outsize).as_ref().filter(|(of, _)| *of == id).map(|(_, table)| Arc::clone(table)))
    }

    /// Whether any volume's member table is at hand.
    pub fn has_tables(&self) -> bool {
        !lock(&self.tables).is_empty() || lock(&self.outsize).is_some()
    }

    /// Appends the bytes `range` of volume `id` to `out` if they can be read without fetching or decoding.
    ///
    /// # Errors
    /// [`VolumeError::Stopped`] if they are not cached, or [`VolumeError::Range`] beyond the volume's end; then `out` is as it was.
    pub fn read_cached(
        &self,
        id: VolumeId,
        range: ByteRange,
        reader: ReadHint,
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        if range.is_empty() {
            return Ok(());
        }
        // Neither the cache's disk is asked, which may be slow or hang.
        let in_memory = |key: &BlockKey| self.blocks.get_in_memory(key);
        let blocks = self.collect(id, range, in_memory).ok_or(Stopped::WouldBlock)?;
        self.copy_out(id, range, &blocks, out)?;
        self.note_data(id, range, reader);
        Ok(())
    }

    /// Appends the bytes `range` of the plaintext of volume `id` to `out`, for `reader`.
    ///
    /// # Errors
    /// [`VolumeError`] when the volume cannot be read or ends before the range does; then `out` is as it was.
    pub fn read_volume(
        self: &Arc<Self>,
        id: VolumeId,
        range: ByteRange,
        reader: ReadHint,
        out: &mut Vec<u8>,
        context: &RequestContext,
    ) -> Result<(), VolumeError> {
        if range.is_empty() {
            return Ok(());
        }
        self.read_waiting(id, range, out, context)?;
        self.note_data(id, range, reader);
        Ok(())
    }

    /// Takes note that bytes were read, and not only asked for where they are.
    fn note_data(&self, id: VolumeId, range: ByteRange, reader: ReadHint) {
        self.note_read(id, range, reader);
        let Some(table) = self.cached_members(id) else { return };
        for (id, blocks) in self.trails.note(id, range, table.plain_len(), reader.read_once) {
            let keys = blocks.map_while(|index| Some((id, self.verified.pass_of(id, index)?, index)));
            self.blocks.leave_behind(keys);
        }
    }

    fn read_waiting(
        self: &Arc<Self>,
        id: VolumeId,
        range: ByteRange,
        out: &mut Vec<u8>,
        context: &RequestContext,
    ) -> Result<(), VolumeError> {
        for _ in 0..JOINS {
            if let Some(blocks) = self.collect(id, range, |key| self.blocks.get(key)) {
                return self.copy_out(id, range, &blocks, out);
            }
            if let Some(blocks) = self.decode_for_reader(id, range, context)?.blocks_of(range) {
                return self.copy_out(id, range, &blocks, out);
            }
        }
        // The cache is too small for what all readers want at once: decode for this range alone.
        let decoded = self.run_pass(id, range, None, context)?;
        self.copy_out(id, range, &decoded.blocks, out)
    }

    /// The verified blocks of `range` if `get` finds them all.
    fn collect(&self, id: VolumeId, range: ByteRange, get: impl Fn(&BlockKey) -> Option<Arc<[u8]>>) -> Option<Blocks> {
        block_range(range).map(|index| get(&(id, self.verified.pass_of(id, index)?, index))).collect()
    }

    /// Decodes `id` for a request that waits. Where a prefetch of it was in progress and failed, the request tries itself.
    fn decode_for_reader(
        self: &Arc<Self>,
        id: VolumeId,
        wanted: ByteRange,
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        for _ in 0..JOINS {
            match self.decode(id, wanted, None, context) {
                Err(VolumeError::Prefetch(_)) => {}
                decoded => return decoded,
            }
        }
        self.decode(id, wanted, None, context)
    }

    /// Decodes `id` once for all requests that ask at the same time. `progress` marks a prefetch, for which no reader waits.
    fn decode(
        self: &Arc<Self>,
        id: VolumeId,
        wanted: ByteRange,
        progress: Option<Progress>,
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        let this = Arc::clone(self);
        let is_prefetch = progress.is_some();
        self.volume_flight.run(id, "dupfs-volume", context, move |context| {
            let decoded = this.run_pass(id, wanted, progress, context);
            decoded.map_err(|e| if is_prefetch { VolumeError::Prefetch(Arc::new(e)) } else { e })
        })
    }

    fn run_pass(
        self: &Arc<Self>,
        id: VolumeId,
        wanted: ByteRange,
        progress: Option<Progress>,
        context: &RequestContext,
    ) -> Result<DecodedVolume, VolumeError> {
        let (object, expected) = self.volume_object(id, context)?;
        log::debug!("{}: fetching and decoding {} bytes", object.name, object.size);
        let pass = self.verified.begin();
        // Side by side, or while a reader is busy, volumes keep all cores busy; one that is waited for alone is decoded by
        // two threads.
        let under_way = Counted::new(&self.passes);
        let on_two = progress.is_none() && under_way.before == 0 && object.size >= WORTH_TWO;
        let mut sink = PassSink::new(self, id, pass, wanted, progress);
        let (store, decoder) = (&*self.store, &self.decoder);
        let decoded = pass::decode_volume(store, decoder, &object, expected.as_ref(), on_two, context, &mut sink);
        drop(under_way);
        let PassSink { stored, kept, blocks, .. } = sink;
        match decoded {
            Ok(table) => {
                let table = Arc::new(table);
                self.verified.publish(id, pass, blocks, &stored);
                self.cache_table(id, &table);
                self.persist_members(id.set, &object, expected.as_ref(), &table);
                Ok(DecodedVolume { table, first: block_range(wanted).start, blocks: kept.into() })
            }
            Err(error) => {
                if !stored.is_empty() {
                    self.blocks.remove_where(|&(of, by, _)| (of, by) == (id, pass));
                }
                Err(error)
            }
        }
    }

    /// Keeps a member table in memory.
    pub(super) fn cache_table(&self, id: VolumeId, table: &Arc<MemberTable>) {
        let mut tables = lock(&self.tables);
        let evicted = tables.insert(id, Arc::clone(table), table.weight());
        let fits = tables.peek(&id).is_some();
        drop(tables);
        if !fits {
            *lock(&self.outsize) = Some((id, Arc::clone(table)));
        }
        drop(evicted);
    }

    fn copy_out(
        &self,
        id: VolumeId,
        range: ByteRange,
        blocks: &[Arc<[u8]>],
        out: &mut Vec<u8>,
    ) -> Result<(), VolumeError> {
        let before = out.len();
        let mut at = range.start;
        for block in blocks {
            let from = usize::try_from(at % BLOCK as u64).unwrap_or(usize::MAX);
            let room = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX);
            let to = from.saturating_add(room).min(block.len());
            let Some(bytes) = block.get(from..to) else { break };
            out.extend_from_slice(bytes);
            at = at.saturating_add(bytes.len() as u64);
        }
        if at == range.end {
            return Ok(());
        }
        out.truncate(before);
        let object = self.describe(id).into();
        Err(VolumeError::Range { object, start: range.start, end: range.end, len: at })
    }

    fn describe(&self, id: VolumeId) -> String {
        let name =
            self.set(id.set).ok().and_then(|set| set.volumes.get(&id.number).map(|object| object.name.to_string()));
        name.unwrap_or_else(|| format!("volume {} of set {}", id.number, id.set.0))
    }
}

fn block_range(range: ByteRange) -> std::ops::Range<u32> {
    let block = BLOCK as u64;
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    number(range.start / block)..number(range.end.div_ceil(block))
}

/// One of those counted, until it is dropped.
struct Counted<'a> {
    counter: &'a AtomicUsize,
    /// How many there were before it.
    before: usize,
}

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        Self { counter, before: counter.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts the blocks of one pass into the cache under the pass's own number, and keeps the wanted ones in hand, so that
/// a pass serves its reader however small the cache is.
struct PassSink<'a> {
    repository: &'a Repository,
    id: VolumeId,
    pass: u32,
    wanted: std::ops::Range<u32>,
    kept: Blocks,
    stored: Vec<u32>,
    blocks: u32,
    /// Bytes that may still go into the cache before and from the wanted range.
    room_before: u64,
    room_after: u64,
    progress: Option<Progress>,
}

impl<'a> PassSink<'a> {
    fn new(repository: &'a Repository, id: VolumeId, pass: u32, wanted: ByteRange, progress: Option<Progress>) -> Self {
        let wanted = block_range(wanted);
        let window = repository.window;
        Self {
            repository,
            id,
            pass,
            wanted,
            kept: Vec::new(),
            stored: Vec::new(),
            blocks: 0,
            room_before: window / 2,
            room_after: window,
            progress,
        }
    }

    fn is_cached(&self, index: u32) -> bool {
        let pass = self.repository.verified.pass_of(self.id, index);
        pass.is_some_and(|pass| self.repository.blocks.contains(&(self.id, pass, index)))
    }
}

impl BlockSink for PassSink<'_> {
    fn buffer(&mut self) -> Arc<[u8]> {
        self.repository.blocks.buffer()
    }

    fn block(&mut self, index: u32, block: Arc<[u8]>) {
        self.blocks = index.saturating_add(1);
        if let Some(progress) = &mut self.progress {
            progress(index);
        }
        if self.wanted.contains(&index) {
            self.kept.push(Arc::clone(&block));
        }
        let room = if index < self.wanted.start { &mut self.room_before } else { &mut self.room_after };
        let left = room.checked_sub(block.len() as u64);
        *room = left.unwrap_or(*room);
        if left.is_none() || self.is_cached(index) {
            return self.repository.blocks.recycle(block);
        }
        self.stored.push(index);
        self.repository.blocks.insert((self.id, self.pass, index), block);
    }
}
