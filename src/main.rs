//! The `dupfs` program.

use std::process::ExitCode;
use std::sync::Arc;

use dupfs::cli::{App, Backend, CacheArgs, CatArgs, CliError, LsArgs, OpenRequest, Place, RepoArgs, SetsArgs};
use dupfs::types::ErrorClass;
use dupfs::vfs::FileSystem;

/// Holds the place of the repository until it is wired: every command says so.
struct Unwired;

impl Unwired {
    fn refuse<T>() -> Result<T, CliError> {
        Err(CliError::failed(ErrorClass::Unsupported, "this build cannot open backups"))
    }
}

impl Backend for Unwired {
    fn locate(&self, _: &RepoArgs, _: &CacheArgs) -> Result<Place, CliError> {
        Self::refuse()
    }

    fn open(&self, _: OpenRequest<'_>) -> Result<Arc<dyn FileSystem>, CliError> {
        Self::refuse()
    }

    fn sets(&self, _: &SetsArgs) -> Result<(), CliError> {
        Self::refuse()
    }

    fn ls(&self, _: &LsArgs) -> Result<(), CliError> {
        Self::refuse()
    }

    fn cat(&self, _: &CatArgs) -> Result<(), CliError> {
        Self::refuse()
    }
}

fn main() -> ExitCode {
    App::new(&Unwired).run(std::env::args_os().collect()).into()
}
