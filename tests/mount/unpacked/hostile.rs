//! Damaged and malicious archives.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Backup, fairness, names, pipe, run};
use crate::support::{dump, exec, noise};

/// Writes `name` by Python's tarfile, which accepts any path. `body` adds members to `t`.
fn python_tar(source: &Path, name: &str, body: &str) {
    let script = format!(
        "import tarfile, io\n\
         def add(n, data=b'', **k):\n\
         \x20   i = tarfile.TarInfo(n); i.size = len(data)\n\
         \x20   for a, v in k.items(): setattr(i, a, v)\n\
         \x20   t.addfile(i, io.BytesIO(data))\n\
         t = tarfile.open('{name}', 'w')\n{body}\nt.close()\n"
    );
    run(source, "python3", &["-c", &script]);
}

#[test]
fn nothing_escapes_from_an_archive() {
    let backup = Backup::of(|source| {
        let body = "add('/etc/absolute', b'abs')\nadd('../../up', b'up')\nadd('a/../../b', b'b')\n\
                    add('evil', type=tarfile.SYMTYPE, linkname='/etc')\nadd('evil/passwd', b'planted')\n\
                    add('climb', type=tarfile.SYMTYPE, linkname='../../../../../../etc/passwd')\n\
                    add('here', type=tarfile.SYMTYPE, linkname='.')\n\
                    add('trick', type=tarfile.SYMTYPE, linkname='here/here/here/here/here/here/../../../../../../etc/passwd')\n\
                    add('hard', type=tarfile.LNKTYPE, linkname='../../../etc/passwd')\n\
                    add('twice', b'old')\nadd('twice', b'new')\nadd('etc/passwd', b'inside')";
        python_tar(source, "evil.tar", body);
    });
    let top = backup.at("evil.tar");
    assert_eq!(names(&top), ["b", "climb", "etc", "evil", "evil~1", "hard", "here", "trick", "twice", "up"]);
    assert_eq!(fs::read(top.join("twice")).unwrap(), b"new");
    assert_eq!(fs::read(top.join("evil~1/passwd")).unwrap(), b"planted");
    for link in ["climb", "trick", "evil/passwd"] {
        assert_eq!(fs::read(top.join(link)).unwrap(), b"inside", "{link}");
    }
    let hard = fs::read(top.join("hard")).unwrap_err();
    assert_eq!(hard.raw_os_error(), Some(libc::EOPNOTSUPP));
    backup.end(b"planted");
}

#[test]
fn names_and_links_that_no_file_system_accepts_break_no_listing() {
    let backup = Backup::of(|source| {
        let body = "add('d/' + 'n' * 256, b'first')\nadd('d/' + 'n' * 257, b'second')\nadd('d/' + 'm' * 5000, b'third')\n\
                    add('d/short', b'short')\nadd('o' * 1500 + '/inner', b'inner')\n\
                    add('hard', type=tarfile.LNKTYPE, linkname='d/' + 'n' * 257)\n\
                    add('link', type=tarfile.SYMTYPE, linkname='x' * 5000)";
        python_tar(source, "long.tar", body);
    });
    let top = backup.at("long.tar");
    let listed = names(&top.join("d"));
    assert_eq!(listed.len(), 4, "{listed:?}");
    let mut contents: Vec<Vec<u8>> = listed.iter().map(|name| fs::read(top.join("d").join(name)).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, [b"first".as_slice(), b"second", b"short", b"third"]);
    assert_eq!(fs::read(top.join("hard")).unwrap(), b"second");
    let dir = names(&top).into_iter().find(|name| name.starts_with("oo")).unwrap();
    assert_eq!(fs::read(top.join(dir).join("inner")).unwrap(), b"inner");
    let link = fs::read(top.join("link")).unwrap_err();
    assert_eq!(link.raw_os_error(), Some(libc::EOPNOTSUPP));
    let log = backup.log();
    assert!(log.contains("4 names of more than 255 bytes") && log.contains("at most 4095"), "{log}");
    backup.end(b"third");
}

#[test]
fn damaged_and_cut_archives_show_what_is_before_the_damage_and_end_in_an_error() {
    let plain = dump(1, 4_000_000);
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("a"), &plain[..1_000_000]).unwrap();
        fs::write(work.join("b"), &plain).unwrap();
        for (name, flag) in [("c.tar.bz2", "-j"), ("c.tar.gz", "-z"), ("c.tar.xz", "-Ixz -1")] {
            run(&work, "tar", &["-c", flag, "-f", source.join(name).to_str().unwrap(), "a", "b"]);
            let bytes = fs::read(source.join(name)).unwrap();
            fs::write(source.join(format!("cut-{name}")), &bytes[..bytes.len() * 3 / 4]).unwrap();
        }
        for (suffix, program) in [("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz"), ("zst", "zstd")] {
            let mut bytes = pipe(&plain, program, &["-c", "-1"]);
            let at = bytes.len() * 3 / 4;
            bytes[at] ^= 0x55;
            fs::write(source.join(format!("bad.{program}.{suffix}")), &bytes).unwrap();
        }
    });
    for name in ["cut-c.tar.bz2", "cut-c.tar.gz", "cut-c.tar.xz"] {
        let listing = exec::output(Command::new("ls").arg(backup.at(name)));
        assert!(!listing.status.success(), "{name}");
        assert_eq!(String::from_utf8_lossy(&listing.stdout), "a\nb\n", "{name}");
        let missing = fs::metadata(backup.at(name).join("nothing")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::EIO), "{name}");
        assert_eq!(fs::read(backup.at(name).join("b")).unwrap_err().raw_os_error(), Some(libc::EIO), "{name}");
    }
    // Blocks of bzip2 are verified one by one, so the bytes before the damage are known to be right.
    assert_eq!(fs::read(backup.at("cut-c.tar.bz2/a")).unwrap(), &plain[..1_000_000]);
    assert!(fs::read(backup.at("cut-c.tar.gz/a")).is_err());
    for name in ["bad.gzip", "bad.bzip2", "bad.xz", "bad.zstd"] {
        let mut read = Vec::new();
        let error = fs::File::open(backup.at(name)).unwrap().read_to_end(&mut read).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}");
        assert!(read.len() < plain.len());
        // The index at the end of an xz file has the length. For the other formats it is unknown.
        // The size is provisional while the file counts as open, which it does briefly after it is closed.
        let ask = || fs::metadata(backup.at(name)).map(|meta| meta.len());
        let start = Instant::now();
        let mut size = ask();
        while size.is_ok() && name != "bad.xz" && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
            size = ask();
        }
        match size {
            Ok(len) => assert!(name == "bad.xz" && len == plain.len() as u64, "{name}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}"),
        }
        if name == "bad.bzip2" {
            assert_eq!(read, plain[..read.len()]);
        }
    }
    let log = backup.log();
    assert!(log.contains("bad.bzip2.bz2: damaged near byte"), "{log}");
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn a_replaced_member_is_never_served_as_the_later_one() {
    let (old, new) = (dump(3, 20_000), dump(4, 30_000));
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("filler"), noise(5, 30_000_000)).unwrap();
        let tar = |options: &[&str], names: &[&str]| run(&work, "tar", &[options, names].concat());
        let big = source.join("big.tar");
        for (option, content) in [("-cf", &old), ("-rf", &new)] {
            fs::write(work.join("dump.gz"), pipe(content, "gzip", &["-c"])).unwrap();
            fs::write(work.join("f"), content).unwrap();
            let target = if option == "-cf" { "old" } else { "a-new-target" };
            run(&work, "ln", &["-sfn", target, "link"]);
            tar(&["-cf", "inner.tar"], &["f", "dump.gz"]);
            tar(&[option, big.to_str().unwrap()], &["dump.gz", "inner.tar", "link", "filler"]);
        }
    });
    let files = ["big.tar/dump", "big.tar/inner.tar/f", "big.tar/inner.tar/dump"];
    // During the pass: the new one, or an error.
    let first: Vec<_> = files.iter().map(|name| fs::read(backup.at(name))).collect();
    for (name, read) in files.iter().zip(first) {
        match read {
            Ok(read) => assert!(read == new, "{name}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}"),
        }
    }
    for name in files {
        assert!(fs::read(backup.at(name)).unwrap() == new, "{name}");
        assert_eq!(fs::metadata(backup.at(name)).unwrap().len(), new.len() as u64, "{name}");
    }
    assert_eq!(fs::read_link(backup.at("big.tar/link")).unwrap(), Path::new("a-new-target"));
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn lengths_that_a_zip_directory_states_wrongly_make_no_short_files() {
    let plain = dump(6, 700_000);
    let stated = [0_u32, 1000, 262_144, 524_288, 699_999];
    let backup = Backup::of(|source| {
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("f"), &plain).unwrap();
        for size in stated {
            for (method, option) in [("deflated", "-6"), ("stored", "-0")] {
                let zip = source.join(format!("{method}-{size}.zip"));
                run(&work, "zip", &["-q", option, zip.to_str().unwrap(), "f"]);
                let mut bytes = fs::read(&zip).unwrap();
                let entry = bytes.windows(4).rposition(|magic| magic == b"PK\x01\x02").unwrap();
                bytes[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
                fs::write(&zip, &bytes).unwrap();
            }
        }
    });
    for size in stated {
        for method in ["deflated", "stored"] {
            let error = fs::read(backup.at(&format!("{method}-{size}.zip/f"))).map(|read| read.len()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{method} {size}");
        }
    }
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn bombs_and_nested_archives_exceed_limits_that_the_log_names() {
    let backup = Backup::of(|source| {
        // Nested archives, deeper than any in practice.
        let work = source.parent().unwrap().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("f"), b"text").unwrap();
        run(&work, "tar", &["-c", "-f", "d1.tar", "f"]);
        for depth in 2..8 {
            let (outer, inner) = (format!("d{depth}.tar"), format!("d{}.tar", depth - 1));
            run(&work, "tar", &["-c", "-f", &outer, &inner]);
        }
        fs::copy(work.join("d7.tar"), source.join("d7.tar")).unwrap();
        // 3 GiB of zeros in 140 KB, in a zip that states the length and in a zstd file that does not.
        run(&work, "sh", &["-c", "head -c 3000000000 /dev/zero | zstd -q -c --long=27 > zeros.zst"]);
        fs::copy(work.join("zeros.zst"), source.join("zeros.zst")).unwrap();
        fs::write(source.join("nested.tar.gz"), fairness::nested(&work, 4 << 10)).unwrap();
        fs::write(work.join("secret.txt"), dump(2, 20_000)).unwrap();
        run(&work, "zip", &["-q", "-P", "pw", source.join("locked.zip").to_str().unwrap(), "secret.txt"]);
        run(&work, "7z", &["a", "-bd", "-mm=PPMd", source.join("other.zip").to_str().unwrap(), "secret.txt"]);
    });
    assert_eq!(
        fs::read(backup.at("d7.tar/d6.tar/d5.tar/d4.tar")).map(|_| ()).unwrap_err().raw_os_error(),
        Some(libc::EISDIR)
    );
    let deep = fs::metadata(backup.at("d7.tar/d6.tar/d5.tar/d4.tar/d3.tar")).unwrap_err();
    assert_eq!(deep.raw_os_error(), Some(libc::EOPNOTSUPP));
    let bomb = fs::metadata(backup.at("zeros")).unwrap_err();
    assert_eq!(bomb.raw_os_error(), Some(libc::EOPNOTSUPP));
    let nested = fs::read_dir(backup.at("nested.tar.gz/n2.tar.gz/n1.tar.gz/n0.tar.gz"));
    let nested = nested.and_then(Iterator::collect::<Result<Vec<_>, _>>).unwrap_err();
    assert_eq!(nested.raw_os_error(), Some(libc::EOPNOTSUPP));
    for name in ["locked.zip", "other.zip"] {
        assert_eq!(names(&backup.at(name)), ["secret.txt"]);
        let refused = fs::read(backup.at(name).join("secret.txt")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP), "{name}");
    }
    let log = backup.log();
    for expected in [
        "archives within archives deeper than 4",
        "expands to more than 2000 times its size",
        "like a nested decompression bomb",
        "encrypted",
        "compressed by",
    ] {
        assert!(log.contains(expected), "the log does not say: {expected}\n{log}");
    }
    backup.end(b"secret-that-is-nowhere");
}
