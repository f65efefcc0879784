//! The FUSE crate's trait over a [`FileSystem`]: a thin wrapper that asks, replies, and defers what has to wait.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};

use crate::vfs::{Attr, FileSystem, FsError, Ino, NodeKind, ROOT_INO};
use dupfs_base::{ErrorKind, RequestContext};

use super::attributes::{attr_ttl, file_attr, file_type, plus_attr};
use super::batch::{Batch, Entry, Listing};
use super::deadline::{Answer, Deadlines};
use super::failures::FailureLog;
use super::pool::{Lane, Pool};

/// The extended attribute of a mount's root that names the serving process, so that `umount` can wait for it to end: its
/// number in decimal, a space, and its [`pid_namespace`]. Not listed.
pub const PID_ATTRIBUTE: &str = "user.dupfs.pid";

/// Attributes that live at least this long belong to a directory that never changes, whose listing may be kept.
const UNCHANGING: Duration = Duration::from_secs(600);

/// Unit of `statfs`.
const BLOCK: u64 = 4096;

/// Serves a [`FileSystem`] to the kernel.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    shared: Arc<Shared>,
}

struct Shared {
    fs: Arc<dyn FileSystem>,
    pool: Pool,
    deadlines: Deadlines,
    failures: FailureLog,
    process: String,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("pool", &self.pool).field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
}

/// One request: what is asked of which inode, and how its reply is made.
struct Call<Ask, Send> {
    op: &'static str,
    ino: Ino,
    lane: Lane,
    /// Asks the file system; called a second time, from a worker, if the answer is not at hand.
    ask: Ask,
    /// Sends the answer; with no reply (the deadline has passed) it gives back what the answer holds.
    send: Send,
}

impl Adapter {
    /// An adapter whose deferred requests are given up after `deadline`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn new(fs: Arc<dyn FileSystem>, deadline: Duration) -> std::io::Result<Self> {
        let deadlines = Deadlines::start(deadline)?;
        let process = format!("{} {}", std::process::id(), pid_namespace());
        let shared = Shared { fs, pool: Pool::new(), deadlines, failures: FailureLog::default(), process };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Answers from memory, or moves `reply` to a worker.
    fn answer<R, T, Ask, Send>(&self, reply: R, call: Call<Ask, Send>)
    where
        R: Answer,
        Ask: Fn(&dyn FileSystem, &RequestContext) -> Result<T, FsError> + std::marker::Send + 'static,
        Send: FnOnce(Option<R>, &dyn FileSystem, T) + std::marker::Send + 'static,
    {
        let (op, ino) = (call.op, call.ino);
        match self.shared.asked(op, ino, &call.ask, &RequestContext::cached_only()) {
            Ok(answer) => self.shared.deliver(op, ino, || (call.send)(Some(reply), &*self.shared.fs, answer)),
            Err(FsError::WouldBlock) => self.defer(reply, call),
            Err(error) => self.shared.refuse(reply, op, ino, &error),
        }
    }

    fn defer<R, T, Ask, Send>(&self, reply: R, call: Call<Ask, Send>)
    where
        R: Answer,
        Ask: Fn(&dyn FileSystem, &RequestContext) -> Result<T, FsError> + std::marker::Send + 'static,
        Send: FnOnce(Option<R>, &dyn FileSystem, T) + std::marker::Send + 'static,
    {
        let ticket = self.shared.deadlines.register(call.op, call.ino, reply);
        let shared = Arc::clone(&self.shared);
        let lane = if self.shared.fs.unpacks(call.ino) { call.lane.unpacking() } else { call.lane };
        let job = move || {
            if ticket.expired() {
                return;
            }
            match shared.asked(call.op, call.ino, &call.ask, ticket.context()) {
                Ok(answer) => shared.deliver(call.op, call.ino, || (call.send)(ticket.claim(), &*shared.fs, answer)),
                Err(error) => {
                    if let Some(reply) = ticket.claim() {
                        shared.refuse(reply, call.op, call.ino, &error);
                    }
                }
            }
        };
        if let Err(error) = self.shared.pool.submit(lane, Box::new(job)) {
            log::error!("no thread can be started to serve requests: {error}");
        }
    }

    fn list<R: Answer>(
        &self,
        op: &'static str,
        listing: Listing,
        reply: R,
        mut add: impl FnMut(&mut R, Entry<'_>) -> bool + Send + 'static,
        done: impl FnOnce(R) + Send + 'static,
    ) {
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| Batch::gather(fs, listing, context);
        let send = move |reply: Option<R>, fs: &dyn FileSystem, first: Batch| {
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
                // What cannot be told now ends this answer; the kernel asks again from there, and then may wait.
                batch = Batch::gather(fs, listing, &RequestContext::cached_only()).unwrap_or_default();
            }
            done(reply);
        };
        self.answer(reply, Call { op, ino: listing.dir, lane: Lane::Names, ask, send });
    }
}

impl Shared {
    /// Asks, turning a panic and a WouldBlock that makes no sense into failures.
    fn asked<T>(
        &self,
        op: &'static str,
        ino: Ino,
        ask: &dyn Fn(&dyn FileSystem, &RequestContext) -> Result<T, FsError>,
        context: &RequestContext,
    ) -> Result<T, FsError> {
        match catch_unwind(AssertUnwindSafe(|| ask(&*self.fs, context))) {
            Ok(Err(FsError::WouldBlock)) if context.may_block() => {
                Err(FsError::failed(ErrorKind::Io, "no answer although it could be waited for (a defect of dupfs)"))
            }
            Ok(answer) => answer,
            Err(_) => {
                let message = format!("dupfs met a defect of its own while it served {op} of inode {ino}");
                Err(FsError::failed(ErrorKind::Io, message))
            }
        }
    }

    /// Replies; a reply that is dropped by a panic answers `EIO`.
    fn deliver(&self, op: &str, ino: Ino, send: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(send)).is_err() {
            log::error!("{op} of inode {ino}: dupfs met a defect of its own");
        }
    }

    fn refuse<R: Answer>(&self, reply: R, op: &'static str, ino: Ino, error: &FsError) {
        self.failures.note(op, ino, error);
        reply.fail(error.errno());
    }
}

macro_rules! answers {
    ($($reply:ty),*) => {$(
        impl Answer for $reply {
            fn fail(self, errno: i32) {
                self.error(Errno::from_i32(errno));
            }
        }
    )*};
}

answers!(ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr);

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Before a read the kernel asks for attributes that it may not keep: a size that is a bound, where nobody called
            // stat. Else it could show zeros behind the end, as it does not cut the size where short reads cross.
            InitFlags::FUSE_AUTO_INVAL_DATA,
        ];
        for capability in wanted {
            // An old kernel without one of them is slower, not wrong.
            let _ = config.add_capabilities(capability);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (parent.0, name.as_bytes().to_vec());
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.lookup(parent, &name, context);
        let send = |reply: Option<ReplyEntry>, _: &dyn FileSystem, attr: Attr| {
            if let Some(reply) = reply {
                reply.entry_with_ttls(&attr_ttl(&attr), &attr.entry_ttl, &file_attr(&attr), Generation(0));
            }
        };
        self.answer(reply, Call { op: "lookup", ino: parent, lane: Lane::Names, ask, send });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = ino.0;
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.getattr(ino, context);
        let send = |reply: Option<ReplyAttr>, _: &dyn FileSystem, attr: Attr| {
            if let Some(reply) = reply {
                reply.attr(&attr_ttl(&attr), &file_attr(&attr));
            }
        };
        self.answer(reply, Call { op: "getattr", ino, lane: Lane::Sizes, ask, send });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let ino = ino.0;
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.readlink(ino, context);
        self.answer(reply, Call { op: "readlink", ino, lane: Lane::Names, ask, send: send_bytes });
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let ino = ino.0;
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.open(ino, context);
        let send = move |reply: Option<ReplyOpen>, fs: &dyn FileSystem, opened: crate::vfs::Opened| {
            let Some(reply) = reply else { return fs.release(ino, opened.handle) };
            let mut flags = FopenFlags::FOPEN_NOFLUSH;
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache && !opened.direct_io);
            flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
            reply.opened(FileHandle(opened.handle), flags);
        };
        self.answer(reply, Call { op: "open", ino, lane: Lane::Sizes, ask, send });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (ino, handle) = (ino.0, fh.0);
        let Ok(size) = usize::try_from(size) else { return reply.error(Errno::EINVAL) };
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| {
            let mut bytes = fs.read(ino, handle, offset, size, context)?;
            bytes.truncate(size);
            Ok(bytes)
        };
        self.answer(reply, Call { op: "read", ino, lane: Lane::Data, ask, send: send_bytes });
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
        let released = catch_unwind(AssertUnwindSafe(|| self.shared.fs.release(ino.0, fh.0)));
        if released.is_err() {
            log::error!("release of inode {}: dupfs met a defect of its own", ino.0);
        }
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let ino = ino.0;
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.getattr(ino, context);
        let send = |reply: Option<ReplyOpen>, _: &dyn FileSystem, attr: Attr| {
            let Some(reply) = reply else { return };
            let kept = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
            let flags = if attr.attr_ttl >= UNCHANGING { kept } else { FopenFlags::empty() };
            reply.opened(FileHandle(0), flags);
        };
        self.answer(reply, Call { op: "opendir", ino, lane: Lane::Names, ask, send });
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let listing = Listing { dir: ino.0, offset, plus: false };
        let add = |reply: &mut ReplyDirectory, entry: Entry<'_>| {
            reply.add(INodeNo(entry.ino), entry.next, file_type(entry.kind), OsStr::from_bytes(entry.name))
        };
        self.list("readdir", listing, reply, add, ReplyDirectory::ok);
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let listing = Listing { dir: ino.0, offset, plus: true };
        let add = |reply: &mut ReplyDirectoryPlus, entry: Entry<'_>| {
            let (attr, ttl) = plus_attr(&entry);
            reply.add(INodeNo(entry.ino), entry.next, OsStr::from_bytes(entry.name), &ttl, &attr, Generation(0))
        };
        self.list("readdirplus", listing, reply, add, ReplyDirectoryPlus::ok);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let stats = self.shared.fs.stats();
        let unit = u32::try_from(BLOCK).unwrap_or(512);
        reply.statfs(stats.total_bytes.div_ceil(BLOCK), 0, 0, stats.files, 0, unit, 255, unit);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ino = ino.0;
        if ino == ROOT_INO && name == PID_ATTRIBUTE {
            return send_xattr(reply, self.shared.process.as_bytes(), size);
        }
        let name: OsString = name.to_owned();
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.getxattr(ino, name.as_bytes(), context);
        let send = move |reply: Option<ReplyXattr>, _: &dyn FileSystem, value: Option<Vec<u8>>| match (reply, value) {
            (Some(reply), Some(value)) => send_xattr(reply, &value, size),
            (Some(reply), None) => reply.error(Errno::ENODATA),
            (None, _) => {}
        };
        self.answer(reply, Call { op: "getxattr", ino, lane: Lane::Names, ask, send });
    }

    /// No attribute is listed, of any inode: `cp -a` and `rsync -X` would copy those that dupfs answers into the restored
    /// tree. Told once, the kernel asks no more, which spares `cp -a` two requests for each file.
    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    /// Asked only without `default_permissions`: then everything is readable, and a file is a program if anybody may
    /// run it. Writing was refused by the kernel, as the mount is read-only.
    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if !mask.contains(AccessFlags::X_OK) {
            return reply.ok();
        }
        let ino = ino.0;
        let ask = move |fs: &dyn FileSystem, context: &RequestContext| fs.getattr(ino, context);
        let send = |reply: Option<ReplyEmpty>, _: &dyn FileSystem, attr: Attr| match reply {
            Some(reply) if attr.kind == NodeKind::File && attr.perm & 0o111 == 0 => reply.error(Errno::EACCES),
            Some(reply) => reply.ok(),
            None => {}
        };
        self.answer(reply, Call { op: "access", ino, lane: Lane::Sizes, ask, send });
    }
}

/// The namespace in which this process's number means it, such as `pid:[4026531836]`.
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
