//! The problems that `dupfs sets --json` reports.

use crate::support::exec::Dupfs;

/// Returns the report of `sets --json`, which must succeed.
pub fn sets_report(dupfs: &Dupfs, url: &str) -> serde_json::Value {
    serde_json::from_slice(&dupfs.run("sets", &["--json", url])).unwrap()
}

/// Returns the messages of the problems of `kind` in a report.
pub fn messages(report: &serde_json::Value, kind: &str) -> Vec<String> {
    let problems = report["problems"].as_array().unwrap().iter().filter(|problem| problem["kind"] == kind);
    problems.map(|problem| problem["message"].as_str().unwrap().to_owned()).collect()
}
