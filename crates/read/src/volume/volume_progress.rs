//! The progress of a pass over a volume: the plaintext and the members that it has decoded and not verified yet, and the
//! requests that want more of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::decode_volume::MemberTableSink;
use super::member_table::MemberTable;
use super::object_reader::FetchGate;
use super::verified_blocks::PassId;
use dupfs_base::sync::{Monitor, lock};
use dupfs_base::{RequestContext, Stopped};
use dupfs_format::ArchivePath;

/// The time for which a pass continues after an answer from it although no request waits: programs that read many small files
/// open the next one sooner.
const GRACE: Duration = Duration::from_millis(300);

/// A pass with at most this number of stored bytes left, or a sixteenth of the volume, is not suspended.
const MAX_REST: u64 = 1 << 20;

/// The progress of one pass.
#[derive(Debug)]
pub(super) struct VolumeProgress {
    begun: Instant,
    /// The number of the pass, once it decodes.
    pass: OnceLock<PassId>,
    state: Arc<Monitor<VolumePassState>>,
    members: Arc<Mutex<MemberTableSink>>,
    /// The members after this number of decoded bytes.
    copy: Mutex<Option<(u64, Arc<MemberTable>)>>,
    /// Stored bytes of the volume, and those that were read.
    stored_len: AtomicU64,
    stored_read: AtomicU64,
}

#[derive(Debug)]
struct VolumePassState {
    /// Bytes of plaintext in the blocks that were decoded.
    decoded: u64,
    is_ended: bool,
    /// The requests that wait for the pass.
    waiting: usize,
    /// Without waiting requests the pass continues until this time, ...
    wanted_until: Instant,
    /// ... and to the end of the file that was read last.
    reader: Option<PassReader>,
    /// The path of the member that was decoded last.
    newest: Option<ArchivePath>,
    /// True if the pass must not be suspended.
    is_exclusive: bool,
}

/// A file that was read from a pass.
#[derive(Debug)]
struct PassReader {
    /// The number of the file in read hints.
    file: u64,
    path: ArchivePath,
}

impl VolumePassState {
    fn is_wanted(&self) -> bool {
        let continues = |reader: &PassReader| self.newest.as_ref().is_none_or(|newest| *newest <= reader.path);
        self.waiting > 0
            || self.is_exclusive
            || self.reader.as_ref().is_some_and(continues)
            || Instant::now() < self.wanted_until
    }
}

impl VolumeProgress {
    /// The progress of a pass that begins now.
    pub(super) fn new() -> Arc<Self> {
        let begun = Instant::now();
        let state = VolumePassState {
            decoded: 0,
            is_ended: false,
            waiting: 0,
            wanted_until: begun + GRACE,
            reader: None,
            newest: None,
            is_exclusive: false,
        };
        Arc::new(Self {
            begun,
            pass: OnceLock::new(),
            state: Monitor::new(state),
            members: Arc::default(),
            copy: Mutex::default(),
            stored_len: AtomicU64::new(0),
            stored_read: AtomicU64::new(0),
        })
    }

    /// The time at which the pass began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The number of the pass, once it decodes.
    pub(super) fn pass(&self) -> Option<PassId> {
        self.pass.get().copied()
    }

    /// Records that the pass decodes a volume of `stored_len` stored bytes.
    pub(super) fn start(&self, pass: PassId, stored_len: u64) {
        self.stored_len.store(stored_len, Ordering::Relaxed);
        let _ = self.pass.set(pass);
    }

    /// The place of the members of the volume.
    pub(super) fn members(&self) -> Arc<Mutex<MemberTableSink>> {
        Arc::clone(&self.members)
    }

    /// The path of the member that was decoded last.
    pub(super) fn newest_path(&self) -> Option<ArchivePath> {
        self.state.lock().newest.clone()
    }

    /// The members so far; `None` if they are not in order, or too many. All requests share one copy of a state.
    pub(super) fn members_so_far(&self) -> Option<Arc<MemberTable>> {
        let state = self.state.lock();
        // The table is large, and a copy of it would be too.
        if state.is_exclusive {
            return None;
        }
        let decoded = state.decoded;
        drop(state);
        let mut copy = lock(&self.copy);
        if let Some((at, members)) = &*copy
            && *at == decoded
        {
            return Some(Arc::clone(members));
        }
        let members = Arc::new(lock(&self.members).builder.so_far(decoded)?);
        *copy = Some((decoded, Arc::clone(&members)));
        Some(members)
    }

    /// Records that `len` more bytes of plaintext are available.
    pub(super) fn advance(&self, len: u64) {
        let newest = lock(&self.members).builder.newest().cloned();
        self.state.update(|state| {
            state.decoded = state.decoded.saturating_add(len);
            state.newest = newest;
        });
    }

    /// Ensures that the pass is not suspended.
    pub(super) fn forbid_suspension(&self) {
        self.state.update(|state| state.is_exclusive = true);
    }

    /// Records that the pass has ended: its blocks are published, or are gone.
    pub(super) fn end(&self) {
        self.state.update(|state| state.is_ended = true);
    }

    /// Returns true if the pass has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().is_ended
    }

    /// Counts a request that waits, until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> VolumeInterest {
        self.state.update(|state| state.waiting = state.waiting.saturating_add(1));
        VolumeInterest(Arc::clone(self))
    }

    /// Waits until more than `seen` bytes of plaintext are decoded and returns their number; `None` once the pass has ended.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) fn wait_beyond(&self, seen: u64, context: &RequestContext) -> Result<Option<u64>, Stopped> {
        self.state.wait_until(context, |state| match state.is_ended {
            true => Some(None),
            false => (state.decoded > seen).then_some(Some(state.decoded)),
        })
    }

    /// Records that the file with this number in read hints was answered from the pass: it continues a while, and to the end of
    /// the file.
    pub(super) fn answered(&self, file: u64, path: &ArchivePath) {
        self.state.update(|state| {
            state.wanted_until = Instant::now() + GRACE;
            state.reader = Some(PassReader { file, path: path.clone() });
        });
    }

    /// Records that the reader of `file` is gone.
    pub(super) fn leave(&self, file: u64) {
        self.state.update(|state| {
            if state.reader.as_ref().is_some_and(|reader| reader.file == file) {
                state.reader = None;
            }
        });
    }

    /// Returns true if so little is left that the verified volume is worth it.
    fn is_nearly_done(&self) -> bool {
        let (len, read) = (self.stored_len.load(Ordering::Relaxed), self.stored_read.load(Ordering::Relaxed));
        len.saturating_sub(read) <= (len / 16).max(MAX_REST)
    }

    /// About the bytes of the whole plaintext; `None` before the first stored bytes were read.
    pub(super) fn likely_plain_len(&self) -> Option<u64> {
        let (len, read) = (self.stored_len.load(Ordering::Relaxed), self.stored_read.load(Ordering::Relaxed));
        let decoded = u128::from(self.state.lock().decoded);
        let scaled = (decoded * u128::from(len)).checked_div(u128::from(read))?;
        u64::try_from(scaled).ok()
    }

    /// Returns true once most of the stored bytes were read.
    pub(super) fn is_mostly_read(&self) -> bool {
        let (len, read) = (self.stored_len.load(Ordering::Relaxed), self.stored_read.load(Ordering::Relaxed));
        read >= len.saturating_sub(len / 4)
    }
}

impl FetchGate for VolumeProgress {
    fn is_open(&self) -> bool {
        self.is_nearly_done() || self.state.lock().is_wanted()
    }

    fn wait(&self, context: &RequestContext) -> Result<(), Stopped> {
        self.state.wait_until(context, |state| state.is_wanted().then_some(()))
    }

    fn passed(&self, len: u64) {
        self.stored_read.fetch_add(len, Ordering::Relaxed);
    }
}

/// A request that waits for a pass.
#[derive(Debug)]
pub(super) struct VolumeInterest(Arc<VolumeProgress>);

impl Drop for VolumeInterest {
    fn drop(&mut self) {
        self.0.state.update(|state| state.waiting = state.waiting.saturating_sub(1));
    }
}

/// Marks a pass as ended when it is dropped, also if the pass panics.
#[derive(Debug)]
pub(super) struct EndOnDrop(pub(super) Arc<VolumeProgress>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> ArchivePath {
        ArchivePath::parse(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_pass_is_wanted_by_its_requests_and_to_the_end_of_the_file_that_is_read() {
        let progress = VolumeProgress::new();
        progress.stored_len.store(32 << 20, Ordering::Relaxed);
        let expire = || progress.state.update(|state| state.wanted_until = Instant::now());
        let reach = |name: &str| progress.state.update(|state| state.newest = Some(path(name)));
        assert!(progress.is_open(), "it has just begun");
        expire();
        assert!(!progress.is_open());
        let (first, second) = (progress.enter(), progress.enter());
        drop(first);
        assert!(progress.is_open());
        drop(second);
        assert!(!progress.is_open());
        progress.answered(7, &path("b"));
        expire();
        for (name, is_open) in [("a", true), ("b", true), ("c", false)] {
            reach(name);
            assert_eq!(progress.is_open(), is_open, "{name}");
        }
        reach("a");
        progress.leave(8);
        assert!(progress.is_open(), "another file");
        progress.leave(7);
        assert!(!progress.is_open());
        progress.passed(30 << 20);
        assert!(progress.is_open(), "a sixteenth is left");
    }

    #[test]
    fn the_plaintext_is_estimated_from_what_was_read() {
        let progress = VolumeProgress::new();
        progress.stored_len.store(32 << 20, Ordering::Relaxed);
        assert_eq!(progress.likely_plain_len(), None);
        progress.passed(8 << 20);
        progress.advance(16 << 20);
        assert_eq!((progress.likely_plain_len(), progress.is_mostly_read()), (Some(64 << 20), false));
        progress.passed(16 << 20);
        assert!(progress.is_mostly_read());
    }
}
