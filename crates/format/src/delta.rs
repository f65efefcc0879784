//! librsync deltas, one command at a time (FORMAT.md 6).

use super::FormatError;

#[cfg(test)]
mod tests;

/// The first bytes of a delta.
pub const MAGIC: [u8; 4] = *b"rs\x026";

/// Longest command header: opcode, 8 bytes of offset, 8 bytes of length.
pub const MAX_OP_LEN: usize = 17;

/// The largest offset or length that librsync can mean: it computes with signed 64-bit numbers.
const MAX_OFFSET: u64 = i64::MAX.unsigned_abs();

/// What stands at a command's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The command's header is longer than what was given, which is shorter than [`MAX_OP_LEN`].
    NeedMore,
    /// The end of the delta.
    End,
    /// `len` bytes of new content follow the header; the next command comes behind them.
    Literal {
        /// Bytes of the header.
        header_len: usize,
        /// Bytes of content.
        len: u64,
    },
    /// `len` bytes of the previous content from `offset`; the next command follows the header.
    Copy {
        /// Bytes of the header.
        header_len: usize,
        /// Where the bytes are in the previous content.
        offset: u64,
        /// How many they are; `offset + len` does not overflow.
        len: u64,
    },
}

/// Checks a delta's first four bytes. The first command follows them.
///
/// # Errors
/// [`FormatError::Delta`] if they are not librsync's or fewer than four.
pub fn check_magic(head: &[u8]) -> Result<(), FormatError> {
    if head.starts_with(&MAGIC) {
        Ok(())
    } else {
        Err(FormatError::Delta { offset: 0, what: "it does not begin with librsync's delta mark" })
    }
}

/// The command at the front of `head`, which holds up to [`MAX_OP_LEN`] bytes from a command's position (more do no harm).
///
/// # Errors
/// [`FormatError::Delta`], at offset 0 (see [`FormatError::at`]), for reserved opcodes and for lengths and offsets beyond
/// 2^63 - 1.
pub fn parse_op(head: &[u8]) -> Result<Step, FormatError> {
    let Some((&op, args)) = head.split_first() else { return Ok(Step::NeedMore) };
    match op {
        0x00 => Ok(Step::End),
        0x01..=0x40 => Ok(Step::Literal { header_len: 1, len: u64::from(op) }),
        0x41..=0x44 => {
            let width = 1_usize << (op - 0x41);
            let Some(len) = big_endian(args, 0, width) else { return Ok(Step::NeedMore) };
            if len > MAX_OFFSET {
                return Err(FormatError::Delta { offset: 0, what: "the length of a literal is out of range" });
            }
            Ok(Step::Literal { header_len: 1 + width, len })
        }
        0x45..=0x54 => {
            let widths = op - 0x45;
            let (offset_width, len_width) = (1_usize << (widths >> 2), 1_usize << (widths & 3));
            let offset = big_endian(args, 0, offset_width);
            let len = big_endian(args, offset_width, len_width);
            let (Some(offset), Some(len)) = (offset, len) else { return Ok(Step::NeedMore) };
            if offset.checked_add(len).is_none_or(|end| end > MAX_OFFSET) {
                return Err(FormatError::Delta { offset: 0, what: "a copy reaches out of range" });
            }
            Ok(Step::Copy { header_len: 1 + offset_width + len_width, offset, len })
        }
        0x55..=0xff => Err(FormatError::Delta { offset: 0, what: "the command is one that librsync reserves" }),
    }
}

fn big_endian(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().fold(0, |value, &b| (value << 8) | u64::from(b)))
}
