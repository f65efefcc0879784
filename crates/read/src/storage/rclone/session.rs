//! Requests to a running rclone: attempts, limits and the state of objects.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::MAX_STREAMS;
use super::diagnosis::diagnose;
use super::encoding::percent_encode;
use super::failure::{RcloneCause, RcloneFailure};
use super::http::{HttpAnswer, HttpFailure, RcloneRequest, send};
use super::listing::{parse_list, parse_stat, seconds_of};
use super::process::{RcloneProcess, RcloneStart};
use super::program::RcloneProgram;
use super::remote::RcloneRemote;
use super::retries::RcloneRetries;
use super::stale_answers::StaleAnswers;
use crate::storage::traffic::TrafficCounters;
use crate::storage::{DirectoryListing, ObjectInfo, ReadTimeout, StorageError, StoreOptions};
use dupfs_base::sync::{Permit, Semaphore};
use dupfs_base::{ErrorKind, RequestContext, Stopped};

/// Upper bound of the time to wait for another stream to end. A stream that is not read blocks no other one for longer.
const MAX_PERMIT_WAIT: Duration = Duration::from_secs(2);
/// Upper bound of the bytes of a message.
const MAX_MESSAGE: u64 = 64 * 1024;

/// The requests to one running rclone, for the store and its streams.
#[derive(Debug)]
pub(super) struct RcloneSession {
    pub(super) remote: RcloneRemote,
    process: RcloneProcess,
    pub(super) timeout: Duration,
    /// Upper bound of the time in which a read waits for a service that does not answer.
    pub(super) read_timeout: ReadTimeout,
    streams: Semaphore,
    stale: StaleAnswers,
    pub(super) counters: TrafficCounters,
}

impl RcloneSession {
    /// Starts rclone for `remote`.
    ///
    /// # Errors
    /// [`StorageError`] if there is no thread for it.
    pub(super) fn start(
        program: RcloneProgram,
        remote: RcloneRemote,
        options: &StoreOptions,
    ) -> Result<Self, StorageError> {
        let process = RcloneProcess::start(RcloneStart {
            program,
            remote: remote.clone(),
            timeout: options.timeout,
            secrets: options.secrets.clone(),
            ca_file: options.ca_file.clone(),
        })?;
        let streams = Semaphore::new(u64::from(MAX_STREAMS).min(options.connections as u64).max(1));
        let (timeout, counters) = (options.timeout, TrafficCounters::default());
        let read_timeout = options.read_timeout.clone().unwrap_or_else(|| ReadTimeout::new(timeout));
        Ok(Self { remote, process, timeout, read_timeout, streams, stale: StaleAnswers::new(), counters })
    }

    /// Sends one request.
    pub(super) fn request(
        &self,
        object: &str,
        request: &RcloneRequest<'_>,
        retries: &RcloneRetries,
        context: &RequestContext,
    ) -> Result<HttpAnswer, RcloneFailure> {
        let counter = match request {
            RcloneRequest::Get(..) => &self.counters.gets,
            RcloneRequest::List(_) | RcloneRequest::Stat(_) => &self.counters.lists,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let endpoint = self.process.endpoint(self.timeout, context).map_err(|error| {
            let is_dead = error.kind == ErrorKind::Io;
            let cause = if is_dead { RcloneCause::Busy } else { RcloneCause::Final };
            RcloneFailure { error, cause }
        })?;
        let mut answer = send(&endpoint, request, retries.answer_timeout(), context).map_err(|failure| {
            if matches!(failure, HttpFailure::Gone) {
                self.process.is_gone(&endpoint);
            }
            RcloneFailure::of_transport(object, failure)
        })?;
        match (request, answer.head.status) {
            (_, 200) | (RcloneRequest::Get(..), 206) => {
                self.stale.clear();
                Ok(answer)
            }
            (_, status @ ..400) => Err(RcloneFailure::invalid(object, format!("its status is {status}"))),
            (_, status) => {
                let failure = RcloneFailure::of_answer(object, status, &answer.body.text(MAX_MESSAGE));
                let is_stale = matches!(failure.cause, RcloneCause::Stale | RcloneCause::NoAnswer);
                if is_stale && self.stale.add() {
                    self.process.is_gone(&endpoint);
                }
                Err(failure)
            }
        }
    }

    /// Lists `dir`, with its directories unless `files_only`. `opening` is true for the listing that opens the store.
    ///
    /// # Errors
    /// [`StorageError`] for a failure of the service, or for the end of the request.
    pub(super) fn list(
        &self,
        dir: &str,
        files_only: bool,
        context: &RequestContext,
        opening: bool,
    ) -> Result<DirectoryListing, StorageError> {
        let url = &self.remote.url;
        let parameters = serde_json::json!({
            "fs": self.remote.fs,
            "remote": self.remote.path(dir),
            "opt": { "noMimeType": true, "filesOnly": files_only },
        });
        let parameters = parameters.to_string();
        let mut retries = RcloneRetries::new(self.timeout, opening);
        loop {
            let listed =
                self.request(url, &RcloneRequest::List(&parameters), &retries, context).and_then(|mut answer| {
                    parse_list(&mut answer.body, if files_only { dir } else { "" })
                        .map_err(|error| RcloneFailure::of_json(url, error, &mut answer.body))
                });
            let failure = match listed {
                Ok(listing) => return Ok(listing),
                Err(failure) => self.explained(failure, context),
            };
            if failure.cause == RcloneCause::Absent {
                let reason = "no such directory; check the URL (a path after one slash begins at the home directory of the \
                              user, after two at the root)";
                let reason =
                    if self.remote.fs.starts_with("dupfs") { reason } else { "no such directory; check the URL" };
                return Err(StorageError::new(ErrorKind::NotFound, url, reason));
            }
            self.pause(&mut retries, failure, context)?;
        }
    }

    /// Waits before the next attempt.
    pub(super) fn pause(
        &self,
        retries: &mut RcloneRetries,
        failure: RcloneFailure,
        context: &RequestContext,
    ) -> Result<(), StorageError> {
        retries.pause(failure, context)?;
        self.counters.retries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The failure with the reason that the ssh program states, if rclone knows none.
    pub(super) fn explained(&self, failure: RcloneFailure, context: &RequestContext) -> RcloneFailure {
        match (&self.remote.diagnosis, failure.cause) {
            (Some(command), RcloneCause::Closed) => {
                diagnose(command, &failure.error.object, &context.within(self.timeout)).unwrap_or(failure)
            }
            _ => failure,
        }
    }

    /// Waits until fewer objects are read than may be at once; `None` if that takes long.
    pub(super) fn permit(&self, object: &str, context: &RequestContext) -> Result<Option<Permit>, StorageError> {
        match self.streams.acquire(1, &context.within(MAX_PERMIT_WAIT)) {
            Ok(permit) => Ok(Some(permit)),
            Err(Stopped::Deadline) => {
                context.check().map_err(|stopped| StorageError::stopped(object, stopped))?;
                Ok(None)
            }
            Err(stopped) => Err(StorageError::stopped(object, stopped)),
        }
    }

    /// The path of an object in requests.
    pub(super) fn get_path(&self, object: &ObjectInfo) -> String {
        percent_encode(&format!("[{}]/{}", self.remote.fs, self.remote.path(&object.name)))
    }

    /// Checks that an answer is about the object that was listed. rclone before 1.64 sends no time with an object; then it is
    /// asked for.
    pub(super) fn check_version(
        &self,
        object: &ObjectInfo,
        modified: Option<i64>,
        retries: &RcloneRetries,
        context: &RequestContext,
    ) -> Result<(), RcloneFailure> {
        let Some(listed) = seconds_of(&object.version) else { return Ok(()) };
        let is_same = match modified {
            Some(seconds) => seconds == listed,
            None => {
                let parameters = serde_json::json!({
                    "fs": self.remote.fs,
                    "remote": self.remote.path(&object.name),
                    "opt": { "noMimeType": true },
                });
                let request = parameters.to_string();
                let mut answer = self.request(&object.name, &RcloneRequest::Stat(&request), retries, context)?;
                let stat = parse_stat(&mut answer.body)
                    .map_err(|error| RcloneFailure::of_json(&object.name, error, &mut answer.body))?;
                let Some(stat) = stat else { return Err(RcloneFailure::last(StorageError::missing(object))) };
                stat.version == object.version
            }
        };
        if is_same { Ok(()) } else { Err(RcloneFailure::last(StorageError::replaced(object))) }
    }
}
