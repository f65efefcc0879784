//! Rank 8: commands; wires the layers.

pub mod repo;
//! Rank 8: commands. What a user types, what a user is told, and the wiring of the layers below.

mod app;
mod args;
mod argv;
mod daemon;
mod errors;
mod logging;
mod mount;
mod options;
mod secrets;
mod umount;

pub use app::{App, Backend, OpenRequest, Place};
pub use args::{CatArgs, Cli, Command, LsArgs, MountArgs, SetsArgs, UmountArgs};
pub use errors::CliError;
pub use options::{Bytes, CacheArgs, KeyArgs, OwnerArgs, RepoArgs, S3UrlStyle, Sizes, TimeArgs};
pub use secrets::{Passphrases, without_secrets};
