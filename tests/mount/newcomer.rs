//! The messages that a new user gets, on the bundled sample and on a terminal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::duplicity::{Mode, Repository};
use crate::support::exec::{Dupfs, output};
use crate::support::mount::{self, require_fuse};
use crate::support::s3::{KEY_ID, S3Server, SECRET};
use crate::support::terminal::on_terminal;
use crate::support::{Scratch, fixtures};

const PASSPHRASE: &str = "tests/../samples/demo-passphrase";

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// The URL of the sample.
fn url() -> String {
    format!("file://{}", sample("backup").display())
}

fn passphrase() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PASSPHRASE)).unwrap().trim_end().to_owned()
}

/// dupfs with the key of the sample.
fn with_key(scratch: &Scratch) -> Dupfs {
    Dupfs::new(scratch.path()).secret_key(&sample("demo-key.secret.asc"))
}

/// dupfs with the key of the sample and its passphrase.
fn opened(scratch: &Scratch) -> Dupfs {
    with_key(scratch).passphrase(&passphrase())
}

/// Runs `line` without a key. Returns the exit code and the one line on standard error.
fn refusal(scratch: &Scratch, line: &[&str]) -> (i32, String) {
    let output = output(Dupfs::new(scratch.path()).command(line[0]).current_dir(scratch.path()).args(&line[1..]));
    one_line(&output)
}

fn one_line(output: &Output) -> (i32, String) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!message.contains("os error"), "{message}");
    (output.status.code().unwrap(), message)
}

#[test]
fn the_prompt_names_the_key_and_its_owner_and_counts_wrong_answers() {
    let scratch = Scratch::new();
    let command = with_key(&scratch).command("sets");
    let mut command = command;
    command.arg(url());
    let run = on_terminal(
        &command,
        &[("): ", "wrong\n"), ("try again (2 of 3)\r\n", ""), ("): ", &format!("{}x\x7f\n", passphrase()))],
    );
    assert_eq!(run.code, 0, "{}", run.output);
    assert!(run.restored);
    let first = run.output.lines().next().unwrap();
    assert!(first.starts_with("Passphrase of secret key 0x") && first.contains(" ("), "{first}");
    assert!(first.ends_with("): "), "{first}");
    assert_eq!(run.output.matches("Passphrase of").count(), 2, "{}", run.output);
    assert!(run.output.contains("wrong passphrase, try again (2 of 3)\nPassphrase of secret key 0x"), "{}", run.output);
    assert!(!run.output.contains(&passphrase()), "the answer is shown: {}", run.output);
}

#[test]
fn ctrl_c_at_the_prompt_leaves_the_terminal_as_it_was() {
    require_fuse();
    let scratch = Scratch::new();
    let mnt = scratch.dir("mnt");
    let mut mounting = with_key(&scratch).command("mount");
    mounting.arg(url()).arg(&mnt);
    let mut foreground = with_key(&scratch).command("mount");
    foreground.arg("-f").arg(url()).arg(&mnt);
    let mut listing = with_key(&scratch).command("ls");
    listing.arg(url());
    for command in [mounting, foreground, listing] {
        let run = on_terminal(&command, &[("): ", "abc\x03")]);
        assert_eq!(run.code, 130, "{}", run.output);
        assert!(run.restored, "{command:?}");
        assert!(!mount::is_mounted(&mnt));
    }
}

#[test]
fn a_passphrase_file_may_have_a_byte_order_mark_and_carriage_returns() {
    let scratch = Scratch::new();
    let file = scratch.path().join("passphrase");
    fs::write(&file, format!("\u{feff}{}\r\n", passphrase())).unwrap();
    with_key(&scratch).option("--passphrase-file").option(file.to_str().unwrap()).run("sets", &[&url()]);
}

#[test]
fn missing_files_of_options_have_one_exit_code_and_a_remedy() {
    let scratch = Scratch::new();
    for option in ["--secret-key", "--passphrase-file"] {
        let (code, message) = refusal(&scratch, &["ls", option, "/no/such/file", &url()]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("/no/such/file: no such file or directory; give the path"), "{message}");
        let (code, message) = refusal(&scratch, &["ls", option, "/usr", &url()]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("/usr: is a directory; give the path"), "{message}");
    }
    let (code, message) = refusal(&scratch, &["ls", "--log-file", "/no/such/dir/log", &url()]);
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("/no/such/dir/log cannot be opened: no such file or directory; give"), "{message}");
}

#[test]
fn a_wrong_key_is_reported_with_the_command_to_export_the_right_one() {
    let scratch = Scratch::new();
    let wrong = fixtures::path("old-key.secret.asc");
    let wrong = wrong.to_str().unwrap();
    let (code, message) = refusal(&scratch, &["ls", "--secret-key", wrong, &url()]);
    assert_eq!(code, 5, "{message}");
    assert!(message.contains(&format!("; {wrong} contains 0x")), "{message}");
    let (_, wanted) = message.split_once("encrypted to key 0x").unwrap();
    let wanted = &wanted[..16];
    assert!(
        message.contains(&format!("export the right one: gpg --armor --export-secret-keys 0x{wanted}")),
        "{message}"
    );
}

#[test]
fn arguments_in_the_wrong_order_and_options_of_duplicity_get_a_hint() {
    let scratch = Scratch::new();
    for (line, expected) in [
        (["mount", "mnt", "file:///b"], "the arguments are the wrong way round: dupfs mount URL MOUNTPOINT"),
        (["cat", "etc/hosts", "file:///b"], "the arguments are the wrong way round: dupfs cat URL PATH"),
        (["extract", "file:///b", "dest"], "restore with: dupfs restore URL [PATH]... DEST"),
        (["sets", "--time=1D", "file:///b"], "sets shows all times"),
        (["cat", "--file-to-restore=x", "file:///b"], "the path is an argument: dupfs cat URL PATH"),
    ] {
        let (code, message) = refusal(&scratch, &line);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_path_of_a_backup_after_another_argument_is_recognized() {
    let scratch = Scratch::new();
    let backup = sample("backup").display().to_string();
    scratch.dir("empty");
    for (line, right) in [
        (["ls", "etc", &backup], format!("dupfs ls {backup} etc")),
        (["find", "*.sql", &backup], format!("dupfs find {backup} *.sql")),
        (["restore", "new", &backup], format!("dupfs restore {backup} new")),
        (["restore", "empty", &backup], format!("dupfs restore {backup} empty")),
        (["verify", "empty", &backup], format!("dupfs verify {backup} empty")),
        (["mount", "new", &backup], format!("dupfs mount {backup} new")),
    ] {
        let (code, message) = refusal(&scratch, &line);
        assert_eq!(code, 2, "{message}");
        assert!(
            message.contains(&format!("that is: {right}; if {} is the backup, write file:///", line[1])),
            "{message}"
        );
    }
    let (_, message) = refusal(&scratch, &["ls", "/no/such/backup", "etc"]);
    assert!(message.ends_with("no such directory; give the URL or path of the backup\n"), "{message}");
}

#[test]
fn an_argument_that_is_refused_is_one_line_with_the_remedy() {
    let scratch = Scratch::new();
    let url = url();
    for (line, expected) in [
        (&["ls", "--memory", "abc", &url][..], "--memory abc: unknown unit \"ABC\": give bytes as 512M or 4G"),
        (&["verify", "--sample", "5%", "--deep", &url], "--sample cannot be used with --deep: leave out one of them"),
        (&["verify", "--seed", "3", &url], "--sample PERCENT is missing, which another option needs"),
        (&["restore", "--overwrite", &url, "x"], "dupfs restore --force URL"),
        (&["find", "--regex", &url, "("], "unclosed group; put a backslash before a character"),
        (&["lss", &url], "there is no command lss: did you mean ls?"),
        (&["completions"], "SHELL is missing: dupfs completions SHELL"),
        (&["cat", &url], "PATH is missing: dupfs cat URL PATH"),
        (&["ls", "--sign-key", "joe", "--verify-key", "k", &url], "--sign-key joe: not a key ID: give 8 to 40"),
        (&["ls", &url, "../x"], "the path has a '..' component; give the path from the root of the snapshot"),
        (&["ls", "--config", "/none", &url], "/none: no such file or directory; give the path of one"),
        (&["umount", "/none"], "nothing is mounted on /none; dupfs status shows all mounts"),
        (
            &["verify", "--compare", "/none", &url],
            "/none: cannot be compared: no such file or directory; give the directory",
        ),
    ] {
        let dupfs = if line.contains(&url.as_str()) { opened(&scratch) } else { Dupfs::new(scratch.path()) };
        let (_, message) = one_line(&output(dupfs.command(line[0]).current_dir(scratch.path()).args(&line[1..])));
        assert!(message.starts_with("dupfs: ") && message.contains(expected), "{line:?}: {message}");
    }
}

#[test]
fn a_mistyped_time_gets_the_form_or_the_snapshot_that_is_meant() {
    let scratch = Scratch::new();
    let url = url();
    for (line, meant) in [
        (["ls", "--time=3 days ago", &url], "3D"),
        (["verify", "--time=2026/01/19 02:15", &url], "2026-01-19T02:15:00"),
        (["ls", "--time=20260119T02150Z", &url], "20260119T021500Z"),
        (["volumes", "--time=202601l9T021500Z", &url], "20260119T021500Z"),
        (["verify", "--time=20260119t021500z", &url], "20260119T021500Z"),
    ] {
        let (code, message) = refusal(&scratch, &line);
        assert_eq!(code, 2, "{message}");
        assert!(message.ends_with(&format!("did you mean {meant}?\n")), "{message}");
    }
    let dupfs = opened(&scratch);
    for (operands, meant) in [
        (&["20260119T02150Z", "now"][..], "did you mean 20260119T021500Z?"),
        (&["2026-01-20", "yesterday"], "did you mean 1D?"),
        (&["now", "20260119T02150Z"], "did you mean 20260119T021500Z?"),
        (&["srv", "now"], "a path comes after the times: dupfs diff URL now srv"),
        (&["srv"], "dupfs diff URL now srv"),
    ] {
        let (_, message) = dupfs.fails("diff", &[&[url.as_str()][..], operands].concat());
        assert!(message.contains(meant), "{operands:?}: {message}");
    }
}

#[test]
fn a_restore_without_a_destination_writes_nothing() {
    let scratch = Scratch::new();
    let (dupfs, url) = (opened(&scratch), url());
    let inside = |operands: &[&str]| {
        let run = output(dupfs.command("restore").current_dir(scratch.path()).arg(&url).args(operands));
        (run.status.code().unwrap(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    for path in ["srv", "srv/www/shop/assets/shop.css"] {
        let (code, message) = inside(&[path]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(&format!("no destination follows it: dupfs restore URL {path} DEST")), "{message}");
        assert_eq!(inside(&["--dry-run", path]).0, 2);
    }
    let (code, message) = inside(&["-"]);
    assert!(code == 2 && message.contains("dupfs cat URL PATH"), "{message}");
    assert!(!scratch.path().join("srv").exists() && !scratch.path().join("-").exists());
    // What the message and the manual give as remedies.
    for operands in [&[".", "srv"][..], &["./etc"], &["--force", "srv"]] {
        let (code, message) = inside(operands);
        assert_eq!(code, 0, "{operands:?}: {message}");
        let dest = scratch.path().join(operands.last().unwrap());
        assert!(dest.join("srv/www/shop/assets/shop.css").exists(), "{operands:?}");
    }
}

#[test]
fn a_url_that_dupfs_cannot_read_is_a_usage_error() {
    let scratch = Scratch::new();
    for (url, expected) in [
        ("s4://bucket/prefix", "s4://: unsupported scheme; supported are s3"),
        ("imap://joe@host", "imap://: unsupported; copy the backup's files to a directory first"),
    ] {
        let (code, message) = refusal(&scratch, &["ls", url]);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_closed_standard_output_is_an_error_and_dev_null_is_not() {
    let scratch = Scratch::new();
    let shell = |redirect: &str, command: &str, operands: &[&str]| {
        let dupfs = opened(&scratch).command(command);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$@\" {redirect}"), "sh"]).arg(dupfs.get_program()).args(dupfs.get_args());
        for (name, value) in dupfs.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        output(shell.args(operands))
    };
    let url = url();
    for (command, operands) in
        [("sets", vec![&*url]), ("ls", vec![&*url]), ("cat", vec![&*url, "etc/hostname"]), ("ls", vec!["--help"])]
    {
        let (code, message) = one_line(&shell(">&-", command, &operands));
        assert_eq!((code, &*message), (1, "dupfs: cannot write the output: bad file descriptor\n"), "{command}");
    }
    let full = shell(">/dev/full", "ls", &["--help"]);
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    // The second form is that of Python's subprocess.DEVNULL and most daemons.
    for redirect in [">/dev/null", "1<>/dev/null"] {
        let kept = shell(redirect, "sets", &[&url]);
        assert!(kept.status.success(), "{redirect}: {kept:?}");
    }
}

#[test]
fn a_limit_on_the_size_of_files_disables_the_index_and_nothing_else() {
    let scratch = Scratch::new();
    let dupfs = opened(&scratch).command("cat");
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -f 0; \"$@\" | cat; exit ${PIPESTATUS[0]}", "bash"]);
    shell.arg(dupfs.get_program()).args(dupfs.get_args()).args([&*url(), "srv/www/shop/assets/shop.css"]);
    for (name, value) in dupfs.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let limited = output(&mut shell);
    assert_eq!(limited.status.code(), Some(0), "{limited:?}");
    assert!(!limited.stdout.is_empty());
    assert!(String::from_utf8_lossy(&limited.stderr).lines().count() <= 1, "{limited:?}");
}

#[test]
fn a_relative_home_makes_no_cache_in_the_working_directory() {
    let scratch = Scratch::new();
    let here = scratch.dir("here");
    let mut command = opened(&scratch).command("ls");
    command.arg(url()).env("HOME", "home").env("XDG_CACHE_HOME", "cache").current_dir(&here);
    let listed = output(&mut command);
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
}

/// Copies the files of the sample whose names `keep` accepts into `dir`.
fn copy_sample(dir: &Path, keep: impl Fn(&str) -> bool) {
    fs::create_dir_all(dir).unwrap();
    for entry in fs::read_dir(sample("backup")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if keep(&name) {
            fs::copy(entry.path(), dir.join(name)).unwrap();
        }
    }
}

#[test]
fn the_error_for_a_wrong_directory_names_nearby_backups() {
    let scratch = Scratch::new();
    copy_sample(&scratch.path().join("backups/shop"), |_| true);
    copy_sample(&scratch.path().join("backups/deep/er"), |name| name.starts_with("duplicity-full"));
    let base = scratch.path().join("backups").display().to_string();
    let (code, message) = refusal(&scratch, &["ls", &format!("file://{base}")]);
    let expected = format!(
        "dupfs: file://{base}: no duplicity backup directly here; below it: file://{base}/deep/er (1 set), \
         file://{base}/shop (4 sets)\n"
    );
    assert_eq!((code, message), (3, expected));
    let (code, message) = refusal(&scratch, &["ls", &format!("file://{base}/shpo")]);
    assert_eq!(code, 3, "{message}");
    assert!(message.ends_with(&format!("no such directory; did you mean file://{base}/shop?\n")), "{message}");
    let (_, message) = refusal(&scratch, &["ls", "file://tmp/no-such-backup"]);
    assert!(message.ends_with("write three slashes: file:///tmp/no-such-backup\n"), "{message}");
}

#[test]
fn a_backup_that_has_lost_its_volumes_is_shown() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::write(source.join("f"), "content").unwrap();
    for (name, mode) in [("gz", Mode::Gzip), ("plain", Mode::Plain)] {
        let repo = Repository::new("3.2.1", |_| mode, &scratch.dir(name));
        repo.backup(true, &source, 1_700_000_000);
        for entry in fs::read_dir(repo.dir()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().contains("difftar") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let run = |command: &str, args: &[&str]| {
            let output = output(repo.reader().command(command).arg(repo.url()).args(args));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let (code, listed, log) = run("ls", &[]);
        assert_eq!((code, &*listed), (Some(0), "f\n"), "{name}: {log}");
        assert!(log.contains("no set has a volume here, so no file can be read; it looks like"), "{log}");
        let (code, content, log) = run("cat", &["f"]);
        assert_eq!((code, &*content), (Some(6), ""), "{name}: {log}");
        let (code, report, log) = run("sets", &["--check"]);
        assert_eq!(code, Some(6), "{name}: {log}");
        assert!(report.contains("its only volume is not in the store"), "{report}");
    }
}

#[test]
fn a_misplaced_archive_directory_is_reported_with_the_options() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::write(source.join("f"), "content").unwrap();
    let repo = Repository::new("3.2.1", |_| Mode::Gzip, &scratch.dir("r"));
    repo.backup(true, &source, 1_700_000_000);
    let made = fs::read_dir(scratch.path().join("r/archive")).unwrap().next().unwrap().unwrap();
    let base = scratch.path().join("r/archive").display().to_string();
    let name = made.file_name().into_string().unwrap();
    let (code, message) = refusal(&scratch, &["sets", &format!("file://{base}/{name}")]);
    assert_eq!(code, 3, "{message}");
    let options = format!("--archive-dir {base} --name {name}");
    assert!(message.contains("looks like duplicity's archive directory") && message.contains(&options), "{message}");
    // The parent directory of all archive directories.
    let (code, message) = refusal(&scratch, &["sets", &format!("file://{base}")]);
    let expected = format!("{name} (1 set, but it looks like duplicity's archive directory)");
    assert!(code == 3 && message.contains(&expected), "{message}");
    let listed = |options: &[&str]| output(repo.reader().command("ls").args(options).arg(repo.url()));
    let archive = scratch.dir("arch/shop");
    for entry in fs::read_dir(made.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), archive.join(entry.file_name())).unwrap();
    }
    let base = scratch.path().join("arch").display().to_string();
    let options = format!("--archive-dir {base} --name shop");
    // Nothing but its files marks it as one: it is shown, with one line.
    let shown = output(repo.reader().command("ls").arg(format!("file://{base}/shop")));
    assert_eq!((shown.status.code(), &*shown.stdout), (Some(0), &b"f\n"[..]), "{shown:?}");
    let (_, message) = one_line(&shown);
    let expected = format!("duplicity's archive directory, not the backup: give the backup's URL with {options}, or");
    assert!(message.contains(&expected), "{message}");
    let (_, message) = refusal(&scratch, &["ls", &format!("file://{base}")]);
    assert!(message.contains("/shop (1 set, but it looks like duplicity's archive directory)"), "{message}");
    let misplaced = listed(&["--archive-dir", &format!("{base}/shop")]);
    assert!(misplaced.status.success(), "{misplaced:?}");
    let (_, message) = one_line(&misplaced);
    assert!(message.contains(&format!("that directory contains manifests itself; give {options};")), "{message}");
    let (_, message) = one_line(&listed(&["--archive-dir", &base]));
    assert!(message.contains("choose with --name one of: shop"), "{message}");
    assert_eq!(listed(&["--archive-dir", &base, "--name", "shop"]).stderr, b"");
}

#[test]
fn paths_of_the_mount_and_of_the_source_are_found() {
    let scratch = Scratch::new();
    let dupfs = opened(&scratch);
    let lines = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let expected = lines(dupfs.run("ls", &[&url(), "srv/www/shop/assets"]));
    assert_eq!(expected, "shop.css\n");
    for path in ["latest/srv/www/shop/assets", "/srv/www/shop/assets", "snapshots/20260121T021500Z/srv/www/shop/assets"]
    {
        assert_eq!(lines(dupfs.run("ls", &[&url(), path])), expected, "{path}");
    }
    let before = lines(dupfs.run("ls", &[&url(), "at/2026-01-20T12:00:00/srv/www/shop/assets"]));
    assert_eq!(before, "img\nshop.css\n");
    assert_eq!(lines(dupfs.run("ls", &[&url(), "latest"])), lines(dupfs.run("ls", &[&url()])));
    let content = dupfs.run("cat", &[&url(), "srv/www/shop/assets/shop.css"]);
    assert_eq!(dupfs.run("cat", &[&url(), "latest/srv/www/shop/assets/shop.css"]), content);
    let (code, message) = dupfs.fails("cat", &[&url(), "srv/www/shop/assets/shop.ccs"]);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("did you mean srv/www/shop/assets/shop.css?"), "{message}");
}

/// A mount point that is released when the test ends, also on failure.
struct Released(PathBuf);

impl Drop for Released {
    fn drop(&mut self) {
        mount::release(&self.0);
    }
}

#[test]
fn a_mount_on_a_terminal_reports_the_backup_and_the_error_log() {
    require_fuse();
    let scratch = Scratch::new();
    let mnt = Released(scratch.dir("mnt"));
    let mut command = opened(&scratch).command("mount");
    command.arg(url()).arg(&mnt.0);
    let run = on_terminal(&command, &[]);
    assert_eq!(run.code, 0, "{}", run.output);
    let lines: Vec<&str> = run.output.lines().collect();
    let shown = mnt.0.display();
    assert_eq!(lines[0], format!("4 snapshots, newest 2026-01-21 02:15 UTC; ls {shown}/latest"));
    assert!(lines.len() == 2 && lines[1].starts_with("errors go to "), "{}", run.output);
    Dupfs::new(scratch.path()).run("umount", &[mnt.0.to_str().unwrap()]);

    let mut command = opened(&scratch).command("mount");
    command.args(["--time", "2020-01-01"]).arg(url()).arg(&mnt.0);
    let early = output(&mut command);
    assert!(early.status.success(), "{early:?}");
    let (_, message) = one_line(&early);
    assert!(message.contains("there is no backup before 2020") && message.contains("20260118T021500Z"), "{message}");
}

#[test]
fn the_last_errors_of_a_mount_can_be_queried() {
    require_fuse();
    let scratch = Scratch::new();
    let store = scratch.path().join("store");
    copy_sample(&store, |_| true);
    let damaged = store.join("duplicity-inc.20260119T021500Z.to.20260120T021500Z.vol1.difftar.gpg");
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let mnt = Released(scratch.dir("mnt"));
    let log = scratch.path().join("log");
    let url = format!("file://{}", store.display());
    let dupfs = opened(&scratch).option("--log-file").option(log.to_str().unwrap());
    dupfs.run("mount", &[&url, mnt.0.to_str().unwrap()]);
    let errors = || {
        let mut value = vec![0; 65_536];
        let len = rustix::fs::getxattr(&mnt.0, "user.dupfs.errors", &mut value[..]).unwrap();
        String::from_utf8(value[..len].to_vec()).unwrap()
    };
    assert_eq!(errors(), "");
    let path = "20260120T021500Z/var/backups/mysql/shop.sql";
    assert!(fs::read(mnt.0.join("snapshots").join(path)).is_err());
    let message = errors();
    assert_eq!(message.lines().count(), 1, "{message}");
    let (time, rest) = message.split_once(' ').unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{message}");
    assert!(rest.starts_with("EIO ") && rest.contains(&format!(" of {path}: ")) && rest.contains("vol1"), "{message}");
    assert!(!rest.contains("inode"), "{message}");
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains(&format!(" of {path}: ")) && !logged.contains("inode"), "{logged}");
    let python = "import os, sys; sys.stdout.write(os.getxattr(sys.argv[1], 'user.dupfs.errors').decode())";
    let asked = output(Command::new("python3").args(["-c", python]).arg(&mnt.0));
    assert_eq!(String::from_utf8_lossy(&asked.stdout), message);
}

#[test]
fn a_normal_unmount_logs_no_warning_at_any_verbosity() {
    require_fuse();
    let scratch = Scratch::new();
    let mnt = Released(scratch.dir("mnt"));
    let log = scratch.path().join("log");
    let dupfs = opened(&scratch).option("-vv").option("--log-file").option(log.to_str().unwrap());
    dupfs.run("mount", &[&url(), mnt.0.to_str().unwrap()]);
    fs::read(mnt.0.join("latest/srv/www/shop/assets/shop.css")).unwrap();
    let plain = Dupfs::new(scratch.path()).option("-vv").option("--log-file").option(log.to_str().unwrap());
    plain.run("umount", &[mnt.0.to_str().unwrap()]);
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains("info: unmounted") || logged.contains(" unmounted"), "{logged}");
    for word in [" warning: ", " error: ", "Invalid argument", "os error"] {
        assert!(!logged.contains(word), "{word}: {logged}");
    }
    assert!(logged.contains(": fetching "), "{logged}");
}

#[test]
fn a_bucket_whose_directories_have_backups_is_distinguished_from_an_empty_one() {
    let scratch = Scratch::new();
    let server = S3Server::start();
    copy_sample(&server.bucket().join("backups/shop"), |_| true);
    fs::create_dir(server.bucket().join("empty")).unwrap();
    let dupfs = Dupfs::new(scratch.path())
        .option("--s3-unencrypted-connection")
        .variable("AWS_ACCESS_KEY_ID", KEY_ID)
        .variable("AWS_SECRET_ACCESS_KEY", SECRET);
    let (code, message) = one_line(&output(dupfs.command("ls").arg(format!("s3://{}/bucket", server.address))));
    assert_eq!(code, 3, "{message}");
    let expected = format!("below it: s3://{}/bucket/backups/shop (4 sets)\n", server.address);
    assert!(message.ends_with(&expected), "{message}");
    let (code, message) = one_line(&output(dupfs.command("ls").arg(format!("s3://{}/bucket/empty", server.address))));
    assert_eq!(code, 3, "{message}");
    assert!(message.contains("no file is directly in this location; check the URL"), "{message}");
}
