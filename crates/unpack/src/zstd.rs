//! zstd frames one after the other. Seek points are the ends of frames.

use std::sync::Arc;

use ::zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use super::limits::ZeroPadding;
use super::stream_decoder::StreamDecoder;

/// The first bytes of a frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Most bytes of a frame's header.
const HEADER: usize = 18;
/// A window up to this size needs no more memory than any cursor has.
const SMALL_WINDOW: u64 = 256 << 10;
/// Largest window that the library accepts.
const MAX_WINDOW: u64 = 1 << 27;
/// Memory of the library apart from the window: two blocks of 128 KiB, and tables.
const TABLES: u64 = 512 << 10;
/// Bytes decoded at a time.
const STEP: usize = 256 << 10;

pub(super) struct ZstdDecoder {
    input: DecoderInput,
    library: DCtx<'static>,
    /// Between frames.
    between: bool,
    first: bool,
    padding: ZeroPadding,
    /// Decoded bytes that were not delivered yet: the first `made` ones.
    out: Vec<u8>,
    made: usize,
}

impl ZstdDecoder {
    pub(super) fn new(source: Arc<dyn ByteSource>, input: u64) -> Result<Self, UnpackError> {
        let name = source.name();
        let no_memory = || UnpackError::unsupported(&name, "zstd: no memory for the decoder");
        let library = DCtx::try_create().ok_or_else(no_memory)?;
        Ok(Self {
            input: DecoderInput::new(source, input),
            library,
            between: true,
            first: input == 0,
            padding: ZeroPadding::default(),
            out: Vec::new(),
            made: 0,
        })
    }
}

/// The window of the frame that begins with `header`; `None` if it has none: it is not a frame with content.
fn frame_window(header: &[u8]) -> Option<u64> {
    let (&magic, rest) = header.split_first_chunk::<4>()?;
    let (&descriptor, rest) = rest.split_first().filter(|_| magic == MAGIC)?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base.saturating_add(base / 8 * u64::from(window & 7)));
    }
    // The window of a single segment is its content.
    let dictionary_id = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let size = rest.get(*dictionary_id..)?;
    match descriptor >> 6 {
        0 => size.first().map(|&size| u64::from(size)),
        1 => size.first_chunk().map(|&size| u64::from(u16::from_le_bytes(size)) + 256),
        2 => size.first_chunk().map(|&size| u64::from(u32::from_le_bytes(size))),
        _ => size.first_chunk().map(|&size| u64::from_le_bytes(size)),
    }
}

impl StreamDecoder for ZstdDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        self.out.resize(STEP, 0);
        while self.made < STEP {
            let (name, offset) = (self.input.name(), self.input.offset());
            self.input.fill(if self.between { HEADER } else { 1 }, context)?;
            if self.between
                && let Some(window) = frame_window(self.input.buffered()).filter(|window| *window > SMALL_WINDOW)
            {
                context.check_memory(&name, window.min(MAX_WINDOW).saturating_add(TABLES))?;
            }
            self.input.work(context)?;
            let bytes = self.input.buffered();
            if bytes.is_empty() && self.between {
                if self.first {
                    return Err(UnpackError::damaged(&name, offset, "an empty file, not a zstd file"));
                }
                break;
            }
            let empty = bytes.is_empty();
            let mut from = InBuffer::around(bytes);
            let room = self.out.get_mut(self.made..).unwrap_or(&mut []);
            let mut to = OutBuffer::around(room);
            let hint = self.library.decompress_stream(&mut to, &mut from);
            let (taken, given) = (from.pos(), to.pos());
            let hint = hint.map_err(|e| {
                let error = get_error_name(e);
                if error.contains("Frame requires too much memory") {
                    return UnpackError::unsupported(&name, "zstd with a window of more than 128 MiB");
                }
                UnpackError::damaged(&name, offset, format!("zstd: {error}"))
            })?;
            self.input.consume(taken);
            self.made += given;
            if given == 0 {
                self.padding.add(&name, taken as u64, self.input.offset())?;
            }
            self.first = false;
            self.between = hint == 0;
            if self.between && self.made > 0 {
                break;
            }
            if empty && given == 0 && !self.between {
                return Err(UnpackError::damaged(&name, offset, "truncated zstd data"));
            }
        }
        let mut out = std::mem::take(&mut self.out);
        out.truncate(std::mem::take(&mut self.made));
        Ok(Some(out).filter(|out| !out.is_empty()))
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        self.between.then(|| (self.input.offset(), Vec::new()))
    }

    fn taken(&self) -> u64 {
        self.input.offset()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_window_of_a_frame_is_read_from_its_header() {
        for log in [10, 17, 23, 27] {
            let mut encoder = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"hello").unwrap();
            encoder.flush().unwrap();
            encoder.write_all(b"hello").unwrap();
            assert_eq!(frame_window(&encoder.finish().unwrap()), Some(1 << log));
        }
        for len in [5, 300, 70_000, 3_000_000] {
            let frame = ::zstd::bulk::compress(&vec![7; len], 1).unwrap();
            let window = frame_window(&frame).unwrap();
            assert!(window >= len.min(1 << 19) as u64, "{len}: {window}");
        }
        assert_eq!(frame_window(b"\x50\x2a\x4d\x18\0\0\0\0skippable frame"), None);
        assert_eq!(frame_window(&MAGIC), None);
    }
}
