//! The content of archives never reaches the disk as plaintext.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use memchr::memmem;

use super::{Backup, files_below, run};
use crate::support::dump;

const MEMBER: &str = "MEMBERNAME-5511aa";
const TARGET: &str = "LINKTARGET-5511aa";
const OWNER: &str = "OWNERNAME-5511aa";
const GROUP: &str = "GROUPNAME-5511aa";

const FORMS: [(&str, &str); 6] =
    [("a.tar", ""), ("a.tar.gz", "-z"), ("a.tbz2", "-j"), ("a.tar.xz", "-J"), ("a.tzst", "--zstd"), ("b.tgz", "-z")];

/// Writes archives of all formats into `source`. Their members have the marked names, and one archive is inside
/// another.
fn pack(source: &Path) {
    let work = source.parent().unwrap().join("work");
    let dir = work.join(format!("dir-{MEMBER}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(MEMBER), dump(7, 700_000)).unwrap();
    fs::write(dir.join(format!("{MEMBER}.sql.gz")), b"no gzip file").unwrap();
    symlink(format!("../{TARGET}"), dir.join("link")).unwrap();
    let (owner, group) = (format!("--owner={OWNER}:1234"), format!("--group={GROUP}:1234"));
    let tar = |out: &Path, option: &str, what: &str| {
        let args = ["-c", "-f", out.to_str().unwrap(), &owner, &group, option, what];
        run(&work, "tar", &args.into_iter().filter(|arg| !arg.is_empty()).collect::<Vec<_>>());
    };
    let dir = dir.file_name().unwrap().to_str().unwrap();
    for (name, option) in FORMS {
        tar(&source.join(name), option, dir);
    }
    run(&work, "zip", &["-q", "-r", "-y", source.join("a.zip").to_str().unwrap(), dir]);
    let inner = format!("inner-{MEMBER}.tar.bz2");
    tar(&work.join(&inner), "-j", dir);
    tar(&source.join("outer.tgz"), "-z", &inner);
}

#[test]
fn names_links_and_owners_inside_archives_are_in_no_file_of_the_cache() {
    let mut backup = Backup::of(pack);
    let list =
        |backup: &Backup| String::from_utf8(run(&backup.at("."), "find", &[".", "-printf", "%p %i %l\n"])).unwrap();
    let listed = list(&backup);
    for (name, _) in FORMS.iter().chain(&[("a.zip", "")]) {
        assert!(listed.contains(&format!("./{name}/")) && listed.contains(MEMBER), "{listed}");
    }
    assert!(listed.contains(&format!("./outer.tgz/inner-{MEMBER}.tar.bz2/dir-{MEMBER}/{MEMBER} ")), "{listed}");
    assert!(listed.contains(&format!("../{TARGET}")), "{listed}");
    run(&backup.at("."), "sh", &["-c", "find . -type f -exec cat {} + | wc -c"]);
    assert_eq!(list(&backup), listed);

    backup.mount.take().unwrap().unmount();
    let home = backup.scratch.dir("r").join("dupfs-home");
    let files = files_below(&home);
    assert!(files.iter().any(|file| file.to_string_lossy().contains("/seg-")), "nothing was persisted: {files:?}");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for marker in [MEMBER, TARGET, OWNER, GROUP] {
            let found = memmem::find(&bytes, marker.as_bytes()).is_some();
            assert!(!found, "{marker} is in {}", file.display());
        }
    }
}
