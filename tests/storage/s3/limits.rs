//! The bounds of what is fetched, and the party that pays for it.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::world::{World, fetched, is_volume};
use crate::support::exec::tail;

const FIXTURE: &str = "duplicity-0.7.13-gz";

/// Stored bytes of the objects in `place` that `is_counted` accepts by their names.
fn stored(world: &World, place: &str, is_counted: impl Fn(&str) -> bool) -> u64 {
    let entries = fs::read_dir(world.disk(place)).unwrap().map(|entry| entry.unwrap());
    let counted = entries.filter(|entry| is_counted(entry.file_name().to_str().unwrap()));
    counted.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn a_mount_fetches_no_more_than_its_limit_until_that_is_lifted() {
    let world = World::new();
    world.put_fixture(FIXTURE, "bucket/p");
    let names = stored(&world, "bucket/p", |name| !name.contains(".difftar"));
    let mount = world.mount(&world.reader().option(&format!("--fetch-limit={}", names + 10)), "bucket/p");
    let directory = mount.path().join("latest/etc");
    let mut listed = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap());
    let file = listed.find(|entry| entry.file_type().unwrap().is_file()).unwrap().path();
    drop(listed);
    for _ in 0..2 {
        let error = fs::read(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::DQUOT.raw_os_error()), "{error}");
    }
    let log = world.proxy.log();
    assert!(!log.iter().any(is_volume), "{:?}", fetched(&log));
    let lines = mount.log();
    let remedy = format!("kill -USR2 {} lifts the limit of this mount", mount.pid());
    assert!(lines.contains("would exceed --fetch-limit") && lines.contains(&remedy), "{lines}");
    kill_process(Pid::from_raw(mount.pid().try_into().unwrap()).unwrap(), Signal::USR2).unwrap();
    super::world::eventually("the limit is lifted", std::time::Duration::from_secs(20), || fs::read(&file).is_ok());
    assert!(mount.log().contains("--fetch-limit is lifted; "), "{}", mount.log());
    mount.unmount();
}

#[test]
fn a_command_that_needs_more_than_the_limit_fails_with_one_line() {
    let world = World::new();
    world.put_fixture(FIXTURE, "bucket/p");
    let names = stored(&world, "bucket/p", |name| !name.contains(".difftar"));
    let limit = format!("--fetch-limit={}", names + 10);
    let listed = world.reader().run("ls", &["-R", &limit, "s3://bucket/p"]);
    assert!(listed.split(|byte| *byte == b'\n').count() > 5, "{}", tail(&listed));
    let (code, stderr) =
        world.reader().fails("restore", &[&limit, "s3://bucket/p", world.scratch.dir("to").to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("would exceed --fetch-limit") && stderr.contains("give a larger limit"), "{stderr}");
    let small = "--fetch-limit=10";
    let (code, stderr) = world.reader().fails("ls", &[small, "s3://bucket/p"]);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(!world.proxy.log().iter().any(is_volume));
}

#[test]
fn each_request_states_that_the_requester_pays_with_the_option() {
    let world = World::new();
    world.put_fixture(FIXTURE, "bucket/p");
    let payers = |options: &[&str]| {
        world.proxy.clear_log();
        let output = world.reader().run("ls", &[options, &["-lR", "s3://bucket/p"]].concat());
        let log = world.proxy.log();
        assert!(log.len() > 4 && log.iter().any(is_volume), "{}", tail(&output));
        log.into_iter().map(|request| request.payer).collect::<Vec<_>>()
    };
    assert!(payers(&[]).iter().all(Option::is_none));
    assert!(payers(&["--s3-requester-pays"]).iter().all(|payer| payer.as_deref() == Some("requester")));
}
