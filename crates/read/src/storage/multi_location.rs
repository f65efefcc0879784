//! The configuration of several stores: duplicity's `multi:`.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::Deserialize;

use super::StorageError;
use super::percent::percent_decode;
use super::remote_location::UrlParts;
use dupfs_base::{ErrorKind, escape_bytes, io_reason};

/// Upper bound of the bytes of a configuration.
const MAX_CONFIGURATION: u64 = 1 << 20;
/// Upper bound of the stores.
const MAX_STORES: usize = 64;

/// The configuration of several stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiLocation {
    pub(super) configuration: PathBuf,
    /// Appended to the URL of each store.
    pub(super) subpath: String,
}

impl MultiLocation {
    /// Parses the text after `multi:`.
    pub(super) fn parse(rest: &str) -> Result<Self, StorageError> {
        let invalid = |reason: &str| StorageError::new(ErrorKind::Invalid, "multi://", reason);
        let parts = UrlParts::split(rest);
        let mut subpath = String::new();
        for (name, value) in parts.parameters() {
            match (&*name, &*value) {
                ("mode", "mirror" | "stripe") | ("onfail", "abort" | "continue") => {}
                ("subpath", _) => subpath = value,
                _ => {
                    let reason =
                        "known parameters are mode=mirror, mode=stripe, onfail=abort, onfail=continue and subpath";
                    return Err(invalid(reason));
                }
            }
        }
        let path = percent_decode(&format!("{}{}", parts.authority, parts.path));
        let path = String::from_utf8(path).map_err(|_| invalid("the path is not UTF-8 after percent-decoding"))?;
        // As duplicity: always absolute.
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return Err(invalid("write multi:///path/to/configuration.json"));
        }
        Ok(Self { configuration: PathBuf::from(format!("/{path}")), subpath })
    }

    /// As a URL.
    pub fn display(&self) -> String {
        let subpath = if self.subpath.is_empty() { String::new() } else { format!("?subpath={}", self.subpath) };
        escape_bytes(format!("multi://{}{subpath}", self.configuration.display()).as_bytes())
    }

    /// Reads the stores of the configuration.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be read or is invalid.
    pub(super) fn read(&self) -> Result<Vec<StoreEntry>, StorageError> {
        let shown = self.display();
        let invalid = |reason: String| StorageError::new(ErrorKind::Invalid, &shown, reason);
        let file = std::fs::File::open(&self.configuration).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                invalid("there is no such configuration; give the JSON file of duplicity".to_owned())
            }
            _ => StorageError::from_io(&shown, "read the configuration", &e),
        })?;
        let mut text = String::new();
        file.take(MAX_CONFIGURATION)
            .read_to_string(&mut text)
            .map_err(|e| invalid(format!("the configuration cannot be read: {}", io_reason(&e))))?;
        let entries: Vec<StoreEntry> = serde_json::from_str(&text)
            .map_err(|e| invalid(format!("the configuration is not a JSON list of stores: line {}", e.line())))?;
        match entries.len() {
            0 => Err(invalid("the configuration names no store".to_owned())),
            1..=MAX_STORES => Ok(entries),
            _ => Err(invalid(format!("the configuration names more than {MAX_STORES} stores"))),
        }
    }
}

/// A store in the configuration.
#[derive(Deserialize)]
pub(super) struct StoreEntry {
    pub(super) url: String,
    #[serde(default)]
    pub(super) env: Vec<StoreVariable>,
}

/// A variable of a store in the configuration.
#[derive(Deserialize)]
pub(super) struct StoreVariable {
    pub(super) name: String,
    pub(super) value: String,
}
