//! The properties: for any history, every snapshot is the tree of that history, and under any fault of the store, an
//! answer is right or an error.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::time::Duration;

use dupfs_base::ErrorKind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::reference::check::{Checker, FaultMap};
use crate::reference::encode::{Repository, encode};
use crate::reference::history::{History, config, histories};
use crate::reference::layout::{Layout, Oddities, layouts};
use crate::reference::store::{Fault, MemoryStore};
use crate::reference::subject;
use crate::reference::tree::{Dice, Kind, Path};

/// Upper bound of the duration of a case; a longer one counts as a hang. A case takes well under a second.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn encoded(history: &History, layout: &Layout) -> Repository {
    let fulls: Vec<bool> = [true].into_iter().chain(history.steps.iter().map(|step| step.full)).collect();
    encode(&history.trees(), &fulls, layout)
}

/// Runs `case` on a separate thread: a hang is a failure, and so is a panic.
pub(crate) fn watched(case: impl FnOnce() + Send + 'static) -> Result<(), TestCaseError> {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        case();
        let _ = done.send(());
    });
    match finished.recv_timeout(CASE_TIMEOUT) {
        Err(mpsc::RecvTimeoutError::Timeout) => Err(TestCaseError::fail("the case hangs")),
        _ => thread.join().map_err(|panic| match panic.downcast::<String>() {
            Ok(message) => TestCaseError::fail(*message),
            Err(panic) => match panic.downcast::<&str>() {
                Ok(message) => TestCaseError::fail(*message),
                Err(panic) => resume_unwind(panic),
            },
        }),
    }
}

/// Checks every snapshot by a full walk, or by several concurrent ones.
pub(crate) fn check_whole(history: &History, layout: &Layout, memory: u64, walkers: u64) {
    let repository = encoded(history, layout);
    let store = MemoryStore::new(&repository.objects);
    let fs = subject::open(store, &repository, memory).expect("a sound repository opens");
    std::thread::scope(|scope| {
        let walk = |walker: u64| {
            let dice = Dice::new(layout.start as u64 + walker);
            Checker { fs: &*fs, repository: &repository, fault_map: FaultMap::default(), dice }.everything();
        };
        let threads: Vec<_> = (1..walkers).map(|walker| scope.spawn(move || walk(walker))).collect();
        walk(0);
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}

/// Checks single paths of a fresh file system, newest first and then oldest first.
pub(crate) fn check_paths(history: &History, layout: &Layout, picks: &[(u8, u16)]) {
    let repository = encoded(history, layout);
    let store = MemoryStore::new(&repository.objects);
    for (set, path) in picks {
        let fs = subject::open(store.clone(), &repository, 1 << 20).expect("a sound repository opens");
        let set = usize::from(*set) % repository.sets.len();
        let paths: Vec<&Path> = repository.sets[set].tree.keys().collect();
        let path = paths[usize::from(*path) % paths.len()];
        let mut checker = Checker {
            fs: &*fs,
            repository: &repository,
            fault_map: FaultMap::default(),
            dice: Dice::new(layout.start as u64),
        };
        checker.by_path(set, path);
        for set in (0..repository.sets.len()).filter(|set| repository.sets[*set].tree.contains_key(path)) {
            checker.by_path(set, path);
        }
    }
}

/// Checks mounts whose root is the snapshot of a time: the time of a set, or any later one before the next set.
pub(crate) fn check_time(history: &History, layout: &Layout, picks: &[(u8, u32)]) {
    let repository = encoded(history, layout);
    let store = MemoryStore::new(&repository.objects);
    for (set, later) in picks {
        let set = usize::from(*set) % repository.sets.len();
        let next = repository.sets.get(set + 1).map_or(i64::from(u32::MAX), |next| next.time);
        let this = &repository.sets[set];
        // between the end of a chain and the next chain, duplicity also selects the end of the chain (FORMAT.md 7)
        let time = this.time + i64::from(*later) % (next - this.time);
        let fs = subject::open_as(store.clone(), &repository, 1 << 20, true, Some(time)).expect("the time is covered");
        if this.tree[&Path::new()].kind == Kind::Dir {
            let dice = Dice::new(layout.start as u64);
            Checker { fs: &*fs, repository: &repository, fault_map: FaultMap::default(), dice }.rooted(set);
        }
    }
}

/// Checks that the volumes give the same trees when signature archives are missing.
pub(crate) fn check_without_signatures(history: &History, layout: &Layout, gone: u8) {
    let repository = encoded(history, layout);
    let store = MemoryStore::new(&repository.objects);
    let lost = repository.sets.iter().enumerate().filter(|(i, _)| gone >> (i % 8) & 1 == 1);
    store.set_faults(&lost.map(|(_, set)| (set.sigtar.clone(), Fault::Missing)).collect());
    let fs = subject::open(store, &repository, 1 << 20).expect("a repository without signatures opens");
    let dice = Dice::new(layout.start as u64);
    Checker { fs: &*fs, repository: &repository, fault_map: FaultMap::default(), dice }.everything();
}

/// Generated numbers from which a fault of an object is made.
#[derive(Clone, Debug)]
pub(crate) struct FaultSeed {
    /// The kind of object: a volume, a signature archive, a manifest, or any.
    pub(crate) target: u8,
    pub(crate) pick: u16,
    pub(crate) fault: Fault,
}

fn fault_seeds() -> impl Strategy<Value = FaultSeed> {
    let kinds = prop::sample::select(vec![
        ErrorKind::Io,
        ErrorKind::Timeout,
        ErrorKind::Denied,
        ErrorKind::Missing,
        ErrorKind::NotFound,
    ]);
    // positions are taken modulo the object's size; small ones hit headers
    let at = || prop_oneof![1 => 0..40usize, 2 => 0..2_000_000usize];
    let faults = prop_oneof![
        2 => (0..3usize, 1..4usize, kinds)
            .prop_map(|(first, times, kind)| Fault::Open { first, times, kind }),
        2 => (at(), 1..4usize).prop_map(|(at, times)| Fault::Break { at, times }),
        2 => at().prop_map(|at| Fault::Short { at }),
        2 => at().prop_map(|at| Fault::Cut { at }),
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Fault::Flip { at, bit }),
        1 => Just(Fault::Missing),
        1 => (1..4u64).prop_map(|ms| Fault::Delay(Duration::from_millis(ms))),
    ];
    (0..6u8, any::<u16>(), faults).prop_map(|(target, pick, fault)| FaultSeed { target, pick, fault })
}

/// Returns the faults by object name. A flipped bit in an uncompressed signature archive is left out: nothing in the
/// format protects it (FORMAT.md 2), so it cannot be detected.
pub(crate) fn faults_by_object(repository: &Repository, fault_seeds: &[FaultSeed]) -> BTreeMap<String, Fault> {
    let sets = &repository.sets;
    let mut faults = BTreeMap::new();
    for FaultSeed { target, pick, fault } in fault_seeds {
        let pick = usize::from(*pick);
        let set = &sets[pick % sets.len()];
        let name = match target {
            0 => &set.sigtar,
            1 => &set.manifest,
            _ => &set.volumes[pick / sets.len() % set.volumes.len()],
        };
        let bytes = &repository.objects[name];
        let within = |at: usize| at % bytes.len().max(1);
        let plain = !bytes.starts_with(&[0x1f, 0x8b]);
        let fault = match fault.clone() {
            Fault::Flip { at, .. } if *target == 0 && plain => Fault::Cut { at: within(at) },
            Fault::Break { at, times } => Fault::Break { at: within(at), times },
            Fault::Short { at } => Fault::Short { at: within(at) },
            Fault::Cut { at } => Fault::Cut { at: within(at) },
            other => other,
        };
        // a manifest cut at the end of an entry looks complete, and without signatures nothing else shows the missing
        // ones
        let is_detectable = |faults: &BTreeMap<String, Fault>| {
            let cuts = |fault: &Fault| matches!(fault, Fault::Cut { .. } | Fault::Short { .. });
            match target {
                0 => !faults.get(&set.manifest).is_some_and(cuts),
                1 => !(cuts(&fault) && faults.get(&set.sigtar).is_some_and(Fault::harms)),
                _ => true,
            }
        };
        // an empty object cannot be damaged
        if !bytes.is_empty() && is_detectable(&faults) {
            faults.insert(name.clone(), fault);
        }
    }
    faults
}

/// Checks that answers are right or errors, with faults from the start or later, and right again after the faults
/// have passed.
pub(crate) fn check_faults(repository: &Repository, faults: &BTreeMap<String, Fault>, late: bool, seed: i64) {
    let store = MemoryStore::new(&repository.objects);
    let fault_map = FaultMap::of(faults);
    if !late {
        store.set_faults(faults);
    }
    let on_manifest = (0..repository.sets.len()).any(|set| fault_map.manifests(repository, set));
    let fs = match subject::open(store.clone(), repository, 1 << 20) {
        Ok(fs) => fs,
        Err(e) => {
            assert!(!late && on_manifest, "no manifest is damaged and the repository does not open: {e}");
            return;
        }
    };
    store.set_faults(faults);
    let dice = Dice::new(seed as u64);
    let mut checker = Checker { fs: &*fs, repository, fault_map, dice };
    checker.everything();
    if faults.values().all(Fault::passes) && (late || !on_manifest) {
        store.set_faults(&BTreeMap::new());
        checker.fault_map = FaultMap::default();
        checker.everything();
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn every_snapshot_is_the_tree_that_was_backed_up(
        history in histories(),
        layout in layouts(Oddities::All),
        memory in prop::sample::select(vec![1u64 << 16, 1 << 20, 1 << 26]),
        walkers in prop_oneof![3 => Just(1u64), 1 => 2..4u64],
    ) {
        watched(move || check_whole(&history, &layout, memory, walkers))?;
    }

    #[test]
    fn a_path_is_found_without_listing_its_parents(
        history in histories(),
        layout in layouts(Oddities::All),
        picks in vec(any::<(u8, u16)>(), 1..5),
    ) {
        watched(move || check_paths(&history, &layout, &picks))?;
    }

    #[test]
    fn a_time_as_the_root_shows_the_snapshot_of_that_time(
        history in histories(),
        layout in layouts(Oddities::All),
        picks in vec(any::<(u8, u32)>(), 1..4),
    ) {
        watched(move || check_time(&history, &layout, &picks))?;
    }

    #[test]
    fn without_signature_archives_the_volumes_give_the_same_trees(
        history in histories(),
        layout in layouts(Oddities::None),
        gone in any::<u8>(),
    ) {
        watched(move || check_without_signatures(&history, &layout, gone))?;
    }

    #[test]
    fn under_a_failing_store_every_answer_is_right_or_an_error(
        history in histories(),
        layout in layouts(Oddities::None),
        fault_seeds in vec(fault_seeds(), 1..4),
        late in any::<bool>(),
    ) {
        watched(move || {
            let repository = encoded(&history, &layout);
            check_faults(&repository, &faults_by_object(&repository, &fault_seeds), late, layout.start);
        })?;
    }
}

#[test]
fn a_property_case_that_hangs_or_panics_fails() {
    let panicked = watched(|| panic!("a message {}", 1));
    assert!(panicked.unwrap_err().to_string().contains("a message 1"));
    assert!(watched(|| ()).is_ok());
}
