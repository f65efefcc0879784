//! Listings and the state of objects, as rclone reports them.

use std::io::Read;
use std::sync::Arc;

use serde::Deserialize;

use super::encoding::parse_rfc3339;
use crate::storage::{DirectoryListing, ObjectInfo};
use dupfs_base::escape_bytes;

/// Upper bound of the bytes of a listing: some millions of objects.
const MAX_LISTING: u64 = 1 << 30;

/// An object or a directory.
#[derive(Debug, Deserialize)]
pub(super) struct RcloneEntry {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Size")]
    size: i64,
    #[serde(rename = "ModTime", default)]
    modified: String,
    #[serde(rename = "IsDir", default)]
    is_dir: bool,
    /// The storage class, where the service has some.
    #[serde(rename = "Tier", default)]
    tier: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RcloneList {
    list: Option<Vec<RcloneEntry>>,
}

#[derive(Debug, Deserialize)]
struct RcloneStat {
    item: Option<RcloneEntry>,
}

/// Parses the answer to a listing. The names begin with `prefix`.
///
/// # Errors
/// If it is no complete listing.
pub(super) fn parse_list(body: impl Read, prefix: &str) -> serde_json::Result<DirectoryListing> {
    let list: RcloneList = serde_json::from_reader(body.take(MAX_LISTING))?;
    let mut out = DirectoryListing::default();
    for entry in list.list.unwrap_or_default() {
        if entry.is_dir {
            out.directories.push(entry.name);
        } else if let Some(object) = entry.into_object(prefix) {
            out.objects.push(object);
        }
    }
    Ok(out)
}

/// Parses the answer to a question for the state of one object; `None` if there is none of that name.
///
/// # Errors
/// If it is no complete answer.
pub(super) fn parse_stat(body: impl Read) -> serde_json::Result<Option<ObjectInfo>> {
    let stat: RcloneStat = serde_json::from_reader(body.take(MAX_LISTING))?;
    Ok(stat.item.and_then(|entry| entry.into_object("")))
}

impl RcloneEntry {
    fn into_object(self, prefix: &str) -> Option<ObjectInfo> {
        let Ok(size) = u64::try_from(self.size) else {
            log::warn!("{}: listed without a size, left out", escape_bytes(self.name.as_bytes()));
            return None;
        };
        let version = version_of(size, &self.modified);
        let class: Option<Arc<str>> = self.tier.filter(|tier| !tier.is_empty()).map(Into::into);
        Some(ObjectInfo {
            name: format!("{prefix}{}", self.name).into(),
            size,
            version: version.into(),
            class,
            archived: None,
        })
    }
}

/// The version of an object: its size and the time of its last change, as far as the service has one.
fn version_of(size: u64, modified: &str) -> String {
    match parse_rfc3339(modified) {
        Some((seconds, nanos)) => format!("{size:x}-{seconds:x}.{nanos:09}"),
        None => format!("{size:x}"),
    }
}

/// The time of the last change in a version, in seconds since 1970; `None` if it has none.
pub(super) fn seconds_of(version: &str) -> Option<i64> {
    let (_, time) = version.split_once('-')?;
    i64::from_str_radix(time.split_once('.')?.0, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"list": [
        {"Path": "d/a b", "Name": "a b", "Size": 3, "ModTime": "2026-11-27T13:57:54.242976772Z", "IsDir": false},
        {"Path": "d/sub", "Name": "sub", "Size": -1, "ModTime": "2026-11-27T13:57:54Z", "IsDir": true},
        {"Path": "d/doc", "Name": "doc", "Size": -1, "ModTime": "", "IsDir": false},
        {"Path": "d/cold", "Name": "cold", "Size": 5, "ModTime": "x", "IsDir": false, "Tier": "ARCHIVE"}]}"#;

    #[test]
    fn objects_and_directories_are_distinguished_and_sizes_are_known() {
        let listing = parse_list(LIST.as_bytes(), "p/").unwrap();
        assert_eq!(listing.directories, ["sub"]);
        let objects: Vec<_> =
            listing.objects.iter().map(|o| (&*o.name, o.size, &*o.version, o.class.as_deref())).collect();
        assert_eq!(objects, [("p/a b", 3, "3-6b098c62.242976772", None), ("p/cold", 5, "5", Some("ARCHIVE"))]);
        assert_eq!(seconds_of(&listing.objects[0].version), Some(1_795_787_874));
        assert_eq!(seconds_of(&listing.objects[1].version), None);
    }

    #[test]
    fn incomplete_answers_are_errors() {
        assert_eq!(parse_list(&b"{\"list\": null}"[..], "").unwrap(), DirectoryListing::default());
        for wrong in [&LIST[..LIST.len() - 1], "", "[]", "{\"list\": [{}]}"] {
            assert!(parse_list(wrong.as_bytes(), "").is_err(), "{wrong}");
        }
        assert_eq!(parse_stat(&b"{\"item\": null}"[..]).unwrap(), None);
        assert!(parse_stat(&b"{\"item\": {\"Name\""[..]).is_err());
    }
}
