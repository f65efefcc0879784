//! The pass over an archive, which reads its table of members: on its own thread, as long as a request needs the
//! result.

use std::sync::Arc;
use std::thread;

use super::archive_table::member::ArchiveMember;
use super::archive_table::{ArchiveTable, TableFull};
use super::byte_source::ByteSource;
use super::decode_context::DecodeContext;
use super::error::UnpackError;
use super::tar::TarScan;
use super::unpacker::Unpacker;
use super::zip::ZipScan;
use dupfs_base::sync::Monitor;
use dupfs_base::{CancelToken, RequestContext};
use dupfs_cache::index::Identity;

/// The progress of the pass over an archive.
#[derive(Clone, Debug)]
pub enum PassProgress {
    /// It has not begun, or was stopped because no request needed it. The next request continues it.
    Idle,
    /// It is running: members may follow.
    Running,
    /// All members are known, and the whole archive was verified.
    Done,
    /// It failed: later members are not known.
    Failed(UnpackError),
}

/// The pass over one archive. A request that waits for it, and an open file whose end depends on it, have a [`PassInterest`].
/// When the last of these is dropped the pass stops; the members that it has reached stay, and it continues from there later.
#[derive(Debug)]
pub(super) struct ArchivePass {
    unpacker: Arc<Unpacker>,
    /// The archive's file, for errors.
    name: Arc<str>,
    /// The tar stream, decompressed, or the zip file.
    source: Arc<dyn ByteSource>,
    is_zip: bool,
    state: Arc<Monitor<PassState>>,
}

/// The known members of an archive, and the state of the pass.
#[derive(Debug)]
pub(super) struct PassState {
    pub(super) table: ArchiveTable,
    pub(super) progress: PassProgress,
    /// Requests and open files that need the result.
    interested: usize,
    /// Cancelled when no request needs the result any more; `None` while no thread runs.
    running: Option<CancelToken>,
    /// The position at which a stopped pass continues.
    scan: Option<MemberScan>,
}

/// A reader of the members of an archive that can be stopped and resumed.
#[derive(Debug)]
enum MemberScan {
    Tar(Box<TarScan>),
    Zip(ZipScan),
}

impl PassState {
    /// Records that the pass runs, unless it runs already or is over. Returns true if a thread is needed. A pass that failed for
    /// a transient reason begins again.
    fn begin(&mut self, new_table: impl FnOnce() -> ArchiveTable) -> bool {
        match &self.progress {
            PassProgress::Idle => {}
            PassProgress::Failed(error) if error.is_transient() => {
                self.table = new_table();
                self.scan = None;
            }
            PassProgress::Running | PassProgress::Done | PassProgress::Failed(_) => return false,
        }
        self.progress = PassProgress::Running;
        self.running = Some(CancelToken::new());
        true
    }

    /// Takes the outcome of a run. Returns true if the thread has to continue: a request needs the result since it was stopped.
    fn end(&mut self, scan: MemberScan, outcome: Result<(), UnpackError>) -> bool {
        let was_stopped = self.running.as_ref().is_some_and(CancelToken::is_cancelled);
        self.running = None;
        self.progress = match outcome {
            Ok(()) => PassProgress::Done,
            Err(_) if was_stopped => {
                self.scan = Some(scan);
                PassProgress::Idle
            }
            Err(error) => PassProgress::Failed(error),
        };
        let goes_on = self.interested > 0 && matches!(self.progress, PassProgress::Idle);
        if goes_on {
            self.progress = PassProgress::Running;
            self.running = Some(CancelToken::new());
        }
        goes_on
    }
}

impl ArchivePass {
    pub(super) fn new(
        unpacker: &Arc<Unpacker>,
        name: Arc<str>,
        source: Arc<dyn ByteSource>,
        is_zip: bool,
    ) -> Arc<Self> {
        let table = new_table(unpacker);
        let state = PassState { table, progress: PassProgress::Idle, interested: 0, running: None, scan: None };
        Arc::new(Self { unpacker: Arc::clone(unpacker), name, source, is_zip, state: Monitor::new(state) })
    }

    /// Examines the members known so far.
    pub(super) fn inspect<T>(&self, ask: impl FnOnce(&PassState) -> T) -> T {
        ask(&self.state.lock())
    }

    /// Waits until `ask` has an answer; starts the pass if need be.
    ///
    /// # Errors
    /// [`UnpackError::Stopped`] if the request ends first.
    pub(super) fn wait<T>(
        self: &Arc<Self>,
        context: &RequestContext,
        ask: impl Fn(&PassState) -> Option<T>,
    ) -> Result<T, UnpackError> {
        let known = self.inspect(|state| match &state.progress {
            // The pass may reach more members this time.
            PassProgress::Failed(error) if error.is_transient() && context.may_block() => None,
            _ => ask(state),
        });
        if let Some(answer) = known {
            return Ok(answer);
        }
        let stopped = |reason| UnpackError::stopped(&self.name, reason);
        context.check_may_block().map_err(stopped)?;
        let interest = self.join();
        let answer = self.state.wait_until(context, |state| ask(state));
        drop(interest);
        answer.map_err(stopped)
    }

    /// Keeps the pass running until the returned interest is dropped; starts it if need be.
    pub(super) fn join(self: &Arc<Self>) -> PassInterest {
        let needs_thread = self.state.update(|state| {
            state.interested = state.interested.saturating_add(1);
            state.begin(|| new_table(&self.unpacker))
        });
        let interest = PassInterest { pass: Arc::clone(self) };
        if needs_thread {
            let run = RunningPass { pass: Arc::clone(self), has_ended: false };
            if let Err(error) = thread::Builder::new().name("dupfs-members".into()).spawn(move || run.run()) {
                self.fail(UnpackError::internal(
                    &self.name,
                    format!("cannot start a thread to read the members: {error}"),
                ));
            }
        }
        interest
    }

    fn fail(&self, error: UnpackError) {
        self.state.update(|state| {
            state.running = None;
            state.progress = PassProgress::Failed(error);
        });
    }

    /// The key of its table, which any archive with the same content has; `None` if nothing identifies its content.
    fn table_key(&self) -> Option<Identity> {
        let tag: &[u8] = if self.is_zip { b"zip" } else { b"tar" };
        Some(Identity::of(&[&self.source.identity()?, tag]))
    }

    /// Loads the table if it is still cached, else reads the archive from where `scan` is and stores the table.
    fn advance(&self, scan: &mut MemberScan, context: &RequestContext) -> Result<(), UnpackError> {
        let limits = self.unpacker.limits();
        let key = self.table_key();
        if let Some(table) = key.filter(|_| scan.is_new()).and_then(|key| self.unpacker.load_table(key)) {
            self.state.update(|state| state.table = table);
            return Ok(());
        }
        let mut add = |member: ArchiveMember<'_>| {
            let added = self.state.update(|state| state.table.insert(member));
            added.map_err(|full| match full {
                TableFull::Members => UnpackError::limit(&self.name, format!("more than {} members", limits.members)),
                TableFull::Names => {
                    UnpackError::limit(&self.name, format!("names and links of more than {} bytes", limits.names))
                }
            })
        };
        let decoding = DecodeContext::new(&self.unpacker.workers, self.source.origin().flow, context);
        match scan {
            MemberScan::Tar(scan) => scan.advance(&*self.source, &mut add, &decoding)?,
            MemberScan::Zip(scan) => {
                scan.advance(&*self.source, (limits, self.unpacker.zip_names), &mut add, &decoding)?
            }
        }
        drop(decoding);
        // To the end of the stream, where its checks are, even if its length is known without that.
        self.source.check_end(context)?;
        let shortened = self.inspect(|state| state.table.shortened());
        if shortened > 0 {
            log::warn!("{}: {shortened} names of more than 255 bytes are shown shortened", self.name);
        }
        if let Some(key) = key
            && let Some(bytes) = self.inspect(|state| state.table.encode())
        {
            self.unpacker.store_table(key, &bytes);
        }
        Ok(())
    }
}

fn new_table(unpacker: &Unpacker) -> ArchiveTable {
    let limits = unpacker.limits();
    ArchiveTable::new(limits.members, limits.names)
}

impl MemberScan {
    fn is_new(&self) -> bool {
        match self {
            Self::Tar(scan) => scan.is_new(),
            Self::Zip(scan) => scan.is_new(),
        }
    }
}

/// Keeps the pass over an archive running; the last one to be dropped stops it.
#[derive(Debug)]
pub struct PassInterest {
    pass: Arc<ArchivePass>,
}

impl Drop for PassInterest {
    fn drop(&mut self) {
        let unneeded = {
            let mut state = self.pass.state.lock();
            state.interested = state.interested.saturating_sub(1);
            if state.interested == 0 { state.running.clone() } else { None }
        };
        // Without the lock, because it wakes the threads that wait under the token.
        if let Some(running) = unneeded {
            running.cancel();
        }
    }
}

/// A pass while its thread runs; one that panics has failed.
struct RunningPass {
    pass: Arc<ArchivePass>,
    has_ended: bool,
}

impl RunningPass {
    fn run(mut self) {
        let pass = Arc::clone(&self.pass);
        loop {
            let (token, scan) = {
                let mut state = pass.state.lock();
                (state.running.clone().unwrap_or_default(), state.scan.take())
            };
            let new_scan = || {
                if pass.is_zip { MemberScan::Zip(ZipScan::new()) } else { MemberScan::Tar(Box::new(TarScan::new())) }
            };
            let mut scan = scan.unwrap_or_else(new_scan);
            let outcome = pass.advance(&mut scan, &RequestContext::new(None, token.clone()));
            if let (Err(error), false) = (&outcome, token.is_cancelled()) {
                log::error!("the list of the members of an archive is incomplete: {error}");
            }
            if !pass.state.update(|state| state.end(scan, outcome)) {
                break;
            }
        }
        self.has_ended = true;
    }
}

impl Drop for RunningPass {
    fn drop(&mut self) {
        if !self.has_ended {
            self.pass.fail(UnpackError::internal(&self.pass.name, "panic while reading the members"));
        }
    }
}

#[cfg(test)]
#[path = "archive_pass/tests.rs"]
mod tests;
