//! Secrets in the memory of a process, read as root.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;

/// Upper bound of the wait for a secret to be only where it must be. Work that still runs has copies.
const LIMIT: Duration = Duration::from_secs(60);

/// A secret in the memory of a process: its address, and true if its page is locked.
pub type Finding = (usize, bool);

/// Returns the addresses of each of `secrets` in the memory of the process `pid`.
pub fn find_all(pid: u32, secrets: &[&[u8]]) -> Vec<Vec<Finding>> {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("this test runs as root");
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let finders: Vec<Finder<'_>> = secrets.iter().map(Finder::new).collect();
    let mut found = vec![Vec::new(); secrets.len()];
    let mut range: Option<Range<usize>> = None;
    for line in smaps.lines() {
        let hexadecimal = |text: &str| usize::from_str_radix(text, 16).ok();
        let ends = line.split(' ').next().and_then(|ends| ends.split_once('-'));
        if let Some((start, end)) = ends.and_then(|(start, end)| Some((hexadecimal(start)?, hexadecimal(end)?))) {
            range = Some(start..end);
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let range = range.take().unwrap();
            let mut bytes = vec![0; range.len()];
            if memory.read_exact_at(&mut bytes, range.start as u64).is_err() {
                continue;
            }
            let locked = flags.split(' ').any(|flag| flag == "lo");
            for (finder, found) in finders.iter().zip(&mut found) {
                found.extend(finder.find_iter(&bytes).map(|at| (range.start + at, locked)));
            }
        }
    }
    found
}

/// Waits until `fits` accepts the findings of each named secret in the memory of the process.
pub fn wait_for(what: &str, pid: u32, secrets: &[(&str, &[u8])], fits: impl Fn(&str, &[Finding]) -> bool) {
    let start = Instant::now();
    loop {
        let bytes: Vec<&[u8]> = secrets.iter().map(|(_, secret)| *secret).collect();
        let found = find_all(pid, &bytes);
        let mut wrong = secrets.iter().zip(&found).filter(|((name, _), found)| !fits(name, found));
        let Some(((name, _), found)) = wrong.next() else { return };
        assert!(start.elapsed() < LIMIT, "{what}: {name}: {found:x?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// True for a secret that is once in memory, in a page that is locked.
pub fn once_and_locked(found: &[Finding]) -> bool {
    matches!(found, [(_, true)])
}
