//! `dupfs mount`: checks everything, in the order of the user's effort, and then mounts.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::fuse::{MountEnd, MountPoint, MountSettings, Mounted, check_device};
use crate::vfs::{FileSystem, FsError, ROOT_INO};
use dupfs_base::{ErrorKind, escape_bytes, io_reason};
use dupfs_read::storage::{FetchLimit, ReadTimeout};

use super::args::{Cli, MountArgs};
use super::backend::{Backend, OpenRequest, StoreBounds};
use super::daemon;
use super::error::CliError;
use super::logging;
use super::refresh;
use super::request_timeout::RequestTimeout;
use super::secrets::Passphrases;
use super::service_manager::ServiceManager;
use super::signal_watch::{SignalWatch, unwatched};

/// Starts this program again with the given arguments.
pub type Respawn<'a> = dyn Fn(&[OsString]) -> std::process::Command + 'a;

/// Mounts, in this process (`-f`, or as the daemon that was started for it) or in a daemon. `own` are the arguments of
/// this process, without the program's name, and `inherited` the files that it was started with.
pub(super) fn run(
    backend: &dyn Backend,
    respawn: &Respawn<'_>,
    cli: &Cli,
    args: &MountArgs,
    own: &[OsString],
    inherited: daemon::InheritedFiles,
) -> Result<(), CliError> {
    if !args.foreground && !cli.report_ready {
        return daemon::launch(own, respawn);
    }
    if !args.foreground {
        daemon::end_with_parent();
    }
    // Before anything is read that cannot be read again, such as a passphrase.
    daemon::restart_with_complete_environment(respawn(own));
    let manager = ServiceManager::of_environment(!args.foreground && cli.report_ready);
    manager.status("opening the backup");
    let ready = prepare(backend, args)?;
    // From here on a signal is handled, or it would leave a stale mount; before, it ends the program.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]).map_err(unwatched)?;
    let mounted = Mounted::mount(Arc::clone(&ready.fs), &ready.point, &ready.settings)?;
    let timeout = RequestTimeout(ready.settings.deadline);
    let listed = report_listings(manager.clone(), Arc::clone(&ready.fs));
    let refresh = refresh::start(Arc::clone(&ready.fs), refresh::interval(args), timeout, listed).map_err(unwatched)?;
    // A closing terminal sends SIGHUP, but a service has none.
    let on_request = (!args.foreground || manager.is_present()).then_some(refresh.clone());
    let targets = SignalTargets {
        fs: Arc::clone(&ready.fs),
        refresh: on_request,
        limit: ready.bounds.fetch_limit.clone(),
        manager: manager.clone(),
    };
    let watch = watch(signals, &mounted, targets)?;
    let mountpoint = mounted.path().to_owned();
    // Answered by the threads that serve the mount.
    let watchdog = manager.start_watchdog(move || rustix::fs::statvfs(&mountpoint).is_ok())?;
    ready.passphrases.stop_asking();
    // From here on a read outlives an outage, because its wait can be interrupted.
    if let Some(read_timeout) = &ready.bounds.read_timeout {
        read_timeout.set(ready.settings.deadline);
    }
    log::info!("mounted on {}", mounted.path().display());
    announce(&*ready.fs, args);
    manager.ready(&ready.fs.summary().unwrap_or_default());
    if let Some(null) = &ready.null {
        daemon::detach(null, inherited).map_err(|error| {
            let reason = io_reason(&error);
            CliError::failed(ErrorKind::Io, format!("the mount was up but could not be reported: {reason}; try again"))
        })?;
    }
    let end = mounted.wait()?;
    drop((watch, refresh, watchdog));
    ready.fs.finish();
    if let Some(cost) = ready.fs.cost() {
        log::info!("{cost}");
    }
    match end {
        MountEnd::Unmounted => log::info!("unmounted"),
        MountEnd::Stopped => log::info!("stopped and unmounted"),
        MountEnd::Detached => log::warn!("stopped while files were open: reads from them fail with ENOTCONN"),
    }
    Ok(())
}

/// The checked parts of a mount.
struct PreparedMount {
    point: MountPoint,
    fs: Arc<dyn FileSystem>,
    settings: MountSettings,
    bounds: StoreBounds,
    passphrases: Arc<Passphrases>,
    /// The replacement of the terminal in a daemon.
    null: Option<File>,
}

/// Checks everything. The checks that need no secret come first: the user is not asked for a passphrase if the mount point is
/// in use.
fn prepare(backend: &dyn Backend, args: &MountArgs) -> Result<PreparedMount, CliError> {
    let point = MountPoint::check(&args.mountpoint, args.nonempty)?;
    let location = backend.locate(&args.repo, &args.cache)?;
    for (what, dir) in &location.local {
        point.check_overlap(what, dir)?;
    }
    check_device(args.allow_other)?;
    let null = if args.foreground { None } else { Some(daemon::open_null()?) };
    let passphrases = Arc::new(Passphrases::gather(&args.keys)?);
    let (start, timeout) = (RequestTimeout(args.deadline.of_start()), RequestTimeout(args.deadline.of_requests()));
    let remedy = format!("kill -USR2 {} lifts the limit of this mount", std::process::id());
    let mut bounds = StoreBounds::limited(&args.repo, remedy);
    // A timeout that the user gives holds for all requests.
    bounds.read_timeout = args.repo.timeout.is_none().then(|| ReadTimeout::new(args.repo.request_timeout()));
    let fs = backend.open(OpenRequest {
        repo: &args.repo,
        keys: &args.keys,
        cache: &args.cache,
        time: &args.time,
        owners: &args.owners,
        path: args.path.as_deref(),
        sizes: args.sizes.into(),
        zip_names: args.zip_names,
        passphrases: Arc::clone(&passphrases),
        start,
        timeout,
        bounds: bounds.clone(),
    })?;
    probe(&*fs, start)?;
    let settings = MountSettings {
        url: location.url,
        allow_other: args.allow_other,
        default_permissions: args.default_permissions,
        noexec: args.noexec,
        deadline: timeout.0,
    };
    Ok(PreparedMount { point, fs, settings, bounds, passphrases, null })
}

/// Prints the mounted backup and the location of its errors, on a terminal.
fn announce(fs: &dyn FileSystem, args: &MountArgs) {
    let mut terminal = std::io::stderr();
    if !terminal.is_terminal() || logging::is_quiet() {
        return;
    }
    let mountpoint = escape_bytes(args.mountpoint.as_os_str().as_encoded_bytes());
    let is_overview = args.time.time.is_none() && args.path.is_none();
    let work = if is_overview { format!("{}/latest", mountpoint.trim_end_matches('/')) } else { mountpoint };
    // A closed terminal is no reason to unmount.
    if let Some(summary) = fs.summary() {
        let _ = writeln!(terminal, "{summary}; ls {work}");
    }
    if !args.foreground {
        let _ = writeln!(terminal, "{}", logging::destination_of_daemon());
    }
}

/// Reads the root before the kernel does, so that a failure is reported in words and not as an errno. It may take `timeout`.
fn probe(fs: &dyn FileSystem, timeout: RequestTimeout) -> Result<(), FsError> {
    let context = timeout.start();
    fs.getattr(ROOT_INO, &context)?;
    fs.readdir(ROOT_INO, 0, &context, &mut |_| false)
}

/// The objects of signals other than those that end a mount.
struct SignalTargets {
    fs: Arc<dyn FileSystem>,
    /// Triggers a listing; `None` in the foreground of a terminal.
    refresh: Option<Sender<()>>,
    limit: Option<Arc<FetchLimit>>,
    manager: ServiceManager,
}

/// Ends the mount on SIGINT and SIGTERM. SIGHUP triggers a listing; without that, in the foreground of a terminal, it means that
/// the terminal was closed and ends the mount too. SIGUSR1 logs the requests and bytes fetched so far, and SIGUSR2 lifts the
/// limit of the bytes to fetch.
fn watch(
    signals: Signals,
    mounted: &Mounted,
    SignalTargets { fs, refresh, limit, manager }: SignalTargets,
) -> Result<SignalWatch, CliError> {
    let stop = mounted.stopper();
    SignalWatch::start(signals, move |signal| match signal {
        // Requested, so it is logged at any verbosity.
        SIGUSR1 => log::warn!("{}", fs.cost().unwrap_or_default()),
        SIGUSR2 => match &limit {
            Some(limit) => {
                log::warn!("--fetch-limit is lifted; {} bytes were read from the store so far", limit.lift())
            }
            None => log::warn!("SIGUSR2 lifts --fetch-limit, and this mount has none"),
        },
        SIGHUP if refresh.is_some() => {
            manager.reloading();
            // The receiver exists as long as the mount.
            let _ = refresh.as_ref().map(|refresh| refresh.send(()));
        }
        _ => {
            manager.stopping();
            stop();
        }
    })
}

/// Reports each listing of the backup to the service manager.
fn report_listings(manager: ServiceManager, fs: Arc<dyn FileSystem>) -> impl Fn(Option<&str>) + Send + 'static {
    move |failure| {
        let summary = fs.summary().unwrap_or_default();
        match failure {
            Some(error) => manager.reloaded(&format!("{summary}; {error}")),
            None => manager.reloaded(&summary),
        }
    }
}
