//! Keys and passphrases that systemd gives to a service (`LoadCredential=`): files in the directory `CREDENTIALS_DIRECTORY`,
//! which only the service can read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::long_option::LongOption;
use super::setting::{Setting, SettingOrigin};
use super::similar::most_similar;

/// The variable with the directory.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The credentials, and the options whose values they are. A dot and a suffix may follow, for several of a kind.
const CREDENTIALS: [(&str, &str); 2] = [("dupfs.secret-key", "secret-key"), ("dupfs.passphrase", "passphrase-file")];

/// The settings of the credentials in `variables` for a command with `options`.
pub(super) fn settings(variables: &[(OsString, OsString)], options: &[LongOption]) -> Vec<Setting> {
    let Some(directory) = directory(variables) else { return Vec::new() };
    let names = names(&directory);
    let of_kind = |credential: &str| -> Vec<OsString> {
        let is_of_kind = |name: &&OsString| name.to_str().is_some_and(|name| is_named(name, credential));
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

/// Returns one remark for each credential in `variables` whose name is a slip for one of those that dupfs reads.
pub(super) fn remarks(variables: &[(OsString, OsString)]) -> Vec<String> {
    let names = directory(variables).map(|directory| names(&directory)).unwrap_or_default();
    let known = CREDENTIALS.map(|(credential, _)| credential);
    let unknown = names.iter().filter_map(|name| name.to_str());
    let unknown = unknown.filter(|name| !known.iter().any(|credential| is_named(name, credential)));
    let slips = unknown.filter_map(|name| Some((name, most_similar(name.as_bytes(), known)?)));
    slips.map(|(name, meant)| format!("the credential {name} is ignored: did you mean {meant}?")).collect()
}

/// The names of the credentials, sorted.
fn names(directory: &Path) -> Vec<OsString> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = files.map(|file| file.file_name()).collect();
    names.sort();
    names
}

/// Returns true if `name` is `credential`, or that with a suffix.
fn is_named(name: &str, credential: &str) -> bool {
    name.strip_prefix(credential).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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
        for name in
            ["dupfs.secret-key.b", "dupfs.secret-key.a", "dupfs.passphrase", "dupfs.passphrases", "dupfs.aws", "other"]
        {
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
        let remark = "the credential dupfs.passphrases is ignored: did you mean dupfs.passphrase?";
        assert_eq!(remarks(&variables), [remark]);
        assert_eq!(settings(&[], options), []);
        assert!(remarks(&[]).is_empty());
        let relative = [(OsString::from(DIRECTORY), OsString::from("here"))];
        assert_eq!(settings(&relative, options), []);
    }
}
