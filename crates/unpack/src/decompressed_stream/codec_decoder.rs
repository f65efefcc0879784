//! The decoder of a stream by its form.

use std::sync::Arc;

use crate::byte_source::ByteSource;
use crate::bzip2::BzipDecoder;
use crate::error::UnpackError;
use crate::gzip::{DeflateDecoder, DeflateWrapper};
use crate::stream_codec::StreamCodec;
use crate::stream_decoder::{SeekPoint, StreamDecoder, bad_point};
use crate::xz::{XzBlock, XzDecoder};
use crate::zip_method::{DecoderSetup, member_decoder};
use crate::zstd::ZstdDecoder;

/// A decoder of `source`, from `point` on if there is one; `blocks` are those of an xz file, if they are known.
///
/// # Errors
/// [`UnpackError`] of the source, for a point that does not fit, or for a form that cannot be read.
pub(super) fn codec_decoder(
    source: Arc<dyn ByteSource>,
    codec: StreamCodec,
    point: Option<SeekPoint>,
    blocks: Option<Arc<[XzBlock]>>,
    setup: &DecoderSetup<'_>,
) -> Result<Box<dyn StreamDecoder>, UnpackError> {
    let (workers, limits) = (Arc::clone(setup.workers), setup.limits);
    Ok(match (codec, point) {
        (StreamCodec::Gzip, None) => Box::new(DeflateDecoder::new(source, DeflateWrapper::Gzip)),
        (StreamCodec::Gzip, Some(p)) => Box::new(DeflateDecoder::at(source, DeflateWrapper::Gzip, p.input, &p.state)?),
        (StreamCodec::Bzip2, None) => Box::new(BzipDecoder::new(source, workers)),
        (StreamCodec::Bzip2, Some(p)) => Box::new(BzipDecoder::at(source, workers, p.input, &p.state)?),
        (StreamCodec::Zstd, point) => Box::new(ZstdDecoder::new(source, point.map_or(0, |p| p.input))?),
        (StreamCodec::Xz, point) => match (blocks, point) {
            (Some(blocks), Some(p)) => {
                let block = usize::try_from(p.input).map_err(|_| bad_point(&source.name(), 0))?;
                Box::new(XzDecoder::at(source, blocks, block, limits)?)
            }
            _ => Box::new(XzDecoder::new(source, limits)?),
        },
        (StreamCodec::Zip(method, stated), point) => member_decoder(source, (method, stated), point.as_ref(), setup)?,
    })
}
