//! Packet 20, "OCB encrypted data" of LibrePGP (draft-koch-librepgp section 5.16): chunks sealed one by one, and a last
//! tag over the length of all. A chunk's plaintext is released only after its tag was verified.

use std::io::{self, BufRead, Read};

use cfb_mode::cipher::consts::{U15, U16};
use cfb_mode::cipher::{BlockDecrypt, BlockEncrypt, BlockSizeUser, KeyInit};
use ocb3::Ocb3;
use ocb3::aead::AeadInPlace;

use super::cipher::Cipher;
use super::frame::{Body, tag};
use super::secret::Session;
use super::source::{BUFFER, Ctx, Source};

const TAG: usize = 16;

/// Largest chunk: 4 MiB, which is what gpg writes and the most it accepts.
const MAX_CHUNK_OCTET: u8 = 16;

/// Numbers of the modes (draft-koch-librepgp section 9.6).
const OCB: u8 = 2;

/// The fixed part of the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct OcbHeader {
    pub(super) cipher: u8,
    chunk_octet: u8,
    iv: [u8; 15],
}

impl OcbHeader {
    /// Reads the fixed part at the start of `body`.
    ///
    /// # Errors
    /// Refusal of other versions and modes, damage, and what `body` gives.
    pub(super) fn read(ctx: &Ctx, body: &mut Body<Source<'_>>) -> io::Result<Self> {
        let mut fixed = [0; 4];
        body.exactly(&mut fixed)?;
        let [version, cipher, mode, chunk_octet] = fixed;
        if version != 1 || mode != OCB || chunk_octet > MAX_CHUNK_OCTET {
            let what = format!("encryption by packet 20 version {version}, mode {mode}, chunk size {chunk_octet}");
            return Err(ctx.unsupported(what, "").into_io());
        }
        let mut iv = [0; 15];
        body.exactly(&mut iv)?;
        Ok(Self { cipher, chunk_octet, iv })
    }

    fn chunk_len(&self) -> usize {
        1 << (usize::from(self.chunk_octet) + 6)
    }

    fn nonce(&self, index: u64) -> [u8; 15] {
        let mut nonce = self.iv;
        for (n, i) in nonce.iter_mut().rev().zip(index.to_be_bytes().iter().rev()) {
            *n ^= i;
        }
        nonce
    }

    fn associated(&self, index: u64) -> Vec<u8> {
        [&[0xc0 | tag::OCB, 1, self.cipher, OCB, self.chunk_octet][..], &index.to_be_bytes()].concat()
    }
}

/// Opens what was sealed in OCB mode.
pub(super) trait Open: Send {
    /// Decrypts `bytes` in place; whether `tag` is right for them and for `associated`.
    fn open(&self, nonce: &[u8; 15], associated: &[u8], bytes: &mut [u8], tag: &[u8; TAG]) -> bool;
}

struct Ocb<C>(Ocb3<C, U15, U16>);

impl<C> Open for Ocb<C>
where
    C: BlockSizeUser<BlockSize = U16> + BlockEncrypt + BlockDecrypt + Send,
{
    fn open(&self, nonce: &[u8; 15], associated: &[u8], bytes: &mut [u8], tag: &[u8; TAG]) -> bool {
        // The crate panics beyond this; a chunk of 4 MiB is beyond it where usize has 32 bits.
        bytes.len() <= ocb3::P_MAX
            && self.0.decrypt_in_place_detached(nonce.into(), associated, bytes, tag.into()).is_ok()
    }
}

/// OCB with `cipher` and `key`; `None` for a key of the wrong length or a cipher with blocks of 8 bytes.
pub(super) fn opener(cipher: Cipher, key: &[u8]) -> Option<Box<dyn Open>> {
    fn with<C>(key: &[u8]) -> Option<Box<dyn Open>>
    where
        C: BlockSizeUser<BlockSize = U16> + BlockEncrypt + BlockDecrypt + KeyInit + Send + 'static,
    {
        Some(Box::new(Ocb(Ocb3::<C, U15, U16>::from(C::new_from_slice(key).ok()?))))
    }
    if key.len() != cipher.key_len() {
        return None;
    }
    match cipher {
        Cipher::Aes128 => with::<aes::Aes128>(key),
        Cipher::Aes192 => with::<aes::Aes192>(key),
        Cipher::Aes256 => with::<aes::Aes256>(key),
        Cipher::Twofish => with::<twofish::Twofish>(key),
        Cipher::Camellia128 => with::<camellia::Camellia128>(key),
        Cipher::Camellia192 => with::<camellia::Camellia192>(key),
        Cipher::Camellia256 => with::<camellia::Camellia256>(key),
        Cipher::Idea | Cipher::TripleDes | Cipher::Cast5 | Cipher::Blowfish => None,
    }
}

/// Plaintext of packet 20.
pub(super) struct OcbReader<'a> {
    ctx: Ctx,
    header: OcbHeader,
    body: Body<Source<'a>>,
    state: Box<dyn Open>,
    index: u64,
    total: u64,
    /// `..released` is plaintext, of which `start..` is still to be read; behind it ciphertext of the next chunk.
    buf: Vec<u8>,
    start: usize,
    released: usize,
    /// Bytes of `buf` that the released chunk took with its tag.
    taken: usize,
    done: bool,
}

impl<'a> OcbReader<'a> {
    /// `body` is behind its fixed part `header`.
    ///
    /// # Errors
    /// Damage when the key cannot be one of the cipher's.
    pub(super) fn new(ctx: &Ctx, header: OcbHeader, body: Body<Source<'a>>, session: &Session) -> io::Result<Self> {
        let state = Cipher::from_id(header.cipher)
            .filter(|_| session.cipher == header.cipher)
            .and_then(|cipher| opener(cipher, &session.key))
            .ok_or_else(|| ctx.damaged(format!("a session key that cipher {} cannot have", header.cipher)))?;
        let (ctx, buf) = (ctx.clone(), Vec::new());
        Ok(Self { ctx, header, body, state, index: 0, total: 0, buf, start: 0, released: 0, taken: 0, done: false })
    }

    /// Opens the next chunk. A chunk is full only if two tags can still follow it; what is left at the end is the last,
    /// shorter chunk with its tag, if any, and the tag over all.
    fn refill(&mut self) -> io::Result<()> {
        self.buf.drain(..self.taken);
        (self.start, self.released, self.taken) = (0, 0, 0);
        let chunk = self.header.chunk_len();
        self.read_up_to(chunk + 2 * TAG)?;
        if self.buf.len() == chunk + 2 * TAG {
            return self.open_chunk(chunk);
        }
        match self.buf.len().checked_sub(2 * TAG) {
            Some(len) => {
                self.open_chunk(len)?;
            }
            None if self.buf.len() == TAG => {}
            None => return Err(self.ctx.damaged("the encrypted data are cut short")),
        }
        self.open_total()?;
        self.body.expect_end()?;
        self.done = true;
        Ok(())
    }

    fn read_up_to(&mut self, len: usize) -> io::Result<()> {
        while self.buf.len() < len {
            let step = (len - self.buf.len()).min(BUFFER);
            let more = u64::try_from(step).unwrap_or(u64::MAX);
            if (&mut self.body).take(more).read_to_end(&mut self.buf)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn open_chunk(&mut self, len: usize) -> io::Result<()> {
        let nonce = self.header.nonce(self.index);
        let associated = self.header.associated(self.index);
        let opened = self.buf.split_at_mut_checked(len).is_some_and(|(bytes, rest)| {
            rest.first_chunk::<TAG>().is_some_and(|tag| self.state.open(&nonce, &associated, bytes, tag))
        });
        if !opened {
            return Err(self.ctx.damaged(format!("the integrity tag of chunk {} is wrong", self.index)));
        }
        self.index += 1;
        self.total += u64::try_from(len).unwrap_or(u64::MAX);
        (self.released, self.taken) = (len, len + TAG);
        Ok(())
    }

    fn open_total(&mut self) -> io::Result<()> {
        let associated = [self.header.associated(self.index), self.total.to_be_bytes().to_vec()].concat();
        let tag = self.buf.get(self.taken..).and_then(|tail| tail.first_chunk::<TAG>());
        if tag.is_some_and(|tag| self.state.open(&self.header.nonce(self.index), &associated, &mut [], tag)) {
            return Ok(());
        }
        Err(self.ctx.damaged("the integrity tag over all chunks is wrong"))
    }
}

impl BufRead for OcbReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.start == self.released && !self.done {
            self.refill()?;
        }
        Ok(self.buf.get(self.start..self.released).unwrap_or(&[]))
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.released.min(self.start.saturating_add(amount));
    }
}

impl Read for OcbReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let n = bytes.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}
