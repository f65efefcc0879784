//! Parts of backups that no honest program writes: compressed data in pieces, and OpenPGP messages that need only the
//! public key.

use std::io::Write as _;
use std::sync::Arc;

use flate2::{Compress, Compression, Crc, FlushCompress};
use sequoia_openpgp::Cert;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{Encryptor, Message};
use sequoia_openpgp::types::SymmetricAlgorithm;
use sha1::{Digest, Sha1};

use crate::support::{exec, fixtures};

/// The signature of a file with the content "hello\n".
pub const SIGNATURE: &[u8] = b"rs\x016\0\0\x02\0\0\0\0\x08\x0a\xd0\x02\xd8\x63\x48\x1c\x78\xae\x04\xc2\x01";

/// The SHA-1 hash of `bytes` in hexadecimal.
pub fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The packets `inner`, encrypted to the public key of the fixtures.
pub fn encrypt(inner: &[u8]) -> Vec<u8> {
    let cert = Cert::from_file(fixtures::path("keys/rsa.public.asc")).unwrap();
    let policy = StandardPolicy::new();
    let keys = cert.keys().with_policy(&policy, None).supported().for_transport_encryption();
    let mut out = Vec::new();
    let message = Encryptor::for_recipients(Message::new(&mut out), keys);
    let mut message = message.symmetric_algo(SymmetricAlgorithm::AES256).build().unwrap();
    message.write_all(inner).unwrap();
    message.finalize().unwrap();
    out
}

/// Literal data of indeterminate length.
pub fn literal(plain: &[u8]) -> Vec<u8> {
    [&[0xaf][..], b"b\0\0\0\0\0", plain].concat()
}

/// Raw deflate of `plain` that ends at a byte and can be repeated.
pub fn deflate_piece(plain: &[u8]) -> Vec<u8> {
    deflate_at(Compression::best(), plain)
}

fn deflate_at(level: Compression, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + 1024);
    Compress::new(level, false).compress_vec(plain, &mut out, FlushCompress::Full).unwrap();
    out
}

/// Runs a command. Returns its exit code, standard output and standard error.
pub fn outcome(dupfs: &exec::Dupfs, command: &str, operands: &[&str]) -> (Option<i32>, String, String) {
    let output = exec::output(dupfs.command(command).args(operands));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A part of compressed data. Used repeatedly it is compressed once.
#[derive(Clone)]
pub struct DeflatedPiece {
    deflated: Arc<[u8]>,
    crc: Arc<Crc>,
}

impl DeflatedPiece {
    /// Compresses `plain`.
    pub fn new(plain: &[u8]) -> Self {
        Self::at(Compression::best(), plain)
    }

    /// Compresses `plain` quickly, for gigabytes that have no repeated piece.
    pub fn fast(plain: &[u8]) -> Self {
        Self::at(Compression::fast(), plain)
    }

    fn at(level: Compression, plain: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(plain);
        Self { deflated: deflate_at(level, plain).into(), crc: Arc::new(crc) }
    }
}

/// Compressed data that is made of pieces: gigabytes in milliseconds.
pub struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

impl Deflated {
    /// Data that begins with `plain`.
    pub fn new(plain: &[u8]) -> Self {
        let mut this = Self { bytes: Vec::new(), crc: Crc::new() };
        this.put(plain);
        this
    }

    /// Appends `plain`.
    pub fn put(&mut self, plain: &[u8]) {
        self.push(&DeflatedPiece::new(plain));
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: &DeflatedPiece) {
        self.bytes.extend_from_slice(&piece.deflated);
        self.crc.combine(&piece.crc);
    }

    /// The data as a gzip file.
    pub fn gzip(&self) -> Vec<u8> {
        let trailer = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat();
        [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &self.bytes, b"\x03\0", &trailer].concat()
    }

    /// The data as an encrypted message to the public key of the fixtures.
    pub fn encrypted(&self) -> Vec<u8> {
        let head = deflate_piece(&literal(b""));
        encrypt(&[&[0xa3, 1][..], &head, &self.bytes, b"\x03\0"].concat())
    }
}
