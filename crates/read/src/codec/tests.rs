//! Tests against an encoder where gpg writes nothing small enough, and against the library's decryptor.

use std::collections::BTreeMap;
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

use dupfs_base::ErrorKind;

use super::message_reader::MessageReader;
use super::object_context::ObjectContext;
use super::openpgp_cipher::OpenPgpCipher;
use super::packet_header::tag;
use super::string_to_key::{ParsedStringToKey, StringToKey};
use super::written_time::WrittenTimeRule;
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
    let (out, end) = drain(decoder.open(object, input(), &DecodeLimits::default()));
    let (threaded, threaded_end) = drain(decoder.open_threaded(object, input(), &DecodeLimits::default()));
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

fn specifier(bytes: &[u8]) -> StringToKey {
    match StringToKey::parse(bytes) {
        ParsedStringToKey::Supported(s2k, b"") => s2k,
        other => panic!("{other:?}"),
    }
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
    let kek = specifier(s2k).derive(PASSPHRASE.as_bytes(), 32).unwrap();
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

/// Tests that need gpg: `scripts/check` skips them by the name of this module.
mod needs_gpg {
    use super::*;

    #[test]
    fn ocb_messages_to_a_key_open_with_the_exported_key_and_through_gpg() {
        use sequoia_openpgp::packet::PKESK;
        use sequoia_openpgp::packet::pkesk::PKESK3;
        use sequoia_openpgp::serialize::SerializeInto;
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keys/rsa.secret.asc");
        let cert = Cert::from_file(&file).unwrap();
        let key = cert.keys().subkeys().next().unwrap().key().clone().parts_into_public().role_into_unspecified();
        let esk = PKESK3::for_recipient(SymmetricAlgorithm::AES256, &LibrarySessionKey::from(&OCB_SESSION[..]), &key)
            .unwrap();
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
        let _ =
            std::process::Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
        assert!(by_gpg.stdout == plain, "gpg reads what the encoder of these tests writes");
        assert!(outs.into_iter().all(|out| out.unwrap() == plain));
    }
}

#[test]
fn ocb_messages_of_every_length_are_decoded_completely() {
    let decoder = decoder(&["no", PASSPHRASE]);
    // The literal packet's own 12 bytes count: chunks end exactly there, one byte before, and one byte after.
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
    let s2k = specifier(s2k_bytes);
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
    assert_eq!(error_kind(&error), ErrorKind::KeyMissing, "{error}");
}

#[test]
fn nested_compression_and_strange_packets_end_in_an_error() {
    let ctx = ObjectContext::new("x");
    let read = |bytes: Vec<u8>| {
        let mut out = Vec::new();
        MessageReader::new(
            &ctx,
            Box::new(Cursor::new(bytes)),
            None,
            WrittenTimeRule { times: std::sync::Arc::default(), refuses: true },
        )
        .read_to_end(&mut out)
        .map(|_| out)
    };
    let nest = |depth: usize| {
        (0..depth).fold(literal(b"hello"), |inner, _| packet(tag::COMPRESSED, &[&[0][..], &inner].concat()))
    };
    assert_eq!(read(nest(0)).unwrap(), b"hello");
    assert_eq!(read(nest(1)).unwrap(), b"hello");
    for depth in 2..5 {
        let error = read(nest(depth)).unwrap_err();
        assert!(error.to_string().contains("compressed data within compressed data"), "{error}");
    }
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

/// A message with an MDC under `key`, as one packet.
fn mdc_packet(key: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    use cfb_mode::cipher::{AsyncStreamCipher, KeyIvInit};
    use sha1::{Digest, Sha1};
    let mut inner = [&[5; 18][..], plain, &[0xd3, 0x14]].concat();
    inner.extend(Sha1::digest(&inner));
    cfb_mode::Encryptor::<aes::Aes256>::new_from_slices(key, &[0; 16]).unwrap().encrypt(&mut inner);
    packet(tag::SEIPD, &[&[1][..], &inner].concat())
}

/// A session key packet to the key in the fixture `file`, in the old format as gpg writes it.
fn pkesk(file: &str, session: &[u8]) -> Vec<u8> {
    use sequoia_openpgp::packet::pkesk::PKESK3;
    use sequoia_openpgp::serialize::MarshalInto;
    let cert = Cert::from_file(fixture(&format!("keys/{file}"))).unwrap();
    let key = cert.keys().subkeys().next().unwrap().key().clone().parts_into_public().role_into_unspecified();
    let esk = PKESK3::for_recipient(SymmetricAlgorithm::AES256, &LibrarySessionKey::from(session), &key).unwrap();
    old_format(tag::PKESK, &esk.to_vec().unwrap())
}

fn old_format(tag: u8, body: &[u8]) -> Vec<u8> {
    let header = match u8::try_from(body.len()) {
        Ok(len) => vec![0x80 | (tag << 2), len],
        Err(_) => [&[0x81 | (tag << 2)][..], &u16::try_from(body.len()).unwrap().to_be_bytes()].concat(),
    };
    [header, body.to_vec()].concat()
}

fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// Decodes `stored` with each bit of its first 16 bytes changed in turn. Returns the results other than damage, with their
/// number and the bytes that were changed.
fn flips_not_reported_as_damage(decoder: &Decoder, stored: &[u8]) -> Vec<(String, usize, Vec<usize>)> {
    let mut results: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for at in 0..16 {
        for bit in 0..8 {
            let mut bad = stored.to_vec();
            bad[at] ^= 1 << bit;
            let result = match decode(decoder, "x.manifest.gpg", &bad) {
                Ok(_) => "decoded".to_owned(),
                Err(error) => format!("{:?}", error_kind(&error)),
            };
            if result != "Corrupt" {
                results.entry(result).or_default().push(at);
            }
        }
    }
    let mut out: Vec<_> = results.into_iter().map(|(result, at)| (result, at.len(), at)).collect();
    out.iter_mut().for_each(|(_, _, at)| at.dedup());
    out
}

/// An object may be replaced between two reads: the integrity code of the content that was read last counts.
#[test]
fn the_integrity_code_of_the_last_content_counts() {
    let passphrases = vec![Secret::new("fixture passphrase")];
    let keys = Keys::load(KeyOptions { passphrases, ..KeyOptions::default() }).unwrap();
    let decoder = Decoder::new(keys, DecodeOptions { allow_unauthenticated: true, ..DecodeOptions::default() });
    let sample = |name: &str| std::fs::read(fixture(&format!("codec/{name}"))).unwrap();
    let (without, with) = (sample("gpg1-cast5-no-mdc.gpg"), sample("gpg1-aes128.manifest.gpg"));
    for (stored, expected) in [(&without, false), (&with, true), (&without, false), (&with, true)] {
        decode(&decoder, "vol1.gpg", stored).unwrap();
        assert_eq!(decoder.has_own_integrity("vol1.gpg"), expected);
    }
    assert!(decoder.has_own_integrity("vol2.gpg") && decoder.has_own_integrity("vol1.gz"));
    assert!(!decoder.has_own_integrity("vol1"));
}

#[test]
fn single_flips_of_the_first_bytes_are_damage_unless_they_give_another_valid_message() {
    let plain = literal(&payload(300));
    let session = [7; 32];
    let options = KeyOptions {
        secret_keys: ["rsa", "nistp384", "elgamal"].map(|name| fixture(&format!("keys/{name}.secret.asc"))).to_vec(),
        passphrases: vec![Secret::new(PASSPHRASE)],
        ..KeyOptions::default()
    };
    let decoder = Decoder::new(Keys::load(options).unwrap(), DecodeOptions::default());
    let s2k = b"\x03\x08saltsalt\x00";
    let key: [u8; 32] = specifier(s2k).derive(PASSPHRASE.as_bytes(), 32).unwrap().as_slice().try_into().unwrap();
    let skesk = old_format(tag::SKESK, &[&[4, 9][..], s2k].concat());
    let ocb = ocb_message(&plain);
    // The header of the first packet has 6 bytes, its body 77.
    let ocb = [old_format(tag::SKESK, &ocb[6..83]), ocb[83..].to_vec()].concat();
    let to = |name: &str| pkesk(&format!("{name}.secret.asc"), &session);
    let sample = |name: &str| std::fs::read(fixture(&format!("codec/{name}"))).unwrap();
    let is = |result: &str, count: usize, at: &[usize]| (result.to_owned(), count, at.to_vec());
    let key_id = [4, 5, 6, 7, 8, 9, 10, 11];

    let messages = [
        // Other ciphers, hashes, salts and counts: the passphrase gives a wrong key, as a wrong passphrase does.
        (
            [skesk, mdc_packet(&key, &plain)].concat(),
            vec![is("KeyMissing", 79, &[3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])],
        ),
        (ocb, vec![is("KeyMissing", 76, &[3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])]),
        // Other recipients, and version 2 of the packet, which PGP 2 wrote with the same fields.
        (
            [to("rsa"), mdc_packet(&session, &plain)].concat(),
            vec![is("KeyMissing", 64, &key_id), is("decoded", 1, &[3])],
        ),
        ([to("rsa"), ocb_packet(&plain)].concat(), vec![is("KeyMissing", 64, &key_id), is("decoded", 1, &[3])]),
        (
            [to("nistp384"), mdc_packet(&session, &plain)].concat(),
            vec![is("KeyMissing", 64, &key_id.map(|at| at - 1)), is("decoded", 1, &[2])],
        ),
        // ElGamal has two numbers.
        (sample("gpg1-elgamal.gpg"), vec![is("KeyMissing", 64, &key_id), is("decoded", 2, &[3, 12])]),
        // Refused as they are: without an integrity code.
        (sample("gpg1-cast5-no-mdc.gpg"), vec![is("Unsupported", 78, &[3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])]),
        (sample("gpg1-rsa-no-mdc.gpg"), vec![is("Unsupported", 71, &[3, 4, 5, 6, 7, 8, 9, 10, 11, 15])]),
        (sample("gpg22-armor-bzip2.sigtar.gpg"), vec![]),
    ];
    for (number, (stored, expected)) in messages.iter().enumerate() {
        assert_eq!(&flips_not_reported_as_damage(&decoder, stored), expected, "message {number}");
    }
}

#[test]
fn forms_that_exist_are_refused_by_name_and_other_numbers_are_damage() {
    let decoder = decoder(&[PASSPHRASE]);
    let s2k = b"\x03\x08saltsalt\x00";
    let v5 = |mode: u8, nonce: usize| [&[5, 9, mode][..], s2k, &vec![1; nonce + 32 + 16]].concat();
    let v6 = |len: u8| [&[6, len, 9, 2, 11][..], s2k, &[1; 15 + 32 + 16]].concat();
    let pkesk = |version: u8, algorithm: u8, fields: &[u8]| [&[version][..], &[1; 8], &[algorithm], fields].concat();
    let later = |algorithm: u8, point: usize| pkesk(3, algorithm, &[&vec![1; point][..], &[2, 0, 0]].concat());
    let data = packet(tag::SEIPD, &[1; 100]);
    let esk = |tag: u8, body: &[u8]| [packet(tag, body), data.clone()].concat();
    let argon2 = [&[4, 9, 4][..], &[1; 19]].concat();
    let cases = [
        (esk(tag::PKESK, &later(25, 32)), Some("algorithm 25")),
        (esk(tag::PKESK, &later(25, 33)), None),
        (esk(tag::PKESK, &later(26, 56)), Some("algorithm 26")),
        (esk(tag::PKESK, &later(26, 32)), None),
        (esk(tag::PKESK, &later(8, 1000)), Some("algorithm 8")),
        (esk(tag::PKESK, &later(9, 32)), None),
        (esk(tag::PKESK, &[&[6, 33, 6][..], &[1; 32], &[25]].concat()), Some("packet (1) of version 6")),
        (esk(tag::PKESK, &pkesk(4, 1, &[0, 8, 1])), None),
        (esk(tag::PKESK, &pkesk(3, 1, &[0, 9, 1, 1, 1])), None),
        (esk(tag::SKESK, &v5(1, 16)), Some("EAX")),
        (esk(tag::SKESK, &v5(3, 12)), Some("GCM")),
        (esk(tag::SKESK, &v5(3, 15)), None),
        (esk(tag::SKESK, &v5(4, 15)), None),
        (esk(tag::SKESK, &v6(29)), Some("packet (3) of version 6")),
        (esk(tag::SKESK, &v6(28)), None),
        (esk(tag::SKESK, &argon2), Some("Argon2")),
        (esk(tag::SKESK, &argon2[..20]), None),
        (esk(tag::SKESK, &[7, 9, 3, 8]), None),
        (esk(tag::SKESK, &[&[4, 14][..], s2k].concat()), None),
        (esk(tag::SKESK, &[&[4, 9][..], s2k, &[1; 18]].concat()), None),
        (packet(tag::SEIPD, &[2, 9, 2, 16, 0]), Some("packet 18) of version 2")),
        (packet(tag::SEIPD, &[2, 9, 4, 16, 0]), None),
        (packet(tag::SEIPD, &[3, 9, 2, 16, 0]), None),
        (packet(tag::OCB, &[&[1, 9, 1, 16][..], &[0; 40]].concat()), Some("EAX")),
        (packet(tag::OCB, &[&[1, 9, 2, 17][..], &[0; 40]].concat()), Some("2^23 bytes")),
        (packet(tag::OCB, &[&[1, 9, 2, 57][..], &[0; 40]].concat()), None),
        (packet(tag::OCB, &[&[1, 9, 3, 16][..], &[0; 40]].concat()), None),
        (packet(tag::OCB, &[&[1, 2, 2, 16][..], &[0; 40]].concat()), None),
        (packet(tag::OCB, &[&[2, 9, 2, 16][..], &[0; 40]].concat()), None),
        // Without a session key packet.
        (data.clone(), None),
        (ocb_packet(b"x"), None),
        (packet(tag::SED, &[1; 100]), Some("without an integrity code")),
        ([packet(tag::SED, &[1; 100]), b"x".to_vec()].concat(), None),
        (packet(tag::SED, &[1; 100])[..90].to_vec(), None),
        ([packet(tag::MARKER, b"PGP"), packet(tag::SED, &[1; 100])].concat(), Some("without an integrity code")),
        ([packet(tag::MARKER, b"PGQ"), packet(tag::SED, &[1; 100])].concat(), None),
    ];
    for (number, (stored, unsupported)) in cases.iter().enumerate() {
        let error = decode(&decoder, "x.gpg", stored).unwrap_err();
        let expected = if unsupported.is_some() { ErrorKind::Unsupported } else { ErrorKind::Corrupt };
        assert_eq!(error_kind(&error), expected, "case {number}: {error}");
        assert!(error.to_string().contains(unsupported.unwrap_or("damaged")), "case {number}: {error}");
    }
}
