//! The `dupfs` program.

use std::process::ExitCode;

use dupfs::cli::{App, Backups};
use dupfs_base::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

// Functions in this section are called by the loader, in order, before `main`. The attribute is safe for a function that
// needs nothing of the runtime.
#[allow(unsafe_code)]
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD_CLOSED_OUTPUT: extern "C" fn() = dupfs::cli::record_closed_output;

fn main() -> ExitCode {
    App::new(&Backups).run(std::env::args_os().collect()).into()
}
