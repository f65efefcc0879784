//! Stores that rclone reads from real servers: logins, faults, and the backups of real duplicity.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{LocalStore, ObjectInfo, ObjectStore, RcloneStore, StorageError, StoreOptions};

use crate::support::exec::{Dupfs, output, run};
use crate::support::mount::Mount;
use crate::support::remote_servers::{PASSWORD, RemoteServer, SshAgent, debian_rclone, store_processes};
use crate::support::{Scratch, duplicity, fixtures, noise, s3};

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut child = Command::new("base64");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    String::from_utf8(run(child.arg("-w0").arg(file.path()))).unwrap()
}

pub fn open(server: &RemoteServer, options: &StoreOptions) -> Result<RcloneStore, StorageError> {
    let dupfs_read::storage::Location::Remote(location) = server.location() else { panic!() };
    RcloneStore::open(&location, options)
}

pub fn only_object(store: &dyn ObjectStore) -> ObjectInfo {
    let mut objects = store.list(&RequestContext::unlimited()).unwrap();
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects.remove(0)
}

pub fn read(store: &dyn ObjectStore, object: &ObjectInfo) -> Result<Vec<u8>, StorageError> {
    let mut out = Vec::new();
    let mut stream = store.open(object, ByteRange { start: 0, end: u64::MAX }, &RequestContext::unlimited())?;
    stream.read_to_end(&mut out).map_err(|e| StorageError::recover(&object.name, &e))?;
    Ok(out)
}

#[test]
fn a_real_sshd_is_read_by_key_and_by_password_and_never_without_its_host_key() {
    let server = RemoteServer::ssh();
    fs::write(server.root().join("o"), b"content").unwrap();
    for rclone in [debian_rclone(), s3::rclone()] {
        server.trust();
        let by_key = server.options(&rclone);
        let store = open(&server, &by_key).unwrap();
        assert_eq!(read(&store, &only_object(&store)).unwrap(), b"content");
        let secrets = by_key.secrets.clone();
        let with = |password: &str| StoreOptions {
            secrets: secrets.clone().with("BACKEND_PASSWORD", dupfs_base::Secret::new(password)),
            ..by_key.clone()
        };
        server.log_in_by("other_key");
        let store = open(&server, &with(PASSWORD)).unwrap();
        assert_eq!(read(&store, &only_object(&store)).unwrap(), b"content");
        for refused in [&by_key, &with("wrong")] {
            let error = open(&server, refused).unwrap_err();
            assert!(error.kind == ErrorKind::Denied && error.to_string().contains("check the user"), "{error}");
            assert!(!error.to_string().contains("wrong"), "{error}");
        }
        server.log_in_by("key");
        // Options of the user do not turn the check off.
        let unchecked = StoreOptions {
            ssh_options: [by_key.ssh_options.clone(), vec!["-oStrictHostKeyChecking=no".to_owned()]].concat(),
            ..by_key.clone()
        };
        fs::write(server.file("known_hosts"), "").unwrap();
        for options in [&by_key, &unchecked, &with(PASSWORD)] {
            let error = open(&server, options).unwrap_err();
            assert!(error.kind == ErrorKind::Denied && error.to_string().contains("is not in known_hosts"), "{error}");
        }
        let known = ["key.pub", "host_ecdsa.pub"].map(|file| fs::read_to_string(server.file(file)).unwrap());
        let other = format!("[127.0.0.1]:{} {}", server.port, known[0]);
        fs::write(server.file("known_hosts"), other).unwrap();
        for options in [&by_key, &unchecked, &with(PASSWORD)] {
            let error = open(&server, options).unwrap_err();
            assert!(error.kind == ErrorKind::Denied && error.to_string().contains("is not the one in"), "{error}");
        }
        server.trust();
        let missing = dupfs_read::storage::parse_url(&server.url("missing")).unwrap();
        let error = dupfs_read::storage::open(&missing, &by_key).unwrap_err();
        assert!(error.kind == ErrorKind::NotFound && error.to_string().contains("no such directory"), "{error}");
    }
}

#[test]
fn many_objects_are_read_at_once_from_sshd_over_eight_connections() {
    // Only the newer one, from 1.70, limits its connections itself.
    for (rclone, has_limit) in [(debian_rclone(), false), (s3::rclone(), true)] {
        let server = RemoteServer::ssh();
        let contents: Vec<_> = (0..64).map(|seed| (format!("o{seed:02}"), noise(seed, 50_000))).collect();
        contents.iter().for_each(|(name, bytes)| fs::write(server.root().join(name), bytes).unwrap());
        let store = open(&server, &server.options(&rclone)).unwrap();
        let mut objects = store.list(&RequestContext::unlimited()).unwrap();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        std::thread::scope(|scope| {
            for (object, (name, bytes)) in objects.iter().zip(&contents) {
                let store = &store;
                scope.spawn(move || {
                    assert_eq!(&*object.name, name);
                    assert!(read(store, object).unwrap() == *bytes, "{name}");
                });
            }
        });
        let log = fs::read_to_string(server.file("sshd.log")).unwrap();
        let logins = log.lines().filter(|line| line.contains("Accepted publickey")).count();
        assert!(logins > 0 && (!has_limit || logins <= 8), "{logins} logins\n{log}");
    }
}

#[test]
fn servers_of_webdav_and_ftp_are_read_and_refuse_a_wrong_password() {
    for (server, is_ftp) in [(RemoteServer::webdav(), false), (RemoteServer::ftp(), true)] {
        fs::create_dir(server.root().join("dir")).unwrap();
        fs::write(server.root().join("dir/o"), b"content").unwrap();
        let location = dupfs_read::storage::parse_url(&server.url("dir")).unwrap();
        let rclone = if is_ftp { debian_rclone() } else { s3::rclone() };
        let options = server.options(&rclone);
        let store = dupfs_read::storage::open(&location, &options).unwrap();
        assert_eq!(read(&*store, &only_object(&*store)).unwrap(), b"content");
        let secrets = options.secrets.clone().with("FTP_PASSWORD", dupfs_base::Secret::new("wrong"));
        let error = dupfs_read::storage::open(&location, &StoreOptions { secrets, ..options.clone() }).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    }
}

#[test]
fn a_real_ftp_server_and_servers_with_tls_are_read_and_only_with_a_certificate_that_is_trusted() {
    let scratch = Scratch::new();
    let fixture = fixtures::path("duplicity-0.8.15-python2.7-gz");
    let local = Dupfs::new(scratch.path()).run("ls", &["-lR", fixture.to_str().unwrap()]);
    for (number, server) in RemoteServer::others().into_iter().enumerate() {
        run(Command::new("cp").arg("-a").arg(&fixture).arg(server.root().join("backup")));
        let url = server.url("backup");
        let rclone = if number % 2 == 0 { debian_rclone() } else { s3::rclone() };
        let dupfs = Dupfs::new(scratch.path()).option("--no-index").option("--rclone").option(rclone.to_str().unwrap());
        let dupfs = dupfs.variable("FTP_PASSWORD", PASSWORD);
        let is_plain = url.starts_with("ftp://");
        if !is_plain {
            let (code, error) = dupfs.fails("sets", &[&url]);
            assert!(
                code == Some(1) && error.contains("--ssl-cacert-file") && error.trim().lines().count() == 1,
                "{error}"
            );
        }
        let file = if is_plain { "/etc/ssl/certs/ca-certificates.crt".into() } else { server.file("ca.pem") };
        let trusting = dupfs.clone().option("--ssl-cacert-file").option(file.to_str().unwrap());
        assert!(trusting.run("ls", &["-lR", &url]) == local, "{url}");
        if !is_plain {
            // The file replaces the certificates of the machine.
            let certificates = server.file("ca.pem");
            let machine = dupfs.variable("SSL_CERT_DIR", certificates.parent().unwrap().to_str().unwrap());
            assert!(machine.run("ls", &["-lR", &url]) == local, "{url}");
            let others = machine.option("--ssl-cacert-file=/etc/ssl/certs/ca-certificates.crt");
            assert_eq!(others.fails("sets", &[&url]).0, Some(1), "{url}");
        }
        let wrong = trusting.variable("FTP_PASSWORD", "wrong");
        assert_eq!(wrong.fails("sets", &[&url]).0, Some(4), "{url}");
    }
    let (code, error) = Dupfs::new(scratch.path()).fails("sets", &["--ssl-cacert-file=/no/such", "ftps://h/d"]);
    assert!(code == Some(2) && error.contains("/no/such: the CA certificates cannot be read"), "{error}");
}

#[test]
fn a_mount_shows_the_backup_of_the_directory_and_its_rclone_dies_with_it() {
    let scratch = Scratch::new();
    let server = RemoteServer::ssh();
    let fixture = fixtures::path("duplicity-0.8.15-python2.7-gz");
    run(Command::new("cp").arg("-a").arg(&fixture).arg(server.root().join("backup")));
    let rclone = debian_rclone();
    let dupfs = Dupfs::new(scratch.path()).option("--rclone").option(rclone.to_str().unwrap());
    let dupfs = server
        .ssh_options()
        .chunks(2)
        .fold(dupfs, |dupfs, pair| dupfs.option(&format!("--ssh-options={} {}", pair[0], pair[1])));
    let url = server.url("backup");
    let local = Dupfs::new(scratch.path());
    for arguments in [&["-lR"][..], &["--json", "-R", "-t", "now"]] {
        let remote: Vec<&str> = [arguments, &[&url]].concat();
        let fixture = fixture.to_str().unwrap();
        let local_arguments: Vec<&str> = [arguments, &[fixture]].concat();
        assert_eq!(dupfs.run("ls", &remote), local.run("ls", &local_arguments));
    }
    let mount = Mount::new(&dupfs, &url, &scratch.dir("m"));
    let local_mount = Mount::new(&local, fixture.to_str().unwrap(), &scratch.dir("l"));
    let [a, b] = [&mount, &local_mount].map(|mount| mount.path().join("latest/"));
    // diff calls two named pipes different.
    run(Command::new("diff").args(["-r", "--no-dereference", "--exclude=pipe"]).arg(a).arg(b));
    let cost = run(Command::new("getfattr").args(["-n", "user.dupfs.cost", "--only-values"]).arg(mount.path()));
    assert!(String::from_utf8_lossy(&cost).contains(" get requests"), "{}", String::from_utf8_lossy(&cost));
    let processes = store_processes(mount.pid());
    let [rclone] = processes[..] else { panic!("{processes:?}") };
    mount.kill();
    let begun = Instant::now();
    while Path::new(&format!("/proc/{rclone}")).exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "rclone outlives dupfs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn remotes_that_differ_only_in_values_that_are_not_shown_have_indexes_of_their_own() {
    let scratch = Scratch::new();
    let rclone = debian_rclone();
    let local = Dupfs::new(scratch.path());
    let dupfs = local.clone().option("--rclone").option(rclone.to_str().unwrap());
    for (name, count) in [("a", 1), ("b", 2), ("a", 2)] {
        let dir = scratch.path().join(name);
        if !dir.exists() {
            run(Command::new("cp").arg("-a").arg(fixtures::path("duplicity-0.8.15-python2.7-gz")).arg(&dir));
        }
        dupfs.run("ls", &["-lR", &format!("rclone://:alias,remote={}:", dir.display())]);
        let listing: serde_json::Value = serde_json::from_slice(&local.run("cache", &["--json"])).unwrap();
        let urls: Vec<_> = listing["indexes"].as_array().unwrap().iter().map(|index| &index["url"]).collect();
        assert_eq!(urls, vec!["rclone://:alias,remote=...:"; count]);
    }
}

#[test]
fn an_error_of_rclone_does_not_repeat_a_secret_of_the_url() {
    let scratch = Scratch::new();
    let dupfs = Dupfs::new(&scratch.dir("home")).option("--timeout=5");
    // A value that rclone cannot parse is in its message.
    let url = "rclone://:ftp,concurrency=geheimnis,host=127.0.0.1:dir";
    let output = output(dupfs.command("sets").arg(url));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("couldn't parse config item"), "{message}");
    assert!(!message.contains("geheimnis") && message.lines().count() == 1, "{message}");
}

#[test]
fn hosts_of_the_configuration_of_ssh_are_read_by_every_scheme_of_ssh_also_below_the_home_directory() {
    let server = RemoteServer::ssh();
    fs::create_dir(server.root().join("dir")).unwrap();
    fs::write(server.root().join("dir/o"), b"content").unwrap();
    let known = fs::read_to_string(server.file("known_hosts")).unwrap();
    let config = format!(
        "Host backup\n HostName 127.0.0.1\n Port {}\n User root\nHost *\n UserKnownHostsFile {}\n GlobalKnownHostsFile \
         /dev/null\n IdentityFile {}\n IdentitiesOnly yes\n",
        server.port,
        server.file("known_hosts").display(),
        server.file("key").display()
    );
    fs::write(server.file("ssh_config"), config).unwrap();
    assert!(known.starts_with("[127.0.0.1]"));
    let root = server.root();
    let root = root.display();
    for rclone in [debian_rclone(), s3::rclone()] {
        let options = server.options(&rclone);
        for url in [
            format!("sftp://backup/{root}/dir"),
            "scp://backup/dir".to_owned(),
            "pexpect+ssh://backup/dir/".to_owned(),
            "rsync://backup/dir".to_owned(),
            format!("rsync://backup:/{root}/dir"),
            format!("par2+sftp://root@127.0.0.1:{}/dir", server.port),
        ] {
            let location = dupfs_read::storage::parse_url(&url).unwrap();
            let store = dupfs_read::storage::open(&location, &options).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!(read(&*store, &only_object(&*store)).unwrap(), b"content", "{url}");
        }
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn an_agent_logs_in() {
    let scratch = Scratch::new();
    let server = RemoteServer::ssh();
    run(Command::new("cp").arg("-a").arg(fixtures::path("duplicity-0.8.15-python2.7-gz")).arg(server.root().join("b")));
    let agent = SshAgent::new(&scratch.path().join("agent"), &server.file("key"));
    // No key of a file is used.
    let config = format!(
        "Host *\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n IdentityFile /nonexistent\n",
        server.file("known_hosts").display()
    );
    fs::write(server.file("ssh_config"), config).unwrap();
    for rclone in [debian_rclone(), s3::rclone()] {
        let dupfs = Dupfs::new(scratch.path()).option("--rclone").option(rclone.to_str().unwrap());
        let dupfs = dupfs.option(&format!("--ssh-options={}", server.ssh_options().join(" "))).option("--no-index");
        let (code, log) = dupfs.fails("sets", &[&server.url("b")]);
        assert_eq!(code, Some(4), "{log}");
        let with_agent = dupfs.variable("SSH_AUTH_SOCK", agent.socket.to_str().unwrap());
        with_agent.run("sets", &[&server.url("b")]);
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn every_fixture_is_the_same_through_every_server() {
    let servers = [RemoteServer::ssh(), RemoteServer::webdav(), RemoteServer::ftp()];
    let names: Vec<_> = fs::read_dir(fixtures::path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let names = names
        .iter()
        .filter_map(|name| name.to_str())
        .filter(|name| name.contains("-") && !name.contains('.') || name.starts_with("duplicity"));
    for name in names.filter(|name| fixtures::path(name).is_dir()) {
        let local = LocalStore::open(&fixtures::path(name)).unwrap();
        let mut wanted = local.list(&RequestContext::unlimited()).unwrap();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        for server in &servers {
            run(Command::new("cp").arg("-a").arg(fixtures::path(name)).arg(server.root()));
            for rclone in [debian_rclone(), s3::rclone()] {
                let location = dupfs_read::storage::parse_url(&server.url(name)).unwrap();
                let store = dupfs_read::storage::open(&location, &server.options(&rclone)).unwrap();
                let mut objects = store.list(&RequestContext::unlimited()).unwrap();
                objects.sort_by(|a, b| a.name.cmp(&b.name));
                assert_eq!(objects.len(), wanted.len(), "{name}");
                for (object, wanted) in objects.iter().zip(&wanted) {
                    assert_eq!((&object.name, object.size), (&wanted.name, wanted.size));
                    assert!(read(&*store, object).unwrap() == read(&local, wanted).unwrap(), "{name}/{}", object.name);
                }
            }
        }
    }
}

/// duplicity writes by the URL that dupfs then reads.
fn written_by(version: &str, server: &RemoteServer, options: &[String], expected_scheme: &str) {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    fs::write(source.join("file"), noise(7, 3 << 20)).unwrap();
    let url = server.url("written");
    assert!(url.starts_with(expected_scheme), "{url}");
    let mut command = Command::new(duplicity::program(version));
    command.args(["full", "--no-encryption", "--volsize=1", "--num-retries=1"]);
    command.arg("--archive-dir").arg(scratch.dir("archive")).args(options).arg(&source).arg(&url);
    command.env("HOME", scratch.path()).env("FTP_PASSWORD", PASSWORD).env("LC_ALL", "C.UTF-8");
    run(&mut command);
    let dupfs = Dupfs::new(scratch.path()).variable("FTP_PASSWORD", PASSWORD);
    let dupfs = dupfs.option("--rclone").option(debian_rclone().to_str().unwrap().to_owned().as_str());
    let dupfs = options.iter().fold(dupfs, |dupfs, option| dupfs.option(option));
    assert!(dupfs.run("cat", &[&url, "file"]) == noise(7, 3 << 20), "{version} {url}");
    let mount = Mount::new(&dupfs, &url, &scratch.dir("mount"));
    assert!(fs::read(mount.path().join("latest/file")).unwrap() == noise(7, 3 << 20), "{version} {url}");
    mount.unmount();
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn real_duplicity_writes_what_is_read_by_the_same_url() {
    for version in ["0.8.22", "3.2.1"] {
        let server = RemoteServer::ssh();
        let known = format!("-oUserKnownHostsFile={}", server.file("known_hosts").display());
        let options = format!("--ssh-options={known} -oIdentityFile={}", server.file("key").display());
        written_by(version, &server, &[options], "sftp://");
        written_by(version, &RemoteServer::webdav(), &[], "webdav://");
        // Not with TLS: pyftpdlib 1.5.7 loses the last bytes of some uploads then.
        let [_, ftp, ..] = RemoteServer::others();
        // duplicity asks lftp for `mkdir -p written/`, which ends in an error if the server refuses to make it twice.
        fs::create_dir(ftp.root().join("written")).unwrap();
        written_by(version, &ftp, &[], "ftp://");
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn real_duplicity_writes_several_stores_that_are_read_as_one_also_without_one_of_them() {
    for (version, mode) in [("0.8.22", "mirror"), ("3.2.1", "mirror"), ("3.2.1", "stripe")] {
        let scratch = Scratch::new();
        let (source, local) = (scratch.dir("source"), scratch.dir("local"));
        fs::write(source.join("file"), noise(9, 3 << 20)).unwrap();
        let mut server = RemoteServer::webdav();
        let configuration = scratch.path().join("multi.json");
        let password = format!("[{{\"name\": \"FTP_PASSWORD\", \"value\": \"{PASSWORD}\"}}]");
        let json = format!(
            "[{{\"url\": \"file://{}\"}}, {{\"url\": \"{}\", \"env\": {password}}}]",
            local.display(),
            server.url("written")
        );
        fs::write(&configuration, json).unwrap();
        let url = format!("multi://{}?mode={mode}&onfail=abort", configuration.display());
        let mut command = Command::new(duplicity::program(version));
        command.args(["full", "--no-encryption", "--volsize=1", "--num-retries=1", "--archive-dir"]);
        command.arg(scratch.dir("archive")).arg(&source).arg(&url);
        run(command.env("HOME", scratch.path()).env("LC_ALL", "C.UTF-8"));
        let dupfs = Dupfs::new(scratch.path()).option("--rclone").option(debian_rclone().to_str().unwrap());
        let dupfs = dupfs.option("--no-index").option("--timeout=3");
        assert!(dupfs.run("cat", &[&url, "file"]) == noise(9, 3 << 20), "{version} {mode}");
        server.stop();
        let (code, log) = dupfs.fails("cat", &[&url, "file"]);
        assert!(log.contains("connection refused") && log.contains("the other stores are read"), "{mode}: {log}");
        assert_eq!(code == Some(0), mode == "mirror", "{mode}: {log}");
    }
}
