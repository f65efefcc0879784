//! librsync deltas, one command at a time (docs/FORMAT.md section 6).

use super::FormatError;

#[cfg(test)]
mod tests;

/// The first bytes of a delta.
pub const MAGIC: [u8; 4] = *b"rs\x026";

/// Upper bound of the length of a command's header: opcode, 8 bytes of offset, 8 bytes of length.
pub const MAX_COMMAND_LEN: usize = 17;

/// The largest offset and length. librsync computes with signed 64-bit numbers.
const MAX_OFFSET: u64 = i64::MAX.unsigned_abs();

/// A command of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaCommand {
    /// The end of the delta.
    End,
    /// `len` bytes of new content. They follow the header; the next command follows them.
    Literal {
        /// Length of the header in bytes.
        header_len: usize,
        /// Length of the content in bytes.
        len: u64,
    },
    /// `len` bytes of the previous content from `offset`. The next command follows the header.
    Copy {
        /// Length of the header in bytes.
        header_len: usize,
        /// Offset of the bytes in the previous content.
        offset: u64,
        /// Number of bytes. `offset + len` does not overflow.
        len: u64,
    },
}

/// Checks the first four bytes of a delta. The first command follows them.
///
/// # Errors
/// [`FormatError::Delta`] if they are fewer than four or not librsync's.
pub fn check_magic(head: &[u8]) -> Result<(), FormatError> {
    if head.starts_with(&MAGIC) {
        Ok(())
    } else {
        Err(FormatError::Delta { offset: 0, what: "it does not begin with librsync's magic for deltas" })
    }
}

/// Parses the command at the front of `head`, which has up to [`MAX_COMMAND_LEN`] bytes from the position of a command.
/// More bytes are ignored. Returns `None` if the header of the command is longer than `head`.
///
/// # Errors
/// [`FormatError::Delta`], at offset 0 (see [`FormatError::at`]), for reserved opcodes and for lengths and offsets
/// beyond 2^63 - 1.
pub fn parse_command(head: &[u8]) -> Result<Option<DeltaCommand>, FormatError> {
    let Some((&op, args)) = head.split_first() else { return Ok(None) };
    match op {
        0x00 => Ok(Some(DeltaCommand::End)),
        0x01..=0x40 => Ok(Some(DeltaCommand::Literal { header_len: 1, len: u64::from(op) })),
        0x41..=0x44 => {
            let width = 1_usize << (op - 0x41);
            let Some(len) = big_endian(args, 0, width) else { return Ok(None) };
            if len > MAX_OFFSET {
                return Err(FormatError::Delta { offset: 0, what: "the length of a literal is out of range" });
            }
            Ok(Some(DeltaCommand::Literal { header_len: 1 + width, len }))
        }
        0x45..=0x54 => {
            let widths = op - 0x45;
            let (offset_width, len_width) = (1_usize << (widths >> 2), 1_usize << (widths & 3));
            let offset = big_endian(args, 0, offset_width);
            let len = big_endian(args, offset_width, len_width);
            let (Some(offset), Some(len)) = (offset, len) else { return Ok(None) };
            if offset.checked_add(len).is_none_or(|end| end > MAX_OFFSET) {
                return Err(FormatError::Delta { offset: 0, what: "a copy reaches out of range" });
            }
            Ok(Some(DeltaCommand::Copy { header_len: 1 + offset_width + len_width, offset, len }))
        }
        0x55..=0xff => Err(FormatError::Delta { offset: 0, what: "the opcode is reserved" }),
    }
}

/// Parses the big-endian number of `width` bytes at `at`.
fn big_endian(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().fold(0, |value, &b| (value << 8) | u64::from(b)))
}
