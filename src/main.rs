//! The `dupfs` program.

use std::process::ExitCode;

use dupfs::cli::{App, Backups};

fn main() -> ExitCode {
    App::new(&Backups).run(std::env::args_os().collect()).into()
}
