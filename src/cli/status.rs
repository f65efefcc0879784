//! `dupfs status`: the activity of mounts, by an extended attribute of their roots.
//!
//! The daemon of a mount may hang, and a process that waits for it cannot always be killed. So another process of this program
//! asks each daemon, and this one waits for it within bounds.

mod daemon_query;
mod status_report;
mod status_text;

use std::path::Path;
use std::thread;
use std::time::Duration;

use dupfs_base::{ErrorKind, escape_bytes, io_reason};

use self::daemon_query::DaemonQueries;
use self::status_report::MountReport;
use super::args::StatusArgs;
use super::error::CliError;
use super::exit::CommandExit;
use super::mount::Respawn;
use super::printer::Printer;
use crate::fuse::{MountEntry, dupfs_mounts, mount_on};

/// Moves the cursor of a terminal to its first line, and clears it from there.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Reports the activity of one mount, or of all.
///
/// # Errors
/// [`CliError`] if there is no such mount, or the output cannot be written.
pub(super) fn run(
    args: &StatusArgs,
    respawn: &Respawn<'_>,
    printer: &mut Printer<'_>,
) -> Result<CommandExit, CliError> {
    if args.ask {
        return answer(args.mountpoint.as_deref().unwrap_or(Path::new("/")), printer);
    }
    let mut queries = DaemonQueries::new(respawn);
    let mut mounts = chosen(args.mountpoint.as_deref())?;
    let Some(interval) = args.watch else {
        let reports = queries.ask(&mounts);
        print(&reports, args.json, printer)?;
        return Ok(printer.finish()?.max(exit_of(&reports)));
    };
    let interval = interval.0.max(Duration::from_secs(1));
    loop {
        let reports = queries.ask(&mounts);
        watch_once(&reports, args.json, printer)?;
        printer.finish()?;
        thread::sleep(interval);
        mounts = match chosen(args.mountpoint.as_deref()) {
            Ok(mounts) if !mounts.is_empty() => mounts,
            // Unmounted.
            Ok(_) => return printer.finish(),
            Err(error) if error.exit() == CommandExit::NotFound => return printer.finish(),
            Err(error) => return Err(error),
        };
    }
}

/// The process that asks one daemon: prints its answer.
fn answer(mountpoint: &Path, printer: &mut Printer<'_>) -> Result<CommandExit, CliError> {
    printer.bytes(&daemon_query::ask_here(mountpoint))?;
    printer.finish()
}

/// The mounts to report.
fn chosen(mountpoint: Option<&Path>) -> Result<Vec<MountEntry>, CliError> {
    let unreadable = |error: std::io::Error| {
        CliError::failed(ErrorKind::Io, format!("/proc/self/mountinfo cannot be read: {}", io_reason(&error)))
    };
    let Some(path) = mountpoint else { return dupfs_mounts().map_err(unreadable) };
    let shown = escape_bytes(path.as_os_str().as_encoded_bytes());
    match mount_on(path).map_err(unreadable)? {
        Some(mount) if mount.is_dupfs() => Ok(vec![mount]),
        Some(mount) => {
            let what = format!("{shown} is not a dupfs mount but {} (type {})", mount.source, mount.kind);
            Err(CliError::failed(ErrorKind::NotFound, what))
        }
        None => {
            let remedy = match shown.contains("://") {
                true => format!("dupfs sets {shown} reports on a backup"),
                false => "without a mount point, dupfs status shows all mounts".to_owned(),
            };
            let line = format!("nothing is mounted on {shown}; {remedy}");
            Err(CliError::failed(ErrorKind::NotFound, line))
        }
    }
}

fn exit_of(reports: &[MountReport]) -> CommandExit {
    reports.iter().map(MountReport::exit).max().unwrap_or(CommandExit::Done)
}

fn print(reports: &[MountReport], json: bool, printer: &mut Printer<'_>) -> Result<(), CliError> {
    if json {
        printer.json(&reports, true)?;
        return printer.text("\n");
    }
    if reports.is_empty() {
        return printer.text("no backup is mounted\n");
    }
    let blocks: Vec<String> = reports.iter().map(status_text::block).collect();
    printer.text(&blocks.join("\n"))
}

/// One round of `--watch`: the whole screen on a terminal, else one line for each mount.
fn watch_once(reports: &[MountReport], json: bool, printer: &mut Printer<'_>) -> Result<(), CliError> {
    if json {
        printer.json(&reports, false)?;
        return printer.text("\n");
    }
    let now = jiff::Timestamp::now();
    if printer.is_terminal() {
        printer.text(REDRAW)?;
        return print(reports, json, printer);
    }
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for report in reports {
        printer.text(&format!("{now} {}\n", status_text::line(report)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
