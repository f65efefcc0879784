//! The bodies of the fuzz targets: each function takes arbitrary bytes and asserts the invariants of a parser. The
//! targets in `fuzz/` and the mutation tests call them.

use super::FormatError;
use super::delta::{self, DeltaCommand};
use super::difftar;
use super::manifest::{Manifest, ManifestParser, PartSelector};
use super::name;
use super::sigtar::{SigEntry, SigtarParser, SigtarSink};
use super::tar::{TarEntry, TarLimits, TarParser, TarSink};
use super::timespec;
use crate::{ArchivePath, BackupTime, LastOwnerNames};
use dupfs_base::clamp_len;

/// Names: the name begins with the prefix that was found, and parsing with that prefix gives the same result.
pub fn fuzz_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(found) = name::parse_name(&text) else { return };
    assert!(text.starts_with(found.prefix), "the name does not begin with its prefix");
    assert_eq!(name::parse_name_with_prefix(&text, found.prefix), Some(found), "a known prefix changes the result");
}

/// Manifests: the size of chunks has no effect, and the end of each volume is found in that volume or an earlier one.
pub fn fuzz_manifest(data: &[u8]) {
    let whole = Manifest::read(&mut { data });
    let mut parser = ManifestParser::new();
    let pieces = data.iter().try_for_each(|b| parser.feed(std::slice::from_ref(b))).and_then(|()| parser.finish());
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "chunking changes a manifest");
    let Ok(manifest) = whole else { return };
    for volume in &manifest.volumes {
        let part = volume.end.part.map_or(PartSelector::Last, PartSelector::Number);
        let found = manifest.volume_of(&volume.end.path, part);
        assert!(found.is_some_and(|found| found <= volume.number), "the end of a volume is found in a later one");
    }
    assert!(manifest.missing_volumes().take(1000).all(|number| manifest.volume(number).is_none()));
}

/// Tar streams: the size of chunks has no effect on entries and errors, and the stated offsets of data are correct.
pub fn fuzz_tar(data: &[u8]) {
    let parse = |step: usize, allow_sparse: bool| {
        let limits = TarLimits { max_extension_len: 4096, allow_sparse };
        let (mut parser, mut log) = (TarParser::new(limits), TarLog { stream: data, ..TarLog::default() });
        let fed = data.chunks(step.max(1)).try_for_each(|chunk| parser.feed(chunk, &mut log));
        let end = fed.and_then(|()| parser.finish());
        (log.entries, format!("{end:?}"), parser.offset())
    };
    for sparse in [false, true] {
        let whole = parse(data.len(), sparse);
        for step in [1, 7, 511, 512, 513] {
            assert_eq!(parse(step, sparse), whole, "chunks of {step} bytes change a tar stream");
        }
    }
}

/// Signature archives: the size of chunks has no effect.
pub fn fuzz_sigtar(data: &[u8]) {
    let parse = |step: usize| {
        let (mut parser, mut log) =
            (SigtarParser::new(TarLimits { max_extension_len: 4096, ..TarLimits::default() }), SigLog::default());
        let fed = data.chunks(step.max(1)).try_for_each(|chunk| parser.feed(chunk, &mut log));
        let end = fed.and_then(|()| parser.finish());
        (log.entries, log.problems, format!("{end:?}"))
    };
    let whole = parse(data.len());
    for step in [1, 13, 512] {
        assert_eq!(parse(step), whole, "chunks of {step} bytes change a signature archive");
    }
}

/// Names in volumes: the parsed path is normalised, and its mangled forms are valid paths.
pub fn fuzz_difftar(data: &[u8]) {
    let Ok(entry) = difftar::parse_entry_name(data) else { return };
    assert_eq!(ArchivePath::parse(entry.path.as_bytes()).as_ref(), Ok(&entry.path));
    for form in difftar::mangled_forms(&entry.path) {
        assert_ne!(*form, *entry.path.as_bytes());
        assert!(ArchivePath::parse(&form).is_ok(), "a mangled form is not a path");
    }
}

/// Deltas: the length of a command's header is exact, and bytes after it have no effect on the command.
pub fn fuzz_delta(data: &[u8]) {
    let mut rest = data;
    // All commands of a delta in order. The content of literals is skipped as far as it exists.
    while let Ok(parsed) = delta::parse_command(rest) {
        let (header_len, literal) = match parsed {
            None => {
                assert!(rest.len() < delta::MAX_COMMAND_LEN, "a command is longer than the longest one");
                break;
            }
            Some(DeltaCommand::End) => break,
            Some(DeltaCommand::Literal { header_len, len }) => (header_len, len),
            Some(DeltaCommand::Copy { header_len, offset, len }) => {
                assert!(offset.checked_add(len).is_some(), "a copy overflows");
                (header_len, 0)
            }
        };
        let (head, tail) = rest.split_at_checked(header_len).unwrap_or((rest, &[]));
        assert_eq!(delta::parse_command(head).ok(), Some(parsed), "bytes after a command change it");
        let cut = head.split_last().map_or(head, |(_, cut)| cut);
        assert_eq!(delta::parse_command(cut).ok(), Some(None), "a truncated command is accepted");
        rest = tail.get(clamp_len(literal, tail.len())..).unwrap_or(&[]);
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
        assert!(timespec::parse_time(&text, BackupTime(0), 0).is_ok(), "a suspicious epoch is refused");
    }
}

/// The entries of a tar stream, and the stream to compare their data with.
#[derive(Default)]
struct TarLog<'a> {
    stream: &'a [u8],
    entries: Vec<(String, u64, Vec<u8>, bool)>,
}

impl TarSink for TarLog<'_> {
    fn entry(&mut self, header: &TarEntry<'_>, data_offset: u64) -> Result<(), FormatError> {
        assert!(self.entries.last().is_none_or(|entry| entry.3), "an entry begins within another");
        assert!(header.header_offset < data_offset, "the data of an entry precedes its header");
        let shown = format!("{header:?} {:?}", header.meta(&mut LastOwnerNames::default()).ok());
        self.entries.push((shown, data_offset, Vec::new(), false));
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
            let start = clamp_len(*offset, self.stream.len());
            let expected = self.stream.get(start..).and_then(|tail| tail.get(..data.len()));
            assert!(data.is_empty() || expected == Some(data), "data is not at its stated offset");
            *ended = true;
        }
        Ok(())
    }
}

/// The entries and problems of a signature archive.
#[derive(Default)]
struct SigLog {
    entries: Vec<SigEntry>,
    problems: Vec<String>,
}

impl SigtarSink for SigLog {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        if let Some(bounds) = entry.bounds {
            assert!(bounds.contains(bounds.min) && bounds.contains(bounds.max), "the bounds are reversed");
        }
        self.entries.push(entry);
        Ok(())
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        self.problems.push(problem.to_string());
        Ok(())
    }
}
