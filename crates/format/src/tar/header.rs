//! One 512-byte header: fields, numbers, checksum, and which of several names counts.

use std::ffi::CStr;

use super::BLOCK;
use super::pax::Pax;
use super::sparse::{self, Sparse};
use crate::FormatError;
use crate::{EntryKind, EntryMeta};

/// An entry of a tar stream, with PAX records and GNU long names applied. All byte strings are raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TarEntry<'a> {
    /// The whole name.
    pub path: &'a [u8],
    /// The type as in the header; `0` for the old NUL, `5` for an old directory that only its trailing slash tells.
    pub type_flag: u8,
    /// The mode field.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Owner's name; may be empty.
    pub uname: &'a [u8],
    /// Group's name; may be empty.
    pub gname: &'a [u8],
    /// Seconds since 1970-01-01 UTC.
    pub mtime: i64,
    /// Target of a link.
    pub link: &'a [u8],
    /// Major number; 0 unless it is a device.
    pub dev_major: u32,
    /// Minor number; 0 unless it is a device.
    pub dev_minor: u32,
    /// Bytes of data that follow the header; 0 for types that have none, whatever the header says.
    pub size: u64,
    /// Where in the stream the entry's first header block begins, extension headers included.
    pub header_offset: u64,
    /// How the data makes up the file, if it is a sparse one; its true size is in there.
    pub sparse: Option<Sparse<'a>>,
}

impl TarEntry<'_> {
    /// The metadata as the rest of dupfs has it. Negative ids are the unsigned 32-bit ones of the same bits.
    ///
    /// # Errors
    /// [`FormatError::Entry`] for types that duplicity does not write, and ids that do not fit 32 bits.
    pub fn meta(&self) -> Result<EntryMeta, FormatError> {
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
        Ok(EntryMeta {
            kind,
            mode: u16::try_from(self.mode & 0o7777).unwrap_or(0),
            uid: id(self.uid)?,
            gid: id(self.gid)?,
            uname: self.uname.into(),
            gname: self.gname.into(),
            mtime: self.mtime,
        })
    }
}

/// What extension headers say of an entry.
pub(super) struct Names<'a> {
    pub(super) name: Option<&'a [u8]>,
    pub(super) link: Option<&'a [u8]>,
    pub(super) local: &'a Pax,
    pub(super) global: &'a Pax,
    /// Map of an old GNU sparse entry; `None` where sparse files are refused.
    pub(super) map: Option<&'a [(u64, u64)]>,
}

impl Names<'_> {
    /// The PAX record that counts: the entry's own, else the global one; an empty one counts as none.
    fn pax(&self, field: impl Fn(&Pax) -> &Option<Vec<u8>>) -> Option<&[u8]> {
        let value = field(self.local).as_deref().or(field(self.global).as_deref());
        value.filter(|value| !value.is_empty())
    }
}

/// Puts an entry together. `joined` is where a name in two fields is joined.
pub(super) fn entry<'a>(
    block: &'a [u8; BLOCK],
    names: &'a Names<'a>,
    joined: &'a mut Vec<u8>,
    header_offset: u64,
) -> Result<TarEntry<'a>, &'static str> {
    let (local, global) = (names.local, names.global);
    let sparse = sparse::of(block, names)?;
    let own_name = local.sparse.name.as_deref().filter(|_| sparse.is_some());
    let path = match own_name.or(names.pax(|pax| &pax.path)).or(names.name) {
        Some(path) => path,
        None => ustar_name(block, joined),
    };
    let mut type_flag = type_flag(block);
    if type_flag == 0 {
        type_flag = if path.last() == Some(&b'/') { b'5' } else { b'0' };
    }
    let number = |pax: Option<i64>, field: &[u8]| pax.map_or_else(|| number(field), Ok);
    let (dev_major, dev_minor) = match type_flag {
        b'3' | b'4' => (device(&block[329..337])?, device(&block[337..345])?),
        _ => (0, 0),
    };
    let size = match type_flag {
        // Links, devices, directories and pipes have no data, whatever the field says.
        b'1'..=b'6' => 0,
        _ => match local.size.or(global.size) {
            Some(size) => size,
            None => size_field(block)?,
        },
    };
    Ok(TarEntry {
        path,
        type_flag,
        mode: u32::try_from(self::number(&block[100..108])? & 0o7777).unwrap_or(0),
        uid: number(local.uid.or(global.uid), &block[108..116])?,
        gid: number(local.gid.or(global.gid), &block[116..124])?,
        uname: names.pax(|pax| &pax.uname).unwrap_or_else(|| until_nul(&block[265..297])),
        gname: names.pax(|pax| &pax.gname).unwrap_or_else(|| until_nul(&block[297..329])),
        mtime: number(local.mtime.or(global.mtime), &block[136..148])?,
        link: names.pax(|pax| &pax.link).or(names.link).unwrap_or_else(|| until_nul(&block[157..257])),
        dev_major,
        dev_minor,
        size,
        header_offset,
        sparse,
    })
}

/// The name in the header's own fields. GNU's magic means another use of the prefix field.
fn ustar_name<'a>(block: &'a [u8; BLOCK], joined: &'a mut Vec<u8>) -> &'a [u8] {
    let name = until_nul(&block[..100]);
    let prefix = if block[257..263] == *b"ustar\0" { until_nul(&block[345..500]) } else { &[] };
    if prefix.is_empty() {
        return name;
    }
    joined.clear();
    joined.extend_from_slice(prefix);
    joined.push(b'/');
    joined.extend_from_slice(name);
    joined
}

/// The type as it stands in the header.
pub(super) fn type_flag(block: &[u8; BLOCK]) -> u8 {
    block[156]
}

/// The size field of an extension header.
pub(super) fn size(block: &[u8; BLOCK]) -> Result<u64, &'static str> {
    size_field(block)
}

fn size_field(block: &[u8; BLOCK]) -> Result<u64, &'static str> {
    u64::try_from(number(&block[124..136])?).map_err(|_| "the size is negative")
}

fn device(field: &[u8]) -> Result<u32, &'static str> {
    u32::try_from(number(field)?).map_err(|_| "a device number is out of range")
}

/// Whether the block ends the stream.
pub(super) fn is_zero(block: &[u8; BLOCK]) -> bool {
    block[0] == 0 && block.iter().all(|&b| b == 0)
}

/// Compares the checksum with the sum of all bytes, its own field taken as spaces. Old writers summed signed bytes.
pub(super) fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let stored = number(&block[148..156]).map_err(|_| "there is no tar header")?;
    let field: i64 = block[148..156].iter().map(|&b| i64::from(b)).sum();
    let sum = byte_sum(block);
    if i64::from(sum) - field + 8 * 32 == stored {
        return Ok(());
    }
    let signed: i64 = block.iter().map(|&b| i64::from(b.cast_signed())).sum();
    let field: i64 = block[148..156].iter().map(|&b| i64::from(b.cast_signed())).sum();
    if signed - field + 8 * 32 == stored { Ok(()) } else { Err("the header's checksum is wrong") }
}

/// The sum of a block's bytes, where most of the time per entry goes: eight at once, every other byte in a 16-bit lane;
/// two times 64 bytes of at most 255 in each lane cannot overflow it.
fn byte_sum(block: &[u8; BLOCK]) -> u32 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let (words, _) = block.as_chunks::<8>();
    let lanes = words.iter().fold(0_u64, |lanes, word| {
        let word = u64::from_le_bytes(*word);
        lanes.wrapping_add(word & EVEN).wrapping_add(word >> 8 & EVEN)
    });
    let [a, b, c, d, e, f, g, h] = lanes.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].into_iter().map(|lane| u32::from(u16::from_le_bytes(lane))).sum()
}

/// The bytes before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    CStr::from_bytes_until_nul(field).map_or(field, CStr::to_bytes)
}

/// A header's number: octal between blanks and NULs, or base 256 where the first bit is set (negative with the second).
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    const WRONG: &str = "a number in the header is not one";
    let Some((&first, rest)) = field.split_first() else { return Err(WRONG) };
    if first & 0x80 != 0 {
        // At most 12 bytes: 95 bits fit.
        let head = i128::from((first << 1).cast_signed() >> 1);
        let value = rest.iter().fold(head, |value, &b| (value << 8) | i128::from(b));
        return i64::try_from(value).map_err(|_| "a number in the header is out of range");
    }
    let mut value = 0_i64;
    let mut state = 0_u8;
    for &b in field {
        match (b, state) {
            (b' ', 0) => {}
            (b'0'..=b'7', 0 | 1) => {
                state = 1;
                // At most 12 digits: 36 bits.
                value = (value << 3) | i64::from(b - b'0');
            }
            (0, _) => break,
            (b' ', 1 | 2) => state = 2,
            _ => return Err(WRONG),
        }
    }
    Ok(value)
}

/// A decimal number of ASCII digits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
