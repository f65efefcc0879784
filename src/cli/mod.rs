//! Commands: arguments, output, exit codes, and the composition of the layers below (`open`).

mod activity;
mod app;
mod args;
mod argv;
mod attr_json;
mod attr_text;
mod backend;
mod backups;
pub mod build_index;
mod cache;
mod cache_dir;
mod call_limits;
pub mod cat;
pub mod compare;
mod completions;
mod config_file;
mod configuration;
mod daemon;
mod default_log_file;
pub mod diff;
#[cfg(test)]
mod documented_commands;
mod environment_secrets;
mod error;
mod exit;
mod fetch_progress;
mod file_chunks;
pub mod find;
mod gpg_args;
pub mod history;
mod home_dir;
mod journal_stream;
mod key_trial;
mod local_content;
mod logging;
mod long_option;
pub mod ls;
mod man_pages;
mod memory_shares;
mod mount;
mod nearby;
mod object_change;
pub mod open;
mod option_levels;
mod option_variables;
mod options;
mod path_pattern;
pub mod printer;
mod progress_line;
mod quantities;
mod refresh;
mod request_timeout;
mod resolve;
pub mod restore;
mod secrets;
mod service_credentials;
mod service_manager;
pub mod sets;
mod setting;
mod signal_watch;
mod signed_comparison;
mod similar;
mod snapshot_operand;
mod standard_output;
mod start_up;
mod status;
mod switch_values;
mod terminal_prompt;
mod text_patch;
mod time_argument;
mod time_suggestion;
mod typed_command;
mod typed_path;
mod umount;
mod undescribed_volumes;
mod usage_hints;
pub mod verify;
pub mod volumes;

pub use app::App;
pub use args::{
    CatArgs, Cli, Command, CompletionsArgs, DiffArgs, FindArgs, HistoryArgs, LsArgs, ManArgs, MountArgs, RestoreArgs,
    SetsArgs, StatusArgs, UmountArgs, VerifyArgs,
};
pub use backend::{Backend, BackupLocation, OpenRequest, StoreBounds};
pub use backups::Backups;
pub use build_index::IndexArgs;
pub use cache::{CacheAction, CacheCommandArgs};
pub use error::CliError;
pub use exit::CommandExit;
pub use mount::Respawn;
pub use options::{
    ByteSize, CacheArgs, CompletionShell, DeadlineArgs, FileType, KeyArgs, OwnerArgs, RepoArgs, SizeMode, SnapshotArgs,
    TimeArgs, TimeSpan,
};
pub use request_timeout::RequestTimeout;
pub use secrets::Passphrases;
pub use standard_output::record_closed_output;
pub use volumes::VolumesArgs;
