//! `dupfs verify --resume` over S3: what an interrupted run has read is not fetched again, and a changed object is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use dupfs_base::hex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::world::{World, eventually, is_volume, put};
use crate::support::duplicity::{Mode, Repository};
use crate::support::exec;
use crate::support::noise;
use crate::support::proxy::{Fault, Request};

const URL: &str = "s3://bucket/p";

fn verify(world: &World, args: &[&str], code: i32) -> Value {
    let output = exec::output(world.indexed_reader().command("verify").args(["--json", URL]).args(args));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", exec::tail(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names of the volumes that were requested.
fn volumes(world: &World) -> BTreeSet<String> {
    let name = |request: &Request| request.target.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    world.proxy.log().iter().filter(|request| is_volume(request)).map(name).collect()
}

/// Starts a run that waits for the first volume of the last set, and returns once it does and everything before is stored.
fn waiting_run(world: &World, args: &[&str], last: &str) -> Child {
    let waited_for = last.to_owned();
    world.proxy.set_plan(move |request| request.target.contains(&waited_for).then_some(Fault::Stall(0)));
    world.proxy.clear_log();
    let mut command = world.indexed_reader().command("verify");
    command.args(["--json", "--resume", URL]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let limit = Duration::from_secs(60);
    eventually("the run waits for the last set", limit, || world.proxy.stalled() > 0);
    let cache = world.scratch.dir("indexed");
    eventually("the run is recorded", limit, || has_segment(&cache));
    child
}

/// Returns true if an index below `dir` has records on disk.
fn has_segment(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_segment = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("seg-");
    entries.map(|entry| entry.path()).any(|path| if path.is_dir() { has_segment(&path) } else { is_segment(&path) })
}

fn end(world: &World, mut child: Child, signal: Signal) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap();
    world.proxy.end_stalled();
    world.proxy.set_plan(|_| None);
    world.proxy.clear_log();
}

/// The volume of the newest set.
fn last_volume(world: &World) -> String {
    let names =
        fs::read_dir(world.disk("bucket/p")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest =
        names.filter(|name| name.contains(".vol1.")).max_by_key(|name| name.split(".to.").nth(1).map(str::to_owned));
    newest.unwrap()
}

#[test]
fn a_killed_run_is_continued_without_its_volumes_and_a_completed_one_is_not() {
    for (args, signal) in [(&[][..], Signal::KILL), (&["--deep"][..], Signal::INT)] {
        let world = World::new();
        world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
        let whole = verify(&world, args, 0);
        let all = volumes(&world);
        let last = last_volume(&world);
        assert!(all.len() >= 3 && all.contains(&last), "{all:?}");
        let child = waiting_run(&world, args, &last);
        end(&world, child, signal);

        let continued = verify(&world, &[args, &["--resume"]].concat(), 0);
        let fetched = volumes(&world);
        assert!(fetched.contains(&last), "{fetched:?}");
        let known = continued["known_volumes"].as_u64().unwrap();
        assert!(known > 0 && continued["resumed_since"].is_string(), "{continued}");
        if args.is_empty() {
            assert_eq!(fetched.len() as u64 + known, all.len() as u64, "{fetched:?}: {continued}");
        } else {
            assert!(continued["known_proofs"].as_u64().unwrap() > 0, "{continued}");
        }
        for key in ["sound", "complete", "volumes", "bytes", "files", "proved", "findings", "sets", "manifests"] {
            assert_eq!(continued[key], whole[key], "{key}");
        }

        world.proxy.clear_log();
        let again = verify(&world, &[args, &["--resume"]].concat(), 0);
        assert_eq!((&again["resumed_since"], &again["known_volumes"]), (&Value::Null, &0.into()), "{again}");
        assert_eq!(volumes(&world), all);
    }
}

#[test]
fn a_volume_that_was_changed_between_two_runs_is_read_again() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let child = waiting_run(&world, &[], &last_volume(&world));
    end(&world, child, Signal::TERM);
    // Other options make another run.
    let deep = verify(&world, &["--deep", "--resume"], 0);
    assert_eq!(deep["resumed_since"], Value::Null, "{deep}");
    let first = fs::read_dir(world.disk("bucket/p")).unwrap().map(|entry| entry.unwrap().path());
    let first = first
        .into_iter()
        .find(|path| path.to_str().unwrap().contains("full.") && path.to_str().unwrap().contains(".vol1."))
        .unwrap();
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, bytes).unwrap();
    let report = verify(&world, &["--resume"], 6);
    let object = first.file_name().unwrap().to_str().unwrap();
    assert!(report["findings"].as_array().unwrap().iter().any(|finding| finding["object"] == object), "{report}");
    assert!(report["known_volumes"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_volume_is_compared_with_the_hash_that_the_manifest_has_now() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let child = waiting_run(&world, &[], &last_volume(&world));
    end(&world, child, Signal::TERM);
    let manifest = world.disk("bucket/p").join("duplicity-full.20261122T131027Z.manifest");
    let text = String::from_utf8_lossy(&fs::read(&manifest).unwrap()).into_owned();
    let at = text.find("2320bf94").unwrap();
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[at] = b'0';
    fs::write(&manifest, bytes).unwrap();
    let report = verify(&world, &["--resume"], 6);
    let object = "duplicity-full.20261122T131027Z.vol1.difftar.gz";
    assert!(report["findings"].as_array().unwrap().iter().any(|finding| finding["object"] == object), "{report}");
    assert!(report["known_volumes"].as_u64().unwrap() > 0, "{report}");
}

/// Changes a byte of a stored file, and the hash of its volume in the manifest.
fn change_content(dir: &Path, content: &[u8]) {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let objects: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let part = &content[1000..1064];
    let volumes = objects.iter().filter(|path| name(path).contains(".difftar"));
    let mut found = volumes.filter_map(|path| {
        let bytes = fs::read(path).unwrap();
        let at = bytes.windows(part.len()).position(|window| window == part)?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = found.next_back().unwrap();
    assert!(!name(path).contains(".vol1."), "{}", path.display());
    let old = hex(&Sha1::digest(&bytes));
    bytes[at] ^= 1;
    fs::write(path, &bytes).unwrap();
    let manifest = objects.iter().find(|path| name(path).ends_with(".manifest")).unwrap();
    let text = fs::read_to_string(manifest).unwrap();
    assert!(text.contains(&old), "{text}");
    fs::write(manifest, text.replace(&old, &hex(&Sha1::digest(&bytes)))).unwrap();
}

/// The files of such a volume are in no list of the first run.
#[test]
fn files_that_were_proved_beside_a_volume_that_could_not_be_read_are_the_same_in_the_next_run() {
    let world = World::new();
    let source = world.scratch.dir("source");
    for at in 0..12_u8 {
        fs::write(source.join(char::from(b'a' + at).to_string()), noise(at.into(), 300_000)).unwrap();
    }
    let repository = Repository::new("0.8.22", |_| Mode::Plain, &world.scratch.dir("work"));
    repository.backup(true, &source, 1_700_000_000);
    change_content(repository.dir(), &noise(5, 300_000));
    put(repository.dir(), &world.disk("bucket/p"));
    let is_found = |report: &Value| {
        let findings = report["findings"].as_array().unwrap();
        findings.iter().any(|finding| finding["kind"] == "content" && finding["paths"][0]["path"] == "f")
    };
    world.proxy.set_plan(|request| request.target.contains(".vol1.").then_some(Fault::Status(403, "AccessDenied")));
    let first = verify(&world, &["--deep", "--resume"], 6);
    assert!(is_found(&first) && first["complete"] == false, "{first}");
    let proved = first["proved"].as_u64().unwrap();
    assert!((4..9).contains(&proved), "{first}");
    world.proxy.set_plan(|_| None);
    let continued = verify(&world, &["--deep", "--resume"], 6);
    assert!(is_found(&continued), "{continued}");
    assert_eq!((&continued["known_proofs"], &continued["proved"]), (&proved.into(), &11.into()), "{continued}");
}

/// The time that such a text stands for is another one in each run.
#[test]
fn a_run_of_a_relative_time_is_continued() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let now = ["--time", "now"];
    let child = waiting_run(&world, &now, &last_volume(&world));
    end(&world, child, Signal::TERM);
    let continued = verify(&world, &[&now[..], &["--resume"]].concat(), 0);
    assert!(continued["known_volumes"].as_u64().unwrap() > 0, "{continued}");
    assert!(continued["resumed_since"].is_string(), "{continued}");
}

#[test]
fn a_run_that_lost_the_store_is_continued_and_needs_an_index() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let last = last_volume(&world);
    let lost = last.clone();
    world.proxy.set_plan(move |request| request.target.contains(&lost).then_some(Fault::Status(403, "AccessDenied")));
    let refused = verify(&world, &["--resume"], 4);
    assert_eq!((&refused["complete"], &refused["interrupted"]), (&false.into(), &false.into()), "{refused}");
    world.proxy.set_plan(|_| None);
    world.proxy.clear_log();
    let continued = verify(&world, &["--resume"], 0);
    assert!(continued["known_volumes"].as_u64().unwrap() > 0, "{continued}");
    assert_eq!(volumes(&world), BTreeSet::from([last]));
    let (code, message) = world.indexed_reader().fails("verify", &["--resume", "--no-index", URL]);
    assert!(code == Some(2) && message.contains("--no-index"), "{message}");
}
