//! Options that several commands share, under duplicity's names where duplicity has them.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};
use dupfs_read::codec::KeyId;
use dupfs_read::storage::{S3UrlStyle, StoreOptions};
use dupfs_unpack::NameEncoding;
use nix::unistd::{Group, User};

use super::memory_shares::MIN_MEMORY;
use crate::fuse::{DEFAULT_DEADLINE, MOUNT_DEADLINE};
use crate::vfs::{NodeKind, ShownSizes};

/// The location of the backup and the names of its files. One field for each option, because clap derives the command
/// line from the fields.
#[derive(Args, Clone, Debug)]
pub struct RepoArgs {
    /// The backup: s3://bucket/prefix, sftp://host/directory, file:///directory ... as in duplicity, a path, or the name of a
    /// repository of the configuration file
    #[arg(value_hint = ValueHint::DirPath)]
    pub url: OsString,

    /// Prefix of all the backup's file names
    #[arg(long, value_name = "S", help_heading = "Backup")]
    pub file_prefix: Option<String>,

    /// Additional prefix of volumes
    #[arg(long, value_name = "S", help_heading = "Backup")]
    pub file_prefix_archive: Option<String>,

    /// Additional prefix of manifests
    #[arg(long, value_name = "S", help_heading = "Backup")]
    pub file_prefix_manifest: Option<String>,

    /// Additional prefix of signature archives
    #[arg(long, value_name = "S", help_heading = "Backup")]
    pub file_prefix_signature: Option<String>,

    /// duplicity's archive directory: read manifests and signature archives there if it has them, without a key
    #[arg(long, value_name = "DIR", conflicts_with = "sign_key", value_hint = ValueHint::DirPath, help_heading = "Backup")]
    pub archive_dir: Option<PathBuf>,

    /// The backup's directory below --archive-dir [default: the MD5 hash of the URL, as in duplicity]
    #[arg(long, value_name = "NAME", help_heading = "Backup")]
    pub name: Option<OsString>,

    /// Show sets that have lost their manifests, as far as their signature archives prove the content of the volumes
    #[arg(long, help_heading = "Backup")]
    pub rebuild: bool,

    /// S3 service to use instead of AWS
    #[arg(long, value_name = "URL", help_heading = "S3")]
    pub s3_endpoint_url: Option<String>,

    /// Region of the bucket
    #[arg(long, value_name = "NAME", help_heading = "S3")]
    pub s3_region_name: Option<String>,

    /// The profile of AWS's tools with the credentials [default: AWS_ACCESS_KEY_ID and so on, AWS_PROFILE]
    #[arg(long, value_name = "NAME", help_heading = "S3")]
    pub s3_profile: Option<String>,

    /// Use plain HTTP
    #[arg(long, help_heading = "S3")]
    pub s3_unencrypted_connection: bool,

    /// Interpretation of s3://a/b: host and bucket (duplicity up to 0.8.22: old) or bucket and prefix (new)
    #[arg(long, value_name = "STYLE", default_value_t, value_parser = s3_url_styles(), help_heading = "S3")]
    pub s3_url_style: S3UrlStyle,

    /// Put the bucket into the host name wherever possible
    #[arg(long, help_heading = "S3")]
    pub s3_use_new_style: bool,

    /// Pay for the requests and transfers, as buckets with "requester pays" demand
    #[arg(long, help_heading = "S3")]
    pub s3_requester_pays: bool,

    /// The program that reads sftp, ftp, webdav and other services [default: rclone]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath, help_heading = "Stores")]
    pub rclone: Option<PathBuf>,

    /// The CA certificates for FTP and WebDAV over TLS, in PEM [default: those of the machine]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Stores")]
    pub ssl_cacert_file: Option<PathBuf>,

    /// Options of ssh for sftp, scp and rsync, such as --ssh-options=-oIdentityFile=FILE
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true, help_heading = "Stores")]
    pub ssh_options: Option<String>,

    /// Abort a request that makes no progress for this time, including retries; also as 90s or 5m, at most 1h [default: 30; reads
    /// of a mount without an answer: --deadline]
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout, help_heading = "Stores")]
    pub timeout: Option<TimeSpan>,

    /// Upper bound of the bytes that are fetched in all; reads that need more fail
    #[arg(long, value_name = "BYTES", help_heading = "Backup")]
    pub fetch_limit: Option<ByteSize>,
}

impl RepoArgs {
    /// Returns true if the names of the backup's files have prefixes.
    pub(super) fn has_prefixes(&self) -> bool {
        let of_kinds = [&self.file_prefix_archive, &self.file_prefix_manifest, &self.file_prefix_signature];
        self.file_prefix.is_some() || of_kinds.iter().any(|prefix| prefix.is_some())
    }

    /// The time in which a request must make progress.
    pub(super) fn request_timeout(&self) -> Duration {
        self.timeout.map_or(StoreOptions::DEFAULT_TIMEOUT, |span| span.0)
    }
}

/// The keys and passphrases that open an encrypted backup.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// Exported OpenPGP secret key, armoured or binary; repeatable. Without one, the user's own gpg gives session keys
    #[arg(long, value_name = "FILE", alias = "encrypt-secret-keyring")]
    pub secret_key: Vec<PathBuf>,

    /// File with passphrases, one per line, tried in turn; repeatable. Also: PASSPHRASE in the environment
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Vec<PathBuf>,

    /// Command for sh that prints passphrases, one per line
    #[arg(long, value_name = "CMD")]
    pub passphrase_command: Option<String>,

    /// The gpg that gives session keys [default: gpg]
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::ExecutablePath)]
    pub gpg_binary: Option<PathBuf>,

    /// Options for this gpg, such as --gpg-options=--homedir=DIR; repeatable
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub gpg_options: Vec<String>,

    /// Require every object to be signed by this key: a fingerprint, or the last 8 or more digits of one
    #[arg(long, value_name = "KEYID", requires = "verify_key")]
    pub sign_key: Option<KeyId>,

    /// The exported public key for --sign-key
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    pub verify_key: Option<PathBuf>,

    /// Refuse sets and objects that are not encrypted
    #[arg(long, conflicts_with = "archive_dir")]
    pub require_encryption: bool,

    /// Serve volumes that very old programs encrypted without an integrity code; changes of them are not detected
    #[arg(long)]
    pub allow_unauthenticated: bool,

    /// The unit that is verified before a byte of it is served, if a volume is slow; --sign-key implies volume
    #[arg(long, value_name = "UNIT", default_value_t, value_enum)]
    pub verify: VerifiedUnit,

    /// Read volumes that are intact by their own integrity code although their hash is not the one in the manifest
    #[arg(long)]
    pub ignore_volume_hash: bool,
}

/// The part of a backup that is verified before bytes of it are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VerifiedUnit {
    /// The blocks of the file, by its signature, while the volume is still being read
    #[default]
    Block,
    /// The whole volume
    Volume,
}

impl fmt::Display for VerifiedUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Volume => "volume",
        })
    }
}

/// The snapshot to read.
#[derive(Args, Clone, Debug)]
pub struct TimeArgs {
    /// Time of the snapshot in duplicity's forms: now, 3D12h, 2017-01-28, 2017-01-28T02:15:00+00:00, 20170128T021500Z ...
    #[arg(short = 't', long, value_name = "TIME", alias = "restore-time", help_heading = "View")]
    pub time: Option<String>,
}

/// The snapshot to read, and the means to read it.
#[derive(Args, Clone, Debug)]
pub struct SnapshotArgs {
    /// The time that a step may take.
    #[command(flatten)]
    pub deadline: DeadlineArgs,

    /// The time of the snapshot.
    #[command(flatten)]
    pub time: TimeArgs,

    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Caches.
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// The owners that files appear to have.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "View")]
pub struct OwnerArgs {
    /// Show the archived numbers of owners instead of mapping owners by name
    #[arg(long)]
    pub numeric_owner: bool,

    /// Show this user as the owner of everything, by name or number
    #[arg(long, value_name = "USER", value_parser = parse_user)]
    pub uid: Option<u32>,

    /// Show this group as the group of everything, by name or number
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub gid: Option<u32>,

    /// Mode bits to remove from everything, octal
    #[arg(long, value_name = "MASK", value_parser = parse_umask)]
    pub umask: Option<u16>,
}

/// Memory and disk space.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cache")]
pub struct CacheArgs {
    /// Directory of the index and the spill file [default: $XDG_CACHE_HOME/dupfs]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache_dir: Option<PathBuf>,

    /// Upper bound of decoded data on disk, sealed; 0: none [default: 2G]
    #[arg(long, value_name = "BYTES")]
    pub cache_size: Option<ByteSize>,

    /// Neither read nor write the index on disk: names, sizes and positions in volumes, which make the next mount faster
    #[arg(long)]
    pub no_index: bool,

    /// Upper bound of decoded data in memory and of the tables for it, at least 4M [default: 256M]
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    pub memory: Option<ByteSize>,
}

/// The time that a step may take.
#[derive(Args, Clone, Debug)]
pub struct DeadlineArgs {
    /// Abort a step that takes longer; also as 90s, 10m or 1h
    #[arg(long, value_name = "SECONDS", default_value_t = TimeSpan(DEFAULT_DEADLINE), value_parser = parse_deadline)]
    pub deadline: TimeSpan,
}

/// The time that a request to a mount may take.
#[derive(Args, Clone, Debug)]
pub struct MountDeadlineArgs {
    /// Answer a request that takes longer with ETIMEDOUT; also as 90s, 10m or 1h [default: 1800; start of the mount: 600]
    #[arg(long, value_name = "SECONDS", value_parser = parse_deadline)]
    pub deadline: Option<TimeSpan>,
}

impl MountDeadlineArgs {
    /// Upper bound of the time of a request: long enough for a network that is down for some minutes.
    pub fn of_requests(&self) -> Duration {
        self.deadline.map_or(MOUNT_DEADLINE, |span| span.0)
    }

    /// Upper bound of the time in which the mount starts.
    pub fn of_start(&self) -> Duration {
        self.deadline.map_or(DEFAULT_DEADLINE, |span| span.0)
    }
}

/// A time span: decimal digits, and nothing or `s` for seconds, `m` for minutes, `h` for hours, `d` for days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan(pub Duration);

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_secs().fmt(f)
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..).unwrap_or_default() {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            unit => return Err(format!("unknown unit {unit:?}: give seconds, or a time as 90s, 10m or 1h")),
        };
        let number: u64 = digits.parse().map_err(|_| "give seconds, or a time as 90s, 10m or 1h".to_owned())?;
        number.checked_mul(unit).map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(|| "too long".to_owned())
    }
}

/// The values of `--s3-url-style`.
fn s3_url_styles() -> impl TypedValueParser<Value = S3UrlStyle> {
    let value = |style| {
        let help = match style {
            S3UrlStyle::Auto => "Decided by the form of `a`",
            S3UrlStyle::Old => "s3://host:port/bucket/prefix",
            S3UrlStyle::New => "s3://bucket/prefix",
        };
        PossibleValue::new(style.name()).help(help)
    };
    PossibleValuesParser::new(S3UrlStyle::ALL.map(value))
        .map(|text| S3UrlStyle::ALL.into_iter().find(|style| style.name() == text).unwrap_or_default())
}

fn parse_deadline(text: &str) -> Result<TimeSpan, String> {
    let span: TimeSpan = text.parse()?;
    if span.0.is_zero() { Err("give at least one second".to_owned()) } else { Ok(span) }
}

fn parse_timeout(text: &str) -> Result<TimeSpan, String> {
    let span = parse_deadline(text)?;
    if span.0 > Duration::from_secs(3600) { Err("give at most one hour".to_owned()) } else { Ok(span) }
}

/// The size that `stat` shows for a file whose exact size needs a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SizeMode {
    /// The exact size, found when it is requested
    #[default]
    Exact,
    /// An upper bound until the file is opened
    Bound,
}

impl From<SizeMode> for ShownSizes {
    fn from(mode: SizeMode) -> Self {
        match mode {
            SizeMode::Exact => Self::Exact,
            SizeMode::Bound => Self::Bound,
        }
    }
}

/// A shell that has a script for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// source <(dupfs completions bash)
    Bash,
    /// source <(dupfs completions zsh), after compinit
    Zsh,
    /// dupfs completions fish | source
    Fish,
}

/// A type of object to find, under the names of find(1) and those of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileType {
    /// A regular file
    #[value(alias = "f")]
    File,
    /// A directory
    #[value(alias = "d")]
    Dir,
    /// A symbolic link
    #[value(alias = "l", alias = "link")]
    Symlink,
    /// A named pipe
    #[value(alias = "p")]
    Fifo,
    /// A character device
    #[value(alias = "c")]
    CharDevice,
    /// A block device
    #[value(alias = "b")]
    BlockDevice,
}

impl FileType {
    /// The type as the file system has it.
    pub(super) fn kind(self) -> NodeKind {
        match self {
            Self::File => NodeKind::File,
            Self::Dir => NodeKind::Dir,
            Self::Symlink => NodeKind::Symlink,
            Self::Fifo => NodeKind::Fifo,
            Self::CharDevice => NodeKind::CharDevice,
            Self::BlockDevice => NodeKind::BlockDevice,
        }
    }
}

/// A number of bytes: decimal digits and one of K, M, G, T for powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let suffix = text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase();
        let shift = match suffix.as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(format!("unknown unit {suffix:?}: give bytes as 512M or 4G")),
        };
        let number: u64 = digits.parse().map_err(|_| "give bytes as 512M or 4G".to_owned())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| "too many bytes".to_owned())
    }
}

/// Parses the bytes of `--memory`.
fn parse_memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.0 >= MIN_MEMORY {
        return Ok(size);
    }
    Err(format!("too little to hold a block of each kind of data: give at least {}M", MIN_MEMORY >> 20))
}

/// Parses the name of an encoding of names in zip archives.
pub(super) fn parse_zip_names(text: &str) -> Result<NameEncoding, String> {
    NameEncoding::for_label(text).ok_or_else(|| {
        "no such encoding; known are cp437, cp850, cp852, cp866, cp932 (shift_jis), gbk, big5, euc-kr, windows-1251 and \
         the others of web browsers"
            .to_owned()
    })
}

/// Parses a number, or the name of a user of this machine.
fn parse_user(text: &str) -> Result<u32, String> {
    let by_name = || User::from_name(text).ok().flatten().map(|user| user.uid.as_raw());
    owner(text)
        .or_else(by_name)
        .ok_or_else(|| "this machine has no user of that name: give one, or a number".to_owned())
}

/// Parses a number, or the name of a group of this machine.
fn parse_group(text: &str) -> Result<u32, String> {
    let by_name = || Group::from_name(text).ok().flatten().map(|group| group.gid.as_raw());
    owner(text)
        .or_else(by_name)
        .ok_or_else(|| "this machine has no group of that name: give one, or a number".to_owned())
}

/// The number of an owner; the greatest one means no owner.
fn owner(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn parse_umask(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| "give an octal number up to 777, such as 022".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_units_of_1024() {
        assert_eq!("512M".parse(), Ok(ByteSize(512 << 20)));
        assert_eq!("1g".parse(), Ok(ByteSize(1 << 30)));
        assert_eq!("77".parse(), Ok(ByteSize(77)));
        assert_eq!("3KiB".parse(), Ok(ByteSize(3072)));
        for wrong in ["", "M", "1.5G", "-1", "1X", "99999999T"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_without_room_for_blocks_is_refused() {
        assert_eq!(parse_memory("4M"), Ok(ByteSize(4 << 20)));
        for wrong in ["0", "1K", "4095K"] {
            assert!(parse_memory(wrong).unwrap_err().ends_with("give at least 4M"), "{wrong}");
        }
    }

    #[test]
    fn a_time_span_is_seconds_or_has_a_unit() {
        let seconds = |text: &str| text.parse::<TimeSpan>().map(|span| span.0.as_secs());
        assert_eq!(["0", "90", "90s", "10m", "2h"].map(|text| seconds(text).unwrap()), [0, 90, 90, 600, 7200]);
        for wrong in ["", "m", "-1", "1.5", "3D", "1M", "1hm", "99999999999999999999", "9999999999999999999h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(parse_deadline("0").is_err());
        assert_eq!("2d".parse::<TimeSpan>().unwrap().0.as_secs(), 172_800);
        assert!(parse_timeout("0s").is_err() && parse_timeout("2h").is_err() && parse_timeout("5m").is_ok());
    }

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!((parse_user("root"), parse_group("root"), parse_user("4711")), (Ok(0), Ok(0), Ok(4711)));
        for wrong in ["no-such-user", "", "-1", "4294967295"] {
            assert!(parse_user(wrong).unwrap_err().contains("no user"), "{wrong}");
            assert!(parse_group(wrong).unwrap_err().contains("no group"), "{wrong}");
        }
    }

    #[test]
    fn a_umask_is_octal() {
        assert_eq!(parse_umask("0277"), Ok(0o277));
        assert!(parse_umask("8").is_err());
        assert!(parse_umask("1777").is_err());
    }
}
