//! Writes backups that duplicity would take too long to write. `scripts/bench` runs it and has real duplicity list
//! the result. A backup is one full set and increments of many small files, with the tree that the newest snapshot
//! must show.
//!
//! `corpus repo=DIR dirs=N files=N wide=N increments=N changes=N volume=BYTES [recipient=FINGERPRINT] [tree=DIR]`: N
//! directories of N files each, and one of `wide` files. In each increment `changes` files change, appear or
//! disappear. Without a recipient the format is gzip.
//!
//! `corpus repo=DIR bytes=N volume=BYTES key=FILE`: a source of N bytes (see `bulk`), encrypted to the OpenPGP key in the
//! file.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::print_stdout)]

mod bulk;
mod history;
mod pieces;
mod rdiff;
mod sink;
mod tar;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;

use history::{History, Shape};
use sequoia_openpgp::Cert;
use sequoia_openpgp::parse::Parse as _;
use sink::Packing;
use writer::SetWriter;

fn main() {
    let given: HashMap<String, String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .map(|argument| {
            let (key, value) = argument.split_once('=').unwrap_or_else(|| panic!("{argument}: give key=value"));
            (key.to_owned(), value.to_owned())
        })
        .collect();
    let number = |key: &str| -> usize {
        let value = given.get(key).unwrap_or_else(|| panic!("{key}= is missing"));
        value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number"))
    };
    let repo = PathBuf::from(given.get("repo").expect("repo= is missing"));
    if let Some(key) = given.get("key") {
        std::fs::create_dir_all(&repo).unwrap();
        let cert = Box::leak(Box::new(Cert::from_file(key).unwrap()));
        println!("{}", bulk::write(&repo, cert, number("bytes") as u64, number("volume") as u64));
        return;
    }
    let packing = given.get("recipient").map_or(Packing::Gzip, |key| Packing::Gpg(key.clone()));
    let shape = Shape { dirs: number("dirs"), files: number("files"), wide: number("wide") };
    let mut history = History::new(shape);
    std::fs::create_dir_all(&repo).unwrap();
    for state in 0..=number("increments") {
        let changes = history.advance(state, number("changes"));
        let mut set = SetWriter::new(&repo, &packing, number("volume"), state);
        history.each_change(&changes, |change| set.write(&change));
        set.finish();
    }
    if let Some(tree) = given.get("tree") {
        history.write_tree(&PathBuf::from(tree));
    }
    // The count that duplicity list-current-files and find must give.
    println!("{}", history.entries());
}
