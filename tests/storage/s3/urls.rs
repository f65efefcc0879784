//! The forms of URLs, through the binary.

use std::fs;

use super::world::{PASSPHRASE, World};
use crate::support::exec::{self, Dupfs};
use crate::support::mount::{Mount, mount_line};
use crate::support::s3::SECRET;

fn listing(dupfs: &Dupfs, url: &str) -> String {
    String::from_utf8(exec::run(dupfs.command("ls").args(["-R", url]))).unwrap()
}

#[test]
fn every_form_opens_the_same_backup() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/pre/fix");
    let address = &world.proxy.address;
    let dupfs = world.client().passphrase(PASSPHRASE);
    let endpoint = world.endpoint();
    let plain = "--s3-unencrypted-connection";
    let old = format!("s3://{address}/bucket/pre/fix");
    let wanted = listing(&world.reader().passphrase(PASSPHRASE), "s3://bucket/pre/fix");
    assert!(wanted.contains("hello.txt"), "{wanted}");
    let forms: &[(&str, &[&str])] = &[
        ("s3:///bucket/pre/fix", &[&endpoint]),
        ("s3://bucket/pre/fix/", &[&endpoint]),
        ("S3://bucket/pre/fix", &[&endpoint]),
        ("boto3+s3://bucket/pre/fix", &[&endpoint]),
        ("boto3+s3:///bucket/pre/fix", &[&endpoint]),
        ("s3+http://bucket/pre/fix", &[&endpoint]),
        ("boto+s3:///bucket/pre/fix", &[&endpoint]),
        ("par2+s3://bucket/pre/fix", &[&endpoint]),
        ("s3://bucket/pre/fix", &[&endpoint, "--s3-url-style=new"]),
        (&old, &[plain]),
        (&old, &[plain, "--s3-url-style=old"]),
        (&format!("boto+s3://{address}/bucket/pre/fix"), &[plain]),
        (&format!("s3+http://{address}/bucket/pre/fix"), &[plain]),
        ("s3://bucket/pre/fix", &["--s3-endpoint-url", address, plain]),
        // As in old scripts that call duplicity.
        (&old, &[plain, "--s3-use-new-style", "--s3-european-buckets", "--s3-use-ia"]),
    ];
    for (url, options) in forms {
        let dupfs = options.iter().fold(dupfs.clone(), |dupfs, option| dupfs.option(option));
        assert_eq!(listing(&dupfs, url), wanted, "{url} {options:?}");
    }
}

#[test]
fn both_readings_of_a_url_are_mounted_and_the_one_chosen_is_logged() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/p");
    world.put_fixture("gpg1-aes128-sym", "dotted.bucket/p");
    let old = world.client().passphrase(PASSPHRASE).option("--s3-unencrypted-connection").option("-v");
    let new = world.reader().passphrase(PASSPHRASE).option("-v");
    let cases = [
        (&old, format!("s3://{}/bucket/p", world.proxy.address), "as the host"),
        (&new, "s3://dotted.bucket/p".to_owned(), "reading dotted.bucket as the bucket"),
        (&new.clone().option("--s3-url-style=old"), format!("s3://{}/bucket/p", world.proxy.address), ""),
    ];
    for (dupfs, url, reading) in cases {
        let mount = Mount::new(dupfs, &url, &world.scratch.dir("mnt"));
        assert_eq!(fs::read(mount.path().join("latest/hello.txt")).unwrap(), b"hello\n", "{url}");
        let line = mount_line(mount.path()).unwrap();
        assert!(line.contains("bucket/p") && !line.contains(SECRET), "{line}");
        let log = mount.log();
        assert!(log.contains(reading), "{url}: the reading is not logged\n{log}");
        mount.unmount();
    }
}

/// duplicity does not use them either.
#[test]
fn one_line_states_that_credentials_in_a_url_are_not_used() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/p");
    let url = format!("s3://ID:{SECRET}@{}/bucket/p", world.proxy.address);
    let plain = "--s3-unencrypted-connection";
    for (dupfs, code) in [(world.client().passphrase(PASSPHRASE), 0), (world.stranger().passphrase(PASSPHRASE), 4)] {
        let (got, stderr) = dupfs.option(plain).fails("ls", &[&url]);
        let lines: Vec<_> = stderr.lines().filter(|line| line.contains("credentials in the URL")).collect();
        assert!(got == Some(code) && lines.len() == 1 && lines[0].contains("AWS_ACCESS_KEY_ID"), "{got:?} {stderr}");
        assert!(!stderr.contains(SECRET), "a secret is shown\n{stderr}");
    }
}
