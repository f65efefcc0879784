//! The JSON of every command is valid under its schema in docs/schema, which Python's jsonschema checks.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::exec::{self, Dupfs};
use crate::support::mount::Mount;
use crate::support::{Scratch, fixtures};

/// Returns a line for each document that is not valid under the schema of its name.
fn violations(documents: &[(&str, Value)]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut validator = Command::new("/usr/bin/python3");
    validator.arg(root.join("tests/oracle/schemas.py")).arg(root.join("docs/schema"));
    let mut child = validator.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(documents).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A backup of a fixture in a directory of its own, and what the commands print about it.
struct Documents {
    scratch: Scratch,
    dupfs: Dupfs,
    all: Vec<(&'static str, Value)>,
}

impl Documents {
    fn new() -> Self {
        let scratch = Scratch::new();
        let dupfs = Dupfs::new(&scratch.dir("home"));
        Self { scratch, dupfs, all: Vec::new() }
    }

    fn copy_of(&self, fixture: &str, name: &str) -> PathBuf {
        let dir = self.scratch.dir(name);
        exec::run(Command::new("cp").arg("-a").arg(fixtures::path(fixture).join(".")).arg(&dir));
        dir
    }

    /// Runs a command with `--json`, and returns its output, whatever its exit code is.
    fn add(&mut self, schema: &'static str, command: &str, args: &[&str]) -> Value {
        let output = exec::output(self.dupfs.command(command).arg("--json").args(args));
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{command} {args:?}: {e}: {}", String::from_utf8_lossy(&output.stderr)));
        self.all.push((schema, value.clone()));
        value
    }
}

#[test]
fn the_json_of_every_command_is_valid_under_its_schema() {
    let mut documents = Documents::new();
    let repo = documents.copy_of("duplicity-0.7.13-gz", "repo");
    let url = repo.to_str().unwrap();
    let dest = documents.scratch.path().join("restored");
    let dest = dest.to_str().unwrap();

    documents.add("sets", "sets", &["--check", url]);
    assert!(documents.add("ls", "ls", &["-R", url])[0]["mode"].is_null());
    assert!(documents.add("ls", "ls", &["-R", "-l", url])[0]["mode"].is_string());
    documents.add("find", "find", &[url, "*"]);
    assert!(documents.add("find", "find", &["--all", url, "*"])[0]["snapshots"].is_array());
    let changes = documents.add("diff", "diff", &[url, "now"]);
    let changed = changes["changes"].as_array().unwrap().iter().find(|change| change["change"] == "changed").unwrap();
    let path = changed["path"].as_str().unwrap().to_owned();
    documents.add("history", "history", &[url, &path]);
    documents.add("history", "history", &["--all", url, &path]);
    documents.add("volumes", "volumes", &[url]);
    documents.add("volumes", "volumes", &[url, &path]);
    documents.add("index", "index", &[url]);
    documents.add("cache-ls", "cache", &["ls"]);
    documents.add("restore", "restore", &["--dry-run", url, dest]);
    documents.add("restore", "restore", &[url, dest]);
    documents.add("verify", "verify", &["--deep", url]);
    documents.add("verify", "verify", &["--sample", "50%", "--seed", "1", url]);
    documents.add("compare", "verify", &["--compare", dest, url]);

    let mount = Mount::new(&documents.dupfs, url, &documents.scratch.dir("mnt"));
    fs::read(mount.path().join("latest").join(&path)).unwrap_or_default();
    let status = documents.add("status", "status", &[mount.path().to_str().unwrap()]);
    assert_eq!(status[0]["state"], "serving");
    mount.unmount();

    // Reports with findings, differences and problems.
    fs::write(Path::new(dest).join("extra"), "x").unwrap();
    let difference = documents.add("compare", "verify", &["--compare", dest, url]);
    assert_eq!(difference["differences"][0]["kind"], "mtime");
    let volume = fs::read_dir(&repo).unwrap().map(|entry| entry.unwrap().path());
    let volume = volume
        .filter(|path| path.to_str().unwrap().contains("full.2"))
        .find(|path| path.to_str().unwrap().contains("vol2"));
    fs::remove_file(volume.unwrap()).unwrap();
    assert_eq!(documents.add("sets", "sets", &[url])["problems"][0]["kind"], "volume-missing");
    assert_eq!(documents.add("verify", "verify", &[url])["findings"][0]["kind"], "volume");
    let failed = documents.add("restore", "restore", &["--force", "--time", "20261122T131027Z", url, dest]);
    assert_eq!(failed["complete"], false);
    documents.add("cache-removal", "cache", &["prune"]);
    let removal = documents.add("cache-removal", "cache", &["clear"]);
    assert_eq!(removal["removed"][0]["reason"], "cleared");

    let schemas = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")).unwrap();
    let schemas: BTreeSet<String> =
        schemas.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let used: BTreeSet<String> = documents.all.iter().map(|(schema, _)| (*schema).to_owned()).collect();
    assert_eq!(schemas, used, "every schema has a document");
    assert_eq!(violations(&documents.all), Vec::<String>::new());
}

#[test]
fn keys_that_are_missing_or_not_documented_violate_a_schema() {
    let right = json!({"complete": true, "interrupted": false, "dry_run": false, "files": 1, "directories": 0, "others": 0,
        "already_right": 0, "bytes_written": 5, "failures": [], "more_failures": 0});
    let mut missing = right.clone();
    missing.as_object_mut().unwrap().remove("dry_run");
    let mut unknown = right.clone();
    unknown["links"] = json!(1);
    let mut wrong = right.clone();
    wrong["files"] = json!(-1);
    let found = violations(&[("restore", right), ("restore", missing), ("restore", unknown), ("restore", wrong)]);
    let expected = ["'dry_run' is a required property", "'links' was unexpected", "-1 is less than the minimum"];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{found:?}");
}
