//! Block ciphers of OpenPGP by number (RFC 4880 section 9.2, RFC 5581), in CFB mode.

use cfb_mode::cipher::inout::InOutBuf;
use cfb_mode::cipher::{AsyncStreamCipher, BlockCipher, BlockDecryptMut, BlockEncryptMut, KeyInit, KeyIvInit};

/// A block cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
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

impl Cipher {
    /// The cipher with OpenPGP's number `id`.
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

    /// Length of its key in bytes.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::Idea | Self::Cast5 | Self::Blowfish | Self::Aes128 | Self::Camellia128 => 16,
            Self::TripleDes | Self::Aes192 | Self::Camellia192 => 24,
            Self::Aes256 | Self::Twofish | Self::Camellia256 => 32,
        }
    }

    /// Length of its block in bytes.
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

    /// CFB decryption from `iv` on; `None` when `key` or `iv` has the wrong length.
    pub(super) fn cfb(self, key: &[u8], iv: &[u8]) -> Option<Box<dyn CfbDecrypt>> {
        if key.len() != self.key_len() {
            return None; // the crates take other lengths for Blowfish and Twofish, OpenPGP does not
        }
        match self {
            Self::Idea => stream::<idea::Idea>(key, iv),
            Self::TripleDes => stream::<des::TdesEde3>(key, iv),
            Self::Cast5 => stream::<cast5::Cast5>(key, iv),
            Self::Blowfish => stream::<blowfish::Blowfish>(key, iv),
            Self::Aes128 => stream::<aes::Aes128>(key, iv),
            Self::Aes192 => stream::<aes::Aes192>(key, iv),
            Self::Aes256 => stream::<aes::Aes256>(key, iv),
            Self::Twofish => stream::<twofish::Twofish>(key, iv),
            Self::Camellia128 => stream::<camellia::Camellia128>(key, iv),
            Self::Camellia192 => stream::<camellia::Camellia192>(key, iv),
            Self::Camellia256 => stream::<camellia::Camellia256>(key, iv),
        }
    }
}

/// A running CFB decryption.
pub(super) trait CfbDecrypt: Send {
    /// Decrypts the next bytes in place. Every call but the last must be a multiple of the block's length.
    fn decrypt(&mut self, bytes: &mut [u8]);
}

struct Stream<C: BlockEncryptMut + BlockCipher>(cfb_mode::Decryptor<C>);

fn stream<C>(key: &[u8], iv: &[u8]) -> Option<Box<dyn CfbDecrypt>>
where
    C: BlockEncryptMut + BlockCipher + KeyInit + Clone + Send + 'static,
{
    Some(Box::new(Stream(cfb_mode::Decryptor::<C>::new_from_slices(key, iv).ok()?)))
}

impl<C> CfbDecrypt for Stream<C>
where
    C: BlockEncryptMut + BlockCipher + Clone + Send,
{
    fn decrypt(&mut self, bytes: &mut [u8]) {
        // Whole blocks at once, so that the cipher works on several in parallel: CFB decryption has no feedback.
        let (blocks, tail) = InOutBuf::from(bytes).into_chunks();
        self.0.decrypt_blocks_inout_mut(blocks);
        if !tail.is_empty() {
            self.0.clone().decrypt(tail.into_out());
        }
    }
}
