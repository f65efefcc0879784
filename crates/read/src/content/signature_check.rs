//! Checks stored content against its signature.
//!
//! When duplicity resumes an interrupted backup it keeps the volumes already stored and signs the source as it is then
//! (FORMAT.md 2.3). The set may then hold parts of two states of a file; they are the file that was signed only if every
//! block has the sums its signature gives (a log that was appended to, a file that was merely touched).

use std::io::Read;

use crate::volume::{BlockSums, VolumeError, feed};
use dupfs_format::ArchivePath;
use dupfs_format::FormatError;
use dupfs_format::sigtar::{self, SIG_HEADER_LEN, SigChange};
use dupfs_format::tar::{TarEntry, TarLimits, TarParser, TarSink};

/// Returns the next bytes of the content: as many as requested, fewer at its end; `None` if they cannot be read.
pub(super) type NextBlock<'a> = dyn FnMut(usize) -> Option<Vec<u8>> + 'a;

/// Compares a file's content with its signature while the signature archive is read. The result counts only once the
/// archive was found intact.
pub(super) struct SignatureCheck<'a> {
    path: &'a ArchivePath,
    next_block: &'a mut NextBlock<'a>,
    within: bool,
    sums: Option<BlockSums>,
    pending: Vec<u8>,
    verdict: Option<bool>,
}

impl<'a> SignatureCheck<'a> {
    /// A proof of the content of `path`, which `next_block` gives from its start.
    pub(super) fn new(path: &'a ArchivePath, next_block: &'a mut NextBlock<'a>) -> Self {
        Self { path, next_block, within: false, sums: None, pending: Vec::new(), verdict: None }
    }

    /// Reads the plaintext of the signature archive `object`.
    ///
    /// # Errors
    /// [`VolumeError`] when it cannot be read or is no tar archive.
    pub(super) fn read(&mut self, object: &str, plain: &mut dyn Read) -> Result<(), VolumeError> {
        let mut walker = TarParser::new(TarLimits::default());
        feed(object, plain, &mut |chunk| walker.feed(chunk, self))?;
        walker.finish().map_err(|e| VolumeError::from_format(object, &e))
    }

    /// Returns true if the content is the one that was signed: every block agrees, and nothing is left over.
    pub(super) fn holds(&self) -> bool {
        self.verdict == Some(true)
    }

    fn compare(&mut self) {
        let sums = match self.sums {
            Some(sums) => sums,
            None => {
                let Some(head) = self.pending.first_chunk::<SIG_HEADER_LEN>() else { return };
                let Some(sums) = BlockSums::parse(head) else {
                    self.verdict = Some(false);
                    return;
                };
                self.pending.drain(..SIG_HEADER_LEN);
                self.sums = Some(sums);
                sums
            }
        };
        let whole = self.pending.len() / sums.sums_len() * sums.sums_len();
        let taken: Vec<u8> = self.pending.drain(..whole).collect();
        for signed in taken.chunks_exact(sums.sums_len()) {
            let block = (self.next_block)(sums.block_len()).unwrap_or_default();
            if block.is_empty() || sums.of(&block) != signed {
                self.verdict = Some(false);
                return;
            }
        }
    }
}

impl TarSink for SignatureCheck<'_> {
    fn entry(&mut self, entry: &TarEntry<'_>, _: u64) -> Result<(), FormatError> {
        self.within = self.verdict.is_none()
            && matches!(sigtar::parse_entry_name(entry.path), Ok((SigChange::Signature, path)) if path == *self.path);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        if self.within && self.verdict.is_none() {
            self.pending.extend_from_slice(bytes);
            self.compare();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        if self.within && self.verdict.is_none() {
            let nothing_left = self.pending.is_empty() && (self.next_block)(1).is_some_and(|rest| rest.is_empty());
            self.verdict = Some(self.sums.is_some() && nothing_left);
        }
        self.within = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dupfs_test_tar::put_entry;

    use super::*;
    use crate::volume::HELLO;

    fn archive(signature: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_entry(&mut out, b"signature/a/b", b'0', signature);
        out.extend([0; 1024]);
        out
    }

    fn proves(signature: &[u8], content: &[u8], path: &str, chunk: usize) -> bool {
        let path = ArchivePath::parse(path.as_bytes()).unwrap();
        let mut left = content;
        let mut next = |len: usize| {
            let (block, rest) = left.split_at(len.min(left.len()));
            left = rest;
            Some(block.to_vec())
        };
        let mut proof = SignatureCheck::new(&path, &mut next);
        let mut walker = TarParser::new(TarLimits::default());
        for piece in archive(signature).chunks(chunk) {
            walker.feed(piece, &mut proof).unwrap();
        }
        walker.finish().unwrap();
        proof.holds()
    }

    #[test]
    fn the_signed_content_is_proved_and_no_other() {
        for chunk in [1, 7, 512, 5000] {
            assert!(proves(HELLO, b"hello\n", "a/b", chunk));
            assert!(!proves(HELLO, b"hellO\n", "a/b", chunk));
            assert!(!proves(HELLO, b"hello", "a/b", chunk));
            assert!(!proves(HELLO, b"", "a/b", chunk));
            assert!(!proves(HELLO, b"hello\n", "a/c", chunk), "another path's signature proves nothing");
            let longer = [&b"hello\n"[..], &[0; 512]].concat();
            assert!(!proves(HELLO, &longer, "a/b", chunk));
        }
    }

    #[test]
    fn an_empty_signature_proves_an_empty_file() {
        assert!(proves(&HELLO[..12], b"", "a/b", 100));
        assert!(!proves(&HELLO[..12], b"x", "a/b", 100));
        assert!(!proves(&HELLO[..11], b"", "a/b", 100));
    }
}
