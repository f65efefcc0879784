//! gzip (RFC 1952): one member or several, each with its checksum and length verified.

use std::io::{self, BufRead, Read};

use flate2::Crc;

use super::inflate::Inflate;
use super::source::{Ctx, Source};

/// Longest name or comment in a member's header that is skipped; a file name has 4096 bytes at most.
const MAX_FIELD: usize = 64 << 10;

/// Plaintext of a gzip file.
pub(super) struct Gunzip<'a> {
    ctx: Ctx,
    source: Source<'a>,
    member: Option<Member>,
    first: bool,
}

struct Member {
    inflate: Inflate,
    crc: Crc,
}

impl<'a> Gunzip<'a> {
    /// Reads gzip members from `source`; the first one must be there.
    pub(super) fn new(ctx: &Ctx, source: Source<'a>) -> Self {
        Self { ctx: ctx.clone(), source, member: None, first: true }
    }

    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        if super::source::fill(&mut self.source, &mut bytes)? < N {
            return Err(self.ctx.damaged("gzip data are cut short"));
        }
        Ok(bytes)
    }

    /// Starts the next member; `false` at the end of the file. Zeros after the last member are padding.
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
        self.member = Some(Member { inflate: Inflate::raw(), crc: Crc::new() });
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

    fn finish_member(&mut self, member: &Member) -> io::Result<()> {
        let crc = u32::from_le_bytes(self.exactly()?);
        let len = u32::from_le_bytes(self.exactly()?);
        if crc != member.crc.sum() || len != member.crc.amount() {
            return Err(self.ctx.damaged("the gzip checksum is wrong"));
        }
        Ok(())
    }
}

impl Read for Gunzip<'_> {
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
