//! The chains and the choice of a snapshot, compared with duplicity's own code (Debian's package) for the same names:
//! random collections with overlapping chains, racing clients, missing manifests and signature archives, orphans,
//! equal times and clocks set back.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use dupfs_format::collection::{Collection, CollectionError, PrefixOptions};
use dupfs_format::{BackupTime, SetIndex};
use dupfs_read::storage::ObjectInfo;
use serde::{Deserialize, Serialize};

/// Start (none for a full set) and time.
type Key = (Option<i64>, i64);

#[derive(Serialize)]
struct Case {
    names: Vec<String>,
    times: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Verdict {
    /// duplicity's code fails an assertion.
    Dies {
        #[serde(rename = "dies")]
        _why: String,
    },
    Answer(Answer),
}

#[derive(Debug, PartialEq, Deserialize)]
struct Answer {
    chains: Vec<Vec<Key>>,
    selected: Vec<Selected>,
    primary: Option<usize>,
    after_discard: Vec<Vec<Key>>,
    orphaned: Vec<Key>,
    incomplete: Vec<Key>,
    signature_chains: Vec<Vec<String>>,
    orphaned_signatures: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Selected {
    Set(Key),
    Refused(String),
}

/// SplitMix64: the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

const START: i64 = 1_700_000_000;

/// The kind of collections that the cases of one seed have.
#[derive(Clone, Copy, Debug)]
enum CaseKind {
    /// Consecutive chains, with occasional missing files.
    Orderly,
    /// Two clients: increments on one of the last few sets, overlapping chains.
    Racing,
    /// Any start and any time out of a few.
    Wild,
}

fn keys(random: &mut Random, mood: CaseKind) -> Vec<Key> {
    let mut keys: BTreeMap<(i64, Option<i64>), ()> = BTreeMap::new();
    let mut times = Vec::new();
    let mut clock = START;
    for _ in 0..random.below(12) + 1 {
        clock +=
            i64::try_from(random.below(3)).unwrap() * 3600 + if matches!(mood, CaseKind::Orderly) { 3600 } else { 0 };
        let back = |n: usize, times: &[i64]| times[times.len().saturating_sub(n)..].to_vec();
        let start = match mood {
            _ if times.is_empty() || random.one_in(5) => None,
            CaseKind::Orderly => times.last().copied(),
            CaseKind::Racing => Some(random.of(&back(3, &times))),
            CaseKind::Wild => Some(START + i64::try_from(random.below(8)).unwrap() * 3600),
        };
        let time = match mood {
            CaseKind::Wild => START + i64::try_from(random.below(10)).unwrap() * 3600,
            _ => clock,
        };
        times.push(time);
        keys.insert((time, start), ());
    }
    keys.into_keys().map(|(time, start)| (start, time)).collect()
}

/// A time as long names have it: in UTC, or as old names have it, in the zone of the machine at that time.
fn name_time(random: &mut Random, seconds: i64) -> String {
    let hours = random.of(&[0, 0, 0, 2, -5]);
    if hours == 0 {
        return BackupTime(seconds).to_string();
    }
    let local = jiff::Timestamp::from_second(seconds + hours * 3600).unwrap();
    let sign = if hours < 0 { '-' } else { '+' };
    format!("{}{sign}{:02}:00", local.strftime("%Y-%m-%dT%H:%M:%S"), hours.abs())
}

/// The names of a set, some of them left out.
fn names(random: &mut Random, (start, time): Key, lossy: bool) -> Vec<String> {
    let suffix = random.of(&[".gpg", ".gz", ""]);
    let short = random.one_in(4);
    let mut long = |time: i64| name_time(random, time);
    let (set, signatures) = match (start, short) {
        (None, false) => (
            format!("duplicity-full.{}", long(time)),
            format!("duplicity-full-signatures.{}.sigtar{suffix}", long(time)),
        ),
        (Some(start), false) => (
            format!("duplicity-inc.{}.to.{}", long(start), long(time)),
            format!("duplicity-new-signatures.{}.to.{}.sigtar{suffix}", long(start), long(time)),
        ),
        (None, true) => (format!("df.{}", base36(time)), format!("dfs.{}.st", base36(time))),
        (Some(start), true) => {
            (format!("di.{}.{}", base36(start), base36(time)), format!("dns.{}.{}.st", base36(start), base36(time)))
        }
    };
    let mut names = Vec::new();
    for n in 1..=random.below(3) + 1 {
        if !(lossy && random.one_in(10)) {
            names.push(if short { format!("{set}.{n}.dt") } else { format!("{set}.vol{n}.difftar{suffix}") });
        }
    }
    if !(lossy && random.one_in(8)) {
        names.push(if short { format!("{set}.m") } else { format!("{set}.manifest") });
    }
    if !(lossy && random.one_in(6)) {
        names.push(signatures);
    }
    names
}

fn base36(mut n: i64) -> String {
    let mut digits = Vec::new();
    while n > 0 {
        digits.push(char::from_digit(u32::try_from(n % 36).unwrap(), 36).unwrap());
        n /= 36;
    }
    digits.iter().rev().collect()
}

fn case(seed: u64) -> Case {
    let mut random = Random(seed);
    let mood = random.of(&[CaseKind::Orderly, CaseKind::Racing, CaseKind::Wild]);
    let lossy = random.one_in(2);
    let keys = keys(&mut random, mood);
    let names: Vec<String> = keys.iter().flat_map(|key| names(&mut random, *key, lossy)).collect();
    let mut times = vec![START - 5, i64::MAX >> 10];
    times.extend(keys.iter().flat_map(|(_, time)| [time - 1, *time, time + 1]));
    Case { names, times }
}

fn ask_duplicity(cases: &[Case]) -> Vec<Verdict> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/collection.py");
    let mut python = Command::new("/usr/bin/python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs /usr/bin/python3 and the Debian package duplicity");
    let mut stdin = python.stdin.take().unwrap();
    let lines: String = cases.iter().map(|case| serde_json::to_string(case).unwrap() + "\n").collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "duplicity's code failed; is the Debian package duplicity installed?");
    writer.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn listing(names: &[String]) -> Vec<ObjectInfo> {
    let object = |name: &String| ObjectInfo {
        name: name.as_str().into(),
        size: 1,
        version: "".into(),
        class: None,
        archived: None,
    };
    names.iter().map(object).collect()
}

fn key_of(collection: &Collection, index: SetIndex) -> Key {
    let set = collection.set(index).unwrap();
    (set.start.map(|start| start.0), set.time.0)
}

/// Returns the answer of dupfs in duplicity's terms.
fn answer(collection: &Collection, times: &[i64]) -> Answer {
    let key = |index: &SetIndex| key_of(collection, *index);
    let found = collection.chains();
    let chains: Vec<Vec<Key>> = found.chains.iter().map(|chain| chain.sets.iter().map(key).collect()).collect();
    let mut after_discard = chains.clone();
    let mut incomplete: Vec<Key> = found.incomplete.iter().map(key).collect();
    if let Some(discarded) = &found.discarded {
        incomplete.push(key(discarded));
        after_discard[found.primary.unwrap()].pop();
    }
    let selected = times.iter().map(|time| match collection.select(BackupTime(*time)) {
        Ok(snapshot) => Selected::Set(key(&snapshot.set)),
        Err(CollectionError::TwoChains { .. }) => Selected::Refused("Two chains cover the given time".into()),
        Err(CollectionError::NoSnapshot { .. }) => Selected::Refused("No backup chains found".into()),
        Err(other) => panic!("{other}"),
    });
    Answer {
        chains,
        selected: selected.collect(),
        primary: found.primary,
        after_discard,
        orphaned: found.orphaned.iter().map(key).collect(),
        incomplete,
        signature_chains: found
            .signature_chains
            .iter()
            .map(|chain| chain.names.iter().map(ToString::to_string).collect())
            .collect(),
        orphaned_signatures: found.orphaned_signatures.iter().map(ToString::to_string).collect(),
    }
}

/// True if duplicity takes the unencrypted set `base` for the base of the encrypted set `set` although an encrypted set has the
/// same time. dupfs prefers that one.
fn is_displaced(collection: &Collection, base: SetIndex, set: SetIndex) -> bool {
    let (base, set) = (collection.set(base).unwrap(), collection.set(set).unwrap());
    let mut others = collection.sets().iter().filter(|other| other.time == base.time);
    set.is_protected() && !base.is_protected() && others.any(|other| other.is_protected())
}

/// Checks the invariants of every collection, independent of duplicity's answer.
fn check_snapshots(collection: &Collection, seed: u64) {
    let mut names = std::collections::HashSet::new();
    for snapshot in collection.snapshots() {
        assert!(names.insert(&snapshot.name), "seed {seed}: {} twice", snapshot.name);
        let lineage = snapshot.lineage();
        assert_eq!(lineage, &collection.branches()[snapshot.branch][..snapshot.depth], "seed {seed}");
        assert_eq!(lineage.last(), Some(&snapshot.set), "seed {seed}");
        assert_eq!(key_of(collection, lineage[0]).0, None, "seed {seed}: starts with a full set");
        for pair in lineage.windows(2) {
            assert_eq!(key_of(collection, pair[1]).0, Some(key_of(collection, pair[0]).1), "seed {seed}");
        }
    }
    for chain in &collection.chains().chains {
        for depth in 1..=chain.sets.len() {
            if chain.sets[..depth].windows(2).any(|pair| is_displaced(collection, pair[0], pair[1])) {
                break;
            }
            let snapshot = collection.snapshot_of(chain.sets[depth - 1]).unwrap();
            assert_eq!(snapshot.lineage(), &chain.sets[..depth], "seed {seed}");
        }
    }
    let shown = collection.sets().iter().filter(|set| collection.snapshot_of(set.index).is_some()).count();
    assert_eq!(shown, collection.snapshots().len(), "seed {seed}");
    for set in collection.sets().iter().filter(|set| collection.snapshot_of(set.index).is_none()) {
        let is_reported = collection.problems().iter().any(|problem| problem.set == Some(set.index));
        assert!(is_reported, "seed {seed}: {} is missing without a problem", set.label());
    }
}

#[test]
fn chains_and_choices_are_duplicitys_own() {
    const SEEDS: u64 = 2_000;
    let cases: Vec<Case> = (0..SEEDS).map(case).collect();
    let verdicts = ask_duplicity(&cases);
    assert_eq!(verdicts.len(), cases.len());
    let (mut compared, mut displaced) = (0, 0);
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for (seed, (case, verdict)) in (0..).zip(cases.iter().zip(verdicts)) {
        let mut objects = listing(&case.names);
        let collection = match Collection::from_listing(&objects, &PrefixOptions::default()) {
            Ok(collection) => collection,
            Err(CollectionError::NoBackup { .. }) if case.names.is_empty() => continue,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        check_snapshots(&collection, seed);
        let ours = answer(&collection, &case.times);
        objects.reverse();
        let turned = Collection::from_listing(&objects, &PrefixOptions::default()).unwrap();
        assert_eq!(answer(&turned, &case.times), ours, "seed {seed}: the order of the listing matters");
        assert_eq!(turned.problems(), collection.problems(), "seed {seed}");
        let is_shown = |set: &SetIndex| collection.snapshot_of(*set).is_some();
        if !collection.chains().chains.iter().flat_map(|chain| &chain.sets).all(is_shown) {
            displaced += 1;
            continue;
        }
        if let Verdict::Answer(theirs) = verdict {
            assert_eq!(ours, theirs, "seed {seed}: {:#?}", case.names);
            compared += 1;
            let chains = collection.chains();
            for (what, there) in [
                ("replaced", !chains.replaced.is_empty()),
                ("orphaned", !chains.orphaned.is_empty()),
                ("incomplete", !chains.incomplete.is_empty()),
                ("discarded", chains.discarded.is_some()),
                ("several chains", chains.chains.len() > 1),
                ("refused", ours.selected.iter().any(|selected| matches!(selected, Selected::Refused(_)))),
                ("beyond duplicity", collection.snapshots().len() > chains.chains.iter().map(|c| c.sets.len()).sum()),
            ] {
                *kinds.entry(what).or_default() += u32::from(there);
            }
        }
    }
    assert!(displaced < SEEDS / 50, "{displaced} cases have sets that dupfs alone orphans");
    // A generator that no longer made the unusual cases would prove nothing.
    assert!(compared > SEEDS * 3 / 4, "duplicity died on {} cases", SEEDS - compared);
    assert!(kinds.values().all(|n| *n > 15), "{kinds:?}");
}
