//! Writers of objects: through gzip, or through the user's gpg to a key.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest, Sha1};

#[derive(Clone)]
pub(crate) enum Packing {
    Gzip,
    /// The recipient's fingerprint.
    Gpg(String),
}

impl Packing {
    pub(crate) fn suffix(&self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Gpg(_) => ".gpg",
        }
    }

    /// With gzip, duplicity stores manifests uncompressed.
    pub(crate) fn manifest_suffix(&self) -> &'static str {
        match self {
            Self::Gzip => "",
            Self::Gpg(_) => ".gpg",
        }
    }
}

enum Through {
    Plain(File),
    Gzip(Box<GzEncoder<File>>),
    Gpg(Child),
}

/// An object being written.
pub(crate) struct Sink {
    path: PathBuf,
    through: Through,
    pub(crate) length: u64,
}

impl Sink {
    pub(crate) fn open(path: &Path, packing: &Packing) -> Self {
        let through = match packing {
            Packing::Gzip => {
                Through::Gzip(Box::new(GzEncoder::new(File::create(path).unwrap(), Compression::default())))
            }
            Packing::Gpg(recipient) => {
                let mut gpg = Command::new("gpg");
                gpg.args(["--batch", "--quiet", "--no-tty", "--yes", "--trust-model", "always", "--encrypt"]);
                gpg.args(["--recipient", recipient, "--output"]).arg(path).stdin(Stdio::piped());
                Through::Gpg(gpg.spawn().expect("gpg could not be run"))
            }
        };
        Self { path: path.to_owned(), through, length: 0 }
    }

    pub(crate) fn plain(path: &Path) -> Self {
        Self { path: path.to_owned(), through: Through::Plain(File::create(path).unwrap()), length: 0 }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let out: &mut dyn Write = match &mut self.through {
            Through::Plain(file) => file,
            Through::Gzip(encoder) => encoder,
            Through::Gpg(child) => child.stdin.as_mut().unwrap(),
        };
        out.write_all(bytes).unwrap();
        self.length += bytes.len() as u64;
    }

    /// Ends the object.
    pub(crate) fn finish(self) -> PathBuf {
        match self.through {
            Through::Plain(_) => {}
            Through::Gzip(encoder) => drop(encoder.finish().unwrap()),
            Through::Gpg(mut child) => {
                drop(child.stdin.take());
                assert!(child.wait().unwrap().success(), "gpg could not encrypt {}", self.path.display());
            }
        }
        self.path
    }
}

/// Returns the hash of a stored volume for its manifest.
pub(crate) fn sha1(path: &Path) -> String {
    Sha1::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}
