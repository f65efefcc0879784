//! Tests of the limits of decoding: objects that are crafted to keep a reader busy are errors, and dense backups are not.

use std::io::{self, Cursor, Read, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use dupfs_base::{CancelToken, ErrorKind, RequestContext};
use flate2::{Compress, Compression, FlushCompress};

use super::message_reader::MessageReader;
use super::object_context::ObjectContext;
use super::packet_header::tag;
use super::written_time::WrittenTimeRule;
use super::*;

/// Far longer than any step takes.
const PLENTY: Duration = Duration::from_secs(60);

/// A compressed packet of indeterminate length, as gpg writes it.
fn compressed(algorithm: u8, stream: &[u8]) -> Vec<u8> {
    [&[0xa3, algorithm][..], stream].concat()
}

/// Literal data of indeterminate length.
fn literal(plain: &[u8]) -> Vec<u8> {
    [&[0xaf][..], b"b\0\0\0\0\0", plain].concat()
}

/// Raw deflate of `plain` that ends at a byte and can be repeated.
fn deflate_piece(plain: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(plain.len() + 1024);
    state.compress_vec(plain, &mut out, FlushCompress::Full).unwrap();
    assert_eq!(state.total_in(), plain.len() as u64);
    out
}

/// `levels` compressed packets around a literal packet. Each of them repeats a piece of the one within it.
fn nested_bomb(levels: u32) -> Vec<u8> {
    let (mut start, mut unit) = (literal(b"begin"), vec![0; 1 << 20]);
    for _ in 0..levels {
        start = compressed(1, &deflate_piece(&start));
        let pieces = (1 << 20) / unit.len();
        unit = deflate_piece(&unit.repeat(pieces.max(1)));
    }
    [start, unit.repeat(100)].concat()
}

fn bzip2(plain: impl Read) -> Vec<u8> {
    let mut out = Vec::new();
    bzip2::read::BzEncoder::new(plain, bzip2::Compression::best()).read_to_end(&mut out).unwrap();
    out
}

/// Reads `message` to its end, and counts the plaintext.
fn drain(message: Vec<u8>, limits: &DecodeLimits) -> io::Result<u64> {
    let ctx = ObjectContext::with_limits("x".into(), limits);
    let source = layer::stored_bytes(&ctx, Box::new(Cursor::new(message)));
    io::copy(
        &mut MessageReader::new(
            &ctx,
            source,
            None,
            WrittenTimeRule { times: std::sync::Arc::default(), refuses: true },
        ),
        &mut io::sink(),
    )
}

fn small_limits() -> DecodeLimits {
    DecodeLimits::new(&RequestContext::unlimited(), ExpansionLimit { base: 1 << 20, ratio: 1100 }, None)
}

#[test]
fn nested_bombs_end_at_the_second_layer() {
    for levels in 2..5 {
        let (message, limits) = (nested_bomb(levels), DecodeLimits::default());
        assert!(message.len() < 2 << 20, "{}", message.len());
        let error = drain(message, &limits).unwrap_err();
        assert_eq!(error_kind(&error), ErrorKind::Corrupt);
        assert!(error.to_string().contains("compressed data within compressed data"), "{error}");
        assert!(limits.expanded() < 1 << 20, "{levels} levels: {} bytes were decompressed", limits.expanded());
    }
}

#[test]
fn output_beyond_the_greatest_possible_expansion_exceeds_the_limit() {
    let plain = io::repeat(0).take(30 << 20);
    let message = compressed(3, &bzip2(Cursor::new(literal(b"")).chain(plain)));
    let limits = small_limits();
    let error = drain(message.clone(), &limits).unwrap_err();
    assert_eq!(error_kind(&error), ErrorKind::Corrupt);
    let expected = format!("x: over the limit: {} stored bytes decompress to more than ", message.len());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(limits.is_exceeded() && limits.expanded() < 2 << 20, "{}", limits.expanded());
    // One layer of deflate cannot exceed the ratio.
    let plain = deflate_piece(&[&literal(b"")[..], &vec![0; 30 << 20]].concat());
    let message = compressed(1, &[&plain[..], &[3, 0]].concat());
    assert_eq!(drain(message, &small_limits()).unwrap(), 30 << 20);
}

#[test]
fn packets_without_plaintext_count_against_the_limit() {
    let marker = [0xc0 | tag::MARKER, 3, b'P', b'G', b'P'];
    let markers = io::repeat(0).take(0).chain(Cursor::new(marker.repeat(2_000_000)));
    let error = drain(compressed(3, &bzip2(markers)), &small_limits()).unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}

#[test]
fn gzip_with_any_number_of_members_is_limited() {
    let decoder = Decoder::new(Keys::load(KeyOptions::default()).unwrap(), DecodeOptions::default());
    let read = |bytes: Vec<u8>, limits: &DecodeLimits| {
        let opened = decoder.open("x.gz", Box::new(Cursor::new(bytes)), limits);
        opened.map_err(CodecError::into_io).and_then(|mut plain| io::copy(&mut plain, &mut io::sink()))
    };
    let mut member = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    member.write_all(&vec![0; 1 << 20]).unwrap();
    let members = member.finish().unwrap().repeat(40);
    assert_eq!(read(members.clone(), &small_limits()).unwrap(), 40 << 20);
    let tight = DecodeLimits::new(&RequestContext::unlimited(), ExpansionLimit { base: 1 << 20, ratio: 900 }, None);
    let error = read(members, &tight).unwrap_err();
    assert!(error.to_string().contains("over the limit"), "{error}");
}

/// A gzip member that never ends, and reports when it is dropped.
struct EndlessGzip {
    piece: Cursor<Vec<u8>>,
    dropped: std::sync::mpsc::Sender<()>,
}

impl Read for EndlessGzip {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.piece.read(buf)?;
        if n == 0 {
            // After the header of the member.
            self.piece.set_position(10);
            return self.piece.read(buf);
        }
        Ok(n)
    }
}

impl Drop for EndlessGzip {
    fn drop(&mut self) {
        self.dropped.send(()).unwrap();
    }
}

#[test]
fn decoding_stops_when_its_request_ends_or_its_time_is_over() {
    let decoder = Decoder::new(Keys::load(KeyOptions::default()).unwrap(), DecodeOptions::default());
    let piece = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03", &deflate_piece(&vec![0; 1 << 20])[..]].concat();
    for threaded in [false, true] {
        let run = |limits: DecodeLimits| {
            let (dropped, source) = channel();
            let input = Box::new(EndlessGzip { piece: Cursor::new(piece.clone()), dropped });
            let opened = if threaded {
                decoder.open_threaded("x.gz", input, &limits)
            } else {
                decoder.open("x.gz", input, &limits)
            };
            let error = io::copy(&mut opened.unwrap(), &mut io::sink()).unwrap_err();
            assert!(matches!(source.recv_timeout(PLENTY), Ok(())), "the source is still read");
            assert!(matches!(source.recv_timeout(PLENTY), Err(RecvTimeoutError::Disconnected)));
            error
        };
        let token = CancelToken::new();
        let context = RequestContext::new(None, token.clone());
        let limits = DecodeLimits::new(&context, ExpansionLimit::ARCHIVE, None);
        let error = thread::scope(|scope| {
            let decoding = scope.spawn(|| run(limits.clone()));
            while limits.expanded() < 8 << 20 {
                thread::yield_now();
            }
            token.cancel();
            decoding.join().unwrap()
        });
        assert_eq!(error_kind(&error), ErrorKind::Cancelled, "{error}");
        let time = Some(Duration::from_millis(100));
        let error = run(DecodeLimits::new(&RequestContext::unlimited(), ExpansionLimit::ARCHIVE, time));
        assert_eq!(error_kind(&error), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().starts_with("x.gz: decoding it takes longer than 0 s ("), "{error}");
    }
}

#[test]
fn an_object_with_many_passphrase_packets_is_damaged() {
    let packet = |tag: u8, body: &[u8]| [&[0xc0 | tag, u8::try_from(body.len()).unwrap()][..], body].concat();
    let esk = packet(tag::SKESK, b"\x04\x09\x03\x08saltsalt\x00");
    let decoder = Decoder::new(Keys::load(KeyOptions::default()).unwrap(), DecodeOptions::default());
    let open = |count: usize| {
        let stored = [esk.repeat(count), packet(tag::SEIPD, &[1; 60])].concat();
        decoder.open("x.gpg", Box::new(Cursor::new(stored)), &DecodeLimits::default()).err().unwrap()
    };
    assert!(matches!(open(16), CodecError::NoKey { .. }));
    let error = open(17);
    assert!(matches!(error, CodecError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("more than 16 session keys for passphrases"), "{error}");
}

#[test]
fn a_search_for_the_key_ends_with_its_request() {
    let packet = |tag: u8, body: &[u8]| [&[0xc0 | tag, u8::try_from(body.len()).unwrap()][..], body].concat();
    let stored = [packet(tag::SKESK, b"\x04\x09\x03\x08saltsalt\xff"), packet(tag::SEIPD, &[1; 60])].concat();
    let passphrases = vec![Secret::new("wrong")];
    let keys = Keys::load(KeyOptions { passphrases, ..KeyOptions::default() }).unwrap();
    let decoder = Decoder::new(keys, DecodeOptions::default());
    let token = CancelToken::new();
    let limits = DecodeLimits::new(&RequestContext::new(None, token.clone()), ExpansionLimit::ARCHIVE, None);
    let open = || decoder.open("x.gpg", Box::new(Cursor::new(stored.clone())), &limits).err().unwrap();
    assert!(matches!(open(), CodecError::NoKey { .. }));
    token.cancel();
    assert!(matches!(open(), CodecError::Stopped { .. }), "an unfinished search does not prove that no key fits");
}

/// A difftar with a file of `parts` times 64 KiB of zeros, as duplicity writes it: each part has its own header.
struct ZerosDifftar {
    parts: u32,
    next: u32,
    part: Cursor<Vec<u8>>,
}

impl ZerosDifftar {
    fn new(parts: u32) -> Self {
        Self { parts, next: 1, part: Cursor::default() }
    }

    fn len(parts: u32) -> u64 {
        u64::from(parts) * (512 + 65536)
    }
}

impl Read for ZerosDifftar {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.part.read(buf)?;
        if n > 0 || self.next > self.parts {
            return Ok(n);
        }
        let mut part = vec![0; 512 + 65536];
        let name = format!("multivol_snapshot/var/lib/db/table.ibd/{}", self.next);
        part[..name.len()].copy_from_slice(name.as_bytes());
        part[100..136].copy_from_slice(b"0000644\x000000000\x000000000\x0000000200000\x00");
        part[148..156].copy_from_slice(format!("{:06o}\0 ", 9000 + self.next % 500).as_bytes());
        self.next += 1;
        self.part = Cursor::new(part);
        self.part.read(buf)
    }
}

/// Tests that need gpg: `scripts/check` skips them by the name of this module.
mod needs_gpg {
    use std::process::{Command, Stdio};

    use super::*;

    const PARTS: u32 = 1000;

    #[test]
    fn files_of_zeros_are_within_the_limit_under_every_compression_of_gpg() {
        let home = tempfile::Builder::new().prefix("dupfs-gpg-").tempdir().unwrap();
        let keys = Keys::load(KeyOptions { passphrases: vec![Secret::new("p")], ..KeyOptions::default() }).unwrap();
        let decoder = Decoder::new(keys, DecodeOptions::default());
        // The ratio alone is tested, without the bytes that any object may have.
        let expansion = ExpansionLimit { base: 1 << 20, ..ExpansionLimit::ARCHIVE };
        let mut ratios = Vec::new();
        for algorithm in ["zip", "zlib", "bzip2", "none"] {
            let mut gpg = Command::new("gpg");
            gpg.args([
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "p",
                "--s2k-count",
                "65536",
            ]);
            gpg.args(["--compress-level", "9", "--bzip2-compress-level", "9", "--compress-algo", algorithm, "-c"]);
            gpg.arg("--homedir").arg(home.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut gpg = gpg.spawn().expect("this test needs gpg 2.2 or newer");
            let mut stdin = gpg.stdin.take().unwrap();
            let writer = thread::spawn(move || io::copy(&mut ZerosDifftar::new(PARTS), &mut stdin).unwrap());
            let output = gpg.wait_with_output().unwrap();
            assert!(output.status.success());
            assert_eq!(writer.join().unwrap(), ZerosDifftar::len(PARTS));
            let stored = output.stdout.len() as u64;
            let limits = DecodeLimits::new(&RequestContext::unlimited(), expansion, None);
            let mut plain = decoder.open("x.gpg", Box::new(Cursor::new(output.stdout)), &limits).unwrap();
            assert_eq!(io::copy(&mut plain, &mut io::sink()).unwrap(), ZerosDifftar::len(PARTS), "{algorithm}");
            ratios.push(ZerosDifftar::len(PARTS) / stored);
        }
        let _ = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
        // The data is as dense as the limit allows.
        assert!(ratios[0] > 300 && ratios[1] > 300 && ratios[2] > 8000, "{ratios:?}");
    }
}
