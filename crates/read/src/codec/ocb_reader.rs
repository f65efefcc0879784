//! Packet 20, "OCB encrypted data" of LibrePGP (draft-koch-librepgp section 5.16): chunks with a tag each, and a last tag
//! over the length of all. The plaintext of a chunk is available only after its tag was verified.

use std::io::{self, BufRead, Read};

use cfb_mode::cipher::consts::{U15, U16};
use cfb_mode::cipher::{BlockDecrypt, BlockEncrypt, BlockSizeUser, KeyInit};
use ocb3::Ocb3;
use ocb3::aead::AeadInPlace;

use super::layer::{BUFFER, LayerReader, append_up_to, read_buffered};
use super::object_context::ObjectContext;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_body::PacketBody;
use super::packet_header::tag;
use super::session_key::SessionKey;

/// Length of a tag.
const TAG: usize = 16;

/// Octet of the largest supported chunk: 4 MiB, the size that gpg writes.
const MAX_CHUNK_OCTET: u8 = 16;

/// Octet of the largest chunk that gpg accepts.
const MAX_VALID_CHUNK_OCTET: u8 = 56;

/// OpenPGP's number of the EAX mode, which early versions of gpg 2.3 wrote.
const EAX_MODE: u8 = 1;
/// OpenPGP's number of the OCB mode (draft-koch-librepgp section 9.6).
pub(super) const OCB_MODE: u8 = 2;

/// The fixed part of the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct OcbHeader {
    cipher_id: u8,
    chunk_octet: u8,
    iv: [u8; 15],
}

impl OcbHeader {
    /// Reads the fixed part at the start of `body`.
    ///
    /// # Errors
    /// GpgRefusal of other versions and modes, damage, and what `body` gives.
    pub(super) fn read(ctx: &ObjectContext, body: &mut PacketBody<LayerReader<'_>>) -> io::Result<Self> {
        let mut fixed = [0; 4];
        body.exactly(&mut fixed)?;
        let [version, cipher_id, mode, chunk_octet] = fixed;
        let has_large_blocks = OpenPgpCipher::from_id(cipher_id).is_some_and(|cipher| cipher.block_len() == 16);
        if version != 1 || !has_large_blocks || chunk_octet > MAX_VALID_CHUNK_OCTET {
            return Err(ctx.damaged("the header of the encrypted data (packet 20) is malformed"));
        }
        match mode {
            OCB_MODE if chunk_octet <= MAX_CHUNK_OCTET => {}
            OCB_MODE => {
                let what = format!("encryption in chunks of 2^{} bytes", u32::from(chunk_octet) + 6);
                return Err(ctx.unsupported(what, "; decrypt the files with gpg and mount the result").into_io());
            }
            EAX_MODE => {
                let remedy = "; decrypt the files with gpg and mount the result";
                return Err(ctx.unsupported("encryption in EAX mode (packet 20)", remedy).into_io());
            }
            _ => return Err(ctx.damaged("the encrypted data (packet 20) have a mode that does not exist")),
        }
        let mut iv = [0; 15];
        body.exactly(&mut iv)?;
        Ok(Self { cipher_id, chunk_octet, iv })
    }

    /// Returns true if `key` is a key of the cipher that the packet names.
    pub(super) fn fits(&self, key: &SessionKey) -> bool {
        OpenPgpCipher::from_id(self.cipher_id) == Some(key.cipher())
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
        [&[0xc0 | tag::OCB, 1, self.cipher_id, OCB_MODE, self.chunk_octet][..], &index.to_be_bytes()].concat()
    }
}

/// Decryption in OCB mode.
pub(super) trait OcbDecrypt: Send {
    /// Decrypts `bytes` in place. Returns true if `tag` is right for them and for `associated`.
    fn open(&self, nonce: &[u8; 15], associated: &[u8], bytes: &mut [u8], tag: &[u8; TAG]) -> bool;
}

struct OcbCipher<C>(Ocb3<C, U15, U16>);

impl<C> OcbDecrypt for OcbCipher<C>
where
    C: BlockSizeUser<BlockSize = U16> + BlockEncrypt + BlockDecrypt + Send,
{
    fn open(&self, nonce: &[u8; 15], associated: &[u8], bytes: &mut [u8], tag: &[u8; TAG]) -> bool {
        // The crate panics beyond this; a chunk of 4 MiB is beyond it where usize has 32 bits.
        bytes.len() <= ocb3::P_MAX
            && self.0.decrypt_in_place_detached(nonce.into(), associated, bytes, tag.into()).is_ok()
    }
}

/// Returns OCB decryption with `cipher` and `key`, or `None` for a key of the wrong length or a cipher with blocks of 8
/// bytes.
pub(super) fn ocb_decryptor(cipher: OpenPgpCipher, key: &[u8]) -> Option<Box<dyn OcbDecrypt>> {
    fn with<C>(key: &[u8]) -> Option<Box<dyn OcbDecrypt>>
    where
        C: BlockSizeUser<BlockSize = U16> + BlockEncrypt + BlockDecrypt + KeyInit + Send + 'static,
    {
        Some(Box::new(OcbCipher(Ocb3::<C, U15, U16>::from(C::new_from_slice(key).ok()?))))
    }
    if key.len() != cipher.key_len() {
        return None;
    }
    match cipher {
        OpenPgpCipher::Aes128 => with::<aes::Aes128>(key),
        OpenPgpCipher::Aes192 => with::<aes::Aes192>(key),
        OpenPgpCipher::Aes256 => with::<aes::Aes256>(key),
        OpenPgpCipher::Twofish => with::<twofish::Twofish>(key),
        OpenPgpCipher::Camellia128 => with::<camellia::Camellia128>(key),
        OpenPgpCipher::Camellia192 => with::<camellia::Camellia192>(key),
        OpenPgpCipher::Camellia256 => with::<camellia::Camellia256>(key),
        OpenPgpCipher::Idea | OpenPgpCipher::TripleDes | OpenPgpCipher::Cast5 | OpenPgpCipher::Blowfish => None,
    }
}

/// Reads the plaintext of packet 20.
pub(super) struct OcbReader<'a> {
    ctx: ObjectContext,
    header: OcbHeader,
    body: PacketBody<LayerReader<'a>>,
    state: Box<dyn OcbDecrypt>,
    /// The number of the next chunk.
    index: u64,
    /// Bytes of plaintext so far.
    total: u64,
    buffer: ChunkBuffer,
    done: bool,
}

/// The bytes of the current chunk. `..verified` is plaintext, of which `start..` remains to be read; after `taken` comes
/// ciphertext of the next chunk.
#[derive(Default)]
struct ChunkBuffer {
    bytes: Vec<u8>,
    start: usize,
    verified: usize,
    /// Bytes that the verified chunk takes with its tag.
    taken: usize,
}

impl ChunkBuffer {
    /// Drops the verified chunk.
    fn drop_chunk(&mut self) {
        self.bytes.drain(..self.taken);
        (self.start, self.verified, self.taken) = (0, 0, 0);
    }

    /// The plaintext that remains to be read.
    fn plaintext(&self) -> &[u8] {
        self.bytes.get(self.start..self.verified).unwrap_or(&[])
    }
}

impl<'a> OcbReader<'a> {
    /// Creates a reader; `body` is after its fixed part `header`.
    ///
    /// # Errors
    /// Damage when `key` is no key of the cipher that the packet names.
    pub(super) fn new(
        ctx: &ObjectContext,
        header: OcbHeader,
        body: PacketBody<LayerReader<'a>>,
        key: &SessionKey,
    ) -> io::Result<Self> {
        let state = Some(key)
            .filter(|key| header.fits(key))
            .and_then(|key| ocb_decryptor(key.cipher(), key.bytes()))
            .ok_or_else(|| ctx.damaged(format!("its session key is not one of cipher {}", header.cipher_id)))?;
        let (ctx, buffer) = (ctx.clone(), ChunkBuffer::default());
        Ok(Self { ctx, header, body, state, index: 0, total: 0, buffer, done: false })
    }

    /// Decrypts the next chunk. A chunk is full only if two tags can follow it. The rest at the end is the last, shorter
    /// chunk with its tag, if any, and the tag over all.
    fn refill(&mut self) -> io::Result<()> {
        self.buffer.drop_chunk();
        let chunk = self.header.chunk_len();
        self.read_up_to(chunk + 2 * TAG)?;
        if self.buffer.bytes.len() == chunk + 2 * TAG {
            return self.open_chunk(chunk);
        }
        match self.buffer.bytes.len().checked_sub(2 * TAG) {
            Some(len) => {
                self.open_chunk(len)?;
            }
            None if self.buffer.bytes.len() == TAG => {}
            None => return Err(self.ctx.damaged("truncated encrypted data")),
        }
        self.open_total()?;
        self.body.expect_end()?;
        self.done = true;
        Ok(())
    }

    fn read_up_to(&mut self, len: usize) -> io::Result<()> {
        let bytes = &mut self.buffer.bytes;
        while bytes.len() < len {
            let step = (len - bytes.len()).min(BUFFER);
            if append_up_to(&mut self.body, step, bytes)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn open_chunk(&mut self, len: usize) -> io::Result<()> {
        let nonce = self.header.nonce(self.index);
        let associated = self.header.associated(self.index);
        let opened = self.buffer.bytes.split_at_mut_checked(len).is_some_and(|(bytes, rest)| {
            rest.first_chunk::<TAG>().is_some_and(|tag| self.state.open(&nonce, &associated, bytes, tag))
        });
        if !opened {
            return Err(self.ctx.damaged(format!("the integrity tag of chunk {} is wrong", self.index)));
        }
        self.index += 1;
        self.total += len as u64; // usize has at most 64 bits on every platform
        (self.buffer.verified, self.buffer.taken) = (len, len + TAG);
        Ok(())
    }

    fn open_total(&mut self) -> io::Result<()> {
        let associated = [self.header.associated(self.index), self.total.to_be_bytes().to_vec()].concat();
        let tag = self.buffer.bytes.get(self.buffer.taken..).and_then(|tail| tail.first_chunk::<TAG>());
        if tag.is_some_and(|tag| self.state.open(&self.header.nonce(self.index), &associated, &mut [], tag)) {
            return Ok(());
        }
        Err(self.ctx.damaged("the integrity tag over all chunks is wrong"))
    }
}

impl BufRead for OcbReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.buffer.start == self.buffer.verified && !self.done {
            self.refill()?;
        }
        Ok(self.buffer.plaintext())
    }

    fn consume(&mut self, amount: usize) {
        self.buffer.start = self.buffer.verified.min(self.buffer.start.saturating_add(amount));
    }
}

impl Read for OcbReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}
