//! A tar entry, composed from its header block and the extension headers before it.

use super::fields::{self, TarBlock, number, permissions, until_nul};
use super::pax::PaxRecords;
use super::sparse::{SparseLayout, SparseMap, layout_of};
use crate::FormatError;
use crate::{EntryKind, EntryMeta, LastOwnerNames};

/// An entry of a tar stream, with PAX records and GNU long names applied. All byte strings are raw. It is a flat record,
/// because its fields are those of a tar header and independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TarEntry<'a> {
    /// The whole name.
    pub path: &'a [u8],
    /// The type flag of the header. The old NUL is given as `0`, and as `5` if the name ends in a slash.
    pub type_flag: u8,
    /// The permission bits of the mode field.
    pub mode: u16,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Owner's name. May be empty.
    pub uname: &'a [u8],
    /// Group's name. May be empty.
    pub gname: &'a [u8],
    /// Seconds since 1970-01-01 UTC.
    pub mtime: i64,
    /// Target of a link.
    pub link: &'a [u8],
    /// Major number. 0 unless the entry is a device.
    pub dev_major: u32,
    /// Minor number. 0 unless the entry is a device.
    pub dev_minor: u32,
    /// Number of data bytes after the header. 0 for types without data, whatever the header states.
    pub size: u64,
    /// Offset in the stream of the entry's first header block, including extension headers.
    pub header_offset: u64,
    /// The layout of the data of a sparse file, including the size of that file.
    pub sparse: Option<SparseLayout<'a>>,
}

impl TarEntry<'_> {
    /// Returns the metadata of the entry. A negative id is the unsigned 32-bit id of the same bits. `names` are those of the
    /// entry before.
    ///
    /// # Errors
    /// [`FormatError::Entry`] for types that duplicity does not write, and for ids that do not fit 32 bits.
    pub fn meta(&self, names: &mut LastOwnerNames) -> Result<EntryMeta, FormatError> {
        let refuse = |what| FormatError::entry(self.header_offset, self.path, what);
        let kind = match self.type_flag {
            b'0' | b'7' | b'S' => EntryKind::File,
            b'2' => EntryKind::Symlink(self.link.into()),
            b'3' => EntryKind::CharDevice(self.dev_major, self.dev_minor),
            b'4' => EntryKind::BlockDevice(self.dev_major, self.dev_minor),
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            _ => return Err(refuse("duplicity does not write this type")),
        };
        let id = |value: i64| match u32::try_from(value) {
            Ok(id) => Ok(id),
            Err(_) => i32::try_from(value)
                .map(i32::cast_unsigned)
                .map_err(|_| refuse("an owner's or group's number does not fit 32 bits")),
        };
        let (uid, gid) = (id(self.uid)?, id(self.gid)?);
        let (uname, gname) = names.share(self.uname, self.gname);
        Ok(EntryMeta { kind, mode: self.mode, uid, gid, uname, gname, mtime: self.mtime })
    }
}

/// The extension headers that apply to an entry.
pub(super) struct EntryExtensions<'a> {
    pub(super) long_name: Option<&'a [u8]>,
    pub(super) long_link: Option<&'a [u8]>,
    pub(super) local: &'a PaxRecords,
    pub(super) global: &'a PaxRecords,
    /// The map of an old GNU sparse entry. `None` where sparse files are refused.
    pub(super) map: Option<SparseMap<'a>>,
}

impl EntryExtensions<'_> {
    /// Returns the PAX record that applies: the entry's own, else the global one. An empty record counts as none.
    fn pax(&self, field: impl Fn(&PaxRecords) -> &Option<Vec<u8>>) -> Option<&[u8]> {
        let value = field(self.local).as_deref().or(field(self.global).as_deref());
        value.filter(|value| !value.is_empty())
    }
}

/// Composes an entry from its header block and extension headers. `joined` is the buffer for a name in two fields.
pub(super) fn compose<'a>(
    block: &'a TarBlock,
    extensions: &'a EntryExtensions<'a>,
    joined: &'a mut Vec<u8>,
    header_offset: u64,
) -> Result<TarEntry<'a>, &'static str> {
    let (local, global) = (extensions.local, extensions.global);
    let sparse = layout_of(block, &local.sparse, &global.sparse, extensions.map)?;
    let sparse_name = local.sparse.name.as_deref().filter(|_| sparse.is_some());
    let path = match sparse_name.or(extensions.pax(|pax| &pax.path)).or(extensions.long_name) {
        Some(path) => path,
        None => fields::ustar_name(block, joined),
    };
    let mut type_flag = fields::type_flag(block);
    if type_flag == 0 {
        type_flag = if path.last() == Some(&b'/') { b'5' } else { b'0' };
    }
    let pax_or_field = |pax: Option<i64>, field: &[u8]| pax.map_or_else(|| number(field), Ok);
    let (dev_major, dev_minor) = match type_flag {
        b'3' | b'4' => fields::device(block)?,
        _ => (0, 0),
    };
    let size = match type_flag {
        // Links, devices, directories and pipes have no data, whatever the field states.
        b'1'..=b'6' => 0,
        _ => match local.size.or(global.size) {
            Some(size) => size,
            None => fields::size(block)?,
        },
    };
    Ok(TarEntry {
        path,
        type_flag,
        mode: permissions(number(&block[100..108])?),
        uid: pax_or_field(local.uid.or(global.uid), &block[108..116])?,
        gid: pax_or_field(local.gid.or(global.gid), &block[116..124])?,
        uname: extensions.pax(|pax| &pax.uname).unwrap_or_else(|| until_nul(&block[265..297])),
        gname: extensions.pax(|pax| &pax.gname).unwrap_or_else(|| until_nul(&block[297..329])),
        mtime: pax_or_field(local.mtime.or(global.mtime), &block[136..148])?,
        link: extensions.pax(|pax| &pax.link).or(extensions.long_link).unwrap_or_else(|| until_nul(&block[157..257])),
        dev_major,
        dev_minor,
        size,
        header_offset,
        sparse,
    })
}
