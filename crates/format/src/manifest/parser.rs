//! The push parser of manifests.

use std::io::Read;

use super::file_list::FileList;
use super::volume_entries::VolumeEntries;
use super::{
    HashKind, Manifest, ManifestProblem, ManifestProblemKind, ManifestVolume, VolumeBoundary, VolumeHash, end_key,
};
use crate::FormatError;
use crate::{ArchivePath, MAX_PATH_LEN, VolumeNumber};

/// Upper bound of a line in bytes: four times a fully escaped path of [`MAX_PATH_LEN`] bytes.
const MAX_LINE_LEN: usize = 64 << 10;
/// The highest number that counts as a volume number.
const MAX_VOLUME_NUMBER: u32 = 10_000_000;
/// Upper bound of the number of recorded problems.
const MAX_PROBLEMS: usize = 32;
/// The keywords of the lines of a volume's entry.
const VOLUME_KEYWORDS: [&[u8]; 3] = [b"startingpath", b"endingpath", b"hash"];

/// A push parser of manifests: it takes decoded bytes in chunks of any size. [`ManifestParser::finish`] returns the
/// manifest.
#[derive(Debug, Default)]
pub struct ManifestParser {
    /// An unfinished line.
    line: Vec<u8>,
    /// Offset of that line's first byte.
    line_start: u64,
    hostname: Option<Box<[u8]>>,
    localdir: Option<Box<[u8]>>,
    entries: VolumeEntries,
    current: Option<VolumeDraft>,
    files: FileList,
    problems: Vec<ManifestProblem>,
}

/// The entry of a volume whose lines are being read.
#[derive(Debug)]
struct VolumeDraft {
    offset: u64,
    /// `None` if the number could not be read.
    number: Option<u32>,
    start: Option<VolumeBoundary>,
    end: Option<VolumeBoundary>,
    hash: Option<VolumeHash>,
    damaged: bool,
}

impl ManifestParser {
    /// Creates a parser at the start of a manifest.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of bytes taken.
    pub fn offset(&self) -> u64 {
        self.line_start.saturating_add(self.line.len() as u64)
    }

    /// Returns an upper bound of the bytes of memory that the volume entries take, for callers that bound it.
    pub fn table_bytes(&self) -> u64 {
        self.entries.bytes()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] for lines over 64 KiB. Nothing may be fed after an error.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), FormatError> {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (head, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            self.check_length(head.len())?;
            let length = self.line.len() + head.len() + 1;
            if self.line.is_empty() {
                self.take_line(head);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.take_line(&line);
                line.clear();
                self.line = line;
            }
            self.line_start += length as u64;
            bytes = rest.get(1..).unwrap_or(&[]);
        }
        self.check_length(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the manifest.
    ///
    /// # Errors
    /// [`FormatError::Manifest`] if it has no volume.
    pub fn finish(mut self) -> Result<Manifest, FormatError> {
        self.end_line();
        self.end_volume();
        if let Some((offset, what)) = self.files.damage() {
            self.problem(ManifestProblemKind::FileList, offset, what);
        }
        let ahead = self.entries.end();
        let last_number = self.entries.last_number();
        if let Some((number, offset)) = ahead {
            let what = format!("volume {number} is listed before lower numbers and the list ends with {last_number}");
            self.problem(ManifestProblemKind::UnknownEntry, offset, what);
        }
        for number in self.entries.drop_unhashed() {
            if self.problems.len() < MAX_PROBLEMS {
                let kind = ManifestProblemKind::Entry(VolumeNumber(number));
                let what = format!("volume {number} has no hash although others have");
                self.problems.push(ManifestProblem { kind, offset: None, what });
            }
        }
        let is_resumed = self.entries.is_resumed();
        let volumes = self.entries.into_volumes();
        if volumes.is_empty() {
            let first = self.problems.into_iter().next();
            let (offset, what) = first.map_or((None, None), |problem| (problem.offset, Some(problem.what)));
            let what = what.unwrap_or_else(|| "there is no volume in it".to_owned());
            // Without a problem nothing in the file is an entry: it is wrong from its start.
            return Err(FormatError::Manifest { offset: offset.unwrap_or(0), what });
        }
        let mut manifest = Manifest {
            hostname: self.hostname,
            localdir: self.localdir,
            changed_files: self.files.count(),
            problems: self.problems,
            last_number,
            is_resumed,
            listed_files: self.files.whole(),
            ..Manifest::from_volumes(volumes)
        };
        manifest.check_order();
        Ok(manifest)
    }

    /// Takes a last line without a line feed. duplicity always writes the line feed, so the file was cut short in this
    /// line, and the entry of this line is incomplete. Only a hash shows by its length that it is whole.
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Some(&first) = line.first() else { return };
        let keyword = line.split(|&b| is_space(b)).find(|token| !token.is_empty()).unwrap_or(&[]);
        if self.current.is_some() && is_space(first) && keyword.eq_ignore_ascii_case(b"hash") {
            self.take_line(&line);
            return;
        }
        let kind = match &self.current {
            Some(draft) if is_space(first) => draft.problem_kind(),
            _ if self.files.is_announced() => ManifestProblemKind::FileList,
            _ => ManifestProblemKind::UnknownEntry,
        };
        self.problem(kind, self.line_start, "the file ends within a line".to_owned());
        if !is_space(first) {
            self.end_volume();
        } else if let Some(draft) = &mut self.current {
            draft.damaged = true;
        }
    }

    fn check_length(&self, more: usize) -> Result<(), FormatError> {
        if self.line.len().saturating_add(more) > MAX_LINE_LEN {
            return Err(FormatError::TooLarge { offset: self.line_start, what: "a line", limit: MAX_LINE_LEN as u64 });
        }
        Ok(())
    }

    fn problem(&mut self, kind: ManifestProblemKind, offset: u64, what: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(ManifestProblem { kind, offset: Some(offset), what });
        }
    }

    /// Takes a complete line, without its line feed. duplicity matches keywords in either case.
    fn take_line(&mut self, line: &[u8]) {
        let mut tokens = line.split(|&b| is_space(b)).filter(|token| !token.is_empty());
        let Some(keyword) = tokens.next() else { return };
        let indented = line.first().is_some_and(|&b| is_space(b));
        let is = |word: &[u8]| keyword.eq_ignore_ascii_case(word);
        if indented && (is(b"new") || is(b"changed") || is(b"deleted")) {
            if is(b"deleted") {
                self.files.add_deleted();
            } else {
                self.take_changed_file(tokens.next(), tokens.next());
            }
            return;
        }
        if indented {
            self.take_volume_line(keyword, tokens);
            return;
        }
        if is(b"volume") {
            self.end_volume();
            let number = tokens.next().and_then(|token| decimal(token.strip_suffix(b":")?));
            let number = number.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=MAX_VOLUME_NUMBER).contains(n));
            if number.is_none() {
                let kind = ManifestProblemKind::UnknownEntry;
                self.problem(kind, self.line_start, "a volume's number is malformed".to_owned());
            }
            self.current = Some(VolumeDraft::new(self.line_start, number));
        } else if is(b"filelist") {
            self.end_volume();
            let count = tokens.next().and_then(decimal);
            if count.is_none() {
                let kind = ManifestProblemKind::FileList;
                self.problem(kind, self.line_start, "the number of changed files is malformed".to_owned());
            }
            self.files.announce(count, self.line_start);
        } else if is(b"hostname") {
            self.hostname = tokens.next().map(Into::into);
        } else if is(b"localdir") {
            self.localdir = tokens.next().and_then(unquote).map(Vec::into_boxed_slice);
        } else {
            // A top-level keyword of another version has no effect on volumes. After a damaged keyword, the next lines
            // belong to no volume, which is reported there. It may also be the damaged line of a volume's hash, the last
            // one of an entry: without a hash nothing else would show that.
            let number =
                self.current.as_mut().filter(|draft| draft.hash.is_none() && !draft.damaged).and_then(|draft| {
                    draft.damaged = true;
                    draft.number
                });
            if let Some(number) = number {
                let kind = ManifestProblemKind::Entry(VolumeNumber(number));
                self.problem(kind, self.line_start, format!("volume {number}: the keyword is unknown"));
            }
            self.end_volume();
        }
    }

    /// Takes a new or changed file of the list.
    fn take_changed_file(&mut self, path: Option<&[u8]>, more: Option<&[u8]>) {
        let path = path.filter(|_| more.is_none()).and_then(unquote);
        self.files.add_changed(path.and_then(|path| ArchivePath::parse(&path).ok()).as_ref());
    }

    /// Takes a line of a volume's entry.
    fn take_volume_line<'a>(&mut self, keyword: &[u8], mut tokens: impl Iterator<Item = &'a [u8]>) {
        let line_start = self.line_start;
        if self.current.is_none() {
            let of_volume = |word: &&[u8]| keyword.eq_ignore_ascii_case(word);
            if self.files.is_announced() && !VOLUME_KEYWORDS.iter().any(of_volume) {
                // A damaged line of the list of files. It shows in the number of files.
                return;
            }
            let kind = ManifestProblemKind::UnknownEntry;
            self.problem(kind, line_start, "a line belongs to no volume".to_owned());
            self.current = Some(VolumeDraft::new(line_start, None));
        }
        let Some(draft) = &mut self.current else { return };
        let parsed = if keyword.eq_ignore_ascii_case(b"startingpath") {
            boundary(&mut tokens).map(|found| draft.start = Some(found))
        } else if keyword.eq_ignore_ascii_case(b"endingpath") {
            boundary(&mut tokens).map(|found| draft.end = Some(found))
        } else if keyword.eq_ignore_ascii_case(b"hash") {
            volume_hash(&mut tokens).map(|found| {
                if draft.hash.is_none() || found.kind == HashKind::Sha1 {
                    draft.hash = Some(found);
                }
            })
        } else {
            Err("the keyword is unknown")
        };
        if let Err(what) = parsed {
            // An entry without a number had its problem reported when it began.
            let known = draft.number.filter(|_| !draft.damaged);
            draft.damaged = true;
            if let Some(number) = known {
                let kind = ManifestProblemKind::Entry(VolumeNumber(number));
                self.problem(kind, line_start, format!("volume {number}: {what}"));
            }
        }
    }

    /// Stores the volume whose lines were read.
    fn end_volume(&mut self) {
        let Some(draft) = self.current.take() else { return };
        let Some(number) = draft.number else { return };
        let volume = match (draft.start, draft.end) {
            (Some(start), Some(end)) if !draft.damaged => {
                Some(ManifestVolume { number: VolumeNumber(number), start, end, hash: draft.hash })
            }
            (Some(_), Some(_)) => None,
            (None, _) | (_, None) => {
                if !draft.damaged {
                    let kind = ManifestProblemKind::Entry(VolumeNumber(number));
                    self.problem(kind, draft.offset, format!("volume {number} has no starting or no ending path"));
                }
                None
            }
        };
        self.entries.add(number, draft.offset, volume);
    }
}

impl Manifest {
    /// Adds a problem for each volume that ends before an earlier one does. Paths are looked up by the ends alone, so
    /// the entries of such a volume are not found. A volume without entries is exempt: duplicity gives `.` as its
    /// range.
    pub(super) fn check_order(&mut self) {
        let mut problems = Vec::new();
        for (volume, &greatest) in self.volumes.iter().zip(&self.greatest_end) {
            let Some(before) = self.volumes.get(greatest) else { continue };
            let is_empty = volume.start.path.is_root() && volume.end.path.is_root();
            if end_key(volume) >= end_key(before) || is_empty {
                continue;
            }
            let what = format!(
                "volume {} ends at {}, before volume {}, which ends at {}: their ranges overlap",
                volume.number, volume.end, before.number, before.end
            );
            problems.push(ManifestProblem { kind: ManifestProblemKind::Order(volume.number), offset: None, what });
            if self.problems.len().saturating_add(problems.len()) >= MAX_PROBLEMS {
                break;
            }
        }
        self.problems.append(&mut problems);
    }

    /// Reads a manifest to its end.
    ///
    /// # Errors
    /// [`FormatError::Read`] with the reader's own error as source, else as [`ManifestParser::feed`] and
    /// [`ManifestParser::finish`].
    pub fn read(input: &mut dyn Read) -> Result<Self, FormatError> {
        let mut parser = ManifestParser::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            match input.read(&mut chunk) {
                Ok(0) => return parser.finish(),
                Ok(len) => parser.feed(chunk.get(..len).unwrap_or(&chunk))?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FormatError::Read { offset: parser.offset(), source }),
            }
        }
    }
}

impl VolumeDraft {
    fn new(offset: u64, number: Option<u32>) -> Self {
        Self { offset, number, start: None, end: None, hash: None, damaged: false }
    }

    fn problem_kind(&self) -> ManifestProblemKind {
        match self.number {
            Some(number) => ManifestProblemKind::Entry(VolumeNumber(number)),
            None => ManifestProblemKind::UnknownEntry,
        }
    }
}

/// Returns true for the bytes at which Python's `bytes.split` splits.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn decimal(token: &[u8]) -> Option<u64> {
    if token.is_empty() || !token.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// Parses a path and its block number, which may be absent.
fn boundary<'a>(tokens: &mut impl Iterator<Item = &'a [u8]>) -> Result<VolumeBoundary, &'static str> {
    let path = unquote(tokens.next().ok_or("a path is missing")?).ok_or("a path has damaged quotes")?;
    let path = ArchivePath::parse(&path).map_err(|_| "a path leaves the tree")?;
    if path.as_bytes().len() > MAX_PATH_LEN {
        return Err("a path is longer than any that duplicity writes");
    }
    let part = match tokens.next() {
        Some(token) => Some(decimal(token).filter(|&number| number > 0).ok_or("a block number is malformed")?),
        None => None,
    };
    match tokens.next() {
        Some(_) => Err("there is more than a path and a block number"),
        None => Ok(VolumeBoundary { path, part }),
    }
}

/// Parses an algorithm and a digest in hexadecimal.
fn volume_hash<'a>(tokens: &mut impl Iterator<Item = &'a [u8]>) -> Result<VolumeHash, &'static str> {
    let (Some(kind), Some(hex), None) = (tokens.next(), tokens.next(), tokens.next()) else {
        return Err("a hash is not a kind and a value");
    };
    let (kind, len) = if kind.eq_ignore_ascii_case(b"sha1") {
        (HashKind::Sha1, 20)
    } else if kind.eq_ignore_ascii_case(b"md5") {
        (HashKind::Md5, 16)
    } else {
        return Err("the kind of hash is unknown");
    };
    let bytes: Option<Vec<u8>> = hex.chunks(2).map(hex_byte).collect();
    let digest = bytes.filter(|bytes| bytes.len() == len).ok_or("a hash is malformed")?;
    Ok(VolumeHash { kind, digest })
}

fn hex_byte(pair: &[u8]) -> Option<u8> {
    let &[high, low] = pair else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Decodes duplicity's quotes: in double quotes, `\xHH` is a byte. Everything else is literal.
fn unquote(token: &[u8]) -> Option<Vec<u8>> {
    let Some(quoted) = token.strip_prefix(b"\"") else { return Some(token.to_vec()) };
    let mut rest = quoted.strip_suffix(b"\"")?;
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match b {
            b'\\' => {
                let hex = rest.strip_prefix(b"x")?;
                out.push(hex_byte(hex.get(..2)?)?);
                rest = hex.get(2..)?;
            }
            b'"' => return None,
            _ => out.push(b),
        }
    }
    Some(out)
}
