//! Volumes in cold storage: the tree and all other files stay usable, and the log has the remedy.

use std::fs;
use std::io;
use std::process::Command;

use serde_json::Value;

use super::world::{World, is_listing};
use crate::support::exec::{self, Dupfs};
use crate::support::fixtures;
use crate::support::mount::Mount;
use crate::support::proxy::Fault;
use crate::support::s3::{KEY_ID, SECRET};
use crate::support::tree::{Tree, show};

/// The volume that is in cold storage: the full set's first one.
const COLD: &str = "duplicity-full.20261122T131027Z.vol1.difftar.gz";

#[test]
fn a_volume_in_glacier_is_eremote_with_the_remedy_in_the_log_and_all_else_is_served() {
    let world = World::new();
    world.put_fixture("duplicity-0.7.13-gz", "bucket/p");
    world.proxy.set_plan(|request| {
        if is_listing(request) {
            Some(Fault::Class(COLD, "GLACIER"))
        } else {
            request.target.contains(COLD).then_some(Fault::Status(403, "InvalidObjectState"))
        }
    });
    let local = Dupfs::new(&world.scratch.dir("home-local"));
    let local = Mount::new(&local, &fixtures::url("duplicity-0.7.13-gz"), &world.scratch.dir("mnt-local"));
    let want = Tree::walk(&local.path().join("latest/"));
    let mount = world.mount(&world.reader(), "bucket/p");
    let mut names = vec![Vec::new()];
    list(&mount.path().join("latest/"), &[], &mut names);
    names.sort();
    assert_eq!(names, want.entries.keys().cloned().collect::<Vec<_>>(), "the tree is listed whole");

    let (mut cold, mut served) = (Vec::new(), 0);
    for (path, _) in want.entries.iter().filter(|(_, e)| e.kind == crate::support::tree::Kind::File) {
        let here = mount.path().join("latest").join(want.locate(path).strip_prefix(&want.root).unwrap());
        match fs::read(&here) {
            Ok(bytes) => {
                assert!(bytes == fs::read(want.locate(path)).unwrap(), "{}: wrong bytes", show(path));
                served += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EREMOTE), "{}: {error}", show(path));
                cold.push(path.clone());
            }
        }
    }
    assert!(!cold.is_empty() && served > 2, "{} in cold storage, {served} served", cold.len());
    let log = mount.log();
    for wanted in [COLD, "GLACIER", "aws s3api restore-object"] {
        assert!(log.contains(wanted), "{wanted} is not in the log\n{log}");
    }

    // With bounds for sizes, `ls -l` works everywhere, and no size is too small.
    let bounds = Mount::new(&world.reader().option("-osizes=bound"), "s3://bucket/p", &world.scratch.dir("mnt-bound"));
    let shown = Tree::walk(&bounds.path().join("latest/"));
    assert!(shown.entries.keys().eq(want.entries.keys()));
    assert!(cold.iter().all(|path| shown.entries[path].size >= want.entries[path].size));
    bounds.unmount();

    // Restored: readable without a remount.
    world.proxy.set_plan(|_| None);
    for path in &cold {
        let here = mount.path().join("latest").join(want.locate(path).strip_prefix(&want.root).unwrap());
        assert!(fs::read(&here).unwrap() == fs::read(want.locate(path)).unwrap(), "{} after the restore", show(path));
    }
    mount.unmount();
    local.unmount();
}

#[test]
fn volumes_names_what_is_cold_and_thaw_prints_the_commands_that_restore_it() {
    let world = World::new();
    let place = "bucket/my shop's";
    world.put_fixture("duplicity-0.7.13-gz", place);
    let url = format!("s3://{place}");
    let output = |args: &[&str]| exec::output(world.reader().command("volumes").arg(&url).args(args));
    let json =
        |args: &[&str]| -> Value { serde_json::from_slice(&output(&[args, &["--json"]].concat()).stdout).unwrap() };
    let names = |report: &Value, list: &str| -> Vec<String> {
        let objects = report[list].as_array().unwrap().iter().filter(|object| object["cold"] == true);
        objects.map(|object| object["object"].as_str().unwrap().to_owned()).collect()
    };
    // The commands are run by a shell, with a program that prints what it is given.
    let bin = world.scratch.dir("bin");
    fs::write(bin.join("aws"), "#!/bin/sh\nprintf '[%s]' \"$@\"\necho\n").unwrap();
    exec::run(Command::new("chmod").arg("+x").arg(bin.join("aws")));
    let run_commands = |commands: &[u8]| -> Vec<String> {
        let script = String::from_utf8(commands.to_vec()).unwrap();
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let printed = exec::run(Command::new("sh").arg("-c").arg(script).env("PATH", path));
        String::from_utf8(printed).unwrap().lines().map(str::to_owned).collect()
    };
    let expected = |objects: &[String], days: u32, tier: &str| -> Vec<String> {
        let address = &world.proxy.address;
        let line = |object: &String| {
            format!(
                "[s3api][restore-object][--endpoint-url][http://{address}][--region][us-east-1][--bucket][bucket]\
                 [--key][my shop's/{object}][--restore-request][Days={days},GlacierJobParameters={{Tier={tier}}}]"
            )
        };
        objects.iter().map(line).collect()
    };
    for (class, is_cold) in [("STANDARD", false), ("GLACIER_IR", false), ("GLACIER", true), ("DEEP_ARCHIVE", true)] {
        world.proxy.set_plan(move |request| is_listing(request).then_some(Fault::Class(COLD, class)));
        let report = json(&[]);
        let cold = if is_cold { vec![COLD.to_owned()] } else { vec![] };
        assert_eq!((names(&report, "volumes"), names(&report, "metadata")), (cold.clone(), vec![]), "{class}");
        assert_eq!(report["cold_count"], cold.len());
        let volumes = report["volumes"].as_array().unwrap();
        assert_eq!(volumes.iter().find(|volume| volume["object"] == COLD).unwrap()["storage_class"], class);
        assert_eq!(run_commands(&output(&["--thaw"]).stdout), expected(&cold, 7, "Standard"), "{class}");
    }
    let bulk = output(&["--thaw", "--days", "30", "--tier", "Bulk"]).stdout;
    assert_eq!(run_commands(&bulk), expected(&[COLD.to_owned()], 30, "Bulk"));
    let refused = output(&["--thaw", "--tier", "expedited"]);
    assert_eq!((refused.status.code(), &*refused.stdout), (Some(2), &b""[..]), "{refused:?}");

    // A signature archive in cold storage: nothing is known of the files, but the snapshot's volumes are.
    let signatures = "duplicity-full-signatures.20261122T131027Z.sigtar.gz";
    world.proxy.set_plan(|request| {
        if is_listing(request) {
            Some(Fault::Class("Z.sigtar.gz", "GLACIER"))
        } else {
            request.target.contains("sigtar").then_some(Fault::Status(403, "InvalidObjectState"))
        }
    });
    let report = json(&[]);
    assert_eq!((&report["known"], &report["certain_count"]), (&false.into(), &0.into()), "{report}");
    assert!(report["count"].as_u64().unwrap() >= 4 && names(&report, "volumes").is_empty(), "{report}");
    let metadata = names(&report, "metadata");
    assert!(metadata.len() == 3 && metadata.contains(&signatures.to_owned()), "{report}");
    let thaw = output(&["--thaw", "some/path"]);
    assert_eq!(thaw.status.code(), Some(1), "{thaw:?}");
    assert!(exec::tail(&thaw.stderr).contains("restore these objects first"), "{thaw:?}");
    assert_eq!(run_commands(&thaw.stdout), expected(&metadata, 7, "Standard"));
}

/// `aws` of Debian with the proxy as its service: this version does not read AWS_ENDPOINT_URL.
const AWS: &str = "#!/bin/sh\nexec /usr/bin/aws --endpoint-url \"$ENDPOINT\" \"$@\"\n";

#[test]
#[ignore = "needs awscli: scripts/test --all"]
fn aws_restores_an_object_by_the_documented_command_and_by_the_printed_ones() {
    let world = World::new();
    let place = "bucket/my shop's";
    world.put_fixture("duplicity-0.7.13-gz", place);
    let bin = world.scratch.dir("bin");
    fs::write(bin.join("aws"), AWS).unwrap();
    exec::run(Command::new("chmod").arg("+x").arg(bin.join("aws")));
    // The server knows no classes and no restores.
    world.proxy.set_plan(|request| match is_listing(request) {
        true => Some(Fault::Class(COLD, "GLACIER")),
        false => request.target.contains("?restore").then_some(Fault::Status(202, "")),
    });
    // Runs the script. Returns the error, or the requests.
    let requests = |script: &str| -> Result<Vec<String>, String> {
        let before = world.proxy.log().len();
        let mut command = Command::new("sh");
        command.args(["-euc", script]).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command.env("HOME", world.scratch.dir("home")).env("ENDPOINT", format!("http://{}", world.proxy.address));
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        let result = exec::output(command.env("AWS_DEFAULT_REGION", "us-east-1"));
        if !result.status.success() {
            return Err(exec::tail(&result.stderr));
        }
        let log = world.proxy.log().split_off(before);
        assert!(log.iter().all(|request| request.key.as_deref() == Some(KEY_ID)), "{log:?}");
        Ok(log.into_iter().map(|request| request.target).collect())
    };
    let document = include_str!("../../../docs/S3.md");
    let (_, command) = document.split_once("    aws s3api restore-object").unwrap();
    let (command, _) = command.split_once("\n\n").unwrap();
    let command = format!("aws s3api restore-object{command}");
    assert_eq!(requests(&command).unwrap(), ["/bucket/prefix/NAME?restore"]);
    let refused = requests(&command.replace("Tier=", "Tire=")).unwrap_err();
    assert!(refused.contains("Tire"), "{refused}");

    let mut thaw = world.reader().command("volumes");
    let printed = exec::run(thaw.arg(format!("s3://{place}")).args(["--thaw", "--tier", "Bulk"]));
    let asked = requests(&String::from_utf8(printed).unwrap()).unwrap();
    assert_eq!(asked, [format!("/bucket/my%20shop%27s/{COLD}?restore")]);
}

/// Collects the names below `dir` by readdir, without requesting attributes.
fn list(dir: &std::path::Path, prefix: &[u8], out: &mut Vec<Vec<u8>>) {
    use std::os::unix::ffi::OsStrExt;
    let entries: io::Result<Vec<_>> = fs::read_dir(dir).unwrap().collect();
    for entry in entries.unwrap() {
        let mut path = prefix.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.file_name().as_bytes());
        out.push(path.clone());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &path, out);
        }
    }
}
