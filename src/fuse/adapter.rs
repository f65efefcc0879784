//! Implements the FUSE crate's trait over a [`FileSystem`]. Requests that would block are deferred to a worker.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, Interruption, KernelConfig,
    LockOwner, Notifier, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request, RequestId,
};

use crate::vfs::{Attr, FileSystem, FsError, Ino, NodeKind, ROOT_INO, tenths};
use dupfs_base::{ErrorKind, RequestContext};

use super::attributes::{attr_ttl, file_attr, file_type, name_attr, plus_attr};
use super::closed_files::ClosedFiles;
use super::deadline::{DeadlineQueue, ErrorReply, RequestOrigin, WaitingRequest};
use super::dir_batch::{BatchEntry, DirBatch, DirRequest};
use super::failure_log::FailureLog;
use super::mount_status::{MAX_STATUS_BYTES, MountStatus, STATUS_ATTRIBUTE, WaitStatus};
use super::stream_readers::{self, StreamReaders};
use super::waiter::WaiterId;
use super::worker_pool::{RequestCost, WorkerPool};

/// The extended attribute of a mount's root that names the serving process, so that `umount` can wait for its exit: its
/// process id in decimal, a space, and its [`pid_namespace`]. Not listed.
pub const PID_ATTRIBUTE: &str = "user.dupfs.pid";

/// The extended attribute of a mount's root that has the last failed requests, one line each, the newest one last. For the
/// user who mounted and root only, as the lines name files. Not listed.
pub const ERRORS_ATTRIBUTE: &str = "user.dupfs.errors";

/// Attributes that may be cached at least this long belong to a directory that never changes, whose listing may be cached.
const IMMUTABLE_TTL: Duration = Duration::from_secs(600);

/// Unit of `statfs`.
const BLOCK: u32 = 4096;

/// Serves a [`FileSystem`] to the kernel.
#[derive(Clone, Debug)]
pub(super) struct FuseAdapter {
    core: Arc<AdapterCore>,
}

/// The parts of the adapter that deferred requests share.
struct AdapterCore {
    fs: Arc<dyn FileSystem>,
    pool: WorkerPool,
    deadlines: DeadlineQueue,
    closed: ClosedFiles,
    readers: StreamReaders,
    /// Sends to the kernel what no request asks for, once the mount is served.
    notifier: OnceLock<Notifier>,
    failures: FailureLog,
    process_attribute: String,
    /// The parts of the status that do not change.
    identity: MountStatus,
}

impl std::fmt::Debug for AdapterCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdapterCore")
            .field("pool", &self.pool)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

/// One request: the operation, its inode, and how it is computed and answered.
struct FuseCall<Compute, Send> {
    origin: RequestOrigin,
    op: &'static str,
    ino: Ino,
    cost: RequestCost,
    /// Computes the answer; called a second time, from a worker, if the answer is not cached.
    compute: Compute,
    /// Sends the answer; without a reply (the request has expired or was interrupted) it releases the resources of the
    /// answer.
    send: Send,
}

impl FuseAdapter {
    /// An adapter whose deferred requests expire after `deadline`. `url` and `mountpoint` are for its status.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        deadline: Duration,
        (url, mountpoint): (&str, &Path),
    ) -> std::io::Result<Self> {
        let deadlines = DeadlineQueue::start(deadline)?;
        let process_attribute = format!("{} {}", std::process::id(), pid_namespace());
        let (pool, failures) = (WorkerPool::new(), FailureLog::default());
        let below = Arc::downgrade(&fs);
        let leave = move |ino| {
            if let Some(fs) = below.upgrade() {
                fs.leave(ino);
            }
        };
        let closed = ClosedFiles::new(Arc::new(leave));
        let identity = MountStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            url: url.to_owned(),
            mountpoint: mountpoint.to_string_lossy().into_owned(),
            pid: std::process::id(),
            since: jiff::Timestamp::now().as_second(),
            ..MountStatus::default()
        };
        let (readers, notifier) = (StreamReaders::default(), OnceLock::new());
        let core =
            AdapterCore { fs, pool, deadlines, closed, readers, notifier, failures, process_attribute, identity };
        Ok(Self { core: Arc::new(core) })
    }

    /// Sets the sender of notifications. Called before the first request is served.
    pub(super) fn set_notifier(&self, notifier: Notifier) {
        let _ = self.core.notifier.set(notifier);
    }

    /// The progress of requests that wait and of prefetch, which changes with each answer and each fetch; `None` if nothing
    /// waits for the store.
    pub(super) fn progress(&self) -> Option<(Option<u64>, Option<String>)> {
        let answered = self.core.deadlines.answered_while_pending();
        (answered.is_some() || self.core.fs.is_prefetching()).then(|| (answered, self.core.fs.cost()))
    }

    /// Answers from memory, or moves `reply` to a worker.
    fn answer<R, T, Compute, Send>(&self, reply: R, call: FuseCall<Compute, Send>)
    where
        R: ErrorReply,
        Compute: Fn(&dyn FileSystem, &RequestContext) -> Result<T, FsError> + std::marker::Send + 'static,
        Send: FnOnce(Option<R>, &dyn FileSystem, T) + std::marker::Send + 'static,
    {
        let (op, ino) = (call.op, call.ino);
        match self.core.compute(op, ino, &call.compute, &RequestContext::cached_only()) {
            Ok(answer) => self.core.deliver(op, ino, || (call.send)(Some(reply), &*self.core.fs, answer)),
            Err(FsError::WouldBlock) => self.defer(reply, call),
            Err(error) => self.core.refuse(reply, op, ino, &error),
        }
    }

    fn defer<R, T, Compute, Send>(&self, reply: R, call: FuseCall<Compute, Send>)
    where
        R: ErrorReply,
        Compute: Fn(&dyn FileSystem, &RequestContext) -> Result<T, FsError> + std::marker::Send + 'static,
        Send: FnOnce(Option<R>, &dyn FileSystem, T) + std::marker::Send + 'static,
    {
        let (op, ino, reported) = (call.op, call.ino, Arc::downgrade(&self.core));
        let report = move |timeout: Duration| {
            if let Some(core) = reported.upgrade() {
                let message = format!("no answer within {} s (--deadline)", timeout.as_secs());
                core.failures.note(op, &core.shown(ino), &FsError::failed(ErrorKind::Timeout, message));
            }
        };
        let deferred = self.core.deadlines.register(call.origin, (op, ino), Box::new(report), reply);
        let core = Arc::clone(&self.core);
        let names = call.cost == RequestCost::Index;
        let cost = if self.core.fs.unpacks(call.ino, names) { RequestCost::Unpack } else { call.cost };
        let job = move || {
            if deferred.ended() {
                // Answered while the job was queued.
                return;
            }
            match core.compute(call.op, call.ino, &call.compute, deferred.context()) {
                Ok(answer) => core.deliver(call.op, call.ino, || (call.send)(deferred.claim(), &*core.fs, answer)),
                Err(error) => match deferred.claim() {
                    Some(reply) => core.refuse(reply, call.op, call.ino, &error),
                    // The reader may not return for the volumes that are prefetched for it.
                    None => core.fs.stop_prefetch(),
                },
            }
        };
        if let Err(error) = self.core.pool.submit(cost, Box::new(job)) {
            log::error!("cannot start a thread to serve requests: {error}");
        }
    }

    fn list<R: ErrorReply>(
        &self,
        origin: RequestOrigin,
        op: &'static str,
        listing: DirRequest,
        reply: R,
        mut add: impl FnMut(&mut R, BatchEntry<'_>) -> bool + Send + 'static,
        done: impl FnOnce(R) + Send + 'static,
    ) {
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| DirBatch::gather(fs, listing, context);
        let send = move |reply: Option<R>, fs: &dyn FileSystem, first: DirBatch| {
            let Some(mut reply) = reply else { return };
            let mut listing = listing;
            let mut batch = first;
            while !batch.is_empty() {
                for entry in batch.entries() {
                    if add(&mut reply, entry) {
                        return done(reply);
                    }
                    listing.offset = entry.next;
                }
                // A batch that would block ends this reply; the kernel continues from there with a request that may block.
                batch = DirBatch::gather(fs, listing, &RequestContext::cached_only()).unwrap_or_default();
            }
            done(reply);
        };
        self.answer(reply, FuseCall { origin, op, ino: listing.dir, cost: RequestCost::Index, compute, send });
    }
}

impl AdapterCore {
    /// Computes an answer; a panic, or WouldBlock of a request that may block, is a failure.
    fn compute<T>(
        &self,
        op: &'static str,
        ino: Ino,
        compute: &dyn Fn(&dyn FileSystem, &RequestContext) -> Result<T, FsError>,
        context: &RequestContext,
    ) -> Result<T, FsError> {
        match catch_unwind(AssertUnwindSafe(|| compute(&*self.fs, context))) {
            Ok(Err(FsError::WouldBlock)) if context.may_block() => Err(FsError::failed(
                ErrorKind::Io,
                "a request that may block would block: internal error (bug in dupfs)",
            )),
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("internal error (bug in dupfs) while serving {op} of {}", self.shown(ino));
                Err(FsError::failed(ErrorKind::Io, message))
            }
        }
    }

    /// Sends a reply; one that a panic drops answers `EIO`.
    fn deliver(&self, op: &str, ino: Ino, send: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(send)).is_err() {
            log::error!("{op} of {}: internal error (bug in dupfs)", self.shown(ino));
        }
    }

    /// The value of the attribute with the status. Everything in it is in memory, except for the names of processes.
    fn status(&self) -> Vec<u8> {
        let (waiting, answered) = self.deadlines.waiting();
        let shown = |request: WaitingRequest| {
            let process = request.waiter.map(WaiterId::process);
            WaitStatus {
                operation: request.op.to_owned(),
                path: self.shown(request.ino),
                pid: process.as_ref().map(|(pid, _)| *pid),
                command: process.and_then(|(_, command)| command),
                seconds: tenths(request.elapsed),
                object: request.object.map(|object| object.to_string()),
            }
        };
        let status = MountStatus {
            fs: self.fs.status(),
            waiting: waiting.into_iter().map(shown).collect(),
            answered,
            errors: self.failures.recent().lines().map(str::to_owned).collect(),
            ..self.identity.clone()
        };
        status.encode()
    }

    /// Makes the kernel keep the size that it has for `ino` when it gets the answer to a request for attributes that it has sent
    /// before: with a size of 0, all transfers in the kernel (sendfile, io_uring) would end at once.
    fn keep_kernel_size(&self, ino: Ino) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(error) = notifier.inval_inode(INodeNo(ino), -1, 0) {
            log::debug!("the attributes of {} cannot be invalidated: {error}", self.shown(ino));
        }
    }

    fn refuse<R: ErrorReply>(&self, reply: R, op: &'static str, ino: Ino, error: &FsError) {
        self.failures.note(op, &self.shown(ino), error);
        reply.fail(error.errno());
    }

    /// The path of `ino` for messages.
    fn shown(&self, ino: Ino) -> String {
        let path = catch_unwind(AssertUnwindSafe(|| self.fs.path(ino))).ok().flatten();
        path.unwrap_or_else(|| if ino == ROOT_INO { "the mount".to_owned() } else { format!("inode {ino}") })
    }
}

macro_rules! answers {
    ($($reply:ty),*) => {$(
        impl ErrorReply for $reply {
            fn fail(self, errno: i32) {
                self.error(Errno::from_i32(errno));
            }
        }
    )*};
}

answers!(ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr);

impl Filesystem for FuseAdapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Handles of inodes that the kernel has forgotten, for NFS servers: it looks up "." and ".." of their numbers.
            InitFlags::FUSE_EXPORT_SUPPORT,
            // The kernel then refreshes attributes with a zero time to live (a size that is a bound) before a read. Otherwise
            // it could show zeros after the end, as it does not truncate the size after concurrent short reads.
            InitFlags::FUSE_AUTO_INVAL_DATA,
            // Shared mappings of files that are open for direct I/O: some programs take a failure for an empty file.
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        for capability in wanted {
            // A kernel without one of them is slower, not wrong.
            let _ = config.add_capabilities(capability);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    /// Ends the work of requests that no process can receive the answers of any more.
    fn destroy(&mut self) {
        self.core.deadlines.interrupt_all();
    }

    fn interrupt(&self, _req: &Request, unique: RequestId) -> Interruption {
        if self.core.deadlines.interrupt(unique.0) { Interruption::Accepted } else { Interruption::Unknown }
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (parent.0, name.as_bytes().to_vec());
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| match name.as_slice() {
            // Numbers stay valid when the kernel forgets them, so a handle of one leads to its inode.
            b"." => fs.getattr(parent, context),
            b".." => fs.getattr(fs.parent(parent, context)?, context),
            name => fs.lookup(parent, name, context),
        };
        let send = |reply: Option<ReplyEntry>, _: &dyn FileSystem, attr: Attr| {
            if let Some(reply) = reply {
                reply.entry_with_ttls(&attr_ttl(&attr), &attr.entry_ttl, &name_attr(&attr), Generation(0));
            }
        };
        self.answer(
            reply,
            FuseCall { origin: origin(req), op: "lookup", ino: parent, cost: RequestCost::Index, compute, send },
        );
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = ino.0;
        // With a handle the kernel itself asks for the size, for SEEK_END and for reads through its cache.
        let any_size = fh.is_none() && self.core.readers.accepts_any_size(ino, WaiterId::new(req.pid()));
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| {
            if any_size { fs.reader_attr(ino, context) } else { fs.getattr(ino, context) }
        };
        let core = Arc::clone(&self.core);
        let send = move |reply: Option<ReplyAttr>, _: &dyn FileSystem, attr: Attr| {
            if let Some(reply) = reply {
                if any_size && !attr.exact {
                    core.keep_kernel_size(ino);
                }
                reply.attr(&attr_ttl(&attr), &file_attr(&attr));
            }
        };
        self.answer(
            reply,
            FuseCall { origin: origin(req), op: "getattr", ino, cost: RequestCost::Size, compute, send },
        );
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let ino = ino.0;
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| fs.readlink(ino, context);
        self.answer(
            reply,
            FuseCall { origin: origin(req), op: "readlink", ino, cost: RequestCost::Index, compute, send: send_bytes },
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let ino = ino.0;
        // A read in the kernel's readahead is not interrupted. If its process is not visible, closing the file ends it.
        let opener = WaiterId::new(req.pid());
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| {
            if context.may_block() && stream_readers::may_open_unsized(opener) {
                fs.open_unsized(ino, context)
            } else {
                fs.open(ino, context)
            }
        };
        let core = Arc::clone(&self.core);
        let send = move |reply: Option<ReplyOpen>, fs: &dyn FileSystem, opened: crate::vfs::Opened| {
            let Some(reply) = reply else { return fs.release(ino, opened.handle) };
            let mut flags = FopenFlags::empty();
            flags.set(FopenFlags::FOPEN_NOFLUSH, opener.is_some() || opened.direct_io);
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.direct_io);
            flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
            core.closed.record_open((ino, opened.handle), opener);
            if opened.direct_io {
                core.readers.record_open((ino, opened.handle), opener);
            }
            reply.opened(FileHandle(opened.handle), flags);
        };
        self.answer(reply, FuseCall { origin: origin(req), op: "open", ino, cost: RequestCost::Size, compute, send });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (ino, handle) = (ino.0, fh.0);
        // Reads of a process have an owner; those that fill pages of the kernel's cache have none.
        let fills_page = lock_owner.is_none();
        let Ok(size) = usize::try_from(size) else { return reply.error(Errno::EINVAL) };
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| {
            let mut bytes = if fills_page {
                fs.read_page(ino, handle, offset, size, context)?
            } else {
                fs.read(ino, handle, offset, size, context)?
            };
            bytes.truncate(size);
            Ok(bytes)
        };
        let origin = origin(req);
        let origin = RequestOrigin { file: origin.waiter.is_none().then_some((ino, handle)), ..origin };
        self.answer(reply, FuseCall { origin, op: "read", ino, cost: RequestCost::Content, compute, send: send_bytes });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let released = catch_unwind(AssertUnwindSafe(|| {
            let stored = self.core.fs.stored_ino(ino.0, fh.0);
            self.core.fs.release(ino.0, fh.0);
            self.core.readers.record_close((ino.0, fh.0));
            self.core.closed.record_close((ino.0, fh.0), stored);
        }));
        if released.is_err() {
            log::error!("release of {}: internal error (bug in dupfs)", self.core.shown(ino.0));
        }
        reply.ok();
    }

    fn flush(&self, req: &Request, ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if WaiterId::new(req.pid()).is_none() {
            self.core.deadlines.interrupt_file(ino.0, fh.0);
        }
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let ino = ino.0;
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| fs.getattr(ino, context);
        let send = |reply: Option<ReplyOpen>, _: &dyn FileSystem, attr: Attr| {
            let Some(reply) = reply else { return };
            let cached = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
            let flags = if attr.attr_ttl >= IMMUTABLE_TTL { cached } else { FopenFlags::empty() };
            reply.opened(FileHandle(0), flags);
        };
        self.answer(
            reply,
            FuseCall { origin: origin(req), op: "opendir", ino, cost: RequestCost::Index, compute, send },
        );
    }

    fn readdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let listing = DirRequest { dir: ino.0, offset, plus: false };
        let add = |reply: &mut ReplyDirectory, entry: BatchEntry<'_>| {
            reply.add(INodeNo(entry.ino), entry.next, file_type(entry.kind), OsStr::from_bytes(entry.name))
        };
        self.list(origin(req), "readdir", listing, reply, add, ReplyDirectory::ok);
    }

    fn readdirplus(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let listing = DirRequest { dir: ino.0, offset, plus: true };
        let add = |reply: &mut ReplyDirectoryPlus, entry: BatchEntry<'_>| {
            let (node, attr, ttl) = plus_attr(&entry);
            reply.add(INodeNo(node), entry.next, OsStr::from_bytes(entry.name), &ttl, &attr, Generation(0))
        };
        self.list(origin(req), "readdirplus", listing, reply, add, ReplyDirectoryPlus::ok);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let stats = self.core.fs.stats();
        reply.statfs(stats.total_bytes.div_ceil(BLOCK.into()), 0, 0, stats.files, 0, BLOCK, 255, BLOCK);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ino = ino.0;
        if ino == ROOT_INO && name == PID_ATTRIBUTE {
            return send_xattr(reply, self.core.process_attribute.as_bytes(), size);
        }
        if ino == ROOT_INO && (name == ERRORS_ATTRIBUTE || name == STATUS_ATTRIBUTE) {
            let own = rustix::process::geteuid().as_raw();
            if req.uid() != 0 && req.uid() != own {
                return reply.error(Errno::EACCES);
            }
            if name == ERRORS_ATTRIBUTE {
                return send_xattr(reply, self.core.failures.recent().as_bytes(), size);
            }
            if size == 0 {
                // The value may grow before it is read.
                return reply.size(MAX_STATUS_BYTES.try_into().unwrap_or(u32::MAX));
            }
            return match catch_unwind(AssertUnwindSafe(|| self.core.status())) {
                Ok(status) => send_xattr(reply, &status, size),
                Err(_) => reply.error(Errno::EIO),
            };
        }
        let name: OsString = name.to_owned();
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| fs.getxattr(ino, name.as_bytes(), context);
        let send = move |reply: Option<ReplyXattr>, _: &dyn FileSystem, value: Option<Vec<u8>>| match (reply, value) {
            (Some(reply), Some(value)) => send_xattr(reply, &value, size),
            (Some(reply), None) => reply.error(Errno::ENODATA),
            (None, _) => {}
        };
        self.answer(
            reply,
            FuseCall { origin: origin(req), op: "getxattr", ino, cost: RequestCost::Index, compute, send },
        );
    }

    /// Lists no attribute of any inode: `cp -a` and `rsync -X` would copy those of dupfs into the restored tree. After one
    /// `ENOSYS` the kernel does not call it again, which saves `cp -a` two requests for each file.
    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    /// Called only without `default_permissions`: then everything is readable, and a file is executable if any user may
    /// execute it. The kernel has refused writing, as the mount is read-only.
    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if !mask.contains(AccessFlags::X_OK) {
            return reply.ok();
        }
        let ino = ino.0;
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| fs.getattr(ino, context);
        let send = |reply: Option<ReplyEmpty>, _: &dyn FileSystem, attr: Attr| match reply {
            Some(reply) if attr.kind == NodeKind::File && attr.perm & 0o111 == 0 => reply.error(Errno::EACCES),
            Some(reply) => reply.ok(),
            None => {}
        };
        self.answer(reply, FuseCall { origin: origin(req), op: "access", ino, cost: RequestCost::Size, compute, send });
    }
}

/// The origin of a request, by which it is interrupted.
fn origin(request: &Request) -> RequestOrigin {
    RequestOrigin { id: request.unique().0, waiter: WaiterId::new(request.pid()), file: None }
}

/// The namespace in which this process's id is valid, such as `pid:[4026531836]`.
pub fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default()
}

fn send_bytes(reply: Option<ReplyData>, _: &dyn FileSystem, bytes: Vec<u8>) {
    if let Some(reply) = reply {
        reply.data(&bytes);
    }
}

/// Answers as `getxattr` does: the length if `size` is 0, else the value if it fits.
fn send_xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use dupfs_base::Stopped;
    use dupfs_base::sync::lock;

    use super::*;
    use crate::vfs::memory_fs::MemoryFs;

    const SOON: Duration = Duration::from_secs(20);

    fn adapter(fs: Arc<MemoryFs>, deadline: Duration) -> FuseAdapter {
        FuseAdapter::new(fs, deadline, ("memory:", Path::new("/mnt"))).unwrap()
    }

    /// A reply that records its errno; 0 for success.
    struct TestReply(Sender<i32>);

    impl ErrorReply for TestReply {
        fn fail(self, errno: i32) {
            self.0.send(errno).unwrap();
        }
    }

    /// Requests the attributes of `ino`; counts in `calls` how often they are computed by a worker.
    fn request(adapter: &FuseAdapter, ino: Ino, calls: &Arc<AtomicUsize>) -> Receiver<i32> {
        let (tx, rx) = channel();
        let calls = Arc::clone(calls);
        let compute = move |fs: &dyn FileSystem, context: &RequestContext| {
            if context.may_block() {
                calls.fetch_add(1, Ordering::SeqCst);
            }
            fs.getattr(ino, context)
        };
        let send = |reply: Option<TestReply>, _: &dyn FileSystem, _: Attr| {
            if let Some(reply) = reply {
                reply.fail(0);
            }
        };
        let origin = RequestOrigin { id: 0, waiter: None, file: None };
        adapter.answer(TestReply(tx), FuseCall { origin, op: "getattr", ino, cost: RequestCost::Size, compute, send });
        rx
    }

    fn hanging_fs() -> (Arc<MemoryFs>, Ino) {
        let mut fs = MemoryFs::new();
        let ino = fs.file(ROOT_INO, b"file", b"content".as_slice());
        fs.hanging.push(ino);
        (Arc::new(fs), ino)
    }

    #[test]
    fn a_request_past_its_deadline_times_out_and_its_work_is_stopped() {
        let (fs, ino) = hanging_fs();
        let adapter = adapter(Arc::clone(&fs), Duration::from_millis(100));
        let calls = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        assert_eq!(request(&adapter, ino, &calls).recv_timeout(SOON).unwrap(), libc::ETIMEDOUT);
        assert!(started.elapsed() >= Duration::from_millis(100));
        while lock(&fs.stopped).is_empty() && started.elapsed() < SOON {
            std::thread::yield_now();
        }
        let stopped = lock(&fs.stopped).clone();
        assert!(matches!(stopped[..], [Stopped::Cancelled | Stopped::Deadline]), "{stopped:?}");
        assert_eq!(request(&adapter, ROOT_INO, &calls).recv_timeout(SOON).unwrap(), 0);
    }

    #[test]
    fn the_queued_work_of_an_expired_request_is_not_run() {
        let (fs, ino) = hanging_fs();
        let adapter = adapter(fs, Duration::from_millis(300));
        // All workers of this cost are busy until after the deadline of the queued request.
        let (release, released) = channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        for _ in 0..8 {
            let released = Arc::clone(&released);
            adapter
                .core
                .pool
                .submit(RequestCost::Size, Box::new(move || assert!(lock(&released).recv().is_err())))
                .unwrap();
        }
        let calls = Arc::new(AtomicUsize::new(0));
        assert_eq!(request(&adapter, ino, &calls).recv_timeout(SOON).unwrap(), libc::ETIMEDOUT);
        drop(release);
        // Once a later job runs on every worker, all earlier ones have ended.
        let (tx, rx) = channel();
        let together = Arc::new(Barrier::new(8));
        for _ in 0..8 {
            let (together, tx) = (Arc::clone(&together), tx.clone());
            let job = move || {
                together.wait();
                tx.send(()).unwrap();
            };
            adapter.core.pool.submit(RequestCost::Size, Box::new(job)).unwrap();
        }
        rx.recv_timeout(SOON).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }
}
