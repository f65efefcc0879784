//! Rank 8: commands. What a user types, what a user is told, and the wiring of the layers below.

mod app;
mod args;
mod argv;
mod backend;
pub mod cat;
mod daemon;
mod errors;
pub mod failure;
mod gpg_args;
mod logging;
pub mod ls;
mod mount;
mod options;
pub mod printer;
mod refresh;
pub mod repo;
mod resolve;
mod secrets;
pub mod sets;
mod umount;

pub use app::{App, Backend, OpenRequest, Place};
pub use args::{CatArgs, Cli, Command, LsArgs, MountArgs, SetsArgs, UmountArgs};
pub use backend::Backups;
pub use errors::CliError;
pub use options::{Bytes, CacheArgs, KeyArgs, OwnerArgs, RepoArgs, S3UrlStyle, Sizes, TimeArgs};
pub use secrets::{Passphrases, without_secrets};
