//! The bodies of the fuzz target `codec`: each function takes any bytes and asserts invariants that are true for all of
//! them. The session key is fixed, so that nothing is derived from passphrases and no key is needed.

use std::io::{self, Read};
use std::sync::OnceLock;

use aes::Aes256;
use cfb_mode::cipher::{AsyncStreamCipher, KeyIvInit};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{Key4, PrimaryRole, SecretParts};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::types::Curve;
use sequoia_openpgp::{Packet, PacketPile};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::decode_limits::{DecodeLimits, ExpansionLimit};
use super::decoder::{DecodeOptions, Decoder};
use super::keys::{KeyOptions, Keys};
use super::latched_reader::LatchedReader;
use super::object_context::ObjectContext;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_header::tag;
use super::preamble::Preamble;
use super::session_key::SessionKey;
use super::signer::Signer;
use dupfs_base::RequestContext;

/// Each byte of the session key, for every cipher.
const KEY_BYTE: u8 = 0x5a;

/// Deflate stays below the ratio, so that only bzip2 can exceed it.
const EXPANSION: ExpansionLimit = ExpansionLimit { base: 1 << 20, ratio: 1100 };

/// The session key packet of a message whose session key is derived from a passphrase, with AES-256.
const SESSION_KEY_PACKET: &[u8] = &[0xc0 | tag::SKESK, 4, 4, 9, 0, 8];

/// The bytes of one decoding, and whether it ended without an error.
#[derive(Debug)]
struct Decoded {
    plain: Vec<u8>,
    intact: bool,
    exceeded: bool,
}

/// Stored objects: `data` under each kind of name. The sizes of reads have no effect, the end is permanent, and no accepted
/// encrypted object is accepted with another content after its last byte was cut off.
pub fn fuzz_object(data: &[u8]) {
    for name in ["x.gpg", "x.gz", "x"] {
        let whole = decode_in_pieces(name, data, DecodeOptions::default());
        if whole.intact && name == "x.gpg" {
            let cut = data.split_last().map_or(data, |(_, cut)| cut);
            let cut = decode(name, cut, DecodeOptions::default(), 1 << 16);
            assert!(!cut.intact || cut.plain == whole.plain, "a truncated object is accepted");
        }
    }
    // Without an integrity code only the bounds can be asserted.
    decode_in_pieces("x.gpg", data, DecodeOptions { allow_unauthenticated: true, ..DecodeOptions::default() });
}

/// Messages as anyone who has the public key can make them: `packets` are encrypted under an integrity code. An
/// accepted content is the one that the OpenPGP library finds in them, no changed bit of it is accepted, and nothing is
/// accepted as signed.
pub fn fuzz_message(packets: &[u8]) {
    let object = encrypt(packets);
    let decoded = decode_in_pieces("x.gpg", &object, DecodeOptions::default());
    if decoded.intact {
        let found = library_literals(packets);
        assert!(!matches!(&found[..], [one] if *one != decoded.plain), "another content than the library finds");
        for at in [object.len() - 1, object.len() / 2] {
            let mut changed = object.clone();
            changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            let options = DecodeOptions { allow_unauthenticated: true, ..DecodeOptions::default() };
            assert!(!decode("x.gpg", &changed, options, 1 << 16).intact, "a changed object is accepted");
        }
    }
    let signed = DecodeOptions { require_signer: Some(signer().clone()), ..DecodeOptions::default() };
    assert!(!decode_in_pieces("x.gpg", &object, signed).intact, "a forged signature is accepted");
}

/// Decodes `data` by reads and stored pieces of several sizes, and compares the results.
fn decode_in_pieces(name: &str, data: &[u8], options: DecodeOptions) -> Decoded {
    let whole = decode(name, data, options.clone(), 1 << 16);
    let max = EXPANSION.base + EXPANSION.ratio * data.len() as u64 + (1 << 17);
    assert!(whole.plain.len() as u64 <= max, "more plaintext than the limit allows");
    let pieces = decode(name, data, options, 7);
    if !whole.exceeded && !pieces.exceeded {
        assert_eq!(whole.intact, pieces.intact, "the size of reads decides whether {name} is intact");
        let shorter = whole.plain.len().min(pieces.plain.len());
        assert_eq!(whole.plain.get(..shorter), pieces.plain.get(..shorter), "the size of reads changes {name}");
        assert!(!whole.intact || whole.plain.len() == pieces.plain.len(), "the size of reads shortens {name}");
    }
    whole
}

/// Gives at most `step` bytes at a time.
struct Pieces<'d> {
    data: &'d [u8],
    step: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.step);
        self.data.read(buf.get_mut(..len).unwrap_or(&mut []))
    }
}

/// Decodes `data` by reads of `step` bytes.
fn decode(name: &str, data: &[u8], options: DecodeOptions, step: usize) -> Decoded {
    let mut decoded = Decoded { plain: Vec::new(), intact: false, exceeded: false };
    let Ok(keys) = Keys::load(KeyOptions::default()) else { return decoded };
    let decoder = Decoder::new(keys, options);
    let limits = DecodeLimits::new(&RequestContext::unlimited(), EXPANSION, None);
    let ctx = ObjectContext::with_limits(name.into(), &limits);
    let input = Box::new(Pieces { data, step });
    let find_key = |_: &ObjectContext, preamble: &Preamble, _: &[u8]| Ok(session_key(preamble));
    if let Ok(inner) = decoder.layers(&ctx, input, |plain| plain, &find_key) {
        let mut reader = LatchedReader::new(&ctx, inner);
        let mut buf = vec![0; step];
        decoded.intact = loop {
            match reader.read(&mut buf) {
                Ok(0) => break true,
                Ok(n) => decoded.plain.extend_from_slice(buf.get(..n).unwrap_or(&[])),
                Err(_) => break false,
            }
        };
        let again = reader.read(&mut buf).ok();
        assert_eq!(again, decoded.intact.then_some(0), "the end of {name} is not permanent");
    }
    decoded.exceeded = limits.is_exceeded();
    decoded
}

/// The session key with the cipher that the data seem to have.
fn session_key(preamble: &Preamble) -> SessionKey {
    let key = |cipher: OpenPgpCipher| SessionKey::new(cipher, Zeroizing::new(vec![KEY_BYTE; cipher.key_len()]));
    let all = (1..=13).filter_map(OpenPgpCipher::from_id).filter_map(key);
    let fitting = all.into_iter().find(|key| preamble.fits(key));
    // The length of the key is that of the cipher.
    fitting.or_else(|| key(OpenPgpCipher::Aes256)).unwrap_or_else(|| unreachable!("a key of the right length"))
}

/// `packets` as an encrypted message with an integrity code.
fn encrypt(packets: &[u8]) -> Vec<u8> {
    let mut plain = [&[7; 18], packets, &[0xd3, 0x14]].concat();
    let code = Sha1::digest(&plain);
    plain.extend_from_slice(&code);
    cfb_mode::Encryptor::<Aes256>::new(&[KEY_BYTE; 32].into(), &[0; 16].into()).encrypt(&mut plain);
    let len = u32::try_from(plain.len() + 1).unwrap_or(u32::MAX);
    [SESSION_KEY_PACKET, &[0xc0 | tag::SEIPD, 0xff], &len.to_be_bytes(), &[1], &plain].concat()
}

/// The contents of the literal packets that the library finds in `packets`.
fn library_literals(packets: &[u8]) -> Vec<Vec<u8>> {
    let Ok(pile) = PacketPile::from_bytes(packets) else { return Vec::new() };
    let literal = |packet: &Packet| match packet {
        Packet::Literal(literal) => Some(literal.body().to_vec()),
        _ => None,
    };
    pile.descendants().filter_map(literal).collect()
}

/// A signer whose secret key is dropped at once.
fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let key = Key4::<SecretParts, PrimaryRole>::generate_ecc(true, Curve::Ed25519);
        let key = key.unwrap_or_else(|error| unreachable!("a key cannot be generated: {error}"));
        Signer::with_key(Key::from(key).parts_into_public().role_into_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;

    use super::*;
    use dupfs_test_tar::mutations;

    fn literal(plain: &[u8]) -> Vec<u8> {
        let len = u8::try_from(plain.len() + 6).unwrap();
        [&[0xc0 | tag::LITERAL, len][..], b"b\0\0\0\0\0", plain].concat()
    }

    fn compressed(algorithm: u8, stream: &[u8]) -> Vec<u8> {
        [&[0xa3, algorithm][..], stream].concat()
    }

    /// Messages as gpg writes them, and others that are read.
    fn messages() -> Vec<Vec<u8>> {
        let text = literal(b"the content of a volume, the content of a volume");
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(&text).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&text).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        bzip2.write_all(&text).unwrap();
        let partial = [&[0xc0 | tag::LITERAL, 0xe9][..], b"b\0\0\0\0\0", &[b'p'; 506], &[3], b"end"].concat();
        let marker = [0xc0 | tag::MARKER, 3, b'P', b'G', b'P'];
        let one_pass = [&[0xc0 | tag::ONE_PASS, 13, 3, 0, 8, 22][..], &[1; 8], &[1]].concat();
        let signature = [&[0xc0 | tag::SIGNATURE, 20, 4, 0, 22, 8, 0, 6, 5, 2][..], &[0x65; 4], &[0; 8]].concat();
        vec![
            text.clone(),
            compressed(0, &text),
            compressed(1, &deflate.finish().unwrap()),
            compressed(2, &zlib.finish().unwrap()),
            compressed(3, &bzip2.finish().unwrap()),
            partial,
            [&marker[..], &one_pass, &text, &signature].concat(),
        ]
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn messages_of_the_seeds_are_decoded() {
        for (number, packets) in messages().iter().enumerate() {
            let decoded = decode_in_pieces("x.gpg", &encrypt(packets), DecodeOptions::default());
            assert!(decoded.intact, "message {number}");
            assert_eq!(library_literals(packets), [decoded.plain], "message {number}");
        }
    }

    #[test]
    fn mutated_messages_and_objects_keep_the_invariants() {
        for packets in messages() {
            mutations(&packets, 150, fuzz_message);
            mutations(&encrypt(&packets), 60, fuzz_object);
        }
        mutations(&gzip(b"a member of a gzip file"), 200, fuzz_object);
        mutations(&[gzip(b"one"), gzip(b"two"), vec![0; 9]].concat(), 200, fuzz_object);
        let armour = b"-----BEGIN PGP MESSAGE-----\n\nyA4BBwlt\n=abcd\n-----END PGP MESSAGE-----\n";
        mutations(armour, 200, fuzz_object);
        mutations(b"snapshot/ a plain object", 50, fuzz_object);
    }
}
