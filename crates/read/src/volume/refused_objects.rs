//! The objects that could not be decoded within their limits, so that no request decodes them again without success.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::VolumeError;
use crate::codec::DecodeLimits;
use crate::storage::ObjectInfo;
use dupfs_base::sync::lock;
use dupfs_base::{ErrorKind, HasKind};

/// Upper bound of the doublings of the time until an object is retried.
const MAX_DOUBLINGS: u32 = 10;

/// The objects that were refused, by name. An object that the store lists in another version is not refused.
#[derive(Debug)]
pub(super) struct RefusedObjects {
    deadline: Duration,
    refused: Mutex<HashMap<Arc<str>, RefusedObject>>,
}

#[derive(Debug)]
struct RefusedObject {
    version: Arc<str>,
    reason: RefusalReason,
}

#[derive(Clone, Debug)]
enum RefusalReason {
    /// It is over a limit that does not depend on time.
    OverLimit(VolumeError),
    /// It was decoded for most of a deadline without reaching its end.
    Slow {
        /// Number of such attempts.
        attempts: u32,
        /// The end of the last one.
        stopped: Instant,
        /// The longest decoding time of an attempt, and the bytes that it decoded.
        used: Duration,
        expanded: u64,
    },
}

impl RefusedObjects {
    /// No object is refused. A request may take `deadline`.
    pub(super) fn new(deadline: Duration) -> Self {
        Self { deadline, refused: Mutex::default() }
    }

    /// The time that a request may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Checks that `object` is not refused.
    ///
    /// # Errors
    /// The error of the attempt that was over a limit. For an object whose decoding takes too long, one of the kind Timeout,
    /// until a time has passed that doubles with each attempt: then it is retried, because a busy machine may have been
    /// the reason.
    pub(super) fn check(&self, object: &ObjectInfo) -> Result<(), VolumeError> {
        let refused = lock(&self.refused);
        let Some(known) = refused.get(&object.name).filter(|known| known.version == object.version) else {
            return Ok(());
        };
        match &known.reason {
            RefusalReason::OverLimit(error) => Err(error.clone()),
            RefusalReason::Slow { attempts, stopped, used, expanded } => {
                let pause = self.deadline.saturating_mul(1 << attempts.saturating_sub(1).min(MAX_DOUBLINGS));
                let left = pause.saturating_sub(stopped.elapsed());
                if left.is_zero() { Ok(()) } else { Err(self.slow(object, *used, *expanded, left)) }
            }
        }
    }

    fn slow(&self, object: &ObjectInfo, used: Duration, expanded: u64, left: Duration) -> VolumeError {
        let reason = format!(
            "decoding it was stopped after {} s ({expanded} bytes) because --deadline is {} s; it is retried in {} s; \
             give a longer --deadline, or use another copy of this object if there is one",
            used.as_secs(),
            self.deadline.as_secs(),
            left.as_secs() + 1
        );
        VolumeError::object(&object.name, ErrorKind::Timeout, reason)
    }

    /// Records that decoding `object` within `limits` failed with `error`, if another attempt would fail too: the
    /// object is over a limit, or it was decoded for more than half of the deadline.
    pub(super) fn record_failure(&self, object: &ObjectInfo, limits: &DecodeLimits, error: &VolumeError) {
        let used = limits.time_used();
        let was_stopped = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Cancelled);
        let is_slow = was_stopped && used > self.deadline / 2;
        if !is_slow && !limits.is_exceeded() {
            return;
        }
        let mut refused = lock(&self.refused);
        let before = refused.get(&object.name).filter(|known| known.version == object.version);
        let reason = if limits.is_exceeded() {
            RefusalReason::OverLimit(error.clone())
        } else {
            let (attempts, longest, max_expanded) = match before.map(|known| &known.reason) {
                Some(RefusalReason::Slow { attempts, used, expanded, .. }) => (*attempts, *used, *expanded),
                _ => (0, Duration::ZERO, 0),
            };
            RefusalReason::Slow {
                attempts: attempts.saturating_add(1),
                stopped: Instant::now(),
                used: longest.max(used),
                expanded: max_expanded.max(limits.expanded()),
            }
        };
        refused.insert(Arc::clone(&object.name), RefusedObject { version: Arc::clone(&object.version), reason });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::super::object_reader::{DecodeThreads, ObjectReader};
    use super::*;
    use crate::codec::{DecodeOptions, Decoder, ExpansionLimit, KeyOptions, Keys};
    use crate::storage::{CountingStore, MemoryStore, ObjectStore};
    use dupfs_base::RequestContext;
    use dupfs_format::name::NamePrefixes;

    fn object(version: &str) -> ObjectInfo {
        ObjectInfo { name: "vol1.gz".into(), size: 1, version: version.into(), class: None, archived: None }
    }

    fn limits() -> DecodeLimits {
        DecodeLimits::new(&RequestContext::unlimited(), ExpansionLimit::ARCHIVE, None)
    }

    fn stopped() -> VolumeError {
        VolumeError::object("vol1.gz", ErrorKind::Cancelled, "stopped")
    }

    /// Limits of a decoding that used this time.
    fn used(time: Duration) -> DecodeLimits {
        let limits = limits();
        limits.pretend_to_have_used(time);
        limits
    }

    #[test]
    fn an_object_that_was_stopped_late_is_retried_after_doubling_delays() {
        let deadline = Duration::from_millis(100);
        let refused = RefusedObjects::new(deadline);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            refused.record_failure(&object("a"), &used(deadline), &stopped());
            let started = Instant::now();
            let error = refused.check(&object("a")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert!(error.to_string().starts_with("vol1.gz: decoding it was stopped after 0 s (0 bytes)"), "{error}");
            assert!(refused.check(&object("b")).is_ok(), "another version is refused");
            while refused.check(&object("a")).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            pauses.push(started.elapsed());
        }
        for (pause, least) in pauses.iter().zip([90, 190, 390]) {
            assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
        }
    }

    #[test]
    fn a_request_that_ended_early_or_a_slow_store_does_not_refuse_an_object() {
        let refused = RefusedObjects::new(Duration::from_secs(10));
        refused.record_failure(&object("a"), &used(Duration::from_secs(4)), &stopped());
        refused.record_failure(&object("a"), &limits(), &VolumeError::object("vol1.gz", ErrorKind::Timeout, "slow"));
        let damaged = VolumeError::object("vol1.gz", ErrorKind::Corrupt, "damaged");
        refused.record_failure(&object("a"), &used(Duration::from_secs(9)), &damaged);
        assert!(refused.check(&object("a")).is_ok());
    }

    #[test]
    fn an_object_over_the_limit_is_not_read_again() {
        let store = MemoryStore::new();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::copy(&mut io::repeat(0).take(1 << 20), &mut gzip).unwrap();
        store.put("vol1.gz", gzip.finish().unwrap());
        let store: Arc<dyn ObjectStore> = Arc::new(CountingStore::new(store));
        let context = RequestContext::unlimited();
        let listed = store.list(&context).unwrap().remove(0);
        let decoder = Decoder::new(Keys::load(KeyOptions::default()).unwrap(), DecodeOptions::default());
        let reader =
            ObjectReader::new(Arc::clone(&store), Arc::new(decoder), NamePrefixes::default(), Duration::from_secs(600));
        let reader = reader.with_expansion(ExpansionLimit { base: 1 << 16, ratio: 1 });
        let read = |object: &ObjectInfo| {
            let drain = &mut |plain: &mut dyn Read| {
                io::copy(plain, &mut io::sink()).map(drop).map_err(|e| VolumeError::from_io("vol1.gz", &e))
            };
            reader.stream(object, None, DecodeThreads::One, &context, drain).unwrap_err()
        };
        let first = read(&listed);
        assert_eq!(first.kind(), ErrorKind::Corrupt);
        assert!(first.to_string().starts_with("vol1.gz: over the limit: "), "{first}");
        let requests = store.traffic().get_requests;
        assert_eq!(read(&listed).to_string(), first.to_string());
        assert_eq!(store.traffic().get_requests, requests, "it was fetched again");
    }
}
