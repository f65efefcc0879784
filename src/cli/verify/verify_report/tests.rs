use super::*;

fn report() -> VerifyReport {
    VerifyReport::new("file:///b", None, (false, None))
}

/// The names of `count` snapshots, not shared with those of another call.
fn snapshots(count: usize) -> SnapshotNames {
    (0..count).map(|number| Arc::from(format!("2026{number:04}T000000Z"))).collect()
}

fn finding(snapshots: SnapshotNames) -> Finding {
    Finding { snapshots, ..Finding::new("file", None, "damaged".to_owned()) }
}

#[test]
fn findings_share_the_lists_of_their_snapshots() {
    let mut report = report();
    for count in [3000, 2, 3000, 2] {
        report.add(finding(snapshots(count)));
    }
    let [first, second, third, fourth] = report.findings.as_slice() else { panic!("{report:?}") };
    assert!(Arc::ptr_eq(&first.snapshots, &third.snapshots) && Arc::ptr_eq(&second.snapshots, &fourth.snapshots));
    assert!(first.snapshots.len() == 3000 && second.snapshots.len() == 2);
    assert!(report.findings.iter().all(|finding| finding.more_snapshots == 0));
}

#[test]
fn the_snapshots_of_all_findings_have_an_upper_bound() {
    let mut report = report();
    let all = snapshots(300);
    for _ in 0..MAX_FINDINGS {
        report.add(finding(Arc::clone(&all)));
    }
    let listed: usize = report.findings.iter().map(|finding| finding.snapshots.len()).sum();
    assert_eq!(listed, MAX_SNAPSHOT_BYTES / (all[0].len() + size_of::<Arc<str>>()));
    for finding in &report.findings {
        assert_eq!(finding.snapshots.len() as u64 + finding.more_snapshots, 300);
        assert_eq!(finding.snapshots[..], all[..finding.snapshots.len()]);
    }
    // One list is complete, one in part, and one empty.
    assert_eq!(report.snapshot_lists.len(), 3);
    assert!(serde_json::to_vec(&report).unwrap().len() < MAX_SNAPSHOT_BYTES + MAX_FINDINGS * 200);
    let mut text = Vec::new();
    let mut errors = Vec::new();
    report.print(&mut Printer::new(&mut text, &mut errors, false)).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("20260004T000000Z and 295 more (--json has all)\n"), "{}", &text[..400]);
    assert!(text.contains("more (--json has the first"), "in part");
    assert!(text.contains("  snapshots: 300, which are not listed\n"));
}

#[test]
fn the_messages_of_all_findings_have_an_upper_bound() {
    let mut report = report();
    let message = "m".repeat(MAX_TEXT_BYTES / 4);
    for _ in 0..6 {
        report.add(Finding::new("file", None, message.clone()));
    }
    assert_eq!(report.add(Finding::new("file", None, "short".to_owned())), None);
    assert_eq!((report.findings.len(), report.more_findings), (4, 3));
}

#[test]
fn the_paths_of_a_report_count_as_they_are_printed() {
    use dupfs_format::ArchivePath;
    let mut report = report();
    let at = report.add(Finding::new("members", None, "damaged".to_owned()));
    // Each byte is three of the text, and two of the hexadecimal form.
    let path = ArchivePath::parse(&[0xff; 4000]).unwrap();
    report.set_paths(at, &PathList { paths: vec![path; 4000], more: 5 });
    let listed = report.findings[0].paths.as_ref().unwrap().len();
    assert_eq!(listed, MAX_PATH_BYTES / (20_000 + size_of::<FindingPath>()));
    assert_eq!(report.findings[0].more_paths, (4005 - listed) as u64);
}

#[test]
fn names_are_escaped_once_on_a_terminal() {
    use dupfs_format::ArchivePath;
    let mut report = report();
    let path = ArchivePath::parse(b"\x1b[31mname").unwrap();
    let at = report.add(Finding::new("members", None, format!("{path}: differs\u{202e}")));
    report.set_paths(at, &PathList { paths: vec![path], more: 0 });
    let (mut text, mut errors) = (Vec::new(), Vec::new());
    report.print(&mut Printer::new(&mut text, &mut errors, true)).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\n  files: \\x1b[31mname\n") && text.contains(": \\x1b[31mname: differs \n"), "{text}");
}
