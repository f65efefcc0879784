//! `dupfs history` and `dupfs diff` on backups of which only manifests and signature archives can be read, compared with the
//! differences of the sources and with duplicity's own reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::support::duplicity::{Mode, Repository, stamp};
use crate::support::maker::Maker;
use crate::support::tree::{Kind, Tree};
use crate::support::{Scratch, exec, noise, source};

const TIMES: [i64; 6] = [1_700_000_000, 1_700_003_600, 1_700_007_200, 1_700_010_800, 1_700_014_400, 1_700_018_000];
/// The states that begin a chain.
const FULL: [bool; 6] = [true, false, false, false, true, false];
/// The content of this file is another one of the same size and modification time in the second chain.
const SAME_MTIME: &str = "dir/big";

/// Adds the changes that `source::small` lacks: of types, modes, owners, targets, devices and times.
fn build_states(dir: &Path) -> Vec<PathBuf> {
    let mut states: Vec<PathBuf> = source::small(dir).to_vec();
    let next = |from: &PathBuf, number: i64, change: &dyn Fn(&mut Maker)| {
        let of = Maker::new(from, 0);
        let mut maker = Maker::copy_of(&of, &dir.join(format!("changes-{number}")), 1_430_000_000 + number);
        change(&mut maker);
        for name in ["", "dir", "dir!"] {
            maker.mtime(name, 1_390_000_100 + number, 0);
        }
        maker.root().to_owned()
    };
    states.push(next(&states[2], 0, &|m| {
        m.chmod("dir/secret", 0o640);
        m.chown("dir!/after", 1, 2);
        m.touch("dir/gone");
        m.remove("link");
        m.link("link", "dir/edited");
        m.remove("dir/fifo");
        m.file("dir/fifo", noise(9, 70_000));
        m.node("null", FileType::CharacterDevice, 0o666, 1, 3);
        m.node("other", FileType::CharacterDevice, 0o666, 1, 3);
        m.file("deep/er/file", "below\n");
    }));
    states.push(next(&states[3], 1, &|m| {
        let (path, mtime) = (m.at(SAME_MTIME), Tree::walk(m.root()).entries[SAME_MTIME.as_bytes()].mtime);
        fs::File::options().write(true).open(path).unwrap().write_all_at(b"another content", 600_000).unwrap();
        m.mtime(SAME_MTIME, mtime, 0);
        m.remove("other");
        m.node("other", FileType::CharacterDevice, 0o666, 1, 5);
        m.mtime("other", 1_430_000_000, 0);
        m.file("new", noise(6, 140_000));
    }));
    states.push(next(&states[4], 2, &|m| {
        m.edit("a file", |content| content.extend(b"and more\n"));
        m.remove("deep");
        m.file("deep", "now a file\n");
    }));
    states
}

/// Backs up the states and then damages every volume, so that a command that needs one fails.
fn without_volumes(repo: &Repository, states: &[PathBuf]) -> Vec<Tree> {
    for ((state, time), full) in states.iter().zip(TIMES).zip(FULL) {
        repo.backup(full, state, time);
    }
    for entry in fs::read_dir(repo.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains(".difftar") {
            fs::write(path, "damaged").unwrap();
        }
    }
    states.iter().map(|state| Tree::walk(state)).collect()
}

/// The parts in which the source of `path` differs; `None` if an object is missing.
fn parts(old: &Tree, new: &Tree, path: &[u8]) -> Option<Vec<&'static str>> {
    let (a, b) = (old.entries.get(path)?, new.entries.get(path)?);
    if a.kind != b.kind {
        return Some(vec!["type"]);
    }
    let is_link = a.kind == Kind::Link;
    let is_file = a.kind == Kind::File;
    let all = [
        ("contents", is_file && fs::read(old.locate(path)).unwrap() != fs::read(new.locate(path)).unwrap()),
        ("target", a.target != b.target),
        ("device", a.rdev != b.rdev),
        ("mode", !is_link && a.mode != b.mode),
        ("owner", a.uid != b.uid),
        ("group", a.gid != b.gid),
        ("mtime", a.mtime != b.mtime),
    ];
    Some(all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect())
}

/// The change of `path` as `diff` prints it; `None` if there is none.
fn change(old: &Tree, new: &Tree, path: &[u8]) -> Option<String> {
    match (old.entries.contains_key(path), new.entries.contains_key(path)) {
        (false, false) => None,
        (false, true) => Some("added".to_owned()),
        (true, false) => Some("removed".to_owned()),
        (true, true) => parts(old, new, path).filter(|parts| !parts.is_empty()).map(|parts| parts.join(",")),
    }
}

fn paths<'a>(trees: impl IntoIterator<Item = &'a Tree>) -> BTreeSet<Vec<u8>> {
    trees.into_iter().flat_map(|tree| tree.entries.keys().cloned()).collect()
}

/// The lines of `diff --print0` for two trees.
fn expected_diff(old: &Tree, new: &Tree) -> BTreeMap<Vec<u8>, String> {
    let of = |path: Vec<u8>| Some((path.clone(), change(old, new, &path)?));
    paths([old, new]).into_iter().filter_map(of).collect()
}

fn diff(repo: &Repository, operands: &[&str]) -> BTreeMap<Vec<u8>, String> {
    let url = repo.url();
    let printed = repo.reader().run("diff", &[&[url.as_str()], operands, &["--print0"]].concat());
    let lines = printed.split(|&b| b == 0).filter(|line| !line.is_empty());
    let of = |line: &[u8]| {
        let at = line.iter().position(|&b| b == b' ').unwrap();
        let path = if &line[at + 1..] == b"." { Vec::new() } else { line[at + 1..].to_vec() };
        (path, String::from_utf8(line[..at].to_vec()).unwrap())
    };
    lines.map(of).collect()
}

/// Pairs of snapshots (`tests/model` compares all of them), each of one chain, of two, and backwards.
const PAIRS: [[usize; 2]; 6] = [[0, 3], [1, 2], [2, 4], [0, 5], [5, 1], [3, 3]];

fn compare_diffs(repo: &Repository, trees: &[Tree]) {
    for [old, new] in PAIRS {
        let (old_time, new_time) = (stamp(TIMES[old]), stamp(TIMES[new]));
        assert_eq!(
            diff(repo, &[&old_time, &new_time]),
            expected_diff(&trees[old], &trees[new]),
            "{old_time} {new_time}"
        );
    }
    // One time: the changes that its snapshot brought, also over a full set.
    let nothing = Tree { root: PathBuf::new(), entries: BTreeMap::new() };
    for (at, (new, time)) in trees.iter().zip(TIMES).enumerate() {
        let old = at.checked_sub(1).map_or(&nothing, |before| &trees[before]);
        let shown = diff(repo, &[&time.to_string()]);
        assert_eq!(shown, expected_diff(old, new), "{time}");
        if !FULL[at] {
            continue;
        }
        let below: BTreeMap<_, _> = shown.into_iter().filter(|(path, _)| path.starts_with(b"dir/")).collect();
        let mut printed = diff(repo, &[&time.to_string(), "latest/dir/"]);
        printed.remove(&b"dir"[..]);
        assert_eq!(printed, below, "{time}, below a path");
    }
}

fn history(repo: &Repository, path: &[u8], options: &[&str]) -> Vec<Value> {
    use std::os::unix::ffi::OsStrExt;
    let mut command = repo.reader().command("history");
    command.args(options).arg("--json").arg(repo.url()).arg(std::ffi::OsStr::from_bytes(&[b"/", path].concat()));
    let printed: Value = serde_json::from_slice(&exec::run(&mut command)).unwrap();
    printed.as_array().unwrap().clone()
}

fn compare_histories(repo: &Repository, trees: &[Tree]) {
    for path in paths(trees) {
        let name = path.escape_ascii().to_string();
        let (mut expected, mut all, mut existed) = (Vec::new(), Vec::new(), false);
        for (at, tree) in trees.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| &trees[before]);
            let was = before.is_some_and(|before| before.entries.contains_key(&path));
            let is = tree.entries.contains_key(&path);
            let parts = before.and_then(|before| parts(before, tree, &path)).unwrap_or_default();
            let event = match (was, is) {
                (false, false) => None,
                (false, true) if existed => Some("reappeared"),
                (false, true) => Some("created"),
                (true, false) => Some("deleted"),
                (true, true) if parts.is_empty() => None,
                (true, true) => Some("changed"),
            };
            let row = |event: &str| json!([stamp(TIMES[at]), event, parts]);
            expected.extend(event.map(row));
            all.extend(event.map(row).or_else(|| (is && FULL[at]).then(|| row("unchanged"))));
            existed |= is;
        }
        let of = |row: &Value| json!([row["snapshot"], row["event"], row["changes"]]);
        let mut rows = history(repo, &path, &["--all"]);
        assert_eq!(rows.iter().map(of).collect::<Vec<_>>(), all, "{name}");
        rows.retain(|row| row["event"] != "unchanged");
        assert_eq!(rows.iter().map(of).collect::<Vec<_>>(), expected, "{name}");
        for row in rows {
            let at = TIMES.iter().position(|time| stamp(*time) == row["snapshot"]).unwrap();
            assert_eq!(row["set"], if FULL[at] { "full" } else { "inc" }, "{row}");
            let Some(entry) = trees[at].entries.get(&path) else {
                assert!(row.get("type").is_none() && row.get("mode").is_none(), "{row}");
                continue;
            };
            assert_eq!((&row["mtime"], &row["uid"]), (&entry.mtime.into(), &entry.uid.into()), "{row}");
            if entry.kind == Kind::File {
                let size = row["size"].as_u64().unwrap();
                let is_exact = row["size_is_exact"] == true;
                assert!(if is_exact { size == entry.size } else { size >= entry.size }, "{row}");
            }
        }
    }
}

/// Compares `dupfs diff` of one snapshot with the listings of its source and of the one before, in the form of tests/fixtures.
pub fn compare_listings(dupfs: &exec::Dupfs, url: &str, snapshot: &str, listings: [&str; 2]) {
    let [old, new] = listings.map(|listing| {
        let entries = listing.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries.map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry)).collect::<BTreeMap<_, _>>()
    });
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut expected = BTreeSet::new();
    for name in names {
        let change = match (old.get(name), new.get(name)) {
            (Some(_), None) => "removed".to_owned(),
            (None, Some(_)) => "added".to_owned(),
            (Some(a), Some(b)) if a["type"] != b["type"] => "type".to_owned(),
            (Some(a), Some(b)) => {
                let keys = [
                    ("contents", "sha256"),
                    ("target", "target"),
                    ("mode", "mode"),
                    ("owner", "uid"),
                    ("group", "gid"),
                    ("mtime", "mtime"),
                ];
                keys.iter().filter(|(_, key)| a[*key] != b[*key]).map(|(part, _)| *part).collect::<Vec<_>>().join(",")
            }
            (None, None) => String::new(),
        };
        if !change.is_empty() {
            expected.insert(format!("{change} {name}"));
        }
    }
    // The listings have the escaped names of a terminal.
    let printed: Value = serde_json::from_slice(&dupfs.run("diff", &[url, snapshot, "--json"])).unwrap();
    let printed: BTreeSet<String> = printed["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let parts: Vec<&str> =
                entry["changes"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
            let change = if parts.is_empty() { entry["change"].as_str().unwrap().to_owned() } else { parts.join(",") };
            let path = match entry["path_hex"].as_str() {
                Some(hex) => {
                    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                    dupfs_base::escape_bytes(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>())
                }
                None => entry["path"].as_str().unwrap().to_owned(),
            };
            format!("{change} {}", if path.is_empty() { "." } else { &path })
        })
        .collect();
    assert_eq!(printed, expected, "{url} {snapshot}");
}

/// The rows of a table of duplicity's: the words of each line after the heading `heading`.
fn table<'a>(report: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let lines = report.lines().skip_while(|line| !line.trim_start().starts_with(heading)).skip(1);
    lines.take_while(|line| !line.starts_with("---")).map(|line| line.split_whitespace().collect()).collect()
}

/// duplicity reports the changes of files in the last chain, by the lists in its manifests.
fn compare_with_duplicity(repo: &Repository, trees: &[Tree]) {
    let mut compared = 0;
    for name in ["a file", "new", "deep", "deep/er/file"] {
        let report = repo.ask("collection-status", &["--file-changed", name]);
        let rows = history(repo, name.as_bytes(), &["--all"]);
        for words in table(&report, "Type of backup set:") {
            // `Full  Tue Nov 14 22:13:20 2023  New`
            let set = if words[0] == "Full" { "full" } else { "inc" };
            let clock = words[4];
            let row = rows.iter().find(|row| {
                let time = jiff::Timestamp::from_second(row["epoch"].as_i64().unwrap()).unwrap();
                row["set"] == set && time.strftime("%H:%M:%S").to_string() == clock
            });
            let row = row.unwrap_or_else(|| panic!("{name}: {words:?} is not in {rows:?}"));
            let event = row["event"].as_str().unwrap();
            // Some versions print Python's form of bytes.
            let fits = match words.last().unwrap().trim_start_matches("b'").trim_matches('\'') {
                "New" => set == "full" || matches!(event, "created" | "reappeared" | "changed"),
                "Changed" => event == "changed",
                "Deleted" => event == "deleted",
                other => panic!("{other}"),
            };
            assert!(fits, "{name}: {words:?}, {row}");
            compared += 1;
        }
    }
    assert!(compared >= 4, "duplicity reports only {compared} changes");

    let report = repo.ask("collection-status", &["--show-changes-in-set", "0"]);
    let shown = diff(repo, &["now"]);
    let is_file = |path: &&Vec<u8>| trees.iter().any(|t| t.entries.get(*path).is_some_and(|e| e.kind == Kind::File));
    let ours: BTreeSet<String> = shown.keys().filter(is_file).map(|p| String::from_utf8(p.clone()).unwrap()).collect();
    let theirs: BTreeSet<String> =
        table(&report, "File:").iter().map(|words| words[0].trim_matches('"').replace("\\x20", " ")).collect();
    assert!(theirs.contains("a file") && theirs.is_subset(&ours), "{theirs:?} {ours:?}");
}

#[test]
fn history_and_diff_print_the_differences_of_the_sources() {
    let scratch = Scratch::new();
    let states = build_states(scratch.path());
    for (version, encrypted) in [("0.8.22", false), ("1.2.3", true), ("3.2.1", true)] {
        let mode = if encrypted { Mode::Symmetric("p".to_owned()) } else { Mode::Plain };
        let repo = Repository::new(version, |_| mode, &scratch.dir(version));
        // A cheap key derivation.
        let repo = if encrypted { repo.option("--gpg-options=--s2k-count 1024") } else { repo };
        let trees = without_volumes(&repo, &states);
        compare_diffs(&repo, &trees);
        compare_histories(&repo, &trees);
        compare_with_duplicity(&repo, &trees);
    }
}

#[test]
fn history_and_diff_have_the_documented_form() {
    let scratch = Scratch::new();
    let states = build_states(scratch.path());
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    let trees = without_volumes(&repo, &states);
    let mtime = |at: usize, path: &str| {
        let mtime = jiff::Timestamp::from_second(trees[at].entries[path.as_bytes()].mtime).unwrap();
        mtime.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let (reader, url) = (repo.reader(), repo.url());
    let text = |command: &str, operands: &[&str]| {
        String::from_utf8(reader.run(command, &[&[url.as_str()], operands].concat())).unwrap()
    };
    let [first, second, third, fourth, fifth, sixth] = TIMES.map(stamp);
    assert_eq!(
        text("history", &["new"]),
        format!(
            "{second} inc  created    -rw-r--r-- root     root     <=140288 {}\n\
             {third} inc  deleted\n\
             {fifth} full reappeared -rw-r--r-- root     root     <=140288 {}\n",
            mtime(1, "new"),
            mtime(4, "new")
        )
    );
    assert_eq!(
        text("history", &["--numeric-owner", "/link"]),
        format!(
            "{first} full created      lrwxrwxrwx 0        0         6 {} -> a file\n\
             {fourth} inc  target,mtime lrwxrwxrwx 0        0        10 {} -> dir/edited\n",
            mtime(0, "link"),
            mtime(3, "link")
        )
    );
    let link: Value = serde_json::from_str(&text("history", &["--json", "link"])).unwrap();
    assert_eq!(
        link[1],
        json!({
            "path": "link", "snapshot": fourth, "epoch": TIMES[3], "set": "inc", "event": "changed",
            "changes": ["target", "mtime"], "snapshots": [fourth, fifth, sixth], "type": "symlink", "mode": "0777",
            "uid": 0, "gid": 0, "size": 10, "size_is_exact": true, "mtime": link[1]["mtime"], "target": "dir/edited"
        })
    );
    assert_eq!(text("diff", &[&fifth, "now", "deep"]), "type deep\nremoved deep/er\nremoved deep/er/file\n");
    let report: Value = serde_json::from_str(&text("diff", &["--json", &fourth, &fifth, "other"])).unwrap();
    let device = |minor: u32, mtime: &Value| {
        json!({"type": "char-device", "mode": "0666", "uid": 0, "gid": 0, "size": 0, "size_is_exact": true,
               "mtime": mtime, "device": [1, minor]})
    };
    let (old, new) = (&report["changes"][0]["old"], &report["changes"][0]["new"]);
    assert_eq!(
        report,
        json!({"snapshots": {"old": fourth, "new": fifth}, "changes": [{
            "path": "other", "change": "changed", "changes": ["device", "mtime"],
            "old": device(3, &old["mtime"]), "new": device(5, &new["mtime"])
        }]})
    );
    // The newest snapshot against the one before it.
    assert_eq!(text("diff", &["latest", "a file"]), "contents,mtime a file\n");
    assert_eq!(
        text("diff", &["now", "--json", "new"]),
        format!("{{\"snapshots\":{{\"old\":\"{fifth}\",\"new\":\"{sixth}\"}},\"changes\":[]}}\n")
    );
    let first_json: Value = serde_json::from_str(&text("diff", &["--json", &first])).unwrap();
    assert_eq!((&first_json["snapshots"]["old"], &first_json["changes"][0]["change"]), (&Value::Null, &json!("added")));

    for (command, operands, code, part) in [
        ("history", vec![url.as_str(), "dir/edite"], 3, "did you mean dir/edited?"),
        (
            "history",
            vec![&url, "nothing"],
            3,
            "no snapshot has this path; search all snapshots with: dupfs find --all URL",
        ),
        ("history", vec![&url, "unpacked/latest/a.zip"], 3, "the stored archive itself"),
        ("history", vec![&url, "new", "--time", "now"], 2, "history shows all times"),
        ("history", vec!["new", &url], 2, "the wrong way round"),
        ("diff", vec![&url, &first, &second, "dir/edite"], 3, "did you mean dir/edited?"),
        (
            "diff",
            vec![&url, &first, &second, "null"],
            3,
            "neither snapshot has this path; search all with: dupfs find --all URL",
        ),
        ("diff", vec![&url, "yesterday", &second], 2, "TIME"),
        (
            "diff",
            vec![&url, &second, "yesterday"],
            3,
            "neither a time nor a path of these snapshots; see dupfs sets URL",
        ),
        ("diff", vec![&url, &first, &second, "dir", "dir"], 2, ""),
        ("diff", vec![&url], 2, ""),
        ("diff", vec![&url, &first, "--time", "now"], 2, "times are arguments"),
        ("diff", vec![&url, &first, &second, "--json", "--print0"], 2, "cannot be used with"),
        ("diff", vec![&url, &first, "-p", "--json"], 2, "cannot be used with"),
        ("diff", vec![&url, &first, "-N"], 2, "--patch"),
        ("diff", vec![&url, &first, &second, "--exit-code"], 7, ""),
        ("diff", vec![&url, &first, &first, "--exit-code"], 0, "both times"),
        ("collection-status", vec!["--file-changed", "new", &url], 2, "dupfs history URL PATH"),
        ("collection-status", vec!["--show-changes-in-set", "0", &url], 2, "dupfs diff URL TIME"),
    ] {
        let (got, error) = reader.fails(command, &operands);
        assert!(got == Some(code) && error.contains(part), "{command} {operands:?}: {got:?} {error}");
    }
    // Readers of the output that leave at once.
    for operands in [["history", "dir"], ["diff", "now"]] {
        let mut child = reader.command(operands[0]).args([&url, operands[1]]).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let status = child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(signal == Some(libc::SIGPIPE) || status.success(), "{status:?}");
    }
    let closed = format!("exec {} diff {url} now >&-", env!("CARGO_BIN_EXE_dupfs"));
    assert_eq!(exec::output(Command::new("sh").args(["-c", &closed])).status.code(), Some(1));
}

/// The text of `diff -p` for two source trees: each change, and the system's own patch of each changed file.
fn expected_patches(old: (&Tree, &str), new: (&Tree, &str), with_new_files: bool) -> String {
    let mut text = String::new();
    let ((old, old_name), (new, new_name)) = (old, new);
    let mut changes: Vec<(Vec<u8>, String)> = expected_diff(old, new).into_iter().collect();
    changes.sort_by_cached_key(|(path, _)| path.split(|&b| b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>());
    for (path, change) in changes {
        let shown = if path.is_empty() { ".".to_owned() } else { dupfs_base::escape_bytes(&path) };
        text.push_str(&format!("{change} {shown}\n"));
        let is_file = |tree: &Tree| tree.entries.get(&path).is_some_and(|entry| entry.kind == Kind::File);
        let (was, is) = (is_file(old), is_file(new));
        if !(change.contains("contents") || with_new_files && (was || is) && (change == "added" || change == "removed"))
        {
            continue;
        }
        let side = |exists: bool, tree: &Tree, name: &str| match exists {
            true => (format!("{shown}\t{name}"), tree.locate(&path)),
            false => ("/dev/null".to_owned(), PathBuf::from("/dev/null")),
        };
        let ((old_label, old_file), (new_label, new_file)) = (side(was, old, old_name), side(is, new, new_name));
        let mut command = Command::new("diff");
        command.args(["-u", "--label", &old_label, "--label", &new_label]).arg(&old_file).arg(&new_file);
        text.push_str(&String::from_utf8(exec::output(&mut command).stdout).unwrap());
    }
    text
}

#[test]
fn patches_are_those_of_the_system() {
    let scratch = Scratch::new();
    let mut first = Maker::new(&scratch.dir("first"), 1_400_000_000);
    let lines = |from: u32, to: u32| (from..to).map(|line| format!("line {line}\n")).collect::<String>();
    first.file("text", lines(0, 2000));
    first.file("no end of line", "one\ntwo");
    first.file("binary", [&b"\0"[..], &noise(1, 300_000)].concat());
    first.file("dir/removed", "text\n");
    first.file("mode", "text\n");
    first.file("a\n--- b", "one\n");
    first.file("to link", "one\n");
    let mut second = Maker::copy_of(&first, &scratch.path().join("second"), 1_410_000_000);
    second.edit("text", |content| *content = (lines(0, 900) + "another\n" + &lines(901, 2100)).into_bytes());
    second.edit("no end of line", |content| content.extend(b"\nthree"));
    second.edit("binary", |content| content[200_000] ^= 1);
    second.remove("dir/removed");
    second.file("dir/added", "new\n");
    second.chmod("mode", 0o600);
    second.edit("a\n--- b", |content| content.extend(b"two\n"));
    second.remove("to link");
    second.link("to link", "text");
    let repo = Repository::new("3.2.1", |_| Mode::Symmetric("p".to_owned()), &scratch.dir("r"));
    let repo = repo.option("--gpg-options=--s2k-count 1024");
    repo.backup(true, first.root(), TIMES[0]);
    repo.backup(false, second.root(), TIMES[1]);
    let trees = [first.root(), second.root()].map(Tree::walk);
    let (old, new) = (stamp(TIMES[0]), stamp(TIMES[1]));
    let (reader, url) = (repo.reader(), repo.url());
    let printed =
        |args: &[&str]| String::from_utf8(reader.run("diff", &[&["-p", url.as_str()], args].concat())).unwrap();
    assert_eq!(printed(&["now"]), expected_patches((&trees[0], &old), (&trees[1], &new), false));
    assert_eq!(printed(&[&new, &old, "-N"]), expected_patches((&trees[1], &new), (&trees[0], &old), true));

    let empty = scratch.dir("empty");
    let mut command = reader.command("diff");
    let output = exec::output(command.args(["-p", &url, "now", "text"]).env("PATH", &empty));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), message.lines().count()), (Some(1), 1), "{message}");
    assert!(message.contains("there is no program diff") && output.stdout == b"contents,mtime text\n", "{message}");

    // A version that cannot be read is no shorter file.
    let volume = format!("duplicity-inc.{old}.to.{new}.vol1.difftar.gpg");
    fs::write(repo.dir().join(volume), "damaged").unwrap();
    let fresh = exec::Dupfs::new(&scratch.dir("fresh")).passphrase("p");
    let output = exec::output(fresh.command("diff").args(["-p", &url, "now", "text"]));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(6), &b"contents,mtime text\n"[..]), "{message}");
}

/// Two machines with one backup each made an increment of the same full set.
#[test]
fn increments_of_one_base_are_compared_with_the_base() {
    let scratch = Scratch::new();
    let mut base = Maker::new(&scratch.dir("base"), 1_400_000_000);
    base.file("both", "base\n");
    base.file("first", "base\n");
    base.file("second", "base\n");
    let state = |name: &str, own: &str| {
        let mut maker = Maker::copy_of(&base, &scratch.path().join(name), 1_410_000_000);
        maker.edit("both", |content| content.extend(name.as_bytes()));
        maker.edit(own, |content| content.extend(b"changed\n"));
        maker.file(format!("only {own}"), own);
        maker.mtime("", 1_390_000_000, 0);
        maker.root().to_owned()
    };
    base.mtime("", 1_390_000_000, 0);
    let (first, second) = (state("a", "first"), state("b", "second"));
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, base.root(), TIMES[0]);
    let other = scratch.path().join("other");
    exec::run(Command::new("cp").arg("-a").arg(scratch.path().join("r")).arg(&other));
    repo.backup(false, &first, TIMES[1]);
    let raced = Repository::new("3.2.1", |_| Mode::Gzip, &other);
    raced.backup(false, &second, TIMES[2]);
    for entry in fs::read_dir(raced.dir()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().contains(&stamp(TIMES[2])) {
            fs::copy(entry.path(), repo.dir().join(entry.file_name())).unwrap();
        }
    }
    let trees = [base.root(), &first, &second].map(Tree::walk);
    let times = TIMES.map(stamp);
    let [base_time, first_time, second_time] = [&times[0], &times[1], &times[2]];
    assert_eq!(diff(&repo, &[first_time]), expected_diff(&trees[0], &trees[1]));
    assert_eq!(diff(&repo, &[second_time]), expected_diff(&trees[0], &trees[2]));
    assert_eq!(diff(&repo, &[first_time, second_time]), expected_diff(&trees[1], &trees[2]));
    let rows = |path: &str| -> Vec<Value> {
        let rows = history(&repo, path.as_bytes(), &[]);
        rows.iter().map(|row| json!([row["snapshot"], row["event"], row["snapshots"]])).collect()
    };
    let created = |snapshots: &[&String]| json!([base_time, "created", snapshots]);
    let changed = |time: &String| json!([time, "changed", [time]]);
    assert_eq!(rows("both"), [created(&[base_time]), changed(first_time), changed(second_time)]);
    assert_eq!(rows("first"), [created(&[base_time, second_time]), changed(first_time)]);
    assert_eq!(rows("second"), [created(&[base_time, first_time]), changed(second_time)]);
    assert_eq!(rows("only second"), [json!([second_time, "created", [second_time]])]);
    let found = String::from_utf8(repo.reader().run("find", &[&repo.url(), "--all", "*"])).unwrap();
    let all = format!("{base_time}..{second_time}");
    let expected =
        format!("{all} both\n{all} first\n{first_time} only first\n{second_time} only second\n{all} second\n");
    assert_eq!(found, expected);
}
