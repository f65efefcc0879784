//! The secrets of stores that the user gives in environment variables.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use dupfs_base::Secret;

/// Finds secrets by the names of their variables.
#[derive(Clone, Debug)]
pub struct SecretSource {
    get: fn(&str) -> Option<Secret>,
    /// Variables that replace those of the environment, as one store of several has them.
    own: BTreeMap<String, Secret>,
}

impl SecretSource {
    /// The variables with secrets that stores use.
    pub const VARIABLES: [&'static str; 24] = [
        "PASSPHRASE",
        "AWS_SECRET_ACCESS_KEY",
        "SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "BACKEND_PASSWORD",
        "FTP_PASSWORD",
        "GS_SECRET_ACCESS_KEY",
        "AZURE_CONNECTION_STRING",
        "AZURE_ACCOUNT_KEY",
        "SWIFT_PASSWORD",
        "SWIFT_PREAUTHTOKEN",
        "PCA_PASSWORD",
        "PCA_PREAUTHTOKEN",
        "DPBX_ACCESS_TOKEN",
        "DPBX_APP_SECRET",
        "OAUTH2_REFRESH_TOKEN",
        "GOOGLE_DRIVE_ACCOUNT_KEY",
        "JOTTACLOUD_PASSWORD",
        "CLOUDFILES_APIKEY",
        "IMAP_PASSWORD",
        "RSYNC_PASSWORD",
        "B2_APPLICATION_KEY",
        "IDRIVE_PASSWORD",
        "RCLONE_CONFIG_PASS",
    ];

    /// Secrets that `get` finds.
    pub fn new(get: fn(&str) -> Option<Secret>) -> Self {
        Self { get, own: BTreeMap::new() }
    }

    /// The same with the variable `name`, which replaces that of the environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: Secret) -> Self {
        self.own.insert(name.to_owned(), value);
        self
    }

    /// The secret in the variable `name`, unless it is empty.
    pub fn get(&self, name: &str) -> Option<Secret> {
        self.own.get(name).cloned().or_else(|| (self.get)(name)).filter(|secret| !secret.is_empty())
    }

    /// The variable `name` as text, which is no secret.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let bytes = match self.own.get(name) {
            Some(secret) => secret.expose().to_vec(),
            None => std::env::var_os(name)?.as_bytes().to_vec(),
        };
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }
}

impl Default for SecretSource {
    fn default() -> Self {
        Self::new(|name| std::env::var_os(name).map(|value| Secret::new(value.as_bytes())))
    }
}
