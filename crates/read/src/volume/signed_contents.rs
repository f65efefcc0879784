//! The signatures of all files of one set, as digests that prove a content without reading the signature archive again.

use std::fmt;

use aws_lc_rs::digest::{Context as DigestContext, SHA256};
use dupfs_format::sigtar::{self, SIG_HEADER_LEN, SigChange};
use dupfs_format::tar::{TarEntry, TarSink};
use dupfs_format::{ArchivePath, FormatError};

use super::block_sums::BlockSums;

/// A digest of 128 bits. It comes from the signature archive itself, so a collision gives an attacker nothing.
type ShortDigest = [u8; 16];

/// The content of a file as its set signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedContent {
    sums: BlockSums,
    digest: ShortDigest,
}

/// The signed contents of the files of one set.
#[derive(Debug, Default)]
pub(super) struct SignedContents {
    /// By the digests of the paths, in order.
    by_path: Vec<(ShortDigest, SignedContent)>,
}

/// Computes the signature of a content, to compare it with the signed one.
#[derive(Debug)]
pub struct ContentProof {
    signed: SignedContent,
    digest: SignatureDigest,
}

impl SignedContents {
    /// The signed content of `path`, if the set has a signature of it.
    pub(super) fn get(&self, path: &ArchivePath) -> Option<SignedContent> {
        let key = short_digest(path.as_bytes());
        let at = self.by_path.binary_search_by_key(&key, |(path, _)| *path).ok()?;
        self.by_path.get(at).map(|(_, content)| *content)
    }
}

impl SignedContent {
    /// Bytes of a block.
    pub fn block_len(&self) -> u64 {
        self.sums.block_len() as u64
    }

    /// Returns true if the content is that of `other`, and false if it is not, by the sums of their blocks. `None` if the two
    /// were signed with blocks of different lengths, which says nothing about contents of the same size.
    pub fn is_same_as(&self, other: &Self) -> Option<bool> {
        (self.sums == other.sums).then(|| self.digest == other.digest)
    }

    /// Begins the proof of a content.
    pub fn begin_proof(self) -> ContentProof {
        let mut digest = SignatureDigest::default();
        digest.update(&self.sums.header());
        ContentProof { signed: self, digest }
    }
}

impl ContentProof {
    /// Takes the next bytes: whole blocks, and only the last one may be shorter.
    pub fn take(&mut self, bytes: &[u8]) {
        let sums = self.signed.sums;
        for block in bytes.chunks(sums.block_len().max(1)) {
            self.digest.update(&sums.of(block));
        }
    }

    /// Returns true if the bytes taken are the content that was signed.
    pub fn holds(self) -> bool {
        self.digest.finish() == self.signed.digest
    }
}

/// A SHA-256 of the bytes of a signature.
struct SignatureDigest(DigestContext);

impl fmt::Debug for SignatureDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureDigest").finish_non_exhaustive()
    }
}

impl Default for SignatureDigest {
    fn default() -> Self {
        Self(DigestContext::new(&SHA256))
    }
}

impl SignatureDigest {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> ShortDigest {
        self.0.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

fn short_digest(bytes: &[u8]) -> ShortDigest {
    let mut digest = SignatureDigest::default();
    digest.update(bytes);
    digest.finish()
}

/// Collects the signed contents while the signature archive is read. The result counts only once the archive was
/// verified to its end.
#[derive(Debug, Default)]
pub(super) struct SignedContentsBuilder {
    by_path: Vec<(ShortDigest, SignedContent)>,
    current: Option<CurrentSignature>,
}

/// The signature that is being read.
#[derive(Debug)]
struct CurrentSignature {
    path: ShortDigest,
    head: Vec<u8>,
    digest: SignatureDigest,
}

impl SignedContentsBuilder {
    /// The contents. Of several signatures of one path the last one counts.
    pub(super) fn finish(self) -> SignedContents {
        let mut by_path = self.by_path;
        by_path.reverse();
        by_path.sort_by_key(|(path, _)| *path);
        by_path.dedup_by_key(|(path, _)| *path);
        by_path.shrink_to_fit();
        SignedContents { by_path }
    }
}

impl TarSink for SignedContentsBuilder {
    fn entry(&mut self, entry: &TarEntry<'_>, _: u64) -> Result<(), FormatError> {
        let (change, path) = sigtar::parse_entry_name(entry.path).map_err(|e| e.at(entry.header_offset))?;
        self.current = (change == SigChange::Signature).then(|| CurrentSignature {
            path: short_digest(path.as_bytes()),
            head: Vec::with_capacity(SIG_HEADER_LEN),
            digest: SignatureDigest::default(),
        });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        if let Some(current) = &mut self.current {
            let missing = SIG_HEADER_LEN.saturating_sub(current.head.len());
            current.head.extend_from_slice(bytes.get(..missing.min(bytes.len())).unwrap_or(&[]));
            current.digest.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if let Some(sums) = current.head.first_chunk().and_then(BlockSums::parse) {
            let digest = current.digest.finish();
            self.by_path.push((current.path, SignedContent { sums, digest }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dupfs_format::tar::{TarLimits, TarParser};
    use dupfs_test_tar::put_entry;

    use super::super::block_sums::tests::HELLO;
    use super::*;

    fn contents(entries: &[(&str, &[u8])]) -> SignedContents {
        let mut archive = Vec::new();
        entries.iter().for_each(|(name, data)| put_entry(&mut archive, name.as_bytes(), b'0', data));
        archive.extend([0; 1024]);
        let mut builder = SignedContentsBuilder::default();
        let mut parser = TarParser::new(TarLimits::default());
        archive.chunks(7).for_each(|chunk| parser.feed(chunk, &mut builder).unwrap());
        parser.finish().unwrap();
        builder.finish()
    }

    #[test]
    fn only_the_signed_content_is_proved() {
        let unknown = [b"rs\x017", &HELLO[4..]].concat();
        let empty = &HELLO[..12];
        let contents = contents(&[
            ("signature/a/b", HELLO),
            ("signature/e", empty),
            ("signature/other", &unknown),
            ("snapshot/dir", b""),
            ("signature/cut", &HELLO[..5]),
        ]);
        let holds = |path: &str, pieces: &[&[u8]]| {
            let mut proof = contents.get(&ArchivePath::parse(path.as_bytes()).unwrap())?.begin_proof();
            pieces.iter().for_each(|piece| proof.take(piece));
            Some(proof.holds())
        };
        assert_eq!(holds("a/b", &[b"hello\n"]), Some(true));
        for other in [&b"hello"[..], b"hellp\n", b"hello\n\0", b"", &[b'h'; 600]] {
            assert_eq!(holds("a/b", &[other]), Some(false), "{other:?}");
        }
        assert_eq!((holds("e", &[]), holds("e", &[b"x"])), (Some(true), Some(false)));
        for path in ["other", "dir", "cut", "none"] {
            assert_eq!(holds(path, &[b"hello\n"]), None, "{path}");
        }
    }

    #[test]
    fn the_last_of_several_signatures_of_a_path_counts() {
        let empty = &HELLO[..12];
        let contents = contents(&[("signature/a", empty), ("signature/b", empty), ("signature/a", HELLO)]);
        let holds = |path: &str, bytes: &[u8]| {
            let mut proof = contents.get(&ArchivePath::parse(path.as_bytes()).unwrap()).unwrap().begin_proof();
            proof.take(bytes);
            proof.holds()
        };
        assert!(holds("a", b"hello\n") && holds("b", b"") && !holds("a", b""));
    }

    #[test]
    fn contents_are_compared_by_their_sums() {
        let mut changed = HELLO.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        let mut longer_blocks = HELLO.to_vec();
        longer_blocks[6] = 4;
        let contents = contents(&[
            ("signature/a", HELLO),
            ("signature/b", HELLO),
            ("signature/changed", &changed),
            ("signature/longer-blocks", &longer_blocks),
        ]);
        let of = |path: &str| contents.get(&ArchivePath::parse(path.as_bytes()).unwrap()).unwrap();
        assert_eq!(of("a").is_same_as(&of("b")), Some(true));
        assert_eq!(of("a").is_same_as(&of("changed")), Some(false));
        assert_eq!(of("a").is_same_as(&of("longer-blocks")), None);
    }
}
