//! The terminal of a user with a slow link: the line of progress while trees are loaded, a question in between, and Ctrl-C.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::world::{World, put};
use crate::support::Scratch;
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{self, Dupfs, output};
use crate::support::maker::Maker;
use crate::support::mount;
use crate::support::proxy::Fault;
use crate::support::terminal::{TerminalRun, TypedStep, on_terminal, on_terminal_by_steps};
use crate::support::tree::{Kind, Tree};

const URL: &str = "s3://bucket/p";
const FIXTURE: &str = "duplicity-0.7.13-gz";
/// Bytes a second at which the signature archives of the fixture take some three seconds.
const SLOW: u32 = 35_000;
/// Upper bound of a wait for a condition.
const LIMIT: Duration = Duration::from_secs(60);

/// The fixture behind a link of `bytes_per_second`.
fn slow_world(bytes_per_second: u32) -> World {
    let world = World::new();
    world.put_fixture(FIXTURE, "bucket/p");
    world.proxy.set_link(Duration::ZERO, Some(f64::from(bytes_per_second)));
    world
}

/// The program with the proxy as the service, and time for a slow link.
fn reader(world: &World) -> Dupfs {
    world.reader().option("--timeout=60")
}

fn passed(world: &World) -> u64 {
    world.proxy.pieces().iter().map(|piece| piece.bytes).sum()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The lines that a terminal shows in the end, without blanks at their ends and empty lines at the end.
fn screen(run: &TerminalRun) -> Vec<String> {
    let (mut lines, mut at, mut column) = (vec![Vec::new()], 0usize, 0usize);
    let mut chars = run.output.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => (at, column) = (at + 1, 0),
            '\r' => column = 0,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "{:?}", run.output);
                let mut number = String::new();
                while let Some(digit) = chars.next_if(|c| !c.is_ascii_alphabetic()) {
                    number.push(digit);
                }
                let count: usize = number.parse().unwrap_or(0);
                match chars.next() {
                    Some('K') if count == 2 => lines[at].clear(),
                    Some('K') => lines[at].truncate(column),
                    Some('A') => at = at.saturating_sub(count.max(1)),
                    Some('B') => at += count.max(1),
                    Some('D') => column = column.saturating_sub(count.max(1)),
                    other => panic!("ESC [ {number} {other:?} in {:?}", run.output),
                }
            }
            c => {
                let line: &mut Vec<char> = &mut lines[at];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(at + 1), Vec::new());
    }
    let mut lines: Vec<String> =
        lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn shows_progress(run: &TerminalRun) -> bool {
    run.output.contains("iB/s, ")
}

#[test]
fn each_command_shows_the_loading_of_trees_and_removes_the_line() {
    let world = slow_world(SLOW);
    let local = Dupfs::new(&world.scratch.dir("local")).option("--no-index");
    let stored = format!("file://{}", world.disk("bucket/p").display());
    let directory = world.scratch.dir("directory");
    let directory = directory.to_str().unwrap();
    let file = "etc/shadow";
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("ls", &[], &[]),
        ("find", &[], &["shadow"]),
        ("find", &["--all"], &["shadow"]),
        ("history", &[], &[file]),
        ("diff", &[], &["now"]),
        ("verify", &["--path=etc", "--compare", directory], &[]),
    ];
    for (name, options, operands) in cases {
        let run = on_terminal(reader(&world).command(name).args(options).arg(URL).args(operands), &[]);
        let expected = output(local.command(name).args(options).arg(&stored).args(operands));
        assert_eq!(run.code, i64::from(expected.status.code().unwrap()), "{name}: {}", run.output);
        assert!(shows_progress(&run), "{name}: {:?}", run.output);
        assert!(run.output.contains("backup set 1 of "), "{name}: {:?}", run.output);
        let expected = String::from_utf8(expected.stdout).unwrap();
        let expected: Vec<&str> = expected.trim_end().lines().collect();
        let shown = screen(&run);
        match name {
            // On a terminal it has columns of its own.
            "history" => assert_eq!(shown.len(), expected.len(), "{shown:?}"),
            _ => assert_eq!(shown, expected, "{name}: {:?}", run.output),
        }
    }
}

#[test]
fn progress_is_for_a_terminal_and_not_for_the_quiet() {
    let world = slow_world(SLOW);
    let quiet = on_terminal(reader(&world).command("ls").args(["-q", URL]), &[]);
    assert_eq!(quiet.code, 0, "{}", quiet.output);
    assert!(!shows_progress(&quiet) && !quiet.output.contains('\x1b'), "{:?}", quiet.output);
    let piped = output(reader(&world).command("ls").env("TERM", "xterm").arg(URL));
    assert!(piped.status.success() && piped.stderr.is_empty(), "{piped:?}");
    let directory = world.scratch.dir("directory");
    let mut comparison = reader(&world).command("verify");
    let quiet = on_terminal(comparison.args(["-q", "--compare"]).arg(directory).arg(URL), &[]);
    assert!(quiet.code == 1 && !quiet.output.contains('\x1b'), "{:?}", quiet.output);
}

/// The different numbers of bytes that the line had behind `text`.
fn counts_behind(run: &TerminalRun, text: &str) -> BTreeSet<String> {
    let shown = run.output.split(text).skip(1);
    shown.filter_map(|rest| Some(rest.split_once(" of ")?.0.to_owned())).collect()
}

/// A backup of one volume on a link that takes some five seconds for it.
fn one_slow_volume() -> World {
    let world = World::new();
    let mut maker = Maker::new(&world.scratch.dir("source"), 1_400_000_000);
    maker.file("large", crate::support::noise(1, 300_000));
    maker.file("member", crate::support::noise(2, 300_000));
    exec::run(
        Command::new("tar").args(["-C"]).arg(maker.root()).args(["-czf"]).arg(maker.at("a.tar.gz")).arg("member"),
    );
    maker.remove("member");
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &world.scratch.dir("r"));
    repo.backup(true, maker.root(), 1_500_000_000);
    put(repo.dir(), &world.disk("bucket/p"));
    world.proxy.set_link(Duration::ZERO, Some(120_000.0));
    world
}

#[test]
fn progress_moves_while_one_volume_is_fetched() {
    let world = one_slow_volume();
    let cases: [(&str, &[&str], &str); 3] = [
        ("verify", &[URL], "volume 1 of 1, "),
        ("ls", &["-l", URL], " of 2, fetched "),
        ("ls", &[URL, "unpacked/latest/a.tar.gz"], "fetched "),
    ];
    for (command, arguments, text) in cases {
        let run = on_terminal(reader(&world).command(command).args(arguments), &[]);
        assert_eq!(run.code, 0, "{command}: {}", exec::tail(run.output.as_bytes()));
        let counts = counts_behind(&run, text);
        assert!(counts.len() >= 5, "{command} {arguments:?}: {counts:?} in {:?}", exec::tail(run.output.as_bytes()));
        assert!(!screen(&run).iter().any(|line| line.contains("iB/s")), "{:?}", run.output);
    }
}

/// A mount point that is released when the test ends, also on failure.
struct Released(PathBuf);

impl Drop for Released {
    fn drop(&mut self) {
        mount::release(&self.0);
    }
}

#[test]
fn a_mount_of_one_snapshot_shows_the_loading_of_its_tree() {
    mount::require_fuse();
    let world = slow_world(SLOW);
    let mnt = Released(world.scratch.dir("mnt"));
    for (option, is_shown) in [("--", true), ("-q", false)] {
        let mut command = reader(&world).command("mount");
        command.args(["--time", "now", option]).arg(URL).arg(&mnt.0);
        let run = on_terminal(&command, &[]);
        assert_eq!(run.code, 0, "{}", run.output);
        assert_eq!(shows_progress(&run), is_shown, "{:?}", run.output);
        let lines = screen(&run);
        if is_shown {
            assert!(run.output.contains("backup set 1 of 3, "), "{:?}", run.output);
            assert!(lines.len() == 2 && lines[0].starts_with("snapshot of 2026-11-22 "), "{lines:?}");
            assert!(lines[1].starts_with("errors go to "), "{lines:?}");
        } else {
            assert!(lines.is_empty(), "{lines:?}");
        }
        assert!(mnt.0.join("etc/shadow").exists());
        Dupfs::new(world.scratch.path()).run("umount", &[mnt.0.to_str().unwrap()]);
    }
}

/// A chain whose second set needs the passphrase `second` and the others none. The signature archive of the first is large.
fn chain_with_a_question(scratch: &Scratch) -> Repository {
    let mut maker = Maker::new(&scratch.dir("source"), 1_400_000_000);
    for number in 0..2500u64 {
        maker.file(format!("file-{number}"), crate::support::noise(number, 6000));
    }
    let mut repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, maker.root(), 1_500_000_000);
    maker.file("second", "2");
    repo.set_mode(Mode::Symmetric("second".to_owned()));
    repo.backup(false, maker.root(), 1_500_086_400);
    maker.file("third", "3");
    repo.set_mode(Mode::Gzip);
    // duplicity reads the manifest of the last set.
    exec::run(repo.backup_command(false, maker.root(), 1_500_172_800).env("PASSPHRASE", "second"));
    repo
}

#[test]
fn a_question_removes_the_line_until_it_is_answered() {
    let world = World::new();
    let repo = chain_with_a_question(&world.scratch);
    put(repo.dir(), &world.disk("bucket/p"));
    world.proxy.set_link(Duration::ZERO, Some(f64::from(SLOW)));
    // The question comes once the line is shown.
    let is_held = std::sync::Arc::new(AtomicBool::new(true));
    let held = std::sync::Arc::clone(&is_held);
    world.proxy.set_plan(move |request| {
        let is_encrypted = request.target.contains(".gpg");
        (is_encrypted && held.load(Ordering::SeqCst)).then_some(Fault::Stall(0))
    });
    let [shown, asked, answer] = ["shown", "asked", "answer"].map(|name| world.scratch.path().join(name));
    let step = |shown, typed, created, file| TypedStep { shown, typed, created, file };
    let run = std::thread::scope(|scope| {
        let (shown, asked, answer, world, is_held) = (&shown, &asked, &answer, &world, &is_held);
        scope.spawn(move || {
            wait_until("the line is shown", || shown.exists());
            is_held.store(false, Ordering::SeqCst);
            world.proxy.end_stalled();
            wait_until("the question is asked", || asked.exists());
            // More than the line waits for between two updates.
            let before = passed(world);
            wait_until("more is fetched", || passed(world) > before + u64::from(SLOW));
            fs::write(answer, "").unwrap();
            world.proxy.set_link(Duration::ZERO, None);
        });
        let mut command = reader(world).command("ls");
        let steps = [
            step("iB/s, ", "", Some(&**shown), None),
            step(".manifest.gpg: ", "second\n", Some(&**asked), Some(&**answer)),
        ];
        on_terminal_by_steps(command.arg(URL), &steps)
    });
    assert_eq!(run.code, 0, "{:?}", run.output);
    assert!(run.restored);
    let (before, after) = run.output.split_once(".manifest.gpg: ").unwrap();
    assert!(after.starts_with('\n'), "shown beside the question: {:?}", &after[..40.min(after.len())]);
    let lines = screen(&run);
    let question = "Passphrase of duplicity-inc.20170714T024000Z.to.20170715T024000Z.manifest.gpg:";
    let at = lines.iter().position(|line| line == question);
    // The names are below it, and nothing is between.
    assert_eq!(at.map(|at| lines.len() - at - 1), Some(2502), "{:?}, before the question {before:?}", &lines[..5]);
}

/// Runs `command`, and types Ctrl-C when `bytes` have passed the link.
fn interrupt(world: &World, command: &mut Command, bytes: u64) -> TerminalRun {
    let typed = world.scratch.path().join("interrupt");
    let run = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("enough is fetched", || passed(world) > bytes);
            fs::write(&typed, "").unwrap();
        });
        on_terminal_by_steps(command, &[TypedStep { shown: "", typed: "\x03", created: None, file: Some(&typed) }])
    });
    assert_eq!(run.code, 130, "{:?}", run.output);
    assert!(run.seconds < 2.0, "it took {} seconds: {:?}", run.seconds, run.output);
    assert!(run.restored);
    run
}

#[test]
fn ctrl_c_ends_verify_with_a_report() {
    let world = slow_world(200_000);
    let run = interrupt(&world, reader(&world).command("verify").arg(URL), 300_000);
    let lines = screen(&run);
    assert!(lines.last().is_some_and(|line| line.contains("interrupted")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("iB/s")), "{lines:?}");
}

#[test]
fn ctrl_c_ends_restore_without_half_a_file() {
    let world = slow_world(200_000);
    let whole = world.scratch.path().join("whole");
    let stored = format!("file://{}", world.disk("bucket/p").display());
    Dupfs::new(&world.scratch.dir("local")).run("restore", &[&stored, whole.to_str().unwrap()]);
    let dest = world.scratch.path().join("dest");
    let run = interrupt(&world, reader(&world).command("restore").arg(URL).arg(&dest), 300_000);
    let lines = screen(&run);
    assert!(lines.iter().any(|line| line.contains("interrupted")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("iB/s")), "{lines:?}");
    let (whole, part) = (Tree::walk(&whole), Tree::walk(&dest));
    assert!(part.entries.len() < whole.entries.len());
    // The marker of the run, by which the same command continues it, has no name of the backup.
    let is_own = |path: &[u8]| path.starts_with(b".dupfs-restore");
    let files = part.entries.iter().filter(|(path, entry)| entry.kind == Kind::File && !is_own(path));
    for (path, entry) in files {
        let content = |tree: &Tree| fs::read(tree.locate(path)).unwrap();
        assert!(whole.entries.contains_key(path), "{:?} is left", Path::new(&*String::from_utf8_lossy(path)));
        assert!(content(&part) == content(&whole), "{:?}, {} bytes", String::from_utf8_lossy(path), entry.size);
    }
}
