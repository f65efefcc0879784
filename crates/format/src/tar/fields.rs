//! The fields of a 512-byte tar header, and the numbers in them.

use std::ffi::CStr;

/// The size of a tar block.
pub(super) const BLOCK_LEN: usize = 512;

/// A tar block.
pub(super) type TarBlock = [u8; BLOCK_LEN];

/// Returns the type flag of a header.
pub(super) fn type_flag(block: &TarBlock) -> u8 {
    block[156]
}

/// Returns the size field of a header.
pub(super) fn size(block: &TarBlock) -> Result<u64, &'static str> {
    u64::try_from(number(&block[124..136])?).map_err(|_| "the size is negative")
}

/// Returns the device numbers of a header: major, minor.
pub(super) fn device(block: &TarBlock) -> Result<(u32, u32), &'static str> {
    let part = |field| u32::try_from(number(field)?).map_err(|_| "a device number is out of range");
    Ok((part(&block[329..337])?, part(&block[337..345])?))
}

/// Returns the name in the header's own fields. `joined` is the buffer for a name that is split over two fields.
///
/// GNU tar uses the prefix field for other data, so the prefix counts only with the POSIX magic.
pub(super) fn ustar_name<'a>(block: &'a TarBlock, joined: &'a mut Vec<u8>) -> &'a [u8] {
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

/// Returns true for the block of zeros that ends a stream.
pub(super) fn is_zero(block: &TarBlock) -> bool {
    block[0] == 0 && block.iter().all(|&b| b == 0)
}

/// Compares the checksum with the sum of all bytes, where the checksum itself counts as spaces. Old writers summed
/// signed bytes.
pub(super) fn verify_checksum(block: &TarBlock) -> Result<(), &'static str> {
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

/// Returns the sum of a block's bytes. Most of the time per entry is spent here, so eight bytes are added at once,
/// every other byte in a 16-bit lane. A lane adds 2 * 64 bytes of at most 255 and cannot overflow.
fn byte_sum(block: &TarBlock) -> u32 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let (words, _) = block.as_chunks::<8>();
    let lanes = words.iter().fold(0_u64, |lanes, word| {
        let word = u64::from_le_bytes(*word);
        lanes.wrapping_add(word & EVEN).wrapping_add(word >> 8 & EVEN)
    });
    let [a, b, c, d, e, f, g, h] = lanes.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].into_iter().map(|lane| u32::from(u16::from_le_bytes(lane))).sum()
}

/// Returns the bytes before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    CStr::from_bytes_until_nul(field).map_or(field, CStr::to_bytes)
}

/// Returns the permission bits in a mode field.
pub(super) fn permissions(mode: i64) -> u16 {
    let [.., high, low] = (mode & 0o7777).to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// Parses a number of a header: octal digits between blanks and NULs, or base 256 if the first bit is set. A base 256
/// number is negative if the second bit is set, too.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    const MALFORMED: &str = "a number in the header is malformed";
    let Some((&first, rest)) = field.split_first() else { return Err(MALFORMED) };
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
            _ => return Err(MALFORMED),
        }
    }
    Ok(value)
}

/// Parses a decimal number of ASCII digits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
