//! A snapshot as the user types it as an argument: a time in the forms of `--time`, its name, or as the mount has it.

use std::ffi::OsStr;

use super::error::CliError;
use super::exit::CommandExit;
use super::time_argument;
use crate::vfs::{ListedSnapshot, RecordedTrees};
use dupfs_base::{HasKind, escape_bytes};
use dupfs_format::timespec;

/// The forms of a snapshot.
enum TypedSnapshot<'a> {
    Latest,
    Listed(&'a ListedSnapshot),
    Time(String),
}

/// Returns the form of `typed`; `None` if it is not text.
fn form_of<'a>(typed: &OsStr, snapshots: &'a [ListedSnapshot]) -> Option<TypedSnapshot<'a>> {
    let text = typed.to_str()?.trim_end_matches('/');
    let name = ["snapshots/", "at/"].into_iter().find_map(|dir| text.strip_prefix(dir)).unwrap_or(text);
    let listed = snapshots.iter().find(|snapshot| &*snapshot.name == name);
    Some(match listed {
        Some(snapshot) => TypedSnapshot::Listed(snapshot),
        None if text == "latest" => TypedSnapshot::Latest,
        None => TypedSnapshot::Time(name.to_owned()),
    })
}

/// Returns true if `typed` is a snapshot or a time, and not a path.
pub(super) fn is_snapshot(typed: &OsStr, snapshots: &[ListedSnapshot]) -> bool {
    match form_of(typed, snapshots) {
        Some(TypedSnapshot::Latest | TypedSnapshot::Listed(_)) => true,
        Some(TypedSnapshot::Time(text)) => timespec::parse_by_local_clock(&text).is_ok(),
        None => false,
    }
}

/// The snapshot that `typed` selects; that of a time is the one that duplicity would restore.
///
/// # Errors
/// [`CliError`] if it is no time, or two chains have the time.
pub(super) fn snapshot_of<'a>(
    typed: &OsStr,
    trees: &RecordedTrees<'_>,
    snapshots: &'a [ListedSnapshot],
) -> Result<&'a ListedSnapshot, CliError> {
    let shown = || escape_bytes(typed.as_encoded_bytes());
    let form = form_of(typed, snapshots);
    let index = match form.ok_or_else(|| CliError::Usage(format!("{}: not a time", shown())))? {
        TypedSnapshot::Listed(snapshot) => return Ok(snapshot),
        TypedSnapshot::Latest => trees.latest(),
        TypedSnapshot::Time(text) => {
            let names = || snapshots.iter().map(|snapshot| snapshot.name.to_string()).collect();
            let time = time_argument::parse_among("TIME", &text, names)?;
            let index = trees.select(time).map_err(|error| CliError::failed(error.kind(), error.to_string()))?;
            let oldest = snapshots.iter().find(|snapshot| Some(snapshot.index) == index);
            if let Some(oldest) = oldest.filter(|oldest| time < oldest.time) {
                log::warn!("there is no backup before {time}: comparing the oldest one, of {}", oldest.time);
            }
            index
        }
    };
    let found = snapshots.iter().find(|snapshot| Some(snapshot.index) == index);
    found.ok_or_else(|| CliError::new(CommandExit::NotFound, format!("{}: no such snapshot", shown())))
}
