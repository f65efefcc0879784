//! Compression methods of zip archives, and the decoders of members.

use std::sync::Arc;

use crc32fast::Hasher;
use rawzip::CompressionMethod;

use super::byte_source::ByteSource;
use super::bzip2::BzipDecoder;
use super::decode_context::DecodeContext;
use super::decode_workers::DecodeWorkers;
use super::deflate64::Deflate64Decoder;
use super::error::UnpackError;
use super::gzip::{DeflateDecoder, DeflateWrapper, StoredDecoder, TOO_LONG};
use super::limits::UnpackLimits;
use super::stream_decoder::{ByteFields, CHECKSUM_MISMATCH, LENGTH_MISMATCH, SeekPoint, StreamDecoder, bad_point};
use super::xz::XzDecoder;
use super::zstd::ZstdDecoder;
use dupfs_base::RequestContext;

/// A compression method that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZipMethod {
    /// As it is.
    Stored,
    /// deflate.
    Deflate,
    /// deflate with a window of 64 KiB.
    Deflate64,
    /// bzip2.
    Bzip2,
    /// LZMA with a separate header.
    Lzma,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
}

impl ZipMethod {
    /// All of them.
    pub(super) const ALL: [Self; 7] =
        [Self::Stored, Self::Deflate, Self::Deflate64, Self::Bzip2, Self::Lzma, Self::Zstd, Self::Xz];

    /// The method of that number in a directory; `None` for one that cannot be read.
    pub(super) fn of(method: CompressionMethod) -> Option<Self> {
        Some(match method {
            CompressionMethod::STORE => Self::Stored,
            CompressionMethod::DEFLATE => Self::Deflate,
            CompressionMethod::DEFLATE64 => Self::Deflate64,
            CompressionMethod::BZIP2 => Self::Bzip2,
            CompressionMethod::LZMA => Self::Lzma,
            CompressionMethod::ZSTD | CompressionMethod::ZSTD_DEPRECATED => Self::Zstd,
            CompressionMethod::XZ => Self::Xz,
            _ => return None,
        })
    }

    /// The number of the method in encoded tables.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Deflate => 1,
            Self::Deflate64 => 2,
            Self::Bzip2 => 3,
            Self::Lzma => 4,
            Self::Zstd => 5,
            Self::Xz => 6,
        }
    }

    /// The method of that number in encoded tables.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.number() == number)
    }

    /// Bytes that distinguish streams of this method from others of the same source.
    pub(super) fn tag(self) -> &'static [u8] {
        match self {
            Self::Stored => b"\0stored",
            Self::Deflate => b"\0deflate",
            Self::Deflate64 => b"\0zip-deflate64",
            Self::Bzip2 => b"\0zip-bzip2",
            Self::Lzma => b"\0zip-lzma",
            Self::Zstd => b"\0zip-zstd",
            Self::Xz => b"\0zip-xz",
        }
    }

    /// Returns true if its seek points contain no content.
    pub(super) fn has_plain_points(self) -> bool {
        match self {
            Self::Stored | Self::Bzip2 | Self::Zstd => true,
            Self::Deflate | Self::Deflate64 | Self::Lzma | Self::Xz => false,
        }
    }
}

/// The content of a zip member as the directory of its archive states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatedContent {
    /// CRC-32.
    pub crc: u32,
    /// Length in bytes.
    pub size: u64,
}

/// The parts that decoders share.
pub(super) struct DecoderSetup<'a> {
    pub(super) workers: &'a Arc<DecodeWorkers>,
    pub(super) limits: UnpackLimits,
    pub(super) request: &'a RequestContext,
}

/// A decoder of the member in `source`, from `point` on if there is one.
///
/// # Errors
/// [`UnpackError`] for a point that does not fit, of the source, or for a form that cannot be read.
pub(super) fn member_decoder(
    source: Arc<dyn ByteSource>,
    (method, stated): (ZipMethod, StatedContent),
    point: Option<&SeekPoint>,
    setup: &DecoderSetup<'_>,
) -> Result<Box<dyn StreamDecoder>, UnpackError> {
    let wrapper = DeflateWrapper::Zip { crc: stated.crc, size: stated.size };
    let workers = || Arc::clone(setup.workers);
    let bad = || bad_point(&source.name(), point.map_or(0, |p| p.input));
    let inner: Box<dyn StreamDecoder> = match (method, point) {
        (ZipMethod::Stored, None) => return Ok(Box::new(StoredDecoder::new(source, stated.crc, stated.size))),
        (ZipMethod::Stored, Some(p)) => {
            return Ok(Box::new(StoredDecoder::at(source, (stated.crc, stated.size), p.input, &p.state)?));
        }
        (ZipMethod::Deflate, None) => return Ok(Box::new(DeflateDecoder::new(source, wrapper))),
        (ZipMethod::Deflate, Some(p)) => return Ok(Box::new(DeflateDecoder::at(source, wrapper, p.input, &p.state)?)),
        (ZipMethod::Bzip2, None) => Box::new(BzipDecoder::new(Arc::clone(&source), workers())),
        (ZipMethod::Bzip2, Some(p)) => {
            let state = p.state.get(STATE..).ok_or_else(bad)?;
            Box::new(BzipDecoder::at(Arc::clone(&source), workers(), p.input, state)?)
        }
        (ZipMethod::Zstd, point) => Box::new(ZstdDecoder::new(Arc::clone(&source), point.map_or(0, |p| p.input))?),
        (ZipMethod::Deflate64, None) => Box::new(Deflate64Decoder::new(Arc::clone(&source))),
        (ZipMethod::Xz, None) => Box::new(XzDecoder::new(Arc::clone(&source), setup.limits)?),
        (ZipMethod::Lzma, None) => {
            Box::new(XzDecoder::lzma(Arc::clone(&source), stated.size, setup.limits, setup.request)?)
        }
        (ZipMethod::Deflate64 | ZipMethod::Xz | ZipMethod::Lzma, Some(_)) => return Err(bad()),
    };
    let (crc, len) = match point {
        Some(point) => StatedDecoder::restore(&point.state).ok_or_else(bad)?,
        None => (Hasher::new(), 0),
    };
    Ok(Box::new(StatedDecoder { inner, name: source.name(), stated, crc, len }))
}

/// Bytes of the own part of a seek point's state.
const STATE: usize = 12;

/// A decoder whose output is compared with the checksum and length in the directory.
struct StatedDecoder {
    inner: Box<dyn StreamDecoder>,
    name: Arc<str>,
    stated: StatedContent,
    crc: Hasher,
    len: u64,
}

impl StatedDecoder {
    /// Checksum and length of the bytes before a seek point.
    fn restore(state: &[u8]) -> Option<(Hasher, u64)> {
        let mut fields = ByteFields(state);
        let (crc, len) = (fields.u32()?, fields.u64()?);
        Some((Hasher::new_with_initial_len(crc, len), len))
    }

    fn damaged(&self, what: &str) -> UnpackError {
        UnpackError::damaged(&self.name, self.inner.taken(), what)
    }
}

impl StreamDecoder for StatedDecoder {
    fn next(&mut self, context: &DecodeContext<'_>) -> Result<Option<Vec<u8>>, UnpackError> {
        let Some(out) = self.inner.next(context)? else {
            if self.crc.clone().finalize() != self.stated.crc {
                return Err(self.damaged(CHECKSUM_MISMATCH));
            }
            if self.len != self.stated.size {
                return Err(self.damaged(LENGTH_MISMATCH));
            }
            return Ok(None);
        };
        self.crc.update(&out);
        self.len = self.len.saturating_add(out.len() as u64);
        if self.len > self.stated.size {
            return Err(self.damaged(TOO_LONG));
        }
        Ok(Some(out))
    }

    fn resume(&self) -> Option<(u64, Vec<u8>)> {
        let (input, state) = self.inner.resume()?;
        let mut out = self.crc.clone().finalize().to_be_bytes().to_vec();
        out.extend_from_slice(&self.len.to_be_bytes());
        out.extend_from_slice(&state);
        Some((input, out))
    }

    fn taken(&self) -> u64 {
        self.inner.taken()
    }
}
