//! `--FLAG=false` on the command line: turns a flag off that the environment or the configuration file turns on.

use std::ffi::{OsStr, OsString};

use super::error::CliError;
use super::long_option::{LongOption, OptionKind, parse_switch};

/// Arguments without values of flags.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SwitchedArguments {
    /// The arguments in the form that the parser takes.
    pub(super) args: Vec<OsString>,
    /// The names of the flags that were given a value.
    pub(super) switched: Vec<String>,
}

/// Resolves `--FLAG=true`, `--FLAG=false` and `--verbose=N` in `args`, up to `--`. As for other options, the last one counts.
///
/// # Errors
/// [`CliError::Usage`] for other values.
pub(super) fn resolve(args: &[OsString], options: &[LongOption]) -> Result<SwitchedArguments, CliError> {
    let mut out = SwitchedArguments::default();
    let mut args = args.iter().cloned();
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.args.push(arg);
            out.args.extend(args);
            break;
        }
        let Some((flag, value)) = flag_with_value(&arg, options) else {
            out.args.push(arg);
            continue;
        };
        let count = repetitions(flag, &value)
            .ok_or_else(|| CliError::Usage(format!("--{}={value}: {}", flag.name(), expected(flag))))?;
        out.args = std::mem::take(&mut out.args).into_iter().filter_map(|arg| without(arg, flag, options)).collect();
        out.args.extend(std::iter::repeat_n(OsString::from(format!("--{}", flag.name())), count));
        out.switched.push(flag.name().to_owned());
    }
    Ok(out)
}

/// The number of times that the flag is given for `value`, or `None` if it is no such value.
pub(super) fn repetitions(flag: &LongOption, value: &str) -> Option<usize> {
    let number = || value.parse::<u8>().ok().map(usize::from);
    match flag.kind() {
        OptionKind::Count => number().or_else(|| parse_switch(value).map(usize::from)),
        OptionKind::Flag => parse_switch(value).map(usize::from),
        OptionKind::Single | OptionKind::Repeatable => None,
    }
}

/// The values that a flag takes, for an error.
pub(super) fn expected(flag: &LongOption) -> &'static str {
    match flag.kind() {
        OptionKind::Count => "give a number",
        OptionKind::Flag | OptionKind::Single | OptionKind::Repeatable => "give true or false",
    }
}

fn flag_with_value<'o>(arg: &OsStr, options: &'o [LongOption]) -> Option<(&'o LongOption, String)> {
    let (name, value) = arg.to_str()?.strip_prefix("--")?.split_once('=')?;
    let is_flag =
        |option: &&LongOption| matches!(option.kind(), OptionKind::Flag | OptionKind::Count) && option.is_named(name);
    Some((options.iter().find(is_flag)?, value.to_owned()))
}

/// `arg` without `flag`: `None` for the flag itself, and a group of letters without its letter.
fn without(arg: OsString, flag: &LongOption, options: &[LongOption]) -> Option<OsString> {
    if arg.to_str().and_then(|text| text.strip_prefix("--")).is_some_and(|long| flag.is_named(long)) {
        return None;
    }
    let (Some(short), Some(group)) = (flag.short(), arg.to_str().and_then(|text| text.strip_prefix('-'))) else {
        return Some(arg);
    };
    let has_value = |letter: char| {
        let option = options.iter().find(|option| option.short() == Some(letter));
        option.is_some_and(|option| matches!(option.kind(), OptionKind::Single | OptionKind::Repeatable))
    };
    // What follows the letter of an option with a value is the value.
    let letters = group.find(has_value).unwrap_or(group.len());
    let (letters, rest) = group.split_at(letters);
    if group.starts_with('-') || !letters.contains(short) {
        return Some(arg);
    }
    let left = format!("{}{rest}", letters.replace(short, ""));
    (!left.is_empty()).then(|| format!("-{left}").into())
}

#[cfg(test)]
mod tests {
    use super::super::typed_command::TypedCommand;
    use super::*;

    fn resolved(line: &str) -> Result<(String, Vec<String>), String> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let options = LongOption::of(TypedCommand::find(&args).unwrap().definition);
        let out = resolve(&args, &options).map_err(|error| error.to_string())?;
        let words: Vec<_> = out.args.iter().map(|arg| arg.to_str().unwrap()).collect();
        Ok((words.join(" "), out.switched))
    }

    #[test]
    fn the_last_value_of_a_flag_counts() {
        for (line, expected, switched) in [
            ("dupfs ls --recursive=false u", "dupfs ls u", &["recursive"][..]),
            ("dupfs ls -lR --recursive=no u", "dupfs ls -l u", &["recursive"]),
            ("dupfs ls -ltlR --long=no u", "dupfs ls -tlR u", &["long"]),
            ("dupfs ls -R --recursive=0 u", "dupfs ls u", &["recursive"]),
            ("dupfs ls --recursive=false -R u", "dupfs ls -R u", &["recursive"]),
            ("dupfs ls --long=true u", "dupfs ls --long u", &["long"]),
            ("dupfs restore --no-restore-ownership=off u d", "dupfs restore u d", &["no-owner"]),
            ("dupfs ls -v --verbose=2 u", "dupfs ls --verbose --verbose u", &["verbose"]),
            ("dupfs ls -vv --verbose=0 u", "dupfs ls u", &["verbose"]),
            ("dupfs ls u -- --recursive=false", "dupfs ls u -- --recursive=false", &[]),
            ("dupfs ls --time=false u", "dupfs ls --time=false u", &[]),
        ] {
            let switched = switched.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(resolved(line), Ok((expected.to_owned(), switched)), "{line}");
        }
        assert_eq!(resolved("dupfs ls --long=maybe u"), Err("--long=maybe: give true or false".to_owned()));
    }
}
