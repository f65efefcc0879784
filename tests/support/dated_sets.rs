//! Backups at given times, to compare the set that a time selects with duplicity's choice.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Scratch;
use super::duplicity::{Mode, Repository, stamp};
use super::exec;
use super::maker::Maker;

/// A day in seconds.
pub const DAY: i64 = 86_400;

/// Returns the current time in seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A repository with the sets (full, time), each with a file `which` that identifies it.
pub fn dated_sets(version: &str, scratch: &Scratch, sets: &[(bool, i64)]) -> Repository {
    let repo = Repository::new(version, |_| Mode::Plain, &scratch.dir("r"));
    let mut maker = Maker::new(&scratch.dir("source"), 1_400_000_000);
    for (full, time) in sets {
        maker.file("which", stamp(*time));
        repo.backup(*full, maker.root(), *time);
    }
    repo
}

/// A repository with two chains of three sets, and the times of the sets: off whole days and hours before now, so that
/// intervals fall between the sets, well away from them.
pub fn two_dated_chains(version: &str, scratch: &Scratch) -> (Repository, [i64; 6]) {
    let base = now() - 40 * DAY - 1800;
    let at = [0, 1, 2, 10, 11, 12].map(|day| base + day * DAY);
    let fulls = [true, false, false, true, false, false];
    (dated_sets(version, scratch, &fulls.into_iter().zip(at).collect::<Vec<_>>()), at)
}

/// `time` in the form that `strftime` gives for `form`, in UTC.
pub fn time_text(time: i64, form: &str) -> String {
    jiff::Timestamp::from_second(time).unwrap().strftime(form).to_string()
}

/// Returns the set of [`dated_sets`] that duplicity restores to `dest` for `time`, or `None` if it refuses.
pub fn restored_set(version: &str, repo: &Repository, time: &str, zone: &str, dest: &Path) -> Option<String> {
    let option = if version.starts_with('0') { "--file-to-restore" } else { "--path-to-restore" };
    let mut restore = repo.command("restore");
    restore.args(["--force", "--time", time, option, "which"]).arg(repo.url()).arg(dest).env("TZ", zone);
    exec::output(&mut restore).status.success().then(|| std::fs::read_to_string(dest).unwrap())
}
