//! Output of real gpg in every form that duplicity's options can produce (FORMAT.md section 8) is decoded exactly,
//! and unsupported forms are refused with a helpful message.

use super::{Home, KEY_PASSPHRASE, decode, decode_partly, decoder, fixtures, key, options, payload, sample, tolerant};
use dupfs_base::{ErrorKind, HasKind};
use dupfs_read::codec::{
    CodecError, DatedName, DecodeLimits, DecodeOptions, Decoder, GpgOptions, KeyOptions, Keys, Secret, Signer,
    error_kind,
};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::{Packet, PacketPile};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PASSPHRASE: &str = "fixture passphrase";
/// Few rounds, for tests that are not about the key derivation.
const FAST: [&str; 2] = ["--s2k-count", "65536"];

fn encrypt(home: &Home, args: &[&str], recipients: &[&str], plain: &[u8]) -> Vec<u8> {
    let files: Vec<String> =
        recipients.iter().map(|name| key(&format!("{name}.public.asc")).display().to_string()).collect();
    let to = files.iter().flat_map(|file| ["--recipient-file", file.as_str()]);
    let args: Vec<&str> = args.iter().copied().chain(to).chain(["-e"]).collect();
    home.gpg(&args, plain)
}

#[test]
fn every_cipher_and_compression_with_a_passphrase() {
    let (home, plain) = (Home::new(), payload(200_000));
    let decoder = decoder(&[], &["another one", PASSPHRASE]);
    let ciphers = [
        "IDEA",
        "3DES",
        "CAST5",
        "BLOWFISH",
        "AES",
        "AES192",
        "AES256",
        "TWOFISH",
        "CAMELLIA128",
        "CAMELLIA192",
        "CAMELLIA256",
    ];
    let compressions = ["none", "zip", "zlib", "bzip2"];
    let modes = ciphers.iter().flat_map(|&cipher| ["none", "zip"].map(|compression| (cipher, compression)));
    for (cipher, compression) in modes.chain(compressions.map(|compression| ("AES256", compression))) {
        let args = [&FAST[..], &["--allow-old-cipher-algos", "--cipher-algo", cipher, "--compress-algo", compression]];
        let args: Vec<&str> = args.concat().into_iter().filter(|arg| *arg != "--allow-old-cipher-algos").collect();
        let stored = home.symmetric(PASSPHRASE, &args, &plain);
        for step in [usize::MAX, 7] {
            let (out, outcome) = decode_partly(&decoder, "x.difftar.gpg", &stored, step);
            outcome.unwrap_or_else(|e| panic!("{cipher} {compression}: {e}"));
            assert!(out == plain, "{cipher} {compression}: other bytes");
        }
    }
}

#[test]
fn sizes_around_the_buffers_and_chunks_are_decoded_completely() {
    let home = Home::new();
    let decoder = decoder(&[], &[PASSPHRASE]);
    for len in [0, 1, 511, 512, 8_150, 8_192, 16_384, 65_500, 65_506, 65_514, 65_515, 65_536, 65_537, 131_072, 196_608]
    {
        let plain = payload(len);
        let args = [&FAST[..], &["--compress-algo", "none"]].concat();
        let stored = home.symmetric(PASSPHRASE, &args, &plain);
        assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "{len} bytes");
    }
}

#[test]
fn every_way_to_derive_a_key_from_a_passphrase() {
    let (home, plain) = (Home::new(), payload(5_000));
    let decoder = decoder(&[], &[PASSPHRASE]);
    for digest in ["SHA1", "RIPEMD160", "SHA224", "SHA256", "SHA384", "SHA512"] {
        for mode in ["0", "1", "3"] {
            let args = [&FAST[..], &["--s2k-digest-algo", digest, "--s2k-mode", mode]].concat();
            let stored = home.symmetric(PASSPHRASE, &args, &plain);
            assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "{digest} {mode}");
        }
    }
    let stored = home.symmetric(PASSPHRASE, &["--s2k-count", "65011712"], &plain);
    assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "gpg's default");
}

#[test]
fn every_kind_of_key_and_each_of_several_recipients_opens_it() {
    let (home, plain) = (Home::new(), payload(100_000));
    let names = ["rsa", "cv25519", "elgamal", "nistp384"];
    for name in names {
        for extra in [&["--compress-algo", "zlib"][..], &["--armor"], &["--hidden-recipient-file"]] {
            let stored = match extra {
                ["--hidden-recipient-file"] => {
                    let file = key(&format!("{name}.public.asc"));
                    home.gpg(&["--hidden-recipient-file", file.to_str().unwrap(), "-e"], &plain)
                }
                _ => encrypt(&home, extra, &[name], &plain),
            };
            let decoder = decoder(&[&format!("{name}.secret.asc")], &["wrong", KEY_PASSPHRASE]);
            assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "{name} {extra:?}");
        }
    }
    let stored = encrypt(&home, &[], &names, &plain);
    for name in names {
        let decoder = decoder(&[&format!("{name}.secret.asc")], &[KEY_PASSPHRASE]);
        assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "{name} of several");
    }
    let hidden: Vec<String> = names.iter().map(|n| key(&format!("{n}.public.asc")).display().to_string()).collect();
    let args: Vec<&str> = hidden.iter().flat_map(|file| ["--hidden-recipient-file", file.as_str()]).collect();
    let stored = home.gpg(&[&args[..], &["-e"]].concat(), &plain);
    let decoder = decoder(&["elgamal.secret.asc", "nistp384.secret.asc"], &[]);
    assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "hidden among several, with several keys");
}

#[test]
fn a_message_to_keys_and_a_passphrase_opens_with_either() {
    let (home, plain) = (Home::new(), payload(50_000));
    let file = key("rsa.public.asc").display().to_string();
    let args = [&FAST[..], &["--recipient-file", &file, "-e"]].concat();
    let stored = home.symmetric(PASSPHRASE, &args, &plain);
    assert!(decode(&decoder(&["rsa.secret.asc"], &[]), "x.gpg", &stored).unwrap() == plain);
    assert!(decode(&decoder(&[], &["no", PASSPHRASE]), "x.gpg", &stored).unwrap() == plain);
    assert!(decode(&decoder(&["elgamal.secret.asc"], &[PASSPHRASE]), "x.gpg", &stored).unwrap() == plain);
    let error = decode(&decoder(&["elgamal.secret.asc"], &["no"]), "x.gpg", &stored).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    assert!(error.to_string().contains("B54B6D31383DE26B") && error.to_string().contains("passphrase"), "{error}");
}

#[test]
fn subkey_exports_expired_revoked_and_several_keys_open_their_messages() {
    let (home, plain) = (Home::new(), payload(10_000));
    let stored = encrypt(&home, &[], &["rsa"], &plain);
    assert!(decode(&decoder(&["rsa.subkeys.asc"], &[]), "x.gpg", &stored).unwrap() == plain);

    let old = encrypt(&home, &["--faked-system-time", "20180110T000000"], &["expired"], &plain);
    assert!(decode(&decoder(&["expired.secret.asc"], &[]), "x.gpg", &old).unwrap() == plain);

    let dir = tempfile::tempdir().unwrap();
    let both = dir.path().join("rotation.asc");
    let read = |name: &str| std::fs::read(key(name)).unwrap();
    std::fs::write(&both, [read("expired.secret.asc"), read("rsa.secret.asc")].concat()).unwrap();
    let binary = dir.path().join("rotation.gpg");
    home.import("expired.secret.asc").import("rsa.secret.asc");
    std::fs::write(&binary, home.gpg(&["--export-secret-keys"], b"")).unwrap();
    for file in [both, binary] {
        let mut keys = options(&[], &[]);
        keys.secret_keys.push(file);
        let decoder = Decoder::new(Keys::load(keys).unwrap(), DecodeOptions::default());
        assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain);
        assert!(decode(&decoder, "x.gpg", &old).unwrap() == plain);
    }
}

#[test]
fn files_without_keys_are_refused_with_a_remedy() {
    let load = |file: std::path::PathBuf| {
        let mut keys = options(&[], &[]);
        keys.secret_keys.push(file);
        Keys::load(keys).unwrap_err()
    };
    let error = load(key("rsa.public.asc"));
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    assert!(error.to_string().contains("--export-secret-keys"), "{error}");
    assert_eq!(load(key("none.asc")).kind(), ErrorKind::Invalid);
    assert!(load(fixtures().join("codec/plain.manifest")).to_string().contains("contains no secret key"));
    let cut = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(cut.path(), &std::fs::read(key("rsa.secret.asc")).unwrap()[..2000]).unwrap();
    assert_eq!(load(cut.path().into()).kind(), ErrorKind::Invalid);
}

/// Makes a key on `curve` without a passphrase; returns its exported secret part, binary.
fn key_on_curve(home: &Home, curve: &str) -> Vec<u8> {
    let unprotected = ["--pinentry-mode", "loopback", "--passphrase", ""];
    let with = |args: &[&str]| home.gpg(&[&unprotected[..], args].concat(), b"");
    with(&["--quick-gen-key", curve, curve, "cert", "never"]);
    let listed = String::from_utf8(home.gpg(&["--with-colons", "-K", curve], b"")).unwrap();
    let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    with(&["--quick-add-key", fingerprint.trim_end_matches(':'), curve, "encr", "never"]);
    with(&["--export-secret-keys", curve])
}

fn keys_in(bytes: &[u8]) -> Result<Keys, CodecError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let mut keys = options(&[], &[]);
    keys.secret_keys.push(file.path().into());
    Keys::load(keys)
}

/// The backend of the library lacks these curves. gpg supports them.
#[test]
fn keys_on_brainpool_curves_and_secp256k1_open_what_gpg_encrypts() {
    let (home, plain) = (Home::new(), payload(1_000));
    for curve in ["brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1", "secp256k1"] {
        let secret = key_on_curve(&home, curve);
        let decoder = Decoder::new(keys_in(&secret).unwrap(), DecodeOptions::default());
        for round in 0..8 {
            let extra = if round % 2 == 0 { "--no-throw-keyids" } else { "--throw-keyids" };
            let stored = home.gpg(&["-r", curve, extra, "-e"], &plain);
            assert!(decode(&decoder, "x.gpg", &stored).unwrap() == plain, "{curve} {extra}");
        }
        // The user's own gpg opens it too.
        let gpg = GpgOptions { home: Some(home.path().into()), ..GpgOptions::default() };
        let keys = Keys::load(KeyOptions { gpg: Some(gpg), ..options(&[], &[]) }).unwrap();
        let stored = home.gpg(&["-r", curve, "-e"], &plain);
        assert!(decode(&Decoder::new(keys, DecodeOptions::default()), "x.gpg", &stored).unwrap() == plain, "{curve}");
        // Another key on the same curve does not.
        let other = key_on_curve(&Home::new(), curve);
        let error = decode(&Decoder::new(keys_in(&other).unwrap(), DecodeOptions::default()), "x.gpg", &stored);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::KeyMissing, "{curve}");
    }
}

/// A key of gpg's with the object identifier of a curve that neither the library nor dupfs has (secp224r1).
#[test]
fn keys_on_curves_that_are_not_supported_are_named_and_the_backup_is_not_called_damaged() {
    const SECP256K1: &[u8] = &[5, 0x2b, 0x81, 0x04, 0x00, 0x0a];
    let (home, plain) = (Home::new(), payload(1_000));
    let mut secret = key_on_curve(&home, "secp256k1");
    let places: Vec<usize> = (0..secret.len()).filter(|&at| secret[at..].starts_with(SECP256K1)).collect();
    assert_eq!(places.len(), 2, "a primary key and a subkey");
    places.iter().for_each(|at| secret[at + 5] = 0x21);
    let error = keys_in(&secret).unwrap_err();
    let is_named = |error: &CodecError| {
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::KeyMissing, "{message}");
        assert!(message.contains("2b81040021") && message.contains("leave --secret-key out"), "{message}");
    };
    is_named(&error);
    // With other keys it is refused only when an object needs it.
    let rsa = home.gpg(&["--dearmor"], &std::fs::read(key("rsa.secret.asc")).unwrap());
    let decoder = Decoder::new(keys_in(&[&secret[..], &rsa].concat()).unwrap(), DecodeOptions::default());
    let file = key("rsa.public.asc").display().to_string();
    let mut stored = home.gpg(&["-r", "secp256k1", "-e"], &plain);
    let to_both = home.gpg(&["-r", "secp256k1", "--recipient-file", &file, "-e"], &plain);
    assert!(decode(&decoder, "x.gpg", &to_both).unwrap() == plain);
    let subkey = PacketPile::from_bytes(&secret).unwrap();
    let ids = subkey.descendants().filter_map(|packet| match packet {
        Packet::SecretSubkey(key) => Some(key.keyid()),
        _ => None,
    });
    // The header of the packet has two bytes, its version one.
    stored[3..11].copy_from_slice(ids.collect::<Vec<_>>()[0].as_bytes());
    is_named(&decode(&decoder, "x.gpg", &stored).unwrap_err());
}

#[test]
fn signed_messages_are_read_and_a_required_signature_is_enforced() {
    let (home, plain) = (Home::new(), payload(70_000));
    home.import("rsa.secret.asc").import("elgamal.secret.asc").import("nistp384.secret.asc");
    let rsa = Signer::load(&"0x99CE9E4FAD1F72F3".parse().unwrap(), &key("rsa.public.asc")).unwrap();
    let dsa = Signer::load(&"8FD8D8C2".parse().unwrap(), &key("elgamal.public.asc")).unwrap_err();
    assert!(dsa.to_string().contains("does not contain the key"), "{dsa}");
    let dsa = Signer::load(&"2FD8D8C2".parse().unwrap(), &key("elgamal.public.asc")).unwrap();
    let ecdsa = Signer::load(&"5862332113CCC6DC".parse().unwrap(), &key("nistp384.secret.asc")).unwrap();
    let require = |signer: &Signer| {
        let keys = Keys::load(options(&["rsa.secret.asc"], &[PASSPHRASE])).unwrap();
        Decoder::new(keys, DecodeOptions { require_signer: Some(signer.clone()), ..DecodeOptions::default() })
    };
    let to_rsa = ["-r", "dupfs rsa", "-e"];
    let sign = |who: &'static str| ["-s", "-u", who];
    let by_rsa = home.gpg(&[&sign("dupfs rsa")[..], &to_rsa].concat(), &plain);
    let by_dsa = home.gpg(&[&sign("dupfs elgamal")[..], &to_rsa, &["--compress-algo", "none"]].concat(), &plain);
    let by_all = [&sign("dupfs rsa")[..], &sign("dupfs elgamal"), &sign("dupfs nistp384"), &to_rsa].concat();
    let by_all = home.gpg(&by_all, &plain);
    let symmetric = home.symmetric(PASSPHRASE, &[&FAST[..], &sign("dupfs rsa")].concat(), &plain);
    let unsigned = home.gpg(&to_rsa, &plain);

    for stored in [&by_rsa, &by_dsa, &by_all, &symmetric, &unsigned] {
        assert!(decode(&decoder(&["rsa.secret.asc"], &[PASSPHRASE]), "x.gpg", stored).unwrap() == plain);
    }
    for (signer, stored) in
        [(&rsa, &by_rsa), (&rsa, &symmetric), (&dsa, &by_dsa), (&rsa, &by_all), (&dsa, &by_all), (&ecdsa, &by_all)]
    {
        assert!(decode(&require(signer), "x.gpg", stored).unwrap() == plain, "{signer:?}");
    }
    for (signer, stored) in [(&dsa, &by_rsa), (&rsa, &by_dsa), (&ecdsa, &symmetric), (&rsa, &unsigned)] {
        let error = decode(&require(signer), "x.gpg", stored).unwrap_err();
        assert!(matches!(error, CodecError::NotSigned { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    let error = decode(&require(&rsa), "x.manifest", b"Hostname vm\n").unwrap_err();
    assert!(error.to_string().contains("it is not signed"), "{error}");
}

#[test]
fn messages_that_are_older_than_their_set_are_recorded_or_refused() {
    let (home, plain) = (Home::new(), payload(70_000));
    home.import("rsa.secret.asc");
    let signer = Signer::load(&"AD1F72F3".parse().unwrap(), &key("rsa.public.asc")).unwrap();
    let set_time = dupfs_format::BackupTime(1_750_000_000);
    let at = |date: &'static str, more: &[&str]| {
        home.gpg(
            &[
                &[
                    "--faked-system-time",
                    date,
                    "--ignore-time-conflict",
                    "--ignore-valid-from",
                    "-r",
                    "dupfs rsa",
                    "-e",
                ],
                more,
            ]
            .concat(),
            &plain,
        )
    };
    let sign = ["-s", "-u", "dupfs rsa"];
    // 20250615T150640Z is the time of the set.
    for (date, is_old) in [("20250614T140000", true), ("20250614T160000", false), ("20280101T000000", false)] {
        for more in [&[][..], &["-z", "0"], &["--set-filename", "a name"], &["--textmode"]] {
            let stored = at(date, more);
            let decoder = decoder(&["rsa.secret.asc"], &[PASSPHRASE]);
            for (object, time, found) in [("a.gpg", None, false), ("b.gpg", Some(set_time), is_old)] {
                let name = DatedName { name: object, set_time: time, records_time: false };
                let mut out = Vec::new();
                decoder
                    .open(name, Box::new(&*stored), &DecodeLimits::default())
                    .unwrap()
                    .read_to_end(&mut out)
                    .unwrap();
                assert!(!out.is_empty());
                let names: Vec<_> = decoder.backdated_objects().iter().map(|found| found.object.to_string()).collect();
                assert_eq!(names, if found { vec![object] } else { vec![] }, "{date} {more:?}");
            }
        }
        let keys = Keys::load(options(&["rsa.secret.asc"], &[PASSPHRASE])).unwrap();
        let options = DecodeOptions { require_signer: Some(signer.clone()), ..DecodeOptions::default() };
        let strict = Decoder::new(keys, options);
        let signed = at(date, &sign);
        let name = DatedName { name: "x.gpg", set_time: Some(set_time), records_time: false };
        let read =
            strict.open(name, Box::new(&*signed), &DecodeLimits::default()).unwrap().read_to_end(&mut Vec::new());
        match read {
            Ok(_) => assert!(!is_old, "{date}"),
            Err(error) => {
                assert!(
                    is_old && error.to_string().contains("before the time 20250615T150640Z in its name"),
                    "{error}"
                );
                assert_eq!(error_kind(&error), ErrorKind::Corrupt);
            }
        }
    }
}

#[test]
fn objects_of_old_and_new_writers_are_read() {
    let decoder =
        decoder(&["rsa.secret.asc", "elgamal.secret.asc", "../codec/old-key.secret.asc"], &[PASSPHRASE, "old key"]);
    for name in ["gpg1-3des", "gpg1-aes128", "gpg24-ocb", "duplicity-0.6.23-sym", "duplicity-0.6.23-key"] {
        let out = decode(&decoder, "x.manifest.gpg", &sample(&format!("{name}.manifest.gpg"))).unwrap();
        assert!(out.starts_with(b"Hostname "), "{name}");
    }
    for name in ["gpg24-ocb.sigtar.gpg", "gpg22-armor-bzip2.sigtar.gpg", "duplicity-0.6.23.sigtar.gz"] {
        let out = decode(&decoder, name, &sample(name)).unwrap();
        assert!(out.len().is_multiple_of(10_240) && out.ends_with(&[0; 1024]), "{name}: {} bytes", out.len());
    }
    let text: String = (1..=6000).map(|n| format!("{n}\n")).collect();
    for name in ["gpg1-elgamal.gpg", "gpg1-v3-signature.gpg"] {
        assert!(decode(&decoder, name, &sample(name)).unwrap() == text.as_bytes(), "{name}");
    }
    let signer = Signer::load(&"AD1F72F3".parse().unwrap(), &key("rsa.public.asc")).unwrap();
    let keys = Keys::load(options(&["rsa.secret.asc"], &[])).unwrap();
    let strict = Decoder::new(
        keys,
        DecodeOptions { require_signer: Some(signer), allow_unauthenticated: true, ..DecodeOptions::default() },
    );
    assert!(decode(&strict, "x.gpg", &sample("gpg1-v3-signature.gpg")).unwrap() == text.as_bytes());
    // Its signature has no one-pass packet before the data, so it is not checked and refused.
    let error = decode(&strict, "x.gpg", &sample("gpg1-rfc1991-signed.gpg")).unwrap_err();
    assert!(matches!(error, CodecError::NotSigned { .. }), "{error}");
}

#[test]
fn data_without_an_integrity_code_is_read_only_on_request() {
    let text: String = (1..=6000).map(|n| format!("{n}\n")).collect();
    for name in [
        "gpg1-cast5-no-mdc.gpg",
        "gpg1-aes256-no-mdc-uncompressed.gpg",
        "gpg1-rsa-no-mdc.gpg",
        "gpg1-rfc1991-idea.gpg",
        "gpg1-rfc1991-cast5.gpg",
        "gpg1-rfc1991-signed.gpg",
    ] {
        let stored = sample(name);
        let error = decode(&decoder(&["rsa.secret.asc"], &[PASSPHRASE]), name, &stored).unwrap_err();
        assert!(error.to_string().contains("--allow-unauthenticated"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let out = decode(&tolerant(&["rsa.secret.asc"], &["no", PASSPHRASE]), name, &stored);
        assert!(out.unwrap_or_else(|e| panic!("{name}: {e}")) == text.as_bytes(), "{name}");
        let error = decode(&tolerant(&["elgamal.secret.asc"], &["no"]), name, &stored).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyMissing, "{error}");
    }
}

#[test]
fn the_error_names_the_missing_key_or_passphrase() {
    let (home, plain) = (Home::new(), payload(1_000));
    let to_two = encrypt(&home, &[], &["rsa", "elgamal"], &plain);
    let error = decode(&decoder(&["nistp384.secret.asc"], &["x"]), "vol1.gpg", &to_two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    let file = key("nistp384.secret.asc");
    assert_eq!(
        error.to_string(),
        format!(
            "vol1.gpg: encrypted to keys 0xB54B6D31383DE26B, 0xFE53DB66EF484C5F; {} contains 0x976732FA1578FF2D; \
             export the right one: gpg --armor --export-secret-keys 0xB54B6D31383DE26B",
            file.display()
        )
    );
    let to_locked = encrypt(&home, &[], &["cv25519"], &plain);
    let error = decode(&decoder(&["cv25519.secret.asc"], &["x"]), "vol1.gpg", &to_locked).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    assert!(error.to_string().contains("the secret key 0xC38334C677230DC2 has another passphrase"), "{error}");
    let symmetric = home.symmetric(PASSPHRASE, &FAST, &plain);
    for (passphrases, words) in [
        (&[][..], "no passphrase was given"),
        (&["x"], "the passphrase that was given is wrong"),
        (&["x", "y"], "none of the 2 passphrases"),
    ] {
        let error = decode(&decoder(&["rsa.secret.asc"], passphrases), "vol1.gpg", &symmetric).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyMissing);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_user_is_asked_until_a_passphrase_fits_and_not_for_the_next_object() {
    let (home, plain) = (Home::new(), payload(1_000));
    let objects = [
        home.symmetric(PASSPHRASE, &FAST, &plain),
        home.symmetric(PASSPHRASE, &FAST, &plain),
        encrypt(&home, &[], &["cv25519"], &plain),
    ];
    let asked = Arc::new(AtomicUsize::new(0));
    let mut keys = options(&["cv25519.secret.asc"], &["not this"]);
    let count = asked.clone();
    keys.ask = Some(Box::new(move |prompt| {
        assert!(prompt.contains("vol.gpg") || prompt.contains("0xC38334C677230DC2"), "{prompt}");
        let answers = ["nor this", PASSPHRASE, KEY_PASSPHRASE];
        answers.get(count.fetch_add(1, Ordering::Relaxed)).map(|answer| Secret::new(*answer))
    }));
    let decoder = Decoder::new(Keys::load(keys).unwrap(), DecodeOptions::default());
    for (object, questions) in objects.iter().zip([2, 2, 3]) {
        assert!(decode(&decoder, "vol.gpg", object).unwrap() == plain);
        assert_eq!(asked.load(Ordering::Relaxed), questions);
    }
    let other = home.symmetric("one more", &FAST, &plain);
    for _ in 0..2 {
        assert_eq!(decode(&decoder, "vol.gpg", &other).unwrap_err().kind(), ErrorKind::KeyMissing);
        assert_eq!(asked.load(Ordering::Relaxed), 4, "nobody is asked again after giving up");
    }
}

#[test]
fn content_that_does_not_match_the_name_is_damage() {
    let (home, plain) = (Home::new(), payload(1_000));
    let binary = home.symmetric(PASSPHRASE, &FAST, &plain);
    let armoured = home.symmetric(PASSPHRASE, &[&FAST[..], &["--armor"]].concat(), &plain);
    let gzip = {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, &plain).unwrap();
        out.finish().unwrap()
    };
    let literal = [&[0xcb, 0x07][..], b"b\0\0\0\0\0x"].concat();
    let contents: [(&str, &[u8], &[&str]); 7] = [
        ("binary", &binary, &[".gpg", ".g", ""]),
        ("armoured", &armoured, &[".gpg", ".g", ""]),
        ("gzip", &gzip, &[".gz", ".z", ""]),
        ("plain", b"Hostname vm\n", &[""]),
        ("zeros", &[0; 10_240], &[""]),
        ("literal packet", &literal, &[]),
        ("neither", b"\x01\x02\x03", &[]),
    ];
    let decoder = decoder(&[], &[PASSPHRASE]);
    for kind in ["manifest", "sigtar", "vol1.difftar", "m", "st", "1.dt"] {
        for suffix in ["", ".gpg", ".g", ".GPG", ".gz", ".z", ".Gz"] {
            let object = format!("duplicity-full.20261122T122614Z.{kind}{suffix}");
            for (what, bytes, names) in contents {
                match decode(&decoder, &object, bytes) {
                    Ok(_) => assert!(names.contains(&&*suffix.to_ascii_lowercase()), "{what} passes as {object}"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                        assert!(!names.contains(&&*suffix.to_ascii_lowercase()), "{what} as {object}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn other_forms_are_refused_by_name() {
    let decoder = decoder(&["rsa.secret.asc"], &[PASSPHRASE]);
    let refused = |object: &str, bytes: &[u8], kind: ErrorKind, words: &str| {
        let error = decode(&decoder, object, bytes).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("x.difftar.p7m", b"\x30\x80\x06\x09", ErrorKind::Unsupported, "CMS");
    refused("x.difftar", b"\x30\x82\x06\x09", ErrorKind::Unsupported, "CMS");
    refused("x.gpg", b"", ErrorKind::Corrupt, "empty");
    refused("x.sigtar.gz", b"", ErrorKind::Corrupt, "empty");
    refused("x.gpg", b"Hostname vm\n", ErrorKind::Corrupt, "does not begin as an encrypted file");
    refused("x.gz", b"Hostname vm\n", ErrorKind::Corrupt, "does not begin as a gzip file");
    refused("x.manifest", b"\x01\x02", ErrorKind::Corrupt, "not in a form that duplicity writes");
    refused("x.gpg", b"\x30\x82\x06\x09", ErrorKind::Corrupt, "does not begin as an encrypted file");
    refused("x.gpg", b"\xd2\x05\x02\x09\x02\x10\x00", ErrorKind::Unsupported, "version 2");
    let home = Home::new();
    let signed_only = home.import("rsa.secret.asc").gpg(&["-s", "-u", "dupfs rsa"], b"x");
    refused("x.gpg", &signed_only, ErrorKind::Corrupt, "not encrypted");
    assert_eq!(decode(&decoder, "x.difftar", b"").unwrap(), b"");
    assert_eq!(decode(&decoder, "x.manifest", b"Hostname vm\n").unwrap(), b"Hostname vm\n");
    assert_eq!(decode(&decoder, "x.difftar", &[0; 10_240]).unwrap(), [0; 10_240]);
}
