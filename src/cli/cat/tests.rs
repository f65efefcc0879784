use super::super::file_chunks::CHUNK;
use super::*;
use crate::vfs::ROOT_INO;
use crate::vfs::memory_fs::{ClosingPipe, MemoryFs, MemoryNodeKind};

fn tree() -> MemoryFs {
    let mut fs = MemoryFs::new();
    let db = fs.add(ROOT_INO, b"db", MemoryNodeKind::Dir);
    fs.file(db, b"monday.sql", b"select 1;\n".as_slice());
    fs.file(db, b"big", (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>());
    fs.file(db, b"chunk", vec![7; CHUNK]);
    fs.add(db, b"latest.sql", MemoryNodeKind::Link(b"../db/./monday.sql".to_vec()));
    fs.add(ROOT_INO, b"var", MemoryNodeKind::Link(b"db".to_vec()));
    fs.add(ROOT_INO, b"abs", MemoryNodeKind::Link(b"/etc/passwd".to_vec()));
    fs.add(ROOT_INO, b"up", MemoryNodeKind::Link(b"../secret".to_vec()));
    fs.add(ROOT_INO, b"circle", MemoryNodeKind::Link(b"circle".to_vec()));
    fs.add(ROOT_INO, b"pipe", MemoryNodeKind::Fifo);
    let bytes = vec![1; 3 * CHUNK];
    fs.add(ROOT_INO, b"torn", MemoryNodeKind::File { bytes, damaged_from: Some(2 * CHUNK as u64) });
    fs
}

fn cat(paths: &[&str]) -> (Vec<u8>, String, Result<CommandExit, CliError>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let paths: Vec<OsString> = paths.iter().map(Into::into).collect();
    let end = run(&tree(), &paths, RequestTimeout::default(), &mut Printer::new(&mut out, &mut err, false));
    (out, String::from_utf8(err).unwrap(), end)
}

#[test]
fn files_are_written_completely_and_in_order() {
    let (out, err, end) = cat(&["/db/big", "db/monday.sql", "db/chunk"]);
    let mut expected: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    expected.extend(b"select 1;\n");
    expected.extend(vec![7; CHUNK]);
    assert!(out == expected);
    assert_eq!((err.as_str(), end), ("", Ok(CommandExit::Done)));
}

#[test]
fn links_are_followed_as_far_as_they_stay_in_the_backup() {
    assert_eq!(cat(&["var/latest.sql"]).0, b"select 1;\n");
    for (path, why) in [("abs", "/etc/passwd"), ("up", "leaves the backup"), ("circle", "too many symbolic links")] {
        let (out, err, end) = cat(&[path]);
        assert_eq!(end, Ok(CommandExit::NotFound));
        assert!(out.is_empty() && err.contains(why), "{err}");
    }
}

#[test]
fn a_damaged_file_is_an_error_and_the_next_file_is_still_written() {
    let (out, err, end) = cat(&["torn", "db/monday.sql"]);
    assert_eq!(end, Ok(CommandExit::Damage));
    assert_eq!(out.len(), 2 * CHUNK + 10);
    assert_eq!(err, "dupfs: torn: duplicity-full.T.vol7.difftar.gpg: damaged (after 2097152 bytes)\n");
}

#[test]
fn a_path_that_is_no_file_is_distinguished_from_a_missing_one() {
    let (out, err, end) = cat(&["nope", "db", "pipe", "db/monday.sql"]);
    assert_eq!(out, b"select 1;\n");
    assert_eq!(end, Ok(CommandExit::NotFound));
    assert!(err.contains("dupfs: nope: no such path") && err.contains("dupfs: db: a directory"), "{err}");
    assert!(err.contains("dupfs: pipe: a named pipe"), "{err}");
    assert_eq!(cat(&["db"]).2, Ok(CommandExit::Failed));
}

#[test]
fn a_closed_pipe_ends_cat_at_once_and_silently() {
    let (mut out, mut err) = (ClosingPipe(5), Vec::new());
    let end = run(
        &tree(),
        &["torn".into(), "db/big".into()],
        RequestTimeout::default(),
        &mut Printer::new(&mut out, &mut err, false),
    );
    assert_eq!(end.unwrap_err(), CliError::OutputClosed);
    assert!(err.is_empty());
}

#[test]
fn a_store_that_does_not_answer_does_not_block_the_command() {
    let mut fs = tree();
    let ino = fs.file(ROOT_INO, b"hangs", b"x".as_slice());
    fs.hanging.push(ino);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let paths = ["hangs".into(), "db/monday.sql".into()];
    let timeout = RequestTimeout(std::time::Duration::from_millis(30));
    let end = run(&fs, &paths, timeout, &mut Printer::new(&mut out, &mut err, false));
    assert_eq!((end, out.as_slice()), (Ok(CommandExit::Damage), b"select 1;\n".as_slice()));
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("dupfs: hangs: ") && err.contains("deadline"), "{err}");
}
