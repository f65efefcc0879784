//! The configuration: the files that are read, who may have written them, and the repositories that they name together.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dupfs_base::{ErrorKind, io_reason};

use super::config_file::{self, ConfigFile, NamedRepository, is_name};
use super::error::CliError;
use super::exit::CommandExit;
use super::home_dir::home_dir;
use super::setting::Setting;
use super::similar::most_similar;

/// The file for all users of the machine.
const OF_MACHINE: &str = "/etc/dupfs/config.toml";

/// The file of a user, in the directory of configurations.
const OF_USER: &str = "dupfs/config.toml";

/// Upper bound of the bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

/// Upper bound of the names in an error.
const MAX_NAMES: usize = 10;

/// The files of this user and of the machine.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    /// The files with their paths; the first one has precedence.
    files: Vec<(PathBuf, ConfigFile)>,
}

/// The backup that a command line names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NamedPlace<'c> {
    /// A URL or a path.
    Literal,
    /// A repository of the configuration, and a remark for the user if the name is ambiguous.
    Repository(&'c NamedRepository, Option<String>),
}

impl Configuration {
    /// Loads `file` alone, or without it those of the user and the machine, as far as they exist.
    ///
    /// # Errors
    /// [`CliError`] if a file cannot be read, is not valid, or can be changed by other users.
    pub(super) fn load(file: Option<&OsStr>) -> Result<Self, CliError> {
        let mut files = Vec::new();
        if let Some(file) = file {
            let path = std::path::absolute(file).unwrap_or_else(|_| file.into());
            let parsed = load_file(&path).map_err(|error| error.into_cli_error(&path))?;
            return Ok(Self { files: vec![(path, parsed)] });
        }
        let own = of_user();
        for path in own.iter().map(PathBuf::as_path).chain([Path::new(OF_MACHINE)]) {
            match load_file(path) {
                Ok(parsed) => files.push((path.to_owned(), parsed)),
                Err(LoadError::Io(error)) if is_absent(path, &error) => {}
                Err(error) => return Err(error.into_cli_error(path)),
            }
        }
        Ok(Self { files })
    }

    /// The options for all repositories in each file, those with precedence first.
    pub(super) fn defaults(&self) -> impl Iterator<Item = &[Setting]> {
        self.files.iter().map(|(_, file)| file.defaults.as_slice())
    }

    /// The names of all repositories.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|(_, file)| &file.repositories).map(|repository| repository.name.as_str())
    }

    /// Finds what `typed` names. A URL, and a path with a slash, is never a name.
    ///
    /// # Errors
    /// [`CliError`] if it is neither a repository nor a file, and the configuration has other repositories.
    pub(super) fn find(&self, typed: &OsStr) -> Result<NamedPlace<'_>, CliError> {
        let Some(name) = typed.to_str().filter(|text| is_name(text)) else { return Ok(NamedPlace::Literal) };
        let exists = Path::new(name).symlink_metadata().is_ok();
        for (path, file) in &self.files {
            let Some(found) = file.repositories.iter().find(|repository| repository.name == name) else { continue };
            let remark = exists.then(|| {
                format!("{name} is the repository of {}; for the directory of this name, give ./{name}", path.display())
            });
            return Ok(NamedPlace::Repository(found, remark));
        }
        if exists || self.names().next().is_none() {
            return Ok(NamedPlace::Literal);
        }
        let files: Vec<String> = self.files.iter().map(|(path, _)| path.display().to_string()).collect();
        let hint = match most_similar(name.as_bytes(), self.names()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => {
                let names: Vec<&str> = self.names().take(MAX_NAMES).collect();
                let more = if self.names().nth(MAX_NAMES).is_some() { " ..." } else { "" };
                format!("the repositories are: {}{more}", names.join(", "))
            }
        };
        Err(CliError::new(
            CommandExit::NotFound,
            format!("{name}: no repository of {} and no directory has this name; {hint}", files.join(" or ")),
        ))
    }
}

/// The remark on `typed` if it is no directory and may be meant as the name of a repository. Where the configuration has
/// repositories, [`Configuration::find`] refuses an unknown name before.
pub(super) fn remark_on_missing(typed: &str) -> Option<String> {
    is_name(typed).then(|| {
        format!(
            "no configuration file names a repository {typed} either ({OF_MACHINE}, ~/.config/{OF_USER}); \
             give the URL or path of the backup"
        )
    })
}

/// The file of this user: in `$XDG_CONFIG_HOME`, else in `~/.config`.
fn of_user() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || home_dir().map(|home| home.join(".config"));
    variable("XDG_CONFIG_HOME").or_else(home).map(|dir| dir.join(OF_USER))
}

/// Returns true if a file that nobody named counts as missing. That of the machine may be for root alone, and HOME may be that
/// of another user (sudo, setpriv), whose directories are closed.
fn is_absent(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        io::ErrorKind::PermissionDenied => path == Path::new(OF_MACHINE) || path.symlink_metadata().is_err(),
        _ => false,
    }
}

/// The reason why a file was not loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A complete line for the user.
    #[error("{0}")]
    Invalid(String),
    /// Its owner or mode lets other users change or read it.
    #[error("{0}")]
    Exposed(String),
}

impl LoadError {
    fn into_cli_error(self, path: &Path) -> CliError {
        match self {
            Self::Io(error) => {
                let kind = match error.kind() {
                    // Of the option, not of the backup.
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::Invalid,
                    io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                    _ => ErrorKind::Io,
                };
                let remedy = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        "; give the path of one, or /dev/null for none"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "; run this as a user who may read it, or give another one by --config"
                    }
                    _ => "",
                };
                let line = format!("configuration file {}: {}{remedy}", path.display(), io_reason(&error));
                CliError::failed(kind, line)
            }
            Self::Invalid(line) => CliError::Usage(line),
            Self::Exposed(line) => CliError::failed(ErrorKind::Denied, line),
        }
    }
}

fn load_file(path: &Path) -> Result<ConfigFile, LoadError> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if path == Path::new("/dev/null") {
        return Ok(ConfigFile::default());
    }
    let shown = path.display();
    if !meta.is_file() {
        // dupfs reads it again when it starts itself again, which a pipe does not allow.
        return Err(LoadError::Invalid(format!("{shown}: not a regular file; give one, or /dev/null for none")));
    }
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user && meta.uid() != 0 {
        let owner = meta.uid();
        return Err(LoadError::Exposed(format!(
            "{shown} belongs to another user ({owner}), who could make dupfs run commands: chown it to this user or to root"
        )));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(LoadError::Exposed(format!(
            "{shown}: other users may write this file, and could make dupfs run commands: chmod 600 {shown}"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadError::Invalid(format!("{shown}: larger than 1 MiB")));
    }
    let text = String::from_utf8(bytes).map_err(|_| LoadError::Invalid(format!("{shown}: not valid UTF-8")))?;
    let parsed = config_file::parse(path, &text).map_err(LoadError::Invalid)?;
    if meta.mode() & 0o044 != 0
        && let Some(setting) = settings(&parsed).find(|setting| is_literal_secret(setting))
    {
        let origin = &setting.origin;
        return Err(LoadError::Exposed(format!(
            "{origin}: {} prints a secret that is in the file, and other users may read the file: chmod 600 {shown}",
            setting.option
        )));
    }
    Ok(parsed)
}

fn settings(file: &ConfigFile) -> impl Iterator<Item = &Setting> {
    file.defaults.iter().chain(file.repositories.iter().flat_map(|repository| &repository.settings))
}

/// Returns true for a command that only prints its arguments.
fn is_literal_secret(setting: &Setting) -> bool {
    let command = setting.values.first().and_then(|value| value.to_str()).unwrap_or_default();
    let program = command.split_whitespace().next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    setting.option == "passphrase-command" && matches!(program, "echo" | "printf")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn loaded(text: &str, mode: u32) -> Result<Configuration, CliError> {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Configuration::load(Some(path.as_os_str()))
    }

    const TWO: &str = "[repository.site]\nurl = 's3://b/site'\n[repository.tests]\nurl = 's3://b/tests'\n";

    #[test]
    fn a_bare_name_is_a_repository_and_a_path_is_not() {
        let config = loaded(TWO, 0o644).unwrap();
        let url = |typed: &str| match config.find(OsStr::new(typed)) {
            Ok(NamedPlace::Repository(found, _)) => found.url.to_str().map(str::to_owned),
            Ok(NamedPlace::Literal) => None,
            Err(error) => Some(error.to_string()),
        };
        assert_eq!(url("site").as_deref(), Some("s3://b/site"));
        for literal in ["./site", "site/", "/site", "file:///site", "s3://site", "src", ".", "..", "-"] {
            assert_eq!(url(literal), None, "{literal}");
        }
        // The crate has a directory of this name.
        let Ok(NamedPlace::Repository(_, Some(remark))) = config.find(OsStr::new("tests")) else { panic!() };
        assert!(remark.ends_with("for the directory of this name, give ./tests"), "{remark}");
        let near = config.find(OsStr::new("stie")).unwrap_err();
        assert!(near.to_string().ends_with("has this name; did you mean site?") && near.code() == 3, "{near}");
        let far = config.find(OsStr::new("database")).unwrap_err();
        assert!(far.to_string().ends_with("the repositories are: site, tests"), "{far}");
        let empty = Configuration::default();
        assert_eq!(empty.find(OsStr::new("stie")), Ok(NamedPlace::Literal));
    }

    #[test]
    fn a_bare_name_may_be_meant_as_a_repository() {
        let remark = remark_on_missing("site").unwrap();
        let files = "(/etc/dupfs/config.toml, ~/.config/dupfs/config.toml)";
        assert!(remark.starts_with(&format!("no configuration file names a repository site either {files}; give")));
        assert_eq!(remark_on_missing("./site"), None);
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        for mode in [0o666, 0o620, 0o602] {
            let error = loaded(TWO, mode).unwrap_err();
            assert!(error.to_string().contains("chmod 600 ") && error.code() == 4, "{error}");
        }
        assert!(loaded(TWO, 0o644).is_ok() && loaded(TWO, 0o600).is_ok());
    }

    #[test]
    fn a_file_with_a_secret_that_others_may_read_is_refused() {
        let secret = "[defaults]\npassphrase-command = \"printf 'hunter2'\"\n";
        for mode in [0o644, 0o640] {
            let error = loaded(secret, mode).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(":2: passphrase-command prints a secret") && text.contains("chmod 600 "), "{text}");
            assert!(!text.contains("hunter2") && error.code() == 4, "{text}");
        }
        assert!(loaded(secret, 0o600).is_ok());
        assert!(loaded("[defaults]\npassphrase-command = 'pass show backup'\n", 0o644).is_ok());
    }

    #[test]
    fn a_named_file_must_be_readable_and_no_pipe() {
        let error = Configuration::load(Some(OsStr::new("/no/such/file"))).unwrap_err();
        assert!(error.code() == 2 && error.to_string().contains("/no/such/file"), "{error}");
        let error = Configuration::load(Some(OsStr::new("/dev/zero"))).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        assert_eq!(Configuration::load(Some(OsStr::new("/dev/null"))).unwrap().names().count(), 0);
    }
}
