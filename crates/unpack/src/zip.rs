//! The members of a zip archive by its directory.

use std::io;
use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rawzip::time::{LocalDateTime, ZipDateTimeKind};
use rawzip::{ReaderAt, ZipArchive, ZipFileHeaderRecord};

use super::archive_table::member::{ArchiveEntry, ArchiveMember, MemberData};
use super::archive_table::names::TARGET;
use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::error::UnpackError;
use super::limits::UnpackLimits;
use super::memory_source::MemorySource;
use super::stream_decoder::ByteFields;
use super::tar::AddMember;
use super::zip_method::{DecoderSetup, StatedContent, ZipMethod, member_decoder};
use super::zip_names::{NameEncoding, member_path};
use dupfs_base::{RequestContext, clamp_len};
use dupfs_format::{EntryKind, EntryMeta};

/// Bytes of a directory's record at most, and read at a time.
const BUFFER: usize = 256 << 10;
/// The greatest distance of the directory's end from the end of the file: its comment has at most 64 KiB.
const SEARCH: u64 = 128 << 10;
/// Bytes of a member's local header without its names.
const LOCAL: usize = 30;

/// An archive, and how it is to be read.
struct ZipInput<'a> {
    source: &'a dyn ByteSource,
    limits: &'a UnpackLimits,
    names: Option<NameEncoding>,
    /// Bytes in front of the archive that its offsets do not count.
    stub: u64,
}

/// A source as the library reads it, without the stub. Its own errors are stored in `fault`.
struct ZipReader<'a> {
    source: &'a dyn ByteSource,
    stub: u64,
    context: &'a DecodeContext<'a>,
    fault: std::cell::RefCell<Option<UnpackError>>,
}

impl ReaderAt for ZipReader<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes =
            self.source.read_at(offset.saturating_add(self.stub), buf.len(), self.context.wait()).map_err(|error| {
                let message = io::Error::other(error.to_string());
                self.fault.replace(Some(error));
                message
            })?;
        if let Some(to) = buf.get_mut(..bytes.len()) {
            to.copy_from_slice(&bytes);
        }
        Ok(bytes.len())
    }
}

/// A pass over the directory of a zip archive, which can be stopped between two members and continues with the next.
#[derive(Debug)]
pub(super) struct ZipScan {
    /// Members that were added.
    added: u64,
}

impl ZipScan {
    pub(super) fn new() -> Self {
        Self { added: 0 }
    }

    /// Returns true if no member was added yet.
    pub(super) fn is_new(&self) -> bool {
        self.added == 0
    }

    /// Gives `add` every member of the zip archive `source` from here on; names that are not marked are in the encoding `names`.
    /// After an error of the source another call continues where this one stopped.
    ///
    /// # Errors
    /// [`UnpackError`] of the source, of `add`, and for a directory that is damaged or states too much.
    pub(super) fn advance(
        &mut self,
        source: &dyn ByteSource,
        (limits, names): (&UnpackLimits, Option<NameEncoding>),
        add: AddMember<'_>,
        context: &DecodeContext<'_>,
    ) -> Result<(), UnpackError> {
        let len = source.len(context.wait())?;
        let stub = match ZipEnd::find(source, len, context.wait())? {
            Some(end) if end.is_split => return Err(UnpackError::limit(&source.name(), SPLIT)),
            Some(end) => end.stub,
            None => 0,
        };
        let input = ZipInput { source, limits, names, stub };
        let reader = ZipReader { source, stub, context, fault: std::cell::RefCell::default() };
        let mut buffer = vec![0; BUFFER];
        let refuse = |reader: &ZipReader<'_>, at: u64, error: rawzip::Error| {
            let damaged = || UnpackError::damaged(&source.name(), at, format!("invalid zip directory: {error}"));
            reader.fault.take().unwrap_or_else(damaged)
        };
        let found =
            ZipArchive::with_max_search_space(SEARCH).locate_in_reader(reader, &mut buffer, len.saturating_sub(stub));
        let archive = found.map_err(|(reader, error)| refuse(&reader, len, error))?;
        let stated = archive.entries_hint();
        let mut entries = archive.entries(&mut buffer);
        let (mut total, mut count) = (0_u64, 0_u64);
        loop {
            let next = entries
                .next_entry()
                .map_err(|error| refuse(archive.get_ref(), archive.directory_offset().saturating_add(stub), error))?;
            let Some(record) = next else { break };
            count += 1;
            total = total.saturating_add(record.uncompressed_size_hint());
            limits.check_expansion(&source.name(), (len, source.origin().len), total)?;
            if count > self.added {
                context.work(&source.name())?;
                add_member(&input, &record, add, context)?;
                self.added = count;
            }
        }
        // Old programs count modulo 65536.
        if (count ^ stated) & 0xffff != 0 {
            let what = format!("the zip directory has {count} entries and states {stated}");
            return Err(UnpackError::damaged(&source.name(), archive.directory_offset().saturating_add(stub), what));
        }
        source.check_range(archive.directory_offset().saturating_add(stub), len, None, context.wait())
    }
}

fn add_member(
    zip: &ZipInput<'_>,
    record: &ZipFileHeaderRecord<'_>,
    add: AddMember<'_>,
    context: &DecodeContext<'_>,
) -> Result<(), UnpackError> {
    const UNIX: u16 = 3;
    let path = member_path(record, zip.names);
    let attributes = record.external_attributes();
    let mode = match record.version_made_by().as_u16() >> 8 {
        UNIX => {
            let [_, _, high @ ..] = attributes.to_le_bytes();
            u16::from_le_bytes(high)
        }
        _ => 0,
    };
    let (method, stated) =
        (record.compression_method(), StatedContent { crc: record.crc32(), size: record.uncompressed_size_hint() });
    let is_link = mode & 0o170_000 == 0o120_000;
    let is_dir = record.is_dir() || mode & 0o170_000 == 0o040_000;
    let data = if is_dir {
        MemberData::Nothing
    } else if record.flags().is_encrypted() {
        MemberData::Refused("encrypted, which dupfs does not support".into())
    } else if let Some(method) = ZipMethod::of(method) {
        let header = record.local_header_offset().saturating_add(zip.stub);
        MemberData::Packed { header, packed: record.compressed_size_hint(), method, stated }
    } else {
        let (name, number) = (method.name().unwrap_or("an unknown method"), method.as_u16());
        MemberData::Refused(format!("compressed by {name} (method {number}), which dupfs does not support").into())
    };
    let (kind, data) = match data {
        _ if is_dir => (EntryKind::Dir, MemberData::Nothing),
        MemberData::Packed { packed, .. } if is_link && (stated.size > TARGET as u64 || packed > 2 * TARGET as u64) => {
            let size = stated.size;
            let reason =
                format!("a symbolic link with a target of {size} bytes in {packed}; at most {TARGET} are supported");
            (EntryKind::File, MemberData::Refused(reason.into()))
        }
        MemberData::Packed { .. } if is_link => {
            (EntryKind::Symlink(link_target(zip, &data, context)?.into()), MemberData::Nothing)
        }
        // A refused member is shown as a file that cannot be read, also if it is a link.
        data => (EntryKind::File, data),
    };
    let permissions = match (mode & 0o7777, is_dir) {
        (0, true) => 0o755,
        (0, false) => 0o644,
        (mode, _) => mode,
    };
    let (uid, gid) = (u32::MAX, u32::MAX);
    let meta = EntryMeta {
        kind,
        mode: permissions,
        uid,
        gid,
        uname: Arc::default(),
        gname: Arc::default(),
        mtime: mtime(record),
    };
    add(ArchiveMember { path: &path, entry: ArchiveEntry { meta, data }, hard_link: None })
}

/// The target of a symbolic link, which is its content.
fn link_target(zip: &ZipInput<'_>, data: &MemberData, context: &DecodeContext<'_>) -> Result<Vec<u8>, UnpackError> {
    let MemberData::Packed { header, packed, method, stated } = data else { return Ok(Vec::new()) };
    let (name, request) = (zip.source.name(), context.wait());
    let at = data_at(zip.source, *header, request)?;
    let wrong = || UnpackError::damaged(&name, *header, "checksum mismatch of the target of a symbolic link");
    let len = usize::try_from(*packed).map_err(|_| wrong())?;
    let body = Arc::new(MemorySource::new(&name, zip.source.read_at(at, len, request)?));
    let setup = DecoderSetup { workers: context.workers(), limits: *zip.limits, request };
    let decoder = member_decoder(body, (*method, *stated), None, &setup);
    let mut decoder = decoder.map_err(|_| wrong())?;
    let mut target = Vec::new();
    // No more than is stated: a decoder that has more fails.
    loop {
        match decoder.next(context) {
            Ok(Some(bytes)) => target.extend_from_slice(&bytes),
            Ok(None) => return Ok(target),
            Err(error) if error.is_of_source() => return Err(error),
            Err(_) => return Err(wrong()),
        }
    }
}

/// The offset of the data of the member whose local header is at `header`.
pub(super) fn data_at(source: &dyn ByteSource, header: u64, context: &RequestContext) -> Result<u64, UnpackError> {
    let bytes = source.read_at(header, LOCAL, context)?;
    let field =
        |at: usize| bytes.get(at..at + 2).and_then(|b| b.first_chunk::<2>()).map(|b| u64::from(u16::from_le_bytes(*b)));
    match (bytes.get(..4), field(26), field(28)) {
        (Some(b"PK\x03\x04"), Some(name), Some(extra)) => Ok(header.saturating_add(LOCAL as u64 + name + extra)),
        _ => Err(UnpackError::damaged(&source.name(), header, "no member at the offset that the zip directory states")),
    }
}

/// Times without a zone are the local time of the machine that packed it. They are taken as this machine's, as unzip
/// does.
fn mtime(record: &ZipFileHeaderRecord<'_>) -> i64 {
    match record.last_modified() {
        ZipDateTimeKind::Utc(time) => time.to_unix(),
        ZipDateTimeKind::Local(time) => {
            // A time that no calendar has is shown as the beginning of 1970.
            let civil = civil_time(time);
            let zoned = civil.and_then(|time| time.to_zoned_datetime(TimeZone::system()).ok());
            zoned.map_or(0, |time| time.timestamp().as_second())
        }
    }
}

/// The parts of `time` as a time of day in a calendar; `None` if it is invalid.
fn civil_time(time: LocalDateTime) -> Option<DateTime> {
    let small = |value: u8| i8::try_from(value).ok();
    let (month, day) = (small(time.month())?, small(time.day())?);
    let (hour, minute, second) = (small(time.hour())?, small(time.minute())?, small(time.second())?);
    DateTime::new(i16::try_from(time.year()).ok()?, month, day, hour, minute, second, 0).ok()
}

/// Owners are not in a zip archive: they are those of the archive's own file.
pub(super) fn has_owner(meta: &EntryMeta) -> bool {
    (meta.uid, meta.gid) != (u32::MAX, u32::MAX)
}

/// Returns true if `source`, whose first bytes are `head`, is a zip archive. One with something in front, such as a program that
/// extracts it, or the last part of one that was split, is known by its end.
pub(super) fn is_zip(source: &dyn ByteSource, head: &[u8], context: &RequestContext) -> Result<bool, UnpackError> {
    if matches!(head.get(..4), Some(b"PK\x03\x04" | b"PK\x05\x06" | b"PK00")) {
        return Ok(true);
    }
    match source.known_len() {
        Some(len) => Ok(ZipEnd::find(source, len, context)?.is_some_and(|end| end.is_last)),
        None => Ok(false),
    }
}

/// The reason why an archive in several files is not read.
const SPLIT: &str = "the last part of a split archive; join the parts with `zip -s 0`";
/// Bytes of the record at the end of an archive, without its comment.
const END: usize = 22;
/// Bytes of the record before it that leads to the end of the directory in the large form (zip64).
const LOCATOR: usize = 20;
/// Bytes of that end.
const LARGE_END: u64 = 56;

/// The record at the end of an archive.
#[derive(Debug, PartialEq, Eq)]
struct ZipEnd {
    /// Nothing follows it but its comment.
    is_last: bool,
    /// Other files belong to the archive.
    is_split: bool,
    /// Bytes in front of an archive of the large form that its offsets do not count. Of the small form the library finds that.
    stub: u64,
}

impl ZipEnd {
    /// The record in the last bytes of a file of `len` bytes.
    fn find(source: &dyn ByteSource, len: u64, context: &RequestContext) -> Result<Option<Self>, UnpackError> {
        // The search for no more than the longest comment, and first without one.
        for room in [0, usize::from(u16::MAX)] {
            let max_len = END + LOCATOR + room;
            let at = len.saturating_sub(max_len as u64);
            let tail = source.read_at(at, clamp_len(len - at, max_len), context)?;
            let found = tail.windows(END).rposition(|record| record.starts_with(b"PK\x05\x06"));
            let Some(found) = found else { continue };
            let record = tail.get(found..).unwrap_or(&[]);
            let &[_, _, _, _, d0, d1, s0, s1, _, _, _, _, _, _, _, _, _, _, _, _, c0, c1, ..] = record else {
                continue;
            };
            let (disk, start) = (u16::from_le_bytes([d0, d1]), u16::from_le_bytes([s0, s1]));
            let is_last = record.len() == END + usize::from(u16::from_le_bytes([c0, c1]));
            let locator = found.checked_sub(LOCATOR).and_then(|at| tail.get(at..found));
            let large = LargeEnd::of(locator.unwrap_or(&[]));
            let locator_at = at.saturating_add(found as u64).saturating_sub(LOCATOR as u64);
            let stub = match &large {
                Some(large) => large.stub(source, locator_at, context)?,
                None => 0,
            };
            let is_split = large.is_some_and(|large| large.disks > 1)
                || (disk != u16::MAX && disk > 0)
                || (start != u16::MAX && start > 0);
            return Ok(Some(Self { is_last, is_split, stub }));
        }
        Ok(None)
    }
}

/// The location of the end of the directory in the large form.
struct LargeEnd {
    at: u64,
    disks: u32,
}

impl LargeEnd {
    fn of(locator: &[u8]) -> Option<Self> {
        let mut fields = ByteFields(locator.strip_prefix(b"PK\x06\x07")?);
        let _disk = fields.array::<4>()?;
        let (at, disks) = (fields.array().map(u64::from_le_bytes)?, fields.array().map(u32::from_le_bytes)?);
        Some(Self { at, disks })
    }

    /// Bytes by which it is after its stated offset; it is directly before its locator, at `locator_at`.
    fn stub(&self, source: &dyn ByteSource, locator_at: u64, context: &RequestContext) -> Result<u64, UnpackError> {
        let magic = b"PK\x06\x06";
        if source.read_at(self.at, magic.len(), context)? == magic {
            return Ok(0);
        }
        let Some(at) = locator_at.checked_sub(LARGE_END) else { return Ok(0) };
        let is_there = source.read_at(at, magic.len(), context)? == magic;
        Ok(if is_there { at.saturating_sub(self.at) } else { 0 })
    }
}

#[cfg(test)]
#[path = "zip/tests.rs"]
mod tests;
