//! Answers to words that users of duplicity type, and to arguments in the wrong place: one line with the command to use.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use dupfs_base::escape_bytes;
use dupfs_read::storage::{Location, parse_url};

use super::args::Cli;
use super::long_option::{LongOption, reason_of_refusal};
use super::nearby::has_backup_files;
use super::options::RepoArgs;
use super::similar::most_similar;
use super::typed_command::TypedCommand;
use crate::fuse::remote_mount_above;

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
    (&["version"], "print the version with: dupfs --version"),
    (&["log", "versions"], "print every version of a path with: dupfs history URL PATH"),
    (&["changes", "delta"], "print the changes between two snapshots with: dupfs diff URL TIME TIME [PATH]"),
];

/// Options for the location of the backup.
const URL_OPTIONS: &[&str] = &["--url", "--source-url", "--target-url"];

/// Options for a path of the snapshot.
const PATH_OPTIONS: &[&str] = &["--file-to-restore", "--path-to-restore", "--path", "-r"];

/// Options for the time of a snapshot.
const TIME_OPTIONS: &[&str] = &["--time", "--restore-time", "-t"];

/// Options of duplicity's relatives and of scripts for a passphrase itself.
const PASSPHRASE_OPTIONS: &[&str] = &["--passphrase", "--password"];

/// Words of other programs for the actions of `dupfs cache`.
const REMOVALS: &[&str] = &["rm", "remove", "delete", "clean", "purge"];

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

/// Returns the answer to an error of the argument parser in one line; `None` for help, which is no error. `typed` are the
/// arguments with the program's name first.
pub(super) fn answer(error: &clap::Error, typed: &[OsString]) -> Option<String> {
    special_answer(error, typed).or_else(|| plain_answer(error, typed))
}

/// The answer to errors for which the intended command is known.
fn special_answer(error: &clap::Error, typed: &[OsString]) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let command = || TypedCommand::find(typed).map(|command| command.name).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand)?;
            match command().as_str() {
                "cache" => unknown_action(word),
                _ => unknown_command(word),
            }
        }
        ErrorKind::UnknownArgument => {
            let (option, command) = (context(ContextKind::InvalidArg)?, command());
            if option.starts_with('-') { unknown_option(option, &command) } else { extra_operand(option, &command) }
        }
        ErrorKind::MissingRequiredArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => missing_arguments(missing, typed, &command()),
            _ => None,
        },
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let (option, value) = (context(ContextKind::InvalidArg)?, context(ContextKind::InvalidValue)?);
            Some(wrong_value(error, option, value))
        }
        ErrorKind::DisplayHelp if command() == "ls" => {
            let is_sizes = |typed: &OsString| letters_of(typed).is_some_and(|letters| letters.len() > 1);
            typed
                .iter()
                .any(is_sizes)
                .then(|| "-h: ls prints sizes in bytes; leave -h out, or see: dupfs ls --help".into())
        }
        _ => None,
    }
}

/// The report of the argument parser in one line, without the usage and the tips.
pub(super) fn report_of(error: &clap::Error) -> String {
    let text = error.to_string();
    let report = text.split("\n\n").next().unwrap_or_default();
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    report.strip_prefix("error: ").map_or_else(|| report.clone(), str::to_owned)
}

/// The answer to a value that `option` (such as `--memory <BYTES>`) does not take, or that is missing.
fn wrong_value(error: &clap::Error, option: &str, value: &str) -> String {
    let (name, form) = name_and_form(option);
    if !value.is_empty() {
        return format!("{name} {}: {}", shown_operand(value), reason_of_refusal(error));
    }
    let known = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(known)) if !known.is_empty() => format!("; give one of: {}", known.join(", ")),
        _ => String::new(),
    };
    format!("{name} needs a value: {name} {form}{known}")
}

/// The name and the form of the value of `option`, which the parser writes as `--memory <BYTES>` or `--watch[=<SECONDS>]`.
fn name_and_form(option: &str) -> (&str, &str) {
    let option = option.trim_start_matches('<');
    let end = option.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(option.len());
    let (name, form) = option.split_at_checked(end).unwrap_or((option, ""));
    (name, form.trim_matches([' ', '[', '=', '<', '>', ']', '.']))
}

/// The answer in one line to an error for which there is no better one. `None` for help.
fn plain_answer(error: &clap::Error, typed: &[OsString]) -> Option<String> {
    let names = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => vec![name.as_str()],
        Some(ContextValue::Strings(names)) => names.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let typed = TypedCommand::find(typed);
    let (words, help) = match &typed {
        Some(command) => (format!("dupfs {}", command.name), format!("dupfs help {}", command.name)),
        None => ("dupfs".to_owned(), "dupfs --help".to_owned()),
    };
    let of_option = |option: &str| {
        let known = typed.iter().flat_map(|command| LongOption::of(command.definition));
        let known: Vec<String> = known.map(|known| format!("--{}", known.name())).collect();
        let shown = escape_bytes(option.as_bytes());
        match most_similar(option.as_bytes(), &known) {
            Some(meant) => format!("{shown}: {words} has no such option; did you mean {meant}?"),
            None => format!("{shown}: {words} has no such option; {help} lists them"),
        }
    };
    Some(match (error.kind(), names(ContextKind::InvalidArg).as_slice()) {
        _ if !error.use_stderr() => return None,
        // `dupfs` alone prints the help to standard error.
        (ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => return None,
        (ErrorKind::UnknownArgument, [option]) if option.starts_with('-') => of_option(option),
        (ErrorKind::UnknownArgument, [operand]) => {
            format!("{} is one argument too many for {words}; see {help}", shown_operand(operand))
        }
        (ErrorKind::ArgumentConflict, [option]) => {
            let others: Vec<&str> =
                names(ContextKind::PriorArg).into_iter().map(|other| name_and_form(other).0).collect();
            format!("{} cannot be used with {}: leave out one of them", name_and_form(option).0, others.join(" and "))
        }
        (ErrorKind::InvalidSubcommand, _) => {
            let word = names(ContextKind::InvalidSubcommand).concat();
            let shown = shown_operand(&word);
            let definition = typed.as_ref().map_or_else(Cli::definition, |command| command.definition);
            match most_similar(word.as_bytes(), definition.get_subcommands().map(clap::Command::get_name)) {
                Some(meant) => format!("there is no command {shown}: did you mean {meant}?"),
                None => format!("there is no command {shown}; {help} lists them"),
            }
        }
        _ => {
            let report = report_of(error);
            let report = match names(ContextKind::InvalidValue).as_slice() {
                [value] if !value.is_empty() => report.replace(*value, &shown_operand(value)),
                _ => escape_bytes(report.as_bytes()),
            };
            format!("{report}; see {help}")
        }
    })
}

/// An operand or value as it was typed, for a message: without control characters, and a URL without its password. Messages go to
/// the log too.
pub(super) fn shown_operand(text: &str) -> String {
    if !is_url(text) {
        return escape_bytes(text.as_bytes());
    }
    match parse_url(text) {
        Ok(Location::Local(_)) => escape_bytes(text.as_bytes()),
        Ok(location) => location.display_without_secrets(),
        // The place of its password is not known.
        Err(_) => format!("{}://...", text.split_once("://").map_or("", |(scheme, _)| scheme)),
    }
}

/// The short options that are written together in `typed`.
fn letters_of(typed: &OsStr) -> Option<&str> {
    typed.to_str()?.strip_prefix('-').filter(|letters| letters.chars().all(|c| c.is_ascii_alphabetic()))
}

fn unknown_action(word: &str) -> Option<String> {
    REMOVALS.contains(&word).then(|| {
        format!(
            "there is no action {word}: remove indexes with dupfs cache clear [URL], or those of no use with dupfs cache prune"
        )
    })
}

/// The answer to missing operands and options of `command`, as the parser names them.
fn missing_arguments(missing: &[String], typed: &[OsString], command: &str) -> Option<String> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        missing.iter().map(String::as_str).partition(|name| name.starts_with("--"));
    let options = options.into_iter().map(name_and_form);
    let options: Vec<String> = options.map(|(name, form)| format!("{name} {form}").trim_end().to_owned()).collect();
    let needed = are_missing(&options).map(|options| format!("{options}, which another option needs"));
    let operands = missing_operands(&names, typed, command);
    match (operands, needed) {
        (Some(operands), Some(needed)) => Some(format!("{operands}; {needed}")),
        (None, Some(needed)) => Some(format!("{needed}; see dupfs help {command}")),
        (operands, None) => operands,
    }
}

/// States that `names` are missing. `None` if there are none.
fn are_missing<S: AsRef<str>>(names: &[S]) -> Option<String> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("{name} is missing")),
        _ => Some(format!("{} are missing", names.join(" and "))),
    }
}

/// The answer to the missing operands `names` of `command`. `None` if there are none.
fn missing_operands(names: &[&str], typed: &[OsString], command: &str) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let is_name = |typed: &OsString| typed.to_str().is_some_and(|text| text == "--name" || text.starts_with("--name="));
    if command == "find" && typed.iter().any(is_name) {
        return Some("--name: the pattern is an argument: dupfs find URL 'PATTERN'".to_owned());
    }
    let operands = operands(command).unwrap_or_default();
    // `ls -lt URL`: the URL is the value of the option.
    let is_time = |pair: &&[OsString]| {
        let takes = |option: &OsString| letters_of(option).is_some_and(|letters| letters.ends_with('t'));
        matches!(pair, [option, value] if takes(option) && value.to_str().is_some_and(|text| is_url(text) || text.contains('/')))
    };
    if let Some([_, value]) = typed.windows(2).find(is_time) {
        let value = shown_operand(&value.to_string_lossy());
        return Some(format!("-t takes a time, and {value} is none: dupfs {command} -t TIME {operands}"));
    }
    // Several operands in one list are the last one at least.
    let names = names.iter().map(|name| match *name {
        "<[PATH]... DEST>..." => "DEST",
        name => name_and_form(name).0,
    });
    let missing = are_missing(&names.collect::<Vec<_>>())?;
    Some(format!("{missing}: dupfs {command} {operands}; dupfs help {command} lists the options"))
}

/// The answer to an operand after the last one that `command` takes.
fn extra_operand(operand: &str, command: &str) -> Option<String> {
    let answer = match command {
        "find" => {
            // A shell has replaced the pattern by several names, or an option of find(1) took no value.
            "put the pattern in quotes (dupfs find URL '*.sql'), and write options with two dashes (--type f)"
        }
        "ls" => "it lists one path: dupfs ls URL PATH",
        "history" => "it takes one path: dupfs history URL PATH",
        "diff" => "it takes two times and one path: dupfs diff URL TIME TIME PATH",
        "sets" | "index" => "it takes the URL alone; list a path with: dupfs ls URL PATH",
        "verify" => "it takes one directory; compare a path with: dupfs verify --path PATH URL DIR",
        "mount" => "a path of the backup is an option: dupfs mount --path PATH URL MOUNTPOINT",
        "umount" => "it unmounts one mount: dupfs umount MOUNTPOINT",
        "status" => "without an argument it reports all mounts",
        _ => return None,
    };
    Some(format!("{} is one argument too many for {command}: {answer}", shown_operand(operand)))
}

fn unknown_command(word: &str) -> Option<String> {
    let shown = shown_operand(word);
    if is_url(word) || word.contains('/') {
        return Some(format!("the command comes first: dupfs mount {shown} MOUNTPOINT, or dupfs sets {shown}"));
    }
    let known = |word: &str| COMMANDS.iter().find(|(words, _)| words.contains(&word));
    let meant = || most_similar(word.as_bytes(), COMMANDS.iter().flat_map(|(words, _)| words.iter().copied()));
    match known(word) {
        Some((_, answer)) => Some(format!("there is no command {shown}: {answer}")),
        // Short words are similar to the commands of dupfs too, which the parser suggests.
        None if word.len() >= 7 => known(meant()?).map(|(_, answer)| format!("there is no command {shown}: {answer}")),
        None => None,
    }
}

fn unknown_option(option: &str, command: &str) -> Option<String> {
    let name = option.split(['=', ' ']).next().unwrap_or(option);
    if PASSPHRASE_OPTIONS.contains(&name) {
        return Some(format!(
            "{name}: other users see what is on a command line; set PASSPHRASE, give --passphrase-file FILE, or wait to be asked"
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
        "-n" | "-p" | "-r" | "-e" if command == "find" => {
            Some("the pattern is an argument: dupfs find URL 'PATTERN'; see dupfs find --help".to_owned())
        }
        "--iname" if command == "find" => Some("--iname: dupfs find -i URL 'PATTERN'".to_owned()),
        "-s" | "--size" if command == "find" => Some(format!("{name}: dupfs find --larger BYTES URL 'PATTERN'")),
        "-m" | "--mtime" if command == "find" => Some(format!("{name}: dupfs find --newer TIME URL 'PATTERN'")),
        "-a" | "-A" | "-1" if command == "ls" => {
            Some(format!("{name}: ls prints all names, one on a line; leave {name} out"))
        }
        "-u" if command == "diff" => Some("-u: print the changes of text files with: dupfs diff -p URL TIME".to_owned()),
        "--overwrite" | "--replace" if command == "restore" => {
            Some(format!("{name}: replace what differs in the destination with: dupfs restore --force URL [PATH]... DEST"))
        }
        "--force" => Some("--force: dupfs overwrites nothing; leave it out".to_owned()),
        "-o" | "--options" if command != "mount" => {
            Some("-o is an option of mount; here give the long option itself, such as --secret-key FILE".to_owned())
        }
        _ => None,
    }
}

/// The operands of the commands that take some.
fn operands(command: &str) -> Option<&'static str> {
    match command {
        "mount" => Some("URL MOUNTPOINT"),
        "sets" | "index" => Some("URL"),
        "ls" => Some("URL [PATH]"),
        "verify" => Some("URL [DIR]"),
        "volumes" => Some("URL [PATH]..."),
        "umount" => Some("MOUNTPOINT"),
        "find" => Some("URL PATTERN"),
        "cat" | "history" => Some("URL PATH"),
        "diff" => Some("URL TIME [TIME] [PATH]"),
        "restore" => Some("URL [PATH]... DEST"),
        "completions" => Some("SHELL"),
        "man" => Some("DIR"),
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

/// Returns the right order of the arguments of `command`, if the operand after the backup is a URL and the backup is not. Of two
/// paths, only the second may be that of a backup whose files have no prefix. A directory on a mount of a server is not read,
/// because the server may hang.
pub(super) fn swapped(command: &str, repo: &RepoArgs, operand: &OsStr) -> Option<String> {
    let backup = repo.url.to_str()?;
    let operand = operand.to_str()?;
    if is_url(backup) {
        return None;
    }
    let (path, other) = (Path::new(backup), Path::new(operand));
    let may_be_operand = || match command {
        "mount" | "restore" | "verify" => path.is_dir() || !path.exists(),
        _ => !path.exists(),
    };
    let is_local = || matches!(remote_mount_above(other), Ok(None));
    let is_operand_a_backup = || may_be_operand() && is_local() && has_backup_files(other) && !has_backup_files(path);
    let is_url_second = is_url(operand) && !other.exists();
    if !is_url_second && (repo.has_prefixes() || !is_operand_a_backup()) {
        return None;
    }
    let usage = match command {
        "mount" => "dupfs mount URL MOUNTPOINT",
        "ls" => "dupfs ls URL PATH",
        "find" => "dupfs find URL PATTERN",
        "restore" => "dupfs restore URL [PATH]... DEST",
        "verify" => "dupfs verify URL DIR",
        "history" => "dupfs history URL PATH",
        "volumes" => "dupfs volumes URL [PATH]...",
        _ => "dupfs cat URL PATH",
    };
    let (shown, operand) = (shown_operand(backup), shown_operand(operand));
    let right = match command {
        // The parser knows two of its operands.
        "diff" => format!("the URL comes first: dupfs diff {operand} TIME [TIME] [PATH]"),
        _ => format!("the arguments are the wrong way round: {usage}, that is: dupfs {command} {operand} {shown}"),
    };
    if is_url_second {
        return Some(right);
    }
    let absolute = std::path::absolute(path).ok()?;
    let literal = Location::Local(absolute).display_without_secrets();
    Some(format!("{right}; if {shown} is the backup, write {literal}"))
}

/// The answer to an option of find(1) that is one of `dupfs find` with a value.
pub(super) fn option_of_find(typed: &[OsString]) -> Option<String> {
    let is_of_find = TypedCommand::find(typed).is_some_and(|command| command.name == "find");
    let is_type = typed.iter().take_while(|argument| *argument != "--").any(|argument| argument == "-type");
    (is_of_find && is_type)
        .then(|| "-type: write options with two dashes: dupfs find URL 'PATTERN' --type f".to_owned())
}

/// The answer to a destination of `dupfs restore` that is no place for files.
pub(super) fn unfit_destination(dest: &Path) -> Option<String> {
    let text = dest.to_str()?;
    let is_special = || {
        dest.metadata().is_ok_and(|metadata| {
            let kind = metadata.file_type();
            kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
        })
    };
    if text == "-" {
        return Some(
            "-: restore writes no file to its output; print it with dupfs cat URL PATH (./- is a file)".to_owned(),
        );
    }
    let shown = shown_operand(text);
    if text.starts_with("/dev/") || is_special() {
        return Some(format!(
            "{shown}: restore writes files and directories; print a file with dupfs cat URL PATH, or check that all can be \
             read with dupfs verify URL"
        ));
    }
    is_url(text).then(|| {
        let path = text.strip_prefix("file://").filter(|path| path.starts_with('/'));
        let remedy = path.map_or_else(|| "such as /srv/restored".to_owned(), shown_operand);
        format!("{shown}: the destination is a path of this machine: {remedy}")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use std::fs;

    use super::*;

    fn answer_to(line: &str) -> Option<String> {
        let typed: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        answer(&Cli::try_parse_from(&typed).unwrap_err(), &typed)
    }

    fn check_answer(line: &str, part: &str) {
        let answer = answer_to(line).unwrap_or_default();
        assert!(answer.contains(part), "{line}: {answer}");
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
            check_answer(line, part);
        }
        assert_eq!(answer_to("dupfs mont u m").as_deref(), Some("there is no command mont: did you mean mount?"));
        assert_eq!(answer_to("dupfs xyzzy u").as_deref(), Some("there is no command xyzzy; dupfs --help lists them"));
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
            ("dupfs ls --passphrase x u", "--passphrase-file FILE"),
            ("dupfs ls -la u", "-a: ls prints all names"),
            ("dupfs ls -lh u", "sizes in bytes"),
            ("dupfs ls -lt file:///b", "-t takes a time, and file:///b is none: dupfs ls -t TIME URL [PATH]"),
            ("dupfs find u x --size +1M", "--larger BYTES"),
            ("dupfs find u x -mtime 3", "--newer TIME"),
            ("dupfs find --name x u", "dupfs find URL 'PATTERN'"),
            ("dupfs diff -u u now", "dupfs diff -p URL TIME"),
        ] {
            check_answer(line, part);
        }
        check_answer("dupfs restore --overwrite u d", "dupfs restore --force");
        for (line, expected) in [
            ("dupfs mount --nonsense u m", "--nonsense: dupfs mount has no such option; dupfs help mount lists them"),
            ("dupfs ls --memroy 1G u", "--memroy: dupfs ls has no such option; did you mean --memory?"),
            ("dupfs verify --deep --sample 5% u", "--deep cannot be used with --sample: leave out one of them"),
            ("dupfs volumes --days 3 u", "--thaw is missing, which another option needs; see dupfs help volumes"),
        ] {
            assert_eq!(answer_to(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn missing_and_superfluous_operands_are_named() {
        for (line, expected) in [
            ("dupfs ls", "URL is missing: dupfs ls URL [PATH]; dupfs help ls lists the options"),
            ("dupfs cat u", "PATH is missing: dupfs cat URL PATH; dupfs help cat lists the options"),
            (
                "dupfs diff",
                "URL and TIME are missing: dupfs diff URL TIME [TIME] [PATH]; dupfs help diff lists the options",
            ),
            (
                "dupfs restore --file-to-restore etc/hosts u",
                "DEST is missing: dupfs restore URL [PATH]... DEST; dupfs help restore lists the options",
            ),
            ("dupfs mount u", "MOUNTPOINT is missing: dupfs mount URL MOUNTPOINT; dupfs help mount lists the options"),
            (
                "dupfs completions",
                "SHELL is missing: dupfs completions SHELL; dupfs help completions lists the options",
            ),
            ("dupfs man", "DIR is missing: dupfs man DIR; dupfs help man lists the options"),
            (
                "dupfs completions bash x",
                "x is one argument too many for dupfs completions; see dupfs help completions",
            ),
            ("dupfs umount", "MOUNTPOINT is missing: dupfs umount MOUNTPOINT; dupfs help umount lists the options"),
            ("dupfs ls u etc home", "home is one argument too many for ls: it lists one path: dupfs ls URL PATH"),
            (
                "dupfs sets u etc",
                "etc is one argument too many for sets: it takes the URL alone; list a path with: dupfs ls URL PATH",
            ),
        ] {
            assert_eq!(answer_to(line).as_deref(), Some(expected), "{line}");
        }
        for (line, part) in [
            ("dupfs history u a b", "dupfs history URL PATH"),
            ("dupfs verify u a b", "--path PATH URL DIR"),
            ("dupfs mount u m etc", "--path PATH URL MOUNTPOINT"),
            ("dupfs diff u a b c d", "dupfs diff URL TIME TIME PATH"),
            ("dupfs cache rm u", "dupfs cache clear [URL]"),
            ("dupfs version", "dupfs --version"),
        ] {
            check_answer(line, part);
        }
        for (line, expected) in [
            (
                "dupfs ls --sign-key 12345678 u",
                "--verify-key FILE is missing, which another option needs; see dupfs help ls",
            ),
            (
                "dupfs ls --sign-key 12345678",
                "URL is missing: dupfs ls URL [PATH]; dupfs help ls lists the options; --verify-key FILE is missing, which \
                 another option needs",
            ),
            (
                "dupfs restore --sign-key 12345678",
                "URL and DEST are missing: dupfs restore URL [PATH]... DEST; dupfs help restore lists the options; \
                 --verify-key FILE is missing, which another option needs",
            ),
        ] {
            assert_eq!(answer_to(line).as_deref(), Some(expected), "{line}");
        }
        // Help that was asked for.
        assert_eq!(answer_to("dupfs ls -h"), None);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_option_and_the_reason() {
        for (line, expected) in [
            ("dupfs ls --memory abc u", "--memory abc: unknown unit \"ABC\": give bytes as 512M or 4G"),
            ("dupfs find u x --type q", "--type q: give one of: file, dir, symlink, fifo, char-device, block-device"),
            ("dupfs completions csh", "SHELL csh: give one of: bash, zsh, fish"),
            ("dupfs status --watch=x", "--watch x: unknown unit \"x\": give seconds, or a time as 90s, 10m or 1h"),
            ("dupfs verify --sample 5% --seed x u", "--seed x: give a whole number"),
            ("dupfs ls u --memory", "--memory needs a value: --memory BYTES"),
            ("dupfs ls u --verify", "--verify needs a value: --verify UNIT; give one of: block, volume"),
            ("dupfs ls --umask \u{1b}[2J u", "--umask \\x1b[2J: give an octal number up to 777, such as 022"),
        ] {
            assert_eq!(answer_to(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn options_of_find_are_recognized() {
        let answer = |line: &str| option_of_find(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(answer("dupfs find u -type f").unwrap().contains("--type f"));
        for line in ["dupfs find u -t 3D", "dupfs find u x --type f", "dupfs find u -- -type", "dupfs ls u -type"] {
            assert_eq!(answer(line), None, "{line}");
        }
    }

    #[test]
    fn destinations_that_are_no_place_for_files_are_recognized() {
        let answer = |dest: &str| unfit_destination(Path::new(dest));
        for dest in ["-", "/dev/stdout", "/dev/null"] {
            assert!(answer(dest).unwrap().contains("dupfs cat URL PATH"), "{dest}");
        }
        assert!(answer("file:///srv/x").unwrap().ends_with("a path of this machine: /srv/x"));
        assert!(answer("s3://b/p").unwrap().contains("a path of this machine"));
        for dest in ["./-", "out", "/srv/restored", "."] {
            assert_eq!(answer(dest), None, "{dest}");
        }
    }

    #[test]
    fn swapped_arguments_are_recognized() {
        let swapped = |a: &str, b: &str| swapped_by("mount", a, b);
        assert!(swapped("/mnt", "file:///b").unwrap().ends_with("dupfs mount file:///b /mnt"));
        assert!(swapped("/mnt", "s3://b/p").is_some());
        for (a, b) in [("file:///b", "/mnt"), ("/b", "/mnt"), ("s3://b", "s3://c"), ("b", "a:b")] {
            assert_eq!(swapped(a, b), None);
        }
        let of = |command: &str| swapped_by(command, "etc", "s3://b/p").unwrap();
        assert!(of("history").ends_with("dupfs history URL PATH, that is: dupfs history s3://b/p etc"));
        assert_eq!(of("diff"), "the URL comes first: dupfs diff s3://b/p TIME [TIME] [PATH]");
        let tmp = tempfile::tempdir().unwrap();
        let [backup, mount_point] = ["backup", "mnt"].map(|name| tmp.path().join(name).to_str().unwrap().to_owned());
        for dir in [&backup, &mount_point] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(Path::new(&backup).join("duplicity-full.20170128T021500Z.manifest"), "").unwrap();
        let hint = swapped(&mount_point, &backup).unwrap();
        let right =
            format!("dupfs mount {backup} {mount_point}; if {mount_point} is the backup, write file://{mount_point}");
        assert!(hint.ends_with(&right), "{hint}");
        assert_eq!(swapped(&format!("file://{mount_point}"), &backup), None);
        for (a, b) in [(&backup, &mount_point), (&backup, &backup), (&mount_point, &mount_point)] {
            assert_eq!(swapped(a, b), None, "{a} {b}");
        }
        let missing = format!("{mount_point}/etc");
        for (command, first, is_swapped) in [
            ("ls", &missing, true),
            ("ls", &mount_point, false),
            ("restore", &missing, true),
            ("verify", &mount_point, true),
            ("verify", &backup, false),
        ] {
            let answer = swapped_by(command, first, &backup);
            assert_eq!(answer.is_some(), is_swapped, "{command} {first}: {answer:?}");
        }
        // The names of the files of the backup are not known without its prefixes.
        for option in ["", "-archive", "-manifest", "-signature"] {
            let prefix = format!("--file-prefix{option}=p_");
            assert_eq!(swapped_with(&[&prefix], "verify", &mount_point, &backup), None, "{prefix}");
            assert!(swapped_with(&[&prefix], "verify", &mount_point, "s3://b/p").is_some(), "{prefix}");
        }
    }

    fn swapped_by(command: &str, url: &str, operand: &str) -> Option<String> {
        swapped_with(&[], command, url, operand)
    }

    fn swapped_with(options: &[&str], command: &str, url: &str, operand: &str) -> Option<String> {
        let line = [&["dupfs", "sets"][..], options, &[url]].concat();
        let Command::Sets(args) = Cli::try_parse_from(line).unwrap().command else { panic!("{url}") };
        swapped(command, &args.repo, OsStr::new(operand))
    }

    #[test]
    fn an_answer_shows_no_password_of_a_url_and_no_control_character() {
        const URL: &str = "sftp://joe:geheim@host/x";
        const SHOWN: &str = "sftp://joe@host/x";
        for (line, expected) in [
            ("dupfs ls u etc URL", "URL is one argument too many for ls: it lists one path: dupfs ls URL PATH"),
            (
                "dupfs completions bash URL",
                "URL is one argument too many for dupfs completions; see dupfs help completions",
            ),
            ("dupfs URL", "the command comes first: dupfs mount URL MOUNTPOINT, or dupfs sets URL"),
            ("dupfs ls -lt URL", "-t takes a time, and URL is none: dupfs ls -t TIME URL [PATH]"),
            ("dupfs ls --memory URL u", "--memory URL: "),
        ] {
            let answer = answer_to(&line.replace("URL", URL)).unwrap();
            let expected = expected.replacen("URL", SHOWN, 1);
            assert!(!answer.contains("geheim"), "{answer}");
            assert!(answer.starts_with(expected.split("URL").next().unwrap()), "{answer}");
        }
        let swapped = swapped_by("ls", "etc", URL).unwrap();
        assert!(swapped.ends_with("that is: dupfs ls sftp://joe@host/x etc"), "{swapped}");
        let unfit = unfit_destination(Path::new(URL)).unwrap();
        assert!(unfit.starts_with("sftp://joe@host/x: "), "{unfit}");
        // The parser of URLs does not know it.
        assert_eq!(shown_operand("nonsense://joe:geheim@host"), "nonsense://...");
        for kept in ["file:///srv/a%20b", "/srv/x@y:z", "s3://bucket/prefix"] {
            assert_eq!(shown_operand(kept), kept);
        }
        for line in ["dupfs ls u etc \u{1b}[2J", "dupfs \u{1b}[2J/x", "dupfs cache \u{1b}[2J"] {
            let answer = answer_to(line).unwrap();
            assert!(answer.contains("\\x1b[2J") && !answer.contains('\u{1b}'), "{answer}");
        }
    }
}
