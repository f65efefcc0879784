//! Brings the arguments into the form of the definition of the commands: the arguments of mount(8) for `mount.dupfs`,
//! lists after `-o`, and duplicity's options that only matter when writing.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::CommandFactory;
use dupfs_base::escape_bytes;
use regex::{Captures, Regex};

use super::args::Cli;
use super::error::CliError;
use super::long_option::{LongOption, parse_switch};
use super::options::TimeSpan;
use super::similar::most_similar;
use super::typed_command::TypedCommand;

/// Arguments in the form that [`Cli`] parses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// The program's name and its arguments.
    pub(super) args: Vec<OsString>,
    /// Options that were dropped, as they were written.
    pub(super) dropped: Vec<String>,
    /// Remarks about options for the user, one line each.
    pub(super) notes: Vec<String>,
    /// True if the arguments are only checked (`-f` of mount(8)).
    pub(super) fake: bool,
}

/// duplicity's options without effect on a reader, and true if a value follows (man pages of 0.6 to 3.x).
const WITHOUT_EFFECT: &[(&str, bool)] = &[
    ("allow-source-mismatch", false),
    ("asynchronous-upload", false),
    ("azure-blob-tier", true),
    ("azure-max-block-size", true),
    ("azure-max-connections", true),
    ("azure-max-single-put-size", true),
    ("b2-hide-files", false),
    ("backend-retry-delay", true),
    ("compare-data", false),
    ("concurrency", true),
    ("copy-links", false),
    ("do-not-restore-ownership", false),
    ("dry-run", false),
    ("encrypt-key", true),
    ("encrypt-sign-key", true),
    ("exclude-device-files", false),
    ("exclude-other-filesystems", false),
    ("extra-clean", false),
    ("full-if-older-than", true),
    ("gio", false),
    ("hidden-encrypt-key", true),
    ("idr-fakeroot", false),
    ("log-fd", true),
    ("log-timestamp", false),
    ("max-blocksize", true),
    ("metadata-sync-mode", true),
    ("mf-purge", false),
    ("mp-segment-size", true),
    ("no-compression", false),
    ("no-encryption", false),
    ("no-files-changed", false),
    ("no-print-statistics", false),
    ("no-restore-ownership", false),
    ("null-separator", false),
    ("num-retries", true),
    ("old-filenames", false),
    ("par2-options", true),
    ("par2-redundancy", true),
    ("par2-volumes", true),
    ("progress", false),
    ("progress-rate", true),
    ("s3-european-buckets", false),
    ("s3-kms-grant", true),
    ("s3-kms-key-id", true),
    ("s3-multipart-chunk-size", true),
    ("s3-multipart-max-procs", true),
    ("s3-multipart-max-timeout", true),
    ("s3-use-deep-archive", false),
    ("s3-use-glacier", false),
    ("s3-use-glacier-ir", false),
    ("s3-use-ia", false),
    ("s3-use-multiprocessing", false),
    ("s3-use-onezone-ia", false),
    ("s3-use-rrs", false),
    ("s3-use-server-side-encryption", false),
    ("s3-use-server-side-kms-encryption", false),
    ("scp-command", true),
    ("sftp-command", true),
    ("short-filenames", false),
    ("ssh-askpass", false),
    ("tempdir", true),
    ("time-separator", true),
    ("use-agent", false),
    ("verbosity", true),
    ("volsize", true),
];

/// Options of mount(8) and fstab(5) that have no effect here or are always in effect.
const OF_MOUNT: &[&str] = &[
    "async",
    "atime",
    "auto",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "group",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "ro",
    "rw",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "user",
    "users",
    "_netdev",
    "comment",
    "fsname",
    "subtype",
];

/// Brings `typed` (with the program's name first) into the form that [`Cli`] parses.
///
/// # Errors
/// [`CliError::Usage`] for unknown mount options.
pub(super) fn normalise(typed: Vec<OsString>) -> Result<Arguments, CliError> {
    let mut out = Arguments::default();
    let mut sloppy = false;
    let is_helper = is_called_by_mount(&typed);
    let typed = if is_helper { from_mount(typed, &mut out.fake, &mut sloppy)? } else { typed };
    let typed = join_watch_interval(list_recursively(typed));
    let typed = expand_lists(join_program_options(typed), sloppy, &mut out.notes)?;
    if is_helper {
        // mount(8) passes `rw` by default.
        out.notes.clear();
    }
    drop_without_effect(typed, &mut out);
    Ok(out)
}

/// Adds `-R` after the command `list-current-files`, an alias of `ls`: it lists everything.
fn list_recursively(mut typed: Vec<OsString>) -> Vec<OsString> {
    if let Some(end) = TypedCommand::find(&typed).map(|command| command.end)
        && end.checked_sub(1).and_then(|word| typed.get(word)).is_some_and(|word| word == "list-current-files")
    {
        typed.insert(end, "-R".into());
    }
    typed
}

/// Joins `--watch SECONDS` of the command `status` into one argument: the number is optional, and a mount point may follow.
fn join_watch_interval(mut typed: Vec<OsString>) -> Vec<OsString> {
    if !typed.iter().any(|arg| arg == "status") {
        return typed;
    }
    let is_watch = |arg: &OsString| arg == "--watch" || arg == "-w";
    if let Some(at) = typed.iter().position(is_watch)
        && let Some(interval) = typed.get(at + 1).and_then(|arg| arg.to_str()).map(str::to_owned)
        && interval.parse::<TimeSpan>().is_ok()
    {
        typed.splice(at..at + 2, [format!("--watch={interval}").into()]);
    }
    typed
}

/// Joins `--gpg-options VALUE` and `--ssh-options VALUE` into one argument, so that the value, which begins with `-`, is not
/// taken for an option.
fn join_program_options(typed: Vec<OsString>) -> Vec<OsString> {
    const OPTIONS: [&str; 2] = ["--gpg-options", "--ssh-options"];
    let mut typed = typed.into_iter();
    let mut out = Vec::with_capacity(typed.len());
    while let Some(arg) = typed.next() {
        if arg == "--" {
            out.push(arg);
            out.extend(typed);
            break;
        }
        let option = OPTIONS.into_iter().find(|option| arg == *option);
        match option.and_then(|option| Some((option, typed.next()?))) {
            Some((option, value)) => {
                let mut joined = OsString::from(option);
                joined.push("=");
                joined.push(value);
                out.push(joined);
            }
            None => out.push(arg),
        }
    }
    out
}

/// Returns true if mount(8) calls the program: by the name of a helper, or through mount.fuse, which calls it as
/// `dupfs SPEC DIR -o OPTIONS`.
pub(super) fn is_called_by_mount(typed: &[OsString]) -> bool {
    let name = typed.first().and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name == "mount.dupfs" || name == "mount.fuse.dupfs") || is_called_by_mount_fuse(typed)
}

/// The second word of a command of dupfs is never an absolute path if the first one is not a command.
fn is_called_by_mount_fuse(typed: &[OsString]) -> bool {
    let [_, source, directory, option, _] = typed else { return false };
    let is_word = |word: &OsString| !word.as_encoded_bytes().starts_with(b"-");
    let is_command = || source == "help" || Cli::command().find_subcommand(source).is_some();
    option == "-o" && Path::new(directory).is_absolute() && is_word(source) && !is_command()
}

/// Returns a hint for a mount by mount(8) that failed, if its backup is on the network and its options do not say so.
pub(super) fn network_hint(typed: &[OsString]) -> Option<&'static str> {
    let is_remote = |word: &OsString| {
        let text = word.to_str().unwrap_or_default();
        let url = text.strip_prefix("dupfs#").unwrap_or(text);
        url.contains("://") && !url.starts_with("file://")
    };
    let is_declared = |word: &OsString| word.to_str().unwrap_or_default().split(',').any(|item| item == "_netdev");
    let is_undeclared = is_called_by_mount(typed) && typed.iter().any(is_remote) && !typed.iter().any(is_declared);
    is_undeclared.then_some("if the network was not up yet, add _netdev to the options of this line in /etc/fstab")
}

/// mount(8) calls `mount.TYPE SPEC DIR [-sfnv] [-N namespace] [-o options] [-t type.subtype]`.
fn from_mount(typed: Vec<OsString>, fake: &mut bool, sloppy: &mut bool) -> Result<Vec<OsString>, CliError> {
    let mut typed = typed.into_iter();
    let mut out: Vec<OsString> = typed.next().into_iter().collect();
    out.push("mount".into());
    let mut positional = Vec::new();
    while let Some(arg) = typed.next() {
        match arg.to_str() {
            Some("-o") => out.extend([Some("-o".into()), typed.next()].into_iter().flatten()),
            Some("-t") => drop(typed.next()),
            Some("-N") => return Err(CliError::Usage("mounting in another namespace (-N) is not supported".into())),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') && !flags.starts_with("--") => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        's' => *sloppy = true,
                        'f' => *fake = true,
                        'v' => out.push("-v".into()),
                        'n' | 'r' | 'w' => {}
                        'h' => return Ok(vec!["dupfs".into(), "mount".into(), "--help".into()]),
                        'V' => return Ok(vec!["dupfs".into(), "mount".into(), "--version".into()]),
                        _ => return Err(CliError::Usage(format!("unknown option of mount(8): -{flag}"))),
                    }
                }
            }
            Some("--help" | "--version") => return Ok(vec!["dupfs".into(), "mount".into(), arg]),
            _ => positional.push(arg),
        }
    }
    // An fstab may write the source as mount.fuse does: PROGRAM#SOURCE.
    if let Some(first) = positional.first_mut()
        && let Some(url) = first.to_str().and_then(|text| text.strip_prefix("dupfs#"))
    {
        *first = url.into();
    }
    out.push("--".into());
    out.extend(positional);
    Ok(out)
}

/// Turns the items of `-o LIST` of `dupfs mount` into long options.
fn expand_lists(typed: Vec<OsString>, sloppy: bool, notes: &mut Vec<String>) -> Result<Vec<OsString>, CliError> {
    if !typed.iter().skip(1).any(|arg| arg == "mount") {
        return Ok(typed);
    }
    let mut out = Vec::with_capacity(typed.len());
    let mut typed = typed.into_iter();
    while let Some(arg) = typed.next() {
        let list = match arg.to_str() {
            Some("--") => {
                out.push(arg);
                out.extend(typed);
                break;
            }
            Some("-o" | "--options") => match typed.next() {
                Some(list) => list,
                None => return Err(CliError::Usage("-o needs a list of options".to_owned())),
            },
            Some(text) => match text.strip_prefix("--options=").or_else(|| text.strip_prefix("-o")) {
                Some(list) => list.into(),
                None => {
                    out.push(arg);
                    continue;
                }
            },
            None => {
                out.push(arg);
                continue;
            }
        };
        let Some(list) = list.to_str() else {
            return Err(CliError::Usage("the list after -o is not valid UTF-8".to_owned()));
        };
        for item in split_list(list) {
            if item == "rw" {
                notes.push("-o rw: a dupfs mount is always read-only".to_owned());
            }
            out.extend(expand_item(&item, sloppy)?.map(OsString::from));
        }
    }
    Ok(out)
}

/// Turns a list of mount options into long options with their values attached.
///
/// # Errors
/// [`CliError::Usage`] for unknown mount options.
pub(super) fn expand_list(list: &str) -> Result<Vec<String>, CliError> {
    split_list(list).iter().filter_map(|item| expand_item(item, false).transpose()).collect()
}

/// Splits at commas without a backslash before them.
fn split_list(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(',' | '\\')) => {
                if let (Some(last), Some(next)) = (items.last_mut(), chars.next()) {
                    last.push(next);
                }
            }
            (',', _) => items.push(String::new()),
            _ => {
                if let Some(last) = items.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn expand_item(item: &str, sloppy: bool) -> Result<Option<String>, CliError> {
    let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
    if OF_MOUNT.contains(&name) || name.starts_with("x-") || name.starts_with("X-") {
        return Ok(None);
    }
    if name == "remount" {
        return Err(CliError::Usage(
            "the options of a dupfs mount cannot be changed (remount): unmount it, and mount it again".to_owned(),
        ));
    }
    let long = name.replace('_', "-");
    let is_without_effect = WITHOUT_EFFECT.iter().find(|(known, _)| *known == long);
    let option = if is_without_effect.is_some() { None } else { option_of_mount(&long) };
    let takes_value = is_without_effect.map(|(_, takes)| *takes).or_else(|| Some(option.as_ref()?.takes_value()));
    match (takes_value, value) {
        (Some(true), Some(value)) => match option.map_or(Ok(()), |option| option.check(OsStr::new(value))) {
            Ok(()) => Ok(Some(format!("--{long}={value}"))),
            Err(reason) => {
                Err(CliError::Usage(format!("mount option {name}={}: {reason}", escape_bytes(value.as_bytes()))))
            }
        },
        (Some(false), None) => Ok(Some(format!("--{long}"))),
        (Some(false), Some(value)) if parse_switch(value).is_some() => Ok(Some(format!("--{long}={value}"))),
        (Some(true), None) => Err(CliError::Usage(format!("mount option {name} needs a value: {name}=..."))),
        (Some(false), Some(_)) => {
            Err(CliError::Usage(format!("mount option {name} takes no value but true and false")))
        }
        (None, _) if sloppy => Ok(None),
        (None, _) => Err(CliError::Usage(match similar_option(&long) {
            Some(meant) => format!("unknown mount option {name}: did you mean {meant}?"),
            // The mount table and the list of processes would show a secret.
            None if ["passphrase", "password"].contains(&&*long) => {
                format!("unknown mount option {name}: give the name of a file instead, passphrase_file=...")
            }
            None => format!("unknown mount option {name}: dupfs mount --help lists them"),
        })),
    }
}

/// The mount option that `long` may be a slip for, as it is written in a list.
fn similar_option(long: &str) -> Option<String> {
    let own = options_of_mount();
    let names = own.iter().map(LongOption::name).chain(OF_MOUNT.iter().copied());
    most_similar(long.as_bytes(), names.map(|name| name.replace('-', "_")))
}

/// The long options of `dupfs mount` that may be in a list of mount options.
fn options_of_mount() -> Vec<LongOption> {
    let mount = Cli::definition().find_subcommand("mount");
    let options = mount.into_iter().flat_map(LongOption::of);
    options.filter(|option| option.name() != "options").collect()
}

/// The long option of `dupfs mount`, if there is one of that name.
fn option_of_mount(long: &str) -> Option<LongOption> {
    options_of_mount().into_iter().find(|option| option.is_named(long))
}

/// `message` about options of the command line, for a user who has typed mount options: `'--sign-key <KEYID>'` becomes
/// `mount option sign_key`. Options of other programs stay, and so does what follows the word `dupfs` in a clause: a command has
/// options of its own.
pub(super) fn in_words_of_mount(message: &str) -> String {
    let Ok(option) = Regex::new(r"(?:the argument )?'?--([a-z0-9-]+)(?:\.\.\.)?(?: <[A-Z]+>)?'?") else {
        return message.to_owned();
    };
    let name = |found: &Captures<'_>| {
        let name = found.get(1).map_or("", |name| name.as_str());
        match option_of_mount(name) {
            Some(_) => format!("mount option {}", name.replace('-', "_")),
            None => found.get(0).map_or("", |whole| whole.as_str()).to_owned(),
        }
    };
    let clauses = message.split("; ").map(|clause| {
        let (own, command) = clause.split_at(clause.find("dupfs ").unwrap_or(clause.len()));
        format!("{}{command}", option.replace_all(own, name))
    });
    clauses.collect::<Vec<_>>().join("; ")
}

/// Drops duplicity's options without effect on a reader, up to `--`.
fn drop_without_effect(typed: Vec<OsString>, out: &mut Arguments) {
    // Only `restore` writes owners, only `cache` removes anything, and only `verify` compares.
    let has_word = |word: &str| typed.iter().take_while(|arg| *arg != "--").any(|arg| arg == word);
    let (restores, removes, verifies) = (has_word("restore"), has_word("cache"), has_word("verify"));
    let has_effect = |name: &str| match name {
        "dry-run" => removes || restores,
        "do-not-restore-ownership" | "no-restore-ownership" => restores,
        "compare-data" => verifies,
        _ => false,
    };
    let mut typed = typed.into_iter().peekable();
    out.args.extend(typed.next());
    while let Some(arg) = typed.next() {
        let text = arg.to_str().unwrap_or_default();
        if text == "--" {
            out.args.push(arg);
            out.args.extend(typed);
            return;
        }
        let next_is_number = typed.peek().and_then(|next| next.to_str()).is_some_and(is_level);
        if text.strip_prefix("-v").is_some_and(is_level) {
            out.dropped.push(text.to_owned());
            continue;
        }
        if text == "-v" && next_is_number {
            typed.next();
            out.dropped.push("-v".to_owned());
            continue;
        }
        let Some(long) = text.strip_prefix("--") else {
            out.args.push(arg);
            continue;
        };
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        match WITHOUT_EFFECT.iter().find(|(known, _)| *known == name && !has_effect(name)) {
            Some((_, takes_value)) => {
                if *takes_value && value.is_none() {
                    typed.next();
                }
                out.dropped.push(format!("--{name}"));
            }
            None => out.args.push(arg),
        }
    }
}

/// Returns true for a level of duplicity's `-v`: 0 to 9.
fn is_level(text: &str) -> bool {
    matches!(text.as_bytes(), [digit] if digit.is_ascii_digit())
}

#[cfg(test)]
mod tests;
