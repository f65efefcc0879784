//! Members of zip archives that are compressed by Deflate64 (method 9), as Windows Explorer packs files of more than 2 GiB.

use std::sync::Arc;

use ::deflate64::InflaterManaged;

use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::decoder_input::DecoderInput;
use super::error::UnpackError;
use super::stream_decoder::StreamDecoder;

/// Bytes decoded at a time.
const STEP: usize = 256 << 10;

/// A decoder of one stream; it has no seek points.
pub(super) struct Deflate64Decoder {
    input: DecoderInput,
    library: Box<InflaterManaged>,
}

impl Deflate64Decoder {
    pub(super) fn new(source: Arc<dyn ByteSource>) -> Self {
        Self { input: DecoderInput::new(source, 0), library: Box::new(InflaterManaged::new()) }
    }
}

impl StreamDecoder for Deflate64Decoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        let mut out = vec![0; STEP];
        loop {
            if self.library.finished() && self.library.available_output() == 0 {
                return Ok(None);
            }
            self.input.peek(context)?;
            self.input.work(context)?;
            let bytes = self.input.buffered();
            let is_empty = bytes.is_empty();
            let result = self.library.inflate(bytes, &mut out);
            self.input.consume(result.bytes_consumed);
            if result.data_error {
                return Err(self.input.damaged("invalid Deflate64 data"));
            }
            if result.bytes_written > 0 {
                out.truncate(result.bytes_written);
                return Ok(Some(out));
            }
            if is_empty && !self.library.finished() {
                return Err(self.input.damaged("truncated Deflate64 data"));
            }
        }
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        None
    }

    fn taken(&self) -> u64 {
        self.input.offset()
    }
}
