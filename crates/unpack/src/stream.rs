//! A decompressed stream as a source: cursors, seek points, and blocks in the shared cache.

mod checks;
mod claim;
mod running;
mod runs;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, Weak};

use claim::{Claim, Start};
use runs::Runs;

use super::bzip2::Bunzip;
use super::cursor::{Cursor, Step};
use super::decoder::{Decoder, Point};
use super::error::UnpackError;
pub use super::form::Codec;
use super::gzip::{Inflater, Stored, Wrapper};
use super::idle::Idle;
use super::limits::Limits;
use super::point_store::PointStore;
use super::points::Points;
use super::source::Source;
use super::table::Table;
use super::table_store::TableStore;
use super::workers::DecodeWorkers;
use super::xz::{self, Unxz};
use super::zstd::Unzstd;
use dupfs_base::RequestContext;
use dupfs_base::sync::Monitor;
use dupfs_cache::index::Identity;
use dupfs_cache::{BLOCK_BYTES, BlockCache, CacheConfig};
use running::Running;

/// Live decoders of one stream.
const CURSORS: usize = 4;
/// Blocks that a cursor gave last, kept for readers whose reads come out of order.
const WINDOW: usize = 4;
/// A cursor that has so many bytes to go is still preferred to a new one at a seek point.
const RESTART: u64 = 4 << 20;

/// What all streams and archives share: cache, threads, bounds, stores.
#[derive(Debug)]
pub struct Unpacker {
    pub(super) cache: BlockCache<(u64, u64)>,
    pub(super) workers: Arc<DecodeWorkers>,
    pub(super) limits: Limits,
    point_store: Arc<dyn PointStore>,
    table_store: TableStore,
    next: AtomicU64,
    pub(super) idle: Idle,
}

impl Unpacker {
    /// An unpacker that keeps decoded blocks and tables of members as `cache` says, and seek points in `point_store`.
    pub fn new(cache: CacheConfig, limits: Limits, point_store: Arc<dyn PointStore>) -> Arc<Self> {
        let table_store = TableStore::new(&cache);
        let (cache, workers) = (BlockCache::new(cache), Arc::new(DecodeWorkers::new()));
        let (next, idle) = (AtomicU64::new(0), Idle::new(limits.idle));
        Arc::new(Self { cache, workers, limits, point_store, table_store, next, idle })
    }

    /// Returns the table that was stored under `key`, if all of it is still cached. May read the disk.
    pub(super) fn load_table(&self, key: Identity) -> Option<Table> {
        self.table_store.load(&self.cache, key, &self.limits)
    }

    /// Stores the encoded table `bytes` under `key` as long as the cache has room. May write the disk, sealed.
    pub(super) fn store_table(&self, key: Identity, bytes: &[u8]) {
        self.table_store.store(&self.cache, &self.next, key, bytes);
    }

    /// The bounds it keeps to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The decompressed bytes of a source.
#[derive(Debug)]
pub struct Stream {
    this: Weak<Self>,
    unpacker: Arc<Unpacker>,
    source: Arc<dyn Source>,
    codec: Codec,
    id: u64,
    state: Arc<Monitor<State>>,
    /// Blocks of an xz file, once somebody jumped.
    blocks: OnceLock<Option<Arc<[xz::Block]>>>,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    points: Points,
    len: Option<u64>,
    /// The last block, kept for readers whose reads come out of order: its cursor is gone.
    last: Option<(u64, Arc<[u8]>)>,
    /// More bytes than so many were never decoded.
    furthest: u64,
    runs: Runs,
    ticks: u64,
    /// Grows when there is something for requests that wait.
    changes: u64,
}

#[derive(Debug)]
struct Slot {
    id: u64,
    /// Where its cursor began.
    from: u64,
    /// The block its cursor gives next.
    next: u64,
    /// `None` while somebody runs it.
    cursor: Option<Box<Cursor>>,
    recent: VecDeque<(u64, Arc<[u8]>)>,
    used: u64,
}

impl Stream {
    /// The stream that decompressing `source` gives.
    pub fn new(unpacker: &Arc<Unpacker>, source: Arc<dyn Source>, codec: Codec) -> Arc<Self> {
        let id = unpacker.next.fetch_add(1, Ordering::Relaxed);
        let unpacker = Arc::clone(unpacker);
        let (state, blocks) = (Monitor::new(State::default()), OnceLock::new());
        let this = Arc::new_cyclic(|this| Self { this: Weak::clone(this), unpacker, source, codec, id, state, blocks });
        if let Some((len, points)) =
            this.points_key().and_then(|key| this.unpacker.point_store.load(&key)).and_then(|n| Points::decode(&n))
        {
            let mut state = this.locked();
            state.len = Some(len);
            state.points = points;
        }
        this
    }

    /// Bytes of what it is decompressed from, if that is known without work.
    pub fn packed_len(&self) -> Option<u64> {
        self.source.known_len()
    }

    #[cfg(test)]
    pub(super) fn cursors(&self) -> usize {
        self.locked().slots.len()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn points_key(&self) -> Option<Vec<u8>> {
        Some([&self.identity()?, b"\0stream".as_slice()].concat())
    }

    /// The block of that number; `None` behind the end.
    fn block(&self, index: u64, context: &RequestContext) -> Result<Option<Arc<[u8]>>, UnpackError> {
        loop {
            if let Some(block) = self.unpacker.cache.get(&(self.id, index)) {
                return Ok(Some(block));
            }
            self.find_blocks(index, context)?;
            match self.claim(index, None, context)? {
                Claim::Found(block) => return Ok(Some(block)),
                Claim::BeyondTheEnd => return Ok(None),
                Claim::Again => {}
                Claim::Run(slot, start) => return self.run(slot, start, index, context),
            }
        }
    }

    /// Reads the list of an xz file's blocks when somebody jumps, where that costs no decoding.
    fn find_blocks(&self, index: u64, context: &RequestContext) -> Result<(), UnpackError> {
        if self.codec != Codec::Xz || self.blocks.get().is_some() {
            return Ok(());
        }
        let Some(len) = self.source.known_len() else { return Ok(()) };
        let near = |slot: &Slot| slot.next <= index && index - slot.next < 64;
        let sequential = index < 64 || self.locked().slots.iter().any(near);
        if !sequential {
            self.load_blocks(len, context)?;
        }
        Ok(())
    }

    fn load_blocks(&self, len: u64, context: &RequestContext) -> Result<Option<Arc<[xz::Block]>>, UnpackError> {
        if let Some(known) = self.blocks.get() {
            return Ok(known.clone());
        }
        let found = xz::blocks(&*self.source, len, context)?.map(Arc::from);
        Ok(self.blocks.get_or_init(|| found).clone())
    }

    /// Runs a cursor until it has given block `index`.
    fn run(
        &self,
        slot: u64,
        start: Start,
        index: u64,
        context: &RequestContext,
    ) -> Result<Option<Arc<[u8]>>, UnpackError> {
        self.unpacker.idle.take(self.id, slot);
        // Takes the slot away if the decoder fails or panics, so that nobody waits for it.
        let mut running = Running { stream: self, slot, cursor: None };
        let mut cursor = match start {
            Start::Cursor(cursor) => cursor,
            Start::Point(point) => {
                let out = point.as_ref().map_or(0, |p| p.out);
                let decoder = self.decoder(point)?;
                Box::new(Cursor::new(decoder, self.source.name(), self.unpacker.limits, out))
            }
        };
        loop {
            let number = cursor.next();
            let buffer = || self.unpacker.cache.buffer();
            let (block, ended) = match cursor.advance(buffer, |point| self.locked().points.add(point), context) {
                Ok(Step::Block(block)) => (block, false),
                Ok(Step::Last(block)) => (block, true),
                Err(error) => {
                    if error.is_of_source() {
                        // For the next request: the cursor is as it was.
                        running.cursor = Some(cursor);
                    }
                    return Err(error);
                }
            };
            // Before anybody can get a byte of it: more is known to follow a block that is not the last.
            let more = number.saturating_add(1).saturating_mul(BLOCK_BYTES as u64).saturating_add(1);
            self.check_stated(slot, if ended { cursor.len() } else { more }, ended)?;
            if !block.is_empty() {
                self.unpacker.cache.insert((self.id, number), Arc::clone(&block));
            }
            if ended {
                self.locked().last = Some((number, Arc::clone(&block))).filter(|(_, block)| !block.is_empty());
                self.learn_len(cursor.len())?;
                return Ok(Some(block).filter(|block| number == index && !block.is_empty()));
            }
            self.passed(slot, number, &block);
            if number >= index {
                running.cursor = Some(cursor);
                return Ok(Some(block));
            }
        }
    }

    fn passed(&self, slot: u64, number: u64, block: &Arc<[u8]>) {
        let old = self.state.update(|state| {
            state.changes += 1;
            let slot = state.slots.iter_mut().find(|s| s.id == slot)?;
            slot.next = number.saturating_add(1);
            let old = if slot.recent.len() >= WINDOW { slot.recent.pop_front() } else { None };
            slot.recent.push_back((number, Arc::clone(block)));
            old
        });
        drop(old);
    }

    /// Notes that `slot` has decoded at least so many bytes, or exactly so many, and compares that with the length that was
    /// stated, by an index or a directory.
    fn check_stated(&self, slot: u64, decoded: u64, ended: bool) -> Result<(), UnpackError> {
        let mut state = self.locked();
        state.furthest = state.furthest.max(decoded);
        if self.codec == Codec::Xz
            && let Some(from) = state.slots.iter().find(|s| s.id == slot).map(|s| s.from)
        {
            state.runs.add(from, decoded.saturating_add(u64::from(ended)));
        }
        let stated = self.stated(&state);
        drop(state);
        match stated {
            Some(len) if len < decoded || (ended && len != decoded) => Err(self.mis_stated(len)),
            _ => Ok(()),
        }
    }

    fn mis_stated(&self, len: u64) -> UnpackError {
        let packed = self.source.known_len().unwrap_or(0);
        UnpackError::damaged(&self.name(), packed, format!("its content has not the {len} bytes that are stated of it"))
    }

    /// The length as far as it is stated or known.
    fn stated(&self, state: &State) -> Option<u64> {
        match self.codec {
            Codec::Deflate { size, .. } | Codec::Stored { size, .. } => Some(size),
            Codec::Gzip | Codec::Bzip2 | Codec::Xz | Codec::Zstd => state.len,
        }
    }

    fn learn_len(&self, len: u64) -> Result<(), UnpackError> {
        let encoded = {
            let mut state = self.locked();
            if len < state.furthest {
                return Err(self.mis_stated(len));
            }
            if state.len.replace(len).is_some() {
                return Ok(());
            }
            match self.codec {
                // The store may be on the disk in the clear, and these points hold decompressed bytes.
                Codec::Gzip | Codec::Deflate { .. } => Points::default().encode(len),
                // These hold offsets and a checksum of all that is before them.
                Codec::Bzip2 | Codec::Xz | Codec::Zstd | Codec::Stored { .. } => state.points.encode(len),
            }
        };
        if let Some(key) = self.points_key() {
            self.unpacker.point_store.store(&key, &encoded);
        }
        Ok(())
    }

    fn decoder(&self, point: Option<Point>) -> Result<Box<dyn Decoder>, UnpackError> {
        let source = Arc::clone(&self.source);
        let workers = Arc::clone(&self.unpacker.workers);
        let limits = self.unpacker.limits;
        let wrapper = match self.codec {
            Codec::Deflate { crc, size } => Wrapper::Zip { crc, size },
            _ => Wrapper::Gzip,
        };
        Ok(match (self.codec, point) {
            (Codec::Gzip | Codec::Deflate { .. }, None) => Box::new(Inflater::new(source, wrapper)),
            (Codec::Gzip | Codec::Deflate { .. }, Some(p)) => {
                Box::new(Inflater::at(source, wrapper, p.input, &p.state)?)
            }
            (Codec::Bzip2, None) => Box::new(Bunzip::new(source, workers)),
            (Codec::Bzip2, Some(p)) => Box::new(Bunzip::at(source, workers, p.input, &p.state)?),
            (Codec::Zstd, point) => Box::new(Unzstd::new(source, point.map_or(0, |p| p.input))?),
            (Codec::Xz, point) => match (self.blocks.get(), point) {
                (Some(Some(blocks)), Some(p)) => {
                    let block = usize::try_from(p.input).unwrap_or(usize::MAX);
                    Box::new(Unxz::at(source, Arc::clone(blocks), block, limits)?)
                }
                _ => Box::new(Unxz::new(source, limits)?),
            },
            (Codec::Stored { crc, size }, None) => Box::new(Stored::new(source, crc, size)),
            (Codec::Stored { crc, size }, Some(p)) => Box::new(Stored::at(source, (crc, size), p.input, &p.state)?),
        })
    }
}

impl Source for Stream {
    fn name(&self) -> Arc<str> {
        self.source.name()
    }

    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        let mut out = Vec::with_capacity(len.min(4 << 20));
        while out.len() < len {
            let at = offset.saturating_add(out.len() as u64);
            let Some(block) = self.block(at / BLOCK_BYTES as u64, context)? else { break };
            let skip = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
            let bytes = block.get(skip..).unwrap_or(&[]);
            let bytes = bytes.get(..len - out.len()).unwrap_or(bytes);
            out.extend_from_slice(bytes);
            if block.len() < BLOCK_BYTES {
                break;
            }
        }
        Ok(out)
    }

    fn known_len(&self) -> Option<u64> {
        self.stated(&self.locked())
    }

    fn len(&self, context: &RequestContext) -> Result<u64, UnpackError> {
        if let Some(len) = self.known_len() {
            return Ok(len);
        }
        if self.codec == Codec::Xz
            && let Some(packed) = self.source.known_len()
            && let Some(blocks) = self.load_blocks(packed, context)?
        {
            let len = blocks.last().map_or(0, |last| last.end());
            // Nobody reads an empty file: that it is one has to be seen here.
            if len > 0 {
                self.learn_len(len)?;
                return Ok(len);
            }
        }
        self.block(u64::MAX, context)?;
        self.known_len().ok_or_else(|| UnpackError::internal(&self.name(), "its end was reached and has no place"))
    }

    fn check_range(&self, from: u64, to: u64, next: Option<u64>, context: &RequestContext) -> Result<(), UnpackError> {
        self.check_parts(from, to, next, context)
    }

    fn check_end(&self, context: &RequestContext) -> Result<(), UnpackError> {
        self.check_whole(context)
    }

    fn identity(&self) -> Option<Arc<[u8]>> {
        Some([&self.source.identity()?[..], self.codec.tag()].concat().into())
    }

    fn verified_early(&self) -> bool {
        self.codec == Codec::Bzip2 && self.source.verified_early()
    }
}

#[cfg(test)]
#[path = "stream/stated_tests.rs"]
mod stated_tests;
#[cfg(test)]
#[path = "stream/tests.rs"]
mod tests;
