//! The commands and their arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use dupfs_unpack::NameEncoding;

use super::build_index::IndexArgs;
use super::cache::CacheCommandArgs;
use super::options::{
    ByteSize, CacheArgs, CompletionShell, DeadlineArgs, FileType, KeyArgs, MountDeadlineArgs, OwnerArgs, RepoArgs,
    SizeMode, SnapshotArgs, TimeArgs, TimeSpan, parse_zip_names,
};
use super::verify::parse_percent;
use super::volumes::VolumesArgs;

/// Mount duplicity backups read-only: restore with cp, rsync, tar or mysql < file
#[derive(Clone, Debug, Parser)]
#[command(name = "dupfs", version, args_override_self = true, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,

    /// Log more; twice: log everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,

    /// Log errors only, and show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Append the log to this file
    #[arg(long, value_name = "FILE", global = true)]
    pub log_file: Option<PathBuf>,

    /// Read the configuration from this file [default: ~/.config/dupfs/config.toml and /etc/dupfs/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Set by dupfs itself when it starts itself again: remarks on the arguments were made.
    #[arg(long, hide = true, global = true)]
    pub restarted: bool,

    /// Set by dupfs itself when it starts itself again: mount(8) has called it, and its errors name mount options.
    #[arg(long, hide = true, global = true)]
    pub called_by_mount: bool,

    /// Set by dupfs itself for the process that becomes the daemon.
    #[arg(long, hide = true, global = true)]
    pub report_ready: bool,

    /// Set by dupfs itself: the descriptor of a file with the secrets of the environment.
    #[arg(long, hide = true, global = true, value_name = "FD")]
    pub secrets_fd: Option<i32>,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Mount a backup; returns once the mount answers
    Mount(Box<MountArgs>),
    /// Unmount a backup
    #[command(alias = "unmount")]
    Umount(UmountArgs),
    /// Report what mounts do: what is fetched for whom, waits, the cache, the last errors
    Status(StatusArgs),
    /// Report chains, sets, snapshots and problems (duplicity: collection-status)
    #[command(alias = "collection-status")]
    Sets(Box<SetsArgs>),
    /// List a snapshot (duplicity: list-current-files, which is ls -R)
    #[command(alias = "list-current-files")]
    Ls(Box<LsArgs>),
    /// Find paths by their names, in one snapshot or in all; fetches no volume
    Find(Box<FindArgs>),
    /// Print every version of a path over all snapshots; fetches no volume
    History(Box<HistoryArgs>),
    /// Print the changes between two snapshots, or those that one snapshot brought; fetches no volume
    Diff(Box<DiffArgs>),
    /// Print file contents; needs no FUSE
    Cat(Box<CatArgs>),
    /// Write a snapshot or paths of it to a directory; needs no FUSE
    Restore(Box<RestoreArgs>),
    /// Read every object and report all damage: what is lost, and what can still be restored
    Verify(Box<VerifyArgs>),
    /// Name the volumes that a read would fetch, and what is in cold storage; fetches none
    ///
    /// A line has the size, the storage class (-: none), cold or -, indexed or - (its members are in the index), needed or
    /// maybe, the time of the set, and the name of the volume.
    Volumes(Box<VolumesArgs>),
    /// Read all trees and sizes into the index on this machine, so that later mounts and stats are instant
    Index(Box<IndexArgs>),
    /// List or remove what dupfs has stored on this machine: the indexes of backups
    Cache(CacheCommandArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Write the manual pages, one for each command
    Man(ManArgs),
}

/// `dupfs mount`. One field for each option, because clap derives the command line from the fields.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct MountArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// The mount point, an empty directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,

    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,

    /// Options as mount(8) takes them: allow_other, default_permissions, nonempty, noexec, sizes=exact|bound,
    /// zip-names=ENCODING, and any long option as name=value. `argv` turns them into the options below before they are parsed.
    #[arg(
        short,
        long,
        value_name = "LIST",
        help = "mount(8) options: allow_other, default_permissions, nonempty, noexec, sizes=exact|bound, \
                zip-names=ENCODING, and any long option as name=value",
        long_help = None
    )]
    pub options: Vec<String>,

    /// Give other users access, within the archived modes.
    #[arg(long, hide = true)]
    pub allow_other: bool,

    /// Let the kernel enforce the archived modes.
    #[arg(long, hide = true)]
    pub default_permissions: bool,

    /// Mount even if the directory is not empty.
    #[arg(long, hide = true)]
    pub nonempty: bool,

    /// Forbid running programs of the mount.
    #[arg(long, hide = true)]
    pub noexec: bool,

    /// The size that `stat` shows where the exact one needs a volume.
    #[arg(long, hide = true, value_enum, default_value_t)]
    pub sizes: SizeMode,

    /// The encoding of names in zip archives that do not state it.
    #[arg(long, hide = true, value_name = "ENCODING", value_parser = parse_zip_names)]
    pub zip_names: Option<NameEncoding>,

    /// The time that a request may take.
    #[command(flatten)]
    pub deadline: MountDeadlineArgs,

    /// Interval of listing the backup again for new snapshots; also as 90s, 10m or 1h; 0: only on SIGHUP [default: 300; with
    /// --time or --path: 0]
    #[arg(long, value_name = "SECONDS")]
    pub refresh: Option<TimeSpan>,

    /// The snapshot at the root.
    #[command(flatten)]
    pub time: TimeArgs,

    /// Mount this directory of the snapshot as the root
    #[arg(long, value_name = "PATH", aliases = ["path-to-restore", "file-to-restore"], help_heading = "View")]
    pub path: Option<OsString>,

    /// Owners.
    #[command(flatten)]
    pub owners: OwnerArgs,

    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Caches.
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// `dupfs umount`.
#[derive(Args, Clone, Debug)]
pub struct UmountArgs {
    /// The mount point
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,

    /// Detach the mount at once even if it is in use; the daemon exits when the last file is closed
    #[arg(short, long)]
    pub lazy: bool,

    /// Unmount only a mount whose daemon has ended; anything else is no error
    #[arg(long, conflicts_with = "lazy")]
    pub stale: bool,
}

/// `dupfs status`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct StatusArgs {
    /// The mount point (none: all mounts)
    pub mountpoint: Option<PathBuf>,

    /// Repeat every 2 seconds, or in this interval, until the mount ends
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2")]
    pub watch: Option<TimeSpan>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Set by dupfs itself for the process that asks a daemon, which may not answer.
    #[arg(long, hide = true)]
    pub ask: bool,
}

/// `dupfs sets`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct SetsArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Exit with code 6 if a problem of severity error is reported
    #[arg(long)]
    pub check: bool,

    /// The time that reading a manifest may take.
    #[command(flatten)]
    pub deadline: DeadlineArgs,

    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Caches.
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// `dupfs ls`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct LsArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// A path of the snapshot
    pub path: Option<OsString>,

    /// Show types, modes, owners, sizes and times
    #[arg(short = 'l', long)]
    pub long: bool,

    /// List directories recursively
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// End names with NUL and print them raw
    #[arg(long, conflicts_with = "json")]
    pub print0: bool,

    /// The snapshot.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,

    /// Owners.
    #[command(flatten)]
    pub owners: OwnerArgs,
}

/// `dupfs find`. One field for each option, because clap derives the command line from the fields.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct FindArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// A glob in quotes: '*.sql' matches names at any depth, 'etc/*.conf' and 'home/**/*.jpg' match paths from the root
    pub pattern: OsString,

    /// Search all snapshots, also for deleted paths, and print the snapshots that have each path
    #[arg(long, conflicts_with = "time")]
    pub all: bool,

    /// PATTERN is a regular expression that matches a part of the path
    #[arg(long)]
    pub regex: bool,

    /// Ignore letter case
    #[arg(short = 'i', long)]
    pub ignore_case: bool,

    /// Only these types: f, d, l, p, c, b as in find(1), or the long names; separated by commas
    #[arg(long = "type", value_name = "TYPE", value_enum, value_delimiter = ',')]
    pub types: Vec<FileType>,

    /// Only what was modified after this time, in the forms of --time
    #[arg(long, value_name = "TIME")]
    pub newer: Option<String>,

    /// Only regular files of more bytes, such as 100M
    #[arg(long, value_name = "BYTES")]
    pub larger: Option<ByteSize>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// End paths with NUL and print them raw, without the snapshots
    #[arg(long, conflicts_with = "json")]
    pub print0: bool,

    /// The snapshot.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
}

/// `dupfs history`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct HistoryArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// A path that any snapshot has
    pub path: OsString,

    /// Also print the sets that stored the path again although nothing changed
    #[arg(short = 'a', long)]
    pub all: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The time that a step may take.
    #[command(flatten)]
    pub deadline: DeadlineArgs,

    /// Owners.
    #[command(flatten)]
    pub owners: OwnerArgs,

    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Caches.
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// `dupfs diff`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct DiffArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// The time of a snapshot, in the forms of --time. Alone, it is compared with the snapshot before it
    pub time: OsString,

    /// The time of the snapshot to compare it with; PATH if it is no time
    #[arg(value_name = "TIME")]
    pub other: Option<OsString>,

    /// Compare only this path and everything below it
    pub path: Option<OsString>,

    /// Print the changes of contents as patches, by the program diff; fetches volumes
    #[arg(short, long, conflicts_with_all = ["json", "print0"])]
    pub patch: bool,

    /// With --patch: also for files that one of the snapshots lacks
    #[arg(short = 'N', long, requires = "patch")]
    pub new_file: bool,

    /// Exit with code 7 if anything differs
    #[arg(long)]
    pub exit_code: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// End lines with NUL and print paths raw
    #[arg(long, conflicts_with = "json")]
    pub print0: bool,

    /// The time that a step may take.
    #[command(flatten)]
    pub deadline: DeadlineArgs,

    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Caches.
    #[command(flatten)]
    pub cache: CacheArgs,
}

impl DiffArgs {
    /// The times and the path, as they were typed.
    pub fn operands(&self) -> impl Iterator<Item = &OsString> {
        [Some(&self.time), self.other.as_ref(), self.path.as_ref()].into_iter().flatten()
    }
}

/// `dupfs cat`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct CatArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Paths of the snapshot
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// The snapshot.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
}

/// `dupfs restore`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true, override_usage = "dupfs restore [OPTIONS] <URL> [PATH]... <DEST>")]
pub struct RestoreArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Paths of the snapshot (none: all of it), and the destination as the last argument: the name of the restored object
    /// itself for one path, a directory for several. With --dry-run it may be left out where no PATH is before it
    #[arg(required_unless_present = "dry_run", value_name = "[PATH]... DEST", value_hint = ValueHint::AnyPath)]
    pub operands: Vec<OsString>,

    /// Restore this path, as if it were given before DEST
    #[arg(
        long,
        value_name = "PATH",
        aliases = ["path-to-restore", "file-to-restore"],
        short_alias = 'r',
        help_heading = "View"
    )]
    pub path: Option<OsString>,

    /// Replace what differs in the destination
    #[arg(long)]
    pub force: bool,

    /// Do not set owners
    #[arg(long, aliases = ["no-restore-ownership", "do-not-restore-ownership"])]
    pub no_owner: bool,

    /// Start although the destination seems to be too small
    #[arg(long)]
    pub ignore_space: bool,

    /// Only count what would be restored; the destination is not examined
    #[arg(long)]
    pub dry_run: bool,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

    /// The snapshot.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,

    /// Owners.
    #[command(flatten)]
    pub owners: OwnerArgs,
}

impl RestoreArgs {
    /// The paths to restore, and the destination: empty if `--dry-run` is given without one.
    pub fn split(&self) -> (Vec<OsString>, PathBuf) {
        let (dest, paths) = self.operands.split_last().map_or((None, &[][..]), |(dest, paths)| (Some(dest), paths));
        let paths = self.path.iter().chain(paths).cloned().collect();
        (paths, dest.map(PathBuf::from).unwrap_or_default())
    }
}

/// `dupfs verify`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct VerifyArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Compare the snapshot with this directory, as duplicity does: the same as --compare DIR
    #[arg(value_name = "DIR", conflicts_with_all = ["compare", "sample"])]
    pub directory: Option<PathBuf>,

    /// Compare the snapshot with this directory instead of reading every object
    #[arg(long, value_name = "DIR", conflicts_with = "sample")]
    pub compare: Option<PathBuf>,

    /// Compare contents too, by their signatures where possible; with --deep always with the volumes
    #[arg(long)]
    pub compare_data: bool,

    /// Compare this path of the snapshot with the directory
    #[arg(
        long,
        value_name = "PATH",
        aliases = ["path-to-restore", "file-to-restore"],
        short_alias = 'r',
        help_heading = "View"
    )]
    pub path: Option<OsString>,

    /// Do not compare owners
    #[arg(long)]
    pub no_owner: bool,

    /// Compare the archived numbers of owners instead of mapping owners by name
    #[arg(long, conflicts_with = "no_owner", help_heading = "View")]
    pub numeric_owner: bool,

    /// Also read each version of each file, and compare its content with the block sums of its signature
    #[arg(long, conflicts_with = "sample")]
    pub deep: bool,

    /// Read only this share of the volumes, chosen at random, as 5%
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub sample: Option<f64>,

    /// The seed of --sample: the same one chooses the same volumes
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub seed: Option<u32>,

    /// Continue the last run with the same options, if it was interrupted: what it has read and found whole is not read again
    #[arg(long, conflicts_with_all = ["sample", "directory", "compare"])]
    pub resume: bool,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,

    /// The snapshot.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
}

impl VerifyArgs {
    /// The directory to compare the snapshot with; `None` to verify the backup alone.
    ///
    /// # Errors
    /// A usage error, in words, for options that do not fit.
    pub fn compared(&self) -> Result<Option<&PathBuf>, String> {
        let directory = self.directory.as_ref().or(self.compare.as_ref());
        let of_comparison = self.compare_data || self.path.is_some() || self.no_owner || self.numeric_owner;
        match directory {
            None if of_comparison => {
                Err("--compare-data, --path, --no-owner and --numeric-owner need a directory to compare \
                                          the snapshot with: dupfs verify URL DIR"
                    .to_owned())
            }
            Some(_) if self.deep && !self.compare_data => {
                Err("--deep compares contents with a directory only together with --compare-data".to_owned())
            }
            directory => Ok(directory),
        }
    }
}

/// `dupfs completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: CompletionShell,
}

/// `dupfs man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// The directory for the pages; created if it is missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

impl Cli {
    /// The definition of all commands, each with the options of the program. It is made once, because that takes milliseconds.
    pub(super) fn definition() -> &'static clap::Command {
        static DEFINITION: LazyLock<clap::Command> = LazyLock::new(|| {
            let mut definition = Cli::command();
            definition.build();
            definition
        });
        &DEFINITION
    }
}

#[cfg(test)]
mod tests {
    use dupfs_read::storage::S3UrlStyle;

    use super::*;

    fn parsed(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_commands_that_work_are_listed() {
        let names: Vec<_> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        assert_eq!(
            names,
            [
                "mount",
                "umount",
                "status",
                "sets",
                "ls",
                "find",
                "history",
                "diff",
                "cat",
                "restore",
                "verify",
                "volumes",
                "index",
                "cache",
                "completions",
                "man"
            ]
        );
    }

    #[test]
    fn every_command_that_reads_a_backup_takes_a_deadline() {
        let of = |line: &str| match parsed(line) {
            Command::Sets(args) => args.deadline,
            Command::Ls(args) => args.snapshot.deadline,
            Command::Find(args) => args.snapshot.deadline,
            Command::History(args) => args.deadline,
            Command::Diff(args) => args.deadline,
            Command::Cat(args) => args.snapshot.deadline,
            Command::Restore(args) => args.snapshot.deadline,
            Command::Verify(args) => args.snapshot.deadline,
            Command::Volumes(args) => args.snapshot.deadline,
            Command::Index(args) => args.deadline,
            Command::Mount(_)
            | Command::Umount(_)
            | Command::Status(_)
            | Command::Cache(_)
            | Command::Completions(_)
            | Command::Man(_) => {
                panic!("no backup is read")
            }
        };
        let lines = [
            "sets --deadline 2m u",
            "ls --deadline 2m u",
            "find --deadline 2m u p",
            "history --deadline 2m u p",
            "diff --deadline 2m u p",
            "cat --deadline 2m u p",
            "restore --deadline 2m u d",
            "verify --deadline 2m u",
            "volumes --deadline 2m u",
            "index --deadline 2m u",
        ];
        for line in lines {
            assert_eq!(of(&format!("dupfs {line}")).deadline.0.as_secs(), 120, "{line}");
            assert_eq!(
                of(&format!("dupfs {}", line.replace("--deadline 2m ", ""))).deadline.0.as_secs(),
                600,
                "{line}"
            );
        }
        assert!(Cli::try_parse_from(["dupfs", "sets", "--deadline", "0", "u"]).is_err());
        for (line, request, start) in [("mount --deadline 2m u m", 120, 120), ("mount u m", 1800, 600)] {
            let Command::Mount(args) = parsed(&format!("dupfs {line}")) else { panic!() };
            let deadline = &args.deadline;
            assert_eq!((deadline.of_requests().as_secs(), deadline.of_start().as_secs()), (request, start), "{line}");
        }
    }

    #[test]
    fn only_the_help_of_mount_names_the_answer_to_a_request() {
        for mut command in Cli::command().get_subcommands().cloned() {
            let is_mount = command.get_name() == "mount";
            assert_eq!(
                command.render_long_help().to_string().contains("ETIMEDOUT"),
                is_mount,
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn every_style_of_an_s3_url_can_be_given() {
        let of = |line: &str| match parsed(line) {
            Command::Sets(args) => args.repo.s3_url_style,
            _ => panic!("another command"),
        };
        assert_eq!(of("dupfs sets u"), S3UrlStyle::Auto);
        for style in S3UrlStyle::ALL {
            assert_eq!(of(&format!("dupfs sets --s3-url-style {style} u")), style);
        }
        assert!(Cli::try_parse_from(["dupfs", "sets", "--s3-url-style", "other", "u"]).is_err());
    }

    #[test]
    fn types_to_find_have_the_names_of_find_and_of_json() {
        let of = |line: &str| match parsed(line) {
            Command::Find(args) => args.types,
            _ => panic!("another command"),
        };
        assert_eq!(of("dupfs find u p"), []);
        let all = [FileType::File, FileType::Dir, FileType::Symlink, FileType::Fifo];
        assert_eq!(of("dupfs find u p --type f,d,l,p"), all);
        assert_eq!(of("dupfs find u p --type file --type dir --type symlink,fifo"), all);
        assert_eq!(of("dupfs find u p --type c,block-device"), [FileType::CharDevice, FileType::BlockDevice]);
        for wrong in ["find u p --type x", "find --all --time now u p", "find --json --print0 u p", "find u"] {
            assert!(Cli::try_parse_from(format!("dupfs {wrong}").split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn verify_compares_with_a_directory_in_both_forms() {
        let of = |line: &str| match parsed(line) {
            Command::Verify(args) => args.compared().map(|directory| directory.cloned()),
            _ => panic!("another command"),
        };
        assert_eq!(of("dupfs verify u"), Ok(None));
        assert_eq!(of("dupfs verify --deep u"), Ok(None));
        assert_eq!(of("dupfs verify u d"), Ok(Some("d".into())));
        assert_eq!(of("dupfs verify --compare d --compare-data --deep u"), Ok(Some("d".into())));
        assert_eq!(of("dupfs verify --compare-data --file-to-restore p u d"), Ok(Some("d".into())));
        assert_eq!(of("dupfs verify --compare-data -r p u d"), Ok(Some("d".into())));
        for wrong in ["--compare-data u", "--path p u", "--numeric-owner u", "--no-owner u", "--deep u d"] {
            assert!(of(&format!("dupfs verify {wrong}")).is_err(), "{wrong}");
        }
        for wrong in ["--compare d u d", "--sample 5% u d", "--sample 5% --compare d u"] {
            assert!(Cli::try_parse_from(format!("dupfs verify {wrong}").split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_operand_of_restore_is_the_destination() {
        let of = |line: &str| match parsed(line) {
            Command::Restore(args) => args.split(),
            _ => panic!("another command"),
        };
        assert_eq!(of("dupfs restore u d"), (vec![], "d".into()));
        assert_eq!(of("dupfs restore --file-to-restore a u d"), (vec!["a".into()], "d".into()));
        assert_eq!(of("dupfs restore -r a u d"), (vec!["a".into()], "d".into()));
        assert_eq!(
            of("dupfs restore --path-to-restore a u b c d"),
            (vec!["a".into(), "b".into(), "c".into()], "d".into())
        );
        assert!(Cli::try_parse_from(["dupfs", "restore", "u"]).is_err());
        assert_eq!(of("dupfs restore --dry-run u"), (vec![], "".into()));
        assert_eq!(of("dupfs restore --dry-run --path a u"), (vec!["a".into()], "".into()));
        assert_eq!(of("dupfs restore --dry-run u a d"), (vec!["a".into()], "d".into()));
    }

    #[test]
    fn duplicitys_names_are_taken() {
        let line = "dupfs mount --restore-time 3D --encrypt-secret-keyring k --path-to-restore etc --numeric-owner u m";
        let Command::Mount(args) = parsed(line) else { panic!() };
        assert_eq!(args.time.time.as_deref(), Some("3D"));
        assert_eq!(args.keys.secret_key, [PathBuf::from("k")]);
        assert_eq!(args.path, Some("etc".into()));
        assert!(args.owners.numeric_owner);
        assert_eq!((args.repo.url.to_str(), args.deadline.of_start().as_secs()), (Some("u"), 600));
    }
}
