//! Lists the duplicity backup in a local directory: sets, chains, snapshots and problems, and the paths of the newest
//! snapshot if its signature archives are not encrypted.
//!
//! `cargo run -p dupfs-format --example list_backup -- tests/fixtures/duplicity-0.7.13-gz`

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dupfs_format::collection::{Collection, PrefixOptions, Snapshot};
use dupfs_format::name::NameSuffix;
use dupfs_format::sigtar::{SigChange, SigEntry, SigtarParser, SigtarSink};
use dupfs_format::{ArchivePath, FormatError, ObjectInfo};
use flate2::read::MultiGzDecoder;

/// The paths of a snapshot. Each set of its lineage adds, replaces and deletes some.
#[derive(Debug, Default)]
struct SnapshotPaths(BTreeSet<ArchivePath>);

impl SigtarSink for SnapshotPaths {
    fn entry(&mut self, entry: SigEntry) -> Result<(), FormatError> {
        match entry.change {
            SigChange::Deleted => self.0.remove(&entry.path),
            SigChange::Signature | SigChange::Snapshot => self.0.insert(entry.path),
        };
        Ok(())
    }

    fn problem(&mut self, problem: FormatError) -> Result<(), FormatError> {
        Err(problem)
    }
}

/// Lists the backup in `dir` on `out`.
pub fn list_backup(dir: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let collection = Collection::from_listing(&list_dir(dir)?, &PrefixOptions::default())?;
    for set in collection.sets() {
        writeln!(out, "set {}: {} volumes, {} bytes", set.label(), set.volumes.len(), set.stored_bytes())?;
    }
    for chain in &collection.chains().chains {
        writeln!(out, "chain {}: {} sets", chain.span(), chain.sets.len())?;
    }
    for snapshot in collection.snapshots() {
        writeln!(out, "snapshot {}: {} sets", snapshot.name, snapshot.lineage().len())?;
    }
    for problem in collection.problems() {
        writeln!(out, "problem {}: {}", problem.kind.code(), problem.message)?;
    }
    if let Some(latest) = collection.latest() {
        match read_paths(dir, &collection, latest)? {
            Some(paths) => paths.0.iter().try_for_each(|path| writeln!(out, "path {path}"))?,
            None => writeln!(out, "the signature archives of {} are encrypted or incomplete", latest.name)?,
        }
    }
    Ok(())
}

/// Reads the signature archives of a snapshot. Returns `None` if one is missing or encrypted.
fn read_paths(
    dir: &Path,
    collection: &Collection,
    snapshot: &Snapshot,
) -> Result<Option<SnapshotPaths>, Box<dyn Error>> {
    let mut paths = SnapshotPaths::default();
    for set in snapshot.lineage() {
        let Some(archive) = collection.set(*set).and_then(|set| set.signatures.as_ref()) else { return Ok(None) };
        let file = File::open(dir.join(&*archive.name))?;
        let mut input: Box<dyn Read> = match NameSuffix::of(&archive.name) {
            NameSuffix::Gzip => Box::new(MultiGzDecoder::new(file)),
            NameSuffix::None => Box::new(file),
            NameSuffix::OpenPgp | NameSuffix::Cms => return Ok(None),
        };
        let (mut parser, mut chunk) = (SigtarParser::default(), vec![0; 64 << 10]);
        loop {
            match input.read(&mut chunk)? {
                0 => break parser.finish()?,
                len => parser.feed(chunk.get(..len).unwrap_or(&chunk), &mut paths)?,
            }
        }
    }
    Ok(Some(paths))
}

/// Lists the files in `dir`.
fn list_dir(dir: &Path) -> io::Result<Vec<ObjectInfo>> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // A name that is not UTF-8 is not duplicity's.
        if let (true, Some(name)) = (metadata.is_file(), entry.file_name().to_str()) {
            objects.push(ObjectInfo {
                name: name.into(),
                size: metadata.len(),
                version: "".into(),
                class: None,
                archived: None,
            });
        }
    }
    Ok(objects)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: list_backup DIRECTORY")?;
    list_backup(&dir, &mut io::stdout().lock())
}
