//! Listings and the state of objects, as rclone reports them.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::encoding::parse_rfc3339;
use crate::storage::{DirectoryListing, ObjectInfo};
use dupfs_base::escape_bytes;

/// Upper bound of the bytes of a listing.
const MAX_LISTING: u64 = 1 << 30;
/// Upper bound of the objects and directories of a listing. A backup of 100 TB in volumes of 200 MB has half a million.
const MAX_ENTRIES: usize = 2_000_000;
/// Upper bound of the bytes of the state of one object.
const MAX_STAT: u64 = 1 << 20;

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
    list: Option<ListedEntries>,
}

/// The entries of a listing, each converted when it was parsed.
#[derive(Debug, Default)]
struct ListedEntries(DirectoryListing);

impl<'de> Deserialize<'de> for ListedEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = ListedEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<ListedEntries, A::Error> {
                let mut out = DirectoryListing::default();
                let mut number = 0;
                while let Some(entry) = entries.next_element::<RcloneEntry>()? {
                    number += 1;
                    if number > MAX_ENTRIES {
                        return Err(A::Error::custom(format!("the directory has more than {MAX_ENTRIES} objects")));
                    }
                    if entry.is_dir {
                        out.directories.push(entry.name);
                    } else {
                        out.objects.extend(entry.into_object());
                    }
                }
                Ok(ListedEntries(out))
            }
        }
        deserializer.deserialize_seq(EntryVisitor)
    }
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
    let ListedEntries(mut out) = list.list.unwrap_or_default();
    if !prefix.is_empty() {
        for object in &mut out.objects {
            object.name = format!("{prefix}{}", object.name).into();
        }
    }
    Ok(out)
}

/// Parses the answer to a question for the state of one object; `None` if there is none of that name.
///
/// # Errors
/// If it is no complete answer.
pub(super) fn parse_stat(body: impl Read) -> serde_json::Result<Option<ObjectInfo>> {
    let stat: RcloneStat = serde_json::from_reader(body.take(MAX_STAT))?;
    Ok(stat.item.and_then(RcloneEntry::into_object))
}

impl RcloneEntry {
    fn into_object(self) -> Option<ObjectInfo> {
        let Ok(size) = u64::try_from(self.size) else {
            log::warn!("{}: listed without a size, left out", escape_bytes(self.name.as_bytes()));
            return None;
        };
        let version = version_of(size, &self.modified);
        let class: Option<Arc<str>> = self.tier.filter(|tier| !tier.is_empty()).map(Into::into);
        Some(ObjectInfo { name: self.name.into(), size, version: version.into(), class, archived: None })
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
    // Times before 1970 are written as they are in memory.
    u64::from_str_radix(time.split_once('.')?.0, 16).ok().map(u64::cast_signed)
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
        for invalid in ["{\"list\": {}}", "{\"list\": [{\"Name\": 1}]}", "{\"list\": [], \"list\": []}"] {
            assert!(parse_list(invalid.as_bytes(), "").unwrap_err().is_data(), "{invalid}");
        }
    }

    #[test]
    fn answers_are_bounded() {
        // Parsed as they arrive: the rest of an endless answer is not read.
        let entry = &b"{\"Name\":\"\",\"Size\":0},"[..];
        let mut endless = EndlessAnswer { head: b"{\"list\":[", entry, at: 0 };
        let error = parse_list(&mut endless, "").unwrap_err();
        assert!(
            error.is_data() && error.to_string().starts_with("the directory has more than 2000000 objects"),
            "{error}"
        );
        let mut endless = EndlessAnswer { head: b"{\"item\":{\"Name\":\"", entry: b"x", at: 0 };
        assert!(parse_stat(&mut endless).unwrap_err().is_eof());
        assert_eq!(endless.at as u64, MAX_STAT);
    }

    /// `head`, and then `entry` again and again.
    struct EndlessAnswer {
        head: &'static [u8],
        entry: &'static [u8],
        at: usize,
    }

    impl Read for EndlessAnswer {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            for byte in &mut *buf {
                *byte = match self.at.checked_sub(self.head.len()) {
                    Some(at) => self.entry[at % self.entry.len()],
                    None => self.head[self.at],
                };
                self.at += 1;
            }
            Ok(buf.len())
        }
    }
}
