//! Finds the sizes of the files that a program is going to ask for: `ls -l` asks for those of a directory one after the other, and
//! each may need another volume.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::snapshot_tree::SnapshotTree;
use dupfs_base::sync::{Monitor, lock};
use dupfs_base::{CancelToken, RequestContext};
use dupfs_read::content::size_volume;
use dupfs_read::tree::NodeId;
use dupfs_read::volume::{Repository, RequestVolumes};

/// Upper bound of the volumes that are fetched ahead of the file whose size is asked for.
const MAX_AHEAD: usize = 2;
/// Upper bound of the files whose volumes are planned at a time.
const MAX_PLANNED: usize = 4096;
/// The time without a question after which the asking counts as stopped.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The interval in which that is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The time of waiting for the sizes of a directory after which it is reported.
const REPORT_AFTER: Duration = Duration::from_secs(3);
/// Upper bound of the directories that are remembered as reported.
const MAX_REPORTED: usize = 1024;

/// The questions for sizes that need a volume.
#[derive(Debug)]
pub(super) struct SizeAhead {
    repository: Arc<Repository>,
    state: Mutex<SizeAheadState>,
    waits: Arc<Monitor<SizeWaits>>,
    /// The threads of jobs that may still run. They are joined when this is dropped, because the index is complete only when
    /// nothing has the repository any more.
    threads: Mutex<Vec<(CancelToken, JoinHandle<()>)>>,
}

#[derive(Debug, Default)]
struct SizeAheadState {
    /// The snapshot and the node of the last question.
    last: Option<(usize, NodeId)>,
    job: Option<Arc<SizeJob>>,
}

/// The files after one in its directory, whose volumes are fetched.
#[derive(Debug)]
struct SizeJob {
    snapshot: usize,
    /// The positions of the files in the order of listings.
    positions: HashMap<NodeId, usize>,
    progress: Arc<Monitor<SizeProgress>>,
    cancel: CancelToken,
}

#[derive(Debug)]
struct SizeProgress {
    /// The position of the last question, the number of those that wait, and the time of the last change.
    asked: usize,
    asking: usize,
    changed: Instant,
    /// The positions of the first files of the volumes that were fetched, and whether they still are.
    volumes: Vec<(usize, bool)>,
    is_over: bool,
}

impl SizeProgress {
    /// Returns true if another volume may be fetched.
    fn has_room(&self) -> bool {
        let ahead = |(first, is_running): &&(usize, bool)| *is_running || *first > self.asked;
        self.volumes.iter().filter(ahead).count() < MAX_AHEAD
    }

    fn is_running(&self) -> bool {
        self.volumes.iter().any(|(_, is_running)| *is_running)
    }

    /// Returns true if the questions have stopped.
    fn is_idle(&self) -> bool {
        self.asking == 0 && self.changed.elapsed() > MAX_PAUSE
    }
}

/// The directories in which questions wait, with their number and the time of the first.
#[derive(Debug, Default)]
struct SizeWaits {
    waiting: HashMap<Arc<str>, (usize, Instant)>,
    reported: HashSet<Arc<str>>,
    is_watched: bool,
}

/// A question that waits for a volume.
#[derive(Debug)]
pub(super) struct SizeQuestion {
    job: Option<Arc<SizeJob>>,
    waits: Arc<Monitor<SizeWaits>>,
    directory: Arc<str>,
}

impl SizeAhead {
    /// The questions for files of `repository`.
    pub(super) fn new(repository: Arc<Repository>) -> Self {
        Self {
            repository,
            state: Mutex::default(),
            waits: Monitor::new(SizeWaits::default()),
            threads: Mutex::default(),
        }
    }

    /// Records a question for the size of `node` of a snapshot that was answered from memory.
    pub(super) fn record(&self, snapshot: usize, node: NodeId) {
        let mut state = lock(&self.state);
        state.last = Some((snapshot, node));
        let job = state.job.clone();
        drop(state);
        if let Some(job) = job {
            job.advance(snapshot, node, false);
        }
    }

    /// Records that a question for the size of `node` waits for a volume, until the returned value is dropped. If the question
    /// before was for a file before it in its directory, the volumes of the files after it are fetched.
    pub(super) fn wait(&self, snapshot: usize, node: NodeId, tree: &SnapshotTree) -> SizeQuestion {
        let mut state = lock(&self.state);
        let last = state.last.replace((snapshot, node));
        let running = state.job.clone();
        drop(state);
        let job = running.filter(|job| job.advance(snapshot, node, true));
        let follows = last.is_some_and(|(other, before)| other == snapshot && tree.is_listed_after(before, node));
        let job = if job.is_none() && follows { self.start(snapshot, node, tree) } else { job };
        let directory: Arc<str> = tree.path(tree.parent(node).unwrap_or(NodeId::ROOT)).to_string().into();
        self.watch(&directory);
        SizeQuestion { job, waits: Arc::clone(&self.waits), directory }
    }

    /// Stops what no question waits for.
    pub(super) fn stop(&self) {
        let job = lock(&self.state).job.take();
        if let Some(job) = job {
            job.cancel.cancel();
        }
    }

    fn start(&self, snapshot: usize, node: NodeId, tree: &SnapshotTree) -> Option<Arc<SizeJob>> {
        let files = tree.unmeasured_after(node, MAX_PLANNED);
        if files.is_empty() {
            return None;
        }
        let positions = std::iter::once(node).chain(files.iter().copied()).zip(0..).collect();
        let progress =
            SizeProgress { asked: 0, asking: 1, changed: Instant::now(), volumes: Vec::new(), is_over: false };
        let (progress, cancel) = (Monitor::new(progress), CancelToken::new());
        let job = Arc::new(SizeJob { snapshot, positions, progress, cancel });
        let before = lock(&self.state).job.replace(Arc::clone(&job));
        // Its questions have stopped, or go on without it.
        before.inspect(|before| before.progress.update(|progress| progress.changed = Instant::now()));
        let (run, repository, tree) = (Arc::clone(&job), Arc::clone(&self.repository), tree.clone());
        let started = thread::Builder::new().name("dupfs-size-ahead".into());
        let mut threads = lock(&self.threads);
        threads.retain(|(_, thread)| !thread.is_finished());
        match started.spawn(move || run.run(&repository, &tree, &files)) {
            Ok(thread) => threads.push((job.cancel.clone(), thread)),
            Err(_) => job.progress.update(|progress| progress.is_over = true),
        }
        drop(threads);
        Some(job)
    }

    /// Counts a question in `directory`, and starts the thread that reports long waits.
    fn watch(&self, directory: &Arc<str>) {
        let is_watched = self.waits.update(|waits| {
            let entry = waits.waiting.entry(Arc::clone(directory)).or_insert_with(|| (0, Instant::now()));
            entry.0 = entry.0.saturating_add(1);
            std::mem::replace(&mut waits.is_watched, true)
        });
        if is_watched {
            return;
        }
        let (waits, repository) = (Arc::clone(&self.waits), Arc::downgrade(&self.repository));
        let watch = move || {
            loop {
                thread::sleep(CHECK_INTERVAL);
                let due = waits.update(|waits| {
                    waits.waiting.retain(|_, (count, since)| *count > 0 || since.elapsed() < REPORT_AFTER + MAX_PAUSE);
                    if waits.waiting.is_empty() {
                        waits.is_watched = false;
                        return None;
                    }
                    let is_due = |(count, since): &(usize, Instant)| *count > 0 && since.elapsed() >= REPORT_AFTER;
                    let due = waits.waiting.iter().filter(|(_, wait)| is_due(wait)).map(|(directory, _)| directory);
                    let due: Vec<_> = due.filter(|directory| !waits.reported.contains(*directory)).cloned().collect();
                    if waits.reported.len() >= MAX_REPORTED {
                        waits.reported.clear();
                    }
                    waits.reported.extend(due.iter().cloned());
                    Some(due)
                });
                let Some(due) = due else { return };
                due.iter().for_each(|directory| report(&repository, directory));
            }
        };
        if thread::Builder::new().name("dupfs-size-watch".into()).spawn(watch).is_err() {
            self.waits.update(|waits| waits.is_watched = false);
        }
    }
}

/// Logs what is fetched for the sizes of the files in `directory`.
fn report(repository: &Weak<Repository>, directory: &str) {
    let Some(repository) = repository.upgrade() else { return };
    let transfers = repository.status().transfers;
    let Some(transfer) = transfers.iter().find(|transfer| transfer.object.is_some()) else { return };
    let object = transfer.object.as_deref().unwrap_or_default();
    let share = transfer.bytes.saturating_mul(100) / transfer.size.max(1);
    log::warn!(
        "{directory}: finding the sizes of files needs volumes: {object} is fetched, {:.1} MB, {share} % so far; a mount with -o \
         sizes=bound lists without",
        transfer.size as f64 / 1e6
    );
}

impl SizeJob {
    /// Records a question for `node`, which waits if `is_waiting`. Returns false if the job is not for it or is over.
    fn advance(&self, snapshot: usize, node: NodeId, is_waiting: bool) -> bool {
        let Some(position) = self.positions.get(&node).filter(|_| snapshot == self.snapshot) else { return false };
        self.progress.update(|progress| {
            progress.asked = progress.asked.max(*position);
            progress.changed = Instant::now();
            progress.asking = progress.asking.saturating_add(usize::from(is_waiting && !progress.is_over));
            !progress.is_over
        })
    }

    /// Fetches the volumes of `files`, a few ahead of the questions, until these stop.
    fn run(self: &Arc<Self>, repository: &Arc<Repository>, tree: &SnapshotTree, files: &[NodeId]) {
        let context = RequestContext::new(None, self.cancel.clone());
        let volumes = RequestVolumes::new(repository, &context);
        let mut planned = HashSet::new();
        thread::scope(|scope| {
            for (node, position) in files.iter().zip(1..) {
                if !self.wait_until(SizeProgress::has_room) {
                    break;
                }
                let volume = tree.find_file(*node).and_then(|file| size_volume(&volumes, &file));
                let Some(id) = volume.filter(|id| planned.insert(*id) && !repository.was_decoded(*id)) else {
                    continue;
                };
                self.progress.update(|progress| progress.volumes.push((position, true)));
                let context = context.clone();
                let fetch = move || {
                    // A question for a size meets the same failure and reports it.
                    if let Err(error) = repository.fetch_ahead(id, &context) {
                        log::debug!("sizes: {error}");
                    }
                    self.end_fetch(position);
                };
                if thread::Builder::new().name("dupfs-size-fetch".into()).spawn_scoped(scope, fetch).is_err() {
                    self.end_fetch(position);
                }
            }
            self.wait_until(|progress| !progress.is_running());
            self.progress.update(|progress| progress.is_over = true);
        });
    }

    fn end_fetch(&self, position: usize) {
        self.progress.update(|progress| {
            let ended = progress.volumes.iter_mut().filter(|(first, _)| *first == position);
            ended.for_each(|(_, is_running)| *is_running = false);
        });
    }

    /// Waits until `is_ready`. Cancels the job and returns false if the questions stop before.
    fn wait_until(&self, is_ready: impl Fn(&SizeProgress) -> bool) -> bool {
        loop {
            let step = RequestContext::with_timeout(CHECK_INTERVAL);
            let ready = self.progress.wait_until(&step, |progress| is_ready(progress).then_some(()));
            if self.cancel.is_cancelled() || self.progress.lock().is_idle() {
                self.cancel.cancel();
                return false;
            }
            if ready.is_ok() {
                return true;
            }
        }
    }
}

impl Drop for SizeAhead {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        threads.iter().for_each(|(cancel, _)| cancel.cancel());
        for (_, thread) in threads {
            // A panic was reported by the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for SizeQuestion {
    fn drop(&mut self) {
        if let Some(job) = &self.job {
            job.progress.update(|progress| {
                progress.asking = progress.asking.saturating_sub(1);
                progress.changed = Instant::now();
            });
        }
        self.waits.update(|waits| {
            if let Some((count, _)) = waits.waiting.get_mut(&self.directory) {
                *count = count.saturating_sub(1);
            }
        });
    }
}
