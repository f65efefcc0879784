//! The members of a tar stream, by the project's own parser: unlike those of libraries it is bounded in memory and
//! reports the positions of the pieces of sparse files.

use std::sync::Arc;

use super::archive_table::member::{ArchiveEntry, ArchiveMember, MemberData};
use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::error::UnpackError;
use dupfs_base::RequestContext;
use dupfs_format::FormatError;
use dupfs_format::tar::{SparseLayout, SparseMapFault, TarEntry, TarLimits, TarParser, TarSink};
use dupfs_format::{EntryKind, EntryMeta, LastOwnerNames};

/// Bytes read at a time.
const STEP: usize = 256 << 10;
/// Data of members of at least this length is skipped.
const SKIP: u64 = 512 << 10;
/// Upper bound of the pieces of a sparse file.
const PIECES: usize = 1 << 16;
/// Most bytes of extension headers of one member.
const EXTENSION: u64 = 1 << 20;

/// Takes the members of an archive, each as soon as its header was read.
pub(super) type AddMember<'a> = &'a mut dyn FnMut(ArchiveMember<'_>) -> Result<(), UnpackError>;

/// A pass over a tar stream, which can be stopped between two reads and resumed.
#[derive(Debug)]
pub(super) struct TarScan {
    parser: TarParser,
    names: LastOwnerNames,
    /// A sparse member whose map is in its data.
    mapped: Option<MappedMember>,
    /// Offset of the next byte to be read.
    at: u64,
    /// The start of the bytes that were read in sequence since the last jump.
    run: u64,
    has_ended: bool,
}

struct TarMemberSink<'a> {
    name: Arc<str>,
    add: AddMember<'a>,
    fault: Option<UnpackError>,
    mapped: &'a mut Option<MappedMember>,
    names: &'a mut LastOwnerNames,
}

#[derive(Debug)]
struct MappedMember {
    path: Vec<u8>,
    meta: EntryMeta,
    size: u64,
    data: Vec<u8>,
    data_at: u64,
    data_len: u64,
}

impl TarScan {
    pub(super) fn new() -> Self {
        let parser = TarParser::new(TarLimits { max_extension_len: EXTENSION, allow_sparse: true });
        Self { parser, names: LastOwnerNames::default(), mapped: None, at: 0, run: 0, has_ended: false }
    }

    /// Returns true if nothing was read yet.
    pub(super) fn is_new(&self) -> bool {
        self.at == 0
    }

    /// Gives `add` every member of the tar stream `source` from here on. After an error of the source another call continues
    /// where this one was.
    ///
    /// # Errors
    /// [`UnpackError`] of the source, of `add`, and for a stream that is no tar or ends within a member.
    pub(super) fn advance(
        &mut self,
        source: &dyn ByteSource,
        add: AddMember<'_>,
        context: &DecodeContext<'_>,
    ) -> Result<(), UnpackError> {
        while !self.has_ended {
            let bytes = source.read_at(self.at, STEP, context.wait())?;
            context.work(&source.name())?;
            let mut sink = TarMemberSink {
                name: source.name(),
                add,
                fault: None,
                mapped: &mut self.mapped,
                names: &mut self.names,
            };
            if let Err(error) = self.parser.feed(&bytes, &mut sink) {
                let fault = sink.fault.take();
                let damaged = || UnpackError::damaged(&source.name(), self.parser.offset(), plain(&error));
                return Err(fault.unwrap_or_else(damaged));
            }
            self.at += bytes.len() as u64;
            self.has_ended = bytes.len() < STEP || self.parser.is_ended();
            let left = self.parser.data_left();
            if !self.has_ended && left >= SKIP && self.mapped.is_none() {
                self.skip_data(source, left, context.wait())?;
            }
        }
        let offset = self.parser.offset();
        self.parser.finish().map_err(|error| UnpackError::damaged(&source.name(), offset, plain(&error)))?;
        source.check_range(self.run, self.at, None, context.wait())
    }

    /// Jumps over the `left` bytes of a member's data that were not read.
    fn skip_data(&mut self, source: &dyn ByteSource, left: u64, context: &RequestContext) -> Result<(), UnpackError> {
        let end = self.parser.offset().saturating_add(left);
        let last = end - 1;
        if source.read_at(last, 1, context)?.is_empty() {
            return Err(UnpackError::damaged(&source.name(), self.at, "truncated within a member"));
        }
        // Headers and members that end before the jump were served from parts that may have been left half decoded.
        source.check_range(self.run, self.at, Some(last), context)?;
        self.parser.skip_data();
        self.run = last;
        self.at = end;
        Ok(())
    }
}

/// Returns true if `head`, the first bytes of a file, begins as a tar archive does.
pub(super) fn begins(head: &[u8]) -> bool {
    struct Nothing;
    impl TarSink for Nothing {
        fn entry(&mut self, _: &TarEntry<'_>, _: u64) -> Result<(), FormatError> {
            Ok(())
        }
        fn data(&mut self, _: &[u8]) -> Result<(), FormatError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), FormatError> {
            Ok(())
        }
    }
    let mut walker = TarParser::new(TarLimits { max_extension_len: EXTENSION, allow_sparse: true });
    head.get(..512).is_some_and(|block| walker.feed(block, &mut Nothing).is_ok())
}

/// The fault, without its offset.
fn plain(error: &FormatError) -> String {
    match error {
        FormatError::Tar { what, .. } => (*what).to_owned(),
        other => other.to_string(),
    }
}

impl TarMemberSink<'_> {
    fn stop(&mut self, fault: UnpackError) -> FormatError {
        self.fault = Some(fault);
        FormatError::Tar { offset: 0, what: "stopped" }
    }

    fn add(
        &mut self,
        path: &[u8],
        meta: EntryMeta,
        data: MemberData,
        hard_link: Option<&[u8]>,
    ) -> Result<(), FormatError> {
        let added = (self.add)(ArchiveMember { path, entry: ArchiveEntry { meta, data }, hard_link });
        added.map_err(|fault| self.stop(fault))
    }

    fn sparse(
        &mut self,
        header: &TarEntry<'_>,
        meta: EntryMeta,
        sparse: SparseLayout<'_>,
        at: u64,
    ) -> Result<(), FormatError> {
        match sparse {
            SparseLayout::Map { size, map } => {
                let data = self.pieces(header.path, size, map, at, header.size);
                self.add(header.path, meta, data, None)
            }
            SparseLayout::InData { size } => {
                let (path, data_len) = (header.path.to_vec(), header.size);
                *self.mapped = Some(MappedMember { path, meta, size, data: Vec::new(), data_at: at, data_len });
                Ok(())
            }
        }
    }

    /// The data of a sparse member: its pieces begin at `at`, `len` bytes in all.
    fn pieces(&self, path: &[u8], size: u64, map: &[(u64, u64)], at: u64, len: u64) -> MemberData {
        let mut pieces = Vec::new();
        let mut used = 0_u64;
        for &(start, len) in map.iter().filter(|(_, len)| *len > 0) {
            pieces.push((start, len, at.saturating_add(used)));
            used = used.saturating_add(len);
        }
        match super::archive_table::member::checked_pieces(pieces, size) {
            Some(pieces) if used <= len => MemberData::Pieces { size, pieces },
            _ => {
                let path = dupfs_base::escape_bytes(path);
                log::error!("{}/{path}: damaged map of a sparse file", self.name);
                MemberData::Damaged("the map of this sparse file".into())
            }
        }
    }

    fn finish_mapped(&mut self, map: &[(u64, u64)], skip: u64) -> Result<(), FormatError> {
        let Some(mapped) = self.mapped.take() else { return Ok(()) };
        let (at, len) = (mapped.data_at.saturating_add(skip), mapped.data_len.saturating_sub(skip));
        let data = self.pieces(&mapped.path, mapped.size, map, at, len);
        self.add(&mapped.path, mapped.meta, data, None)
    }
}

impl TarSink for TarMemberSink<'_> {
    fn entry(&mut self, header: &TarEntry<'_>, at: u64) -> Result<(), FormatError> {
        let kind = match header.type_flag {
            b'2' => EntryKind::Symlink(header.link.into()),
            b'3' => EntryKind::CharDevice(header.dev_major, header.dev_minor),
            b'4' => EntryKind::BlockDevice(header.dev_major, header.dev_minor),
            b'5' | b'D' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            // A label, which extracting skips.
            b'V' => return Ok(()),
            // Old archives mark directories by the slash alone; unknown types are extracted as files.
            b'0' if header.path.last() == Some(&b'/') && header.size == 0 => EntryKind::Dir,
            _ => EntryKind::File,
        };
        let (uid, gid) = (low_bits(header.uid), low_bits(header.gid));
        let (uname, gname) = self.names.share(header.uname, header.gname);
        let meta = EntryMeta { kind, mode: header.mode, uid, gid, uname, gname, mtime: header.mtime };
        if let Some(sparse) = header.sparse {
            return self.sparse(header, meta, sparse, at);
        }
        let data = match (&meta.kind, header.type_flag) {
            (_, b'M') => MemberData::Refused("continued from another volume of a multi-volume archive".into()),
            (EntryKind::File, b'1') => MemberData::Nothing,
            (EntryKind::File, _) if header.size == 0 => MemberData::Pieces { size: 0, pieces: Box::default() },
            (EntryKind::File, _) => MemberData::Pieces { size: header.size, pieces: Box::new([(0, header.size, at)]) },
            _ => MemberData::Nothing,
        };
        let hard_link = (header.type_flag == b'1').then_some(header.link);
        self.add(header.path, meta, data, hard_link)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let Some(mapped) = self.mapped.as_mut() else { return Ok(()) };
        mapped.data.extend_from_slice(bytes);
        match SparseLayout::parse_map(&mapped.data, PIECES) {
            Ok(None) => Ok(()),
            Ok(Some((map, skip))) => self.finish_mapped(&map, skip),
            // The member is shown, and cannot be read.
            Err(SparseMapFault::Damaged) => self.finish_mapped(&[(u64::MAX, 1)], 0),
            Err(SparseMapFault::TooManyPieces) => {
                let Some(mapped) = self.mapped.take() else { return Ok(()) };
                let reason = format!("a sparse file of more than {PIECES} pieces");
                self.add(&mapped.path, mapped.meta, MemberData::Refused(reason.into()), None)
            }
        }
    }

    fn end(&mut self) -> Result<(), FormatError> {
        self.finish_mapped(&[(u64::MAX, 1)], 0)
    }
}

/// Ids are 32 bits wide; of others the low bits count, as negative ones are written.
fn low_bits(id: i64) -> u32 {
    let [.., a, b, c, d] = id.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
