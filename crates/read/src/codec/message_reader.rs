//! The packets inside the encryption: compressed data, literal data, signatures (RFC 4880 section 11.3).

use std::io::{self, BufRead, Read};

use super::compressed_packet::{CompressedPacket, UncompressedPacket};
use super::error::CodecError;
use super::layer::LayerReader;
use super::object_context::ObjectContext;
use super::packet_body::PacketBody;
use super::packet_header::{PacketLength, read_header, tag};
use super::signature_verifier::{MAX_SIGNATURE, SignatureVerifier};
use super::stream_decompressor::StreamDecompressor;
use super::written_time::WrittenTimeRule;

/// Upper bound of the layers of compressed packets. gpg and other programs write one at most. A second layer would square the
/// ratio at which data expand.
const MAX_DEPTH: u32 = 1;

/// Reads the literal data of a message. Ends only after the last packet, everything that encloses it, and the required
/// signature were verified.
pub(super) struct MessageReader<'a> {
    ctx: ObjectContext,
    state: MessageState<'a>,
    verifier: Option<SignatureVerifier>,
    rule: WrittenTimeRule,
    /// The date of the literal data.
    date: u32,
    depth: u32,
}

enum MessageState<'a> {
    /// At a packet before the data.
    Before(LayerReader<'a>),
    /// Within the data.
    Data(PacketBody<LayerReader<'a>>),
    /// At a packet after the data.
    After(LayerReader<'a>),
    Done,
    /// During a change of state, and after an error in it.
    Broken,
}

impl<'a> MessageReader<'a> {
    /// Creates a reader of the message in the packets of `source`, with a `verifier` if it must be signed.
    pub(super) fn new(
        ctx: &ObjectContext,
        source: LayerReader<'a>,
        verifier: Option<SignatureVerifier>,
        rule: WrittenTimeRule,
    ) -> Self {
        Self { ctx: ctx.clone(), state: MessageState::Before(source), verifier, rule, date: 0, depth: 0 }
    }

    /// Reads one packet before the data.
    fn before(&mut self, mut source: LayerReader<'a>) -> io::Result<MessageState<'a>> {
        let header = read_header(&self.ctx, &mut source)?;
        let header = header.ok_or_else(|| self.ctx.damaged("the message has no data in it"))?;
        let mut body = PacketBody::new(&self.ctx, source, header.length);
        match header.tag {
            tag::LITERAL => {
                self.date = literal_header(&self.ctx, &mut body)?;
                return Ok(MessageState::Data(body));
            }
            tag::COMPRESSED => return self.compressed(body),
            tag::ONE_PASS => {
                let packet = body.all(MAX_SIGNATURE)?;
                if let Some(verifier) = &mut self.verifier {
                    verifier.one_pass(&packet);
                }
            }
            tag::SIGNATURE | tag::MARKER => {
                body.all(MAX_SIGNATURE)?;
            }
            other => return Err(self.ctx.damaged(format!("packet {other} within the encrypted data"))),
        }
        self.require_length(header.length)?;
        Ok(MessageState::Before(body.into_source()))
    }

    fn compressed(&mut self, mut body: PacketBody<LayerReader<'a>>) -> io::Result<MessageState<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.ctx.damaged("compressed data within compressed data, which no backup has"));
        }
        let mut algorithm = [0];
        body.exactly(&mut algorithm)?;
        let inflate = match algorithm {
            [0] => return Ok(MessageState::Before(Box::new(UncompressedPacket(body)))),
            [1] => StreamDecompressor::raw(),
            [2] => StreamDecompressor::zlib(),
            [3] => StreamDecompressor::bzip2(),
            _ => return Err(self.ctx.damaged("compressed data of an algorithm that does not exist")),
        };
        Ok(MessageState::Before(Box::new(CompressedPacket::new(&self.ctx, body, inflate))))
    }

    /// Reads one packet after the data, or the end.
    fn after(&mut self, mut source: LayerReader<'a>) -> io::Result<MessageState<'a>> {
        let Some(header) = read_header(&self.ctx, &mut source)? else {
            let signed = match &self.verifier {
                Some(verifier) => verifier.finish(&self.ctx)?,
                None => None,
            };
            // The date is under the integrity code, which is verified now.
            self.rule.apply(&self.ctx, self.date, signed).map_err(CodecError::into_io)?;
            return Ok(MessageState::Done);
        };
        if !matches!(header.tag, tag::SIGNATURE | tag::MARKER) {
            return Err(self.ctx.damaged(format!("packet {} after the data", header.tag)));
        }
        let mut body = PacketBody::new(&self.ctx, source, header.length);
        let packet = body.all(MAX_SIGNATURE)?;
        if let Some(verifier) = self.verifier.as_mut().filter(|_| header.tag == tag::SIGNATURE) {
            verifier.trailing(&packet);
        }
        Ok(MessageState::After(body.into_source()))
    }

    fn require_length(&self, length: PacketLength) -> io::Result<()> {
        if length == PacketLength::Indeterminate {
            return Err(self.ctx.damaged("a small packet without a length"));
        }
        Ok(())
    }
}

/// Reads the fields before the data: format, file name, date. Returns the date.
fn literal_header(ctx: &ObjectContext, body: &mut PacketBody<LayerReader<'_>>) -> io::Result<u32> {
    let mut fixed = [0; 2];
    body.exactly(&mut fixed)?;
    let [format, name_len] = fixed;
    if !b"btul1".contains(&format) {
        return Err(ctx.damaged("literal data of an unknown format"));
    }
    body.exactly(&mut vec![0; usize::from(name_len)])?;
    let mut date = [0; 4];
    body.exactly(&mut date)?;
    Ok(u32::from_be_bytes(date))
}

impl Read for MessageReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let MessageState::Data(body) = &mut self.state {
                let bytes = body.fill_buf()?;
                if !bytes.is_empty() && !buf.is_empty() {
                    let n = { bytes }.read(buf)?;
                    if let Some(verifier) = &mut self.verifier {
                        verifier.update(buf.get(..n).unwrap_or(&[]));
                    }
                    body.consume(n);
                    return Ok(n);
                }
                if buf.is_empty() {
                    return Ok(0);
                }
            }
            self.state = match std::mem::replace(&mut self.state, MessageState::Broken) {
                MessageState::Before(source) => self.before(source)?,
                MessageState::Data(body) => MessageState::After(body.into_source()),
                MessageState::After(source) => self.after(source)?,
                MessageState::Done => {
                    self.state = MessageState::Done;
                    return Ok(0);
                }
                MessageState::Broken => return Err(self.ctx.damaged("read on after an error")),
            };
        }
    }
}
