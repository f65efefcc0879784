//! A store with planned faults. Tests check with it that the upper layers serve no wrong byte.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{BucketLocation, ObjectInfo, ObjectStore, RejectedCopy, StorageError, Traffic};
use dupfs_base::sync::lock;
use dupfs_base::{ByteRange, ErrorKind, RequestContext, Secret, clamp_len};

/// The effect of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The open (or the listing) fails with this kind.
    Error(ErrorKind),
    /// Reading fails with this kind at this offset of the object.
    ErrorAt(u64, ErrorKind),
    /// The object ends silently at this offset, which [`ObjectStore::open`] forbids.
    Truncate(u64),
    /// This bit of the object, counted from the lowest bit of its first byte, is flipped silently.
    FlipBit(u64),
    /// The open (or the listing) is delayed.
    Delay(Duration),
    /// The open reports that the object no longer exists.
    Missing,
    /// The listing leaves the object out.
    Hidden,
}

/// The requests that a fault affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Listings.
    List,
    /// Opens of the object of this name; for [`Effect::Hidden`] listings, which leave it out.
    Object(String),
    /// Opens of each object whose name contains this text, counted per object; for [`Effect::Hidden`] listings.
    Containing(String),
}

/// The affected requests of a target, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nth {
    /// All requests.
    Every,
    /// Only this one.
    Only(u64),
    /// The first requests up to this number; then the store has recovered.
    First(u64),
    /// This one and all later ones.
    From(u64),
}

impl Nth {
    fn hits(self, n: u64) -> bool {
        match self {
            Self::Every => true,
            Self::Only(only) => n == only,
            Self::First(count) => n < count,
            Self::From(first) => n >= first,
        }
    }
}

/// A planned fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of request that it affects.
    pub target: Target,
    /// The affected requests of that kind.
    pub nth: Nth,
    /// Its effect.
    pub effect: Effect,
}

impl Fault {
    /// `effect` on every open of the object `name`.
    pub fn on(name: &str, effect: Effect) -> Self {
        Self { target: Target::Object(name.to_owned()), nth: Nth::Every, effect }
    }

    /// `effect` on every open of every object.
    pub fn everywhere(effect: Effect) -> Self {
        Self { target: Target::Containing(String::new()), nth: Nth::Every, effect }
    }

    /// `effect` on every listing.
    pub fn on_list(effect: Effect) -> Self {
        Self { target: Target::List, nth: Nth::Every, effect }
    }

    /// The same fault, only at the requests `nth`.
    #[must_use]
    pub fn at(mut self, nth: Nth) -> Self {
        self.nth = nth;
        self
    }

    fn names(&self, name: &str) -> bool {
        match &self.target {
            Target::List => false,
            Target::Object(object) => object == name,
            Target::Containing(text) => name.contains(text.as_str()),
        }
    }
}

#[derive(Debug, Default)]
struct FaultState {
    plan: Vec<Fault>,
    lists: u64,
    opens: HashMap<Arc<str>, u64>,
}

/// A store with the faults of a plan.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<FaultState>,
}

impl<S: ObjectStore> FaultyStore<S> {
    /// `inner` with the faults of `plan`.
    pub fn new(inner: S, plan: Vec<Fault>) -> Self {
        Self { inner, state: Mutex::new(FaultState { plan, ..FaultState::default() }) }
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Replaces the plan and sets all counts to zero. With an empty plan the store has recovered. Open streams keep their faults.
    pub fn set_plan(&self, plan: Vec<Fault>) {
        *lock(&self.state) = FaultState { plan, ..FaultState::default() };
    }

    /// Number of listings since the plan was set.
    pub fn lists(&self) -> u64 {
        lock(&self.state).lists
    }

    /// Number of opens of the object `name` since the plan was set.
    pub fn opens(&self, name: &str) -> u64 {
        lock(&self.state).opens.get(name).copied().unwrap_or_default()
    }

    /// Counts a listing. Returns its number and the effects on it.
    fn on_list(&self) -> (u64, Vec<Effect>) {
        let mut state = lock(&self.state);
        let n = state.lists;
        state.lists += 1;
        let hit = |f: &&Fault| f.target == Target::List && f.nth.hits(n);
        (n, state.plan.iter().filter(hit).map(|f| f.effect).collect())
    }

    fn on_open(&self, name: &Arc<str>) -> Vec<Effect> {
        let mut state = lock(&self.state);
        let count = state.opens.entry(Arc::clone(name)).or_default();
        let n = *count;
        *count += 1;
        state.plan.iter().filter(|f| f.names(name) && f.nth.hits(n)).map(|f| f.effect).collect()
    }

    /// Returns true if listing `n` leaves the object `name` out.
    fn is_hidden(&self, n: u64, name: &str) -> bool {
        lock(&self.state).plan.iter().any(|f| f.effect == Effect::Hidden && f.nth.hits(n) && f.names(name))
    }
}

impl<S: ObjectStore> ObjectStore for FaultyStore<S> {
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }

    fn reject_copy(&self, object: &ObjectInfo, is_damaged: bool) -> Option<RejectedCopy> {
        self.inner.reject_copy(object, is_damaged)
    }

    fn bucket(&self) -> Option<BucketLocation> {
        self.inner.bucket()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn url_with_secrets(&self) -> Option<Secret> {
        self.inner.url_with_secrets()
    }

    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let (n, effects) = self.on_list();
        for effect in effects {
            match effect {
                Effect::Delay(time) => std::thread::sleep(time),
                Effect::Error(kind) => return Err(StorageError::new(kind, self.url(), "planned fault")),
                _ => {}
            }
        }
        let mut objects = self.inner.list(context)?;
        objects.retain(|object| !self.is_hidden(n, &object.name));
        Ok(objects)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let effects = self.on_open(&object.name);
        for effect in &effects {
            match effect {
                Effect::Delay(time) => std::thread::sleep(*time),
                Effect::Error(kind) => return Err(StorageError::new(*kind, &object.name, "planned fault")),
                Effect::Missing => return Err(StorageError::missing(object)),
                Effect::ErrorAt(..) | Effect::Truncate(_) | Effect::FlipBit(_) | Effect::Hidden => {}
            }
        }
        let inner = self.inner.open(object, range, context)?;
        let (offset, end, name) = (range.start, range.end, Arc::clone(&object.name));
        Ok(Box::new(FaultyStream { inner, effects, offset, end, name }))
    }
}

struct FaultyStream {
    inner: Box<dyn Read + Send>,
    effects: Vec<Effect>,
    /// The offset of the stream in the object.
    offset: u64,
    /// The end of the range. A fault from there on has no effect.
    end: u64,
    name: Arc<str>,
}

impl FaultyStream {
    /// Upper bound of the next read: up to the next planned offset.
    fn bound(&self) -> io::Result<u64> {
        let mut bound = u64::MAX;
        for effect in &self.effects {
            match effect {
                Effect::ErrorAt(at, kind) if *at <= self.offset && self.offset < self.end => {
                    return Err(StorageError::new(*kind, &self.name, "planned fault").into_io());
                }
                Effect::Truncate(at) | Effect::ErrorAt(at, _) if self.offset < self.end => {
                    bound = bound.min(at.saturating_sub(self.offset));
                }
                _ => {}
            }
        }
        Ok(bound)
    }
}

impl Read for FaultyStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bound = self.bound()?;
        let max_len = clamp_len(bound, buf.len());
        let Some(part) = buf.get_mut(..max_len) else { return Ok(0) };
        let got = self.inner.read(part)?;
        for effect in &self.effects {
            let Effect::FlipBit(bit) = effect else { continue };
            let at = (bit / 8).checked_sub(self.offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = at.filter(|at| *at < got).and_then(|at| part.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
        self.offset = self.offset.saturating_add(got as u64);
        Ok(got)
    }
}
