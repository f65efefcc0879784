//! A decompressed stream as a source: cursors, seek points, and blocks in the shared cache.

mod codec_decoder;
mod cursor_pool;
mod decoded_runs;
mod xz_block_list;

use std::sync::{Arc, OnceLock};

use codec_decoder::codec_decoder;
use cursor_pool::{BlockClaim, CursorPool, DecodeStart};
use xz_block_list::XzBlockList;

use super::byte_source::{ByteSource, StoredOrigin};
use super::decode_context::DecodeContext;
use super::decode_cursor::{DecodeCursor, DecodeStep};
use super::decoder_memory::CURSOR_BYTES;
use super::error::UnpackError;
use super::seek_points::SeekPoints;
use super::stream_codec::StreamCodec;
use super::stream_decoder::SeekPoint;
use super::unpacker::Unpacker;
use super::xz::XzBlock;
use super::zip_method::DecoderSetup;
use dupfs_base::{RequestContext, clamp_len};
use dupfs_cache::BLOCK_BYTES;

/// The end of a run of a cursor.
enum RunEnd {
    /// The block; `None` if the stream ends before it.
    Block(Option<Arc<[u8]>>),
    /// The cursor was dropped, as it has not enough memory, or as others need it more.
    Dropped,
}

/// The decompressed bytes of a source.
#[derive(Debug)]
pub struct DecompressedStream {
    unpacker: Arc<Unpacker>,
    source: Arc<dyn ByteSource>,
    codec: StreamCodec,
    pool: Arc<CursorPool>,
    /// Blocks of an xz file, once a reader has jumped.
    blocks: XzBlockList,
    /// The limit that a pass over all of it has reached: another pass would take as long and reach the same limit.
    refused: OnceLock<UnpackError>,
}

impl DecompressedStream {
    /// The stream that decompressing `source` gives.
    pub fn new(unpacker: &Arc<Unpacker>, source: Arc<dyn ByteSource>, codec: StreamCodec) -> Arc<Self> {
        let pool = CursorPool::new(unpacker, source.name());
        let this = Self {
            unpacker: Arc::clone(unpacker),
            source,
            codec,
            pool,
            blocks: XzBlockList::default(),
            refused: OnceLock::new(),
        };
        let stored = this.points_key().and_then(|key| this.unpacker.point_store.load(&key));
        if let Some((len, points)) = stored.and_then(|bytes| SeekPoints::decode(&bytes)) {
            this.pool.restore(len, points);
        }
        Arc::new(this)
    }

    /// Bytes of its compressed form, if the number is known without work.
    pub fn packed_len(&self) -> Option<u64> {
        self.source.known_len()
    }

    #[cfg(test)]
    pub(super) fn cursors(&self) -> usize {
        self.pool.cursor_count()
    }

    fn points_key(&self) -> Option<Vec<u8>> {
        Some([&self.identity()?, b"\0stream".as_slice()].concat())
    }

    /// The block of that number; `None` after the end.
    fn block(&self, index: u64, context: &RequestContext) -> Result<Option<Arc<[u8]>>, UnpackError> {
        loop {
            if let Some(block) = self.unpacker.cache.get(&(self.pool.id(), index)) {
                return Ok(Some(block));
            }
            self.find_blocks(index, context)?;
            match self.claim(index, None, context)? {
                BlockClaim::Found(block) => return Ok(Some(block)),
                BlockClaim::BeyondTheEnd => return Ok(None),
                BlockClaim::Again => {}
                BlockClaim::Run(slot, start) => match self.run(slot, start, index, context)? {
                    RunEnd::Block(block) => return Ok(block),
                    RunEnd::Dropped => {}
                },
            }
        }
    }

    /// Reads the list of an xz file's blocks at a jump, where that needs no decoding.
    fn find_blocks(&self, index: u64, context: &RequestContext) -> Result<(), UnpackError> {
        if self.codec != StreamCodec::Xz || self.blocks.known().is_some() {
            return Ok(());
        }
        let Some(len) = self.source.known_len() else { return Ok(()) };
        if !self.pool.is_near(index) {
            self.blocks.load(&*self.source, len, context)?;
        }
        Ok(())
    }

    fn claim(&self, index: u64, through: Option<u64>, context: &RequestContext) -> Result<BlockClaim, UnpackError> {
        self.pool.claim(index, through, self.blocks.known().flatten().as_deref(), context)
    }

    /// Runs a cursor until it has given block `index`.
    fn run(&self, slot: u64, start: DecodeStart, index: u64, context: &RequestContext) -> Result<RunEnd, UnpackError> {
        // Takes the slot away if the decoder fails or panics, so that no reader waits for it.
        let mut running = self.pool.run(slot);
        let (origin, workers) = (self.source.origin(), &self.unpacker.workers);
        let token = context.cancel_token().child();
        let new = matches!(start, DecodeStart::Point(_)).then(|| self.codec.memory_bytes(workers.width()));
        let memory = running.get_memory((origin, new), token.token(), context)?;
        let own = &context.ended_by(&token);
        let decoding = &DecodeContext::new(workers, origin.flow, own).with_memory(memory);
        let started = match start {
            DecodeStart::Cursor(cursor) => Ok(cursor),
            DecodeStart::Point(point) => self.start(point, decoding),
        };
        let mut cursor = match started {
            Err(_) if running.is_revoked() && context.check().is_ok() => return Ok(RunEnd::Dropped),
            started => started?,
        };
        loop {
            if running.is_revoked() {
                return Ok(RunEnd::Dropped);
            }
            let number = cursor.next();
            let buffer = || self.unpacker.cache.buffer();
            let (block, ended) = match cursor.advance(buffer, |point| self.pool.add_point(point), decoding) {
                Ok(DecodeStep::Block(block)) => (block, false),
                Ok(DecodeStep::Last(block)) => (block, true),
                Err(error) => {
                    if let Some(bytes) = decoding.take_needed() {
                        if !running.grow(bytes) {
                            return Ok(RunEnd::Dropped);
                        }
                        decoding.allow_memory(bytes);
                        continue;
                    }
                    if error.is_of_source() {
                        if running.is_revoked() && context.check().is_ok() {
                            return Ok(RunEnd::Dropped);
                        }
                        // For the next request: the cursor is as it was.
                        running.cursor = Some(cursor);
                    }
                    return Err(error);
                }
            };
            running.add_block();
            // Before any reader can get a byte of it: more is known to follow a block that is not the last.
            let more = number.saturating_add(1).saturating_mul(BLOCK_BYTES as u64).saturating_add(1);
            self.check_stated(slot, if ended { cursor.len() } else { more }, ended)?;
            if !block.is_empty() {
                self.unpacker.cache.insert((self.pool.id(), number), Arc::clone(&block));
            }
            if ended {
                self.pool.set_last(number, &block);
                self.record_len(cursor.len())?;
                return Ok(RunEnd::Block(Some(block).filter(|block| number == index && !block.is_empty())));
            }
            self.pool.passed(slot, number, &block);
            if number >= index {
                running.cursor = Some(cursor);
                return Ok(RunEnd::Block(Some(block)));
            }
        }
    }

    /// A cursor at `point`, or at the start of the stream.
    fn start(&self, point: Option<SeekPoint>, context: &DecodeContext<'_>) -> Result<Box<DecodeCursor>, UnpackError> {
        let out = point.as_ref().map_or(0, |p| p.out);
        let (workers, limits) = (&self.unpacker.workers, self.unpacker.limits);
        let setup = DecoderSetup { workers, limits, request: context.wait() };
        let source = Arc::clone(&self.source);
        let decoder = codec_decoder(source, self.codec, point, self.blocks.known().flatten(), &setup)?;
        Ok(Box::new(DecodeCursor::new(decoder, &*self.source, limits, out)))
    }

    /// Records that `slot` has decoded at least `len` bytes, or exactly that many, and compares this with the length that was
    /// stated, by an index or a directory.
    fn check_stated(&self, slot: u64, decoded: u64, ended: bool) -> Result<(), UnpackError> {
        self.pool.record_decoded(slot, decoded, ended, self.codec == StreamCodec::Xz);
        match self.stated() {
            Some(len) if len < decoded || (ended && len != decoded) => Err(self.mis_stated(len)),
            _ => Ok(()),
        }
    }

    fn mis_stated(&self, len: u64) -> UnpackError {
        UnpackError::damaged(
            &self.name(),
            self.source.known_len(),
            format!("length mismatch: the content does not have the stated {len} bytes"),
        )
    }

    /// The length as far as it is stated or known.
    fn stated(&self) -> Option<u64> {
        match self.codec {
            StreamCodec::Zip(_, stated) => Some(stated.size),
            StreamCodec::Gzip | StreamCodec::Bzip2 | StreamCodec::Xz | StreamCodec::Zstd => self.pool.len(),
        }
    }

    fn record_len(&self, len: u64) -> Result<(), UnpackError> {
        match self.pool.set_len(len) {
            None => return Err(self.mis_stated(len)),
            Some(false) => return Ok(()),
            Some(true) => {}
        }
        let encoded = match self.codec {
            // These contain offsets and a checksum of all bytes before them.
            StreamCodec::Bzip2 | StreamCodec::Xz | StreamCodec::Zstd => self.pool.encode_points(len),
            StreamCodec::Zip(method, _) if method.has_plain_points() => self.pool.encode_points(len),
            // The store may be unencrypted on the disk, and these points contain decompressed bytes.
            StreamCodec::Gzip | StreamCodec::Zip(..) => SeekPoints::default().encode(len),
        };
        if let (Some(key), Some(encoded)) = (self.points_key(), encoded) {
            self.unpacker.point_store.store(&key, &encoded);
        }
        Ok(())
    }

    /// See [`ByteSource::check_range`]. Only xz has checks that can be reached one by one; a reader that jumps from block to
    /// block drops them.
    fn check_parts(&self, from: u64, to: u64, next: Option<u64>, context: &RequestContext) -> Result<(), UnpackError> {
        if self.codec != StreamCodec::Xz || from >= to {
            return Ok(());
        }
        let blocks = match (self.blocks.known(), next, self.source.known_len()) {
            (Some(known), ..) => known,
            (None, None, Some(len)) => self.blocks.load(&*self.source, len, context)?,
            // No reader has jumped yet, so all up to here was decoded in order.
            (None, ..) => None,
        };
        // A file whose blocks cannot be determined is always decoded from its start, and verified at its end.
        let Some(blocks) = blocks else { return Ok(()) };
        let goes_on_in = |block: &XzBlock| next.is_some_and(|next| block.out <= next && next < block.end());
        let first = blocks.partition_point(|block| block.end() <= from);
        let touched = blocks.iter().skip(first).take_while(|block| block.out < to);
        for block in touched.filter(|block| block.out < block.end() && !goes_on_in(block)) {
            self.check_part(block, context)?;
            // A block without a check is protected by those of its source.
            self.source.check_range(block.at, block.packed_end(), None, context)?;
        }
        Ok(())
    }

    /// Decodes over the end of `block`, unless that was done.
    fn check_part(&self, block: &XzBlock, context: &RequestContext) -> Result<(), UnpackError> {
        let index = block.end() / BLOCK_BYTES as u64;
        let mut decoded = false;
        while !self.pool.has_decoded(block.out, block.end()) {
            if let BlockClaim::Run(slot, start) = self.claim(index, Some(block.out), context)? {
                if decoded {
                    return Err(UnpackError::damaged(&self.name(), block.at, "the index does not match the blocks"));
                }
                decoded = matches!(self.run(slot, start, index, context)?, RunEnd::Block(_));
            }
        }
        Ok(())
    }

    /// See [`ByteSource::check_end`].
    fn check_whole(&self, context: &RequestContext) -> Result<(), UnpackError> {
        match self.codec {
            // Their lengths are stated, so no decoding is needed.
            StreamCodec::Zip(..) if self.pool.len().is_none() => self.block(u64::MAX, context).map(drop),
            StreamCodec::Zip(..) => Ok(()),
            StreamCodec::Gzip | StreamCodec::Bzip2 | StreamCodec::Xz | StreamCodec::Zstd => self.len(context).map(drop),
        }
    }
}

impl ByteSource for DecompressedStream {
    fn name(&self) -> Arc<str> {
        self.source.name()
    }

    fn read_at(&self, offset: u64, len: usize, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
        let mut out = Vec::with_capacity(len.min(4 << 20));
        while out.len() < len {
            let at = offset.saturating_add(out.len() as u64);
            let Some(block) = self.block(at / BLOCK_BYTES as u64, context)? else { break };
            let skip = clamp_len(at % BLOCK_BYTES as u64, BLOCK_BYTES);
            let bytes = block.get(skip..).unwrap_or(&[]);
            let bytes = bytes.get(..len - out.len()).unwrap_or(bytes);
            out.extend_from_slice(bytes);
            if block.len() < BLOCK_BYTES {
                break;
            }
        }
        Ok(out)
    }

    fn origin(&self) -> StoredOrigin {
        let origin = self.source.origin();
        let needed = self.pool.needed().max(self.codec.memory_bytes(self.unpacker.workers.width()));
        let bytes = origin.decoder_bytes.saturating_add(needed).saturating_add(CURSOR_BYTES);
        StoredOrigin { decoders: origin.decoders.saturating_add(1), decoder_bytes: bytes, ..origin }
    }

    fn known_len(&self) -> Option<u64> {
        self.stated()
    }

    fn len(&self, context: &RequestContext) -> Result<u64, UnpackError> {
        if let Some(len) = self.known_len() {
            return Ok(len);
        }
        if self.codec == StreamCodec::Xz
            && let Some(packed) = self.source.known_len()
            && let Some(blocks) = self.blocks.load(&*self.source, packed, context)?
        {
            let len = blocks.last().map_or(0, |last| last.end());
            // No read of an empty file follows, so its emptiness is verified here.
            if len > 0 {
                self.record_len(len)?;
                return Ok(len);
            }
        }
        if let Some(error) = self.refused.get() {
            return Err(error.clone());
        }
        if let Err(error) = self.block(u64::MAX, context) {
            if matches!(error, UnpackError::Limit { .. }) {
                self.refused.get_or_init(|| error.clone());
            }
            return Err(error);
        }
        self.known_len()
            .ok_or_else(|| UnpackError::internal(&self.name(), "the end was reached without a known length"))
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
        self.codec == StreamCodec::Bzip2 && self.source.verified_early()
    }
}

#[cfg(test)]
#[path = "decompressed_stream/stated_tests.rs"]
mod stated_tests;
#[cfg(test)]
#[path = "decompressed_stream/tests.rs"]
mod tests;
