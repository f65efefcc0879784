//! Opening of stores by location.

use std::sync::Arc;

use super::{LocalStore, Location, ObjectStore, StorageError, StoreOptions};

/// Opens the store at `location` and checks that it answers. Starts threads for S3: a process that forks to become a daemon must
/// do so before.
///
/// # Errors
/// [`StorageError`] for a failure of the location, the network or the credentials.
pub fn open(location: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError> {
    match location {
        Location::Local(dir) => Ok(Arc::new(LocalStore::open(dir)?.with_prefixes(&options.file_prefixes)?)),
        #[cfg(feature = "s3")]
        Location::S3(s3) => Ok(Arc::new(super::s3::S3Store::open(s3, options)?)),
        #[cfg(not(feature = "s3"))]
        Location::S3(s3) => {
            let reason = "this program was built without support for S3; build it with the feature s3";
            Err(StorageError::new(dupfs_base::ErrorKind::Unsupported, &s3.display(), reason))
        }
    }
}
