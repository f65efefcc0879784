//! The long options, as the definition of the commands has them. Variables of the environment and keys of the configuration file
//! are derived from them, so that no option can be forgotten there.

use std::ffi::{OsStr, OsString};
use std::num::ParseIntError;
use std::sync::LazyLock;

use clap::builder::ValueHint;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

use super::args::Cli;

/// The beginning of the names of all variables.
pub(super) const VARIABLE_PREFIX: &str = "DUPFS_";

/// The option that names the configuration file; it is not valid in that file.
pub(super) const CONFIG: &str = "config";

/// The values of a long option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionKind {
    /// On or off.
    Flag,
    /// A number of repetitions.
    Count,
    /// One value.
    Single,
    /// Any number of values.
    Repeatable,
}

/// A long option of a command.
#[derive(Clone, Debug)]
pub(super) struct LongOption {
    arg: Arg,
    name: String,
}

impl LongOption {
    /// The options of the command `definition`, without `--help`, `--version` and those that dupfs gives itself.
    pub(super) fn of(definition: &Command) -> Vec<Self> {
        let named = definition.get_arguments().filter_map(|arg| {
            let name = arg.get_long()?.to_owned();
            let is_help = matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
            );
            let is_internal = arg.is_hide_set() && arg.is_global_set();
            (!is_help && !is_internal).then(|| Self { arg: arg.clone(), name })
        });
        named.collect()
    }

    /// The options of all commands. A name is there once for each command that has it.
    pub(super) fn of_all_commands() -> &'static [Self] {
        static OPTIONS: LazyLock<Vec<LongOption>> = LazyLock::new(|| {
            let mut options = Vec::new();
            add(Cli::definition(), &mut options);
            options
        });
        fn add(command: &Command, into: &mut Vec<LongOption>) {
            into.extend(LongOption::of(command));
            for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
                add(below, into);
            }
        }
        &OPTIONS
    }

    /// The name without dashes in front.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The identifier in the definition.
    pub(super) fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    /// Returns true for an option of the program, which each command has.
    pub(super) fn is_of_program(&self) -> bool {
        self.arg.is_global_set()
    }

    /// The letter of the short form.
    pub(super) fn short(&self) -> Option<char> {
        self.arg.get_short()
    }

    /// Returns true if `long` is the name or an alias.
    pub(super) fn is_named(&self, long: &str) -> bool {
        self.name == long || self.arg.get_all_aliases().unwrap_or_default().contains(&long)
    }

    /// The values that it takes.
    pub(super) fn kind(&self) -> OptionKind {
        match self.arg.get_action() {
            ArgAction::Count => OptionKind::Count,
            ArgAction::Append => OptionKind::Repeatable,
            action if action.takes_values() => OptionKind::Single,
            _ => OptionKind::Flag,
        }
    }

    /// Returns true if it takes a value, which a flag does not.
    pub(super) fn takes_value(&self) -> bool {
        matches!(self.kind(), OptionKind::Single | OptionKind::Repeatable)
    }

    /// The variable of the environment: `DUPFS_CACHE_DIR` of `--cache-dir`.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// Returns true if the values are paths.
    pub(super) fn is_path(&self) -> bool {
        matches!(self.arg.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath)
    }

    /// Returns true if the value is a program: a path, or a name that is searched in `PATH`.
    pub(super) fn is_program(&self) -> bool {
        self.arg.get_value_hint() == ValueHint::ExecutablePath
    }

    /// Checks a value alone.
    ///
    /// # Errors
    /// The reason why the option does not take it.
    pub(super) fn check(&self, value: &OsStr) -> Result<(), String> {
        // The argument itself may require others.
        let mut alone = Arg::new("value").long("value").action(self.arg.get_action().clone());
        alone = alone.value_parser(self.arg.get_value_parser().clone()).allow_hyphen_values(true);
        if let Some(delimiter) = self.arg.get_value_delimiter() {
            alone = alone.value_delimiter(delimiter);
        }
        let mut argument = OsString::from("--value=");
        argument.push(value);
        let parsed = Command::new("dupfs").no_binary_name(true).arg(alone).try_get_matches_from([argument]);
        parsed.map(drop).map_err(|error| reason_of_refusal(&error))
    }

    /// The argument that gives the option `value`.
    pub(super) fn argument(&self, value: &OsStr) -> OsString {
        let mut argument = OsString::from(format!("--{}=", self.name));
        argument.push(value);
        argument
    }
}

/// The reason why a value was refused, in words without the option.
pub(super) fn reason_of_refusal(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        let is_number = source.is::<ParseIntError>();
        return if is_number { "give a whole number".to_owned() } else { source.to_string() };
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => format!("give one of: {}", values.join(", ")),
        _ => "give a value".to_owned(),
    }
}

/// Parses a switch: true for `true`, `yes`, `on` and `1`, false for their opposites.
pub(super) fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str) -> LongOption {
        LongOption::of_all_commands().iter().find(|option| option.name() == name).unwrap().clone()
    }

    #[test]
    fn options_that_dupfs_gives_itself_are_left_out() {
        let names: Vec<String> = LongOption::of_all_commands().iter().map(|option| option.name.clone()).collect();
        for expected in ["memory", "log-file", "allow-other", "lazy", "config", "options"] {
            assert!(names.iter().any(|name| name == expected), "{expected}");
        }
        for internal in ["help", "version", "report-ready", "secrets-fd", "restarted", "called-by-mount"] {
            assert!(!names.iter().any(|name| name == internal), "{internal}");
        }
    }

    #[test]
    fn the_kind_and_the_variable_are_those_of_the_definition() {
        assert_eq!(option("cache-dir").variable(), "DUPFS_CACHE_DIR");
        for (name, kind) in [
            ("rebuild", OptionKind::Flag),
            ("verbose", OptionKind::Count),
            ("memory", OptionKind::Single),
            ("secret-key", OptionKind::Repeatable),
        ] {
            assert_eq!(option(name).kind(), kind, "{name}");
        }
        assert!(option("secret-key").is_path() && option("cache-dir").is_path() && !option("memory").is_path());
        assert!(option("gpg-binary").is_program() && !option("gpg-binary").is_path());
        assert!(option("time").is_named("restore-time") && !option("time").is_named("times"));
    }

    #[test]
    fn a_value_is_checked_alone_and_refused_in_words() {
        let check = |name: &str, value: &str| option(name).check(OsStr::new(value));
        assert_eq!(check("memory", "1G"), Ok(()));
        assert_eq!(check("memory", "lots"), Err("unknown unit \"LOTS\": give bytes as 512M or 4G".to_owned()));
        assert_eq!(check("sizes", "small"), Err("give one of: exact, bound".to_owned()));
        assert_eq!(check("type", "f,d"), Ok(()));
        // It requires --verify-key.
        assert_eq!(check("sign-key", "ABCDEF01"), Ok(()));
        assert_eq!(check("gpg-options", "--homedir=/k"), Ok(()));
        assert_eq!(check("seed", "x"), Err("give a whole number".to_owned()));
        for wrong in ["x", "0", "-1"] {
            assert_eq!(check("days", wrong), Err("give a number of days, at least 1".to_owned()));
        }
    }
}
