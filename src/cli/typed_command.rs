//! The command in the arguments, found by the definition of the commands before they are parsed.

use std::ffi::OsString;

use clap::{Arg, Command};

use super::args::Cli;

/// A command that was typed.
#[derive(Debug)]
pub(super) struct TypedCommand {
    /// The name of the command, without those below it. For an alias the name that it stands for.
    pub(super) name: String,
    /// The definition of the innermost command, with the options of the program.
    pub(super) definition: &'static Command,
    /// The position in the arguments after the word of the innermost command.
    pub(super) end: usize,
}

impl TypedCommand {
    /// Finds the command in `args` (with the program's name first). Returns `None` if there is none.
    pub(super) fn find(args: &[OsString]) -> Option<Self> {
        let mut definition = Cli::definition();
        let mut name = None;
        let mut end = 0;
        let mut position = 1;
        while let Some(text) = args.get(position).and_then(|arg| arg.to_str()) {
            if text == "--" {
                break;
            }
            if text.starts_with('-') {
                position += if takes_next(definition, text) { 2 } else { 1 };
                continue;
            }
            let Some(below) = definition.find_subcommand(text) else { break };
            name.get_or_insert_with(|| below.get_name().to_owned());
            definition = below;
            position += 1;
            end = position;
        }
        Some(Self { name: name?, definition, end })
    }
}

/// Returns true if the argument after the option `text` is its value.
fn takes_next(command: &Command, text: &str) -> bool {
    let takes_value = |arg: &Arg| arg.get_action().takes_values();
    if let Some(long) = text.strip_prefix("--") {
        let is_it =
            |arg: &&Arg| arg.get_long() == Some(long) || arg.get_all_aliases().unwrap_or_default().contains(&long);
        return command.get_arguments().find(is_it).is_some_and(takes_value);
    }
    let mut letters = text.chars().skip(1);
    while let Some(letter) = letters.next() {
        if command.get_arguments().find(|arg| arg.get_short() == Some(letter)).is_some_and(takes_value) {
            return letters.next().is_none();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<(String, usize)> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        TypedCommand::find(&args).map(|typed| (typed.name, typed.end))
    }

    #[test]
    fn options_before_the_command_are_skipped_with_their_values() {
        for (line, name, end) in [
            ("dupfs ls u", "ls", 2),
            ("dupfs -v --log-file mount ls u cat", "ls", 5),
            ("dupfs --log-file=mount -vv collection-status u", "sets", 4),
            ("dupfs unmount m", "umount", 2),
        ] {
            assert_eq!(found(line), Some((name.to_owned(), end)), "{line}");
        }
        for line in ["dupfs", "dupfs --help", "dupfs nonsense ls", "dupfs -- ls", "dupfs --log-file ls"] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn the_definition_has_the_options_of_the_program_too() {
        let typed = TypedCommand::find(&["dupfs".into(), "umount".into()]).unwrap();
        let names: Vec<_> = typed.definition.get_arguments().filter_map(Arg::get_long).collect();
        assert!(names.contains(&"lazy") && names.contains(&"log-file"), "{names:?}");
    }
}
