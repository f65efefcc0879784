//! Opening of stores by location.

use std::sync::Arc;

use super::{LocalStore, Location, MultiStore, ObjectStore, RcloneStore, StorageError, StoreOptions};
#[cfg(feature = "s3")]
use super::{S3Credentials, S3Location, url::GOOGLE_STORAGE};

/// The options with the HMAC key of Google Cloud Storage that duplicity takes from the environment, if the store is there.
#[cfg(feature = "s3")]
fn with_account_of_google(location: &S3Location, options: &StoreOptions) -> StoreOptions {
    let mut options = options.clone();
    let is_google = location.host.as_deref() == Some(GOOGLE_STORAGE);
    if let Some((id, secret)) =
        options.secrets.text("GS_ACCESS_KEY_ID").zip(options.secrets.get("GS_SECRET_ACCESS_KEY"))
        && is_google
    {
        options.s3_credentials = S3Credentials::Static { id, secret, token: None };
    }
    options
}

/// Opens the store at `location` and checks that it answers. Starts threads for S3 and rclone: a process that forks to become a
/// daemon must do so before.
///
/// # Errors
/// [`StorageError`] for a failure of the location, the network or the credentials.
pub fn open(location: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError> {
    match location {
        Location::Local(dir) => Ok(Arc::new(LocalStore::open(dir)?.with_prefixes(&options.file_prefixes)?)),
        Location::Multi(multi) => Ok(Arc::new(MultiStore::open(multi, options, open)?)),
        Location::Remote(remote) => Ok(Arc::new(RcloneStore::open(remote, options)?)),
        #[cfg(feature = "s3")]
        Location::S3(s3) => {
            let options = with_account_of_google(s3, options);
            Ok(Arc::new(super::s3::S3Store::open(s3, &options)?))
        }
        #[cfg(not(feature = "s3"))]
        Location::S3(s3) => {
            let reason = "this program was built without support for S3; build it with the feature s3";
            Err(StorageError::new(dupfs_base::ErrorKind::Unsupported, &s3.display(), reason))
        }
    }
}
