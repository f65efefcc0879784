//! A configuration file: repositories by name, and defaults of options, in TOML. Its keys are the long options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml_edit::{Document, Item, Key, Table, Value};

use super::long_option::{CONFIG, LongOption, OptionKind};
use super::setting::{Setting, SettingOrigin};
use super::similar::most_similar;
use super::usage_hints::is_url;

/// The table of options for all repositories.
const DEFAULTS: &str = "defaults";

/// The table of repositories.
const REPOSITORY: &str = "repository";

/// The key of the location of a repository.
const URL: &str = "url";

/// Keys that a user may expect for secrets, and what to do instead.
const SECRETS: &[(&[&str], &str)] = &[
    (
        &["passphrase", "passphrases", "password", "sign-passphrase"],
        "this file holds no secrets; name a private file with passphrase-file, or a program with passphrase-command",
    ),
    (
        &[
            "access-key",
            "aws-access-key-id",
            "aws-secret-access-key",
            "aws-session-token",
            "s3-access-key-id",
            "s3-secret-access-key",
            "secret-access-key",
        ],
        "this file holds no secrets; put credentials into ~/.aws/credentials",
    ),
];

/// A repository with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedRepository {
    /// The name.
    pub(super) name: String,
    /// The URL or path, as the command line takes it.
    pub(super) url: OsString,
    /// Its options.
    pub(super) settings: Vec<Setting>,
}

/// A parsed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigFile {
    /// Options for all repositories and commands.
    pub(super) defaults: Vec<Setting>,
    /// The repositories, in the order of the file.
    pub(super) repositories: Vec<NamedRepository>,
}

/// Parses the text of the file `path`, whose relative paths are relative to its directory.
///
/// # Errors
/// One line with the file, the line in it, and the reason.
pub(super) fn parse(path: &Path, text: &str) -> Result<ConfigFile, String> {
    let known = LongOption::of_all_commands();
    let parser = ConfigParser { path: path.into(), text, known };
    let document = Document::parse(text).map_err(|error| {
        let start = error.span().map_or(text.len(), |span| span.start);
        parser.error(start, format!("not valid TOML: {}", error.message().replace('\n', " ")))
    })?;
    parser.file(document.as_table())
}

struct ConfigParser<'a> {
    path: Arc<Path>,
    text: &'a str,
    known: &'a [LongOption],
}

impl ConfigParser<'_> {
    fn file(&self, root: &Table) -> Result<ConfigFile, String> {
        let mut file = ConfigFile::default();
        for (key, item) in entries(root) {
            let table =
                || item.as_table().ok_or_else(|| self.error_at(key, format!("write it as a table: [{}]", key.get())));
            match key.get() {
                DEFAULTS => file.defaults = self.settings(table()?, None)?,
                REPOSITORY => {
                    for (name, item) in entries(table()?) {
                        let table = item.as_table().ok_or_else(|| {
                            self.error_at(name, format!("write it as a table: [{REPOSITORY}.{}]", name.get()))
                        })?;
                        file.repositories.push(self.repository(name, table)?);
                    }
                }
                other => return Err(self.error_at(key, self.unknown_table(other))),
            }
        }
        Ok(file)
    }

    fn unknown_table(&self, name: &str) -> String {
        if self.known.iter().any(|option| option.is_named(name)) || name == URL {
            return format!("{name} is in no table: write it below [{DEFAULTS}] or [{REPOSITORY}.NAME]");
        }
        match most_similar(name.as_bytes(), [DEFAULTS, REPOSITORY]) {
            Some(meant) => format!("unknown table {name}: did you mean {meant}?"),
            None => format!("unknown table {name}: the tables are [{DEFAULTS}] and [{REPOSITORY}.NAME]"),
        }
    }

    fn repository(&self, name: &Key, table: &Table) -> Result<NamedRepository, String> {
        if !is_name(name.get()) {
            return Err(self.error_at(
                name,
                "the name of a repository has letters, digits, -, _ and dots, and begins with a letter or digit"
                    .to_owned(),
            ));
        }
        let mut url = None;
        let settings = self.settings(table, Some(&mut url))?;
        let url = url.ok_or_else(|| self.error_at(name, format!("the repository {} has no url", name.get())))?;
        Ok(NamedRepository { name: name.get().to_owned(), url, settings })
    }

    /// The settings of a table; the location goes to `url`, if the table may have one.
    fn settings(&self, table: &Table, mut url: Option<&mut Option<OsString>>) -> Result<Vec<Setting>, String> {
        let mut settings = Vec::new();
        for (key, item) in entries(table) {
            let name = key.get();
            if name == URL {
                match url.as_deref_mut() {
                    Some(url) => *url = Some(self.url(key, item)?),
                    None => return Err(self.error_at(key, format!("write url below [{REPOSITORY}.NAME]"))),
                }
                continue;
            }
            let options: Vec<&LongOption> =
                self.known.iter().filter(|option| option.name() == name && name != CONFIG).collect();
            let Some(first) = options.first() else {
                return Err(self.error_at(key, self.unknown_key(name, url.is_some())));
            };
            // An option may have other values with another command.
            let fitting = options.iter().find_map(|option| self.values(option, item).ok());
            let values = match fitting {
                Some(values) => values,
                None => self.values(first, item).map_err(|reason| self.error_at(key, format!("{name}: {reason}")))?,
            };
            settings.push(Setting { option: name.to_owned(), values, origin: self.origin(key) });
        }
        Ok(settings)
    }

    fn unknown_key(&self, name: &str, has_url: bool) -> String {
        let plain = name.to_lowercase().replace('_', "-");
        if let Some((_, remedy)) = SECRETS.iter().find(|(names, _)| names.contains(&plain.as_str())) {
            return format!("{name}: {remedy}");
        }
        if name == CONFIG {
            return format!("{name}: an option of the command line only");
        }
        if let Some(option) = self.known.iter().find(|option| option.is_named(name)) {
            return format!("unknown key {name}: write {}", option.name());
        }
        let own = has_url.then_some(URL);
        let names = self.known.iter().map(LongOption::name).filter(|name| *name != CONFIG).chain(own);
        match most_similar(name.as_bytes(), names) {
            Some(meant) => format!("unknown key {name}: did you mean {meant}?"),
            None => format!("unknown key {name}: the keys are the long options without --"),
        }
    }

    fn url(&self, key: &Key, item: &Item) -> Result<OsString, String> {
        let text = item.as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| self.error_at(key, "url: give a URL or a path, in quotes".to_owned()))?;
        if is_url(text) {
            let netloc = text.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
            if netloc.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
                let reason = "url: user and password in a URL are not used; put credentials into ~/.aws/credentials";
                return Err(self.error_at(key, reason.to_owned()));
            }
            return Ok(text.into());
        }
        Ok(self.absolute(text).into())
    }

    /// The values of `item` as the option takes them.
    fn values(&self, option: &LongOption, item: &Item) -> Result<Vec<OsString>, &'static str> {
        let value = item.as_value().ok_or("give a value, not a table")?;
        match (option.kind(), value) {
            (OptionKind::Flag, Value::Boolean(_)) | (OptionKind::Count, Value::Boolean(_) | Value::Integer(_)) => {
                Ok(vec![self.literal(value).into()])
            }
            (OptionKind::Flag, _) => Err("give true or false, without quotes"),
            (OptionKind::Count, _) => Err("give a number, without quotes"),
            (OptionKind::Repeatable, Value::Array(list)) => {
                list.iter().map(|value| self.value(option, value)).collect()
            }
            (OptionKind::Single, Value::Array(_)) => Err("give one value, not a list"),
            (OptionKind::Single | OptionKind::Repeatable, value) => Ok(vec![self.value(option, value)?]),
        }
    }

    fn value(&self, option: &LongOption, value: &Value) -> Result<OsString, &'static str> {
        match value {
            Value::String(text) if option.is_path() => Ok(self.absolute(text.value()).into()),
            Value::String(text) if option.is_program() && text.value().contains('/') => {
                Ok(self.absolute(text.value()).into())
            }
            Value::String(text) => Ok(text.value().into()),
            // As they are written, so that they mean the same as on the command line.
            Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => Ok(self.literal(value).replace('_', "").into()),
            Value::Boolean(_) => Err("give a value, not true or false"),
            Value::Array(_) | Value::InlineTable(_) => Err("give text or a number"),
        }
    }

    /// The text of a value in the file.
    fn literal(&self, value: &Value) -> String {
        value.span().and_then(|span| self.text.get(span)).unwrap_or_default().trim().to_owned()
    }

    /// `text` as an absolute path: no shell expands `~/`, and the working directory is an arbitrary one.
    fn absolute(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.path.parent().map_or_else(|| text.into(), |dir| dir.join(text)),
        }
    }

    fn origin(&self, key: &Key) -> SettingOrigin {
        SettingOrigin::Line(Arc::clone(&self.path), self.line(key.span().map_or(0, |span| span.start)))
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn error_at(&self, key: &Key, reason: String) -> String {
        self.error(key.span().map_or(0, |span| span.start), reason)
    }

    fn error(&self, offset: usize, reason: String) -> String {
        format!("{}: {reason}", SettingOrigin::Line(Arc::clone(&self.path), self.line(offset)))
    }
}

/// The entries of a table in the order of the file.
fn entries(table: &Table) -> impl Iterator<Item = (&Key, &Item)> {
    table.iter().filter_map(|(key, _)| table.get_key_value(key))
}

/// Returns true for a name that a repository may have. None of them looks like a URL or a path with a slash.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ConfigFile, String> {
        parse(Path::new("/c/config.toml"), text)
    }

    fn pairs(settings: &[Setting]) -> Vec<(&str, Vec<&str>, String)> {
        settings
            .iter()
            .map(|setting| {
                let values = setting.values.iter().map(|value| value.to_str().unwrap()).collect();
                (setting.option.as_str(), values, setting.origin.to_string())
            })
            .collect()
    }

    #[test]
    fn keys_are_the_long_options() {
        let file = parsed(
            "[defaults]\nmemory = 268_435_456\nrebuild = true\nverbose = 2\n\n[repository.site]\nurl = 's3://b/p'\n\
             secret-key = ['k.asc', '/abs.asc']\ntime = 2017-01-28\numask = 0o022\ngpg-binary = 'gpg2'\n\
             [repository.shop]\nurl = 'backups'\n",
        )
        .unwrap();
        assert_eq!(
            pairs(&file.defaults),
            [
                ("memory", vec!["268435456"], "/c/config.toml:2".to_owned()),
                ("rebuild", vec!["true"], "/c/config.toml:3".to_owned()),
                ("verbose", vec!["2"], "/c/config.toml:4".to_owned()),
            ]
        );
        let [site, shop] = file.repositories.as_slice() else { panic!("{file:?}") };
        assert_eq!(
            (site.name.as_str(), site.url.to_str(), shop.url.to_str()),
            ("site", Some("s3://b/p"), Some("/c/backups"))
        );
        assert_eq!(
            pairs(&site.settings),
            [
                ("secret-key", vec!["/c/k.asc", "/abs.asc"], "/c/config.toml:8".to_owned()),
                ("time", vec!["2017-01-28"], "/c/config.toml:9".to_owned()),
                ("umask", vec!["0o022"], "/c/config.toml:10".to_owned()),
                ("gpg-binary", vec!["gpg2"], "/c/config.toml:11".to_owned()),
            ]
        );
        assert_eq!(parsed("# nothing\n").unwrap(), ConfigFile::default());
    }

    #[test]
    fn an_error_names_file_line_and_remedy() {
        for (text, expected) in [
            ("[defaults]\nmemroy = 1\n", ":2: unknown key memroy: did you mean memory?"),
            ("[defaults]\n\nrestore-time = '1D'\n", ":3: unknown key restore-time: write time"),
            ("[defaults]\nxyzzy = 1\n", ":2: unknown key xyzzy: the keys are the long options without --"),
            ("[defaults]\nrebuild = 'yes'\n", ":2: rebuild: give true or false, without quotes"),
            ("[defaults]\nmemory = true\n", ":2: memory: give a value, not true or false"),
            ("[defaults]\nmemory = [1]\n", ":2: memory: give one value, not a list"),
            ("[defaults]\nmemory = { a = 1 }\n", ":2: memory: give text or a number"),
            ("[defaults]\nsecret-key = [true]\n", ":2: secret-key: give a value, not true or false"),
            ("[defaults]\nconfig = 'x'\n", ":2: config: an option of the command line only"),
            (
                "[defaults]\nreport-ready = true\n",
                ":2: unknown key report-ready: the keys are the long options without --",
            ),
            ("[default]\nmemory = 1\n", ":1: unknown table default: did you mean defaults?"),
            ("memory = 1\n", ":1: memory is in no table: write it below [defaults] or [repository.NAME]"),
            ("[defaults]\nurl = 'x'\n", ":2: write url below [repository.NAME]"),
            ("[repository.a]\nmemory = 1\n", ":1: the repository a has no url"),
            ("[repository.a]\nurll = 'x'\n", ":2: unknown key urll: did you mean url?"),
            ("[repository.'a/b']\nurl = 'x'\n", ":1: the name of a repository has letters"),
            ("repository = 1\n", ":1: write it as a table: [repository]"),
            ("[defaults]\npassphrase = 'x'\n", ":2: passphrase: this file holds no secrets; name a private file"),
            ("[repository.a]\nurl = 's3+http://u:p@h/b'\n", ":2: url: user and password in a URL are not used"),
            ("[defaults]\naws_secret_access_key = 'x'\n", ":2: aws_secret_access_key: this file holds no secrets; put"),
            ("[defaults]\nmemory = \n", ":2: not valid TOML: "),
            ("[defaults]\nmemory = 1\nmemory = 2\n", ":3: not valid TOML: "),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with(&format!("/c/config.toml{expected}")), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
