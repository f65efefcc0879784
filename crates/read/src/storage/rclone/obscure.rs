//! rclone's form of passwords in its configuration.

use aes::Aes256;
use aes::cipher::{BlockEncrypt, KeyInit, generic_array::GenericArray};

use super::encoding::base64_url;
use crate::storage::StorageError;
use dupfs_base::{ErrorKind, Secret};

/// The key is the same in every rclone and public: the form only keeps passwords from being read in passing.
const KEY: [u8; 32] = [
    0x9c, 0x93, 0x5b, 0x48, 0x73, 0x0a, 0x55, 0x4d, 0x6b, 0xfd, 0x7c, 0x63, 0xc8, 0x86, 0xa9, 0x2b, 0xd3, 0x90, 0x19,
    0x8e, 0xb8, 0x12, 0x8a, 0xfb, 0xf4, 0xde, 0x16, 0x2b, 0x8b, 0x95, 0xf6, 0x38,
];

/// Returns `password` as rclone's options take it: a random block, and the password under AES in counter mode, as base64 for
/// URLs without padding.
///
/// # Errors
/// [`ErrorKind::Io`] if there are no random bytes.
pub(super) fn obscure(password: &Secret) -> Result<Secret, StorageError> {
    let mut start = [0; 16];
    getrandom::fill(&mut start)
        .map_err(|e| StorageError::new(ErrorKind::Io, "rclone", format!("no random bytes: {e}")))?;
    Ok(obscure_from(start, password))
}

fn obscure_from(start: [u8; 16], password: &Secret) -> Secret {
    let cipher = Aes256::new(GenericArray::from_slice(&KEY));
    let mut counter = u128::from_be_bytes(start);
    let mut bytes = Vec::with_capacity(start.len() + password.expose().len());
    bytes.extend(start);
    for part in password.expose().chunks(16) {
        let mut block = counter.to_be_bytes().into();
        cipher.encrypt_block(&mut block);
        bytes.extend(part.iter().zip(block).map(|(byte, key)| byte ^ key));
        counter = counter.wrapping_add(1);
    }
    Secret::new(base64_url(&bytes).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_the_form_of_rclone() {
        // Made by `rclone obscure geheim`.
        let made = "q4qA7V61gyTHteWNPhca2tUfcqBM9w";
        let start = [0xab, 0x8a, 0x80, 0xed, 0x5e, 0xb5, 0x83, 0x24, 0xc7, 0xb5, 0xe5, 0x8d, 0x3e, 0x17, 0x1a, 0xda];
        assert_eq!(obscure_from(start, &Secret::from("geheim".to_owned())).expose(), made.as_bytes());
    }
}
