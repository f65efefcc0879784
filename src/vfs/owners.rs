//! The owners that files appear to have: names are mapped to this machine's numbers as duplicity maps them on restore
//! (FORMAT.md 4.2; `path.py`, `fromtar`): by name where the name exists here, else by the archived number.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Group, User};

use dupfs_base::sync::{Monitor, lock};
use dupfs_base::{RequestContext, Stopped};
use dupfs_format::EntryMeta;

/// Upper bound of the time that a request waits for the user database, which may be on the network.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// A name whose lookup failed is looked up again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The options by which archived owners and modes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerOptions {
    /// Show archived numbers, not this machine's numbers of the archived names.
    pub numeric: bool,
    /// Show this owner for everything.
    pub uid: Option<u32>,
    /// Show this group for everything.
    pub gid: Option<u32>,
    /// Mode bits to remove from everything.
    pub umask: u16,
}

/// The owner and group to show for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerIds {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// True if an archived number replaces a name whose lookup failed or takes too long.
    pub(super) provisional: bool,
}

/// A name of the user database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum OwnerName {
    User(String),
    Group(String),
}

/// The state of a lookup.
#[derive(Clone, Copy, Debug)]
enum OwnerLookup {
    Running {
        since: Instant,
    },
    /// The number; `None` if this machine has no such name.
    Found(Option<u32>),
    Failed {
        at: Instant,
    },
}

/// Queries the user database for the number of a name.
type AskDatabase = dyn Fn(&OwnerName) -> io::Result<Option<u32>> + Send + Sync;

/// Maps owners. A separate thread queries the user database, so that no request waits for it longer than
/// [`LOOKUP_TIMEOUT`].
pub(super) struct Owners {
    options: OwnerOptions,
    lookups: Arc<Monitor<HashMap<OwnerName, OwnerLookup>>>,
    /// The queue of the lookup thread; `None` before the first lookup.
    queue: Mutex<Option<Sender<OwnerName>>>,
    ask: Arc<AskDatabase>,
    timeout: Duration,
    retry_after: Duration,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Owners {
    pub(super) fn new(options: OwnerOptions) -> Self {
        Self::with_database(options, Arc::new(query_user_database), LOOKUP_TIMEOUT, RETRY_AFTER)
    }

    fn with_database(options: OwnerOptions, ask: Arc<AskDatabase>, timeout: Duration, retry_after: Duration) -> Self {
        let (lookups, queue) = (Monitor::new(HashMap::new()), Mutex::default());
        Self { options, lookups, queue, ask, timeout, retry_after }
    }

    /// The owner and group to show for `meta`. Waits for a name that was not looked up before, within the limits of the
    /// request and for a bounded time.
    ///
    /// # Errors
    /// [`Stopped::WouldBlock`] if a name was not looked up before and the request may not block.
    pub(super) fn ids(&self, meta: &EntryMeta, context: &RequestContext) -> Result<OwnerIds, Stopped> {
        let (uid, uid_provisional) = match self.options.uid {
            Some(uid) => (uid, false),
            None => self.by_name(OwnerName::User, &meta.uname, meta.uid, context)?,
        };
        let (gid, gid_provisional) = match self.options.gid {
            Some(gid) => (gid, false),
            None => self.by_name(OwnerName::Group, &meta.gname, meta.gid, context)?,
        };
        Ok(OwnerIds { uid, gid, provisional: uid_provisional || gid_provisional })
    }

    /// The owner and group to show for an object whose owner has no name.
    pub(super) fn numbers(&self, meta: &EntryMeta) -> OwnerIds {
        let (uid, gid) = (self.options.uid.unwrap_or(meta.uid), self.options.gid.unwrap_or(meta.gid));
        OwnerIds { uid, gid, provisional: false }
    }

    /// The mode bits to show for `mode`.
    pub(super) fn mode(&self, mode: u16) -> u16 {
        mode & 0o7777 & !self.options.umask
    }

    /// The number of `name`, else `archived`; true if that may change.
    fn by_name(
        &self,
        kind: fn(String) -> OwnerName,
        name: &[u8],
        archived: u32,
        context: &RequestContext,
    ) -> Result<(u32, bool), Stopped> {
        if self.options.numeric || name.is_empty() {
            return Ok((archived, false));
        }
        // No user database has names of other bytes.
        let Ok(text) = std::str::from_utf8(name) else { return Ok((archived, false)) };
        let name = kind(text.to_owned());
        self.start_lookup(&name);
        let deadline = Instant::now().checked_add(self.timeout);
        let deadline = [deadline, context.deadline()].into_iter().flatten().min();
        let bounded = RequestContext::new(deadline, context.cancel_token().clone());
        let bounded = if context.may_block() { bounded } else { RequestContext::cached_only() };
        let found = self.lookups.wait_until(&bounded, |lookups| match lookups.get(&name) {
            Some(OwnerLookup::Found(id)) => Some((id.unwrap_or(archived), false)),
            Some(OwnerLookup::Running { since }) if since.elapsed() < self.timeout => None,
            Some(OwnerLookup::Running { .. } | OwnerLookup::Failed { .. }) | None => Some((archived, true)),
        });
        match found {
            Ok(found) => Ok(found),
            Err(Stopped::WouldBlock) => Err(Stopped::WouldBlock),
            Err(Stopped::Deadline | Stopped::Cancelled) => Ok((archived, true)),
        }
    }

    /// Queues the lookup of `name` unless it is running or done.
    fn start_lookup(&self, name: &OwnerName) {
        {
            let mut lookups = self.lookups.lock();
            match lookups.get(name) {
                Some(OwnerLookup::Running { .. } | OwnerLookup::Found(_)) => return,
                Some(OwnerLookup::Failed { at }) if at.elapsed() < self.retry_after => return,
                Some(OwnerLookup::Failed { .. }) | None => {}
            }
            // After a lookup that hangs, a new one waits no longer than that one has.
            let since = oldest_running(&lookups).unwrap_or_else(Instant::now);
            lookups.insert(name.clone(), OwnerLookup::Running { since });
        }
        if self.enqueue(name.clone()).is_err() {
            self.lookups.update(|lookups| lookups.insert(name.clone(), OwnerLookup::Failed { at: Instant::now() }));
        }
    }

    fn enqueue(&self, name: OwnerName) -> io::Result<()> {
        let mut queue = lock(&self.queue);
        let sender = match &*queue {
            Some(sender) => sender.clone(),
            None => {
                let (sender, receiver) = channel();
                let (lookups, ask) = (Arc::clone(&self.lookups), Arc::clone(&self.ask));
                let work = move || answer_lookups(&receiver, &lookups, &*ask);
                thread::Builder::new().name("dupfs-owners".into()).spawn(work)?;
                queue.insert(sender).clone()
            }
        };
        sender.send(name).map_err(|_| io::Error::other("the lookup thread has ended"))
    }
}

fn oldest_running(lookups: &HashMap<OwnerName, OwnerLookup>) -> Option<Instant> {
    let running = lookups.values().filter_map(|lookup| match lookup {
        OwnerLookup::Running { since } => Some(*since),
        OwnerLookup::Found(_) | OwnerLookup::Failed { .. } => None,
    });
    running.min()
}

/// Looks up names until the sender is dropped. It is not joined: a lookup may hang.
fn answer_lookups(
    names: &Receiver<OwnerName>,
    lookups: &Arc<Monitor<HashMap<OwnerName, OwnerLookup>>>,
    ask: &AskDatabase,
) {
    for name in names {
        let lookup = match ask(&name) {
            Ok(id) => OwnerLookup::Found(id),
            Err(error) => {
                log::debug!("{name:?} cannot be looked up: {error}");
                OwnerLookup::Failed { at: Instant::now() }
            }
        };
        lookups.update(|lookups| lookups.insert(name, lookup));
    }
}

fn query_user_database(name: &OwnerName) -> io::Result<Option<u32>> {
    Ok(match name {
        OwnerName::User(name) => User::from_name(name)?.map(|user| user.uid.as_raw()),
        OwnerName::Group(name) => Group::from_name(name)?.map(|group| group.gid.as_raw()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dupfs_format::EntryKind;

    use super::*;

    fn meta(user: &str) -> EntryMeta {
        let (uname, gname) = (user.as_bytes().into(), Arc::default());
        EntryMeta { kind: EntryKind::Dir, mode: 0, uid: 7, gid: 8, uname, gname, mtime: 0 }
    }

    fn owners(
        ask: impl Fn(&OwnerName) -> io::Result<Option<u32>> + Send + Sync + 'static,
        timeout: Duration,
    ) -> Owners {
        Owners::with_database(OwnerOptions::default(), Arc::new(ask), timeout, Duration::from_millis(20))
    }

    fn shown(owners: &Owners, user: &str) -> (u32, bool) {
        let ids = owners.ids(&meta(user), &RequestContext::unlimited()).unwrap();
        assert_eq!(ids.gid, 8);
        (ids.uid, ids.provisional)
    }

    #[test]
    fn a_lookup_that_hangs_delays_requests_for_a_bounded_time() {
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let hanging = move |_: &OwnerName| {
            let _ = lock(&released).recv();
            Ok(Some(1000))
        };
        let owners = owners(hanging, Duration::from_millis(50));
        let started = Instant::now();
        assert_eq!(shown(&owners, "alice"), (7, true));
        assert!(started.elapsed() < Duration::from_secs(10));
        let started = Instant::now();
        for name in ["bob", "carol", "dave"] {
            assert_eq!(shown(&owners, name), (7, true));
        }
        assert!(started.elapsed() < Duration::from_millis(50), "later names do not wait again");
        drop(release);
        while shown(&owners, "dave").1 {
            thread::yield_now();
        }
        assert_eq!(shown(&owners, "alice"), (1000, false));
    }

    #[test]
    fn a_failure_is_retried_and_a_result_is_cached() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let ask = move |name: &OwnerName| match counter.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("the server does not answer")),
            _ => Ok((*name == OwnerName::User("alice".to_owned())).then_some(1000)),
        };
        let owners = owners(ask, Duration::from_secs(20));
        assert_eq!(shown(&owners, "alice"), (7, true));
        thread::sleep(Duration::from_millis(30));
        for _ in 0..3 {
            assert_eq!(shown(&owners, "alice"), (1000, false));
            assert_eq!(shown(&owners, "nobody-here"), (7, false));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_request_that_may_not_block_does_not_wait_for_the_database() {
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let ask = move |_: &OwnerName| {
            let _ = lock(&released).recv();
            Ok(Some(1000))
        };
        let owners = owners(ask, Duration::from_secs(20));
        let cached_only = RequestContext::cached_only();
        assert_eq!(owners.ids(&meta("alice"), &cached_only), Err(Stopped::WouldBlock));
        assert!(owners.ids(&meta(""), &cached_only).is_ok(), "numbers need no lookup");
        drop(release);
        assert_eq!(shown(&owners, "alice"), (1000, false));
        assert!(owners.ids(&meta("alice"), &cached_only).is_ok());
    }
}
