//! gzip (RFC 1952): one member or several, each with its checksum and length verified.

use std::io::{self, BufRead, Read};

use flate2::Crc;

use super::layer::LayerReader;
use super::object_context::ObjectContext;
use super::stream_decompressor::StreamDecompressor;

/// Upper bound of the length of a name or comment in the header of a member; a file name has at most 4096 bytes.
const MAX_FIELD: usize = 64 << 10;

/// Reads the plaintext of a gzip file.
pub(super) struct GzipReader<'a> {
    ctx: ObjectContext,
    source: LayerReader<'a>,
    member: Option<GzipMember>,
    first: bool,
}

/// The member that is being read.
struct GzipMember {
    inflate: StreamDecompressor,
    crc: Crc,
}

impl<'a> GzipReader<'a> {
    /// Creates a reader of the gzip members in `source`, which must have at least one.
    pub(super) fn new(ctx: &ObjectContext, source: LayerReader<'a>) -> Self {
        Self { ctx: ctx.clone(), source, member: None, first: true }
    }

    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        if super::layer::fill(&mut self.source, &mut bytes)? < N {
            return Err(self.ctx.damaged("truncated gzip data"));
        }
        Ok(bytes)
    }

    /// Starts the next member. Returns false at the end of the file. Zeros after the last member are padding.
    fn next_member(&mut self) -> io::Result<bool> {
        let first = std::mem::replace(&mut self.first, false);
        if !first && !self.more_members()? {
            return Ok(false);
        }
        let [m1, m2, method, flags, ..] = self.exactly::<10>()?;
        if [m1, m2, method] != [0x1f, 0x8b, 8] || flags & 0xe0 != 0 {
            return Err(self.ctx.damaged("no gzip header where one must begin"));
        }
        if flags & 0x04 != 0 {
            let len = u16::from_le_bytes(self.exactly()?);
            for _ in 0..len {
                self.exactly::<1>()?;
            }
        }
        for field in [0x08, 0x10] {
            if flags & field != 0 {
                self.skip_text()?;
            }
        }
        if flags & 0x02 != 0 {
            self.exactly::<2>()?;
        }
        self.member = Some(GzipMember { inflate: StreamDecompressor::raw(), crc: Crc::new() });
        Ok(true)
    }

    fn more_members(&mut self) -> io::Result<bool> {
        let Some(&next) = self.source.fill_buf()?.first() else { return Ok(false) };
        if next != 0 {
            return Ok(true);
        }
        loop {
            let bytes = self.source.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            if bytes.iter().any(|&b| b != 0) {
                return Err(self.ctx.damaged("bytes after the gzip data"));
            }
            let len = bytes.len();
            self.source.consume(len);
        }
    }

    fn skip_text(&mut self) -> io::Result<()> {
        for _ in 0..MAX_FIELD {
            if self.exactly::<1>()? == [0] {
                return Ok(());
            }
        }
        Err(self.ctx.damaged("a gzip header without an end"))
    }

    fn finish_member(&mut self, member: &GzipMember) -> io::Result<()> {
        let crc = u32::from_le_bytes(self.exactly()?);
        let len = u32::from_le_bytes(self.exactly()?);
        if crc != member.crc.sum() || len != member.crc.amount() {
            return Err(self.ctx.damaged("the gzip checksum is wrong"));
        }
        Ok(())
    }
}

impl Read for GzipReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(mut member) = self.member.take() else {
                if self.next_member()? {
                    continue;
                }
                return Ok(0);
            };
            let (produced, ended) = member.inflate.read(&self.ctx, &mut self.source, buf)?;
            member.crc.update(buf.get(..produced).unwrap_or(&[]));
            if ended {
                self.finish_member(&member)?;
            } else {
                self.member = Some(member);
            }
            if produced > 0 {
                return Ok(produced);
            }
        }
    }
}
