//! The report of `status` as text. A daemon of another user is not trusted: control characters are escaped.

use dupfs_base::escape_bytes;

use super::super::quantities::human_bytes;
use super::status_report::MountReport;
use crate::fuse::{MountStatus, WaitStatus};
use crate::vfs::FetchStatus;

/// The block of lines on one mount.
pub(super) fn block(report: &MountReport) -> String {
    let mut out =
        format!("{}  {}\n", report.mountpoint, report.source.strip_prefix("dupfs:").unwrap_or(&report.source));
    let mut row = |name: &str, text: String| {
        out.push_str(&format!("  {name:<9} {}\n", escape_bytes(text.as_bytes())));
    };
    if let Some(message) = &report.message {
        row(report.state, message.clone());
    }
    let Some(status) = &report.parsed else { return out };
    row("mounted", mounted(status));
    row("shows", shown(status));
    for fetch in &status.fs.fetching {
        row("fetching", fetching(fetch, &status.waiting));
    }
    for wait in &status.waiting {
        row("waiting", waiting(wait));
    }
    if status.left_out > 0 {
        row("", format!("and {} more entries", status.left_out));
    }
    row("link", link(status));
    row("cache", cache(status));
    row("index", status.fs.index.clone().unwrap_or_else(|| "none".to_owned()));
    if let Some(error) = &status.fs.listing.error {
        row("refresh", format!("failed: {error}"));
    }
    for error in &status.errors {
        row("error", error.clone());
    }
    out
}

/// One line on one mount.
pub(super) fn line(report: &MountReport) -> String {
    let begin = format!("{} {}", report.mountpoint, report.state);
    let Some(status) = &report.parsed else { return begin };
    format!(
        "{begin} fetching={} waiting={} bytes={} bytes_per_second={} errors={}",
        status.fs.fetching.len(),
        status.waiting.len(),
        status.fs.link.bytes,
        status.fs.link.bytes_per_second,
        status.errors.len()
    )
}

fn mounted(status: &MountStatus) -> String {
    let since = jiff::Timestamp::from_second(status.since);
    let since = since.map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string());
    format!("since {since} by process {} (dupfs {})", status.pid, status.version)
}

fn shown(status: &MountStatus) -> String {
    let range = &status.fs.snapshots;
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
    let listed = format!("listed {} ago", duration(status.fs.listing.seconds));
    match (&status.fs.path, range.count) {
        (Some(path), _) if path.is_empty() => format!("snapshot {}", name(&range.newest)),
        (Some(path), _) => format!("{path} of snapshot {}", name(&range.newest)),
        (None, 1) => format!("snapshot {}; {listed}", name(&range.newest)),
        (None, count) => format!("{count} snapshots, {} to {}; {listed}", name(&range.oldest), name(&range.newest)),
    }
}

fn fetching(fetch: &FetchStatus, waits: &[WaitStatus]) -> String {
    let Some(object) = &fetch.object else { return format!("a listing, for {} s", fetch.seconds) };
    let percent = u128::from(fetch.bytes) * 100 / u128::from(fetch.size.max(1));
    let (done, size) = (human_bytes(fetch.bytes), human_bytes(fetch.size));
    let mut readers: Vec<String> =
        waits.iter().filter(|wait| wait.object.as_ref() == Some(object)).map(process).collect();
    readers.sort();
    readers.dedup();
    let readers = if readers.is_empty() { String::new() } else { format!(", for {}", readers.join(", ")) };
    format!("{object}: {done} of {size} ({percent} %) in {} s{readers}", fetch.seconds)
}

fn waiting(wait: &WaitStatus) -> String {
    let object = wait.object.as_ref().map(|object| format!(", for {object}")).unwrap_or_default();
    format!("{} of {} by {} for {} s{object}", wait.operation, wait.path, process(wait), wait.seconds)
}

/// The process that waits, as `cat (4711)`.
fn process(wait: &WaitStatus) -> String {
    match (&wait.command, wait.pid) {
        (Some(command), Some(pid)) => format!("{command} ({pid})"),
        (None, Some(pid)) => format!("process {pid}"),
        (_, None) => "a process of another namespace".to_owned(),
    }
}

fn link(status: &MountStatus) -> String {
    let link = &status.fs.link;
    let (rate, bytes) = (human_bytes(link.bytes_per_second), human_bytes(link.bytes));
    let (lists, gets, retries) = (link.list_requests, link.get_requests, link.retries);
    format!("{rate}/s; {bytes} in all by {gets} get and {lists} list requests, {retries} repeated")
}

fn cache(status: &MountStatus) -> String {
    let cache = &status.fs.cache;
    let (memory, max_memory) = (human_bytes(cache.memory_bytes), human_bytes(cache.max_memory_bytes));
    let disk = match cache.max_disk_bytes {
        0 => "no disk".to_owned(),
        max => format!("{} of {} disk", human_bytes(cache.disk_bytes), human_bytes(max)),
    };
    let hits = u128::from(cache.memory_hits) + u128::from(cache.disk_hits);
    let lookups = hits + u128::from(cache.misses);
    let percent = (hits * 100).checked_div(lookups);
    let rate = percent.map(|percent| format!("; {percent} % of {lookups} reads hit")).unwrap_or_default();
    format!("{memory} of {max_memory} memory, {disk}{rate}")
}

/// `59 s`, `12 min`, `3 h`, `4 d`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
