//! `dupfs mount`: everything that can be wrong is found, in the order of what it costs the user, and then it is mounted.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::fuse::{MountEnd, MountPoint, MountSettings, Mounted, check_device};
use crate::vfs::{FileSystem, FsError, ROOT_INO};
use dupfs_base::{ErrorKind, RequestContext};

use super::app::{App, OpenRequest};
use super::args::{Cli, MountArgs};
use super::daemon;
use super::errors::CliError;
use super::options::Sizes;
use super::refresh;
use super::secrets::Passphrases;

/// Mounts, in this process (`-f`, or as the daemon that was started for it) or in a daemon. `own` are the arguments of
/// this process, without the program's name.
pub(super) fn run(app: &App<'_>, cli: &Cli, args: &MountArgs, own: &[OsString]) -> Result<(), CliError> {
    if !args.foreground && !cli.report_ready {
        return daemon::launch((app.respawn)(&daemon::arguments(own)));
    }
    // Before anything is read that could not be read again, such as a passphrase.
    daemon::become_bounded((app.respawn)(own));
    let ready = prepare(app, args)?;
    // Caught from here on, or a signal would leave a dead mount; before, it ends the program as it ends any other. A cache file
    // beyond a limit on sizes (`ulimit -f`) is then an error of the write and no more.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXFSZ]).map_err(unwatched)?;
    let mounted = Mounted::mount(Arc::clone(&ready.fs), &ready.point, &ready.settings)?;
    let refresh = refresh::start(Arc::clone(&ready.fs), refresh::interval(args)).map_err(unwatched)?;
    let watch = watch(signals, &mounted, Arc::clone(&ready.fs), (!args.foreground).then_some(refresh.clone()))?;
    ready.passphrases.stop_asking();
    log::info!("mounted on {}", mounted.path().display());
    if !args.foreground {
        daemon::detach()
            .map_err(|error| CliError::failed(ErrorKind::Io, format!("the mount cannot be reported: {error}")))?;
    }
    let end = mounted.wait()?;
    drop((watch, refresh));
    ready.fs.finish();
    if let Some(cost) = ready.fs.cost() {
        log::info!("{cost}");
    }
    match end {
        MountEnd::Unmounted => log::info!("unmounted"),
        MountEnd::Stopped => log::info!("stopped and unmounted"),
        MountEnd::Detached => log::warn!("stopped while files were open: their readers get an error (ENOTCONN)"),
    }
    Ok(())
}

/// All that mounting needs.
struct Ready {
    point: MountPoint,
    fs: Arc<dyn FileSystem>,
    settings: MountSettings,
    passphrases: Arc<Passphrases>,
}

/// Checks everything. What needs no secret comes first: nobody types a passphrase for a mount point in use.
fn prepare(app: &App<'_>, args: &MountArgs) -> Result<Ready, CliError> {
    let point = MountPoint::check(&args.mountpoint, args.nonempty)?;
    let place = app.backend.locate(&args.repo, &args.cache)?;
    for (what, dir) in &place.local {
        point.check_overlap(what, dir)?;
    }
    check_device(args.allow_other)?;
    let passphrases = Arc::new(Passphrases::gather(&args.keys)?);
    let fs = app.backend.open(OpenRequest {
        repo: &args.repo,
        keys: &args.keys,
        cache: &args.cache,
        time: &args.time,
        owners: &args.owners,
        path: args.path.as_deref(),
        size_bounds: args.sizes == Sizes::Bound,
        passphrases: Arc::clone(&passphrases),
    })?;
    probe(&*fs)?;
    let settings = MountSettings {
        url: place.url,
        allow_other: args.allow_other,
        default_permissions: args.default_permissions,
        noexec: args.noexec,
        deadline: Duration::from_secs(args.deadline),
    };
    Ok(Ready { point, fs, settings, passphrases })
}

/// Asks for the root before the kernel does, so that what is wrong is told in words and not as an errno.
fn probe(fs: &dyn FileSystem) -> Result<(), FsError> {
    fs.getattr(ROOT_INO, &RequestContext::unlimited())?;
    fs.readdir(ROOT_INO, 0, &RequestContext::unlimited(), &mut |_| false)
}

/// Lets SIGINT and SIGTERM end the mount. SIGHUP asks for `refresh`; without one, in the foreground, it means that the
/// terminal has gone and ends the mount too. SIGUSR1 writes to the log what serving has cost so far.
fn watch(
    mut signals: Signals,
    mounted: &Mounted,
    fs: Arc<dyn FileSystem>,
    refresh: Option<Sender<()>>,
) -> Result<SignalWatch, CliError> {
    let handle = signals.handle();
    let stop = mounted.stopper();
    let listen = move || {
        for signal in signals.forever() {
            match signal {
                // Asked for, so it is told at any level of the log.
                SIGUSR1 => log::warn!("{}", fs.cost().unwrap_or_default()),
                SIGHUP if refresh.is_some() => {
                    // The thread that listens ends only with the mount.
                    let _ = refresh.as_ref().map(|refresh| refresh.send(()));
                }
                SIGXFSZ => log::debug!("a file of the cache has come to the limit on sizes of files"),
                _ => stop(),
            }
        }
    };
    thread::Builder::new().name("dupfs-signals".into()).spawn(listen).map_err(unwatched)?;
    Ok(SignalWatch { handle })
}

fn unwatched(error: std::io::Error) -> CliError {
    CliError::failed(ErrorKind::Io, format!("signals cannot be watched: {error}"))
}

/// Ends the watch when it is dropped.
struct SignalWatch {
    handle: signal_hook::iterator::Handle,
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
    }
}
