//! The packets inside the encryption: compressed data, literal data, signatures (RFC 4880 section 11.3).

use std::io::{self, BufRead, Read};

use super::frame::{Body, Length, read_header, tag};
use super::inflate::{Inflate, Unpacked};
use super::signer::{MAX_SIGNATURE, Verifier};
use super::source::{Ctx, Source};

/// Compressed packets within compressed packets; gpg writes one.
const MAX_DEPTH: u32 = 4;

/// The literal data of a message. Ends only after the last packet, whatever encloses it, and the required signature were
/// found right.
pub(super) struct Message<'a> {
    ctx: Ctx,
    state: State<'a>,
    verifier: Option<Verifier>,
    depth: u32,
}

enum State<'a> {
    /// At a packet ahead of the data.
    Before(Source<'a>),
    /// Within the data.
    Data(Body<Source<'a>>),
    /// At a packet behind the data.
    After(Source<'a>),
    Done,
    /// While moving from one state to another, and after an error in it.
    Broken,
}

impl<'a> Message<'a> {
    /// The message in the packets of `source`; `verifier` if it must be signed.
    pub(super) fn new(ctx: &Ctx, source: Source<'a>, verifier: Option<Verifier>) -> Self {
        Self { ctx: ctx.clone(), state: State::Before(source), verifier, depth: 0 }
    }

    /// Reads one packet ahead of the data.
    fn before(&mut self, mut source: Source<'a>) -> io::Result<State<'a>> {
        let header = read_header(&self.ctx, &mut source)?;
        let header = header.ok_or_else(|| self.ctx.damaged("the message has no data in it"))?;
        let mut body = Body::new(&self.ctx, source, header.length);
        match header.tag {
            tag::LITERAL => {
                literal_header(&self.ctx, &mut body)?;
                return Ok(State::Data(body));
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
        self.no_indeterminate(header.length)?;
        Ok(State::Before(body.into_source()))
    }

    fn compressed(&mut self, mut body: Body<Source<'a>>) -> io::Result<State<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.ctx.damaged("compressed data within compressed data without end"));
        }
        let mut algorithm = [0];
        body.exactly(&mut algorithm)?;
        let inflate = match algorithm {
            [0] => return Ok(State::Before(Box::new(Enclosed(body)))),
            [1] => Inflate::raw(),
            [2] => Inflate::zlib(),
            [3] => Inflate::bzip2(),
            [other] => return Err(self.ctx.unsupported(format!("compression algorithm {other}"), "").into_io()),
        };
        Ok(State::Before(Box::new(Unpacked::new(&self.ctx, body, inflate))))
    }

    /// Reads one packet behind the data, or the end.
    fn after(&mut self, mut source: Source<'a>) -> io::Result<State<'a>> {
        let Some(header) = read_header(&self.ctx, &mut source)? else {
            if let Some(verifier) = &self.verifier {
                verifier.finish(&self.ctx)?;
            }
            return Ok(State::Done);
        };
        if !matches!(header.tag, tag::SIGNATURE | tag::MARKER) {
            return Err(self.ctx.damaged(format!("packet {} behind the data", header.tag)));
        }
        let mut body = Body::new(&self.ctx, source, header.length);
        let packet = body.all(MAX_SIGNATURE)?;
        if let Some(verifier) = self.verifier.as_mut().filter(|_| header.tag == tag::SIGNATURE) {
            verifier.trailing(&packet);
        }
        Ok(State::After(body.into_source()))
    }

    fn no_indeterminate(&self, length: Length) -> io::Result<()> {
        if length == Length::Indeterminate {
            return Err(self.ctx.damaged("a small packet without a length"));
        }
        Ok(())
    }
}

/// Reads up to the data: format, file name, date.
fn literal_header(ctx: &Ctx, body: &mut Body<Source<'_>>) -> io::Result<()> {
    let mut fixed = [0; 2];
    body.exactly(&mut fixed)?;
    let [format, name_len] = fixed;
    if !b"btul1".contains(&format) {
        return Err(ctx.damaged("literal data of an unknown format"));
    }
    let mut rest = vec![0; usize::from(name_len) + 4];
    body.exactly(&mut rest)
}

impl Read for Message<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let State::Data(body) = &mut self.state {
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
            self.state = match std::mem::replace(&mut self.state, State::Broken) {
                State::Before(source) => self.before(source)?,
                State::Data(body) => State::After(body.into_source()),
                State::After(source) => self.after(source)?,
                State::Done => {
                    self.state = State::Done;
                    return Ok(0);
                }
                State::Broken => return Err(self.ctx.damaged("read on after an error")),
            };
        }
    }
}

/// The contents of a "compressed" packet that is not: ends like [`Unpacked`], with all that holds it.
struct Enclosed<'a>(Body<Source<'a>>);

impl BufRead for Enclosed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.fill_buf()?.is_empty() {
            self.0.expect_end()?;
        }
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl Read for Enclosed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let n = bytes.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}
