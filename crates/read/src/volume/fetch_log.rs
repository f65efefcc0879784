//! Log lines about the objects that are fetched: which one, its size and why, at most one line a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::storage::ObjectInfo;
use dupfs_base::sync::lock;

/// The interval between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// The objects of this process: a mount has one log.
static LOG: Mutex<FetchLog> = Mutex::new(FetchLog { last: None, objects: 0, bytes: 0 });

/// The objects since the last line.
#[derive(Debug)]
struct FetchLog {
    last: Option<Instant>,
    objects: u64,
    bytes: u64,
}

/// Logs that all of `object` is fetched and `why`, or counts it for the next line.
pub(super) fn note(object: &ObjectInfo, why: &str) {
    if !log::log_enabled!(log::Level::Info) {
        return;
    }
    let line = lock(&LOG).line(object, why, Instant::now());
    if let Some(line) = line {
        log::info!("{line}");
    }
}

impl FetchLog {
    fn line(&mut self, object: &ObjectInfo, why: &str, now: Instant) -> Option<String> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            self.objects = self.objects.saturating_add(1);
            self.bytes = self.bytes.saturating_add(object.size);
            return None;
        }
        self.last = Some(now);
        let (objects, bytes) = (std::mem::take(&mut self.objects), std::mem::take(&mut self.bytes));
        let more = match objects {
            0 => String::new(),
            n => format!("; {n} more ({}) since the last line", shown(bytes)),
        };
        Some(format!("{}: fetching {}, {why}{more}", object.name, shown(object.size)))
    }
}

/// A number of bytes in a readable form: `512 bytes`, `1.5 MB`.
fn shown(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, size: u64) -> ObjectInfo {
        ObjectInfo { name: name.into(), size, version: "".into(), class: None, archived: None }
    }

    #[test]
    fn one_line_a_second_counts_what_it_leaves_out() {
        let mut log = FetchLog { last: None, objects: 0, bytes: 0 };
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let first = log.line(&object("vol1", 26_250_000), "to read a file", start);
        assert_eq!(first.as_deref(), Some("vol1: fetching 26.2 MB, to read a file"));
        assert_eq!(log.line(&object("vol2", 6_000_000), "to read a file", after(500)), None);
        assert_eq!(log.line(&object("vol3", 6_000_000), "to read a file", after(999)), None);
        let next = log.line(&object("m", 900), "for the list of volumes", after(1000));
        let expected = "m: fetching 900 bytes, for the list of volumes; 2 more (12.0 MB) since the last line";
        assert_eq!(next.as_deref(), Some(expected));
    }
}
