//! `dupfs verify --deep` over S3 of a volume that is larger than its share of `--memory`: its blocks are in the spill file until
//! its files are read, and that file has no name and is sealed.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::world::{World, is_volume, put};
use crate::support::duplicity::{Mode, Repository};
use crate::support::{exec, noise};

const URL: &str = "s3://bucket/p";

/// Small files at the beginning of the volume. A decoder that begins again for each of them reads the volume as often.
const SMALL: u64 = 30;

/// Bytes of the file behind them. Of 4 MiB, the blocks of volumes get one.
const LARGE: usize = 5_000_000;

/// A full set of one volume, and an increment. Returns the bytes of the volume.
fn backup(world: &World) -> u64 {
    let source = world.scratch.dir("source");
    for n in 0..SMALL {
        fs::write(source.join(format!("a{n:02}")), noise(n, 3000)).unwrap();
    }
    fs::write(source.join("z"), noise(SMALL, LARGE)).unwrap();
    let repository = Repository::new("3.2.1", |_| Mode::Gzip, &world.scratch.dir("work")).option("--volsize=20");
    repository.backup(true, &source, 1_700_000_000);
    fs::write(source.join("new"), noise(SMALL + 1, 1000)).unwrap();
    repository.backup(false, &source, 1_700_000_060);
    put(repository.dir(), &world.disk("bucket/p"));
    let volumes = fs::read_dir(repository.dir()).unwrap().map(|entry| entry.unwrap());
    let volumes = volumes.filter(|entry| is_of_full_set(entry.file_name().to_str().unwrap()));
    let sizes: Vec<u64> = volumes.map(|entry| entry.metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 1, "{sizes:?}");
    sizes[0]
}

fn is_of_full_set(name: &str) -> bool {
    name.contains("duplicity-full.") && name.contains(".difftar")
}

/// Runs `verify --deep`, which must prove every file. Returns the bytes of the volume of the full set that were requested, of
/// `size` in all.
fn fetched(world: &World, size: u64, options: &[&str]) -> u64 {
    world.proxy.clear_log();
    let mut command = world.indexed_reader().command("verify");
    let output = exec::output(command.args(["--json", "--deep", "--memory", "4M", URL]).args(options));
    assert!(output.status.success(), "{options:?}: {}", exec::tail(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["proved"], &report["files"]), (&(SMALL + 2).into(), &(SMALL + 2).into()), "{report}");
    let log = world.proxy.log();
    let requests = log.iter().filter(|request| is_volume(request) && is_of_full_set(&request.target));
    let bytes = |range: (u64, u64)| (range.1.min(size - 1) + 1).saturating_sub(range.0);
    requests.map(|request| request.range.map_or(size, bytes)).sum()
}

/// The content of files without a name below `dir` that a process has open.
fn unnamed_files_below(dir: &Path) -> Vec<u8> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let open = processes.flat_map(|process| fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten());
    let mut bytes = Vec::new();
    for file in open.map(|file| file.path()) {
        let target = fs::read_link(&file).unwrap_or_default();
        if target.starts_with(dir) && target.to_str().is_some_and(|target| target.ends_with(" (deleted)")) {
            // It may have been closed meanwhile.
            let _ = File::open(&file).and_then(|mut file| file.read_to_end(&mut bytes));
        }
    }
    bytes
}

/// The names of the files below `dir`.
fn files_below(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => files_below(&entry.path()),
        false => vec![entry.path().display().to_string()],
    });
    names.flatten().collect()
}

#[test]
fn a_volume_larger_than_its_memory_is_fetched_once_and_its_blocks_on_disk_are_sealed() {
    let world = World::new();
    let size = backup(&world);
    assert!(size >= LARGE as u64, "{size}");
    // All files of the full set have been read when the volume of the increment is requested.
    let cache = world.scratch.dir("indexed").join("cache");
    let spilled = Arc::new(Mutex::new(Vec::new()));
    let (seen, dir) = (Arc::clone(&spilled), cache.clone());
    world.proxy.set_plan(move |request| {
        if is_volume(request) && !is_of_full_set(&request.target) {
            seen.lock().unwrap().extend(unnamed_files_below(&dir));
        }
        None
    });
    // A request may be repeated.
    let once = fetched(&world, size, &[]);
    assert!((size..2 * size).contains(&once), "{once} of {size} bytes were fetched");
    world.proxy.set_plan(|_| None);
    let spilled = std::mem::take(&mut *spilled.lock().unwrap());
    assert!(spilled.len() > LARGE / 2, "{} bytes are in the spill file", spilled.len());
    let has = |text: &[u8]| spilled.windows(text.len()).any(|window| window == text);
    assert!(!has(b"snapshot/a00") && !has(&noise(0, 3000)[..64]), "the spill file has names or contents");
    let large = noise(SMALL, LARGE);
    assert!(large.chunks(100_000).all(|chunk| !has(&chunk[..64])), "the spill file has contents");
    assert_eq!(files_below(&cache), [""; 0], "something is left on disk");
    // Without the spill file each of the small files decodes the volume.
    let alone = fetched(&world, size, &["--cache-size", "0"]);
    assert!(alone > 10 * size, "{alone} of {size} bytes were fetched without the spill file");
}
