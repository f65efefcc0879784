//! One pass over a stored volume: fetch, hash, decrypt, decompress, index.

use std::io::Read;
use std::sync::{Arc, Mutex};

use super::error::VolumeError;
use super::member_table::MemberTable;
use super::member_table_builder::MemberTableBuilder;
use super::object_reader::{DecodeMode, DecodeThreads, ObjectReader};
use super::plaintext::fill;
use super::table_allowance::TableMemory;
use crate::storage::ObjectInfo;
use dupfs_base::sync::{Semaphore, lock};
use dupfs_base::{ErrorKind, RequestContext};
use dupfs_cache::{BLOCK_BYTES, BlockIndex};
use dupfs_format::difftar;
use dupfs_format::manifest::VolumeHash;
use dupfs_format::tar::{TarEntry, TarLimits, TarParser, TarSink};
use dupfs_format::{FormatError, LastOwnerNames};

/// Receives the blocks of a pass in order, before they are verified: it hides them from all readers until the pass has
/// returned `Ok`.
pub(super) trait BlockSink {
    /// Takes the next block. Only the last one is shorter than [`BLOCK_BYTES`].
    fn block(&mut self, index: BlockIndex, block: Arc<[u8]>);

    /// A buffer of [`BLOCK_BYTES`] for the next block, without other owners.
    fn buffer(&mut self) -> Arc<[u8]>;

    /// The place of the members that were read so far.
    fn members(&self) -> Arc<Mutex<MemberTableSink>>;

    /// Ensures that the pass is not suspended: it has a permit that others wait for.
    fn forbid_suspension(&self) {}
}

/// Decodes one volume for its member table alone.
///
/// # Errors
/// As [`decode_volume`].
pub(super) fn read_members(
    objects: &ObjectReader,
    object: &ObjectInfo,
    limits: (&TableLimits, &RequestContext),
) -> Result<MemberTable, VolumeError> {
    let mode = DecodeMode { threads: DecodeThreads::TwoIfLarge, gate: None };
    decode_volume(objects, object, None, mode, limits, &mut NoBlocks::default())
}

/// A sink that drops all blocks.
#[derive(Default)]
struct NoBlocks(Option<Arc<[u8]>>);

impl BlockSink for NoBlocks {
    fn block(&mut self, _index: BlockIndex, block: Arc<[u8]>) {
        self.0 = Some(block).filter(|block| block.len() == BLOCK_BYTES);
    }

    fn buffer(&mut self) -> Arc<[u8]> {
        self.0.take().unwrap_or_else(|| vec![0; BLOCK_BYTES].into())
    }

    fn members(&self) -> Arc<Mutex<MemberTableSink>> {
        Arc::default()
    }
}

/// The limits of the memory of member tables while they are built.
#[derive(Clone, Debug)]
pub(super) struct TableLimits {
    /// The memory of all tables.
    pub(super) tables: TableMemory,
    /// Bytes that each table may take while others are built.
    pub(super) max_concurrent_bytes: u64,
    /// One permit, for the pass that builds a larger table. It waits for nothing else while it has the permit.
    pub(super) large: Semaphore,
}

/// Decodes one volume, passes its blocks to `sink` and returns its member table.
///
/// # Errors
/// [`VolumeError`]: then none of the blocks may be used.
pub(super) fn decode_volume(
    objects: &ObjectReader,
    object: &ObjectInfo,
    expected: Option<&VolumeHash>,
    mode: DecodeMode,
    (memory, context): (&TableLimits, &RequestContext),
    sink: &mut dyn BlockSink,
) -> Result<MemberTable, VolumeError> {
    let mut table = None;
    objects.stream(object, expected, mode, context, &mut |plain| {
        table = Some(index_plaintext(object, plain, (memory, context), sink)?);
        Ok(())
    })?;
    table.ok_or_else(|| VolumeError::object(&object.name, ErrorKind::Corrupt, "it has no content"))
}

fn index_plaintext(
    object: &ObjectInfo,
    plain: &mut dyn Read,
    (memory, context): (&TableLimits, &RequestContext),
    sink: &mut dyn BlockSink,
) -> Result<MemberTable, VolumeError> {
    let mut allowance = memory.tables.member_allowance(&object.name, object.size);
    let mut large = None;
    let object: &str = &object.name;
    let mut parser = TarParser::new(TarLimits::default());
    let members = sink.members();
    let mut plain_len = 0u64;
    let mut index = BlockIndex::FIRST;
    loop {
        let mut block = sink.buffer();
        let filled = fill(plain, Arc::make_mut(&mut block)).map_err(|e| VolumeError::from_io(object, &e))?;
        let is_full = filled == BLOCK_BYTES;
        let block = if is_full { block } else { block.get(..filled).unwrap_or(&[]).into() };
        let table_bytes = {
            let mut members = lock(&members);
            parser.feed(&block, &mut *members).map_err(|e| VolumeError::from_format(object, &e))?;
            members.builder.bytes()
        };
        plain_len = plain_len.saturating_add(filled as u64);
        allowance.check(table_bytes)?;
        if large.is_none() && table_bytes > memory.max_concurrent_bytes {
            large = Some(memory.large.acquire(1, context)?);
            sink.forbid_suspension();
        }
        if filled > 0 {
            sink.block(index, block);
        }
        if !is_full {
            break;
        }
        index = index.next();
    }
    parser.finish().map_err(|e| VolumeError::from_format(object, &e))?;
    let mut builder = std::mem::take(&mut lock(&members).builder);
    builder.set_allowance(allowance);
    Ok(builder.finish(plain_len))
}

/// Adds the entries of a volume to a member table.
#[derive(Debug, Default)]
pub(super) struct MemberTableSink {
    pub(super) builder: MemberTableBuilder,
    names: LastOwnerNames,
}

impl TarSink for MemberTableSink {
    fn entry(&mut self, entry: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        let member = difftar::parse_entry_name(entry.path).map_err(|e| e.at(entry.header_offset))?;
        self.builder.push(&member, &entry.meta(&mut self.names)?, data_offset, entry.size);
        Ok(())
    }

    fn data(&mut self, _bytes: &[u8]) -> Result<(), FormatError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        Ok(())
    }
}
