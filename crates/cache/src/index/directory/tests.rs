//! Files of older versions of the index.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use super::super::framed_file::{HEADER, VERSION, header};
use super::super::{Identity, Index, IndexFileKind};
use super::*;

/// Creates an index of `name` in `base` with a record and a tree, which are both `marker`. Returns its files.
fn index(base: &Path, name: &[u8], marker: &[u8]) -> Vec<PathBuf> {
    let identity = Identity::of(&[name]);
    let index = Index::open(base, identity, HashSet::from([7])).unwrap();
    index.store_record(Identity::of(&[b"key"]), 7, marker.to_vec());
    index.store_file(IndexFileKind::Tree, Identity::of(&[b"tree"]), &mut |out| out.write_all(marker));
    drop(index);
    files(&base.join(identity.hex()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect()
}

/// Makes `file` one of the previous version.
fn make_older(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    assert!(bytes.starts_with(&header(bytes[12], Identity([0; 16]))[..VERSION_HEADER]) && bytes.len() > HEADER);
    bytes[8..12].copy_from_slice(&(VERSION - 1).to_le_bytes());
    fs::write(file, bytes).unwrap();
}

#[test]
fn opening_an_index_removes_the_files_of_older_versions_from_all_indexes() {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path();
    let opened = index(base, b"opened", b"a name");
    let other = index(base, b"other", b"a name");
    let current = index(base, b"current", b"a name");
    assert_eq!((opened.len(), other.len(), current.len()), (2, 2, 2));
    opened.iter().chain(&other).for_each(|file| make_older(file));
    // Its writer was killed a moment ago.
    let unfinished = opened[0].with_file_name(format!("{UNFINISHED}0123456789abcdef"));
    fs::copy(&opened[0], &unfinished).unwrap();
    let foreign = other[0].with_file_name("foreign");
    fs::write(&foreign, b"not of an index").unwrap();

    let identity = Identity::of(&[b"opened"]);
    let index = Index::open(base, identity, HashSet::from([7])).unwrap();
    assert_eq!(index.load_record(Identity::of(&[b"key"])), None);
    let load = index.load_file(IndexFileKind::Tree, Identity::of(&[b"tree"]), &mut |_, len| Some(len));
    assert_eq!(load, None);
    assert_eq!(files(&base.join(identity.hex())), Vec::<PathBuf>::new());
    assert_eq!(files(foreign.parent().unwrap()), [foreign]);
    assert!(current.iter().all(|file| file.exists()), "files of this version remain");
}

#[test]
fn directories_that_are_not_an_index_remain_unchanged() {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().join("base");
    let file = &index(&base, b"opened", b"a name")[0];
    make_older(file);
    let [named, outside] = [base.join("backup"), scratch.path().join("outside")];
    for dir in [&named, &outside] {
        fs::create_dir(dir).unwrap();
        fs::copy(file, dir.join("seg-0")).unwrap();
    }
    std::os::unix::fs::symlink(&outside, base.join("0123456789abcdef0123456789abcdef")).unwrap();
    std::os::unix::fs::symlink(outside.join("seg-0"), file.with_file_name("seg-1")).unwrap();
    IndexDirectory::open(&base, &Identity::of(&[b"opened"]).hex()).unwrap();
    assert!(!file.exists());
    assert!(named.join("seg-0").exists() && outside.join("seg-0").exists());
}
