//! Passes that are no longer needed, and passes that continue.

use std::io::Write;
use std::time::{Duration, Instant};

use super::*;
use crate::test_support::{TestSource, UNLIMITED};
use crate::{Archive, ArchiveFormat, MemoryPointStore, NodeKey, StreamCodec, UnpackLimits};
use dupfs_base::{ErrorKind, HasKind, Stopped};
use dupfs_cache::CacheConfig;
use dupfs_test_tar::{noise, put_entry};

/// A file of which each read takes some time, and ends early when the request does.
fn slow_file(bytes: Vec<u8>, pause: Duration) -> Arc<TestSource> {
    Arc::new(TestSource::new("a.tar", bytes).with_pause(pause))
}

fn unpacker() -> Arc<Unpacker> {
    let cache = CacheConfig { memory_bytes: 1 << 20, spill: None };
    Unpacker::new(cache, UnpackLimits::default(), Arc::new(MemoryPointStore::new(1 << 20)))
}

const MEMBER_BYTES: usize = 100 << 10;

/// A tar stream of `members` members that do not compress.
fn tar(members: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, data) in noise(members * MEMBER_BYTES).chunks(MEMBER_BYTES).enumerate() {
        put_entry(&mut out, format!("m{n}").as_bytes(), b'0', data);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn wait_until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn cancellable() -> (CancelToken, RequestContext) {
    let token = CancelToken::new();
    (token.clone(), RequestContext::new(None, token))
}

#[test]
fn a_cancelled_request_returns_at_once_and_the_pass_ends_within_a_second() {
    let file = slow_file(tar(200), Duration::from_millis(50));
    let archive = Archive::new(&unpacker(), Arc::clone(&file) as _, ArchiveFormat::Tar(None));
    let (token, context) = cancellable();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| archive.wait_for_pass(&context).map_err(|error| error.kind()));
        wait_until("the pass reads", Duration::from_secs(10), || file.bytes_read() > 0);
        let cancelled = Instant::now();
        token.cancel();
        assert_eq!(waiting.join().unwrap().map(drop), Err(ErrorKind::Cancelled));
        assert!(
            cancelled.elapsed() < Duration::from_millis(500),
            "the request returned {:?} later",
            cancelled.elapsed()
        );
        wait_until("the pass ends", Duration::from_secs(1), || matches!(archive.progress(), PassProgress::Idle));
    });
    let read = file.bytes_read();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(file.bytes_read(), read, "a pass without waiters continues to read");
    assert!(read < 10 << 20);
}

#[test]
fn a_pass_continues_while_another_request_needs_it() {
    let file = slow_file(tar(40), Duration::from_millis(10));
    let archive = Archive::new(&unpacker(), Arc::clone(&file) as _, ArchiveFormat::Tar(None));
    let (token, context) = cancellable();
    thread::scope(|scope| {
        let first = scope.spawn(|| archive.wait_for_pass(&context).map_err(|error| error.kind()));
        wait_until("the pass reads", Duration::from_secs(10), || file.bytes_read() > 0);
        let second = scope.spawn(|| archive.wait_for_pass(&UNLIMITED));
        wait_until("both wait", Duration::from_secs(10), || archive.pass().inspect(|state| state.interested) == 2);
        token.cancel();
        assert_eq!(first.join().unwrap().map(drop), Err(ErrorKind::Cancelled));
        assert!(matches!(second.join().unwrap(), Ok(PassProgress::Done)));
    });
    assert_eq!(archive.with_table(ArchiveTable::len), 41);
    let len = file.known_len().unwrap();
    assert!(file.bytes_read() < len + (1 << 20), "{} of {len} bytes were read", file.bytes_read());
}

#[test]
fn a_stopped_pass_resumes_where_it_stopped() {
    let tar = tar(60);
    let mut encoder = ::flate2::write::GzEncoder::new(Vec::new(), ::flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let mut xz = ::liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&tar).unwrap();
    let mut bzip2 = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::new(9));
    bzip2.write_all(&tar).unwrap();
    for (container, packed) in [
        (ArchiveFormat::Tar(None), tar.clone()),
        (ArchiveFormat::Tar(Some(StreamCodec::Gzip)), encoder.finish().unwrap()),
        (ArchiveFormat::Tar(Some(StreamCodec::Bzip2)), bzip2.finish().unwrap()),
        (ArchiveFormat::Tar(Some(StreamCodec::Xz)), xz.finish().unwrap()),
        (ArchiveFormat::Tar(Some(StreamCodec::Zstd)), ::zstd::encode_all(&tar[..], 1).unwrap()),
    ] {
        let len = packed.len() as u64;
        let file = slow_file(packed, Duration::from_millis(3));
        let archive = Archive::new(&unpacker(), Arc::clone(&file) as _, container);
        let mut stops = 0;
        for at in 1..5 {
            let (token, context) = cancellable();
            let ended = thread::scope(|scope| {
                let waiting = scope.spawn(|| archive.wait_for_pass(&context).is_ok());
                wait_until("the pass reads", Duration::from_secs(20), || file.bytes_read() >= len * at / 5);
                token.cancel();
                waiting.join().unwrap()
            });
            stops += u32::from(!ended);
            wait_until("the pass stops", Duration::from_secs(20), || {
                !matches!(archive.progress(), PassProgress::Running)
            });
        }
        assert!(matches!(archive.wait_for_pass(&UNLIMITED), Ok(PassProgress::Done)), "{container:?}");
        assert!(stops >= 2, "{container:?}: {stops} stops");
        assert_eq!(archive.with_table(ArchiveTable::len), 61, "{container:?}");
        assert!(file.bytes_read() < len + len / 2, "{container:?}: {} of {len} bytes were read", file.bytes_read());
        let key = archive.with_table(|table| table.child(NodeKey::ROOT, b"m59")).unwrap();
        let (member, _) = archive.open(key, &UNLIMITED).unwrap();
        let wanted = &noise(60 * MEMBER_BYTES)[59 * MEMBER_BYTES..];
        assert!(member.read_at(0, 2 * MEMBER_BYTES, &UNLIMITED).unwrap() == wanted, "{container:?}");
    }
}

#[test]
fn a_pass_continues_while_a_file_is_open() {
    let file = slow_file(tar(200), Duration::from_millis(10));
    let archive = Archive::new(&unpacker(), Arc::clone(&file) as _, ArchiveFormat::Tar(None));
    let open_file = archive.join_pass();
    wait_until("the pass reads", Duration::from_secs(10), || file.bytes_read() > 1 << 20);
    assert!(matches!(archive.progress(), PassProgress::Running));
    drop(open_file);
    wait_until("the pass ends", Duration::from_secs(1), || matches!(archive.progress(), PassProgress::Idle));
    // The members that the pass has reached stay.
    assert!(archive.find(&UNLIMITED, |table| table.child(NodeKey::ROOT, b"m3")).unwrap().is_some());
    assert!(matches!(archive.progress(), PassProgress::Idle));
}

#[test]
fn a_request_that_may_not_block_starts_no_pass() {
    let file = slow_file(tar(3), Duration::ZERO);
    let archive = Archive::new(&unpacker(), Arc::clone(&file) as _, ArchiveFormat::Tar(None));
    let answer = archive.wait_for_pass(&RequestContext::cached_only());
    assert!(matches!(answer, Err(UnpackError::Stopped { reason: Stopped::WouldBlock, .. })));
    assert_eq!((archive.with_table(ArchiveTable::len), file.bytes_read()), (1, 0));
    archive.wait_for_pass(&UNLIMITED).unwrap();
    assert!(matches!(archive.wait_for_pass(&RequestContext::cached_only()), Ok(PassProgress::Done)));
}

#[test]
fn a_request_ends_at_its_deadline() {
    let file = slow_file(tar(200), Duration::from_millis(50));
    let archive = Archive::new(&unpacker(), Arc::clone(&file) as _, ArchiveFormat::Tar(None));
    let started = Instant::now();
    let error = archive.wait_for_pass(&RequestContext::with_timeout(Duration::from_millis(120))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(error.to_string().starts_with("a.tar: "), "{error}");
}
