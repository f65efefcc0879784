//! Tests against an encoder where gpg writes nothing small enough, and against the library's decryptor.

use std::io::{self, Cursor, Read, Write};

use cfb_mode::cipher::KeyInit;
use cfb_mode::cipher::consts::{U15, U16};
use ocb3::Ocb3;
use ocb3::aead::AeadInPlace;
use sequoia_openpgp::crypto::{Password, SessionKey as LibrarySessionKey};
use sequoia_openpgp::packet::{PKESK, SKESK};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::parse::stream::{DecryptionHelper, DecryptorBuilder, MessageStructure, VerificationHelper};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{Compressor, Encryptor, LiteralWriter, Message as Writer};
use sequoia_openpgp::types::{CompressionAlgorithm, SymmetricAlgorithm};
use sequoia_openpgp::{Cert, KeyHandle};

use super::message_reader::MessageReader;
use super::object_context::ObjectContext;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_header::tag;
use super::string_to_key::StringToKey;
use super::*;

const PASSPHRASE: &str = "a passphrase";

fn decoder(passphrases: &[&str]) -> Decoder {
    let passphrases = passphrases.iter().map(|p| Secret::new(*p)).collect();
    let keys = Keys::load(KeyOptions { passphrases, ..KeyOptions::default() }).unwrap();
    Decoder::new(keys, DecodeOptions::default())
}

fn decode(decoder: &Decoder, object: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let input = || Box::new(Cursor::new(bytes.to_vec()));
    let drain = |opened: Result<Box<dyn Read + Send>, CodecError>| {
        let mut out = Vec::new();
        let end = opened.map_err(CodecError::into_io).and_then(|mut plain| plain.read_to_end(&mut out));
        (out, end.map(drop))
    };
    let (out, end) = drain(decoder.open(object, input()));
    let (threaded, threaded_end) = drain(decoder.open_threaded(object, input()));
    assert_eq!(out, threaded, "{object}: two threads give other bytes than one");
    assert_eq!(end.is_ok(), threaded_end.is_ok(), "{object}: {end:?} by one thread, {threaded_end:?} by two");
    end.map(|()| out)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * i / 7 + i) % 251).unwrap()).collect()
}

fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[0xc0 | tag, 0xff][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn literal(plain: &[u8]) -> Vec<u8> {
    packet(tag::LITERAL, &[b"b\0\0\0\0\0", plain].concat())
}

const OCB_SESSION: [u8; 32] = [7; 32];
const OCB_IV: [u8; 15] = [9; 15];

fn seal(key: &[u8], nonce: &[u8; 15], associated: &[u8], bytes: &mut [u8]) -> Vec<u8> {
    let ocb = Ocb3::<aes::Aes256, U15, U16>::from(aes::Aes256::new_from_slice(key).unwrap());
    ocb.encrypt_in_place_detached(nonce.into(), associated, bytes).unwrap().to_vec()
}

/// A message as gpg 2.4 writes it with --force-ocb, with few rounds and chunks of 64 bytes.
fn ocb_message(plain: &[u8]) -> Vec<u8> {
    let s2k = b"\x03\x08saltsalt\x00";
    let kek = StringToKey::parse(s2k).unwrap().0.derive(PASSPHRASE.as_bytes(), 32).unwrap();
    let mut esk = OCB_SESSION.to_vec();
    let tag = seal(&kek, &OCB_IV, &[0xc3, 5, 9, 2], &mut esk);
    let skesk = packet(tag::SKESK, &[&[5, 9, 2][..], s2k, &OCB_IV, &esk, &tag].concat());
    [skesk, ocb_packet(plain)].concat()
}

fn ocb_packet(plain: &[u8]) -> Vec<u8> {
    let mut body = [&[1, 9, 2, 0][..], &OCB_IV].concat();
    let fixed = [0xd4, 1, 9, 2, 0];
    let nonce = |index: u64| {
        let mut nonce = OCB_IV;
        nonce.iter_mut().skip(7).zip(index.to_be_bytes()).for_each(|(n, i)| *n ^= i);
        nonce
    };
    let mut index = 0_u64;
    for chunk in plain.chunks(64) {
        let mut chunk = chunk.to_vec();
        let tag = seal(&OCB_SESSION, &nonce(index), &[&fixed[..], &index.to_be_bytes()].concat(), &mut chunk);
        body.extend([chunk, tag].concat());
        index += 1;
    }
    let total = u64::try_from(plain.len()).unwrap().to_be_bytes();
    let associated = [&fixed[..], &index.to_be_bytes(), &total].concat();
    body.extend(seal(&OCB_SESSION, &nonce(index), &associated, &mut []));
    packet(tag::OCB, &body)
}

#[test]
fn ocb_messages_to_a_key_open_with_the_exported_key_and_through_gpg() {
    use sequoia_openpgp::packet::PKESK;
    use sequoia_openpgp::packet::pkesk::PKESK3;
    use sequoia_openpgp::serialize::SerializeInto;
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keys/rsa.secret.asc");
    let cert = Cert::from_file(&file).unwrap();
    let key = cert.keys().subkeys().next().unwrap().key().clone().parts_into_public().role_into_unspecified();
    let esk =
        PKESK3::for_recipient(SymmetricAlgorithm::AES256, &LibrarySessionKey::from(&OCB_SESSION[..]), &key).unwrap();
    let esk = sequoia_openpgp::Packet::from(PKESK::V3(esk)).to_vec().unwrap();
    let plain = payload(100_000);
    let stored = [esk, ocb_packet(&literal(&plain))].concat();

    let home = tempfile::Builder::new().prefix("dupfs-gpg-").tempdir().unwrap();
    let gpg = |args: &[&std::ffi::OsStr]| {
        let mut command = std::process::Command::new("gpg");
        command.args(["--batch", "--quiet", "--trust-model", "always", "--homedir"]).arg(home.path()).args(args);
        command.output().expect("this test needs gpg 2.2 or newer")
    };
    assert!(gpg(&["--import".as_ref(), file.as_ref()]).status.success());
    let message = home.path().join("message");
    std::fs::write(&message, &stored).unwrap();
    let by_gpg = gpg(&["--decrypt".as_ref(), message.as_ref()]);

    let with = |options: KeyOptions| Decoder::new(Keys::load(options).unwrap(), DecodeOptions::default());
    let by_file = with(KeyOptions { secret_keys: vec![file.clone()], ..KeyOptions::default() });
    let asked = GpgOptions { home: Some(home.path().into()), ..GpgOptions::default() };
    let by_oracle = with(KeyOptions { gpg: Some(asked), ..KeyOptions::default() });
    let outs = [&by_file, &by_oracle].map(|decoder| decode(decoder, "x.gpg", &stored));
    let _ = std::process::Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
    assert!(by_gpg.stdout == plain, "gpg reads what the encoder of these tests writes");
    assert!(outs.into_iter().all(|out| out.unwrap() == plain));
}

#[test]
fn ocb_messages_of_every_length_come_out_whole() {
    let decoder = decoder(&["no", PASSPHRASE]);
    // The literal packet's own 12 bytes count: chunks end exactly, one byte before, and one byte behind.
    for len in (0..4).chain(50..56).chain(114..118).chain(178..182) {
        let plain = payload(len);
        assert_eq!(decode(&decoder, "x.gpg", &ocb_message(&literal(&plain))).unwrap(), plain, "{len} bytes");
    }
}

#[test]
fn damaged_ocb_messages_never_pass() {
    let decoder = decoder(&[PASSPHRASE]);
    for len in [116, 150] {
        let plain = payload(len);
        let stored = ocb_message(&literal(&plain));
        for at in 0..stored.len() {
            for flip in [1, 0x10, 0x80] {
                let mut bad = stored.clone();
                bad[at] ^= flip;
                decode(&decoder, "x.gpg", &bad).unwrap_err();
            }
            decode(&decoder, "x.gpg", &stored[..at]).unwrap_err();
        }
        // Whole chunks left out, doubled or exchanged.
        let body = stored.len() - (len + 12) - 16 * ((len + 12).div_ceil(64) + 1);
        let (head, chunks) = stored.split_at(body);
        let [first, second, rest] = [&chunks[..80], &chunks[80..160], &chunks[160..]];
        for order in [[second, first, rest], [first, first, rest], [first, rest, &[]]] {
            let mut bad = head.to_vec();
            bad.extend(order.concat());
            decode(&decoder, "x.gpg", &bad).unwrap_err();
        }
    }
}

/// The library's view of the same message.
fn by_library(stored: &[u8]) -> anyhow::Result<Vec<u8>> {
    struct Helper;
    impl VerificationHelper for Helper {
        fn get_certs(&mut self, _: &[KeyHandle]) -> anyhow::Result<Vec<Cert>> {
            Ok(Vec::new())
        }
        fn check(&mut self, _: MessageStructure<'_>) -> anyhow::Result<()> {
            Ok(())
        }
    }
    impl DecryptionHelper for Helper {
        fn decrypt(
            &mut self,
            _: &[PKESK],
            skesks: &[SKESK],
            _: Option<SymmetricAlgorithm>,
            decrypt: &mut dyn FnMut(Option<SymmetricAlgorithm>, &LibrarySessionKey) -> bool,
        ) -> anyhow::Result<Option<Cert>> {
            for skesk in skesks {
                if let Ok((algorithm, key)) = skesk.decrypt(&Password::from(PASSPHRASE))
                    && decrypt(algorithm, &key)
                {
                    return Ok(None);
                }
            }
            anyhow::bail!("no session key")
        }
    }
    let policy = StandardPolicy::new();
    let mut reader = DecryptorBuilder::from_bytes(stored)?.with_policy(&policy, None, Helper)?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok(out)
}

fn written_by_library(plain: &[u8], compression: CompressionAlgorithm) -> Vec<u8> {
    let mut out = Vec::new();
    let message = Encryptor::with_passwords(Writer::new(&mut out), Some(Password::from(PASSPHRASE)))
        .symmetric_algo(SymmetricAlgorithm::AES256)
        .build()
        .unwrap();
    let message = Compressor::new(message).algo(compression).build().unwrap();
    let mut message = LiteralWriter::new(message).build().unwrap();
    message.write_all(plain).unwrap();
    message.finalize().unwrap();
    out
}

#[test]
fn own_path_and_library_agree_on_the_bytes_and_both_reject_damage() {
    let decoder = decoder(&[PASSPHRASE]);
    for compression in [
        CompressionAlgorithm::Uncompressed,
        CompressionAlgorithm::Zip,
        CompressionAlgorithm::Zlib,
        CompressionAlgorithm::BZip2,
    ] {
        for len in [0, 1000, 300_000] {
            let plain = payload(len);
            let stored = written_by_library(&plain, compression);
            assert!(by_library(&stored).unwrap() == plain);
            assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "{compression} {len}");
            let header = stored.len().min(80);
            for at in [header, (header + stored.len()) / 2, stored.len() - 30, stored.len() - 5] {
                let mut bad = stored.clone();
                bad[at] ^= 0x20;
                let (own, library) = (decode(&decoder, "x.gpg", &bad), by_library(&bad));
                assert!(own.is_err() && library.is_err(), "{compression} {len}: byte {at}");
            }
        }
    }
}

#[test]
fn a_wrong_passphrase_that_passes_the_two_byte_check_does_not_hide_the_right_one() {
    let plain = b"\xcb\x07b\x00\x00\x00\x00\x00x".to_vec();
    let s2k_bytes = b"\x03\x02saltsalt\x00";
    let s2k = StringToKey::parse(s2k_bytes).unwrap().0;
    // The ciphertext under the right passphrase, by our own decryption run over zeros to get CFB's key stream.
    let key = s2k.derive(PASSPHRASE.as_bytes(), 32).unwrap();
    let encrypt = |plain: &[u8]| {
        use cfb_mode::cipher::{AsyncStreamCipher, KeyIvInit};
        let mut bytes = plain.to_vec();
        cfb_mode::Encryptor::<aes::Aes256>::new_from_slices(&key, &[0; 16]).unwrap().encrypt(&mut bytes);
        bytes
    };
    use sha1::{Digest, Sha1};
    let mut inner = [&[5; 18][..], &plain, &[0xd3, 0x14]].concat();
    inner.extend(Sha1::digest(&inner));
    let body = [&[1][..], &encrypt(&inner)].concat();
    let stored = [packet(tag::SKESK, &[&[4, 9][..], s2k_bytes].concat()), packet(tag::SEIPD, &body)].concat();
    let sample = &body[1..];
    let quick_check = |passphrase: &str| {
        let key = s2k.derive(passphrase.as_bytes(), 32).unwrap();
        let mut bytes = sample.to_vec();
        OpenPgpCipher::Aes256.cfb(&key, &[0; 16]).unwrap().decrypt(&mut bytes);
        bytes[14..16] == bytes[16..18]
    };
    let false_friend = (0..).map(|n| format!("wrong {n}")).find(|p| quick_check(p)).unwrap();
    assert_eq!(decode(&decoder(&[&false_friend, PASSPHRASE]), "x.gpg", &stored).unwrap(), b"x");
    let error = decode(&decoder(&[&false_friend]), "x.gpg", &stored).unwrap_err();
    assert_eq!(error_kind(&error), dupfs_base::ErrorKind::KeyMissing, "{error}");
}

#[test]
fn nested_compression_and_strange_packets_end_in_an_error() {
    let ctx = ObjectContext::new("x");
    let read = |bytes: Vec<u8>| {
        let mut out = Vec::new();
        MessageReader::new(&ctx, Box::new(Cursor::new(bytes)), None).read_to_end(&mut out).map(|_| out)
    };
    let nest = |depth: usize| {
        (0..depth).fold(literal(b"hello"), |inner, _| packet(tag::COMPRESSED, &[&[0][..], &inner].concat()))
    };
    assert_eq!(read(nest(0)).unwrap(), b"hello");
    assert_eq!(read(nest(4)).unwrap(), b"hello");
    read(nest(5)).unwrap_err();
    assert_eq!(read([packet(tag::MARKER, b"PGP"), nest(1)].concat()).unwrap(), b"hello");
    read([nest(0), nest(0)].concat()).unwrap_err();
    read([nest(1), packet(tag::MARKER, b"PGP")].concat()).unwrap_err();
    read([packet(tag::COMPRESSED, &[&[0][..], &nest(0), b"x"].concat())].concat()).unwrap_err();
    read(Vec::new()).unwrap_err();
    read(packet(tag::MARKER, b"PGP")).unwrap_err();
    read(packet(60, b"?")).unwrap_err();
}

#[test]
fn debug_output_shows_no_secret() {
    let keys = KeyOptions { passphrases: vec![Secret::new("hidden words")], ..KeyOptions::default() };
    let shown = format!("{keys:?} {:?} {:?}", Secret::new("hidden words"), Keys::load(KeyOptions::default()).unwrap());
    assert!(!shown.contains("hidden"), "{shown}");
}
