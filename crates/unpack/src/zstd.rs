//! zstd frames one after the other. Seek points are the ends of frames.

use std::sync::Arc;

use ::zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, get_error_name};

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use super::limits::ZeroPadding;
use super::stream_decoder::StreamDecoder;

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

impl StreamDecoder for ZstdDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        self.out.resize(STEP, 0);
        while self.made < STEP {
            let (name, offset) = (self.input.name(), self.input.offset());
            self.input.peek(context)?;
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

    fn memory_bytes(&mut self) -> u64 {
        (self.library.sizeof() + self.out.capacity()) as u64 + self.input.memory_bytes()
    }
}
