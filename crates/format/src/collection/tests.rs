use dupfs_base::{ErrorKind, HasKind};

use super::*;
use crate::VolumeNumber;

const DAY: i64 = 86_400;

/// The time of day `n` of the test's calendar.
pub(super) fn day(n: i64) -> BackupTime {
    BackupTime(1_700_000_000 + n * DAY)
}

fn object(name: &str) -> ObjectInfo {
    ObjectInfo { name: name.into(), size: 100, version: "1".into(), class: None, archived: None }
}

/// The names of a set: `volumes` volumes, the manifest and the signature archive, with `suffix`.
pub(super) fn set_names(start: Option<i64>, time: i64, volumes: u32, suffix: &str) -> Vec<String> {
    let t = day(time);
    let (set, signatures) = match start.map(day) {
        None => (format!("duplicity-full.{t}"), format!("duplicity-full-signatures.{t}")),
        Some(s) => (format!("duplicity-inc.{s}.to.{t}"), format!("duplicity-new-signatures.{s}.to.{t}")),
    };
    let mut names: Vec<String> = (1..=volumes).map(|n| format!("{set}.vol{n}.difftar{suffix}")).collect();
    names.push(format!("{set}.manifest{}", if suffix == ".gz" { "" } else { suffix }));
    names.push(format!("{signatures}.sigtar{suffix}"));
    names
}

pub(super) fn full(time: i64) -> Vec<String> {
    set_names(None, time, 2, ".gpg")
}

pub(super) fn inc(start: i64, time: i64) -> Vec<String> {
    set_names(Some(start), time, 2, ".gpg")
}

pub(super) fn listing(names: &[Vec<String>]) -> Vec<ObjectInfo> {
    names.iter().flatten().map(|name| object(name)).collect()
}

pub(super) fn without(names: Vec<String>, part: &str) -> Vec<String> {
    names.into_iter().filter(|name| !name.contains(part)).collect()
}

fn prefixed(prefix: &str, names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| format!("{prefix}{name}")).collect()
}

fn kind_prefixed(names: Vec<String>) -> Vec<String> {
    let prefix = |name: &str| match () {
        () if name.contains(".vol") => "all_arc_",
        () if name.contains(".manifest") => "all_man_",
        () => "all_sig_",
    };
    names.into_iter().map(|name| format!("{}{name}", prefix(&name))).collect()
}

pub(super) fn read(names: &[Vec<String>]) -> Collection {
    Collection::from_listing(&listing(names), &PrefixOptions::default()).unwrap()
}

fn read_error(names: &[Vec<String>], options: &PrefixOptions) -> CollectionError {
    Collection::from_listing(&listing(names), options).unwrap_err()
}

pub(super) fn shown(collection: &Collection) -> Vec<String> {
    collection.snapshots().iter().map(|snapshot| snapshot.name.to_string()).collect()
}

pub(super) fn days(times: &[i64]) -> Vec<String> {
    times.iter().map(|n| day(*n).to_string()).collect()
}

fn kinds(collection: &Collection) -> Vec<ProblemKind> {
    collection.problems().iter().map(|problem| problem.kind).collect()
}

fn problem(collection: &Collection, kind: ProblemKind) -> &Problem {
    let found = collection.problems().iter().find(|problem| problem.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind:?} among {:#?}", collection.problems()))
}

fn selected(collection: &Collection, at: i64) -> String {
    collection.select(day(at)).unwrap().name.to_string()
}

#[test]
fn a_chain_is_one_branch_and_its_newest_snapshot_is_latest() {
    let collection = read(&[inc(1, 2), full(0), inc(0, 1)]);
    assert_eq!(shown(&collection), days(&[0, 1, 2]));
    assert_eq!(collection.branches().len(), 1);
    let latest = collection.latest().unwrap();
    assert_eq!((latest.branch, latest.depth), (0, 3));
    assert_eq!(latest.lineage(), [SetIndex(0), SetIndex(1), SetIndex(2)]);
    assert_eq!(collection.snapshots()[1].lineage(), [SetIndex(0), SetIndex(1)]);
    assert_eq!(collection.problems(), []);
    assert_eq!(collection.set(SetIndex(1)).unwrap().label(), format!("inc {} to {}", day(0), day(1)));
    assert_eq!(collection.set(SetIndex(0)).unwrap().label(), format!("full {}", day(0)));
    assert_eq!(collection.set(SetIndex(0)).unwrap().stored_bytes(), 400);
    assert_eq!(collection.chains().primary, Some(0));
}

#[test]
fn a_time_selects_the_snapshot_that_duplicity_selects() {
    // docs/FORMAT.md section 7
    let collection = read(&[full(0), inc(0, 10), full(20), inc(20, 30)]);
    assert_eq!(selected(&collection, -5), days(&[0])[0], "before everything: the oldest full set");
    assert_eq!(selected(&collection, 9), days(&[0])[0]);
    assert_eq!(selected(&collection, 10), days(&[10])[0]);
    assert_eq!(selected(&collection, 15), days(&[10])[0], "between chains: the end of the older");
    assert_eq!(selected(&collection, 20), days(&[20])[0]);
    assert_eq!(selected(&collection, 99), days(&[30])[0]);
}

#[test]
fn overlapping_chains_are_selected_as_by_duplicity() {
    let collection = read(&[full(0), inc(0, 20), full(10)]);
    assert_eq!(selected(&collection, 15), days(&[0])[0], "the covering chain wins over the nearer full set");
    let error = collection.select(day(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let line = error.to_string();
    assert!(line.contains(&format!("{}-{}", day(0), day(20))) && line.contains(&day(10).to_string()), "{line}");
    assert_eq!(selected(&collection, 99), days(&[20])[0]);
    assert_eq!(kinds(&collection), [ProblemKind::Overlap]);
    assert_eq!(shown(&collection), days(&[0, 10, 20]));
}

#[test]
fn increments_of_clients_that_raced_are_all_shown() {
    // docs/FORMAT.md section 7: duplicity keeps 0 to 15, drops 0 to 10 and orphans 10 to 20.
    let collection = read(&[full(0), inc(0, 10), inc(0, 15), inc(10, 20)]);
    assert_eq!(shown(&collection), days(&[0, 10, 15, 20]));
    let chains = collection.chains();
    assert_eq!(chains.chains[0].sets, [SetIndex(0), SetIndex(2)]);
    assert_eq!(chains.replaced, [ReplacedSet { set: SetIndex(1), by: SetIndex(2) }]);
    assert_eq!(chains.orphaned, [SetIndex(3)]);
    assert_eq!(collection.latest().unwrap().time, day(15), "latest is what duplicity restores");
    assert_eq!(collection.snapshots()[3].lineage(), [SetIndex(0), SetIndex(1), SetIndex(3)]);
    assert_eq!(collection.branches().len(), 2);
    let orphan = collection.problems().iter().find(|p| p.set == Some(SetIndex(3))).unwrap();
    assert!(orphan.message.contains("newer than 'latest'"), "{}", orphan.message);
}

#[test]
fn an_increment_without_its_base_is_orphaned_and_the_message_names_the_base() {
    let collection = read(&[full(0), inc(1, 2), inc(2, 3)]);
    assert_eq!(shown(&collection), days(&[0]));
    let messages: Vec<&str> = collection.problems().iter().map(|p| p.message.as_str()).collect();
    assert_eq!(kinds(&collection), [ProblemKind::Orphaned, ProblemKind::Orphaned]);
    assert!(
        messages[0].contains(&format!("a set of the time {}, which is missing from the store", day(1))),
        "{messages:?}"
    );
    assert!(messages[1].contains(&format!("inc {} to {}, which is orphaned itself", day(1), day(2))), "{messages:?}");
}

#[test]
fn a_set_without_manifest_is_reported_with_its_increments() {
    let collection = read(&[full(0), without(inc(0, 1), "manifest"), inc(1, 2)]);
    assert_eq!(shown(&collection), days(&[0]));
    assert_eq!(collection.chains().incomplete, [SetIndex(1)]);
    assert!(problem(&collection, ProblemKind::ManifestMissing).message.contains("2 volumes"));
    let orphan = problem(&collection, ProblemKind::Orphaned);
    assert!(orphan.message.contains(&format!("inc {} to {}, which has no manifest", day(0), day(1))), "{orphan:?}");
}

#[test]
fn a_collection_without_snapshots_is_an_error_only_when_one_is_selected() {
    let collection = read(&[without(full(0), "manifest")]);
    assert_eq!(collection.snapshots(), []);
    assert!(collection.latest().is_none());
    assert_eq!(collection.select(day(0)).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kinds(&collection), [ProblemKind::ManifestMissing]);
}

#[test]
fn a_set_without_signature_archive_is_shown() {
    let collection = read(&[full(0), inc(0, 1), without(inc(1, 2), "signatures")]);
    assert_eq!(collection.latest().unwrap().time, day(2));
    assert_eq!(collection.chains().discarded, Some(SetIndex(2)), "duplicity would lose the set");
    assert_eq!(kinds(&collection), [ProblemKind::SignatureMissing, ProblemKind::Dropped]);
}

#[test]
fn a_signature_archive_without_its_set_is_reported() {
    let collection = read(&[full(0), without(inc(0, 1), "duplicity-inc")]);
    assert_eq!(collection.sets().len(), 1);
    assert_eq!(kinds(&collection), [ProblemKind::StraySignature]);
}

#[test]
fn missing_volumes_are_reported_as_ranges() {
    let mut names = set_names(None, 0, 9, ".gz");
    for gone in ["vol2.", "vol3.", "vol7."] {
        names = without(names, gone);
    }
    let collection = read(&[names, without(inc(0, 1), "vol")]);
    assert!(problem(&collection, ProblemKind::MissingVolumes).message.contains("volumes 2-3, 7 are missing"));
    assert!(problem(&collection, ProblemKind::NoVolumes).message.contains("inc "));
    assert_eq!(shown(&collection).len(), 2, "the trees can be listed");
}

#[test]
fn the_duplicate_with_the_suffix_of_the_set_is_chosen() {
    let mut names = set_names(None, 0, 3, ".gpg");
    names.push(format!("duplicity-full.{}.vol2.difftar.gz", day(0)));
    names.push(format!("duplicity-full.{}.manifest", day(0)));
    for turn in 0..names.len() {
        names.rotate_left(turn);
        let collection = read(&[names.clone()]);
        let set = &collection.sets()[0];
        assert!(set.manifest.as_ref().unwrap().name.ends_with(".manifest.gpg"));
        assert!(set.volumes[&VolumeNumber(2)].name.ends_with(".gpg"));
        assert_eq!(set.duplicates.len(), 2);
        assert_eq!(kinds(&collection), [ProblemKind::Duplicate, ProblemKind::Duplicate]);
    }
}

#[test]
fn sets_of_one_time_have_different_snapshot_names() {
    let collection = read(&[full(0), inc(0, 5), full(5), inc(5, 6)]);
    let five = day(5).to_string();
    let names = shown(&collection);
    assert_eq!(names, [days(&[0])[0].clone(), five.clone(), format!("{five}-from-{}", day(0)), days(&[6])[0].clone()]);
    assert!(kinds(&collection).contains(&ProblemKind::EqualTimes));
    assert_eq!(collection.snapshot_named(&names[2]).unwrap().set, SetIndex(2));
    // duplicity continues the chain of the older full set
    assert_eq!(collection.snapshots()[3].lineage(), [SetIndex(0), SetIndex(2), SetIndex(3)]);
}

#[test]
fn increments_that_build_on_each_other_in_a_cycle_are_orphaned() {
    let collection = read(&[full(0), inc(5, 3), inc(3, 5), inc(7, 7)]);
    assert_eq!(shown(&collection), days(&[0]));
    let orphans = kinds(&collection).iter().filter(|kind| **kind == ProblemKind::Orphaned).count();
    assert_eq!(orphans, 3);
}

#[test]
fn an_increment_older_than_its_base_is_shown() {
    let collection = read(&[full(5), inc(5, 3)]);
    assert_eq!(shown(&collection), days(&[3, 5]));
    assert_eq!(collection.snapshots()[0].lineage(), [SetIndex(1), SetIndex(0)]);
    assert_eq!(problem(&collection, ProblemKind::Backwards).severity, Severity::Warning);
}

#[test]
fn a_listing_without_backup_is_an_error_that_counts_the_objects() {
    let options = PrefixOptions::default();
    let empty = read_error(&[], &options);
    assert_eq!(empty.kind(), ErrorKind::NotFound);
    assert!(empty.to_string().contains("no file is directly in this location"), "{empty}");
    let foreign = read_error(&[vec!["notes.txt".into(), "duplicity-full.manifest".into()]], &options);
    assert!(foreign.to_string().contains("2 objects, none of them"), "{foreign}");
}

#[test]
fn foreign_names_are_counted_and_ignored() {
    let collection = read(&[full(0), vec!["lockfile".into(), "x.par2".into()]]);
    assert_eq!(collection.foreign_objects(), 2);
    assert_eq!(collection.problems(), []);
}

#[test]
fn the_only_prefix_is_chosen_without_options() {
    let collection = read(&[prefixed("web_", full(0)), prefixed("web_", inc(0, 1))]);
    assert_eq!(shown(&collection), days(&[0, 1]));
    assert_eq!(collection.prefixes().manifest, "web_");
}

#[test]
fn prefixes_of_different_kinds_are_joined_by_their_sets() {
    let collection = read(&[kind_prefixed(full(0)), kind_prefixed(inc(0, 1))]);
    assert_eq!(shown(&collection), days(&[0, 1]));
    assert_eq!(collection.problems(), []);
    let prefixes = collection.prefixes();
    assert_eq!([&*prefixes.archive, &*prefixes.manifest, &*prefixes.signature], ["all_arc_", "all_man_", "all_sig_"]);
}

#[test]
fn the_backup_without_prefix_is_chosen_and_the_others_are_reported() {
    let collection = read(&[full(0), prefixed("web_", full(1)), kind_prefixed(full(2))]);
    assert_eq!(shown(&collection), days(&[0]));
    assert_eq!(kinds(&collection), [ProblemKind::OtherBackup, ProblemKind::OtherBackup]);
    let messages: String = collection.problems().iter().map(|p| p.message.as_str()).collect();
    assert!(messages.contains("--file-prefix web_"), "{messages}");
    assert!(messages.contains("--file-prefix-archive all_arc_ --file-prefix-manifest all_man_"), "{messages}");
}

#[test]
fn several_prefixes_without_a_choice_are_an_error_that_names_them() {
    let names = [prefixed("web_", full(1)), prefixed("db server ", full(1)), kind_prefixed(full(2))];
    let error = read_error(&names, &PrefixOptions::default());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let line = error.to_string();
    for option in ["--file-prefix web_", "--file-prefix 'db server '", "--file-prefix-signature all_sig_"] {
        assert!(line.contains(option), "{line}");
    }
    let chosen = PrefixOptions { file_prefix: Some("db server ".into()), ..PrefixOptions::default() };
    let collection = Collection::from_listing(&listing(&names), &chosen).unwrap();
    assert_eq!(shown(&collection), days(&[1]));
}

#[test]
fn prefix_options_are_combined_as_by_duplicity() {
    let options = PrefixOptions {
        file_prefix: Some("all_".into()),
        archive: Some("arc_".into()),
        manifest: Some("man_".into()),
        signature: Some("sig_".into()),
    };
    let collection = Collection::from_listing(&listing(&[kind_prefixed(full(0)), full(1)]), &options).unwrap();
    assert_eq!(shown(&collection), days(&[0]));
}

#[test]
fn a_prefix_that_does_not_exist_is_an_error_that_names_existing_ones() {
    let options = PrefixOptions { file_prefix: Some("webb_".into()), ..PrefixOptions::default() };
    let error = read_error(&[prefixed("web_", full(1))], &options);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("with --file-prefix webb_ here"), "{error}");
    assert!(error.to_string().contains("try --file-prefix web_"), "{error}");
    let plain = PrefixOptions { file_prefix: Some(String::new()), ..PrefixOptions::default() };
    assert!(read_error(&[prefixed("web_", full(1))], &plain).to_string().contains("without a prefix"));
}

#[test]
fn a_backup_in_a_subdirectory_is_named_and_not_chosen() {
    let error = read_error(&[prefixed("host1/", full(1))], &PrefixOptions::default());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("the URL with 'host1' appended"), "{error}");
}

#[test]
fn leftover_signatures_of_another_prefix_do_not_require_a_choice() {
    let collection = read(&[prefixed("web_", full(1)), prefixed("old_", without(full(0), "duplicity-full."))]);
    assert_eq!(shown(&collection), days(&[1]));
    assert_eq!(kinds(&collection), [ProblemKind::OtherBackup]);
}

#[test]
fn sets_of_gpgsm_are_refused_by_name() {
    let error = read_error(&[set_names(None, 0, 1, ".p7m")], &PrefixOptions::default());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("gpgsm"), "{error}");
    let collection = read(&[full(0), set_names(Some(0), 1, 1, ".p7m")]);
    assert_eq!(kinds(&collection), [ProblemKind::Unsupported]);
    assert_eq!(shown(&collection), days(&[0, 1]), "'latest' does not silently become an older snapshot");
}

#[test]
fn archived_and_empty_objects_are_reported() {
    let mut objects = listing(&[full(0), inc(0, 1)]);
    for object in objects.iter_mut().filter(|o| o.name.contains(".vol") || o.name.contains("new-sig")) {
        object.archived = Some("GLACIER".into());
    }
    let empty = objects.iter().position(|o| o.name.contains("inc") && o.name.contains("manifest")).unwrap();
    objects[empty].size = 0;
    let collection = Collection::from_listing(&objects, &PrefixOptions::default()).unwrap();
    assert_eq!(kinds(&collection), [ProblemKind::EmptyObject, ProblemKind::Archived, ProblemKind::Archived]);
    assert!(collection.problems()[2].message.contains("4 volumes (400 bytes)"), "{:?}", collection.problems());
}

#[test]
fn three_hundred_increments_and_many_volumes_take_seconds() {
    let mut names = vec![set_names(None, 0, 10_000, ".gpg")];
    names.extend((0..300).map(|n| set_names(Some(n), n + 1, 30, ".gpg")));
    let objects = listing(&names);
    let before = std::time::Instant::now();
    let collection = Collection::from_listing(&objects, &PrefixOptions::default()).unwrap();
    let took = before.elapsed();
    assert_eq!(collection.latest().unwrap().depth, 301);
    assert_eq!(collection.branches().len(), 1);
    assert!(took.as_secs() < 5, "{took:?}");
}

/// Every branch lists the sets that it shares with others.
#[test]
fn a_chain_with_more_branches_than_any_backup_has_takes_bounded_memory() {
    let mut names = vec![full(0)];
    names.extend((0..3000).map(|n| inc(n, n + 1)));
    names.extend((0..3000).map(|n| inc(3000, 3001 + n)));
    let collection = read(&names);
    let listed: usize = collection.branches().iter().map(|branch| branch.len()).sum();
    assert!((1 << 21..5 << 20).contains(&listed), "{listed}");
    let hidden = 6001 - collection.snapshots().len();
    assert!((1..2000).contains(&hidden), "{hidden}");
    let orphans = collection.problems().iter().filter(|problem| problem.kind == ProblemKind::Orphaned);
    assert_eq!(orphans.count(), hidden, "each is reported");
    assert!(problem(&collection, ProblemKind::Orphaned).message.contains("more increments build on the same sets"));
    // Those that a refresh brings too.
    let refreshed = read(&names[..3001]).refreshed(&listing(&names)).unwrap();
    let listed: usize = refreshed.branches().iter().map(|branch| branch.len()).sum();
    assert!((1 << 21..5 << 20).contains(&listed), "{listed}");
    assert_eq!(refreshed.problems().iter().filter(|problem| problem.kind == ProblemKind::Orphaned).count(), hidden);
}

#[test]
fn ten_thousand_prefixes_are_refused_within_seconds() {
    let names: Vec<Vec<String>> = (0..10_000).map(|n| without(prefixed(&format!("h{n}_"), full(0)), ".vol")).collect();
    let before = std::time::Instant::now();
    let error = read_error(&names, &PrefixOptions::default());
    assert!(error.to_string().ends_with("9992 more"), "{error}");
    assert!(before.elapsed().as_secs() < 5);
}

fn rebuilding(names: &[Vec<String>]) -> Collection {
    let options = CollectionOptions { rebuild: true, ..CollectionOptions::default() };
    Collection::from_listing_with(&listing(names), &options).unwrap()
}

/// Volumes and an archive that can prove them, both encrypted or neither.
#[test]
fn a_set_without_a_manifest_is_rebuilt_only_if_its_signature_archive_can_prove_it() {
    let lost = |suffix: &str| without(set_names(None, 0, 2, suffix), ".manifest");
    let other_archive = |suffix: &str, archive: &str| {
        let names = lost(suffix).into_iter();
        names.map(|name| if name.contains("sigtar") { name.replace(suffix, archive) } else { name }).collect()
    };
    let cases: [(&str, Vec<String>, bool); 8] = [
        ("encrypted", lost(".gpg"), true),
        ("gzip", lost(".gz"), true),
        ("plain", lost(""), true),
        ("an archive that may be forged", other_archive(".gpg", ".gz"), false),
        ("an encrypted archive of plain volumes", other_archive(".gz", ".gpg"), false),
        ("no archive", without(lost(".gpg"), "sigtar"), false),
        ("no volume", without(lost(".gpg"), ".vol"), false),
        ("with a manifest", full(0), false),
    ];
    for (case, names, expected) in cases {
        let names = [names, full(5)];
        let rebuilt = rebuilding(&names);
        let is_rebuilt = rebuilt.sets()[0].is_rebuilt;
        assert_eq!(is_rebuilt, expected, "{case}");
        let shown = rebuilt.snapshots().len();
        assert_eq!(shown, read(&names).snapshots().len() + usize::from(expected), "{case}");
    }
    // Increments on a rebuilt set are shown too.
    let chain = [without(full(0), ".manifest"), inc(0, 1)];
    assert_eq!((read(&chain).snapshots().len(), rebuilding(&chain).snapshots().len()), (0, 2));
    assert!(matches!(
        read(&chain).select(day(1)),
        Err(error @ CollectionError::NoSnapshot { rebuildable: 1, .. }) if error.to_string().contains("--rebuild")
    ));
}

#[test]
fn a_refresh_does_not_mix_what_is_proved_with_what_is_verified() {
    let (whole, lost) = ([full(0)], [without(full(0), ".manifest")]);
    // The manifest returns: the mount continues as before.
    let returned = rebuilding(&lost).refreshed(&listing(&whole)).unwrap();
    assert!(returned.sets()[0].is_rebuilt && returned.sets()[0].manifest.is_some());
    // The manifest disappears: its set is still read by it, or not at all.
    let gone = rebuilding(&whole).refreshed(&listing(&lost)).unwrap();
    assert!(!gone.sets()[0].is_rebuilt && gone.sets()[0].manifest.is_some());
    assert_eq!(gone.snapshots().len(), 1);
}
