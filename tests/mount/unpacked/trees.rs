//! Whole trees, compared with those that the programs extract.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use super::{Backup, names, pipe, run};
use crate::support::tree::{Rules, Tree, assert_same};
use crate::support::{dump, noise};

/// Writes a tree with every kind of object of a tar archive, including long names.
fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deeper")).unwrap();
    fs::write(dir.join("sub/a.txt"), dump(1, 70_000)).unwrap();
    fs::write(dir.join("sub/deeper/empty"), b"").unwrap();
    fs::write(dir.join("sub/big"), noise(2, 3_000_000)).unwrap();
    fs::write(dir.join(format!("sub/{}", "long-".repeat(45))), b"a long name").unwrap();
    fs::write(dir.join("sub/lat-\u{e9} name\nline"), b"odd").unwrap();
    symlink("a.txt", dir.join("sub/link")).unwrap();
    symlink("../sub/deeper", dir.join("sub/up")).unwrap();
    fs::hard_link(dir.join("sub/a.txt"), dir.join("sub/hard")).unwrap();
    run(dir, "mkfifo", &["pipe"]);
    run(dir, "mknod", &["null", "c", "1", "3"]);
    run(dir, "chown", &["12345:54321", "sub/a.txt"]);
    fs::set_permissions(dir.join("sub/big"), fs::Permissions::from_mode(0o4751)).unwrap();
    let sparse = fs::File::create(dir.join("sub/sparse")).unwrap();
    for at in 1..40_u64 {
        sparse.write_all_at(b"island", at * 300_000).unwrap();
    }
    sparse.set_len(20_000_000).unwrap();
    run(dir, "touch", &["-d", "2020-02-03 04:05:06 UTC", "sub/a.txt", "sub/deeper", "sub", "."]);
}

#[test]
fn archives_are_the_trees_that_gnu_tar_extracts() {
    let forms = [
        ("gnu.tar", &["--format=gnu", "-S"][..]),
        ("pax.tar", &["--format=posix", "-S"]),
        ("pax0.tar", &["--format=posix", "-S", "--sparse-version=0.0"]),
        ("pax01.tar", &["--format=posix", "-S", "--sparse-version=0.1"]),
        ("ustar.tar", &["--format=ustar", "--exclude=*long-*"]),
        ("v7.tar", &["--format=v7", "--exclude=*long-*", "--exclude=pipe", "--exclude=null"]),
        ("a.tar.gz", &["-z"]),
        ("a.tgz", &["-z"]),
        ("a.tar.bz2", &["-j"]),
        ("a.tbz2", &["-j"]),
        ("a.tar.xz", &["-J"]),
        ("a.tzst", &["--zstd"]),
    ];
    let backup = Backup::of(|source| {
        let tree = source.parent().unwrap().join("tree");
        fill(&tree);
        for (name, options) in forms {
            let out = source.join(name);
            run(&tree, "tar", &[&["-c", "-f", out.to_str().unwrap()], options, &["."]].concat());
        }
    });
    for (name, _) in forms {
        let out = backup.empty(&format!("out-{name}"));
        run(&out, "tar", &["-x", "-p", "--numeric-owner", "-f", backup.source(name).to_str().unwrap()]);
        let (mut wanted, mut shown) = (Tree::walk(&out), Tree::walk(&backup.at(name)));
        // The archive as a directory has the owner and time of its file.
        wanted.entries.remove(&Vec::new());
        shown.entries.remove(&Vec::new());
        assert_same(name, &wanted, &shown, &Rules { sane: true, ..Rules::default() });
    }
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn compressed_files_are_what_the_programs_decompress() {
    let plain = dump(3, 2_500_000);
    let backup = Backup::of(|source| {
        for (suffix, program, args) in [
            ("gz", "gzip", &["-c"][..]),
            ("bz2", "bzip2", &["-c"]),
            ("xz", "xz", &["-c", "-1"]),
            ("zst", "zstd", &["-c", "-q"]),
        ] {
            let packed = pipe(&plain, program, args);
            fs::write(source.join(format!("one-{suffix}.sql.{suffix}")), &packed).unwrap();
            fs::write(source.join(format!("two-{suffix}.{suffix}")), [&packed[..], &packed[..]].concat()).unwrap();
        }
        fs::write(source.join("parallel.bz2"), pipe(&plain, "pbzip2", &["-c", "-1"])).unwrap();
        fs::write(source.join("blocks.xz"), pipe(&plain, "xz", &["-c", "-0", "--block-size=300000"])).unwrap();
        fs::write(source.join("plain.sql"), b"the plain one").unwrap();
        fs::write(source.join("plain.sql.gz"), pipe(b"the packed one", "gzip", &["-c"])).unwrap();
        fs::write(source.join("fake.gz"), b"no gzip").unwrap();
        fs::write(source.join("fake.tar.gz"), pipe(b"no tar", "gzip", &["-c"])).unwrap();
        fs::write(source.join("fake.zip"), b"no zip").unwrap();
    });
    for suffix in ["gz", "bz2", "xz", "zst"] {
        let one = backup.at(&format!("one-{suffix}.sql"));
        // Seeks in a file that was not read and whose size was not requested yet.
        let file = fs::File::open(&one).unwrap();
        for at in [2_000_000_u64, 5, 1_234_567, 2_499_990] {
            let mut piece = [0; 10];
            file.read_exact_at(&mut piece, at).unwrap();
            assert_eq!(piece, plain[usize::try_from(at).unwrap()..][..10], "{suffix} at {at}");
        }
        drop(file);
        assert_eq!(fs::read(&one).unwrap(), plain, "{suffix}");
        assert_eq!(fs::metadata(&one).unwrap().len(), plain.len() as u64);
        assert_eq!(fs::metadata(backup.at(&format!("two-{suffix}"))).unwrap().len(), 2 * plain.len() as u64);
        assert_eq!(fs::read(backup.at(&format!("two-{suffix}"))).unwrap(), plain.repeat(2), "{suffix}");
    }
    assert!(fs::read(backup.at("parallel")).unwrap() == plain && fs::read(backup.at("blocks")).unwrap() == plain);
    assert_eq!(fs::read(backup.at("plain.sql")).unwrap(), b"the plain one");
    assert_eq!(fs::read(backup.at("plain.sql~gz")).unwrap(), b"the packed one");
    for (name, content) in [("fake.gz", &b"no gzip"[..]), ("fake", b"no gzip"), ("fake.zip", b"no zip")] {
        assert_eq!(fs::read(backup.at(name)).unwrap(), content, "{name}");
    }
    assert_eq!(pipe(&fs::read(backup.at("fake.tar.gz")).unwrap(), "gunzip", &["-c"]), b"no tar");
    // The stored name has the stored bytes, and is not listed.
    assert!(fs::read(backup.at("one-gz.sql.gz")).unwrap() == fs::read(backup.source("one-gz.sql.gz")).unwrap());
    assert!(!names(&backup.at("")).contains(&"one-gz.sql.gz".to_owned()));
    assert!(names(&backup.at("")).contains(&"fake.gz".to_owned()));
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn a_dump_in_an_archive_in_a_backup_is_a_plain_file() {
    let dumps = [dump(4, 3_000_000), dump(5, 40_000)];
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work/latest");
        fs::create_dir_all(&work).unwrap();
        for (i, dump) in dumps.iter().enumerate() {
            fs::write(work.join(format!("db{i}.sql.bz2")), pipe(dump, "bzip2", &["-c"])).unwrap();
        }
        let tar = source.join("latest.tbz2");
        run(work.parent().unwrap(), "tar", &["-c", "-j", "-f", tar.to_str().unwrap(), "latest"]);
        run(work.parent().unwrap(), "zip", &["-q", "-r", source.join("in.zip").to_str().unwrap(), "latest"]);
        run(
            work.parent().unwrap(),
            "tar",
            &["-c", "-z", "-f", "latest/inner.tgz", "-C", source.to_str().unwrap(), "in.zip"],
        );
        run(
            work.parent().unwrap(),
            "tar",
            &["-c", "-f", source.join("outer.tar").to_str().unwrap(), "latest/inner.tgz"],
        );
    });
    // As `mysql <` does it, before the size is requested.
    let wanted = |i: usize| dumps[i].clone();
    assert_eq!(fs::read(backup.at("latest.tbz2/latest/db1.sql")).unwrap(), wanted(1));
    assert_eq!(fs::read(backup.at("latest.tbz2/latest/db0.sql")).unwrap(), wanted(0));
    let deep = "outer.tar/latest/inner.tgz/in.zip/latest/db0.sql";
    assert_eq!(fs::read(backup.at(deep)).unwrap(), wanted(0));
    assert_eq!(names(&backup.at("latest.tbz2/latest")), ["db0.sql", "db1.sql"]);
    assert_eq!(fs::metadata(backup.at("latest.tbz2/latest/db0.sql")).unwrap().len(), 3_000_000);
    let out = backup.empty("unzipped");
    run(&out, "unzip", &["-q", backup.source("in.zip").to_str().unwrap()]);
    for name in ["db0.sql.bz2", "db1.sql.bz2"] {
        let plain = pipe(&fs::read(out.join("latest").join(name)).unwrap(), "bunzip2", &["-c"]);
        let shown = backup.at("in.zip/latest").join(name.trim_end_matches(".bz2"));
        assert_eq!(fs::read(&shown).unwrap(), plain);
    }
    // Several concurrent readers, each with a different file and position.
    std::thread::scope(|scope| {
        for reader in 0..6_usize {
            let (backup, dumps) = (&backup, &dumps);
            scope.spawn(move || {
                let path = ["latest.tbz2/latest/db0.sql", "in.zip/latest/db0.sql", deep][reader % 3];
                let file = fs::File::open(backup.at(path)).unwrap();
                for step in 0..20_usize {
                    let at = (step * 999_983 * (reader + 1)) % 2_990_000;
                    let mut piece = vec![0; 9000];
                    file.read_exact_at(&mut piece, at as u64).unwrap();
                    assert_eq!(piece, dumps[0][at..at + 9000]);
                }
            });
        }
    });
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn links_to_compressed_files_lead_to_the_stored_bytes() {
    let plain = dump(9, 100_000);
    let packed = pipe(&plain, "gzip", &["-c"]);
    let backup = Backup::of(|source| {
        fs::write(source.join("db-0125.sql.gz"), &packed).unwrap();
        symlink("db-0125.sql.gz", source.join("latest.sql.gz")).unwrap();
        // Without their suffix these would be the directory itself, and the one above it.
        fs::write(source.join("..gz"), &packed).unwrap();
        fs::write(source.join("...gz"), &packed).unwrap();
        let all = ["-c", "-f", "all.tar", "db-0125.sql.gz", "latest.sql.gz", "..gz", "...gz"];
        run(source, "tar", &all);
    });
    let files = [".~gz", "..~gz", "db-0125.sql", "latest.sql.gz"];
    for dir in [backup.at(""), backup.at("all.tar")] {
        let mut listed = names(&dir);
        listed.retain(|name| name != "all.tar");
        listed.sort();
        let mut wanted = files.map(str::to_owned).to_vec();
        wanted.sort();
        assert_eq!(listed, wanted);
        assert_eq!(fs::read_link(dir.join("latest.sql.gz")).unwrap(), Path::new("db-0125.sql.gz"));
        assert!(fs::read(dir.join("latest.sql.gz")).unwrap() == packed);
        assert!(fs::read(dir.join("db-0125.sql.gz")).unwrap() == packed);
        assert_eq!(fs::metadata(dir.join("latest.sql.gz")).unwrap().len(), packed.len() as u64);
        for shown in ["db-0125.sql", ".~gz", "..~gz"] {
            assert!(fs::read(dir.join(shown)).unwrap() == plain, "{shown}");
        }
        assert!(fs::read(dir.join("..gz")).unwrap() == packed);
    }
    backup.end(b"lorem ipsum dolor");
}
