//! Tests of the checks themselves: a correct file system passes, and each injected fault is found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::reference::check::{Checker, FaultMap};
use crate::reference::encode::{Repository, encode};
use crate::reference::history::{Addition, Change, Edit, History, Meta, Sort, Step};
use crate::reference::layout::usual;
use crate::reference::mirror::{InjectedFault, Mirror};
use crate::reference::tree::Dice;

fn meta() -> Meta {
    Meta { mode: 0o644, uid: 1, gid: 2, owner: ("", ""), mtime: 1_000_000 }
}

fn repository() -> Repository {
    let add = |parent, name: &[u8], sort| Addition { parent, name: name.to_vec(), sort, meta: meta() };
    let history = History {
        lone_file: None,
        root_meta: meta(),
        base: vec![
            add(0, b"dir", Sort::Dir),
            add(1, b"file", Sort::File { size: 70_000, seed: 1, grain: 0 }),
            add(1, b"small", Sort::File { size: 10, seed: 2, grain: 0 }),
            add(1, b"link", Sort::Symlink(b"small".to_vec())),
            add(1, b"device", Sort::Char(1, 3)),
        ],
        steps: vec![
            Step { full: false, edits: vec![Edit::Content(0, vec![Change::Append { len: 9 }])] },
            Step { full: false, edits: vec![Edit::Delete(2)] },
        ],
    };
    encode(&history.trees(), &[true, false, false], &usual(40_000))
}

fn passes(repository: &Repository, lie: InjectedFault) -> bool {
    let fs = Mirror::new(repository, lie);
    let check = || Checker { fs: &fs, repository, fault_map: FaultMap::default(), dice: Dice::new(3) }.everything();
    catch_unwind(AssertUnwindSafe(check)).is_ok()
}

#[test]
fn a_correct_file_system_passes_and_every_fault_is_found() {
    let repository = repository();
    assert!(passes(&repository, InjectedFault::None), "the truth does not pass");
    let lies = [
        InjectedFault::WrongByte,
        InjectedFault::ShortRead,
        InjectedFault::EmptyFile,
        InjectedFault::Size,
        InjectedFault::Mode,
        InjectedFault::Owner,
        InjectedFault::Mtime,
        InjectedFault::Target,
        InjectedFault::Device,
        InjectedFault::Links,
        InjectedFault::MissingName,
        InjectedFault::ExtraName,
        InjectedFault::HiddenName,
        InjectedFault::EmptyListing,
        InjectedFault::NoSuchFile,
        InjectedFault::DeletedRemains,
        InjectedFault::DoubleInode,
        InjectedFault::LostSnapshot,
    ];
    let missed: Vec<InjectedFault> = lies.into_iter().filter(|lie| passes(&repository, *lie)).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
