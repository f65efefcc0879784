//! Files of unknown size that are open for one program, and copied by another: each copy is whole, or the program fails.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use super::{Backup, pipe, run};
use crate::support::copies::{Holder, all_ways, copy};
use crate::support::{exec, noise};

const LEN: usize = 1_500_000;

/// A backup with a compressed file for each of the names, all of the same content.
fn backup<'a>(names: impl IntoIterator<Item = &'a str>) -> (Backup, Vec<u8>) {
    let plain = noise(3, LEN);
    let packed = pipe(&plain, "gzip", &["-c"]);
    let backup = Backup::of(|source| {
        for name in names {
            fs::write(source.join(format!("{name}.gz")), &packed).unwrap();
        }
    });
    (backup, plain)
}

#[test]
fn a_copy_is_whole_although_another_program_has_opened_the_file_and_got_no_size() {
    let (backup, plain) = backup(all_ways());
    let dir = backup.empty("out");
    run(&dir, "git", &["init", "-q"]);
    for way in all_ways() {
        let file = backup.at(way);
        let _holder = Holder::new(&file);
        let succeeded = copy(&dir, &file, way, &plain);
        // From another file system, which the kernel does not support.
        assert_eq!(succeeded, way != "copy_file_range", "{way}");
    }
    backup.end(&plain[..100]);
}

#[test]
fn a_copy_by_the_only_reader_is_whole() {
    let (backup, plain) = backup(all_ways());
    let dir = backup.empty("out");
    run(&dir, "git", &["init", "-q"]);
    for way in all_ways() {
        let succeeded = copy(&dir, &backup.at(way), way, &plain);
        assert_eq!(succeeded, way != "copy_file_range", "{way}");
    }
    backup.end(&plain[..100]);
}

#[test]
fn a_copy_is_whole_after_a_program_that_got_no_size_and_left() {
    let (backup, plain) = backup(all_ways());
    let dir = backup.empty("out");
    run(&dir, "git", &["init", "-q"]);
    for way in all_ways() {
        drop(Holder::new(&backup.at(way)));
        let succeeded = copy(&dir, &backup.at(way), way, &plain);
        assert_eq!(succeeded, way != "copy_file_range", "{way}");
    }
    backup.end(&plain[..100]);
}

#[test]
fn a_copy_is_whole_once_its_size_was_found_by_a_program_that_got_none() {
    let (backup, plain) = backup(all_ways());
    let dir = backup.empty("out");
    run(&dir, "git", &["init", "-q"]);
    for way in all_ways() {
        // Both have got no size; one of them finds it.
        let _holder = Holder::new(&backup.at(way));
        assert_eq!(run(&dir, "cat", &[backup.at(way).to_str().unwrap()]), plain);
        let succeeded = copy(&dir, &backup.at(way), way, &plain);
        assert_eq!(succeeded, way != "copy_file_range", "{way}");
    }
    backup.end(&plain[..100]);
}

#[test]
fn members_of_an_archive_whose_end_is_not_known_are_copied_whole() {
    let plain = noise(3, LEN);
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("plain"), &plain).unwrap();
        fs::write(work.join("packed.gz"), pipe(&plain, "gzip", &["-c"])).unwrap();
        fs::write(work.join("more"), noise(4, 3_000_000)).unwrap();
        run(&work, "tar", &["-c", "-z", "-f", "archive.tgz", "plain", "packed.gz", "more"]);
        for way in all_ways() {
            fs::copy(work.join("archive.tgz"), source.join(format!("{way}.tgz"))).unwrap();
        }
    });
    let dir = backup.empty("out");
    run(&dir, "git", &["init", "-q"]);
    for way in all_ways() {
        for member in ["plain", "packed"] {
            let file = backup.at(&format!("{way}.tgz/{member}"));
            let _holder = Holder::new(&file);
            let succeeded = copy(&dir, &file, way, &plain);
            assert_eq!(succeeded, way != "copy_file_range", "{way} {member}");
        }
    }
    backup.end(&plain[..100]);
}

#[test]
fn a_database_that_another_program_reads_has_its_tables() {
    let make = "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1])\nd.execute('create table t (n, b)')\n\
                d.executemany('insert into t values (?, randomblob(1000))', ((n,) for n in range(2000)))\nd.commit()";
    let count = "import sqlite3, sys\nd = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro&immutable=1', uri=True)\n\
                 print(d.execute('select count(*) from t').fetchone()[0])";
    let backup = Backup::of(|source| {
        for name in ["alone.db", "shared.db"] {
            run(source, "python3", &["-c", make, name]);
            run(source, "gzip", &[name]);
        }
    });
    let dir = backup.empty("out");
    assert_eq!(run(&dir, "python3", &["-c", count, backup.at("alone.db").to_str().unwrap()]), b"2000\n");
    let _holder = Holder::new(&backup.at("shared.db"));
    assert_eq!(run(&dir, "python3", &["-c", count, backup.at("shared.db").to_str().unwrap()]), b"2000\n");
}

#[test]
fn a_program_that_waits_for_a_size_does_not_delay_the_one_that_reads() {
    let (backup, plain) = backup(["a"]);
    let file = backup.at("a");
    let mut holder = Holder::new(&file);
    // The test is no program that accepts any size: its request waits for a pass over the file.
    let size = fs::metadata(&file).unwrap().len();
    assert_eq!(size, LEN as u64);
    let mut rest = Vec::new();
    holder.0.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest == plain[100..]);
    assert!(holder.0.wait().unwrap().success());
    let mut again = Vec::new();
    File::open(&file).unwrap().read_to_end(&mut again).unwrap();
    assert!(again == plain);
}

/// The size is found by a pass over the file, which fails at its end: a program that gets the first bytes has not waited for it.
#[test]
fn the_first_bytes_are_served_before_the_size_is_known_to_programs_that_need_none() {
    let plain = noise(3, LEN);
    let backup = Backup::of(|source| {
        let packed = pipe(&plain, "gzip", &["-c"]);
        for name in ["cat", "redirected", "python", "stat"] {
            fs::write(source.join(format!("{name}.gz")), &packed[..packed.len() - 1000]).unwrap();
        }
    });
    let dir = backup.empty("out");
    let output = |script: &str, name: &str| {
        exec::output(Command::new("bash").args(["-c", script, backup.at(name).to_str().unwrap()]).current_dir(&dir))
    };
    let first = output("cat \"$0\" | head -c 100", "cat");
    assert!(first.status.success() && first.stdout == plain[..100], "{first:?}");
    // The shell opens the file, and becomes `cat`.
    let first = output("cat < \"$0\" | head -c 100", "redirected");
    assert!(first.status.success() && first.stdout == plain[..100], "{first:?}");
    for (script, name) in [
        ("python3 -c 'import os, sys; os.fstat(os.open(sys.argv[1], os.O_RDONLY))' \"$0\"", "python"),
        ("stat \"$0\"", "stat"),
    ] {
        let refused = output(script, name);
        assert!(!refused.status.success(), "{name}: {refused:?}");
        let message = exec::tail(&refused.stderr);
        assert!(message.contains("Input/output error"), "{name}: {message}");
    }
}
