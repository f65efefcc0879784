use std::path::PathBuf;

use serde_json::json;

use super::status_report::{MountReport, MountState};
use super::{exit_of, print, watch_once};
use crate::cli::exit::CommandExit;
use crate::cli::printer::Printer;
use crate::fuse::MountEntry;

fn mount(target: &str) -> MountEntry {
    MountEntry {
        device: "0:52".to_owned(),
        target: PathBuf::from(target),
        kind: "fuse.dupfs".to_owned(),
        source: "dupfs:s3://bucket/site".to_owned(),
        user_id: Some(1000),
    }
}

fn serving() -> MountReport {
    let value = json!({
        "version": "0.1.0", "url": "s3://bucket/site", "mountpoint": "/mnt", "pid": 321, "since": 1_769_000_000,
        "snapshots": {"count": 3, "oldest": "20260101T021500Z", "newest": "20260120T021500Z"},
        "listing": {"seconds": 130, "error": null},
        "fetching": [
            {"object": "vol3", "size": 26_214_400, "bytes": 13_107_200, "seconds": 2.5},
            {"object": "vol4", "size": 100, "bytes": 10, "seconds": 0.1},
            {"object": null, "size": 0, "bytes": 0, "seconds": 1.0},
        ],
        "waiting": [
            {"operation": "read", "path": "20260120T021500Z/a\u{1b}[2J", "pid": 77, "command": "cat", "seconds": 2.6,
             "object": "vol3"},
            {"operation": "lookup", "path": "the mount", "pid": null, "command": null, "seconds": 0.2, "object": null},
        ],
        "link": {"bytes_per_second": 5_242_880, "bytes": 1000, "list_requests": 1, "get_requests": 9, "retries": 2},
        "cache": {"memory_bytes": 1024, "max_memory_bytes": 2048, "disk_bytes": 0, "max_disk_bytes": 0,
                  "memory_hits": 8, "disk_hits": 1, "misses": 1},
        "index": "/home/u/.cache/dupfs/index", "paths": 12, "answered": 4,
        "errors": ["2026-01-21T08:15:00Z EIO read of x: vol1 is damaged"], "left_out": 0,
        "key_of_a_later_version": 1,
    });
    MountReport::new(&mount("/mnt"), MountState::of_value(value.to_string().as_bytes()))
}

fn printed(terminal: bool, run: impl FnOnce(&mut Printer<'_>)) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    run(&mut Printer::new(&mut out, &mut err, terminal));
    String::from_utf8(out).unwrap()
}

#[test]
fn a_mount_is_described_with_the_readers_of_each_object() {
    let text = printed(false, |printer| print(&[serving()], false, printer).unwrap());
    let expected = "/mnt  s3://bucket/site
  mounted   since 2026-01-21 12:53 UTC by process 321 (dupfs 0.1.0)
  shows     3 snapshots, 20260101T021500Z to 20260120T021500Z; listed 2 min ago
  fetching  vol3: 12.5 MiB of 25.0 MiB (50 %) in 2.5 s, for cat (77)
  fetching  vol4: 10 B of 100 B (10 %) in 0.1 s
  fetching  a listing, for 1 s
  waiting   read of 20260120T021500Z/a\\x1b[2J by cat (77) for 2.6 s, for vol3
  waiting   lookup of the mount by a process of another namespace for 0.2 s
  link      5.0 MiB/s; 1000 B in all by 9 get and 1 list requests, 2 repeated
  cache     1.0 KiB of 2.0 KiB memory, no disk; 90 % of 10 reads hit
  index     /home/u/.cache/dupfs/index
  error     2026-01-21T08:15:00Z EIO read of x: vol1 is damaged
";
    assert_eq!(text, expected);
}

#[test]
fn mounts_that_do_not_answer_are_reported_with_the_remedy() {
    let states = [MountState::Stale, MountState::Hangs, MountState::Denied, MountState::of_errno(libc::ENODATA)];
    let reports: Vec<MountReport> = states.into_iter().map(|state| MountReport::new(&mount("/m"), state)).collect();
    let text = printed(true, |printer| print(&reports, false, printer).unwrap());
    for line in [
        "  stale     its daemon has exited; clear the mount point with: dupfs umount /m",
        "  hangs     its daemon does not answer; look at its log, or end it and run: dupfs umount --lazy /m",
        "  denied    only the user who mounted may ask: sudo -u '#1000' dupfs status /m",
        "  failed    its daemon does not report a status: it is of an earlier version of dupfs",
    ] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    let exits: Vec<CommandExit> = reports.iter().map(MountReport::exit).collect();
    assert_eq!(exits, [CommandExit::Failed, CommandExit::Failed, CommandExit::Denied, CommandExit::Failed]);
    assert_eq!(exit_of(&reports), CommandExit::Denied);
    assert_eq!(exit_of(&[serving()]), CommandExit::Done);
}

#[test]
fn json_has_the_keys_of_the_documentation_and_the_attribute_unchanged() {
    let reports = [serving(), MountReport::new(&mount("/m\n"), MountState::Stale)];
    let text = printed(false, |printer| watch_once(&reports, true, printer).unwrap());
    assert_eq!(text.matches('\n').count(), 1, "one line for each round");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json[0]["status"]["key_of_a_later_version"], 1);
    assert_eq!((json[0]["state"].as_str(), &json[0]["message"]), (Some("serving"), &serde_json::Value::Null));
    let keys: Vec<&str> = json[1].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["message", "mountpoint", "source", "state", "status"]);
    assert_eq!((json[1]["mountpoint"].as_str(), json[1]["state"].as_str()), (Some("/m\\x0a"), Some("stale")));
}

#[test]
fn watching_redraws_a_terminal_and_prints_lines_elsewhere() {
    let text = printed(true, |printer| watch_once(&[serving()], false, printer).unwrap());
    assert!(text.starts_with("\x1b[H\x1b[J/mnt  s3"), "{text:?}");
    let text = printed(false, |printer| watch_once(&[serving()], false, printer).unwrap());
    let (time, rest) = text.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.len() == 20, "{time}");
    assert_eq!(rest, "/mnt serving fetching=3 waiting=2 bytes=1000 bytes_per_second=5242880 errors=1\n");
    let text = printed(false, |printer| print(&[], false, printer).unwrap());
    assert_eq!(text, "no backup is mounted\n");
}
