//! The members of a zip archive by its directory.

use std::io;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rawzip::time::ZipDateTimeKind;
use rawzip::{CompressionMethod, ReaderAt, ZipArchive, ZipFileHeaderRecord};

use super::archive_table::member::{ArchiveEntry, ArchiveMember, MemberData};
use super::archive_table::names::TARGET;
use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::error::UnpackError;
use super::limits::UnpackLimits;
use super::tar::AddMember;
use dupfs_base::RequestContext;
use dupfs_format::{EntryKind, EntryMeta};

/// Bytes of a directory's record at most, and read at a time.
const BUFFER: usize = 256 << 10;
/// How far from the end the directory's end may be: its comment has at most 64 KiB.
const SEARCH: u64 = 128 << 10;
/// Bytes of a member's local header without its names.
const LOCAL: usize = 30;

/// A source as the library reads it. Its own errors are stored in `fault`.
struct ZipReader<'a> {
    source: &'a dyn ByteSource,
    context: &'a DecodeContext<'a>,
    fault: std::cell::RefCell<Option<UnpackError>>,
}

impl ReaderAt for ZipReader<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.source.read_at(offset, buf.len(), self.context.wait()).map_err(|error| {
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

/// A pass over the directory of a zip archive, which can be stopped between two members and goes on with the next.
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

    /// Gives `add` every member of the zip archive `source` from here on. After an error of the source another call goes on
    /// where this one was.
    ///
    /// # Errors
    /// [`UnpackError`] of the source, of `add`, and for a directory that is damaged or states too much.
    pub(super) fn advance(
        &mut self,
        source: &dyn ByteSource,
        limits: &UnpackLimits,
        add: AddMember<'_>,
        context: &DecodeContext<'_>,
    ) -> Result<(), UnpackError> {
        let len = source.len(context.wait())?;
        let reader = ZipReader { source, context, fault: std::cell::RefCell::default() };
        let mut buffer = vec![0; BUFFER];
        let refuse = |reader: &ZipReader<'_>, at: u64, error: rawzip::Error| {
            let damaged = || UnpackError::damaged(&source.name(), at, format!("its directory: {error}"));
            reader.fault.take().unwrap_or_else(damaged)
        };
        let found = ZipArchive::with_max_search_space(SEARCH).locate_in_reader(reader, &mut buffer, len);
        let archive = found.map_err(|(reader, error)| refuse(&reader, len, error))?;
        let stated = archive.entries_hint();
        let mut entries = archive.entries(&mut buffer);
        let (mut total, mut count) = (0_u64, 0_u64);
        loop {
            let next =
                entries.next_entry().map_err(|error| refuse(archive.get_ref(), archive.directory_offset(), error))?;
            let Some(record) = next else { break };
            count += 1;
            total = total.saturating_add(record.uncompressed_size_hint());
            limits.check_expansion(&source.name(), (len, source.origin().len), total)?;
            if count > self.added {
                context.work(&source.name())?;
                add_member(source, &record, add, context)?;
                self.added = count;
            }
        }
        // Old programs count modulo 65536.
        if (count ^ stated) & 0xffff != 0 {
            let what = format!("its directory has {count} entries and says that it has {stated}");
            return Err(UnpackError::damaged(&source.name(), archive.directory_offset(), what));
        }
        source.check_range(archive.directory_offset(), len, None, context.wait())
    }
}

fn add_member(
    source: &dyn ByteSource,
    record: &ZipFileHeaderRecord<'_>,
    add: AddMember<'_>,
    context: &DecodeContext<'_>,
) -> Result<(), UnpackError> {
    const UNIX: u16 = 3;
    let path = record.file_path();
    let attributes = record.external_attributes();
    let mode = match record.version_made_by().as_u16() >> 8 {
        UNIX => u16::try_from(attributes >> 16).unwrap_or(0),
        _ => 0,
    };
    let method = record.compression_method();
    let is_link = mode & 0o170_000 == 0o120_000;
    let is_dir = record.is_dir() || mode & 0o170_000 == 0o040_000;
    let data = if is_dir {
        MemberData::Nothing
    } else if record.flags().is_encrypted() {
        MemberData::Refused("it is encrypted, which dupfs does not read".into())
    } else if method == CompressionMethod::STORE || method == CompressionMethod::DEFLATE {
        MemberData::Packed {
            header: record.local_header_offset(),
            packed: record.compressed_size_hint(),
            size: record.uncompressed_size_hint(),
            crc: record.crc32(),
            deflated: method == CompressionMethod::DEFLATE,
        }
    } else {
        MemberData::Refused(format!("it is compressed by {method:?}, which dupfs does not read").into())
    };
    let (kind, data) = match data {
        _ if is_dir => (EntryKind::Dir, MemberData::Nothing),
        MemberData::Packed { packed, size, .. } if is_link && (size > TARGET as u64 || packed > 2 * TARGET as u64) => {
            let reason =
                format!("a symbolic link with a target of {size} bytes in {packed}; no more than {TARGET} can be");
            (EntryKind::File, MemberData::Refused(reason.into()))
        }
        MemberData::Packed { .. } if is_link => {
            (EntryKind::Symlink(link_target(source, &data, context.wait())?.into()), MemberData::Nothing)
        }
        // What is refused is shown as a file that cannot be read, also if it is a link.
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
        uname: Box::default(),
        gname: Box::default(),
        mtime: mtime(record),
    };
    add(ArchiveMember { path: path.as_bytes(), entry: ArchiveEntry { meta, data }, hard_link: None })
}

/// The target of a symbolic link, which is its content.
fn link_target(source: &dyn ByteSource, data: &MemberData, context: &RequestContext) -> Result<Vec<u8>, UnpackError> {
    let MemberData::Packed { header, packed, crc, deflated, .. } = data else { return Ok(Vec::new()) };
    let at = data_at(source, *header, context)?;
    let bytes = source.read_at(at, usize::try_from(*packed).unwrap_or(0), context)?;
    let inflated = || miniz_oxide::inflate::decompress_to_vec_with_limit(&bytes, TARGET).unwrap_or_default();
    let target = if *deflated { inflated() } else { bytes.clone() };
    if crc32fast::hash(&target) != *crc {
        return Err(UnpackError::damaged(&source.name(), *header, "the checksum of a symbolic link is wrong"));
    }
    Ok(target)
}

/// Where the data of the member begins whose local header is at `header`.
pub(super) fn data_at(source: &dyn ByteSource, header: u64, context: &RequestContext) -> Result<u64, UnpackError> {
    let bytes = source.read_at(header, LOCAL, context)?;
    let field =
        |at: usize| bytes.get(at..at + 2).and_then(|b| b.first_chunk::<2>()).map(|b| u64::from(u16::from_le_bytes(*b)));
    match (bytes.get(..4), field(26), field(28)) {
        (Some(b"PK\x03\x04"), Some(name), Some(extra)) => Ok(header.saturating_add(LOCAL as u64 + name + extra)),
        _ => Err(UnpackError::damaged(&source.name(), header, "a member is not where the directory says")),
    }
}

/// Times without a zone are the local time of whoever packed it, taken as this machine's as unzip does.
fn mtime(record: &ZipFileHeaderRecord<'_>) -> i64 {
    match record.last_modified() {
        ZipDateTimeKind::Utc(time) => time.to_unix(),
        ZipDateTimeKind::Local(time) => {
            let small = |value: u8| i8::try_from(value).unwrap_or(0);
            let year = i16::try_from(time.year()).unwrap_or(1980);
            let (month, day) = (small(time.month()), small(time.day()));
            let (hour, minute, second) = (small(time.hour()), small(time.minute()), small(time.second()));
            let civil = DateTime::new(year, month, day, hour, minute, second, 0);
            civil.and_then(|t| t.to_zoned_datetime(TimeZone::system())).map_or(0, |t| t.timestamp().as_second())
        }
    }
}

/// Owners are not in a zip archive: they are those of the archive's own file.
pub(super) fn has_owner(meta: &EntryMeta) -> bool {
    (meta.uid, meta.gid) != (u32::MAX, u32::MAX)
}

/// Returns true if `head`, the first bytes of a file, begins as a zip archive does.
pub(super) fn begins(head: &[u8]) -> bool {
    matches!(head.get(..4), Some(b"PK\x03\x04" | b"PK\x05\x06"))
}

#[cfg(test)]
#[path = "zip/tests.rs"]
mod tests;
