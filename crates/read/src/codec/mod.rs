//! Decodes stored objects into plaintext.
//!
//! gzip and OpenPGP are readers over readers. The suffix of the object's name decides its form, and the content must have
//! that form.
//!
//! Every layer returns a clean end only after it has verified its own end and the layer beneath has ended too. The end of
//! the plaintext therefore means that the object was read to its last byte and is intact.

mod armor_reader;
mod backdated_object;
mod cfb_reader;
mod compressed_packet;
mod dated_name;
mod decode_limits;
mod decoder;
mod ecdh;
mod elgamal;
mod error;
pub mod fuzz_entry;
mod gpg_output;
mod gzip_reader;
mod key_file;
mod key_id;
mod keys;
mod latched_reader;
mod layer;
mod message_reader;
mod object_context;
mod ocb_reader;
mod openpgp_cipher;
mod packet_body;
mod packet_header;
mod passphrase_list;
mod preamble;
mod rsa_key;
mod secret_key;
mod session_key;
mod session_key_cache;
mod session_key_packet;
mod session_key_search;
mod signature_verifier;
mod signer;
mod stored_form;
mod stream_decompressor;
mod string_to_key;
mod threaded_layer;
mod user_gpg;
mod weierstrass;
mod written_time;

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;

pub use backdated_object::BackdatedObject;
pub use dated_name::DatedName;
pub use decode_limits::{DecodeLimits, ExpansionLimit};
pub use decoder::{DecodeOptions, Decoder};
pub use dupfs_base::Secret;
pub use error::{CodecError, error_kind};
pub use key_id::KeyId;
pub use keys::{KeyOptions, Keys};
pub use passphrase_list::PassphrasePrompt;
pub use signer::Signer;
pub use user_gpg::GpgOptions;
