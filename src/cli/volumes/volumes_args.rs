//! The arguments of `dupfs volumes`.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

use crate::cli::options::{RepoArgs, SnapshotArgs};

/// `dupfs volumes`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct VolumesArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Paths of the snapshot (none: all of it)
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// Print the commands that restore those in cold storage: aws s3api restore-object. dupfs itself changes nothing
    #[arg(long, conflicts_with = "json")]
    pub thaw: bool,

    /// With --thaw: the days for which the restored copies shall stay [default: 7]
    #[arg(long, value_name = "N", requires = "thaw", value_parser = parse_days)]
    pub days: Option<u32>,

    /// With --thaw: the speed and price of the retrieval [default: standard]
    #[arg(long, value_name = "TIER", requires = "thaw", value_enum, ignore_case = true)]
    pub tier: Option<RetrievalTier>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The snapshot.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
}

/// Parses a number of days.
fn parse_days(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|days| *days > 0).ok_or_else(|| "give a number of days, at least 1".to_owned())
}

/// The speed and price of a retrieval from cold storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RetrievalTier {
    /// Within hours
    #[default]
    Standard,
    /// Cheapest; within half a day or two days
    Bulk,
    /// Within minutes; not for DEEP_ARCHIVE
    Expedited,
}

impl RetrievalTier {
    /// The name that S3 has for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Standard => "Standard",
            Self::Bulk => "Bulk",
            Self::Expedited => "Expedited",
        }
    }
}
