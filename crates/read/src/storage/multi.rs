//! Several stores of one backup: duplicity's `multi:`, as mirrors or with the objects distributed over them.

mod object_copies;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::object_copies::{Copies, ObjectCopies};
use super::multi_location::{MultiLocation, StoreVariable};
use super::{
    BucketLocation, DirectoryListing, Location, ObjectInfo, ObjectStore, ReadTimeout, RejectedCopy, S3Credentials,
    StorageError, StoreOptions, Traffic, UrlOptions, parse_url_with,
};
use dupfs_base::sync::{lock, pause_until};
use dupfs_base::{ByteRange, ErrorKind, RequestContext, Secret, Stopped};

/// The pause before all copies are tried again, when no store answers.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// A store whose failure took this time is read last for [`READ_LAST`]: otherwise each object would wait for it.
const SLOW_FAILURE: Duration = Duration::from_secs(1);
/// The time after which a cancelled read counts as a slow failure of its store. Prefetches are often cancelled earlier.
const STALL: Duration = Duration::from_secs(10);
/// The time for which a store is read last, unless it serves a read before, or the next listing does what the failed one did not.
const READ_LAST: Duration = Duration::from_secs(600);

/// Opens one of the stores.
pub(super) type OpenStore = fn(&Location, &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError>;

/// One of several stores.
#[derive(Debug)]
struct MultiMember {
    url: String,
    location: Location,
    options: StoreOptions,
    open: OpenStore,
    state: Mutex<MemberState>,
}

#[derive(Debug, Default)]
struct MemberState {
    /// `None` as long as it could not be opened.
    store: Option<Arc<dyn ObjectStore>>,
    /// Its last complete listing.
    objects: Vec<ObjectInfo>,
    /// The reason why it could not be listed, as it was logged.
    failure: Option<String>,
    /// The time of its last failed read that took long. A listing does not disprove it: objects may stall where listings do not.
    slow_read: Option<Instant>,
    /// The time of its last listing, if that was not answered.
    unlisted: Option<Instant>,
}

/// Several stores of one backup. The listing has the objects of all of them, and an object is read from any store that has
/// it. A store that cannot be reached is left out until it answers, and so is a damaged copy while there is another one.
#[derive(Debug)]
pub struct MultiStore {
    url: String,
    members: Arc<Vec<MultiMember>>,
    copies: ObjectCopies,
    /// Upper bound of the time in which a read waits while no store answers.
    read_timeout: Option<ReadTimeout>,
}

impl MultiStore {
    /// Opens all stores of the configuration by `open`.
    ///
    /// # Errors
    /// [`StorageError`] if the configuration is invalid, or if no store can be opened.
    pub(super) fn open(
        location: &MultiLocation,
        options: &StoreOptions,
        open: OpenStore,
    ) -> Result<Self, StorageError> {
        let url = location.display();
        let mut options = options.clone();
        // A read that waits for one store for long would not come to the next one.
        let read_timeout = options.read_timeout.take();
        let mut members = Vec::new();
        for entry in location.read()? {
            // As in duplicity, variables also apply to the stores that follow.
            for StoreVariable { name, value } in &entry.env {
                options.secrets = options.secrets.clone().with(name, Secret::new(value.as_bytes()));
            }
            if !entry.env.is_empty() {
                use_account(&mut options);
            }
            let url_options = UrlOptions { endpoint_url: options.s3_endpoint_url.clone(), ..UrlOptions::default() };
            let location = parse_url_with(&format!("{}{}", entry.url, location.subpath), &url_options)?;
            if matches!(location, Location::Multi(_)) {
                return Err(StorageError::new(
                    ErrorKind::Invalid,
                    &url,
                    "a store of the configuration is multi: itself",
                ));
            }
            let (shown, state) = (location.display_without_secrets(), Mutex::default());
            members.push(MultiMember { url: shown, location, options: options.clone(), open, state });
        }
        let store = Self { url, members: Arc::new(members), copies: ObjectCopies::default(), read_timeout };
        store.list(&RequestContext::unlimited())?;
        Ok(store)
    }

    /// Does `work` with each store, all at once. Stores that were not opened yet are opened.
    fn with_each<T: Send>(
        &self,
        work: impl Fn(&Arc<dyn ObjectStore>) -> Result<T, StorageError> + Sync,
    ) -> Vec<Result<T, StorageError>> {
        let run = |member: &MultiMember| -> Result<T, StorageError> { work(&member.store()?) };
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.members.iter().map(|member| scope.spawn(|| run(member))).collect();
            let panicked = |_| Err(StorageError::new(ErrorKind::Io, &self.url, "internal error (bug in dupfs)"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    }
}

/// Takes an access key of AWS that the configuration has.
fn use_account(options: &mut StoreOptions) {
    if let (Some(id), Some(secret)) =
        (options.secrets.text("AWS_ACCESS_KEY_ID"), options.secrets.get("AWS_SECRET_ACCESS_KEY"))
    {
        let token = options.secrets.get("AWS_SESSION_TOKEN");
        options.s3_credentials = S3Credentials::Static { id, secret, token };
    }
}

impl MultiMember {
    fn store(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        if let Some(store) = &lock(&self.state).store {
            return Ok(Arc::clone(store));
        }
        // Listings are one at a time, so it is opened once.
        let store = (self.open)(&self.location, &self.options)?;
        lock(&self.state).store = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Returns true if the store is read only after the others, because it failed slowly.
    fn is_last(&self) -> bool {
        let state = lock(&self.state);
        [state.slow_read, state.unlisted].into_iter().flatten().any(|time| time.elapsed() < READ_LAST)
    }

    /// Records that a read got bytes.
    fn record_bytes(&self) {
        let mut state = lock(&self.state);
        (state.slow_read, state.unlisted) = (None, None);
    }

    /// Records that a read failed by `error` after `waited`. What the store says of the object is no failure of the store.
    fn record_failure(&self, error: &StorageError, waited: Duration) {
        if waited >= SLOW_FAILURE && (error.unanswered || matches!(error.kind, ErrorKind::Io | ErrorKind::Timeout)) {
            self.read_last(waited);
        }
    }

    /// Records that the request of a read ended after the store had not answered for `waited`.
    fn record_stop(&self, stopped: Stopped, waited: Duration) {
        let is_slow = match stopped {
            Stopped::WouldBlock => false,
            Stopped::Deadline => waited >= SLOW_FAILURE,
            Stopped::Cancelled => waited >= STALL,
        };
        if is_slow {
            self.read_last(waited);
        }
    }

    /// From now on the store is read after the others.
    fn read_last(&self, waited: Duration) {
        let was_last = self.is_last();
        lock(&self.state).slow_read = Some(Instant::now());
        if !was_last {
            log::info!("{}: no answer for {} s; the other stores are read first", self.url, waited.as_secs());
        }
    }

    /// Records the outcome of a listing. A store that does not answer now has the objects that it had.
    fn record(&self, listed: Result<Vec<ObjectInfo>, StorageError>) -> Vec<ObjectInfo> {
        let mut state = lock(&self.state);
        match listed {
            Ok(objects) => {
                if state.failure.take().is_some() {
                    log::info!("{}: answers again", self.url);
                }
                (state.objects, state.unlisted) = (objects, None);
            }
            Err(error) => {
                if error.unanswered {
                    state.unlisted = Some(Instant::now());
                }
                let line = error.to_string();
                if state.failure.as_ref() != Some(&line) {
                    log::warn!("{line}; the other stores are read, and what only this one has is missing");
                }
                state.failure = Some(line);
            }
        }
        state.objects.clone()
    }
}

/// The copies of each object: the largest first, because a smaller one was not written completely, and else in the order of the
/// stores.
fn union(listings: Vec<Vec<ObjectInfo>>) -> HashMap<Arc<str>, Copies> {
    let mut all: HashMap<Arc<str>, Copies> = HashMap::new();
    for (at, objects) in listings.into_iter().enumerate() {
        for object in objects {
            all.entry(Arc::clone(&object.name)).or_default().push((at, object));
        }
    }
    for copies in all.values_mut() {
        copies.sort_by_key(|(at, object)| (std::cmp::Reverse(object.size), *at));
    }
    all
}

impl ObjectStore for MultiStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        context.check_may_block().map_err(|stopped| StorageError::stopped(&self.url, stopped))?;
        let listed = self.with_each(|store| store.list(context));
        context.check().map_err(|stopped| StorageError::stopped(&self.url, stopped))?;
        let first_error = listed.iter().find_map(|listed| listed.as_ref().err().cloned());
        if let Some(error) = first_error.filter(|_| listed.iter().all(Result::is_err)) {
            return Err(error);
        }
        let listings = self.members.iter().zip(listed).map(|(member, listed)| member.record(listed)).collect();
        let copies = union(listings);
        let objects = copies.values().filter_map(|copies| copies.first()).map(|(_, object)| object.clone()).collect();
        self.copies.replace(copies);
        Ok(objects)
    }

    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        let listed = self.with_each(|store| store.list_directory(dir, context));
        if let Some(error) = listed
            .iter()
            .find_map(|listed| listed.as_ref().err().cloned())
            .filter(|_| listed.iter().all(Result::is_err))
        {
            return Err(error);
        }
        let mut directories = BTreeMap::new();
        let mut objects = Vec::new();
        for listing in listed.into_iter().flatten() {
            directories.extend(listing.directories.into_iter().map(|name| (name, ())));
            objects.push(listing.objects);
        }
        let objects = union(objects).into_values().filter_map(|copies| Some(copies.into_iter().next()?.1)).collect();
        Ok(DirectoryListing { objects, directories: directories.into_keys().collect() })
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let copies = self.copies.choose(object)?;
        let range = ByteRange { start: range.start, end: range.end.min(object.size) };
        if range.is_empty() {
            return Ok(Box::new(io::empty()));
        }
        let mut stream = MultiStream {
            members: Arc::clone(&self.members),
            object: object.clone(),
            all: copies,
            copies: Vec::new(),
            read_timeout: self.read_timeout.clone(),
            since: Instant::now(),
            at: range.start,
            end: range.end,
            inner: None,
            member: 0,
            first_bytes: true,
            context: context.clone(),
        };
        stream.open_first()?;
        if range.start == 0 {
            self.copies.record(object, stream.member);
        }
        Ok(Box::new(stream))
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        let (member, other) = self.copies.reject(object, is_damaged)?;
        Some(RejectedCopy { store: self.members.get(member)?.url.clone(), other })
    }

    fn traffic(&self) -> Traffic {
        let stores = self.members.iter().filter_map(|member| lock(&member.state).store.clone());
        stores.map(|store| store.traffic()).fold(Traffic::default(), |sum, one| Traffic {
            list_requests: sum.list_requests.saturating_add(one.list_requests),
            get_requests: sum.get_requests.saturating_add(one.get_requests),
            retries: sum.retries.saturating_add(one.retries),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }

    fn bucket(&self) -> Option<BucketLocation> {
        None
    }
}

/// A range of an object, from the first store that gives it. After a failure it goes on with the copy of the next store.
struct MultiStream {
    members: Arc<Vec<MultiMember>>,
    object: ObjectInfo,
    /// All copies, and those that were not tried yet, the next one last.
    all: Copies,
    copies: Copies,
    read_timeout: Option<ReadTimeout>,
    /// The time of the last progress.
    since: Instant,
    /// The next byte, and the end of the range.
    at: u64,
    end: u64,
    inner: Option<Box<dyn Read + Send>>,
    /// The store of `inner`, and whether its next bytes are the first ones of `inner`.
    member: usize,
    first_bytes: bool,
    context: RequestContext,
}

impl MultiStream {
    /// Opens the first copy that can be opened.
    ///
    /// # Errors
    /// As [`Self::open_next`].
    fn open_first(&mut self) -> Result<(), StorageError> {
        self.copies = self.all_in_order();
        self.open_next(None)
    }

    /// All copies, the one to be tried first last.
    fn all_in_order(&self) -> Copies {
        let is_last = |at: usize| self.members.get(at).is_some_and(MultiMember::is_last);
        let (last, first): (Copies, Copies) = self.all.iter().rev().cloned().partition(|(at, _)| is_last(*at));
        [last, first].concat()
    }

    /// Opens the next copy that can be opened, after the failure of the one before. As long as stores do not answer, all copies
    /// are tried again.
    ///
    /// # Errors
    /// `failure`, or else that of the first copy, if none can.
    fn open_next(&mut self, failure: Option<StorageError>) -> Result<(), StorageError> {
        let mut unanswered = failure.as_ref().is_some_and(|error| error.unanswered);
        let mut first = failure;
        loop {
            while let Some((at, copy)) = self.copies.pop() {
                let range = ByteRange { start: self.at, end: self.end };
                let member = self.members.get(at);
                let store = member.and_then(|member| lock(&member.state).store.clone());
                let begun = Instant::now();
                let opened = match store {
                    Some(store) => store.open(&copy, range, &self.context),
                    None => Err(StorageError::new(ErrorKind::Io, &copy.name, "its store cannot be reached")),
                };
                match opened {
                    Ok(stream) => {
                        (self.inner, self.member, self.first_bytes) = (Some(stream), at, true);
                        return Ok(());
                    }
                    Err(error) => {
                        if let Err(stopped) = self.context.check_may_block() {
                            member.into_iter().for_each(|member| member.record_stop(stopped, begun.elapsed()));
                            return Err(StorageError::stopped(&copy.name, stopped));
                        }
                        log::info!("{error}");
                        member.into_iter().for_each(|member| member.record_failure(&error, begun.elapsed()));
                        unanswered |= error.unanswered;
                        first = Some(first.unwrap_or(error));
                    }
                }
            }
            let limit = self.read_timeout.as_ref().map_or(Duration::ZERO, ReadTimeout::get);
            if !unanswered || self.since.elapsed() >= limit {
                return Err(first.unwrap_or_else(|| StorageError::missing(&self.object)));
            }
            pause_until(Instant::now() + ROUND_PAUSE, &self.context)
                .map_err(|stopped| StorageError::stopped(&self.object.name, stopped))?;
            unanswered = false;
            self.copies = self.all_in_order();
        }
    }
}

impl Read for MultiStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || self.at >= self.end {
            return Ok(0);
        }
        loop {
            let Some(inner) = &mut self.inner else { return Err(StorageError::missing(&self.object).into_io()) };
            let begun = Instant::now();
            let error = match inner.read(buf) {
                Ok(0) => StorageError::short(&self.object, self.at, self.end),
                Ok(got) => {
                    if self.first_bytes {
                        self.first_bytes = false;
                        self.members.get(self.member).into_iter().for_each(MultiMember::record_bytes);
                    }
                    self.at = self.at.saturating_add(got as u64);
                    self.since = Instant::now();
                    return Ok(got);
                }
                Err(e) => StorageError::recover(&self.object.name, &e),
            };
            let member = self.members.get(self.member);
            if let Err(stopped) = self.context.check() {
                member.into_iter().for_each(|member| member.record_stop(stopped, begun.elapsed()));
                return Err(StorageError::stopped(&self.object.name, stopped).into_io());
            }
            member.into_iter().for_each(|member| member.record_failure(&error, begun.elapsed()));
            self.open_next(Some(error)).map_err(StorageError::into_io)?;
        }
    }
}

#[cfg(test)]
#[path = "multi/tests.rs"]
mod tests;
