//! A store in memory that counts the fetched bytes and injects faults.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{BucketLocation, ObjectInfo, ObjectStore, StorageError, Traffic};

/// A fault of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Opens number `first` (from 0) to `first + times - 1` fail.
    Open { first: usize, times: usize, kind: ErrorKind },
    /// Streams fail with an error at this byte, `times` times.
    Break { at: usize, times: usize },
    /// Streams end at this byte as if the object did, though it is longer.
    Short { at: usize },
    /// The object itself ends at this byte.
    Cut { at: usize },
    /// A bit is flipped.
    Flip { at: usize, bit: u8 },
    /// The object is not there.
    Missing,
    /// Each read takes this long.
    Delay(Duration),
}

impl Fault {
    /// Returns true if the fault ends after some requests.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Break { .. } | Self::Delay(_))
    }

    /// Returns true if the fault is more than a delay.
    pub(crate) fn harms(&self) -> bool {
        !matches!(self, Self::Delay(_))
    }
}

/// The fetches of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) opens: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Shared {
    faults: Mutex<BTreeMap<String, Fault>>,
    /// Since the last reset.
    counts: Mutex<BTreeMap<String, Count>>,
    /// Opens and broken streams since the faults were set.
    tries: Mutex<BTreeMap<String, usize>>,
    breaks: Mutex<BTreeMap<String, usize>>,
    /// Numbers of streams: open now, and the maximum since the last reset.
    open: Mutex<(usize, usize)>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct MemoryStore {
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    shared: Arc<Shared>,
}

impl MemoryStore {
    pub(crate) fn new(objects: &BTreeMap<String, Arc<Vec<u8>>>) -> Arc<Self> {
        Arc::new(Self { objects: objects.clone(), shared: Arc::default() })
    }

    pub(crate) fn set_faults(&self, faults: &BTreeMap<String, Fault>) {
        *locked(&self.shared.faults) = faults.clone();
        locked(&self.shared.tries).clear();
        locked(&self.shared.breaks).clear();
    }

    /// Returns the fetches since the last call.
    pub(crate) fn take_counts(&self) -> BTreeMap<String, Count> {
        std::mem::take(&mut locked(&self.shared.counts))
    }

    /// Returns the maximum number of concurrently open streams since the last call.
    pub(crate) fn take_peak(&self) -> usize {
        let mut open = locked(&self.shared.open);
        let (now, peak) = *open;
        open.1 = now;
        peak
    }

    fn version_of(&self, name: &str) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.objects[name].hash(&mut hasher);
        hasher.finish()
    }

    fn fault(&self, name: &str) -> Option<Fault> {
        locked(&self.shared.faults).get(name).cloned()
    }

    /// Returns the stored object with its faults, or `None` if it is missing.
    fn damaged(&self, name: &str) -> Option<Arc<Vec<u8>>> {
        let bytes = self.objects.get(name)?;
        match self.fault(name) {
            Some(Fault::Missing) => None,
            Some(Fault::Cut { at }) => Some(Arc::new(bytes[..at.min(bytes.len())].to_vec())),
            Some(Fault::Flip { at, bit }) if !bytes.is_empty() => {
                let mut bytes = bytes.to_vec();
                let at = at % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
                Some(Arc::new(bytes))
            }
            _ => Some(bytes.clone()),
        }
    }
}

impl ObjectStore for MemoryStore {
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn bucket(&self) -> Option<BucketLocation> {
        None
    }

    fn url(&self) -> &str {
        "memory:"
    }

    fn list(&self, _: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        let present = self.objects.keys().filter_map(|name| Some((name, self.damaged(name)?)));
        let info = |(name, bytes): (&String, Arc<Vec<u8>>)| ObjectInfo {
            name: name.as_str().into(),
            size: bytes.len() as u64,
            // the version of the written object: damage does not show in a listing
            version: format!("{:016x}", self.version_of(name)).into(),
            class: None,
            archived: None,
        };
        // backwards, as the order is unspecified
        let mut list: Vec<ObjectInfo> = present.map(info).collect();
        list.reverse();
        Ok(list)
    }

    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        _: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        let name = object.name.to_string();
        locked(&self.shared.counts).entry(name.clone()).or_default().opens += 1;
        let tried = {
            let mut tries = locked(&self.shared.tries);
            let tried = tries.entry(name.clone()).or_default();
            *tried += 1;
            *tried - 1
        };
        let fault = self.fault(&name);
        if let Some(Fault::Open { first, times, kind }) = fault
            && (first..first + times).contains(&tried)
        {
            return Err(StorageError::new(kind, &name, "injected fault"));
        }
        let bytes = self
            .damaged(&name)
            .ok_or_else(|| StorageError::new(ErrorKind::Missing, &name, "the object is missing (injected fault)"))?;
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
        let at = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        let mut open = locked(&self.shared.open);
        *open = (open.0 + 1, open.1.max(open.0 + 1));
        drop(open);
        Ok(Box::new(Stream { name, bytes, at, end, fault, shared: self.shared.clone() }))
    }
}

struct Stream {
    name: String,
    bytes: Arc<Vec<u8>>,
    at: usize,
    end: usize,
    fault: Option<Fault>,
    shared: Arc<Shared>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        locked(&self.shared.open).0 -= 1;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut end = self.end;
        match self.fault {
            Some(Fault::Delay(time)) => std::thread::sleep(time),
            Some(Fault::Short { at }) => end = end.min(at),
            Some(Fault::Break { at, times }) => {
                end = end.min(at.max(self.at));
                if self.at >= at {
                    let mut breaks = locked(&self.shared.breaks);
                    let broken = breaks.entry(self.name.clone()).or_default();
                    *broken += 1;
                    if *broken <= times {
                        return Err(StorageError::new(ErrorKind::Io, &self.name, "injected fault").into_io());
                    }
                    end = self.end;
                }
            }
            _ => {}
        }
        // short reads: callers must not rely on full buffers
        let len = buffer.len().min(end.saturating_sub(self.at)).min(30_011);
        buffer[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        locked(&self.shared.counts).entry(self.name.clone()).or_default().bytes += len;
        Ok(len)
    }
}
