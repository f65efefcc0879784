//! Object names and manifests, written from FORMAT.md 1 and 2.

use super::layout::{Filelist, Layout, Names, Restart, SetLayout, Wrap};
use super::tree::{Path, joined};

/// `seconds` as duplicity names it since 0.5.10.
pub(crate) fn utc(seconds: i64) -> String {
    let t = civil(seconds);
    format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", t.0, t.1, t.2, t.3, t.4, t.5)
}

/// Year, month, day, hour, minute, second.
fn civil(seconds: i64) -> (i64, i64, i64, i64, i64, i64) {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // days since 0000-03-01, in eras of 400 years
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

/// Local time as `--old-filenames` writes it: negative zones with minutes come out wrong (FORMAT.md 1), as
/// `-(hour rounded down):minutes of the positive remainder`.
fn old(seconds: i64, offset_minutes: i32, separator: char) -> String {
    let t = civil(seconds + i64::from(offset_minutes) * 60);
    let zone = if offset_minutes == 0 {
        "Z".to_owned()
    } else {
        let (hours, minutes) = (offset_minutes.div_euclid(60), offset_minutes.rem_euclid(60));
        let sign = if hours < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{minutes:02}", hours.abs())
    };
    let text = format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{zone}", t.0, t.1, t.2, t.3, t.4, t.5);
    text.replace(':', &separator.to_string())
}

fn base36(mut n: i64) -> String {
    let mut out = Vec::new();
    loop {
        out.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize]);
        n /= 36;
        if n == 0 {
            break;
        }
    }
    out.reverse();
    String::from_utf8(out).unwrap()
}

/// Names of the objects of one set.
#[derive(Clone, Debug)]
pub(crate) struct SetNames {
    names: Names,
    prefixes: [&'static str; 4],
    start: Option<i64>,
    end: i64,
    suffix: &'static str,
    pub(crate) gzipped_manifest: bool,
}

impl SetNames {
    pub(crate) fn new(layout: &Layout, set: &SetLayout, start: Option<i64>, end: i64) -> Self {
        let suffix = match (set.wrap, layout.names) {
            (Wrap::Gzip, Names::Short) => ".z",
            (Wrap::Gzip, _) => ".gz",
            _ => "",
        };
        Self {
            names: layout.names,
            prefixes: layout.prefixes,
            start,
            end,
            suffix,
            gzipped_manifest: set.gzipped_manifest && set.wrap == Wrap::Gzip,
        }
    }

    fn build(&self, kind: usize, full: &str, inc: &str, tail: &str, suffix: &str) -> String {
        let time = |t: i64| match self.names {
            Names::Long => utc(t),
            Names::Short => base36(t),
            Names::Old(offset, separator) => old(t, offset, separator),
        };
        let between = if self.names == Names::Short { "." } else { ".to." };
        let stem = match self.start {
            None => format!("{full}.{}", time(self.end)),
            Some(start) => format!("{inc}.{}{between}{}", time(start), time(self.end)),
        };
        format!("{}{}{stem}.{tail}{suffix}", self.prefixes[0], self.prefixes[kind])
    }

    pub(crate) fn volume(&self, number: usize) -> String {
        match self.names {
            Names::Short => self.build(1, "df", "di", &format!("{}.dt", base36(number as i64)), self.suffix),
            _ => self.build(1, "duplicity-full", "duplicity-inc", &format!("vol{number}.difftar"), self.suffix),
        }
    }

    pub(crate) fn manifest(&self) -> String {
        let suffix = if self.gzipped_manifest { self.suffix } else { "" };
        match self.names {
            Names::Short => self.build(2, "df", "di", "m", suffix),
            _ => self.build(2, "duplicity-full", "duplicity-inc", "manifest", suffix),
        }
    }

    pub(crate) fn sigtar(&self) -> String {
        match self.names {
            Names::Short => self.build(3, "dfs", "dns", "st", self.suffix),
            _ => self.build(3, "duplicity-full-signatures", "duplicity-new-signatures", "sigtar", self.suffix),
        }
    }
}

/// A path with the part number the manifest shows, if it shows one (FORMAT.md 2.1).
pub(crate) type Place = (Path, Option<usize>);

#[derive(Clone, Debug)]
pub(crate) struct VolumeRecord {
    pub(crate) number: usize,
    pub(crate) start: Place,
    pub(crate) end: Place,
    pub(crate) hash: String,
}

/// `path` as a manifest shows it.
pub(crate) fn quoted(path: &Path) -> Vec<u8> {
    if path.is_empty() {
        return b".".to_vec();
    }
    let raw = joined(path);
    let odd = |b: &u8| b"\t\n\x0b\x0c\r \\\"'".contains(b);
    if !raw.iter().any(odd) {
        return raw;
    }
    let mut out = vec![b'"'];
    for b in &raw {
        if odd(b) {
            out.extend_from_slice(format!("\\x{b:02x}").as_bytes());
        } else {
            out.push(*b);
        }
    }
    out.push(b'"');
    out
}

fn volume_text(record: &VolumeRecord, set: &SetLayout) -> Vec<u8> {
    let place = |(path, part): &Place| {
        let mut out = quoted(path);
        match part {
            Some(part) => out.extend_from_slice(format!(" {part}").as_bytes()),
            None if set.trailing_blank => out.extend_from_slice(b"  "),
            None => {}
        }
        out
    };
    [
        format!("Volume {}:\n    StartingPath   ", record.number).as_bytes(),
        &place(&record.start),
        b"\n    EndingPath     ",
        &place(&record.end),
        format!("\n    Hash {}\n", record.hash).as_bytes(),
    ]
    .concat()
}

/// The manifest's text. `files` are the regular files of the set with what happened to them.
pub(crate) fn manifest(records: &[VolumeRecord], files: &[(&str, Path)], set: &SetLayout) -> Vec<u8> {
    let mut filelist = Vec::new();
    if set.filelist == Filelist::Empty {
        filelist.extend_from_slice(b"Filelist 0\n");
    } else {
        filelist.extend_from_slice(format!("Filelist {}\n", files.len()).as_bytes());
        for (what, path) in files {
            filelist.extend_from_slice(format!("    {what:<7}  ").as_bytes());
            filelist.extend(quoted(path));
            filelist.push(b'\n');
        }
    }
    let mut out = Vec::new();
    if set.dirinfo {
        out.extend_from_slice(b"Hostname vm\nLocaldir \"my\\x20source\"\n");
    }
    if set.filelist == Filelist::First {
        out.extend_from_slice(&filelist);
    }
    for record in restarted(records, set) {
        out.extend(volume_text(&record, set));
    }
    if matches!(set.filelist, Filelist::Last | Filelist::Empty) {
        out.extend_from_slice(&filelist);
    }
    out
}

/// The records as a restarted backup leaves them (FORMAT.md 2.3): the last entry of a number counts, and none above the
/// number of the last entry.
fn restarted(records: &[VolumeRecord], set: &SetLayout) -> Vec<VolumeRecord> {
    let stale = |number: usize| {
        let like = &records[(number - 1).min(records.len() - 1)];
        VolumeRecord { number, end: like.start.clone(), hash: format!("SHA1 {:040x}", number + 1), ..like.clone() }
    };
    match set.restart {
        Restart::None => records.to_vec(),
        Restart::Again(pick) => {
            let at = usize::from(pick) % records.len();
            let mut out = records[..at].to_vec();
            out.push(stale(at + 1));
            out.extend_from_slice(&records[at..]);
            out
        }
        Restart::Lost(pick, lost) => {
            let at = usize::from(pick) % records.len();
            let mut out = records[..at].to_vec();
            out.extend((at + 1..=records.len() + usize::from(lost)).map(stale));
            out.extend_from_slice(&records[at..]);
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_ones_of_the_format_page() {
        assert_eq!(utc(1_485_569_700), "20170128T021500Z");
        assert_eq!(base36(1_795_351_585), "towm5d");
        // America/St_Johns: 18:43:20-03:30 is stored as 18:43:20-04:30
        assert!(old(1_600_000_000, -210, ':').ends_with("-04:30"));
        assert_eq!(old(1_795_351_652, -300, ':'), "2026-11-22T07:47:32-05:00");
    }

    #[test]
    fn paths_are_quoted_as_in_the_worked_manifest() {
        let path = |s: &[u8]| -> Path { s.split(|b| *b == b'/').map(<[u8]>::to_vec).collect() };
        assert_eq!(quoted(&path(b"names/sp ace")), b"\"names/sp\\x20ace\"");
        assert_eq!(quoted(&path(b"names/quo\"te")), b"\"names/quo\\x22te\"");
        assert_eq!(quoted(&path(b"lat-\xe9\x85")), b"lat-\xe9\x85");
        assert_eq!(quoted(&Path::new()), b".");
    }
}
