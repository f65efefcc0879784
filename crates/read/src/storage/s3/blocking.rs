//! Waiting of a thread for work on the async runtime.

use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::storage::StorageError;
use dupfs_base::sync::Monitor;
use dupfs_base::{ErrorKind, RequestContext};

/// Publishes the outcome of a task. A task that panics or is aborted publishes an error.
struct OutcomeSender<T: Send + 'static> {
    outcome: Arc<Monitor<Option<Result<T, StorageError>>>>,
    object: Arc<str>,
}

impl<T: Send + 'static> Drop for OutcomeSender<T> {
    fn drop(&mut self) {
        self.outcome.update(|outcome| {
            outcome.get_or_insert_with(|| Err(StorageError::new(ErrorKind::Io, &self.object, "the store was closed")));
        });
    }
}

/// Runs `work` on the runtime and waits for its outcome within the limits of `context`. The work is aborted when they end:
/// its connections are closed and its permits are returned.
///
/// # Errors
/// The error of `work`, or one of the kind of the end of the request.
pub(super) fn wait_for<T: Send + 'static>(
    runtime: &Runtime,
    object: &str,
    context: &RequestContext,
    work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
) -> Result<T, StorageError> {
    let outcome = Monitor::new(None);
    let sender = OutcomeSender { outcome: Arc::clone(&outcome), object: object.into() };
    let task = runtime.spawn(async move {
        let result = work.await;
        sender.outcome.update(|outcome| *outcome = Some(result));
    });
    let done = outcome.wait_until(context, Option::take);
    done.unwrap_or_else(|stopped| {
        task.abort();
        Err(StorageError::stopped(object, stopped))
    })
}
