//! The codec: output of gpg is decoded, and damage is detected. The tests share a gpg home that ends its agent, and a
//! decoding function that checks the guarantees at the end of a stream.

mod damage;
mod gpg;
mod session_keys;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dupfs_read::codec::{CodecError, DecodeLimits, DecodeOptions, Decoder, KeyOptions, Keys, Secret};

pub const KEY_PASSPHRASE: &str = "key passphrase";

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub fn key(name: &str) -> PathBuf {
    fixtures().join("keys").join(name)
}

pub fn sample(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join("codec").join(name)).unwrap()
}

/// A separate gpg home; the agent that gpg may have started in it is ended with it.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("dupfs-gpg-").tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn import(&self, name: &str) -> &Self {
        self.gpg(&["--import", key(name).to_str().unwrap()], b"");
        self
    }

    /// Runs gpg as duplicity does, with its input from a pipe. Returns its output.
    pub fn gpg(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub fn run(&self, args: &[&str], input: &[u8]) -> std::process::Output {
        let mut child = Command::new("gpg")
            .args(["--batch", "--no-tty", "--quiet", "--trust-model", "always", "--homedir"])
            .arg(self.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need gpg 2.2 or newer");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        output
    }

    /// `plain` encrypted with `passphrase` and more options.
    pub fn symmetric(&self, passphrase: &str, args: &[&str], plain: &[u8]) -> Vec<u8> {
        let input = [passphrase.as_bytes(), b"\n", plain].concat();
        let fixed = ["--pinentry-mode", "loopback", "--passphrase-fd", "0"];
        self.gpg(&[&fixed[..], args, &["-c"]].concat(), &input)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.path()).args(["--kill", "all"]).status();
    }
}

/// Text that compresses, followed by bytes that do not.
pub fn payload(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..len)
        .map(|i| {
            if i < len / 2 {
                return b"line of text, numbered \n"[i % 24] + u8::from(i % 97 == 0);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

pub fn options(keys: &[&str], passphrases: &[&str]) -> KeyOptions {
    KeyOptions {
        secret_keys: keys.iter().map(|name| key(name)).collect(),
        passphrases: passphrases.iter().map(|p| Secret::new(*p)).collect(),
        ..KeyOptions::default()
    }
}

pub fn decoder(keys: &[&str], passphrases: &[&str]) -> Decoder {
    Decoder::new(Keys::load(options(keys, passphrases)).unwrap(), DecodeOptions::default())
}

pub fn tolerant(keys: &[&str], passphrases: &[&str]) -> Decoder {
    let options_ = DecodeOptions { allow_unauthenticated: true, ..DecodeOptions::default() };
    Decoder::new(Keys::load(options(keys, passphrases)).unwrap(), options_)
}

/// Returns its bytes a few at a time, and records the number of bytes read and whether the end was reached.
pub struct Trickle<'a> {
    pub bytes: &'a [u8],
    pub step: usize,
    pub ended: Arc<AtomicUsize>,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.len().min(buf.len()).min(self.step);
        buf[..n].copy_from_slice(&self.bytes[..n]);
        self.bytes = &self.bytes[n..];
        if n == 0 && !buf.is_empty() {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        Ok(n)
    }
}

/// Decodes `bytes`. Returns the bytes read before the end or the error, and that error.
pub fn decode_partly(decoder: &Decoder, object: &str, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), CodecError>) {
    let (out, outcome) = decode_by_one(decoder, object, bytes, step);
    let mut by_two = Vec::new();
    let opened =
        decoder.open_threaded(object, Box::new(std::io::Cursor::new(bytes.to_vec())), &DecodeLimits::default());
    let end = opened.map_err(CodecError::into_io).and_then(|mut plain| plain.read_to_end(&mut by_two));
    assert!(out == by_two, "{object}: two threads give other bytes than one");
    assert_eq!(outcome.is_ok(), end.is_ok(), "{object}: {outcome:?} by one thread, {end:?} by two");
    (out, outcome)
}

fn decode_by_one(decoder: &Decoder, object: &str, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), CodecError>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let mut out = Vec::new();
    let mut reader =
        match decoder.open(object, Box::new(Trickle { bytes, step, ended: ended.clone() }), &DecodeLimits::default()) {
            Ok(reader) => reader,
            Err(error) => return (out, Err(error)),
        };
    match reader.read_to_end(&mut out) {
        Ok(_) => {
            assert!(ended.load(Ordering::Relaxed) > 0, "{object}: a clean end before the stored object's end");
            assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0);
            (out, Ok(()))
        }
        Err(error) => {
            reader.read(&mut [0; 9]).expect_err("a reader that failed must fail permanently");
            (out, Err(CodecError::from_io(&object.into(), &error)))
        }
    }
}

pub fn decode(decoder: &Decoder, object: &str, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    let (out, outcome) = decode_partly(decoder, object, bytes, usize::MAX);
    outcome.map(|()| out)
}
