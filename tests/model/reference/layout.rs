//! The encoding of a history: every legal choice of FORMAT.md that the history itself does not determine.

use proptest::collection::vec;
use proptest::prelude::*;

use super::tar::Dialect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrap {
    Plain,
    Gzip,
    /// gzip data in a file without a suffix, as 0.6 wrote with `--no-compression`.
    GzipUnmarked,
}

/// The bytes after the last entry of a volume (FORMAT.md 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footer {
    None,
    /// Zeros up to a multiple of 10240, at least one block.
    Padded,
    /// A single zero block and then a copy of the beginning of the volume.
    Garbage,
}

/// The division of files into parts (FORMAT.md 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    Fixed,
    /// Before 0.6.21, unencrypted: 65024, and less where the volume is nearly full. The count of stored bytes is the
    /// plain count divided by the number.
    Shrinking(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockRule {
    Capped,
    Root,
    /// Computed from another size than the one read in the end (a growing file).
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filelist {
    Absent,
    First,
    Last,
    /// `Filelist 0`, as by `--no-files-changed`.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    None,
    /// A volume was written again: it has two entries.
    Again(u8),
    /// Uploads were lost: entries of higher numbers come first, followed by those from an earlier number on.
    Lost(u8, u8),
}

/// The form in which an old Python wrote bytes that are not UTF-8 into volume headers (FORMAT.md 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mangle {
    No,
    QuestionMark,
    Replacement,
}

#[derive(Clone, Debug)]
pub(crate) struct SetLayout {
    pub(crate) seed: u64,
    pub(crate) wrap: Wrap,
    pub(crate) footer: Footer,
    pub(crate) dialect: Dialect,
    /// Entries of the other dialect in between, as after a restart by another Python.
    pub(crate) mixed: bool,
    pub(crate) mangle: Mangle,
    pub(crate) volume_bytes: usize,
    pub(crate) parts: Parts,
    pub(crate) blocks: BlockRule,
    pub(crate) filelist: Filelist,
    pub(crate) dirinfo: bool,
    /// A missing block number leaves a trailing blank.
    pub(crate) trailing_blank: bool,
    pub(crate) md5: bool,
    pub(crate) gzipped_manifest: bool,
    pub(crate) restart: Restart,
    /// StartingPath names the second entry of the volume.
    pub(crate) late_start: bool,
    pub(crate) empty_last_volume: bool,
    /// New entries that are in the signature archive and in no volume.
    pub(crate) ghosts: Vec<u16>,
    /// Parts of a file that was deleted before the restarted backup went on.
    pub(crate) half_uploaded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Long,
    Short,
    /// Local time with this offset in minutes, and the separator instead of colons.
    Old(i32, char),
}

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) names: Names,
    /// `--file-prefix`, `-archive`, `-manifest`, `-signature`.
    pub(crate) prefixes: [&'static str; 4],
    /// Foreign objects, par2 files, volumes without a set.
    pub(crate) clutter: bool,
    pub(crate) start: i64,
    pub(crate) interval: i64,
    pub(crate) sets: Vec<SetLayout>,
}

/// The oddities that may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddities {
    /// Only those that duplicity itself reads and restores.
    None,
    /// Also those that only a restart or an old Python produces.
    All,
}

fn set_layouts(oddities: Oddities) -> impl Strategy<Value = SetLayout> {
    let odd = oddities == Oddities::All;
    let writer = (
        any::<u32>(),
        prop_oneof![3 => Just(Wrap::Gzip), 2 => Just(Wrap::Plain), 1 => Just(Wrap::GzipUnmarked)],
        prop_oneof![2 => Just(Footer::None), 2 => Just(Footer::Padded), 1 => Just(Footer::Garbage)],
        prop_oneof![1 => Just(Dialect::Gnu), 1 => Just(Dialect::Pax)],
        prop::bool::weighted(0.15),
        prop_oneof![2 => Just(Mangle::No), 1 => Just(Mangle::QuestionMark), 1 => Just(Mangle::Replacement)],
        prop_oneof![1 => 1..4000usize, 2 => 40_000..90_000usize, 3 => 90_000..400_000usize, 1 => Just(10_000_000usize)],
        prop_oneof![4 => Just(Parts::Fixed), 1 => (1..5usize).prop_map(Parts::Shrinking)],
        prop_oneof![2 => Just(BlockRule::Capped), 2 => Just(BlockRule::Root), 1 => Just(BlockRule::Stale)],
    );
    let manifest = (
        prop::sample::select(vec![Filelist::Absent, Filelist::First, Filelist::Last, Filelist::Empty]),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop_oneof![
            4 => Just(Restart::None),
            1 => any::<u8>().prop_map(Restart::Again),
            1 => (any::<u8>(), 1..4u8).prop_map(|(from, lost)| Restart::Lost(from, lost)),
        ],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop_oneof![4 => Just(vec![]).boxed(), 1 => vec(any::<u16>(), 1..3).boxed()],
        prop::bool::weighted(0.1),
    );
    (writer, manifest).prop_map(move |(w, m)| SetLayout {
        seed: w.0.into(),
        wrap: w.1,
        footer: w.2,
        dialect: w.3,
        mixed: w.4,
        mangle: if odd && w.3 == Dialect::Gnu && !w.4 { w.5 } else { Mangle::No },
        volume_bytes: w.6,
        parts: w.7,
        blocks: w.8,
        filelist: m.0,
        dirinfo: m.1,
        trailing_blank: m.2,
        md5: m.3,
        gzipped_manifest: m.4,
        restart: m.5,
        late_start: m.6 && odd,
        empty_last_volume: m.7,
        ghosts: if odd { m.8 } else { vec![] },
        half_uploaded: m.9 && odd,
    })
}

pub(crate) fn layouts(oddities: Oddities) -> impl Strategy<Value = Layout> {
    let names = prop_oneof![
        4 => Just(Names::Long),
        1 => Just(Names::Short),
        1 => (prop::sample::select(vec![0, -300, 120, 330, -210, 765]), prop::sample::select(vec![':', '_', '=']))
            .prop_map(|(offset, separator)| Names::Old(offset, separator)),
    ];
    let prefixes = prop_oneof![
        4 => Just(["", "", "", ""]),
        1 => Just(["site_", "", "", ""]),
        1 => Just(["all_", "arc_", "man_", "sig_"]),
    ];
    (names, prefixes, any::<bool>(), 1_000_000_000..1_700_000_000i64, 1..200_000i64, vec(set_layouts(oddities), 1..4))
        .prop_map(move |(names, prefixes, clutter, start, interval, sets)| Layout {
            names,
            prefixes,
            clutter: clutter && oddities == Oddities::All,
            start,
            interval,
            sets,
        })
}

/// A plain layout to vary in hand-made cases: gzip, PAX, parts of 65536, volumes of about `volume_bytes`.
pub(crate) fn usual(volume_bytes: usize) -> Layout {
    Layout {
        names: Names::Long,
        prefixes: [""; 4],
        clutter: false,
        start: 1_485_569_700,
        interval: 86_400,
        sets: vec![SetLayout {
            seed: 1,
            wrap: Wrap::Gzip,
            footer: Footer::None,
            dialect: Dialect::Pax,
            mixed: false,
            mangle: Mangle::No,
            volume_bytes,
            parts: Parts::Fixed,
            blocks: BlockRule::Capped,
            filelist: Filelist::Last,
            dirinfo: true,
            trailing_blank: true,
            md5: false,
            gzipped_manifest: false,
            restart: Restart::None,
            late_start: false,
            empty_last_volume: false,
            ghosts: vec![],
            half_uploaded: false,
        }],
    }
}
