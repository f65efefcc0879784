//! The S3 store against a real server, with and without a fault proxy between the two.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::proxy::{Fault, Proxy, Request, mix, seeded};
use crate::support::s3::{self, S3Server};
use dupfs_base::{ByteRange, CancelToken, ErrorKind, RequestContext};
use dupfs_read::storage::{
    Location, ObjectInfo, ObjectStore, S3Credentials, S3UrlStyle, StorageError, StoreOptions, UrlOptions, open,
    parse_url_with,
};

const ALL: ByteRange = ByteRange { start: 0, end: u64::MAX };
const MIB: usize = 1 << 20;

/// Bytes that differ at every offset, so that a misplaced part is seen.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len.div_ceil(8) as u64).flat_map(|i| mix(seed ^ (i << 8)).to_le_bytes()).take(len).collect()
}

/// A server behind a proxy.
struct World {
    server: S3Server,
    proxy: Proxy,
}

impl World {
    fn new() -> Self {
        let server = S3Server::start();
        let proxy = Proxy::start(&server.address);
        Self { server, proxy }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.server.bucket().join(name), bytes).unwrap();
    }

    fn open_with(&self, change: impl FnOnce(&mut StoreOptions)) -> Result<Arc<dyn ObjectStore>, StorageError> {
        let mut options = self.server.options();
        change(&mut options);
        open(&self.server.location(&self.proxy.address, "bucket"), &options)
    }

    fn open(&self) -> Arc<dyn ObjectStore> {
        self.open_with(|_| {}).unwrap()
    }

    fn with_timeout(&self, timeout: Duration) -> Arc<dyn ObjectStore> {
        self.open_with(|o| o.timeout = timeout).unwrap()
    }

    fn fail_to_open(&self, change: impl FnOnce(&mut StoreOptions)) -> StorageError {
        let error = self.open_with(change).expect_err("it cannot be opened");
        assert!(!error.to_string().contains('\n'), "{error}");
        error
    }
}

fn find(store: &dyn ObjectStore, name: &str) -> ObjectInfo {
    store.list(&RequestContext::unlimited()).unwrap().into_iter().find(|o| &*o.name == name).unwrap()
}

fn read(store: &dyn ObjectStore, object: &ObjectInfo, range: ByteRange) -> Result<Vec<u8>, StorageError> {
    let mut out = Vec::new();
    store
        .open(object, range, &RequestContext::unlimited())?
        .read_to_end(&mut out)
        .map_err(|e| StorageError::recover(&object.name, &e))?;
    Ok(out)
}

/// The error of a read; a result without one is not printed.
fn fail(store: &dyn ObjectStore, object: &ObjectInfo) -> StorageError {
    match read(store, object, ALL) {
        Ok(bytes) => panic!("{} bytes were read", bytes.len()),
        Err(e) => e,
    }
}

fn is_fetch(request: &Request) -> bool {
    !request.target.contains("list-type")
}

/// `fault` for the first fetch of each part, counted by `of` requests.
fn first_fetches(of: u64, fault: Fault) -> impl Fn(&Request) -> Option<Fault> + Send {
    let left = std::sync::atomic::AtomicU64::new(of);
    move |request| {
        let counts = |n: u64| n.checked_sub(1);
        let order = std::sync::atomic::Ordering::SeqCst;
        (is_fetch(request) && left.fetch_update(order, order, counts).is_ok()).then(|| fault.clone())
    }
}

#[test]
fn a_volume_is_fetched_in_parts_and_only_as_far_as_requested() {
    let world = World::new();
    let all = bytes(1, 20 * MIB + 12345);
    world.put("vol", &all);
    world.put("other", b"x");
    let store = world.open();
    let object = find(&*store, "vol");
    world.proxy.clear_log();
    let before = store.traffic();
    assert!(read(&*store, &object, ALL).unwrap() == all);
    let ranges: Vec<_> = world.proxy.log().iter().map(|r| r.range.unwrap().1 - r.range.unwrap().0 + 1).collect();
    assert_eq!((ranges.len(), ranges.iter().sum::<u64>()), (11, all.len() as u64));
    let after = store.traffic();
    assert_eq!(after.get_requests - before.get_requests, 11);
    assert_eq!(after.bytes - before.bytes, all.len() as u64);
    assert_eq!((after.list_requests, after.retries), (before.list_requests, 0));
    world.proxy.clear_log();
    assert_eq!(read(&*store, &object, ByteRange::at(9 * MIB as u64, 100)).unwrap(), all[9 * MIB..][..100]);
    let log = world.proxy.log();
    assert_eq!((log.len(), log[0].range), (1, Some((9 * MIB as u64, 9 * MIB as u64 + 99))));
    assert!(log[0].key.is_some() && log[0].target.starts_with("/bucket/vol"));
}

#[test]
fn every_kind_of_fault_is_retried_and_streams_resume_where_they_stopped() {
    const PART: u64 = 2 << 20;
    let world = World::new();
    let all = bytes(2, 9 * MIB);
    world.put("vol", &all);
    let store = world.open();
    let object = find(&*store, "vol");
    for fault in [
        Fault::Reset(0),
        Fault::Reset(1_000_000),
        Fault::Close(0),
        Fault::Close(1_000_000),
        Fault::CutBody(1000),
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Status(429, ""),
        Fault::ShiftRange(1),
        Fault::IgnoreRange,
        Fault::Head("Content-Range: bytes ", "Content-Range: octets "),
    ] {
        let faults = world.proxy.faults();
        world.proxy.clear_log();
        world.proxy.set_plan(first_fetches(3, fault.clone()));
        assert!(read(&*store, &object, ALL).unwrap() == all, "{fault:?}");
        assert_eq!(world.proxy.faults() - faults, 3, "{fault:?}");
        if let Fault::Close(at @ 1..) = fault {
            let resumed =
                world.proxy.log().iter().filter(|r| r.range.is_some_and(|(first, _)| first % PART == at)).count();
            assert_eq!(resumed, 3, "the rest of a part is fetched, not all of it again");
        }
    }
    // The HTTP client itself retries after a reset before an answer.
    assert!(store.traffic().retries >= 20, "{:?}", store.traffic());
}

#[test]
fn many_seeded_faults_give_the_right_bytes_or_an_error() {
    let world = World::new();
    let all = bytes(3, 10 * MIB);
    world.put("vol", &all);
    let store = world.with_timeout(Duration::from_secs(3));
    let object = find(&*store, "vol");
    let mut right = 0;
    for seed in 0..12 {
        world.proxy.set_plan(seeded(seed, if seed % 3 == 2 { 90 } else { 40 }));
        let start = Instant::now();
        match read(&*store, &object, ALL) {
            Ok(got) => {
                assert!(got == all, "wrong bytes with seed {seed}");
                right += 1;
            }
            Err(e) => assert!(matches!(e.kind, ErrorKind::Io | ErrorKind::Timeout), "seed {seed}: {e}"),
        }
        assert!(start.elapsed() < Duration::from_secs(40), "seed {seed}");
    }
    assert!(right >= 6, "only {right} of 12 came through");
    world.proxy.set_plan(|_| None);
    assert!(read(&*store, &object, ALL).unwrap() == all, "recovers at once");
    drop(store);
    let deadline = Instant::now() + Duration::from_secs(5);
    while world.proxy.open_connections() > 0 {
        assert!(Instant::now() < deadline, "connections are left open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lost_network_is_a_timeout_and_the_store_recovers() {
    let world = World::new();
    let all = bytes(4, 3 * MIB);
    world.put("vol", &all);
    let store = world.with_timeout(Duration::from_secs(2));
    let object = find(&*store, "vol");
    for fault in [Fault::Stall(0), Fault::Stall(100), Fault::Reset(0)] {
        world.proxy.set_plan(move |_| Some(fault.clone()));
        for error in [fail(&*store, &object), store.list(&RequestContext::unlimited()).unwrap_err()] {
            assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
            assert!(error.to_string().contains("check the endpoint and the network"), "{error}");
        }
        world.proxy.set_plan(|_| None);
        let start = Instant::now();
        assert!(read(&*store, &object, ALL).unwrap() == all);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    world.proxy.set_plan(|_| Some(Fault::Status(503, "SlowDown")));
    let start = Instant::now();
    let error = fail(&*store, &object);
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(error.to_string().contains("503 SlowDown"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_replaced_object_is_detected_between_the_parts() {
    let world = World::new();
    world.put("vol", &bytes(5, 40 * MIB));
    let store = world.open_with(|o| (o.connections, o.read_ahead_bytes) = (1, 0)).unwrap();
    let object = find(&*store, "vol");
    let mut stream = store.open(&object, ALL, &RequestContext::unlimited()).unwrap();
    stream.read_exact(&mut vec![0; MIB]).unwrap();
    world.put("new", &bytes(6, 40 * MIB));
    fs::rename(world.server.bucket().join("new"), world.server.bucket().join("vol")).unwrap();
    let error = StorageError::recover("?", &stream.read_to_end(&mut Vec::new()).unwrap_err());
    assert!(error.to_string().contains("changed since it was listed"), "{error}");
    assert!(stream.read(&mut [0; 10]).is_err(), "an error is no end");
}

#[test]
fn memory_for_unread_parts_is_bounded_and_idle_readers_block_no_others() {
    let world = World::new();
    world.put("vol", &bytes(7, 40 * MIB));
    let store = world.open_with(|o| (o.connections, o.read_ahead_bytes) = (2, 16 * MIB)).unwrap();
    let object = find(&*store, "vol");
    let before = store.traffic().bytes;
    let idle: Vec<_> = (0..4).map(|_| store.open(&object, ALL, &RequestContext::unlimited()).unwrap()).collect();
    assert_eq!(read(&*store, &object, ALL).unwrap().len(), 40 * MIB);
    std::thread::sleep(Duration::from_millis(500));
    // Four idle streams: one part each, and the readahead in total.
    let fetched = store.traffic().bytes - before;
    assert!(fetched <= (40 + 4 * 2 + 16) * MIB as u64, "{fetched}");
    drop(idle);
    assert_eq!(read(&*store, &object, ByteRange::at(5, 10)).unwrap().len(), 10);
}

/// Returns once `condition` is true.
fn wait_until(description: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{description}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `work` and cancels it after the proxy has injected another fault. Requires that `work` returns an error of
/// kind Cancelled at once, and that its connections are closed.
fn check_cancelled<T: Send>(world: &World, work: impl FnOnce(&RequestContext) -> Result<T, StorageError> + Send) {
    let (faults, idle) = (world.proxy.faults(), world.proxy.open_connections());
    let token = CancelToken::new();
    let context = RequestContext::new(None, token.clone());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| (work(&context).err().map(|e| e.kind), Instant::now()));
        wait_until("the request hangs", || world.proxy.faults() > faults);
        let cancelled = Instant::now();
        token.cancel();
        let (kind, returned) = running.join().unwrap();
        assert_eq!(kind, Some(ErrorKind::Cancelled));
        assert!(returned - cancelled < Duration::from_secs(1), "{:?}", returned - cancelled);
    });
    wait_until("connections are closed", || world.proxy.open_connections() <= idle);
}

fn read_all(stream: &mut dyn Read) -> Result<(), StorageError> {
    stream.read_to_end(&mut Vec::new()).map(drop).map_err(|e| StorageError::recover("vol", &e))
}

#[test]
fn a_cancelled_request_to_a_hanging_server_returns_at_once_and_frees_its_connection() {
    let world = World::new();
    world.put("vol", &bytes(8, 20 * MIB));
    // Only the end of the request ends it, and there is no spare connection.
    let store = world.open_with(|o| (o.connections, o.timeout) = (1, Duration::from_secs(600))).unwrap();
    let object = find(&*store, "vol");
    // Before the head of an answer, within a body, and in a listing.
    world.proxy.set_plan(|r| is_fetch(r).then_some(Fault::Stall(0)));
    check_cancelled(&world, |context| store.open(&object, ALL, context).map(drop));
    world.proxy.set_plan(|r| is_fetch(r).then_some(Fault::Stall(MIB as u64)));
    check_cancelled(&world, |context| read_all(&mut *store.open(&object, ALL, context)?));
    world.proxy.set_plan(|_| Some(Fault::Stall(0)));
    check_cancelled(&world, |context| store.list(context).map(drop));

    // A request that waits for the only connection keeps to its own deadline.
    std::thread::scope(|scope| {
        let (token, faults) = (CancelToken::new(), world.proxy.faults());
        let context = RequestContext::new(None, token.clone());
        let (hanging_store, hanging_object) = (&store, &object);
        let hanging = scope.spawn(move || hanging_store.open(hanging_object, ALL, &context).map(drop));
        wait_until("the request hangs", || world.proxy.faults() > faults);
        let start = Instant::now();
        let error = store.open(&object, ALL, &RequestContext::with_timeout(Duration::from_millis(200))).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        assert!(start.elapsed() < Duration::from_millis(200) + Duration::from_secs(1), "{:?}", start.elapsed());
        token.cancel();
        assert_eq!(hanging.join().unwrap().unwrap_err().kind, ErrorKind::Cancelled);
    });

    // A stream whose request has ended uses no connection, even before it is dropped.
    world.proxy.set_plan(|r| is_fetch(r).then_some(Fault::Stall(MIB as u64)));
    let context = RequestContext::with_timeout(Duration::from_millis(300));
    let mut stream = store.open(&object, ALL, &context).unwrap();
    assert_eq!(read_all(&mut *stream).unwrap_err().kind, ErrorKind::Timeout);
    world.proxy.set_plan(|_| None);
    let start = Instant::now();
    assert_eq!(read(&*store, &object, ByteRange::at(5, 10)).unwrap().len(), 10);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(read_all(&mut *stream).unwrap_err().kind, ErrorKind::Timeout);
}

#[test]
fn listings_of_many_pages_are_complete_and_foreign_directories_are_not_listed() {
    let world = World::new();
    fs::create_dir_all(world.server.bucket().join("foreign/deep")).unwrap();
    for i in 0..2500 {
        world.put(&format!("duplicity-full.20240101T000000Z.vol{i}.difftar.gpg"), b"x");
        world.put(&format!("foreign/{i}"), b"");
    }
    world.put("foreign/deep/a-duplicity", b"y");
    let store = world.open();
    world.proxy.clear_log();
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap().len(), 2500);
    // The first page was listed when the store was opened.
    assert_eq!(world.proxy.log().len(), 2);
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap().len(), 2500);
    assert_eq!(world.proxy.log().len(), 5);
    let prefixed = world.open_with(|o| o.file_prefixes = vec!["foreign/deep/a-".into()]).unwrap();
    assert_eq!(read(&*prefixed, &find(&*prefixed, "foreign/deep/a-duplicity"), ALL).unwrap(), b"y");
    assert_eq!(prefixed.list(&RequestContext::unlimited()).unwrap().len(), 2501);
    // A page that fails is retried. One that cannot be fetched is an error, never a shorter list.
    world.proxy.set_plan(|r| r.target.contains("continuation").then_some(Fault::Status(500, "InternalError")));
    let store = world.open_with(|o| o.timeout = Duration::from_secs(2)).unwrap();
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap_err().kind, ErrorKind::Io);
}

#[test]
fn faults_of_a_bucket_are_reported_when_the_store_is_opened() {
    let world = World::new();
    let error = world.fail_to_open(|o| o.s3_credentials = crate::support::s3::credentials("wrong"));
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    let error = world.fail_to_open(|o| o.s3_credentials = S3Credentials::Anonymous);
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    let no_bucket = world.server.location(&world.proxy.address, "nobucket/x");
    let error = open(&no_bucket, &world.server.options()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.to_string().contains("no such bucket"), "{error}");
    for (status, code, kind, text) in [
        (403, "AccessDenied", ErrorKind::Denied, "s3:ListBucket"),
        (403, "InvalidAccessKeyId", ErrorKind::Denied, "access key"),
        (403, "SignatureDoesNotMatch", ErrorKind::Denied, "secret access key"),
        (403, "RequestTimeTooSkewed", ErrorKind::Denied, "clock"),
        (400, "ExpiredToken", ErrorKind::Denied, "expired"),
        (301, "PermanentRedirect", ErrorKind::Denied, "--s3-region-name"),
        (400, "InvalidBucketName", ErrorKind::Invalid, "name of a bucket"),
        (404, "Odd", ErrorKind::NotFound, "endpoint"),
        (501, "NotImplemented", ErrorKind::Io, "NotImplemented"),
    ] {
        world.proxy.set_plan(move |_| Some(Fault::Status(status, code)));
        let error = world.fail_to_open(|_| {});
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    world.proxy.set_plan(|_| None);
    // TLS to a server without it, a port without a listener, a host that does not exist.
    let direct = world.server.address.clone();
    let error = world.fail_to_open(|o| o.s3_endpoint_url = Some(format!("https://{direct}")));
    assert!(error.to_string().contains("--s3-unencrypted-connection"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let error = world.fail_to_open(|o| o.s3_endpoint_url = Some(format!("http://{nobody}")));
    assert!(error.to_string().contains("refuses the connection"), "{error}");
    let error = world.fail_to_open(|o| o.s3_endpoint_url = Some("http://no-such-host.invalid".into()));
    assert!(
        error.to_string().contains("host was not found") && error.to_string().contains("--s3-endpoint-url"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(15));
    let error = world.fail_to_open(|o| o.s3_endpoint_url = Some("gopher://x".into()));
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[test]
fn the_region_is_found_automatically() {
    let world = World::new();
    world.put("o", b"x");
    for fault in [
        Fault::StatusWith(400, "AuthorizationHeaderMalformed", "X-A: b", "<Region>eu-south-9</Region>"),
        Fault::StatusWith(301, "PermanentRedirect", "x-amz-bucket-region: eu-south-9", ""),
    ] {
        world.proxy.clear_log();
        world.proxy.set_plan(move |r| (r.number == 0).then(|| fault.clone()));
        assert_eq!(world.open().list(&RequestContext::unlimited()).unwrap().len(), 1);
        assert_eq!(world.proxy.log().len(), 2);
    }
}

#[test]
fn archived_objects_are_recognized_in_the_listing_and_reading_one_has_its_own_error() {
    let world = World::new();
    world.put("vol", b"x");
    world.proxy.set_plan(|request| {
        Some(if is_fetch(request) {
            Fault::Status(403, "InvalidObjectState")
        } else {
            Fault::Body("<StorageClass>STANDARD<", "<StorageClass>DEEP_ARCHIVE<")
        })
    });
    let store = world.open();
    let object = find(&*store, "vol");
    assert_eq!(object.archived.as_deref(), Some("DEEP_ARCHIVE"));
    let error = fail(&*store, &object);
    assert_eq!(error.kind, ErrorKind::Archived);
    assert!(error.to_string().contains("DEEP_ARCHIVE") && error.to_string().contains("restore-object"), "{error}");
    // Restored since it was listed: it can be read.
    world.proxy.set_plan(|_| None);
    assert_eq!(read(&*store, &object, ALL).unwrap(), b"x");
}

#[test]
fn an_expired_token_is_renewed_and_a_denied_read_is_denied() {
    let world = World::new();
    world.put("vol", &bytes(8, 20 * MIB));
    let store = world.open();
    let object = find(&*store, "vol");
    world.proxy.set_plan(first_fetches(1, Fault::Status(400, "ExpiredToken")));
    assert!(read(&*store, &object, ALL).unwrap() == bytes(8, 20 * MIB));
    world.proxy.set_plan(|_| Some(Fault::Status(400, "ExpiredToken")));
    assert_eq!(fail(&*store, &object).kind, ErrorKind::Denied);
    world.proxy.set_plan(|_| Some(Fault::Status(403, "AccessDenied")));
    let error = fail(&*store, &object);
    assert_eq!((error.kind, error.to_string().contains("s3:GetObject")), (ErrorKind::Denied, true), "{error}");
}

#[test]
fn both_readings_of_a_url_are_tried() {
    let world = World::new();
    fs::create_dir_all(world.server.root.path().join("dotted.bucket/Sub")).unwrap();
    fs::write(world.server.root.path().join("dotted.bucket/Sub/o"), "x").unwrap();
    let options =
        StoreOptions { s3_endpoint_url: Some(format!("http://{}", world.proxy.address)), ..world.server.options() };
    let location = |url: &str, style| parse_url_with(url, &UrlOptions { style, endpoint_url: None }).unwrap();
    // With the endpoint known to the store only, the first reading has no such bucket, the second has one.
    let host_first = location("boto+s3://dotted.bucket/Sub", S3UrlStyle::Auto);
    assert_eq!(open(&host_first, &options).unwrap().list(&RequestContext::unlimited()).unwrap().len(), 1);
    let bucket_first = location("s3://host.name/dotted.bucket/Sub", S3UrlStyle::Auto);
    assert_eq!(open(&bucket_first, &options).unwrap().list(&RequestContext::unlimited()).unwrap().len(), 1);
    let neither = location("s3://host.name/nothing", S3UrlStyle::Auto);
    let error = open(&neither, &options).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.to_string().contains("read as s3://host.name/nothing"), "{error}");
    let forced = location("s3://host.name/dotted.bucket/Sub", S3UrlStyle::New);
    assert_eq!(open(&forced, &options).unwrap_err().kind, ErrorKind::NotFound);
    let Location::S3(_) = forced else { panic!() };
}

#[test]
fn an_encoded_slash_is_read_as_by_duplicity_if_the_other_reading_finds_nothing() {
    let server = S3Server::start();
    fs::create_dir(server.bucket().join("p")).unwrap();
    fs::write(server.bucket().join("p/o"), "x").unwrap();
    let names = |path: &str| -> Vec<String> {
        let store = open(&server.location(&server.address, path), &server.options()).unwrap();
        store.list(&RequestContext::unlimited()).unwrap().iter().map(|object| object.name.to_string()).collect()
    };
    assert_eq!(names("bucket/%2Fp"), ["o"]);
    assert_eq!(names("bucket/p"), ["o"]);
}

#[test]
fn a_directory_of_a_bucket_is_listed_with_the_directories_in_it() {
    let server = S3Server::start();
    for dir in ["shop/daily", "other"] {
        fs::create_dir_all(server.bucket().join(dir)).unwrap();
    }
    for file in ["top", "shop/manifest", "shop/daily/volume", "other/x"] {
        fs::write(server.bucket().join(file), "x").unwrap();
    }
    let store = open(&server.location(&server.address, "bucket"), &server.options()).unwrap();
    let listed = |dir: &str| {
        let mut listing = store.list_directory(dir, &RequestContext::unlimited()).unwrap();
        listing.directories.sort();
        let names: Vec<_> = listing.objects.iter().map(|object| object.name.to_string()).collect();
        (names, listing.directories)
    };
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(listed(""), (texts(&["top"]), texts(&["other", "shop"])));
    assert_eq!(listed("shop/"), (texts(&["manifest"]), texts(&["daily"])));
}

#[test]
fn a_link_with_latency_is_kept_busy() {
    // Without hashes, which the server would compute over the whole object for every range.
    let server = S3Server::start_with(&["--etag-hash", ""], "http");
    let world = World { proxy: Proxy::start(&server.address), server };
    let all = bytes(9, 64 * MIB);
    world.put("vol", &all);
    let store = world.open();
    let object = find(&*store, "vol");
    assert!(object.version.starts_with("modified "));
    let speed = 25e6;
    world.proxy.set_link(Duration::from_millis(200), Some(speed));
    let start = Instant::now();
    assert!(read(&*store, &object, ALL).unwrap() == all);
    let busy = all.len() as f64 / speed / start.elapsed().as_secs_f64();
    println!("{:.0} % of a link of 25 MB/s at 200 ms", busy * 100.0);
    // A part takes 80 ms of the link. One after the other, they would leave it idle for most of the time.
    let connections = world.proxy.open_connections();
    assert!(connections >= 4, "{connections} connections");
}

/// Answers each request of a connection by what `answer` returns for its first line: status, headers and body.
fn false_service(answer: fn(&str) -> (&'static str, &'static str, &'static str)) -> StoreOptions {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let (status, headers, body) = answer(String::from_utf8_lossy(&head).lines().next().unwrap_or_default());
            let length = body.len();
            let common = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
            let _ = write!(stream, "{common}{headers}\r\n{body}");
        }
    });
    StoreOptions {
        s3_endpoint_url: Some(format!("http://{address}")),
        s3_credentials: s3::credentials(s3::SECRET),
        timeout: Duration::from_secs(2),
        ..StoreOptions::default()
    }
}

fn open_false(options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError> {
    open(&dupfs_read::storage::parse_url("s3://bucket").unwrap(), options)
}

#[test]
fn a_listing_whose_pages_do_not_end_is_an_error() {
    // The same page again, whatever is asked for.
    let options = false_service(|_| {
        let page = "<ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated><NextContinuationToken>same\
                    </NextContinuationToken><Contents><Key>o</Key><Size>1</Size><ETag>x</ETag></Contents></ListBucketResult>";
        ("200 OK", "", page)
    });
    let error = open_false(&options).and_then(|store| store.list(&RequestContext::unlimited())).unwrap_err();
    assert!(error.to_string().contains("has no token for the next page"), "{error}");
}

#[test]
fn a_part_of_an_object_of_another_size_is_never_content() {
    // Without an ETag, as some services answer.
    let options = false_service(|line| {
        if line.contains("/o") {
            return ("206 Partial Content", "Content-Range: bytes 0-4/6\r\n", "wrong");
        }
        let page = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated><Contents><Key>o</Key><Size>5</Size>\
                    <ETag>x</ETag></Contents></ListBucketResult>";
        ("200 OK", "", page)
    });
    let store = open_false(&options).unwrap();
    let error = read(&*store, &find(&*store, "o"), ALL).unwrap_err();
    assert!(error.to_string().contains("was replaced or changed"), "{error}");
}
