//! The block ciphers of OpenPGP (RFC 4880 section 9.2, RFC 5581), in CFB mode.

use cfb_mode::cipher::inout::InOutBuf;
use cfb_mode::cipher::{AsyncStreamCipher, BlockCipher, BlockDecryptMut, BlockEncryptMut, KeyInit, KeyIvInit};
use zeroize::zeroize_stack;

/// A block cipher of OpenPGP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenPgpCipher {
    Idea,
    TripleDes,
    Cast5,
    Blowfish,
    Aes128,
    Aes192,
    Aes256,
    Twofish,
    Camellia128,
    Camellia192,
    Camellia256,
}

impl OpenPgpCipher {
    /// Returns the cipher with OpenPGP's number `id`.
    pub(super) fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            1 => Self::Idea,
            2 => Self::TripleDes,
            3 => Self::Cast5,
            4 => Self::Blowfish,
            7 => Self::Aes128,
            8 => Self::Aes192,
            9 => Self::Aes256,
            10 => Self::Twofish,
            11 => Self::Camellia128,
            12 => Self::Camellia192,
            13 => Self::Camellia256,
            _ => return None,
        })
    }

    /// Returns the length of its key in bytes.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::Idea | Self::Cast5 | Self::Blowfish | Self::Aes128 | Self::Camellia128 => 16,
            Self::TripleDes | Self::Aes192 | Self::Camellia192 => 24,
            Self::Aes256 | Self::Twofish | Self::Camellia256 => 32,
        }
    }

    /// Returns the length of its block in bytes.
    pub(super) fn block_len(self) -> usize {
        match self {
            Self::Idea | Self::TripleDes | Self::Cast5 | Self::Blowfish => 8,
            Self::Aes128
            | Self::Aes192
            | Self::Aes256
            | Self::Twofish
            | Self::Camellia128
            | Self::Camellia192
            | Self::Camellia256 => 16,
        }
    }

    /// Starts CFB decryption with `iv`. Returns `None` when `key` or `iv` has the wrong length.
    pub(super) fn cfb(self, key: &[u8], iv: &[u8]) -> Option<Box<dyn CfbDecrypt>> {
        if key.len() != self.key_len() {
            return None; // the crates accept other lengths for Blowfish and Twofish, OpenPGP does not
        }
        match self {
            Self::Idea => cfb_stream::<idea::Idea>(key, iv),
            Self::TripleDes => cfb_stream::<des::TdesEde3>(key, iv),
            Self::Cast5 => cfb_stream::<cast5::Cast5>(key, iv),
            Self::Blowfish => cfb_stream::<blowfish::Blowfish>(key, iv),
            Self::Aes128 => cfb_stream::<aes::Aes128>(key, iv),
            Self::Aes192 => cfb_stream::<aes::Aes192>(key, iv),
            Self::Aes256 => cfb_stream::<aes::Aes256>(key, iv),
            Self::Twofish => cfb_stream::<twofish::Twofish>(key, iv),
            Self::Camellia128 => cfb_stream::<camellia::Camellia128>(key, iv),
            Self::Camellia192 => cfb_stream::<camellia::Camellia192>(key, iv),
            Self::Camellia256 => cfb_stream::<camellia::Camellia256>(key, iv),
        }
    }
}

/// A running CFB decryption.
pub(super) trait CfbDecrypt: Send {
    /// Decrypts the next bytes in place. Their number must be a multiple of the block length in every call but the last.
    fn decrypt(&mut self, bytes: &mut [u8]);
}

struct CfbStream<C: BlockEncryptMut + BlockCipher>(cfb_mode::Decryptor<C>);

fn cfb_stream<C>(key: &[u8], iv: &[u8]) -> Option<Box<dyn CfbDecrypt>>
where
    C: BlockEncryptMut + BlockCipher + KeyInit + Clone + Send + 'static,
{
    Some(Box::new(CfbStream(cfb_mode::Decryptor::<C>::new_from_slices(key, iv).ok()?)))
}

impl<C> CfbDecrypt for CfbStream<C>
where
    C: BlockEncryptMut + BlockCipher + Clone + Send,
{
    fn decrypt(&mut self, bytes: &mut [u8]) {
        // Whole blocks at once, so that the cipher works on several in parallel: CFB decryption has no feedback.
        let (blocks, tail) = InOutBuf::from(bytes).into_chunks();
        self.0.decrypt_blocks_inout_mut(blocks);
        if !tail.is_empty() {
            self.decrypt_tail(tail.into_out());
            // The copy of the state had the key.
            zeroize_stack::<USED_STACK>();
        }
    }
}

/// Bytes of the stack that the end of a decryption uses: a copy of the state of the largest cipher, and the frame of
/// the function that moves it.
const USED_STACK: usize = 16 << 10;

impl<C> CfbStream<C>
where
    C: BlockEncryptMut + BlockCipher + Clone,
{
    #[inline(never)] // for a separate stack frame, which is overwritten
    fn decrypt_tail(&self, tail: &mut [u8]) {
        self.0.clone().decrypt(tail);
    }
}
