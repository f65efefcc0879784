//! Damage is always detected: each single changed byte and each truncation gives an error or the right bytes. Only
//! layers that verify at the end may return unverified bytes before their error.

use super::{Home, decode, decode_partly, decoder, key, payload, sample, tolerant};
use dupfs_base::ErrorKind;
use dupfs_read::codec::{DecodeLimits, Decoder, error_kind};
use dupfs_read::storage::StorageError;
use std::io::{self, Read, Write};

const PASSPHRASE: &str = "fixture passphrase";
/// Few rounds; gpg takes 1024 and less for its slow default.
const FAST: [&str; 2] = ["--s2k-count", "2048"];

/// Changes every byte and cuts at every length; `step` thins out large samples.
fn check_every_damage(decoder: &Decoder, object: &str, stored: &[u8], plain: &[u8], step: usize) {
    assert!(decode(decoder, object, stored).unwrap() == plain);
    for at in (0..stored.len()).step_by(step) {
        for flip in [1, 0x80, 0xff] {
            let mut bad = stored.to_vec();
            bad[at] ^= flip;
            if let Ok(out) = decode(decoder, object, &bad) {
                assert!(out == plain, "{object}: byte {at} changed by {flip:#x} gave other bytes and a clean end");
            }
        }
        let (out, outcome) = decode_partly(decoder, object, &stored[..at], 999);
        assert!(outcome.is_err(), "{object}: cut at {at} gave {} bytes and a clean end", out.len());
        assert!(plain.starts_with(&out), "{object}: cut at {at} gave other bytes");
        let mut more = stored.to_vec();
        more.insert(at, b'x');
        if let Ok(out) = decode(decoder, object, &more) {
            assert!(out == plain, "{object}: a byte more at {at} gave other bytes and a clean end");
        }
    }
    for tail in [&b"x"[..], b"\0", b"\xd2\x00", &stored[..stored.len().min(100)]] {
        // Zeros after gzip data are padding, and a file may have several gzip members.
        if object.ends_with(".gz") && (tail == b"\0" || tail.len() > 2) {
            continue;
        }
        decode(decoder, object, &[stored, tail].concat()).expect_err("bytes after the end");
    }
}

#[test]
fn damaged_passphrase_messages_never_pass() {
    let (home, plain) = (Home::new(), payload(700));
    for args in [
        &["--compress-algo", "none"][..],
        &["--compress-algo", "zip"],
        &["--compress-algo", "zlib", "--cipher-algo", "TWOFISH"],
        &["--compress-algo", "bzip2", "--cipher-algo", "3DES"],
    ] {
        let stored = home.symmetric(PASSPHRASE, &[&FAST[..], args].concat(), &plain);
        check_every_damage(&decoder(&[], &["a", PASSPHRASE]), "x.gpg", &stored, &plain, 1);
    }
}

#[test]
fn damaged_armour_never_passes() {
    let (home, plain) = (Home::new(), payload(300));
    let stored = home.symmetric(PASSPHRASE, &[&FAST[..], &["--armor"]].concat(), &plain);
    let decoder = decoder(&[], &[PASSPHRASE]);
    // A missing final line break is no damage.
    check_every_damage(&decoder, "x.gpg", stored.trim_ascii_end(), &plain, 1);
}

#[test]
fn damaged_messages_to_keys_never_pass() {
    let (home, plain) = (Home::new(), payload(400));
    let file = |name: &str| key(name).display().to_string();
    let stored = home.gpg(&["--recipient-file", &file("nistp384.public.asc"), "-e"], &plain);
    check_every_damage(&decoder(&["nistp384.secret.asc"], &[]), "x.gpg", &stored, &plain, 1);
    let stored = home.gpg(&["--hidden-recipient-file", &file("rsa.public.asc"), "-e"], &plain);
    check_every_damage(&decoder(&["rsa.secret.asc"], &[]), "x.gpg", &stored, &plain, 3);
    home.import("rsa.secret.asc");
    let stored = home.symmetric(PASSPHRASE, &[&FAST[..], &["-s", "-u", "dupfs rsa"]].concat(), &plain);
    check_every_damage(&decoder(&[], &[PASSPHRASE]), "x.gpg", &stored, &plain, 1);
}

#[test]
fn damaged_ocb_messages_never_pass() {
    let decoder = decoder(&[], &[PASSPHRASE]);
    let stored = sample("gpg24-ocb.manifest.gpg");
    let plain = decode(&decoder, "x.manifest.gpg", &stored).unwrap();
    // Each attempt hashes 65 MB to derive a key, so only some bytes are changed. The unit tests change all bytes of a
    // small message.
    let mut bad = stored.clone();
    for at in (0..stored.len()).rev().step_by(17) {
        bad[at] ^= 4;
        decode(&decoder, "x.manifest.gpg", &bad).unwrap_err();
        decode(&decoder, "x.manifest.gpg", &stored[..at]).unwrap_err();
        bad[at] ^= 4;
    }
    assert_eq!(decode(&decoder, "x.manifest.gpg", &bad).unwrap(), plain);
}

#[test]
fn damaged_messages_without_an_integrity_code_never_panic_and_cuts_are_noticed() {
    let decoder = tolerant(&[], &[PASSPHRASE]);
    for name in ["gpg1-cast5-no-mdc.gpg", "gpg1-aes256-no-mdc-uncompressed.gpg", "gpg1-rfc1991-idea.gpg"] {
        let stored = sample(name);
        let plain = decode(&decoder, name, &stored).unwrap();
        for at in (0..stored.len()).step_by(211) {
            let mut bad = stored.clone();
            bad[at] ^= 0x41;
            let _ = decode(&decoder, name, &bad);
            let (out, outcome) = decode_partly(&decoder, name, &stored[..at], 4096);
            assert!(plain.starts_with(&out));
            // RFC 1991 data of indeterminate length end with the object. Every other form marks its end.
            assert!(outcome.is_err() || name.contains("rfc1991"), "{name}: cut at {at} and a clean end");
        }
    }
}

fn gzip(plain: &[u8], name: Option<&str>) -> Vec<u8> {
    let builder = flate2::GzBuilder::new();
    let builder = if let Some(name) = name { builder.filename(name).extra(b"xx1").comment("c") } else { builder };
    let mut encoder = builder.write(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn damaged_gzip_never_passes() {
    let decoder = decoder(&[], &[]);
    let plain = payload(900);
    check_every_damage(&decoder, "x.difftar.gz", &gzip(&plain, None), &plain, 1);
    check_every_damage(&decoder, "x.manifest.gz", &gzip(&plain, Some("manifest")), &plain, 1);
    check_every_damage(&decoder, "x.difftar.gz", &gzip(b"", None), b"", 1);
}

#[test]
fn gzip_members_follow_one_another_and_may_be_padded_with_zeros() {
    let decoder = decoder(&[], &[]);
    let (a, b) = (payload(100_000), payload(10));
    let two = [gzip(&a, None), gzip(b"", Some("empty")), gzip(&b, Some("b"))].concat();
    let expected = [a, b].concat();
    for step in [1, usize::MAX] {
        // gzip data in a file without a suffix, as 0.6 wrote it (FORMAT.md section 0).
        let (out, outcome) = decode_partly(&decoder, "x.difftar", &two, step);
        outcome.unwrap();
        assert!(out == expected);
    }
    assert!(decode(&decoder, "x.gz", &[&two[..], &[0; 70_000]].concat()).unwrap() == expected);
    decode(&decoder, "x.gz", &[&two[..], &[0; 70_000], b"x"].concat()).unwrap_err();
}

#[test]
fn an_error_of_the_store_has_its_error_kind_and_never_looks_like_the_end() {
    struct Failing(Vec<u8>, ErrorKind);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(StorageError::new(self.1, "vol1.gpg", "the network is down").into_io());
            }
            let n = self.0.len().min(buf.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0.drain(..n);
            Ok(n)
        }
    }
    let (home, plain) = (Home::new(), payload(200_000));
    let stored = home.symmetric(PASSPHRASE, &FAST, &plain);
    let decoder = decoder(&[], &[PASSPHRASE]);
    for (at, kind) in [(0, ErrorKind::Denied), (30_000, ErrorKind::Timeout), (stored.len(), ErrorKind::Archived)] {
        let error =
            match decoder.open("vol1.gpg", Box::new(Failing(stored[..at].to_vec(), kind)), &DecodeLimits::default()) {
                Ok(mut reader) => reader.read_to_end(&mut Vec::new()).unwrap_err(),
                Err(error) => error.into_io(),
            };
        assert_eq!(error_kind(&error), kind);
        assert!(error.to_string().contains("the network is down"), "{error}");
    }
}
