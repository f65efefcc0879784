//! The arguments of `dupfs cache`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::options::TimeSpan;

/// `dupfs cache`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct CacheCommandArgs {
    /// The action; without one, `ls`.
    #[command(subcommand)]
    pub action: Option<CacheAction>,

    /// Directory of the index [default: $XDG_CACHE_HOME/dupfs]
    #[arg(long, value_name = "DIR", global = true)]
    pub cache_dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// An action of `dupfs cache`.
#[derive(Clone, Debug, Subcommand)]
pub enum CacheAction {
    /// List the indexes: size, last use, in-use or -, directory, repository
    #[command(alias = "list")]
    Ls,
    /// Remove the indexes of one repository, or all; those in use stay
    Clear {
        /// The URL of the repository, or the name of the directory of an index (none: all)
        url: Option<OsString>,

        /// Only print what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove what is of no use: indexes of no known repository, and files of older versions; what is in use stays
    Prune {
        /// Also remove the indexes that were not used for this time, such as 90d
        #[arg(long, value_name = "TIME")]
        unused: Option<TimeSpan>,

        /// Only print what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}
