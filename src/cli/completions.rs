//! `dupfs completions`: the script of a shell, and the answers to it. The script calls this program for each completion, so that
//! it needs no knowledge of commands and options.

use std::ffi::{OsStr, OsString};
use std::io::Write;

use clap::{Arg, Command, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::args::{Cli, CompletionsArgs};
use super::configuration::Configuration;
use super::error::CliError;
use super::option_levels::URL;
use super::option_variables;
use super::options::CompletionShell;

/// The variable by which the script asks for completions. Its value is the name of the shell.
const VARIABLE: &str = "_DUPFS_COMPLETE";

/// The name of the program in the script.
const PROGRAM: &str = "dupfs";

fn completer(shell: CompletionShell) -> &'static dyn EnvCompleter {
    match shell {
        CompletionShell::Bash => &Bash,
        CompletionShell::Zsh => &Zsh,
        CompletionShell::Fish => &Fish,
    }
}

/// Prints the script of a shell.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn print(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    completer(args.shell)
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut out)
        .and_then(|()| out.flush())
        .map_err(|error| CliError::output(&error))
}

/// Prints the completions for the command line `typed` if the script of a shell asks for them. Returns false if not.
///
/// # Errors
/// When the shell is unknown, or the output cannot be written.
pub(super) fn answer(typed: &[OsString]) -> Result<bool, CliError> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(false);
    }
    let current_dir = std::env::current_dir().ok();
    CompleteEnv::with_factory(definition)
        .var(VARIABLE)
        .try_complete(typed.iter().cloned(), current_dir.as_deref())
        .map_err(|error| CliError::Usage(format!("{VARIABLE}: {}", error.to_string().trim_end())))
}

/// The definition of the commands, in which a backup is completed to the repositories of the configuration and to directories.
fn definition() -> Command {
    fn complete_urls(command: Command) -> Command {
        let complete = |arg: Arg| match arg.get_id() == URL {
            true => arg.add(ArgValueCompleter::new(backups)),
            false => arg,
        };
        command.mut_args(complete).mut_subcommands(complete_urls)
    }
    complete_urls(Cli::command())
}

/// The backups that `current` may be the beginning of. A configuration that cannot be read has no names.
fn backups(current: &OsStr) -> Vec<CompletionCandidate> {
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let configuration = Configuration::load(option_variables::config(&variables)).unwrap_or_default();
    let is_meant = |name: &&str| current.to_str().is_some_and(|current| name.starts_with(current));
    let names = configuration.names().filter(is_meant).map(CompletionCandidate::new);
    names.chain(PathCompleter::dir().complete(current)).collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn each_shell_has_a_script_that_calls_the_program() {
        for shell in CompletionShell::value_variants() {
            let mut script = Vec::new();
            completer(*shell).write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("dupfs"), "{script}");
        }
    }
}
