//! The version of an S3 object: its ETag, or the time of its last change.

use aws_sdk_s3::primitives::DateTime;

use crate::storage::ObjectInfo;

/// Prefix of the version of an object that is listed without an ETag. No ETag has a space.
const UNTAGGED: &str = "modified ";

/// An ETag without its quotes, which some services omit, and without the mark of a weak one.
fn bare_tag(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

/// The version of an object that is listed with this ETag and time.
pub(super) fn version_of(tag: Option<&str>, modified: Option<&DateTime>) -> String {
    match tag.map(bare_tag) {
        Some(tag) if !tag.is_empty() => tag.to_owned(),
        _ => format!("{UNTAGGED}{}", modified.map_or(0, DateTime::secs)),
    }
}

/// The ETag that an object was listed with, without quotes.
pub(super) fn tag_of(object: &ObjectInfo) -> Option<&str> {
    Some(&*object.version).filter(|version| !version.starts_with(UNTAGGED))
}

/// Returns true unless the ETag or the time of an answer differs from those of the listing. Values that the service omits are
/// not compared: the total size of the range is compared too, and the backup has hashes.
pub(super) fn is_same(object: &ObjectInfo, tag: Option<&str>, modified: Option<&DateTime>) -> bool {
    match (tag_of(object), tag.map(bare_tag).filter(|tag| !tag.is_empty()), modified) {
        (Some(listed), Some(tag), _) => listed == tag,
        (None, _, Some(modified)) => *object.version == format!("{UNTAGGED}{}", modified.secs()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_without_a_tag_is_identified_by_its_time() {
        let listed = |tag: Option<&str>, time| ObjectInfo {
            name: "k".into(),
            size: 5,
            version: version_of(tag, Some(&DateTime::from_secs(time))).into(),
            class: None,
            archived: None,
        };
        let (early, late) = (DateTime::from_secs(5), DateTime::from_secs(6));
        for tag in [None, Some("\"\"")] {
            let object = listed(tag, 5);
            assert_eq!(tag_of(&object), None);
            assert!(is_same(&object, tag, Some(&early)) && !is_same(&object, None, Some(&late)));
        }
        let tagged = listed(Some("W/\"x\""), 5);
        assert_eq!(tag_of(&tagged), Some("x"));
        assert!(is_same(&tagged, Some("\"x\""), Some(&late)) && !is_same(&tagged, Some("y"), Some(&early)));
    }
}
