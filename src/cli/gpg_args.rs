//! The gpg that gives session keys, from duplicity's options `--gpg-binary` and `--gpg-options`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dupfs_read::codec::GpgOptions;

use super::error::CliError;
use super::options::KeyArgs;
use super::progress_line;

/// Options of gpg that decide where it finds secret keys, and true if a value follows.
const PASSED_OPTIONS: &[(&str, bool)] = &[
    ("agent-program", true),
    ("homedir", true),
    ("keyring", true),
    ("no-default-keyring", false),
    ("no-options", false),
    ("no-use-agent", false),
    ("options", true),
    ("secret-keyring", true),
    ("try-all-secrets", false),
    ("try-secret-key", true),
    ("use-agent", false),
];

/// The options for backups that matter for session keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct GpgArguments {
    home: Option<PathBuf>,
    arguments: Vec<OsString>,
    /// Names of options that have no effect.
    ignored: Vec<String>,
}

/// Returns the gpg to ask, or `None` if there are secret keys from files. Options without effect are logged.
///
/// # Errors
/// [`CliError::Usage`] for an option of gpg without its value.
pub(super) fn gpg_for_session_keys(args: &KeyArgs) -> Result<Option<GpgOptions>, CliError> {
    let parsed = GpgArguments::parse(&args.gpg_options)?;
    if !args.secret_key.is_empty() {
        if args.gpg_binary.is_some() || !args.gpg_options.is_empty() {
            log::warn!("--gpg-binary and --gpg-options have no effect with --secret-key, ignored: gpg is not used");
        }
        return Ok(None);
    }
    if !parsed.ignored.is_empty() {
        log::warn!("--gpg-options: without effect on reading, ignored: {}", parsed.ignored.join(" "));
    }
    let (home, arguments, on_question) = (parsed.home, parsed.arguments, Some(progress_line::hold as fn(bool)));
    let mut options = GpgOptions { home, arguments, on_question, ..GpgOptions::default() };
    if let Some(binary) = &args.gpg_binary {
        // A name without a slash is searched in PATH.
        let is_name = !binary.as_os_str().as_bytes().contains(&b'/');
        options.binary = if is_name { binary.clone() } else { absolute(binary) };
    }
    Ok(Some(options))
}

impl GpgArguments {
    /// Parses `texts`, which duplicity joins, splits at white space, and gives to gpg without further quoting.
    fn parse(texts: &[String]) -> Result<Self, CliError> {
        let mut out = Self::default();
        let mut words = texts.iter().flat_map(|text| text.split_whitespace()).peekable();
        while let Some(word) = words.next() {
            let (name, mut value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let option =
                name.strip_prefix("--").and_then(|long| PASSED_OPTIONS.iter().find(|(known, _)| *known == long));
            // A word that is no option is the value of the option before it.
            let takes_value = option.is_none_or(|(_, takes_value)| *takes_value);
            if value.is_none() && takes_value {
                value = words.next_if(|next| !next.starts_with('-'));
            }
            match (option, value) {
                (None, _) => out.ignored.push(name.to_owned()),
                (Some((_, true)), None) => {
                    return Err(CliError::Usage(format!("--gpg-options: {name} needs a value: {name}=...")));
                }
                (Some(("homedir", _)), Some(value)) => out.home = Some(absolute(&expand_home(value))),
                (Some((_, true)), Some(value)) => out.arguments.extend([name.into(), value_of(name, value)]),
                (Some((_, false)), _) => out.arguments.push(name.into()),
            }
        }
        Ok(out)
    }
}

/// Returns the value of an option. A file that is not in gpg's home directory gets an absolute path, because a daemon
/// leaves the working directory.
fn value_of(name: &str, value: &str) -> OsString {
    let is_path = name != "--try-secret-key" && value.contains('/');
    if is_path { absolute(&expand_home(value)).into() } else { value.into() }
}

/// Replaces a leading `~/` as gpg does: no shell has seen it inside of the option.
fn expand_home(value: &str) -> PathBuf {
    match (value.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => value.into(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> GpgArguments {
        GpgArguments::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_that_decide_where_keys_are_found_are_kept() {
        for texts in [&["--homedir=/keys  --compress-algo=bzip2"][..], &["--homedir /keys", "--compress-algo bzip2"]] {
            let parsed = parse(texts);
            assert_eq!(parsed.home, Some("/keys".into()));
            assert_eq!((parsed.arguments.len(), parsed.ignored.as_slice()), (0, &["--compress-algo".to_owned()][..]));
        }
        let parsed =
            parse(&["--no-default-keyring --keyring /k/ring.kbx -z 9 --keyring=ring --trust-model=always --batch"]);
        assert_eq!(parsed.arguments, ["--no-default-keyring", "--keyring", "/k/ring.kbx", "--keyring", "ring"]);
        assert_eq!(parsed.ignored, ["-z", "--trust-model", "--batch"]);
        assert_eq!(parse(&[]), GpgArguments::default());
    }

    #[test]
    fn paths_are_absolute_and_names_are_not() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(parse(&["--homedir=a/b"]).home, Some(here.join("a/b")));
        assert_eq!(parse(&["--keyring ./ring"]).arguments, [OsString::from("--keyring"), here.join("ring").into()]);
        assert_eq!(parse(&["--homedir=a"]).home, Some(here.join("a")));
        let binary = |path: &str| {
            let args = KeyArgs { gpg_binary: Some(path.into()), ..KeyArgs::default() };
            gpg_for_session_keys(&args).unwrap().unwrap().binary
        };
        assert_eq!(binary("gpg2"), Path::new("gpg2"));
        assert_eq!(binary("bin/gpg"), here.join("bin/gpg"));
        let home = std::env::home_dir().unwrap();
        assert_eq!(parse(&["--homedir ~/keys"]).home, Some(home.join("keys")));
    }

    #[test]
    fn gpg_is_not_used_with_secret_keys_from_files() {
        let args =
            KeyArgs { secret_key: vec!["key.asc".into()], gpg_binary: Some("gpg2".into()), ..KeyArgs::default() };
        assert!(gpg_for_session_keys(&args).unwrap().is_none());
    }

    #[test]
    fn an_option_without_its_value_is_a_usage_error() {
        for text in ["--homedir", "--homedir --batch", "--keyring"] {
            let error = GpgArguments::parse(&[text.to_owned()]).unwrap_err();
            assert_eq!(error.code(), 2);
            assert!(error.to_string().contains("needs a value"), "{error}");
        }
    }
}
