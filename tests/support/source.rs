//! The source trees: every kind of object, name, size and edit of FORMAT.md sections 4 to 6.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::maker::Maker;
use super::{dump, noise};

/// Number of states of the tree. The last but one is backed up twice, to get an increment without changes.
pub const STATES: usize = 4;

/// Content and modification time of this path do not agree in state 2: duplicity keeps the content of state 1.
pub const SAME_MTIME: &str = "edits/same-mtime";

/// The tree in its states, each a separate directory below `dir`.
pub fn build(dir: &Path) -> [PathBuf; STATES] {
    let mut first = Maker::new(&dir.join("state-0"), 1_400_000_000);
    types(&mut first);
    names(&mut first);
    sizes(&mut first);
    metadata(&mut first);
    before_edits(&mut first);
    settle(&first, 0);
    let mut second = Maker::copy_of(&first, &dir.join("state-1"), 1_410_000_000);
    first_edits(&mut second);
    settle(&second, 1);
    let mut third = Maker::copy_of(&second, &dir.join("state-2"), 1_420_000_000);
    second_edits(&mut third);
    settle(&third, 2);
    let mut fourth = Maker::copy_of(&third, &dir.join("state-3"), 1_430_000_000);
    third_edits(&mut fourth);
    settle(&fourth, 3);
    [first, second, third, fourth].map(|maker| maker.root().to_owned())
}

/// Gives fixed times to the directories whose entries change, and its own time to the one with fractions.
fn settle(maker: &Maker, state: i64) {
    for (i, name) in ["", "types", "names", "order", "sizes", "meta", "edits", "big"].into_iter().enumerate() {
        maker.mtime(name, 1_390_000_000 + i64::try_from(i).unwrap() + 1000 * state, 123_456_789 * state);
    }
}

fn types(m: &mut Maker) {
    m.file("types/file", "an ordinary file\n");
    m.dir("types/empty-dir", 0o700);
    m.fifo("types/fifo", 0o640);
    m.node("types/null", FileType::CharacterDevice, 0o666, 1, 3);
    m.node("types/loop", FileType::BlockDevice, 0o660, 7, 300);
    drop(UnixListener::bind(m.at("types/socket")).unwrap());
    m.link("types/link", "file");
    m.link("types/dangling", "/no/such/place");
    m.link("types/link-to-dir", "empty-dir");
    m.link("types/link-latin1", OsStr::from_bytes(b"caf\xe9"));
    m.link("types/link-utf8", "na\u{ef}ve/\u{65e5}\u{672c}");
    m.link("types/link-long", "l/".repeat(150));
    m.link("types/link-odd", "sp ace\\ and\nnewline");
    m.chown("types/link", 33, 33);
    m.file("types/hard-1", "one inode, two names\n");
    fs::hard_link(m.at("types/hard-1"), m.at("types/hard-2")).unwrap();
    let sparse = fs::File::create(m.at("types/sparse")).unwrap();
    sparse.write_all_at(b"data in the middle of a hole", 150_000).unwrap();
    sparse.set_len(300_000).unwrap();
    m.touch("types/sparse");
}

fn names(m: &mut Maker) {
    let plain = [
        "sp ace",
        " lead",
        "trail ",
        "quo\"te",
        "apo'strophe",
        "new\nline",
        "back\\slash",
        "ta\tb",
        "star*?[x]",
        "-dash",
        "%41",
        "#hash",
        "\u{a0}nbsp",
        "na\u{ef}ve-\u{65e5}\u{672c}",
        "\u{1}ctrl",
        "\u{7f}del",
        "~",
        "...",
        "semi;colon",
        "a\rb",
        "\u{b}vt",
    ];
    for name in plain {
        m.file(format!("names/{name}"), format!("content of {name}"));
    }
    for name in [&b"latin1-\xe9\xff"[..], b"c1-\x85\x80", b"mixed-\xc3\xa9-\xe9"] {
        m.file(Path::new("names").join(OsStr::from_bytes(name)), name);
    }
    m.file(
        Path::new("names").join(OsStr::from_bytes(b"dir-\xfe")).join("below"),
        "below a directory that is not UTF-8",
    );
    // Names that look like the prefixes and suffixes of duplicity's own entries.
    m.file("names/snapshot/multivol_snapshot/7/7", "deep");
    m.file("names/diff/1", "one");
    m.file("names/deleted/signature", "sig");
    m.file("names/1", noise(7, 70_000));
    // The ustar name field has 100 bytes, and a prefix precedes the name.
    for len in [88, 89, 90, 91, 92, 93, 94, 95, 99, 100, 101, 255] {
        m.file(Path::new("names").join("n".repeat(len)), format!("{len}"));
    }
    let deep = format!("names/deep/{}", "a-component-of-sixty-bytes-in-all-repeated-to-make-it-long-x/".repeat(6));
    m.file(format!("{deep}leaf"), "360 bytes deep");
    m.file(format!("{deep}parts"), noise(8, 140_000));
    m.link(&format!("{deep}link"), "../leaf");
    // Paths are ordered by components, not by bytes: `x`, `x/y`, `x/y/z.txt`, `x/y.txt`, `x!`, `x-y`.
    for name in ["x/y/z.txt", "x/y.txt", "x!", "x-y", "x.txt", "x /a", "x0"] {
        m.file(format!("order/{name}"), format!("order of {name}"));
    }
    m.file("order/w", noise(9, 200_000));
    m.file("order/x/big", noise(10, 200_000));
}

fn sizes(m: &mut Maker) {
    for size in [0, 1, 511, 512, 513, 1024, 65_024, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 196_608] {
        m.file(format!("sizes/{size:07}"), noise(size as u64 + 1, size));
    }
    m.file("big/dump.sql", dump(1, 3_000_000));
    m.file("big/random", noise(2, 2_500_000));
    m.file("big/even", noise(3, 65_536 * 17));
}

fn metadata(m: &mut Maker) {
    let owners = [
        (0, 0),
        (1, 1),
        (33, 33),
        (65_534, 65_534),
        (54_321, 12_345),
        (2_097_151, 2_097_152),
        (4_294_967_294, 4_294_967_294),
    ];
    for (uid, gid) in owners {
        let name = format!("meta/owner-{uid}-{gid}");
        m.file(&name, &name);
        m.chown(&name, uid, gid);
    }
    m.link("meta/link-of-nobody", "anywhere");
    m.chown("meta/link-of-nobody", 65_534, 65_534);
    let times =
        [0, 1, 1_000_000_000, 2_147_483_647, 2_147_483_648, 4_294_967_296, 8_589_934_591, 8_589_934_592, 8_589_934_600];
    for time in times {
        let name = format!("meta/mtime-{time}");
        m.file(&name, &name);
        m.mtime(&name, time, 0);
    }
    m.file("meta/mtime-before-1970", "negative");
    m.mtime("meta/mtime-before-1970", -86_400, 0);
    m.file("meta/mtime-fraction", "fraction");
    m.mtime("meta/mtime-fraction", 1_500_000_000, 900_000_000);
    m.link("meta/link-fraction", "fraction");
    m.mtime("meta/link-fraction", 1_500_000_001, 500_000_000);
    for mode in [0o000, 0o400, 0o111, 0o777, 0o644, 0o4755, 0o2755, 0o6711, 0o1644] {
        let name = format!("meta/mode-{mode:04o}");
        m.file(&name, &name);
        m.chmod(&name, mode);
    }
    for mode in [0o1777, 0o2775, 0o500, 0o555] {
        m.dir(format!("meta/dir-{mode:04o}"), mode);
    }
    m.file("meta/dir-closed/inside", "a closed directory");
    m.chmod("meta/dir-closed", 0o000);
}

fn before_edits(m: &mut Maker) {
    for name in ["append", "truncate", "insert", "overwrite", "shrink-grow", "touch", "chmod", "chown", "untouched"] {
        m.file(format!("edits/{name}"), noise(name.len() as u64 + 100, 150_000));
    }
    m.file("edits/every-time", noise(50, 400_000));
    m.file("edits/log", dump(5, 300_000));
    m.file("edits/to-empty", noise(51, 70_000));
    m.file("edits/from-empty", "");
    m.file(SAME_MTIME, "same size A");
    m.mtime(SAME_MTIME, 1_400_500_000, 0);
    for size in 65_522..65_530 {
        m.file(format!("edits/delta-{size}"), "-");
    }
    m.file("edits/file-to-dir", "file");
    m.file("edits/dir-to-file/child/grandchild", "below");
    m.file("edits/dir-to-link/child", "below");
    m.link("edits/link-to-dir", "target");
    m.link("edits/link-to-file", "target");
    m.file("edits/file-to-link", "file");
    m.file("edits/file-to-fifo", "file");
    m.fifo("edits/fifo-to-file", 0o600);
    m.file("edits/file-to-device", noise(52, 70_000));
    m.link("edits/new-target", "old");
    m.link("edits/link-touched", "same");
    m.file("edits/rename-from", noise(53, 100_000));
    m.file("edits/moved-dir/a/b", "b");
    m.file("edits/gone", noise(54, 70_000));
    m.file("edits/gone-dir/sub/file", "file");
    m.file("edits/gone-dir.txt", "a name that sorts around the directory's");
    m.link("edits/gone-dir/sub/link", "file");
    m.file("edits/returns", noise(55, 80_000));
    m.file("edits/returns-dir/a", "a");
    m.file("edits/returns-dir/b", "b");
    m.dir("edits/dir-chmod", 0o755);
    m.file("edits/dir-chmod/inside", "inside");
    m.dir("edits/dir-touched", 0o755);
}

fn first_edits(m: &mut Maker) {
    m.edit("edits/append", |c| c.extend(noise(60, 70_000)));
    m.edit("edits/truncate", |c| c.truncate(65_536));
    m.edit("edits/insert", |c| drop(c.splice(70_000..70_000, noise(61, 1000))));
    m.edit("edits/overwrite", |c| c[10_000..10_100].copy_from_slice(&noise(62, 100)));
    m.edit("edits/shrink-grow", |c| c.truncate(1));
    m.edit("edits/every-time", |c| c[200_000..200_050].copy_from_slice(&noise(63, 50)));
    m.edit("edits/log", |c| c.extend(dump(6, 20_000)));
    m.edit("big/dump.sql", |c| drop(c.splice(1_000_000..1_000_000, dump(7, 5000))));
    m.touch("edits/touch");
    m.chmod("edits/chmod", 0o600);
    m.chown("edits/chown", 33, 4);
    m.edit("edits/to-empty", Vec::clear);
    m.edit("edits/from-empty", |c| c.extend(noise(64, 131_072)));
    for size in 65_522..65_530 {
        m.edit(&format!("edits/delta-{size}"), |c| *c = noise(1000, size));
    }
    m.remove("edits/file-to-dir");
    m.file("edits/file-to-dir/child", "now a directory");
    m.remove("edits/dir-to-file");
    m.file("edits/dir-to-file", "now a file");
    m.remove("edits/dir-to-link");
    m.link("edits/dir-to-link", "now-a-link");
    m.remove("edits/link-to-dir");
    m.dir("edits/link-to-dir", 0o711);
    m.remove("edits/link-to-file");
    m.file("edits/link-to-file", noise(65, 66_000));
    m.remove("edits/file-to-link");
    m.link("edits/file-to-link", "now-a-link");
    m.remove("edits/file-to-fifo");
    m.fifo("edits/file-to-fifo", 0o622);
    m.remove("edits/fifo-to-file");
    m.file("edits/fifo-to-file", "now a file");
    m.remove("edits/file-to-device");
    m.node("edits/file-to-device", FileType::CharacterDevice, 0o600, 1, 5);
    m.remove("edits/new-target");
    m.link("edits/new-target", "new, and longer");
    m.touch("edits/link-touched");
    m.chown("edits/link-touched", 1, 1);
    m.rename("edits/rename-from", "edits/rename-to");
    m.rename("edits/moved-dir", "edits/moved-elsewhere");
    m.remove("edits/gone");
    m.remove("edits/gone-dir");
    m.remove("edits/returns");
    m.remove("edits/returns-dir");
    m.chmod("edits/dir-chmod", 0o2750);
    m.touch("edits/dir-touched");
    m.file("edits/new-in-1", noise(66, 1_500_000));
    m.file("edits/new-dir/new", "new");
    m.remove("order/x/y.txt");
    m.remove("order/x!");
}

fn second_edits(m: &mut Maker) {
    m.edit("edits/append", |c| c.extend(noise(70, 65_536)));
    m.edit("edits/insert", |c| drop(c.splice(0..0, noise(71, 3))));
    m.edit("edits/shrink-grow", |c| *c = noise(72, 200_000));
    m.edit("edits/every-time", |c| drop(c.splice(100..100, noise(73, 70_000))));
    m.edit("edits/log", |c| c.extend(dump(8, 20_000)));
    m.edit("edits/new-in-1", |c| drop(c.drain(500_000..700_000)));
    m.edit("big/dump.sql", |c| c.truncate(2_000_000));
    m.edit("edits/to-empty", |c| c.extend(b"not empty again"));
    m.file(SAME_MTIME, "same size B");
    m.mtime(SAME_MTIME, 1_400_500_000, 0);
    m.remove("edits/file-to-dir");
    m.file("edits/file-to-dir", "a file once more");
    m.remove("edits/file-to-link");
    m.file("edits/file-to-link", "a file once more");
    m.remove("edits/file-to-device");
    m.file("edits/returns", noise(74, 90_000));
    m.file("edits/returns-dir/a", "a, again");
    m.file("edits/returns-dir/c", "c");
    m.file("order/x!", "back");
    m.remove("order/x");
    m.file("order/x", "a file where a directory was");
}

fn third_edits(m: &mut Maker) {
    m.edit("edits/every-time", |c| {
        let start = c[300_000..].to_vec();
        c.truncate(300_000);
        c.splice(0..0, start);
    });
    m.edit("edits/log", |c| drop(c.drain(..150_000)));
    m.edit("edits/overwrite", |c| c[149_999] ^= 0xff);
    m.edit("edits/append", |c| c.extend(noise(80, 1)));
    m.edit("big/even", |c| c.rotate_left(65_536));
    m.edit("big/dump.sql", |c| c[1_999_990..].copy_from_slice(b"0123456789"));
    m.edit("edits/from-empty", Vec::clear);
    m.edit("edits/returns", |c| c.truncate(100));
    m.remove("edits/rename-to");
    m.remove("edits/new-dir");
    m.remove("order/x");
    m.file("order/x/y.txt", "a directory once more");
    m.chown("types/null", 33, 33);
    m.edit("types/hard-1", |c| c.extend(b"edited through one of them\n"));
}

/// A small tree in three states for tests that need no variety: 1.7 MB, names that need quoting, every kind of edit
/// once.
pub fn small(dir: &Path) -> [PathBuf; 3] {
    let mut first = Maker::new(&dir.join("small-0"), 1_400_000_000);
    first.file("a file", "hello\n");
    first.file("dir/big", noise(1, 1_200_000));
    first.file("dir/edited", noise(2, 300_000));
    first.file("dir/gone", noise(3, 70_000));
    first.file("dir!/after", dump(4, 100_000));
    first.file("\u{fc}ml\u{e4}ut", "");
    first.link("link", "a file");
    first.fifo("dir/fifo", 0o644);
    first.chown("dir/edited", 33, 33);
    first.file("dir/secret", "for root alone\n");
    first.chmod("dir/secret", 0o600);
    let mut second = Maker::copy_of(&first, &dir.join("small-1"), 1_410_000_000);
    second.edit("dir/edited", |c| drop(c.splice(1000..1100, noise(5, 2000))));
    second.remove("dir/gone");
    second.file("new", noise(6, 140_000));
    let mut third = Maker::copy_of(&second, &dir.join("small-2"), 1_420_000_000);
    third.edit("dir/edited", |c| c.truncate(200_000));
    third.edit("a file", |c| c.extend(b"world\n"));
    third.file("dir/gone", "and back\n");
    third.remove("new");
    for (i, maker) in [&first, &second, &third].into_iter().enumerate() {
        for name in ["", "dir", "dir!"] {
            maker.mtime(name, 1_390_000_000 + i64::try_from(i).unwrap(), 0);
        }
    }
    [first, second, third].map(|maker| maker.root().to_owned())
}
