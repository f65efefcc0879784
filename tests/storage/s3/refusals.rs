//! Mounts that fail: the reason in one line, and the documented exit code.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::world::{PASSPHRASE, World, signing};
use crate::support::exec::Dupfs;
use crate::support::mount::{is_mounted, release};
use crate::support::proxy::Fault;
use crate::support::s3::SECRET;

/// Tries to mount `url`, which must fail. Returns the exit code and the one line.
fn refused(world: &World, dupfs: &Dupfs, url: &str) -> (Option<i32>, String) {
    let mnt = world.scratch.dir("mnt");
    let (code, stderr) = dupfs.fails("mount", &[url, mnt.to_str().unwrap()]);
    let mounted = is_mounted(&mnt);
    release(&mnt);
    assert!(!mounted, "{url} is mounted all the same");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{url}: one line was promised\n{stderr}");
    assert!(!stderr.contains(SECRET) && !stderr.contains("wrong-secret"), "{url}: a secret is shown\n{stderr}");
    (code, stderr)
}

#[test]
fn each_reason_not_to_mount_has_its_own_message_and_exit_code() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/p");
    world.disk("bucket/empty");
    std::fs::write(world.disk("bucket/empty").join("README"), "no duplicity backup here").unwrap();
    let endpoint = world.endpoint();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("--s3-endpoint-url=http://{nobody}");
    let tls = format!("--s3-endpoint-url=https://{}", world.server.address);
    let with = |dupfs: Dupfs, options: &[&str]| options.iter().fold(dupfs, |dupfs, option| dupfs.option(option));
    let client = || world.client().passphrase(PASSPHRASE);
    let wrong = signing(world.stranger(), "wrong-secret");
    let cases = [
        ("a wrong secret", with(wrong, &[&endpoint]), "s3://bucket/p", 4, "secret access key"),
        ("no credentials", with(world.stranger(), &[&endpoint]), "s3://bucket/p", 4, "AWS_ACCESS_KEY_ID"),
        ("no bucket", with(client(), &[&endpoint]), "s3://nobucket/p", 3, "no such bucket"),
        ("nothing there", with(client(), &[&endpoint]), "s3://bucket/nothing", 3, "no duplicity backup here"),
        ("no backup there", with(client(), &[&endpoint]), "s3://bucket/empty", 3, "no duplicity backup here"),
        ("nobody listens", with(client(), &[&nobody]), "s3://bucket/p", 1, "refuses the connection"),
        ("no TLS", with(client(), &[&tls]), "s3://bucket/p", 1, "no secure connection"),
        ("no such host", with(client(), &["--s3-endpoint-url=http://nowhere.invalid"]), "s3://bucket/p", 1, "host"),
    ];
    let mut lines = std::collections::BTreeSet::new();
    for (what, dupfs, url, code, text) in &cases {
        let (got, stderr) = refused(&world, dupfs, url);
        assert_eq!(got, Some(*code), "{what}: {stderr}");
        assert!(stderr.contains(text), "{what}: {stderr}");
        lines.insert(stderr);
    }
    assert_eq!(lines.len(), cases.len(), "two reasons have the same line: {lines:#?}");
}

#[test]
fn answers_of_the_service_during_the_mount_are_reported() {
    let world = World::new();
    world.put_fixture("gpg1-aes128-sym", "bucket/p");
    let dupfs = world.reader().passphrase(PASSPHRASE);
    for (status, answer, code, text) in [
        (403, "AccessDenied", 4, "s3:ListBucket"),
        (403, "InvalidAccessKeyId", 4, "access key ID"),
        (403, "RequestTimeTooSkewed", 4, "clock"),
        (400, "ExpiredToken", 4, "expired"),
        (301, "PermanentRedirect", 4, "--s3-region-name"),
        (503, "SlowDown", 1, "503 SlowDown"),
    ] {
        world.proxy.set_plan(move |_| Some(Fault::Status(status, answer)));
        let (got, stderr) = refused(&world, &dupfs, "s3://bucket/p");
        assert_eq!(got, Some(code), "{answer}: {stderr}");
        assert!(stderr.contains(text), "{answer}: {stderr}");
    }
    world.proxy.set_plan(|_| Some(Fault::Stall(0)));
    let start = std::time::Instant::now();
    let (got, stderr) = refused(&world, &dupfs, "s3://bucket/p");
    assert!(got == Some(1) && stderr.contains("check the endpoint and the network"), "{got:?} {stderr}");
    assert!(start.elapsed().as_secs() < 15, "a service that is silent was waited for {:?}", start.elapsed());
}

/// Another attempt would get the same answer, and the network is not the reason.
#[test]
fn an_endpoint_of_another_protocol_is_named_at_once() {
    let world = World::new();
    let plain = &world.server.address;
    let ssh = Greeter::new(b"SSH-2.0-OpenSSH_9.6\r\n");
    // An alert of TLS 1.2: the first message was unexpected.
    let tls = Greeter::new(b"\x15\x03\x03\x00\x02\x02\x0a");
    let go = Greeter::new(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    for (url, text) in [
        (format!("http://{}", ssh.address), "does not speak HTTP"),
        (format!("https://{}", ssh.address), "does not speak TLS"),
        (format!("http://{}", tls.address), "does not speak HTTP"),
        (format!("http://{}", go.address), "the port expects TLS"),
        (format!("https://{plain}"), "does not speak TLS"),
    ] {
        let dupfs = world.client().option(&format!("--s3-endpoint-url={url}")).option("--timeout=3600");
        let start = Instant::now();
        let (code, stderr) = dupfs.fails("sets", &["s3://bucket/p"]);
        assert_eq!(code, Some(1), "{url}: {stderr}");
        assert!(stderr.contains(text) && stderr.contains("--s3-endpoint-url"), "{url}: {stderr}");
        assert!(!stderr.contains("network") && !stderr.contains("next read"), "{url}: {stderr}");
        assert!(start.elapsed() < Duration::from_secs(8), "{url}: it was tried for {:?}", start.elapsed());
    }
}

/// A server that says the same to everyone who connects.
struct Greeter {
    address: SocketAddr,
}

impl Greeter {
    fn new(greeting: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { continue };
                // The client has said something by then, so that its answer is that to a request.
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(greeting);
            }
        });
        Self { address }
    }
}
