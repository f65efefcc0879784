//! Faults of stores that rclone reads: of the server, of rclone itself, and of the machine.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{ObjectStore, ReadTimeout, StoreOptions, parse_url};

use crate::rclone::{only_object, open, read};
use crate::support::exec::{Dupfs, run};
use crate::support::mount::Mount;
use crate::support::remote_servers::{PASSWORD, RemoteServer, debian_rclone, store_processes};
use crate::support::{Scratch, fixtures, noise, s3};

/// The process of rclone that reads from `server`.
fn rclone_of(server: &RemoteServer) -> Option<u32> {
    let port = server.port.to_string();
    let is_option = |variable: &[u8]| {
        let variable = String::from_utf8_lossy(variable);
        let value = variable.strip_prefix("RCLONE_CONFIG_DUPFS_").and_then(|option| option.split_once('='));
        value.is_some_and(|(_, value)| value.split(|c: char| !c.is_ascii_digit()).any(|number| number == port))
    };
    store_processes(std::process::id()).into_iter().find(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(is_option)
    })
}

fn gone(process: u32) {
    let begun = Instant::now();
    while Path::new(&format!("/proc/{process}")).exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "rclone outlives its store");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A killed rclone, and a server that stops, starts again and stalls.
fn faults_end_in_an_error_or_go_on(mut server: RemoteServer, rclone: PathBuf) {
    let content = noise(1, 30 << 20);
    fs::write(server.root().join("o"), &content).unwrap();
    // After a restart rclone fails once for each idle connection that it has.
    let options = StoreOptions { timeout: Duration::from_secs(20), ..server.options(&rclone) };
    let store = open(&server, &options).unwrap();
    let object = only_object(&store);
    // Killed in the middle of a stream, which goes on.
    let first = rclone_of(&server).unwrap();
    let mut stream = store.open(&object, ByteRange { start: 0, end: u64::MAX }, &RequestContext::unlimited()).unwrap();
    let mut begin = vec![0; 1000];
    stream.read_exact(&mut begin).unwrap();
    run(Command::new("kill").args(["-9", &first.to_string()]));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!([begin, rest].concat() == content);
    assert!(store.traffic().retries > 0);
    let second = rclone_of(&server).unwrap();
    assert_ne!(first, second);
    // Stopped in the middle of a stream, which goes on after the next start.
    drop(stream);
    let mut stream = store.open(&object, ByteRange { start: 0, end: u64::MAX }, &RequestContext::unlimited()).unwrap();
    let mut begin = vec![0; 1000];
    stream.read_exact(&mut begin).unwrap();
    server.stop();
    server.restart();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!([begin, rest].concat() == content);
    server.stop();
    let error = read(&store, &object).unwrap_err();
    // The connection was refused, or an idle one was closed.
    assert!(
        error.kind == ErrorKind::Io && error.to_string().contains("still failing after 20 s of retries: "),
        "{error}"
    );
    server.restart();
    assert!(read(&store, &object).unwrap() == content);
    server.signal("-STOP");
    let error = read(&store, &object).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    server.signal("-CONT");
    assert!(read(&store, &object).unwrap() == content);
    drop((stream, store));
    gone(second);
}

#[test]
fn a_server_that_stops_and_a_killed_rclone_end_in_an_error_and_reads_go_on_afterwards() {
    faults_end_in_an_error_or_go_on(RemoteServer::webdav(), s3::rclone());
}

/// A server of WebDAV with the object `o`, which sends it from its beginning whatever part is requested. It breaks off the first
/// answer with it.
fn server_without_ranges(content: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (content, is_first) = (Arc::new(content), Arc::new(AtomicBool::new(true)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (content, is_first) = (content.clone(), is_first.clone());
            std::thread::spawn(move || serve_without_ranges(&stream.unwrap(), &content, &is_first));
        }
    });
    port
}

fn serve_without_ranges(mut stream: &TcpStream, content: &[u8], is_first: &AtomicBool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let is_directory = !request.split(' ').any(|word| word.ends_with("/o"));
    let entry = |path: &str, properties: &str| {
        format!(
            "<D:response><D:href>{path}</D:href><D:propstat><D:prop>{properties}<D:getlastmodified>Fri, 27 Nov 2026 13:57:54 \
             GMT</D:getlastmodified></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        )
    };
    let directory = entry("/", "<D:resourcetype><D:collection/></D:resourcetype>");
    let object = entry("/o", &format!("<D:getcontentlength>{}</D:getcontentlength>", content.len()));
    let (status, body) = if request.starts_with("PROPFIND") {
        let has_object = !is_directory || head.iter().any(|line| line.eq_ignore_ascii_case("depth: 1"));
        let list = [if is_directory { &*directory } else { "" }, if has_object { &object } else { "" }].concat();
        (
            "207 Multi-Status",
            format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">{list}</D:multistatus>").into_bytes(),
        )
    } else {
        ("200 OK", content.to_vec())
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
    let is_cut = status == "200 OK" && is_first.swap(false, Ordering::SeqCst);
    stream.write_all(&body[..if is_cut { length / 3 } else { length }])
}

#[test]
fn a_service_that_ignores_ranges_is_read_as_a_whole() {
    let content = noise(3, 1 << 20);
    for rclone in [debian_rclone(), s3::rclone()] {
        let url = format!("http://127.0.0.1:{}/", server_without_ranges(content.clone()));
        let options = StoreOptions { rclone: Some(rclone), timeout: Duration::from_secs(5), ..StoreOptions::default() };
        let store = dupfs_read::storage::open(&parse_url(&url).unwrap(), &options).unwrap();
        let object = only_object(&*store);
        // After the broken answer the rest is requested.
        assert!(read(&*store, &object).unwrap() == content);
        for (start, end) in [(0, 1000), (1000, 2000), ((1 << 20) - 7, 1 << 20), (500_000, 1 << 20)] {
            let context = RequestContext::unlimited();
            let mut part = Vec::new();
            store.open(&object, ByteRange { start, end }, &context).unwrap().read_to_end(&mut part).unwrap();
            assert!(part == content[start as usize..end as usize], "{start} to {end}");
        }
    }
}

/// The same for each other server and both versions of rclone.
mod every_server {
    use super::*;

    macro_rules! faults {
        ($($name:ident: $server:expr, $rclone:expr;)*) => {
            $(#[test] #[ignore = "slow: scripts/test --all"] fn $name() {
                faults_end_in_an_error_or_go_on($server, $rclone);
            })*
        };
    }

    faults! {
        webdav_debian: RemoteServer::webdav(), debian_rclone();
        sftp: RemoteServer::ssh(), s3::rclone();
        sftp_debian: RemoteServer::ssh(), debian_rclone();
        sftp_password: RemoteServer::ssh().with_password(), s3::rclone();
        sftp_password_debian: RemoteServer::ssh().with_password(), debian_rclone();
        ftp: RemoteServer::ftp(), s3::rclone();
        ftp_debian: RemoteServer::ftp(), debian_rclone();
    }
}

#[test]
#[ignore = "slow: scripts/test --all"]
fn a_changed_host_key_ends_a_running_store() {
    for rclone in [debian_rclone(), s3::rclone()] {
        let mut server = RemoteServer::ssh();
        fs::write(server.root().join("o"), b"content").unwrap();
        let options = StoreOptions { timeout: Duration::from_secs(3), ..server.options(&rclone) };
        let store = open(&server, &options).unwrap();
        let object = only_object(&store);
        server.stop();
        for key in ["host", "host_ecdsa"] {
            fs::copy(server.file("other_key"), server.file(key)).unwrap();
            fs::copy(server.file("other_key.pub"), server.file(&format!("{key}.pub"))).unwrap();
        }
        server.restart();
        let error = read(&store, &object).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("known_hosts"), "{error}");
    }
}

#[test]
fn a_read_of_a_mount_outlives_an_outage_that_is_longer_than_the_timeout() {
    let mut server = RemoteServer::webdav();
    let content = noise(1, 1 << 20);
    fs::write(server.root().join("o"), &content).unwrap();
    let timeout = Duration::from_secs(1);
    let read_timeout = Some(ReadTimeout::new(Duration::from_secs(600)));
    let options = StoreOptions { timeout, read_timeout, ..server.options(&s3::rclone()) };
    let store = open(&server, &options).unwrap();
    let object = only_object(&store);
    let begun = Instant::now();
    server.stop();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&store, &object));
        while begun.elapsed() < 3 * timeout || store.traffic().retries < 3 {
            assert!(!reader.is_finished(), "{:?}", reader.join());
            std::thread::sleep(Duration::from_millis(10));
        }
        server.restart();
        assert!(reader.join().unwrap().unwrap() == content);
    });
}

/// The number before `unit` in `user.dupfs.cost` of a mount.
fn cost(mount: &Mount, unit: &str) -> u64 {
    let cost = run(Command::new("getfattr").args(["-n", "user.dupfs.cost", "--only-values"]).arg(mount.path()));
    let cost = String::from_utf8(cost).unwrap();
    cost.split(unit).next().unwrap().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{cost}"))
}

#[test]
fn a_mount_reads_no_object_twice_keeps_its_index_and_shows_new_backups() {
    let fixture = fixtures::path("duplicity-0.8.15-python2.7-gz");
    for (server, rclone) in [(RemoteServer::webdav(), s3::rclone()), (RemoteServer::ssh(), debian_rclone())] {
        let scratch = Scratch::new();
        let place = server.root().join("backup");
        fs::create_dir(&place).unwrap();
        // Without the last set.
        let copy = |is_wanted: fn(&str) -> bool| {
            for entry in fs::read_dir(&fixture).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if is_wanted(&name) {
                    run(Command::new("cp").arg("-a").arg(fixture.join(&name)).arg(&place));
                }
            }
        };
        copy(|name| !name.contains("20261122T131036Z"));
        let dupfs = Dupfs::new(scratch.path()).option("--rclone").option(rclone.to_str().unwrap());
        let dupfs = dupfs.variable("FTP_PASSWORD", if server.ssh_options().is_empty() { PASSWORD } else { "" });
        let dupfs = dupfs.option(&format!("--ssh-options={}", server.ssh_options().join(" "))).option("--refresh=1");
        let url = server.url("backup");
        let read_all = |mount: &Mount| {
            let out = scratch.path().join("copy");
            let _ = fs::remove_dir_all(&out);
            run(Command::new("cp").arg("-a").arg(mount.path().join("latest/.")).arg(&out));
        };
        let stored: u64 = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        let mount = Mount::new(&dupfs, &url, &scratch.dir("m1"));
        read_all(&mount);
        read_all(&mount);
        let (fetched, gets) = (cost(&mount, " bytes fetched"), cost(&mount, " get requests"));
        // The heads of the signature archives are read first.
        assert!(fetched > stored / 2 && fetched < stored + 200_000, "{fetched} of {stored}");
        // Whole objects: small ranges cost a connection each.
        let objects = fs::read_dir(&place).unwrap().count() as u64;
        assert!(gets <= 2 * objects, "{gets} requests for {objects} objects");
        let processes = store_processes(mount.pid());
        let [rclone] = processes[..] else { panic!("{processes:?}") };
        mount.unmount();
        gone(rclone);
        let mount = Mount::new(&dupfs, &url, &scratch.dir("m2"));
        run(Command::new("ls").arg("-R").arg(mount.path().join("latest/")).stdout(std::process::Stdio::null()));
        let fetched = cost(&mount, " bytes fetched");
        assert!(fetched < 10_000, "{fetched} bytes although the index has the trees");
        let count = || fs::read_dir(mount.path().join("snapshots")).unwrap().count();
        let before = count();
        copy(|_| true);
        let begun = Instant::now();
        while count() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "the new backup is not shown\n{}", mount.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        mount.unmount();
    }
}

/// A file system of 1 MiB in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1M", "dupfs-test"]).arg(dir));
        Self(dir.to_owned())
    }

    fn fill(&self) {
        let error = fs::write(self.0.join("filler"), vec![1; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(fs::write(self.0.join("x"), b"x").is_err());
        let _ = fs::remove_file(self.0.join("x"));
    }

    fn forbid_writing(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0));
        assert!(fs::write(self.0.join("x"), b"x").is_err());
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn rclone_needs_no_place_on_a_disk() {
    let scratch = Scratch::new();
    let fixture = fixtures::path("duplicity-0.8.15-python2.7-gz");
    let local = Dupfs::new(scratch.path()).run("ls", &["-lR", fixture.to_str().unwrap()]);
    let configuration = scratch.path().join("rclone.conf");
    for (server, rclone) in [
        (RemoteServer::ssh(), debian_rclone()),
        (RemoteServer::ssh(), s3::rclone()),
        (RemoteServer::webdav(), s3::rclone()),
        (RemoteServer::ftp(), debian_rclone()),
    ] {
        run(Command::new("cp").arg("-a").arg(&fixture).arg(server.root().join("backup")));
        let disk = SmallDisk::new(&scratch.path().join("disk"));
        let place = disk.0.to_str().unwrap();
        // Every place where a program may put files by itself is on this disk; the cache of dupfs is not.
        let mut dupfs = Dupfs::new(scratch.path()).option("--rclone").option(rclone.to_str().unwrap());
        dupfs = dupfs.option("--cache-dir").option(scratch.path().join("own").to_str().unwrap());
        for variable in ["HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "TMPDIR"] {
            dupfs = dupfs.variable(variable, place);
        }
        dupfs = dupfs.variable("FTP_PASSWORD", if server.ssh_options().is_empty() { PASSWORD } else { "" });
        dupfs = dupfs.option("--no-index").option(&format!("--ssh-options={}", server.ssh_options().join(" ")));
        let read = |dupfs: &Dupfs, url: &str, what: &str| {
            let listed = dupfs.run("ls", &["-lR", url]);
            assert!(listed == local, "{url} {what}");
            let out = scratch.path().join("restored");
            let _ = fs::remove_dir_all(&out);
            dupfs.run("restore", &[url, out.to_str().unwrap()]);
            let expected = scratch.path().join("expected");
            if !expected.exists() {
                let local = Dupfs::new(scratch.path());
                local.run("restore", &[fixture.to_str().unwrap(), expected.to_str().unwrap()]);
            }
            run(Command::new("diff").args(["-r", "--no-dereference", "--exclude=pipe"]).arg(&out).arg(expected));
        };
        let url = server.url("backup");
        read(&dupfs, &url, "with room");
        assert_eq!(disk.names(), [""; 0], "{url}: something was written");
        disk.fill();
        read(&dupfs, &url, "without room");
        disk.forbid_writing();
        read(&dupfs, &url, "read-only");
        assert_eq!(disk.names(), ["filler"]);
        // A remote of the user's own configuration.
        let text = format!("[local]\ntype = alias\nremote = {}\n", server.root().display());
        fs::write(&configuration, text).unwrap();
        let own = dupfs.variable("RCLONE_CONFIG", configuration.to_str().unwrap());
        read(&own, "rclone://local:backup", "read-only");
    }
}

/// The addresses at which a process listens, as the kernel writes them.
fn listening(process: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let sockets: Vec<_> = files
        .filter_map(|file| {
            fs::read_link(file.unwrap().path()).ok()?.to_str()?.strip_prefix("socket:[").map(str::to_owned)
        })
        .map(|inode| inode.trim_end_matches(']').to_owned())
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = words.filter(|words| words[3] == "0A" && sockets.iter().any(|inode| inode == words[9]));
    own.map(|words| words[1].to_owned()).collect()
}

#[test]
fn rclone_serves_only_on_loopback_and_only_with_its_password_whatever_the_environment_has() {
    let scratch = Scratch::new();
    for rclone in [debian_rclone(), s3::rclone()] {
        let server = RemoteServer::webdav();
        run(Command::new("cp")
            .arg("-a")
            .arg(fixtures::path("duplicity-0.8.15-python2.7-gz"))
            .arg(server.root().join("b")));
        let mut dupfs = Dupfs::new(scratch.path()).option("--rclone").option(rclone.to_str().unwrap());
        for (name, value) in [
            ("FTP_PASSWORD", PASSWORD),
            ("RCLONE_RC_NO_AUTH", "true"),
            ("RCLONE_RC_ADDR", "0.0.0.0:0"),
            ("RCLONE_RC_USER", "other"),
            ("RCLONE_RC_PASS", "other"),
            ("RCLONE_RC_HTPASSWD", "/dev/null"),
            ("RCLONE_RC_ALLOW_ORIGIN", "*"),
        ] {
            dupfs = dupfs.variable(name, value);
        }
        let mount = Mount::new(&dupfs, &server.url("b"), &scratch.dir("m"));
        let processes = store_processes(mount.pid());
        let [process] = processes[..] else { panic!("{processes:?}") };
        let addresses = listening(process);
        let [address] = &addresses[..] else { panic!("{addresses:?}") };
        let port = address.strip_prefix("0100007F:").unwrap_or_else(|| panic!("{address}"));
        let port = u16::from_str_radix(port, 16).unwrap();
        for login in ["", "Authorization: Basic b3RoZXI6b3RoZXI=\r\n", "Authorization: Basic ZHVwZnM6\r\n"] {
            for request in ["GET /%5Bdupfs%3A%5D/", "POST /operations/list", "POST /rc/noopauth", "POST /core/quit"] {
                let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                write!(stream, "{request} HTTP/1.0\r\n{login}Content-Length: 0\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                let status = answer.split(' ').nth(1);
                assert!(matches!(status, Some("401" | "403")), "{request} {login}: {answer}");
            }
        }
        mount.unmount();
    }
}

#[test]
fn a_missing_rclone_is_reported_with_the_command_that_installs_it() {
    let scratch = Scratch::new();
    let dupfs = Dupfs::new(scratch.path()).variable("PATH", scratch.dir("empty").to_str().unwrap());
    let (code, error) = dupfs.fails("sets", &["sftp://host/dir"]);
    assert!(code != Some(0) && error.trim().lines().count() == 1, "{code:?} {error}");
    assert!(error.contains("apt install rclone") && error.contains("--rclone PATH"), "{error}");
}

#[test]
fn the_ssh_servers_of_tests_do_not_keep_the_mounts_of_others() {
    let scratch = Scratch::new();
    let fixture = fixtures::path("duplicity-0.8.15-python2.7-gz");
    let mount = Mount::new(&Dupfs::new(scratch.path()), fixture.to_str().unwrap(), &scratch.dir("m"));
    let server = RemoteServer::ssh();
    // Its namespace was made while the mount was there. The daemon ends with the last mount.
    mount.unmount();
    drop(server);
}
