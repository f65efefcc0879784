//! Sources of credentials, each with a mount.

use std::fs;
use std::net::TcpListener;

use super::world::{PASSPHRASE, World};
use crate::support::exec::Dupfs;
use crate::support::memory::{once_and_locked, wait_for};
use crate::support::mount::{Mount, is_mounted};
use crate::support::s3::{KEY_ID, SECRET};
use crate::support::tree::Tree;

const TOKEN: &str = "a-session-token-that-is-long-enough";

fn section(name: &str, id: &str, secret: &str) -> String {
    format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}

/// The program with a separate home directory, in which `file` has the content `text`.
fn at_home(world: &World, home: &str, file: &str, text: &str) -> Dupfs {
    let home = world.scratch.dir(home);
    let file = home.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    let dupfs = Dupfs::new(&home).variable("AWS_EC2_METADATA_DISABLED", "true").passphrase(PASSPHRASE);
    dupfs.option("--timeout=5").option("--cache-size=0").option(&world.endpoint())
}

#[test]
fn a_mount_finds_credentials_in_profiles_and_in_botos_files() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/p");
    let boto = world.scratch.path().join("boto.cfg");
    fs::write(&boto, section("Credentials", KEY_ID, SECRET)).unwrap();
    let profiles = section("default", "OTHER", "wrong") + &section("backup", KEY_ID, SECRET);
    let cases = [
        ("~/.aws", at_home(&world, "h1", ".aws/credentials", &section("default", KEY_ID, SECRET))),
        ("AWS_PROFILE", at_home(&world, "h2", ".aws/credentials", &profiles).variable("AWS_PROFILE", "backup")),
        // Before the key of the environment.
        (
            "--s3-profile",
            at_home(&world, "h5", ".aws/credentials", &profiles)
                .variable("AWS_ACCESS_KEY_ID", "OTHER")
                .variable("AWS_SECRET_ACCESS_KEY", "wrong")
                .option("--s3-profile=backup"),
        ),
        ("~/.boto", at_home(&world, "h3", ".boto", &section("Credentials", KEY_ID, SECRET))),
        ("BOTO_CONFIG", at_home(&world, "h4", ".boto", "").variable("BOTO_CONFIG", boto.to_str().unwrap())),
    ];
    for (what, dupfs) in cases {
        world.proxy.clear_log();
        let mount = Mount::new(&dupfs, "s3://bucket/p", &world.scratch.dir("mnt"));
        let tree = Tree::walk(&mount.path().join("latest/"));
        assert_eq!(tree.entries.len(), 3, "{what}");
        let log = world.proxy.log();
        assert!(log.len() > 3 && log.iter().all(|r| r.key.as_deref() == Some(KEY_ID)), "{what}: {log:?}");
        let log = mount.log();
        assert!(!log.contains(SECRET) && !log.contains(PASSPHRASE), "{what}: a secret is shown\n{log}");
        mount.unmount();
    }
    let other = at_home(&world, "h6", ".aws/credentials", &profiles).option("--s3-profile=nobody");
    let (code, message) = other.fails("sets", &["s3://bucket/p"]);
    let expected = "the profile 'nobody' (--s3-profile) has no credentials in ~/.aws";
    assert!(code == Some(4) && message.contains(expected), "{code:?}: {message}");
}

/// The error has the time that was waited for.
#[test]
fn a_search_for_credentials_that_is_not_answered_ends_at_the_deadline() {
    let world = World::new();
    // Connections wait in its queue.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("http://{}", listener.local_addr().unwrap());
    let home = world.scratch.dir("home");
    let dupfs = Dupfs::new(&home).variable("BOTO_CONFIG", "/dev/null").option("--no-index").option("--deadline=1");
    let container = dupfs
        .clone()
        .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{service}/role"))
        .option(&world.endpoint());
    let mnt = world.scratch.dir("mnt");
    for (command, operand) in [("sets", None), ("ls", None), ("mount", mnt.to_str())] {
        let operands: Vec<&str> = ["s3://bucket/p"].into_iter().chain(operand).collect();
        let (code, error) = container.fails(command, &operands);
        assert_eq!(code, Some(4), "{command}: {error}");
        assert!(error.contains("s3://bucket/p: no credentials within 1 s: "), "{command}: {error}");
        assert!(!is_mounted(&mnt), "{command}");
    }
    // The SDK itself gives up on the metadata service of an instance, which says that there are no credentials.
    let instance = dupfs.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service).option(&world.endpoint());
    let (code, error) = instance.fails("sets", &["s3://bucket/p"]);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("no credentials found, and") || error.contains("no credentials within 1 s"), "{error}");
}

#[test]
fn the_secret_of_the_environment_is_once_in_memory_in_a_locked_page() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/p");
    let dupfs = world.reader().passphrase(PASSPHRASE).variable("AWS_SESSION_TOKEN", TOKEN);
    let mount = world.mount(&dupfs, "bucket/p");
    assert_eq!(Tree::walk(&mount.path().join("latest/")).entries.len(), 3);
    let secrets = [("secret", SECRET.as_bytes()), ("token", TOKEN.as_bytes())];
    // A connection keeps the headers of its last request until it is closed.
    wait_for("mount", mount.pid(), &secrets, |_, found| once_and_locked(found));
    mount.unmount();
}
