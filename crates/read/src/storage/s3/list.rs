//! Listings, page by page.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object, OptionalObjectAttributes, RestoreStatus};

use super::bucket::S3Bucket;
use super::client_config::S3Client;
use super::failure::S3Failure;
use super::object_version::version_of;
use super::retry_timer::RetryTimer;
use crate::storage::{DirectoryListing, ObjectInfo, StorageError};
use dupfs_base::escape_bytes;

/// The page after `token` of the objects directly in `dir`. Objects in deeper directories are not listed.
///
/// # Errors
/// [`S3Failure`] of this one attempt.
pub(super) async fn page(
    bucket: &S3Bucket,
    client: &S3Client,
    dir: &str,
    token: Option<&str>,
    limit: Duration,
) -> Result<ListObjectsV2Output, S3Failure> {
    bucket.counters.lists.fetch_add(1, Ordering::Relaxed);
    let request = client
        .client
        .list_objects_v2()
        .bucket(bucket.config.bucket())
        .prefix(format!("{}{dir}", bucket.config.prefix()))
        .delimiter("/")
        // Keys may contain characters that XML cannot.
        .encoding_type(EncodingType::Url)
        .set_request_payer(bucket.payer.clone())
        .set_continuation_token(token.map(str::to_owned))
        .set_optional_object_attributes(bucket.config.is_aws().then(|| vec![OptionalObjectAttributes::RestoreStatus]));
    match tokio::time::timeout(limit, request.send()).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(e)) => Err(S3Failure::of_list(bucket.config.url(), &e)),
        Err(_) => Err(S3Failure::silent(bucket.config.url(), "no answer to a listing")),
    }
}

/// Appends all objects and directories directly in `dir`, which is empty or ends with a slash, to `out`.
///
/// # Errors
/// [`StorageError`]; then `out` is incomplete.
pub(super) async fn all(bucket: &S3Bucket, dir: &str, out: &mut DirectoryListing) -> Result<(), StorageError> {
    let mut token: Option<String> = None;
    loop {
        let mut timer = RetryTimer::new(bucket.timeout);
        let first = if dir.is_empty() && token.is_none() { bucket.take_first_page() } else { None };
        let page = loop {
            if let Some(page) = first {
                break page;
            }
            let client = bucket.client();
            match page(bucket, &client, dir, token.as_deref(), timer.answer_timeout()).await {
                Ok(page) => break page,
                Err(failure) => bucket.recover(&client, failure, &mut timer).await?,
            }
        };
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        out.objects.extend(page.contents().iter().filter_map(|object| info(bucket.config.prefix(), object, encoded)));
        let below = format!("{}{dir}", bucket.config.prefix());
        let dirs = page.common_prefixes().iter().filter_map(|common| directory(&below, common.prefix()?, encoded));
        out.directories.extend(dirs);
        if page.is_truncated() != Some(true) {
            return Ok(());
        }
        let next = page.next_continuation_token().map(str::to_owned);
        if next.is_none() || next == token {
            let reason = "the listing is incomplete and has no token for the next page; the service is faulty";
            return Err(StorageError::new(dupfs_base::ErrorKind::Io, bucket.config.url(), reason));
        }
        token = next;
    }
}

/// The name of a directory below the key prefix `below`; `None` for one that no URL can name.
fn directory(below: &str, common: &str, encoded: bool) -> Option<String> {
    let common = if encoded { decode(common)? } else { common.to_owned() };
    let name = common.strip_prefix(below)?.strip_suffix('/')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The object of a listing entry; `None` for the marker of a directory and for foreign keys.
fn info(prefix: &str, object: &Object, encoded: bool) -> Option<ObjectInfo> {
    let key = object.key()?;
    let key = if encoded { decode(key)? } else { key.to_owned() };
    let name = key.strip_prefix(prefix).filter(|name| !name.is_empty() && !name.ends_with('/'))?;
    let class: Option<Arc<str>> = object.storage_class().map(|class| class.as_str().into());
    let is_cold = matches!(class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE"));
    let archived = class.clone().filter(|_| is_cold && !is_restored(object.restore_status()));
    let Some(size) = object.size().and_then(|size| u64::try_from(size).ok()) else {
        log::warn!("{}: listed without a size, left out", escape_bytes(name.as_bytes()));
        return None;
    };
    let version = version_of(object.e_tag(), object.last_modified());
    Some(ObjectInfo { name: name.into(), size, version: version.into(), class, archived })
}

/// Returns true if a copy was restored from cold storage and has not expired.
fn is_restored(status: Option<&RestoreStatus>) -> bool {
    status.is_some_and(|s| s.is_restore_in_progress() != Some(true) && s.restore_expiry_date().is_some())
}

/// Decodes a key of a listing with `encoding-type=url`: `%HH`, and `+` for a space.
fn decode(key: &str) -> Option<String> {
    String::from_utf8(crate::storage::percent::percent_decode(&key.replace('+', " "))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::primitives::DateTime;
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
    fn directories_are_names_below_the_listed_one() {
        assert_eq!(directory("p/", "p/my+shop%2B/", true).as_deref(), Some("my shop+"));
        assert_eq!(directory("", "shop/", false).as_deref(), Some("shop"));
        assert_eq!((directory("p/", "p//", true), directory("p/", "q/", true)), (None, None));
    }

    #[test]
    fn objects_that_have_to_be_restored_first_are_archived() {
        let cold = |class: ObjectStorageClass, status: Option<RestoreStatus>| {
            info("", &object("k").storage_class(class).set_restore_status(status).build(), true).unwrap().archived
        };
        assert_eq!(cold(ObjectStorageClass::Glacier, None).as_deref(), Some("GLACIER"));
        assert_eq!(cold(ObjectStorageClass::DeepArchive, None).as_deref(), Some("DEEP_ARCHIVE"));
        assert_eq!(cold(ObjectStorageClass::GlacierIr, None), None);
        assert_eq!(cold(ObjectStorageClass::Standard, None), None);
        let in_progress = RestoreStatus::builder().is_restore_in_progress(true).build();
        assert!(cold(ObjectStorageClass::Glacier, Some(in_progress)).is_some());
        let done = RestoreStatus::builder().restore_expiry_date(DateTime::from_secs(2_000_000_000)).build();
        assert_eq!(cold(ObjectStorageClass::Glacier, Some(done.clone())), None);
        let restored = object("k").storage_class(ObjectStorageClass::Glacier).set_restore_status(Some(done)).build();
        assert_eq!(info("", &restored, true).unwrap().class.as_deref(), Some("GLACIER"));
        assert_eq!(info("", &object("k").build(), true).unwrap().class, None);
    }
}
