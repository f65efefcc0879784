//! Zip archives as unzip, 7-Zip, bsdtar and Python's zipfile read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Backup, names, pipe, run, text};
use crate::support::{dump, exec, noise};

/// Writes zip archives field by field: `put(file, members)`, where a member is (raw name, method, packed bytes,
/// content, flags, made by, extra field). `stub` precedes the archive, whose offsets do not count it.
const WRITER: &str = r"
import struct, zlib
def put(file, members, stub=b'', zip64=False):
    out, directory = b'', b''
    for raw, method, packed, content, flags, made_by, extra in members:
        sums = struct.pack('<HHHHHIII', 20, flags, method, 0, 0x21, zlib.crc32(content), len(packed), len(content))
        sizes = struct.pack('<HH', len(raw), len(extra))
        attributes = (0o100644 << 16) if made_by >> 8 == 3 else 0x20
        directory += b'PK\1\2' + struct.pack('<H', made_by) + sums + sizes
        directory += struct.pack('<HHHII', 0, 0, 0, attributes, len(out)) + raw + extra
        out += b'PK\3\4' + sums + sizes + raw + extra + packed
    count, at, end = len(members), len(out), b''
    if zip64:
        end = b'PK\6\6' + struct.pack('<QHHIIQQQQ', 44, 45, 45, 0, 0, count, count, len(directory), at)
        end += b'PK\6\7' + struct.pack('<IQI', 0, at + len(directory), 1)
        count, at = 0xffff, 0xffffffff
    end += b'PK\5\6' + struct.pack('<HHHHIIH', 0, 0, count, count, len(directory), at, 0)
    open(file, 'wb').write(stub + out + directory + end)
";

fn python(dir: &Path, body: &str) -> String {
    String::from_utf8(run(dir, "python3", &["-c", &format!("{WRITER}\n{body}")])).unwrap()
}

fn work_beside(source: &Path) -> std::path::PathBuf {
    let work = source.parent().unwrap().join("work");
    fs::create_dir_all(&work).unwrap();
    work
}

#[test]
fn members_of_every_method_are_what_other_programs_extract() {
    let plain = dump(1, 1_500_000);
    // Archive, and a program that extracts `f` from it to its standard output.
    let seven = ["7z", "x", "-so"];
    let cases: &[(&str, &[&str])] = &[
        ("deflate64.zip", &["unzip", "-p"]),
        ("bzip2.zip", &["unzip", "-p"]),
        ("bzip2-7z.zip", &["unzip", "-p"]),
        ("lzma-7z.zip", &["bsdtar", "-xOf"]),
        ("lzma.zip", &seven),
        ("zstd.zip", &seven),
        ("zstd-old.zip", &["true"]),
        ("xz.zip", &["bsdtar", "-xOf"]),
    ];
    let backup = Backup::of(|source| {
        let work = work_beside(source);
        fs::write(work.join("f"), &plain).unwrap();
        fs::write(work.join("f.zst"), pipe(&plain, "zstd", &["-q", "-c"])).unwrap();
        fs::write(work.join("f.xz"), pipe(&plain, "xz", &["-c", "-0"])).unwrap();
        let packed = |name: &str| source.join(name).to_str().unwrap().to_owned();
        for (name, method) in
            [("deflate64.zip", "Deflate64"), ("bzip2-7z.zip", "BZip2"), ("lzma-7z.zip", "LZMA"), ("ppmd.zip", "PPMd")]
        {
            run(&work, "7z", &["a", "-bd", "-mx=1", &format!("-mm={method}"), &packed(name), "f"]);
        }
        run(&work, "zip", &["-q", "-Z", "bzip2", &packed("bzip2.zip"), "f"]);
        let body = format!(
            "import zipfile\n\
             with zipfile.ZipFile('{0}/lzma.zip', 'w', zipfile.ZIP_LZMA) as z: z.write('f')\n\
             f, zst, xz = (open(n, 'rb').read() for n in ('f', 'f.zst', 'f.xz'))\n\
             for name, method, packed in (('zstd', 93, zst), ('zstd-old', 20, zst), ('xz', 95, xz)):\n\
             \x20   put('{0}/' + name + '.zip', [(b'f', method, packed, f, 0, 0x31e, b'')])\n\
             put('{0}/damaged.zip', [(b'f', 93, zst, b'?' + f[1:], 0, 0x31e, b'')])\n\
             put('{0}/short.zip', [(b'f', 95, xz, f[:-1], 0, 0x31e, b'')])",
            source.display()
        );
        python(&work, &body);
    });
    for (name, extract) in cases {
        assert_eq!(names(&backup.at(name)), ["f"], "{name}");
        let member = backup.at(name).join("f");
        assert_eq!(fs::metadata(&member).unwrap().len(), plain.len() as u64, "{name}");
        assert!(fs::read(&member).unwrap() == plain, "{name}");
        let tail = pipe(b"", "tail", &["-c", "70000", member.to_str().unwrap()]);
        assert!(tail == plain[plain.len() - 70_000..], "{name}");
        if *extract != ["true"] {
            let theirs = exec::run(Command::new(extract[0]).args(&extract[1..]).arg(backup.source(name)).arg("f"));
            assert!(theirs == plain, "{name} by {extract:?}");
        }
    }
    let refused = fs::read(backup.at("ppmd.zip/f")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    for name in ["damaged.zip", "short.zip"] {
        let error = fs::read(backup.at(name).join("f")).map(|read| read.len()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}");
    }
    let log = backup.log();
    assert!(log.contains("ppmd.zip/f: compressed by PPMD (method 98)"), "{log}");
    backup.end(b"lorem ipsum dolor");
}

#[test]
fn split_self_extracting_and_zip64_archives_are_read() {
    let plain = dump(2, 300_000);
    let backup = Backup::of(|source| {
        let work = work_beside(source);
        fs::write(work.join("f"), &plain).unwrap();
        let zip = |args: &[&str]| run(&work, "zip", &[&["-q"], args].concat());
        let at = |name: &str| source.join(name).to_str().unwrap().to_owned();
        zip(&["plain.zip", "f"]);
        let plain_zip = fs::read(work.join("plain.zip")).unwrap();
        // Offsets that do not count the program in front, and offsets that do.
        let stub = [&b"#!/bin/sh\nexec unzip \"$0\"\n"[..], &[0x90; 5000]].concat();
        fs::write(source.join("stub.zip"), [&stub[..], &plain_zip].concat()).unwrap();
        fs::write(source.join("adjusted.zip"), [&stub[..], &plain_zip].concat()).unwrap();
        zip(&["-A", &at("adjusted.zip")]);
        let body = "import zlib\nf = open('f', 'rb').read()\nc = zlib.compressobj(6, 8, -15)\np = c.compress(f) + c.flush()\n\
                    m = [(b'f', 8, p, f, 0, 0x31e, b'')]\n";
        let put = |name: &str, more: &str| format!("put('{}', m{more})\n", at(name));
        python(
            &work,
            &[body, &put("large.zip", ", zip64=True"), &put("large-stub.zip", ", b'stub' * 900, True")].concat(),
        );
        // From a pipe: sizes and checksums after the data, and zip64.
        run(&work, "sh", &["-c", &format!("cat f | zip -q - - > {}", at("piped.zip"))]);
        zip(&["-fz", &at("forced.zip"), "f"]);
        fs::write(work.join("noise"), noise(3, 300_000)).unwrap();
        zip(&["-s", "64k", &at("split.zip"), "noise"]);
        run(&work, "7z", &["a", "-bd", "-pw", "-mem=AES256", &at("aes.zip"), "f"]);
        zip(&["-P", "pw", &at("locked.zip"), "f"]);
        fs::write(source.join("comment.zip"), &plain_zip).unwrap();
        run(&work, "sh", &["-c", &format!("echo remark | zip -q -z {}", at("comment.zip"))]);
    });
    for (name, member) in [
        ("stub.zip", "f"),
        ("adjusted.zip", "f"),
        ("large.zip", "f"),
        ("large-stub.zip", "f"),
        ("piped.zip", "-"),
        ("forced.zip", "f"),
        ("comment.zip", "f"),
    ] {
        assert_eq!(names(&backup.at(name)), [member], "{name}");
        assert!(fs::read(backup.at(name).join(member)).unwrap() == plain, "{name}");
        let theirs = exec::output(Command::new("unzip").args(["-qq", "-p"]).arg(backup.source(name)));
        assert!(theirs.stdout == plain, "{name} by unzip: {}", exec::tail(&theirs.stderr));
    }
    for name in ["aes.zip", "locked.zip"] {
        let refused = fs::read(backup.at(name).join("f")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP), "{name}");
    }
    let split = fs::read_dir(backup.at("split.zip")).and_then(Iterator::collect::<Result<Vec<_>, _>>).unwrap_err();
    assert_eq!(split.raw_os_error(), Some(libc::EOPNOTSUPP));
    let log = backup.log();
    for expected in ["aes.zip/f: encrypted", "split.zip: not unpacked: the last part of a split archive"] {
        assert!(log.contains(expected), "the log does not say: {expected}\n{log}");
    }
    backup.end(b"lorem ipsum dolor");
}

/// Archives with names in several encodings: one of DOS, one of Unix, one with marks.
fn put_names(source: &Path) {
    let work = work_beside(source);
    let body = format!(
        "def up(raw, name):\n\
         \x20   b = struct.pack('<BI', 1, zlib.crc32(raw)) + name.encode()\n\
         \x20   return struct.pack('<HH', 0x7075, len(b)) + b\n\
         def m(raw, flags=0, made_by=20, extra=b''): return (raw, 0, b'x', b'x', flags, made_by, extra)\n\
         put('{0}/dos.zip', [m('Übergröße/été.txt'.encode('cp437')), m(b'back\\\\slash')])\n\
         put('{0}/russian.zip', [m('Отчёт.txt'.encode('cp866')), m('plain.txt'.encode())])\n\
         put('{0}/unix.zip', [m('Übung'.encode(), made_by=0x31e), m('latin-é'.encode('latin1'), made_by=0x31e)])\n\
         put('{0}/marked.zip', [m('Ελλ'.encode(), 0x800), m(b'field', made_by=0x31e, extra=up(b'field', 'ä-日本')), \
         m(b'bad', made_by=0x31e, extra=up(b'other', 'wrong'))])",
        source.display()
    );
    python(&work, &body);
}

/// Returns all names of `archive` by Python's zipfile, with the encoding of unmarked names.
fn python_names(archive: &Path, encoding: &str) -> Vec<String> {
    let body = format!(
        "import zipfile\nfor n in zipfile.ZipFile('{}', metadata_encoding={encoding}).namelist(): print(n)",
        archive.display()
    );
    let mut listed: Vec<String> = python(Path::new("/"), &body).lines().map(str::to_owned).collect();
    listed.sort();
    listed
}

#[test]
fn names_are_text_where_the_archive_gives_their_encoding() {
    let backup = Backup::of(put_names);
    assert_eq!(names(&backup.at("dos.zip")), ["back", "Übergröße"]);
    assert_eq!(names(&backup.at("dos.zip/back")), ["slash"]);
    assert_eq!(names(&backup.at("dos.zip/Übergröße")), ["été.txt"]);
    assert!(python_names(&backup.source("dos.zip"), "None").contains(&"Übergröße/été.txt".to_owned()));
    assert_eq!(names(&backup.at("marked.zip")), ["bad", "ä-日本", "Ελλ"]);
    let unzip = |name: &str| {
        let listed = run(Path::new("/"), "unzip", &["-Z1", backup.source(name).to_str().unwrap()]);
        let mut listed: Vec<String> = listed
            .split(|&b| b == b'\n')
            .filter(|n| !n.is_empty())
            .map(|n| text(std::os::unix::ffi::OsStrExt::from_bytes(n)))
            .collect();
        listed.sort();
        listed
    };
    assert_eq!(names(&backup.at("unix.zip")), unzip("unix.zip"));
    // Code page 437 is a guess, and a wrong one here, as in Python.
    assert_eq!(names(&backup.at("russian.zip")), python_names(&backup.source("russian.zip"), "None"));
    backup.end(b"secret-that-is-nowhere");
}

#[test]
fn an_option_sets_the_encoding_of_other_names() {
    let backup = Backup::with_options(&["-o", "zip-names=cp866"], put_names);
    let wanted = ["plain.txt", "Отчёт.txt"];
    assert_eq!(names(&backup.at("russian.zip")), wanted);
    assert_eq!(python_names(&backup.source("russian.zip"), "'cp866'"), wanted);
    assert_eq!(names(&backup.at("unix.zip"))[1], "Übung");
    let repo = format!("file://{}", backup.scratch.path().join("r").display());
    let (code, error) =
        exec::Dupfs::new(&backup.empty("h")).fails("mount", &["-o", "zip-names=klingon", &repo, "/nowhere"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("klingon") && error.contains("cp437"), "{error}");
    backup.end(b"secret-that-is-nowhere");
}
