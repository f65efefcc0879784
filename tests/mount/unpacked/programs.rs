//! Common restore programs on files whose size is not known yet.

use std::fs;
use std::process::Command;

use super::{Backup, pipe, run};
use crate::support::{dump, exec};

const LEN: usize = 6_000_000;

/// One file for each program, so that each gets a file that was not read and whose size was not requested before.
fn backup(programs: &[&str]) -> (Backup, Vec<u8>) {
    let plain = dump(6, LEN);
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("db.sql.bz2"), pipe(&plain, "bzip2", &["-c"])).unwrap();
        run(&work, "tar", &["-c", "-j", "-f", "db.tbz2", "db.sql.bz2"]);
        for program in programs {
            fs::copy(work.join("db.tbz2"), source.join(format!("{program}.tbz2"))).unwrap();
        }
    });
    (backup, plain)
}

#[test]
fn every_program_gets_the_whole_file_and_no_more() {
    let programs = [
        "cat",
        "cp",
        "rsync",
        "tar",
        "python",
        "less",
        "tail",
        "wc",
        "sh",
        "head",
        "grep",
        "sed",
        "awk",
        "mawk",
        "md5sum",
        "sha1sum",
        "sha256sum",
    ];
    let (backup, plain) = backup(&programs);
    let file = |program: &str| backup.at(&format!("{program}.tbz2/db.sql"));
    let name = |program: &str| file(program).to_str().unwrap().to_owned();
    let out = backup.empty("out");
    assert_eq!(run(&out, "cat", &[&name("cat")]), plain);
    assert_eq!(run(&out, "sh", &["-c", &format!("cat < '{}'", name("sh"))]), plain);
    run(&out, "cp", &["-a", &name("cp"), "cp"]);
    assert_eq!(fs::read(out.join("cp")).unwrap(), plain);
    run(&out, "rsync", &["-a", &name("rsync"), "rsync"]);
    assert_eq!(fs::read(out.join("rsync")).unwrap(), plain);
    run(&out, "sh", &["-c", &format!("tar -c -C '{}' db.sql | tar -x", backup.at("tar.tbz2").display())]);
    assert_eq!(fs::read(out.join("db.sql")).unwrap(), plain);
    let script = "import sys, os\nf = open(sys.argv[1], 'rb')\nd = f.read()\nassert os.path.getsize(sys.argv[1]) == len(d)\nsys.stdout.buffer.write(d)";
    assert_eq!(run(&out, "python3", &["-c", script, &name("python")]), plain);
    for (program, args) in [
        ("less", &[][..]),
        ("head", &["-c", "100000000"]),
        ("grep", &["-a", ""]),
        ("sed", &["s/x/x/"]),
        ("awk", &["{ print }"]),
        ("mawk", &["{ print }"]),
    ] {
        let file = name(program);
        let found = run(&out, program, &[args, &[&file]].concat());
        // The last line has no end, to which some add one.
        assert!(found.strip_suffix(b"\n").unwrap_or(&found) == plain, "{program}: {}", found.len());
    }
    for program in ["md5sum", "sha1sum", "sha256sum"] {
        let sums = [name(program), backup.source("plain").to_str().unwrap().to_owned()];
        fs::write(&sums[1], &plain).unwrap();
        let [found, expected] = sums.map(|file| run(&out, program, &[&file])[..32].to_vec());
        assert_eq!(found, expected, "{program}");
    }
    assert_eq!(run(&out, "tail", &["-c", "1000", &name("tail")]), plain[LEN - 1000..]);
    let count = run(&out, "wc", &["-c", &name("wc")]);
    assert!(String::from_utf8_lossy(&count).starts_with(&LEN.to_string()));
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn a_file_that_was_read_in_pieces_has_its_size_and_is_mapped() {
    let (backup, plain) = backup(&["head", "fstat"]);
    let file = backup.at("head.tbz2/db.sql");
    let script = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nassert os.fstat(fd).st_size == 6000000\n\
                  b = os.read(fd, 100)\nassert len(b) == 100, len(b)\nsys.stdout.buffer.write(b)\n\
                  n = 100\n\
                  while True:\n    b = os.read(fd, 70000)\n    n += len(b)\n    if not b: break\n\
                  assert n == 6000000, n\nos.close(fd)\nassert os.stat(sys.argv[1]).st_size == 6000000";
    let head = exec::run(Command::new("python3").arg("-c").arg(script).arg(&file));
    assert_eq!(head, plain[..100]);
    // Once the size is known the kernel caches the pages, and the file can also be mapped.
    let script = "import mmap, sys\nf = open(sys.argv[1], 'rb')\nm = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\nsys.stdout.buffer.write(m[5999000:])";
    let end = exec::run(Command::new("python3").arg("-c").arg(script).arg(&file));
    assert_eq!(end, plain[LEN - 1000..]);
    backup.end(b"lorem ipsum dolor");
}
