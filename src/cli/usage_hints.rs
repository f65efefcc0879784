//! Answers to words that users of duplicity type, and to arguments in the wrong place: one line with the command to use.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::nearby::has_backup_files;
use super::similar::most_similar;
use super::typed_command::TypedCommand;
use crate::fuse::mount_on;

/// Commands of duplicity and words that are near, and the answer.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["copy", "extract", "get"],
        "restore with: dupfs restore URL [PATH]... DEST; or mount the backup and copy with cp, rsync or tar: dupfs mount URL \
         MOUNTPOINT, then cp -a MOUNTPOINT/latest/PATH DEST",
    ),
    (&["list-current-files", "list", "dir"], "list a snapshot with: dupfs ls URL [PATH] (-R: everything below)"),
    (&["collection-status", "info", "snapshots"], "show the backups and their problems with: dupfs sets URL"),
    (&["check", "fsck", "scrub"], "read every object and report all damage with: dupfs verify URL"),
    (&["compare"], "compare a snapshot with a directory with: dupfs verify URL DIR"),
    (&["unmount", "fusermount", "fusermount3"], "unmount with: dupfs umount MOUNTPOINT"),
    (
        &[
            "backup",
            "full",
            "inc",
            "incr",
            "incremental",
            "cleanup",
            "remove-older-than",
            "remove-all-but-n-full",
            "remove-all-inc-of-but-n-full",
            "replicate",
        ],
        "dupfs only reads backups; make and remove them with duplicity",
    ),
    (&["locate", "search", "grep"], "find paths with: dupfs find URL PATTERN (--all: in all snapshots)"),
    (&["log", "versions"], "print every version of a path with: dupfs history URL PATH"),
    (&["changes", "delta"], "print the changes between two snapshots with: dupfs diff URL TIME TIME [PATH]"),
];

/// Options for the location of the backup.
const URL_OPTIONS: &[&str] = &["--url", "--source-url", "--target-url"];

/// Options for a path of the snapshot.
const PATH_OPTIONS: &[&str] = &["--file-to-restore", "--path-to-restore", "--path", "-r"];

/// Options for the time of a snapshot.
const TIME_OPTIONS: &[&str] = &["--time", "--restore-time", "-t"];

/// Options that select files of a backup run.
const SELECTION_OPTIONS: &[&str] = &[
    "--include",
    "--exclude",
    "--include-filelist",
    "--exclude-filelist",
    "--include-regexp",
    "--exclude-regexp",
    "--exclude-if-present",
    "--exclude-older-than",
    "--exclude-globbing-filelist",
    "--include-globbing-filelist",
];

/// Returns the answer to an error of the argument parser, if it is more specific than that of the parser. `typed` are
/// the arguments with the program's name first.
pub(super) fn answer(error: &clap::Error, typed: &[OsString]) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => unknown_command(context(ContextKind::InvalidSubcommand)?),
        ErrorKind::UnknownArgument => {
            let command = TypedCommand::find(typed).map(|command| command.name).unwrap_or_default();
            unknown_option(context(ContextKind::InvalidArg)?, &command)
        }
        _ => None,
    }
}

fn unknown_command(word: &str) -> Option<String> {
    if is_url(word) || word.contains('/') {
        return Some(format!("the command comes first: dupfs mount {word} MOUNTPOINT, or dupfs sets {word}"));
    }
    let known = |word: &str| COMMANDS.iter().find(|(words, _)| words.contains(&word));
    let meant = || most_similar(word.as_bytes(), COMMANDS.iter().flat_map(|(words, _)| words.iter().copied()));
    match known(word) {
        Some((_, answer)) => Some(format!("there is no command {word}: {answer}")),
        // Short words are similar to the commands of dupfs too, which the parser suggests.
        None if word.len() >= 7 => known(meant()?).map(|(_, answer)| format!("there is no command {word}: {answer}")),
        None => None,
    }
}

fn unknown_option(option: &str, command: &str) -> Option<String> {
    let name = option.split(['=', ' ']).next().unwrap_or(option);
    if command == "find" && !option.starts_with('-') {
        // A shell has replaced the pattern by several names, or an option of find(1) took no value.
        return Some(format!(
            "{option} is one argument too many: put the pattern in quotes (dupfs find URL '*.sql'), and write options with \
             two dashes (--type f)"
        ));
    }
    if URL_OPTIONS.contains(&name) {
        return operands(command).map(|operands| format!("{name}: the URL is an argument: dupfs {command} {operands}"));
    }
    if PATH_OPTIONS.contains(&name) {
        return match command {
            "cat" => Some(format!("{name}: the path is an argument: dupfs cat URL PATH")),
            "ls" => Some(format!("{name}: the path is an argument: dupfs ls URL PATH")),
            "history" => Some(format!("{name}: the path is an argument: dupfs history URL PATH")),
            "diff" => Some(format!("{name}: the path is an argument: dupfs diff URL TIME TIME PATH")),
            "find" => Some(format!("{name}: the path is a part of the pattern: dupfs find URL 'PATH/**'")),
            "sets" => Some(format!("{name}: sets reports on the whole backup; list a path with: dupfs ls URL PATH")),
            _ => None,
        };
    }
    if TIME_OPTIONS.contains(&name) && command == "sets" {
        return Some(format!(
            "{name}: sets shows all times; {name} is an option of mount, ls, find, cat, restore and verify"
        ));
    }
    if TIME_OPTIONS.contains(&name) && command == "history" {
        return Some(format!("{name}: history shows all times; list the path at one time with: dupfs ls -l URL PATH"));
    }
    if TIME_OPTIONS.contains(&name) && command == "diff" {
        return Some(format!("{name}: times are arguments: dupfs diff URL TIME TIME [PATH]"));
    }
    if SELECTION_OPTIONS.contains(&name) {
        return Some(format!("{name}: dupfs shows the whole backup; choose by paths, or with options of rsync or tar"));
    }
    match name {
        "--file-changed" => Some(
            "--file-changed: print every version of a path with: dupfs history URL PATH (--all: every set)".to_owned(),
        ),
        "--show-changes-in-set" => Some(
            "--show-changes-in-set: print the changes that a snapshot brought with: dupfs diff URL TIME (now: the newest; \
             dupfs sets URL shows all times)"
                .to_owned(),
        ),
        // `-name` and so on of find(1), one letter at a time.
        "-n" | "-p" | "-r" if command == "find" => {
            Some("the pattern is an argument: dupfs find URL 'PATTERN'; see dupfs find --help".to_owned())
        }
        "--force" => Some("--force: dupfs overwrites nothing; leave it out".to_owned()),
        "-o" | "--options" if command != "mount" => {
            Some("-o is an option of mount; here give the long option itself, such as --secret-key FILE".to_owned())
        }
        _ => None,
    }
}

/// The operands of the commands that read a backup.
fn operands(command: &str) -> Option<&'static str> {
    match command {
        "mount" => Some("URL MOUNTPOINT"),
        "sets" | "ls" | "verify" | "volumes" | "index" => Some("URL"),
        "find" => Some("URL PATTERN"),
        "cat" | "history" => Some("URL PATH"),
        "diff" => Some("URL TIME TIME [PATH]"),
        "restore" => Some("URL [PATH]... DEST"),
        _ => None,
    }
}

/// Returns true for text that begins with the scheme of a URL.
pub(super) fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Returns the right order of the arguments of `command`, if the operand after the backup is a URL and the backup is
/// not. Of two paths to `mount`, only the second may be that of a backup. A mounted directory is not read, because its
/// daemon may hang.
pub(super) fn swapped(command: &str, backup: &OsStr, operand: &OsStr) -> Option<String> {
    let backup = backup.to_str()?;
    let operand = operand.to_str()?;
    let is_mount_point_a_backup = || {
        command == "mount"
            && Path::new(backup).is_dir()
            && matches!(mount_on(Path::new(operand)), Ok(None))
            && has_backup_files(Path::new(operand))
            && !has_backup_files(Path::new(backup))
    };
    let is_url_second = is_url(operand) && !Path::new(operand).exists();
    let is_swapped = !is_url(backup) && (is_url_second || is_mount_point_a_backup());
    let usage = match command {
        "mount" => "dupfs mount URL MOUNTPOINT",
        "ls" => "dupfs ls URL PATH",
        "find" => "dupfs find URL PATTERN",
        "restore" => "dupfs restore URL [PATH]... DEST",
        "verify" => "dupfs verify URL DIR",
        _ => "dupfs cat URL PATH",
    };
    is_swapped
        .then(|| format!("the arguments are the wrong way round: {usage}, that is: dupfs {command} {operand} {backup}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::Cli;
    use std::fs;

    use super::*;

    fn answer_to(line: &str) -> Option<String> {
        let typed: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        answer(&Cli::try_parse_from(&typed).unwrap_err(), &typed)
    }

    #[test]
    fn commands_of_duplicity_get_the_equivalent_as_a_hint() {
        for (line, part) in [
            ("dupfs extract file:///b /to", "dupfs restore URL [PATH]... DEST"),
            ("dupfs list-curent-files file:///b", "dupfs ls URL"),
            ("dupfs colection-status file:///b", "dupfs sets URL"),
            ("dupfs compare file:///b /src", "dupfs verify URL DIR"),
            ("dupfs check file:///b", "dupfs verify URL"),
            ("dupfs fusermount /mnt", "dupfs umount MOUNTPOINT"),
            ("dupfs locate file:///b x", "dupfs find URL PATTERN"),
            ("dupfs remove-older-than 3M file:///b", "only reads"),
            ("dupfs file:///b /mnt", "dupfs mount file:///b MOUNTPOINT"),
        ] {
            let answer = answer_to(line).unwrap_or_default();
            assert!(answer.contains(part), "{line}: {answer}");
        }
        assert_eq!(answer_to("dupfs mont u m"), None);
    }

    #[test]
    fn options_of_duplicity_get_the_equivalent_as_a_hint() {
        for (line, part) in [
            ("dupfs sets --time 1D u", "sets shows all times"),
            ("dupfs sets -t 1D u", "sets shows all times"),
            ("dupfs sets --url u", "--url: the URL is an argument: dupfs sets URL"),
            ("dupfs mount --url=u m", "dupfs mount URL MOUNTPOINT"),
            ("dupfs restore --source-url u d", "dupfs restore URL [PATH]... DEST"),
            ("dupfs cat --file-to-restore etc/hosts u", "dupfs cat URL PATH"),
            ("dupfs cat --path-to-restore=etc/hosts u", "dupfs cat URL PATH"),
            ("dupfs list-current-files --file-to-restore etc u", "dupfs ls URL PATH"),
            ("dupfs collection-status --time 1D u", "sets shows all times"),
            ("dupfs collection-status --file-changed etc/hosts u", "dupfs history URL PATH"),
            ("dupfs collection-status --show-changes-in-set=1 u", "dupfs diff URL TIME"),
            ("dupfs ls --path etc u", "dupfs ls URL PATH"),
            ("dupfs sets --file-to-restore etc u", "dupfs ls URL PATH"),
            ("dupfs find --path etc u x", "dupfs find URL 'PATH/**'"),
            ("dupfs find u -name x", "dupfs find URL 'PATTERN'"),
            ("dupfs find u a.sql b.sql", "in quotes"),
            ("dupfs find u x -type f", "--type f"),
            ("dupfs mount --exclude x u m", "options of rsync"),
            ("dupfs cat --force u x", "leave it out"),
            ("dupfs ls -o secret_key=k u", "--secret-key FILE"),
        ] {
            let answer = answer_to(line).unwrap_or_default();
            assert!(answer.contains(part), "{line}: {answer}");
        }
        assert_eq!(answer_to("dupfs mount --nonsense u m"), None);
    }

    #[test]
    fn swapped_arguments_are_recognized() {
        let swapped = |a: &str, b: &str| swapped("mount", OsStr::new(a), OsStr::new(b));
        assert!(swapped("/mnt", "file:///b").unwrap().ends_with("dupfs mount file:///b /mnt"));
        assert!(swapped("/mnt", "s3://b/p").is_some());
        for (a, b) in [("file:///b", "/mnt"), ("/b", "/mnt"), ("s3://b", "s3://c"), ("b", "a:b")] {
            assert_eq!(swapped(a, b), None);
        }
        let tmp = tempfile::tempdir().unwrap();
        let [backup, mount_point] = ["backup", "mnt"].map(|name| tmp.path().join(name).to_str().unwrap().to_owned());
        for dir in [&backup, &mount_point] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(Path::new(&backup).join("duplicity-full.20170128T021500Z.manifest"), "").unwrap();
        let hint = swapped(&mount_point, &backup).unwrap();
        assert!(hint.ends_with(&format!("dupfs mount {backup} {mount_point}")), "{hint}");
        for (a, b) in [(&backup, &mount_point), (&backup, &backup), (&mount_point, &mount_point)] {
            assert_eq!(swapped(a, b), None, "{a} {b}");
        }
    }
}
