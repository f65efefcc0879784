//! Options from the environment: `DUPFS_CACHE_DIR` is `--cache-dir`, and so on for each long option.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::argv;
use super::error::CliError;
use super::long_option::{CONFIG, LongOption, OptionKind, VARIABLE_PREFIX};
use super::setting::{Setting, SettingOrigin};
use super::similar::most_similar;

/// Variables of the tests and the benchmarks, by the beginnings of their names.
const FOREIGN: [&str; 2] = ["DUPFS_TEST_", "DUPFS_BENCH_"];

/// The option with a list of other options.
pub(super) const LIST: &str = "options";

/// The settings in `variables` for the command with `options`. An empty variable counts as missing.
///
/// # Errors
/// [`CliError::Usage`] for an invalid list of mount options.
pub(super) fn settings(variables: &[(OsString, OsString)], options: &[LongOption]) -> Result<Vec<Setting>, CliError> {
    let mut settings = Vec::new();
    let mut from_list = Vec::new();
    for option in options.iter().filter(|option| option.name() != CONFIG) {
        let name = option.variable();
        let Some((_, value)) = variables.iter().find(|(known, value)| *known == *name && !value.is_empty()) else {
            continue;
        };
        let values = match option.kind() {
            OptionKind::Repeatable => lines(value),
            OptionKind::Flag | OptionKind::Count | OptionKind::Single => vec![value.clone()],
        };
        let setting = Setting { option: option.name().to_owned(), values, origin: SettingOrigin::Variable(name) };
        if option.name() == LIST {
            from_list.extend(expand_list(&setting, options)?);
        } else {
            settings.push(setting);
        }
    }
    // The first setting of an option counts.
    settings.extend(from_list);
    Ok(settings)
}

/// The name of the variable for `--config`.
pub(super) fn config_name() -> String {
    format!("{VARIABLE_PREFIX}{}", CONFIG.to_uppercase())
}

/// The value of the variable for `--config`.
pub(super) fn config(variables: &[(OsString, OsString)]) -> Option<&OsStr> {
    let name = config_name();
    let found = variables.iter().find(|(known, value)| *known == *name && !value.is_empty());
    found.map(|(_, value)| value.as_os_str())
}

/// The settings that a list of mount options stands for, such as `allow_other,sizes=bound`.
///
/// # Errors
/// [`CliError::Usage`] that names the place.
pub(super) fn expand_list(list: &Setting, options: &[LongOption]) -> Result<Vec<Setting>, CliError> {
    let invalid = |reason: String| CliError::Usage(format!("{}: {}: {reason}", list.origin, list.option));
    let mut settings = Vec::new();
    for value in &list.values {
        let text = value.to_str().ok_or_else(|| invalid("not valid UTF-8".to_owned()))?;
        for argument in argv::expand_list(text).map_err(|error| invalid(error.to_string()))? {
            let long = argument.trim_start_matches("--");
            let (name, value) = long.split_once('=').unwrap_or((long, "true"));
            let option = options.iter().find(|option| option.is_named(name));
            let option = option.ok_or_else(|| invalid(format!("{name} has no effect")))?.name().to_owned();
            settings.push(Setting { option, values: vec![value.into()], origin: list.origin.clone() });
        }
    }
    Ok(settings)
}

fn lines(value: &OsStr) -> Vec<OsString> {
    let lines = value.as_bytes().split(|&b| b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| OsString::from_vec(line.to_vec())).collect()
}

/// Returns one remark for each variable that looks like one of dupfs and is none.
pub(super) fn remarks(variables: &[(OsString, OsString)]) -> Vec<String> {
    let own = variables.iter().filter_map(|(name, _)| name.to_str());
    let mut own: Vec<&str> = own
        .filter(|name| name.starts_with(VARIABLE_PREFIX) && !FOREIGN.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    if own.is_empty() {
        return Vec::new();
    }
    own.sort_unstable();
    let known: Vec<String> = LongOption::of_all_commands().iter().map(LongOption::variable).collect();
    let unknown = own.into_iter().filter(|name| !known.iter().any(|known| known == name));
    unknown
        .map(|name| match name {
            "DUPFS_PASSPHRASE" => format!("the variable {name} is ignored: the passphrase is read from PASSPHRASE"),
            _ => match most_similar(name.as_bytes(), &known) {
                Some(meant) => format!("the variable {name} is ignored: did you mean {meant}?"),
                None => format!("the variable {name} is ignored: dupfs has no such option"),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::typed_command::TypedCommand;
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn of(command: &str, pairs: &[(&str, &str)]) -> Result<Vec<(String, Vec<OsString>)>, String> {
        let typed = TypedCommand::find(&["dupfs".into(), command.into()]).unwrap();
        let found = settings(&variables(pairs), &LongOption::of(typed.definition));
        let found = found.map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|setting| (setting.option, setting.values)).collect())
    }

    #[test]
    fn each_variable_is_an_option_of_the_command() {
        let pairs = [("DUPFS_MEMORY", "1G"), ("DUPFS_RECURSIVE", "1"), ("DUPFS_TIME", ""), ("DUPFS_CONFIG", "c")];
        assert_eq!(of("cat", &pairs).unwrap(), [("memory".to_owned(), vec!["1G".into()])]);
        assert_eq!(of("ls", &pairs).unwrap().len(), 2);
        assert_eq!(config(&variables(&pairs)), Some(OsStr::new("c")));
        let keys = of("ls", &[("DUPFS_SECRET_KEY", "a b\nc\n")]).unwrap();
        assert_eq!(keys, [("secret-key".to_owned(), vec!["a b".into(), "c".into()])]);
    }

    #[test]
    fn a_list_of_mount_options_is_expanded() {
        let expanded = of("mount", &[("DUPFS_OPTIONS", "allow_other,uid=7,ro"), ("DUPFS_UID", "8")]).unwrap();
        let expected = [("uid", "8"), ("allow-other", "true"), ("uid", "7")];
        assert_eq!(expanded, expected.map(|(name, value)| (name.to_owned(), vec![value.into()])));
        let refused = of("mount", &[("DUPFS_OPTIONS", "alow_other")]).unwrap_err();
        assert_eq!(refused, "DUPFS_OPTIONS: options: unknown mount option alow_other: did you mean allow_other?");
    }

    #[test]
    fn an_unknown_variable_gets_a_suggestion() {
        let remarks = remarks(&variables(&[
            ("DUPFS_MEMROY", "1"),
            ("DUPFS_PASSPHRASE", "x"),
            ("DUPFS_TEST_DIR", "x"),
            ("DUPFS_UID", "1"),
            ("PATH", "/"),
        ]));
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert_eq!(remarks[0], "the variable DUPFS_MEMROY is ignored: did you mean DUPFS_MEMORY?");
        assert!(remarks[1].ends_with("read from PASSPHRASE"), "{remarks:?}");
    }
}
