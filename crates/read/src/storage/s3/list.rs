//! Listing, page by page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{EncodingType, Object, OptionalObjectAttributes, RestoreStatus};

use super::S3Bucket;
use super::connect::S3Client;
use super::failure::S3Failure;
use super::retry::RetryTimer;
use crate::storage::{ObjectInfo, StorageError};
use dupfs_base::escape_bytes;

/// Begins the version of an object that is listed without an ETag: no ETag has a space.
const UNTAGGED: &str = "modified ";

/// An ETag without its quotes, which not every service writes everywhere, and without the mark of a weak one.
fn bare_tag(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

/// The ETag that an object was listed with, bare.
pub(super) fn tag_of(object: &ObjectInfo) -> Option<&str> {
    Some(&*object.version).filter(|version| !version.starts_with(UNTAGGED))
}

/// Whether an answer's ETag and time of change are those that the object was listed with. What the service does not
/// tell is not held against it: the range's total size is compared too, and the backup has hashes.
pub(super) fn is_same(object: &ObjectInfo, tag: Option<&str>, modified: Option<&DateTime>) -> bool {
    match (tag_of(object), tag.map(bare_tag).filter(|tag| !tag.is_empty()), modified) {
        (Some(listed), Some(tag), _) => listed == tag,
        (None, _, Some(modified)) => *object.version == format!("{UNTAGGED}{}", modified.secs()),
        _ => true,
    }
}

/// One page after `token`: the objects right below `dir`, not those in deeper directories, which are nobody's here.
pub(super) async fn page(
    core: &S3Bucket,
    session: &S3Client,
    dir: &str,
    token: Option<&str>,
    most: Option<i32>,
) -> Result<ListObjectsV2Output, S3Failure> {
    core.counters.lists.fetch_add(1, Ordering::Relaxed);
    let request = session
        .client
        .list_objects_v2()
        .bucket(&core.plan.bucket)
        .prefix(format!("{}{dir}", core.plan.prefix))
        .delimiter("/")
        // Keys may hold what XML cannot.
        .encoding_type(EncodingType::Url)
        .set_continuation_token(token.map(str::to_owned))
        .set_max_keys(most)
        .set_optional_object_attributes(core.plan.is_aws().then(|| vec![OptionalObjectAttributes::RestoreStatus]));
    let longest = RetryTimer::new(core.timeout).answer();
    match tokio::time::timeout(longest, request.send()).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(e)) => Err(S3Failure::of_list(&core.plan.url, &e)),
        Err(_) => Err(S3Failure::silent(&core.plan.url, "no answer to a listing")),
    }
}

/// All objects right below `dir`, which is empty or ends with a slash.
pub(super) async fn all(core: &Arc<S3Bucket>, dir: &str, out: &mut Vec<ObjectInfo>) -> Result<(), StorageError> {
    let mut token: Option<String> = None;
    loop {
        let mut timer = RetryTimer::new(core.timeout);
        let page = loop {
            let session = core.session();
            match page(core, &session, dir, token.as_deref(), None).await {
                Ok(page) => break page,
                Err(failure) => core.recover(&session, failure, &mut timer).await?,
            }
        };
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        out.extend(page.contents().iter().filter_map(|object| info(&core.plan.prefix, object, encoded)));
        if page.is_truncated() != Some(true) {
            return Ok(());
        }
        let next = page.next_continuation_token().map(str::to_owned);
        if next.is_none() || next == token {
            let reason = "the listing says that there is more and not where; the service is not sound";
            return Err(StorageError::new(dupfs_base::ErrorKind::Io, &core.plan.url, reason));
        }
        token = next;
    }
}

/// What a listing tells of an object; `None` for the marker of a directory itself and for foreign keys.
fn info(prefix: &str, object: &Object, encoded: bool) -> Option<ObjectInfo> {
    let key = object.key()?;
    let key = if encoded { decode(key)? } else { key.to_owned() };
    let name = key.strip_prefix(prefix).filter(|name| !name.is_empty() && !name.ends_with('/'))?;
    let class = object.storage_class().map(|class| class.as_str().to_owned()).unwrap_or_default();
    let cold = matches!(class.as_str(), "GLACIER" | "DEEP_ARCHIVE") && !is_thawed(object.restore_status());
    let Some(size) = object.size().and_then(|size| u64::try_from(size).ok()) else {
        log::warn!("{}: listed without a size, left out", escape_bytes(name.as_bytes()));
        return None;
    };
    let version = match object.e_tag().map(bare_tag) {
        Some(tag) if !tag.is_empty() => tag.to_owned(),
        _ => format!("{UNTAGGED}{}", object.last_modified().map_or(0, DateTime::secs)),
    };
    Some(ObjectInfo { name: name.into(), size, version: version.into(), archived: cold.then(|| class.into()) })
}

/// Whether a copy was restored from cold storage and is still there.
fn is_thawed(status: Option<&RestoreStatus>) -> bool {
    status.is_some_and(|s| s.is_restore_in_progress() != Some(true) && s.restore_expiry_date().is_some())
}

/// A key as `encoding-type=url` has it: `%HH`, and `+` for a space.
fn decode(key: &str) -> Option<String> {
    String::from_utf8(crate::storage::url::percent_decode(&key.replace('+', " "))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::types::ObjectStorageClass;

    fn object(key: &str) -> aws_sdk_s3::types::builders::ObjectBuilder {
        Object::builder().key(key).size(5).e_tag("\"x\"")
    }

    #[test]
    fn keys_are_names_below_the_prefix() {
        let name = |key: &str| info("p/", &object(key).build(), true).map(|o| o.name.to_string());
        assert_eq!(name("p/a+b%2B%25").as_deref(), Some("a b+%"));
        assert_eq!(name("p/%C3%BC").as_deref(), Some("ü"));
        assert_eq!((name("p/"), name("p/sub/"), name("q/x"), name("p/%ff")), (None, None, None, None));
        let plain = info("", &object("a+b").build(), false).unwrap();
        assert_eq!((&*plain.name, plain.size, &*plain.version), ("a+b", 5, "x"));
    }

    #[test]
    fn cold_is_what_has_to_be_restored_first() {
        let cold = |class: ObjectStorageClass, status: Option<RestoreStatus>| {
            info("", &object("k").storage_class(class).set_restore_status(status).build(), true).unwrap().archived
        };
        assert_eq!(cold(ObjectStorageClass::Glacier, None).as_deref(), Some("GLACIER"));
        assert_eq!(cold(ObjectStorageClass::DeepArchive, None).as_deref(), Some("DEEP_ARCHIVE"));
        assert_eq!(cold(ObjectStorageClass::GlacierIr, None), None);
        assert_eq!(cold(ObjectStorageClass::Standard, None), None);
        let under_way = RestoreStatus::builder().is_restore_in_progress(true).build();
        assert!(cold(ObjectStorageClass::Glacier, Some(under_way)).is_some());
        let done = RestoreStatus::builder().restore_expiry_date(DateTime::from_secs(2_000_000_000)).build();
        assert_eq!(cold(ObjectStorageClass::Glacier, Some(done)), None);
    }

    #[test]
    fn an_object_without_a_tag_is_known_by_its_time() {
        let listed = |tag: Option<&str>, time| {
            let object = Object::builder().key("k").size(5).set_e_tag(tag.map(str::to_owned));
            info("", &object.last_modified(DateTime::from_secs(time)).build(), true).unwrap()
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
