use super::ids::NodeId;
use super::staged_set::StagedSet;
use super::version_table::{Change, VersionTable};
use dupfs_format::sigtar::SizeBounds;
use dupfs_format::{ArchivePath, EntryKind, EntryMeta};

pub(super) fn path(text: &str) -> ArchivePath {
    ArchivePath::parse(text.as_bytes()).unwrap()
}

pub(super) fn present(kind: EntryKind, bounds: Option<(u64, u64)>) -> Change {
    let (uname, gname) = ((*b"user").into(), (*b"group").into());
    let meta = EntryMeta { kind, mode: 0o640, uid: 1000, gid: 100, uname, gname, mtime: -7 };
    Change::Present(meta, bounds.map(|(min, max)| SizeBounds { blocks: 0, min, max }))
}

/// Two sets: the second changes, adds and deletes.
pub(super) fn sets() -> Vec<Vec<(ArchivePath, Change)>> {
    let file = |bounds| present(EntryKind::File, bounds);
    let link = present(EntryKind::Symlink((*b"to").into()), None);
    vec![
        vec![
            (path(""), present(EntryKind::Dir, None)),
            (path("a"), present(EntryKind::Dir, None)),
            (path("a/b"), file(Some((1, 2048)))),
            (path("a/c"), file(None)),
            (path("a!"), file(Some((0, 0)))),
            (path("dev"), present(EntryKind::BlockDevice(8, 1), None)),
            (path("l"), link.clone()),
        ],
        vec![
            (path("a/b"), file(Some((2049, 4096)))),
            (path("a/c"), Change::Deleted),
            (path("a/d/e/f"), file(Some((4096, 4096)))),
            (path("l"), link),
        ],
    ]
}

pub(super) fn table() -> VersionTable {
    let mut table = VersionTable::default();
    for set in sets() {
        table.begin_set().unwrap();
        set.into_iter().for_each(|(path, change)| table.push(&path, change).unwrap());
        table.publish_set().unwrap();
    }
    table
}

#[test]
fn staged_entries_are_read_back_unchanged() {
    for mut entries in sets() {
        for n in 0..3000 {
            entries.push((path(&format!("z/{n}")), present(EntryKind::File, Some((n, n + 1)))));
        }
        let mut staged = StagedSet::default();
        entries.iter().for_each(|(path, change)| staged.push(path, change.clone()));
        assert_eq!(staged.last_path(), Some(&b"z/2999"[..]));
        let (mut last, mut back) = (Vec::new(), Vec::new());
        loop {
            let piece = staged.take_piece(&mut last).unwrap();
            if piece.is_empty() {
                break;
            }
            back.extend(piece);
        }
        assert_eq!(back, entries);
    }
}

#[test]
fn each_depth_shows_its_own_versions() {
    let table = table();
    let b = table.find(&path("a/b")).unwrap();
    let bounds = |depth| table.bounds(table.version(b, depth).unwrap()).map(|b| (b.min, b.max));
    assert_eq!((bounds(1), bounds(2)), (Some((1, 2048)), Some((2049, 4096))));
    let c = table.find(&path("a/c")).unwrap();
    assert!(table.version(c, 1).is_some() && table.version(c, 2).is_none());
    let e = table.find(&path("a/d/e")).unwrap();
    assert!(!table.is_implied_dir(e, 1) && table.is_implied_dir(e, 2));
    assert_eq!(table.path(e), path("a/d/e"));
    assert_eq!(table.index_in_set(table.version(b, 2).unwrap()), Some((1, 0)));
    assert!(table.is_named(b, 0) && table.is_named(b, 1) && table.is_named(c, 1) && !table.is_named(e, 1));
    let history: Vec<_> = table.file_history(b, 2).iter().map(|v| v.position).collect();
    assert_eq!(history, [1, 0]);
}

#[test]
fn a_recorded_size_keeps_its_bounds() {
    let table = table();
    for (name, size) in [("a/b", 4096), ("a/b", 2049), ("a!", 0), ("a/d/e/f", 4096), ("a/c", 17)] {
        let depth = if name == "a/c" { 1 } else { 2 };
        let version = table.version(table.find(&path(name)).unwrap(), depth).unwrap();
        let bounds = table.bounds(version);
        table.set_exact_size(version, size);
        assert_eq!(table.exact_size(version), Some(size), "{name}");
        assert_eq!(table.bounds(version), bounds, "{name}");
        assert!(!table.set_exact_size(version, size));
    }
}

#[test]
fn a_set_is_seen_once_it_is_published() {
    let mut table = table();
    let (b, new) = (path("a/b"), path("new"));
    let before = table.version(table.find(&b).unwrap(), 2);
    table.begin_set().unwrap();
    table.push(&b, Change::Deleted).unwrap();
    table.push(&new, present(EntryKind::File, None)).unwrap();
    for depth in [2, 3, 9] {
        assert_eq!(table.version(table.find(&b).unwrap(), depth), before);
        assert_eq!(table.version(table.find(&new).unwrap(), depth), None);
    }
    assert_eq!(table.depth(), 2);
    table.publish_set().unwrap();
    assert_eq!(table.version(table.find(&b).unwrap(), 3), None);
    assert!(table.version(table.find(&new).unwrap(), 3).is_some());
}

#[test]
fn siblings_follow_the_order_of_the_sets() {
    let mut table = table();
    table.finish_building();
    table.begin_set().unwrap();
    table.push(&path("b"), present(EntryKind::File, None)).unwrap();
    let (mut names, mut child) = (Vec::new(), table.first_child(NodeId::ROOT));
    while let Some(node) = child {
        names.push(table.name(node));
        child = table.next_sibling(node);
    }
    assert_eq!(names, [&b"a"[..], b"a!", b"dev", b"l", b"b"]);
}

/// The rule for implied directories in its simple form: examines everything below `node`.
fn something_below_exists(table: &VersionTable, node: NodeId, depth: u32) -> bool {
    if table.history(node, depth).next().is_some() {
        return false;
    }
    let children = std::iter::successors(table.first_child(node), |child| table.next_sibling(*child));
    children
        .into_iter()
        .any(|child| table.version(child, depth).is_some() || something_below_exists(table, child, depth))
}

/// The rule for `existed` in its plain form.
fn something_existed(table: &VersionTable, node: NodeId, depth: u32) -> bool {
    let mut children = std::iter::successors(table.first_child(node), |child| table.next_sibling(*child));
    table.history(node, depth).any(|version| table.meta(version).is_some())
        || children.any(|child| something_existed(table, child, depth))
}

/// Numbers below `limit` that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A table of up to five sets of random changes, few paths and deep ones; in a third of them the last set is not published.
fn random_table(numbers: &mut Numbers) -> VersionTable {
    let mut table = VersionTable::default();
    let sets = numbers.below(5) + 1;
    for set in 0..sets {
        table.begin_set().unwrap();
        for _ in 0..numbers.below(8) {
            let names: Vec<&str> =
                (0..numbers.below(5)).map(|_| ["a", "b", "c"][usize::try_from(numbers.below(3)).unwrap()]).collect();
            let change = match numbers.below(3) {
                0 => Change::Deleted,
                1 => present(EntryKind::Dir, None),
                _ => present(EntryKind::File, None),
            };
            table.push(&path(&names.join("/")), change).unwrap();
        }
        if set + 1 < sets || numbers.below(3) > 0 {
            table.publish_set().unwrap();
        }
    }
    table
}

#[test]
fn implied_directories_agree_with_a_full_search() {
    let mut numbers = Numbers(1);
    let (mut implied, mut existed) = (0, 0);
    for _ in 0..5000 {
        let table = random_table(&mut numbers);
        for node in (0..u32::try_from(table.len()).unwrap()).map(NodeId) {
            for depth in 0..7 {
                let want = something_below_exists(&table, node, depth);
                assert_eq!(
                    table.is_implied_dir(node, depth),
                    want,
                    "{:?} at depth {depth}: {table:?}",
                    table.path(node)
                );
                implied += usize::from(want);
                let want = something_existed(&table, node, depth);
                assert_eq!(table.existed(node, depth), want, "{:?} at depth {depth}: {table:?}", table.path(node));
                existed += usize::from(want);
            }
        }
    }
    assert!(implied > 1000 && existed > implied, "{implied} implied directories, {existed} that existed");
}

#[test]
fn a_directory_of_later_sets_only_is_recognized_without_searching_below_it() {
    let mut table = VersionTable::default();
    table.begin_set().unwrap();
    table.push(&path(""), present(EntryKind::Dir, None)).unwrap();
    table.publish_set().unwrap();
    table.begin_set().unwrap();
    for n in 0..300_000 {
        table.push(&path(&format!("later/{n}")), present(EntryKind::File, None)).unwrap();
    }
    table.publish_set().unwrap();
    let later = table.find(&path("later")).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..10_000 {
        assert!(!table.is_implied_dir(later, 1) && !table.existed(later, 1));
    }
    // A scan of all entries takes milliseconds, which would add up to a minute.
    assert!(start.elapsed().as_secs() < 5, "took {:?}", start.elapsed());
    assert!(table.is_implied_dir(later, 2) && table.existed(later, 2));
}

#[test]
fn spans_are_the_states_of_each_depth() {
    let mut numbers = Numbers(11);
    for _ in 0..300 {
        let table = random_table(&mut numbers);
        for node in (0..u32::try_from(table.len()).unwrap()).map(NodeId) {
            let spans = table.state_spans(node, table.depth());
            let positions: Vec<u32> = spans.iter().flat_map(|span| span.positions.clone()).collect();
            assert!(positions.is_sorted_by(|a, b| a < b), "{spans:?}");
            for depth in 1..=table.depth() {
                let found = spans.iter().find(|span| span.positions.contains(&(depth - 1)));
                let expected = match table.version(node, depth) {
                    Some(version) => Some(Some(version)),
                    None => something_below_exists(&table, node, depth).then_some(None),
                };
                assert_eq!(found.map(|span| span.version), expected, "{} at {depth}: {spans:?}", table.path(node));
            }
        }
    }
}
