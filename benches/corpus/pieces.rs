//! Objects that are made of pieces of compressed data. A piece that is used repeatedly is compressed once, so gigabytes
//! are written in seconds.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::{Compress, Compression, FlushCompress};
use sequoia_openpgp::Cert;
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::stream::{Encryptor, Message};
use sequoia_openpgp::types::SymmetricAlgorithm;

/// Literal data of indeterminate length, in front of its content.
const LITERAL: &[u8] = &[0xaf, b'b', 0, 0, 0, 0, 0];
/// A compressed packet of indeterminate length with raw deflate.
const COMPRESSED: &[u8] = &[0xa3, 1];
/// The last block of a deflate stream, empty.
const LAST_BLOCK: &[u8] = &[3, 0];

static POLICY: StandardPolicy<'static> = StandardPolicy::new();

/// Compressed data that can follow any other piece.
#[derive(Clone)]
pub(crate) struct Piece {
    deflated: Vec<u8>,
    length: usize,
}

/// Makes pieces.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new(level: Compression) -> Self {
        Self(Compress::new(level, false))
    }

    pub(crate) fn piece(&mut self, plain: &[u8]) -> Piece {
        let mut deflated = Vec::with_capacity(plain.len() + 1024);
        self.0.compress_vec(plain, &mut deflated, FlushCompress::Full).unwrap();
        deflated.shrink_to_fit();
        Piece { deflated, length: plain.len() }
    }
}

/// An encrypted object that is being written.
pub(crate) struct PieceSink {
    path: PathBuf,
    message: Message<'static>,
    /// Bytes of plaintext.
    pub(crate) length: u64,
}

impl PieceSink {
    /// The object at `path`, encrypted to `cert`.
    pub(crate) fn open(path: &Path, cert: &'static Cert, deflater: &mut Deflater) -> Self {
        let keys = cert.keys().with_policy(&POLICY, None).supported().for_transport_encryption();
        let file = std::io::BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
        let message = Encryptor::for_recipients(Message::new(file), keys);
        let mut message = message.symmetric_algo(SymmetricAlgorithm::AES256).build().unwrap();
        message.write_all(COMPRESSED).unwrap();
        message.write_all(&deflater.piece(LITERAL).deflated).unwrap();
        Self { path: path.to_owned(), message, length: 0 }
    }

    pub(crate) fn push(&mut self, piece: &Piece) {
        self.message.write_all(&piece.deflated).unwrap();
        self.length += piece.length as u64;
    }

    /// Ends the object.
    pub(crate) fn finish(mut self) -> PathBuf {
        self.message.write_all(LAST_BLOCK).unwrap();
        self.message.finalize().unwrap();
        self.path
    }
}
