//! What the properties found, as cases of their own.

use std::collections::BTreeMap;

use dupfs::types::ErrorClass;

use crate::model::encode::Repository;
use crate::model::history::{Addition, History, Meta, Sort};
use crate::model::layout::{BlockRule, Filelist, Layout, Parts, Wrap, usual};
use crate::model::store::Fault;
use crate::properties::{check_faults, check_whole, encoded};

/// One full backup of files of these sizes, named a, b, c ...
fn files(sizes: &[usize]) -> History {
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, owner: ("", ""), mtime: 1_000_000_000 };
    let add = |(name, size): (u8, &usize)| Addition {
        parent: 0,
        name: vec![name],
        sort: Sort::File { size: *size, seed: 0, grain: 0 },
        meta: meta.clone(),
    };
    History { lone_file: None, root_meta: meta.clone(), base: (b'a'..).zip(sizes).map(add).collect(), steps: vec![] }
}

fn with_faults(repository: &Repository, faults: &[(&String, Fault)]) {
    let faults: BTreeMap<String, Fault> = faults.iter().map(|(name, fault)| ((*name).clone(), fault.clone())).collect();
    check_faults(repository, &faults, false, 1);
}

/// The last volume holds the last part alone, and the signature's blocks are large (the file shrank while it was read):
/// the parts before might be of 65536 bytes, and are not. The size was computed from the last part's number.
#[test]
fn a_size_is_not_guessed_from_the_last_part_where_parts_may_be_short() {
    for seed in 0..12 {
        for volume_bytes in [33_281, 48_000, 64_000, 64_513, 65_000] {
            let mut layout: Layout = usual(volume_bytes);
            layout.sets[0].parts = Parts::Shrinking(1);
            layout.sets[0].blocks = BlockRule::Stale;
            layout.sets[0].seed = seed;
            check_whole(&files(&[65_537, 130_048]), &layout, 1 << 16, 1);
        }
    }
}

/// Without its signature archive a set's tree comes from its volumes; one that a damaged manifest does not list any more
/// left its names out of listings that looked complete.
#[test]
fn a_damaged_manifest_beside_a_lost_signature_archive_hides_no_name() {
    let mut layout = usual(1);
    layout.sets[0].filelist = Filelist::Absent;
    layout.sets[0].dirinfo = false;
    let repository = encoded(&files(&[10, 20, 30]), &layout);
    let set = &repository.sets[0];
    let manifest = &repository.objects[&set.manifest];
    let entries = (0..manifest.len()).filter(|at| manifest[*at..].starts_with(b"Volume "));
    for at in entries {
        let faults = [(&set.sigtar, Fault::Missing), (&set.manifest, Fault::Flip { at, bit: 0 })];
        with_faults(&repository, &faults);
    }
}

/// A signature archive cut between two entries, or of no bytes at all as after a failed upload, looked like one of fewer
/// objects: a snapshot without them, without a word.
#[test]
fn a_signature_archive_cut_between_entries_hides_no_name() {
    for wrap in [Wrap::Plain, Wrap::Gzip, Wrap::GzipUnmarked] {
        let mut layout = usual(40_000);
        layout.sets[0].wrap = wrap;
        let repository = encoded(&files(&[10, 20, 30]), &layout);
        let sigtar = &repository.sets[0].sigtar;
        for at in (0..repository.objects[sigtar].len().min(4096)).step_by(512) {
            with_faults(&repository, &[(sigtar, Fault::Cut { at })]);
            with_faults(&repository, &[(sigtar, Fault::Short { at })]);
        }
    }
}

/// An object that is listed and then not found is damage: a path that exists never answers ENOENT.
#[test]
fn an_object_that_the_store_does_not_find_is_no_missing_path() {
    let repository = encoded(&files(&[10, 70_000]), &usual(40_000));
    let set = &repository.sets[0];
    for name in set.volumes.iter().chain([&set.sigtar, &set.manifest]) {
        for class in [ErrorClass::NotFound, ErrorClass::Missing] {
            with_faults(&repository, &[(name, Fault::Open { first: 0, times: 1, class })]);
            with_faults(&repository, &[(name, Fault::Open { first: 0, times: 100, class })]);
        }
    }
}
