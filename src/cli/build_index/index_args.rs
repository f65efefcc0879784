//! The arguments of `dupfs index`.

use std::num::NonZeroU64;

use clap::Args;

use crate::cli::options::{ByteSize, CacheArgs, DeadlineArgs, KeyArgs, RepoArgs};

/// `dupfs index`.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct IndexArgs {
    /// The backup.
    #[command(flatten)]
    pub repo: RepoArgs,

    /// Read the trees only: fetch no volume
    #[arg(long)]
    pub no_sizes: bool,

    /// Fetch no more than these bytes a second, such as 2M
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    pub rate: Option<NonZeroU64>,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

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

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    let size: ByteSize = text.parse()?;
    NonZeroU64::new(size.0).ok_or_else(|| "give at least one byte a second".to_owned())
}
