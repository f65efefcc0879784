//! The first request to a bucket. It finds the region and reports errors of the configuration early.

use std::time::Duration;

use super::bucket::S3Bucket;
use super::failure::FailureCause;
use super::list;
use super::retry_timer::RetryTimer;
use crate::storage::{S3Credentials, StorageError};
use dupfs_base::ErrorKind;

/// Upper bound of the time without an answer while the store is opened: a user waits for it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Lists the first page, which the first listing begins with. That checks host, credentials, bucket and region, and needs no
/// other permission.
///
/// # Errors
/// [`StorageError`] if the bucket cannot be listed.
pub(super) async fn probe(bucket: &S3Bucket) -> Result<(), StorageError> {
    let mut timer = RetryTimer::new(bucket.timeout.min(OPEN_TIMEOUT));
    let mut is_redirected = false;
    loop {
        let client = bucket.client();
        let failure = match list::page(bucket, &client, "", None, timer.answer_timeout()).await {
            Ok(page) => {
                bucket.keep_first_page(page);
                return Ok(());
            }
            Err(failure) => failure,
        };
        match &failure.cause {
            FailureCause::Region(region) if !is_redirected && *region != client.region => {
                log::info!("{}: the bucket is in region {region}", bucket.config.url());
                is_redirected = true;
                bucket.use_region(region).await?;
            }
            FailureCause::NoService => return Err(failure.error),
            _ if failure.error.kind == ErrorKind::Denied && !client.signed => {
                return Err(without_credentials(bucket.config.credentials(), failure.error));
            }
            _ => bucket.recover(&client, failure, &mut timer).await?,
        }
    }
}

fn without_credentials(credentials: &S3Credentials, error: StorageError) -> StorageError {
    match credentials {
        S3Credentials::Chain => {
            let reason = "no credentials found, and the bucket is not public; set AWS_ACCESS_KEY_ID and \
                          AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or fill ~/.aws/credentials or ~/.boto";
            StorageError::new(ErrorKind::Denied, &error.object, reason)
        }
        S3Credentials::Anonymous | S3Credentials::Profile(_) | S3Credentials::Static { .. } => error,
    }
}
