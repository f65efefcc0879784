//! Keys and passphrases that systemd gives to a service (`LoadCredential=`): files in the directory `CREDENTIALS_DIRECTORY`,
//! which only the service can read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::long_option::LongOption;
use super::setting::{Setting, SettingOrigin};

/// The variable with the directory.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The credentials, and the options whose values they are. A dot and a suffix may follow, for several of a kind.
const CREDENTIALS: [(&str, &str); 2] = [("dupfs.secret-key", "secret-key"), ("dupfs.passphrase", "passphrase-file")];

/// The settings of the credentials in `variables` for a command with `options`.
pub(super) fn settings(variables: &[(OsString, OsString)], options: &[LongOption]) -> Vec<Setting> {
    let Some(directory) = directory(variables) else { return Vec::new() };
    let files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = files.map(|file| file.file_name()).collect();
    names.sort();
    let of_kind = |credential: &str| -> Vec<OsString> {
        let is_of_kind = |name: &&OsString| {
            let rest = name.to_str().and_then(|name| name.strip_prefix(credential));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        names.iter().filter(is_of_kind).map(|name| directory.join(name).into_os_string()).collect()
    };
    let known = CREDENTIALS.iter().filter(|(_, option)| options.iter().any(|known| known.name() == *option));
    known
        .map(|(credential, option)| Setting {
            option: (*option).to_owned(),
            values: of_kind(credential),
            origin: SettingOrigin::Variable(DIRECTORY.to_owned()),
        })
        .filter(|setting| !setting.values.is_empty())
        .collect()
}

/// Returns true if `file` is a credential of this service. Its mode has the bits of a group if the service has a user of its own.
pub(super) fn is_credential(file: &Path) -> bool {
    let directory = std::env::var_os(DIRECTORY).filter(|directory| !directory.is_empty());
    directory.is_some_and(|directory| file.parent() == Some(Path::new(&directory)))
}

fn directory(variables: &[(OsString, OsString)]) -> Option<PathBuf> {
    let value = variables.iter().find(|(name, _)| name == DIRECTORY).map(|(_, value)| value);
    value.map(PathBuf::from).filter(|directory| directory.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_credential_is_the_value_of_its_option() {
        let tmp = tempfile::tempdir().unwrap();
        for name in ["dupfs.secret-key.b", "dupfs.secret-key.a", "dupfs.passphrase", "dupfs.passphrases", "other"] {
            std::fs::write(tmp.path().join(name), "x").unwrap();
        }
        let options = LongOption::of_all_commands();
        let variables = [(OsString::from(DIRECTORY), tmp.path().as_os_str().to_owned())];
        let found = settings(&variables, options);
        let values = |option: &str| {
            let setting = found.iter().find(|setting| setting.option == option).unwrap();
            setting.values.iter().map(|file| Path::new(file).file_name().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found.len(), 2);
        assert_eq!(values("secret-key"), ["dupfs.secret-key.a", "dupfs.secret-key.b"]);
        assert_eq!(values("passphrase-file"), ["dupfs.passphrase"]);
        assert_eq!(settings(&[], options), []);
        let relative = [(OsString::from(DIRECTORY), OsString::from("here"))];
        assert_eq!(settings(&relative, options), []);
    }
}
