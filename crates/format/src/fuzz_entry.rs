//! What the fuzz targets run, as plain functions: each takes any bytes and asserts what must hold for all of them. The
//! targets in `fuzz/` call them, and so do the mutation tests.

use super::FormatError;
use super::delta::{self, Step};
use super::difftar;
use super::manifest::{Manifest, ManifestParser, Part};
use super::name;
use super::sigtar::{SigEntry, SigtarReader, SigtarSink};
use super::tar::{TarEntry, TarLimits, TarSink, TarWalker};
use super::timespec;
use crate::{ArchivePath, BackupTime};

/// Names: what is accepted puts together again, and a known prefix gives the same as a found one.
pub fn fuzz_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(found) = name::parse_name(&text) else { return };
    assert!(text.starts_with(&found.prefix), "a prefix is not at the name's front");
    assert_eq!(name::parse_name_with(&text, &found.prefix).as_ref(), Some(&found), "a prefix changes the answer");
}

/// Manifests: chunking changes nothing, and each volume's end is found in that volume or one before it.
pub fn fuzz_manifest(data: &[u8]) {
    let whole = Manifest::read(&mut { data });
    let mut parser = ManifestParser::new();
    let pieces = data.iter().try_for_each(|b| parser.feed(std::slice::from_ref(b))).and_then(|()| parser.finish());
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "chunking changes a manifest");
    let Ok(manifest) = whole else { return };
    for volume in &manifest.volumes {
        let part = volume.end.1.map_or(Part::Last, Part::Number);
        let found = manifest.volume_of(&volume.end.0, part);
        assert!(found.is_some_and(|found| found <= volume.number), "a volume's end is behind it");
    }
    assert!(manifest.missing_volumes().take(1000).all(|number| manifest.volume(number).is_none()));
}

/// Tar streams: chunking changes neither what is told nor the error; data lies where it is said to.
pub fn fuzz_tar(data: &[u8]) {
    let walk = |step: usize, sparse: bool| {
        let limits = TarLimits { extension: 4096, sparse };
        let (mut walker, mut log) = (TarWalker::new(limits), TarLog { stream: data, ..TarLog::default() });
        let fed = data.chunks(step.max(1)).try_for_each(|chunk| walker.feed(chunk, &mut log));
        let end = fed.and_then(|()| walker.finish());
        (log.entries, format!("{end:?}"), walker.offset())
    };
    for sparse in [false, true] {
        let whole = walk(data.len(), sparse);
        for step in [1, 7, 511, 512, 513] {
            assert_eq!(walk(step, sparse), whole, "chunks of {step} bytes change a tar stream");
        }
    }
}

/// Signature archives: chunking changes nothing.
pub fn fuzz_sigtar(data: &[u8]) {
    let read = |step: usize| {
        let (mut reader, mut log) =
            (SigtarReader::new(TarLimits { extension: 4096, ..TarLimits::default() }), SigLog::default());
        let fed = data.chunks(step.max(1)).try_for_each(|chunk| reader.feed(chunk, &mut log));
        let end = fed.and_then(|()| reader.finish());
        (log.entries, log.problems, format!("{end:?}"))
    };
    let whole = read(data.len());
    for step in [1, 13, 512] {
        assert_eq!(read(step), whole, "chunks of {step} bytes change a signature archive");
    }
}

/// Names in volumes: a path that was understood is one, and so are its mangled forms.
pub fn fuzz_difftar(data: &[u8]) {
    let Ok(member) = difftar::parse_member(data) else { return };
    assert_eq!(ArchivePath::parse(member.path.as_bytes()).as_ref(), Ok(&member.path));
    for form in difftar::mangled_forms(&member.path) {
        assert_ne!(*form, *member.path.as_bytes());
        assert!(ArchivePath::parse(&form).is_ok(), "a mangled form is no path");
    }
}

/// Deltas: commands are within their headers' bounds, and are the same whether or not more bytes follow.
pub fn fuzz_delta(data: &[u8]) {
    let mut rest = data;
    // The walk of a whole delta: literals are skipped as far as they are there.
    while let Ok(step) = delta::parse_op(rest) {
        let (header_len, literal) = match step {
            Step::NeedMore => {
                assert!(rest.len() < delta::MAX_OP_LEN, "a command is longer than any can be");
                break;
            }
            Step::End => break,
            Step::Literal { header_len, len } => (header_len, len),
            Step::Copy { header_len, offset, len } => {
                assert!(offset.checked_add(len).is_some(), "a copy overflows");
                (header_len, 0)
            }
        };
        let (head, tail) = rest.split_at_checked(header_len).unwrap_or((rest, &[]));
        assert_eq!(delta::parse_op(head).ok(), Some(step), "bytes behind a command change it");
        let cut = head.split_last().map_or(head, |(_, cut)| cut);
        assert_eq!(delta::parse_op(cut).ok(), Some(Step::NeedMore), "a part of a command is one");
        let skip = usize::try_from(literal).unwrap_or(usize::MAX);
        rest = tail.get(skip..).unwrap_or(&[]);
    }
}

/// Time strings: nothing overflows.
pub fn fuzz_timespec(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (now, offset) in [(i64::MIN, i32::MIN), (1_720_000_000, 3600), (i64::MAX, i32::MAX)] {
        if let Err(error) = timespec::parse_time(&text, BackupTime(now), offset) {
            assert!(!error.to_string().contains('\n'), "an error has more than one line");
        }
    }
    if timespec::is_suspicious_epoch(&text) {
        assert!(timespec::parse_time(&text, BackupTime(0), 0).is_ok(), "a suspicious epoch is none");
    }
}

/// What a tar walk told, and the stream to compare it with.
#[derive(Default)]
struct TarLog<'a> {
    stream: &'a [u8],
    entries: Vec<(String, u64, Vec<u8>, bool)>,
}

impl TarSink for TarLog<'_> {
    fn entry(&mut self, header: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        assert!(self.entries.last().is_none_or(|entry| entry.3), "an entry begins within another");
        assert!(header.header_offset < data_offset, "an entry's data is not behind its header");
        let told = format!("{header:?} {:?}", header.meta().ok());
        self.entries.push((told, data_offset, Vec::new(), false));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        assert!(!bytes.is_empty(), "an empty piece of data");
        if let Some((_, _, data, _)) = self.entries.last_mut() {
            data.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormatError> {
        if let Some((_, offset, data, ended)) = self.entries.last_mut() {
            let start = usize::try_from(*offset).unwrap_or(usize::MAX);
            let there = self.stream.get(start..).and_then(|tail| tail.get(..data.len()));
            assert!(data.is_empty() || there == Some(data), "data is not where it is said to be");
            *ended = true;
        }
        Ok(())
    }
}

/// What a signature archive told.
#[derive(Default)]
struct SigLog {
    entries: Vec<SigEntry>,
    problems: Vec<String>,
}

impl SigtarSink for SigLog {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        if let Some(bounds) = entry.bounds {
            assert!(bounds.contains(bounds.min) && bounds.contains(bounds.max), "bounds are the wrong way round");
        }
        self.entries.push(entry);
        Ok(())
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        self.problems.push(problem.to_string());
        Ok(())
    }
}
