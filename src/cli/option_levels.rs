//! Options from all places: the command line, then the environment, then the credentials of a service, then the repository of
//! the configuration, then its defaults. The first place that has an option counts, with all its values.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory};
use dupfs_base::escape_bytes;

use super::args::Cli;
use super::configuration::{Configuration, NamedPlace};
use super::error::CliError;
use super::long_option::{CONFIG, LongOption, OptionKind};
use super::option_variables::{self, LIST, expand_list};
use super::service_credentials;
use super::setting::Setting;
use super::switch_values;
use super::typed_command::TypedCommand;
use super::usage_hints::report_of;

/// The argument of a command for the location of a backup.
pub(super) const URL: &str = "url";

/// Pairs of flags that exclude each other. Of two that different places turn on, the one of the nearer place counts.
const OPPOSITES: [[&str; 2]; 2] = [["quiet", "verbose"], ["lazy", "stale"]];

/// Arguments with the options of all places.
#[derive(Debug, Default)]
pub(super) struct LeveledArguments {
    /// The program's name and the arguments, in the form that [`LeveledArguments::parser`] takes.
    pub(super) args: Vec<OsString>,
    /// Remarks for the user, one line each.
    pub(super) notes: Vec<String>,
    /// The options that are not from the command line.
    added: Vec<Setting>,
    /// The name of a repository that was typed, and its URL.
    repository: Option<(OsString, OsString)>,
}

impl LeveledArguments {
    /// Adds to `typed` (with the program's name first) the options that `variables` and the configuration have for the command.
    ///
    /// # Errors
    /// [`CliError`] for invalid values, and for a configuration that cannot be used.
    pub(super) fn gather(typed: &[OsString], variables: &[(OsString, OsString)]) -> Result<Self, CliError> {
        let unchanged = || Self { args: typed.to_vec(), ..Self::default() };
        let Some(command) = TypedCommand::find(typed) else { return Ok(unchanged()) };
        let options = LongOption::of(command.definition);
        let switched = switch_values::resolve(typed, &options)?;
        // An error stops this parser where it stops the one that reports it.
        let Ok(matches) = Cli::command().ignore_errors(true).try_get_matches_from(&switched.args) else {
            return Ok(Self { args: switched.args, ..Self::default() });
        };
        // Commands without options need no configuration.
        if options.iter().all(LongOption::is_of_program) {
            return Ok(Self { args: switched.args, ..Self::default() });
        }
        let given = GivenArguments::of(&matches, &options);
        let mut notes = option_variables::remarks(variables);
        notes.extend(service_credentials::remarks(variables));
        let file = given.config.as_deref().or_else(|| option_variables::config(variables));
        let configuration = Configuration::load(file).map_err(|error| match (&error, &given.config, file) {
            (CliError::Failed { exit, message }, None, Some(_)) => {
                CliError::new(*exit, format!("{message}; {} names it", option_variables::config_name()))
            }
            _ => error,
        })?;
        let place = match &given.url {
            // `cache clear` also takes the name of an index, and reports itself that there is none.
            Some(url) if command.name == "cache" => configuration.find(url).unwrap_or(NamedPlace::Literal),
            Some(url) => configuration.find(url)?,
            None => NamedPlace::Literal,
        };
        let mut levels =
            vec![option_variables::settings(variables, &options)?, service_credentials::settings(variables, &options)];
        let mut repository = None;
        if let NamedPlace::Repository(found, remark) = place {
            notes.extend(remark);
            levels.push(with_lists(&found.settings, &options)?);
            repository = given.url.map(|name| (name, found.url.clone()));
        }
        for defaults in configuration.defaults() {
            levels.push(with_lists(defaults, &options)?);
        }

        // Where a command was found there is a position after it. `--FLAG=VALUE` before it may have been removed.
        let end = TypedCommand::find(&switched.args).map_or(command.end, |command| command.end);
        let mut args = switched.args;
        let mut added = Vec::new();
        let mut arguments = Vec::new();
        let is_given =
            |name: &str| given.options.contains(name) || switched.switched.iter().any(|switched| switched == name);
        // For each pair the level of the flag that counts; that of the command line is 0.
        let mut decided = OPPOSITES.map(|pair| pair.iter().any(|name| given.options.contains(*name)).then_some(0));
        for (option, (level, setting)) in by_place(&levels, &options) {
            if is_given(option.name()) {
                continue;
            }
            let found = setting.arguments(option).map_err(CliError::Usage)?;
            let pair = OPPOSITES.iter().zip(&mut decided).find(|(pair, _)| pair.contains(&option.name()));
            if let Some((_, decided)) = pair.filter(|_| !found.is_empty())
                && *decided.get_or_insert(level) != level
            {
                continue;
            }
            arguments.extend(found);
            added.push(setting.clone());
        }
        args.splice(end..end, arguments);
        Ok(Self { args, notes, added, repository })
    }

    /// The definition of the commands, by which the name of the repository stands for its URL.
    pub(super) fn parser(&self) -> Command {
        let mut command = Cli::command();
        if let Some((name, url)) = &self.repository {
            command = with_repository(command, name, url);
        }
        command
    }

    /// The places of the options that are the reason of `error` and not from the command line; `None` if there are none.
    pub(super) fn origins(&self, error: &clap::Error) -> Option<String> {
        let report = report_of(error);
        let is_option = |missing: &String| missing.starts_with("--");
        let is_missing = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(missing)) => missing.iter().any(is_option),
            _ => false,
        };
        let is_cause = |setting: &&Setting| match is_missing {
            true => self.without(setting).map_or_else(|other| report_of(&other) != report, |_| true),
            false => names_option(&report, &setting.option),
        };
        let origins: Vec<String> = self.added.iter().filter(is_cause).map(origin_of).collect();
        (!origins.is_empty()).then(|| origins.join(", "))
    }

    /// Parses the arguments without those of `setting`.
    fn without(&self, setting: &Setting) -> Result<ArgMatches, clap::Error> {
        let long = format!("--{}", setting.option);
        let is_of_it = |arg: &OsString| {
            let rest = arg.to_str().and_then(|text| text.strip_prefix(&long));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        self.parser().try_get_matches_from(self.args.iter().filter(|arg| !is_of_it(arg)))
    }

    /// The place of the option that `line` is about, if it is not from the command line. An error is about the option with which
    /// it begins, that it has in parentheses, or that names the file of the error.
    pub(super) fn origin_in(&self, line: &str) -> Option<String> {
        let object = line.split_once(": ").map_or("", |(object, _)| object);
        let is_about = |setting: &&Setting| {
            let option = format!("--{}", setting.option);
            let is_first = line.starts_with(&option) && names_option(object, &setting.option);
            let values = setting.values.iter().map(|value| escape_bytes(value.as_encoded_bytes()));
            let mut paths = values.filter(|value| value.contains('/'));
            is_first
                || line.contains(&format!("({option})"))
                || paths.any(|path| object.split(' ').any(|word| word == path))
        };
        self.added.iter().find(is_about).map(origin_of)
    }
}

/// Returns true if `text` has the long option `name`.
fn names_option(text: &str, name: &str) -> bool {
    let long = format!("--{name}");
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    text.match_indices(&long).any(|(at, _)| text.get(at + long.len()..).is_some_and(ends))
}

/// The place of `setting`, and the remedy for a flag.
fn origin_of(setting: &Setting) -> String {
    let is_it = |option: &&LongOption| option.name() == setting.option;
    let is_flag = LongOption::of_all_commands().iter().filter(is_it).any(|option| option.kind() == OptionKind::Flag);
    let remedy = if is_flag { format!(" (--{}=false turns it off)", setting.option) } else { String::new() };
    format!("{} sets --{}{remedy}", setting.origin, setting.option)
}

/// The settings that count of `options`, those of the first of `levels` first, each with the number of its level
/// from 1.
fn by_place<'a>(levels: &'a [Vec<Setting>], options: &'a [LongOption]) -> Vec<(&'a LongOption, (usize, &'a Setting))> {
    let find = |option: &LongOption| {
        let mut settings = (1..).zip(levels).flat_map(|(level, settings)| settings.iter().map(move |one| (level, one)));
        settings.find(|(_, setting)| setting.option == option.name())
    };
    let mut found: Vec<_> = options.iter().filter_map(|option| Some((option, find(option)?))).collect();
    found.sort_by_key(|(_, (level, _))| *level);
    found
}

/// `settings` with lists of mount options replaced by the settings in them, which come last: the first setting of an option
/// counts.
fn with_lists(settings: &[Setting], options: &[LongOption]) -> Result<Vec<Setting>, CliError> {
    let (lists, mut own): (Vec<Setting>, Vec<Setting>) =
        settings.iter().cloned().partition(|setting| setting.option == LIST);
    if options.iter().any(|option| option.name() == LIST) {
        for list in &lists {
            own.extend(expand_list(list, options)?);
        }
    }
    Ok(own)
}

/// `command` with a parser of [`URL`] that replaces `name` by `url`. The order of the operands is that of the arguments, which
/// [`Command::mut_arg`] would change.
fn with_repository(command: Command, name: &OsStr, url: &OsStr) -> Command {
    let replace = |arg: Arg| {
        if arg.get_id() != URL {
            return arg;
        }
        let (name, url) = (name.to_owned(), url.to_owned());
        let parser = OsStringValueParser::new().map(move |typed| if typed == name { url.clone() } else { typed });
        arg.value_parser(parser)
    };
    command.mut_args(replace).mut_subcommands(|below| with_repository(below, name, url))
}

/// The arguments that the user typed.
#[derive(Debug, Default)]
struct GivenArguments {
    /// The names of long options, however they were typed.
    options: HashSet<String>,
    url: Option<OsString>,
    config: Option<OsString>,
}

impl GivenArguments {
    fn of(matches: &ArgMatches, options: &[LongOption]) -> Self {
        let mut innermost = matches;
        while let Some((_, below)) = innermost.subcommand() {
            innermost = below;
        }
        let is_typed = |id: &str| {
            innermost.ids().any(|known| known == id) && innermost.value_source(id) == Some(ValueSource::CommandLine)
        };
        let raw = |id: &str| {
            is_typed(id).then(|| innermost.get_raw(id)).flatten().and_then(Iterator::last).map(OsStr::to_owned)
        };
        let typed = options.iter().filter(|option| is_typed(option.id()));
        Self { options: typed.map(|option| option.name().to_owned()).collect(), url: raw(URL), config: raw(CONFIG) }
    }
}

#[cfg(test)]
mod tests;
