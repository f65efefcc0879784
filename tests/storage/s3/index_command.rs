//! `dupfs index` over S3: the requests of a first and of a second run, and of a listing afterwards.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::{World, is_listing, is_volume};
use crate::support::exec::{self, Dupfs};
use crate::support::proxy::Fault;

fn index(world: &World, args: &[&str]) -> Value {
    let url = "s3://bucket/p";
    serde_json::from_slice(&world.indexed_reader().run("index", &[args, &["--json", url]].concat())).unwrap()
}

#[test]
fn a_second_run_fetches_no_volume_and_no_signature_archive() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    let first = index(&world, &["--no-sizes"]);
    assert_eq!((&first["complete"], &first["snapshots"]), (&true.into(), &3.into()), "{first}");
    let is_signature = |request: &crate::support::proxy::Request| request.target.contains("sigtar");
    let log = world.proxy.log();
    assert!(log.iter().filter(|request| is_signature(request)).count() >= 3 && !log.iter().any(is_volume));
    let all = index(&world, &[]);
    assert_eq!((&all["complete"], &all["new_sizes"]), (&true.into(), &first["unknown_sizes"]), "{all}");
    let volumes = |world: &World| world.proxy.log().iter().filter(|request| is_volume(request)).count();
    assert!(volumes(&world) >= 4, "each volume with the end of a file");

    world.proxy.clear_log();
    let again = index(&world, &[]);
    assert_eq!((&again["complete"], &again["new_sizes"]), (&true.into(), &0.into()), "{again}");
    let listed = world.indexed_reader().run("ls", &["-lR", "--json", "s3://bucket/p"]);
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    let files: Vec<_> = listed.as_array().unwrap().iter().filter(|entry| entry["type"] == "file").collect();
    assert!(files.len() > 3 && files.iter().all(|entry| entry["size_is_exact"] == true), "{listed}");
    let log = world.proxy.log();
    assert!(!log.is_empty() && !log.iter().any(|request| is_volume(request) || is_signature(request)), "{log:?}");
    // The index is that of this URL, also in its older form.
    let dupfs = world.indexed_reader();
    let cache = Dupfs::new(&world.scratch.dir("indexed"));
    let listed = String::from_utf8(cache.run("cache", &["ls"])).unwrap();
    assert!(listed.contains(" s3://bucket/p\n"), "{listed}");
    assert_eq!(cache.fails("cache", &["clear", "s3://bucket/other"]).0, Some(3));
    let removed = String::from_utf8(cache.run("cache", &["clear", "s3://bucket/p/"])).unwrap();
    assert!(removed.contains("s3://bucket/p (cleared, "), "{removed}");
    drop(dupfs);
}

#[test]
fn a_rate_is_kept_and_sizes_in_cold_storage_are_left_out() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    // The proxy counts what passes a link.
    world.proxy.set_link(Duration::ZERO, Some(1e9));
    let rate = 1_000_000;
    let begun = Instant::now();
    let all = index(&world, &["--rate", &rate.to_string()]);
    let elapsed = begun.elapsed();
    let bytes = all["bytes_fetched"].as_u64().unwrap();
    let passed: u64 = world.proxy.pieces().iter().map(|piece| piece.bytes).sum();
    assert!(passed >= bytes, "{passed} bytes passed, {bytes} were counted");
    assert!(bytes > 1_000_000, "{all}");
    assert!(elapsed >= Duration::from_millis(bytes * 900 / rate), "{bytes} bytes in {elapsed:?}");
    Dupfs::new(&world.scratch.dir("indexed")).run("cache", &["clear"]);

    let cold = "duplicity-full.20261122T131027Z.vol1.difftar.gz";
    world.proxy.set_plan(move |request| is_listing(request).then_some(Fault::Class(cold, "DEEP_ARCHIVE")));
    world.proxy.clear_log();
    let output = exec::output(world.indexed_reader().command("index").args(["--json", "s3://bucket/p"]));
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let left_out = report["cold"].as_u64().unwrap();
    assert!(left_out > 1 && report["unknown_sizes"] == left_out && report["complete"] == false, "{report}");
    assert!(exec::tail(&output.stderr).contains("in cold storage"), "{output:?}");
    assert!(!world.proxy.log().iter().any(|request| request.target.contains(cold)), "a cold volume was requested");
}
