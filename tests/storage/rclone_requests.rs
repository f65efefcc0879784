//! The requests that a store sends to rclone, recorded by a program in its place, and its faults.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dupfs_base::{ByteRange, CancelToken, ErrorKind, RequestContext};
use dupfs_read::storage::{ObjectInfo, ObjectStore, RcloneStore, StorageError, StoreOptions, parse_url};

use dupfs_read::storage::Location;

const CONTENT: &[u8] = b"0123456789";
const TIME: &str = "2026-11-27T13:57:54.5Z";
const HEADER_TIME: &str = "Fri, 27 Nov 2026 13:57:54 GMT";

/// The answer of the false rclone to the next request for an object.
#[derive(Clone, Debug)]
enum Answer {
    /// The range, with this time in the header.
    Right(Option<&'static str>),
    /// Only this number of bytes of the range.
    Cut(usize),
    /// An error with this status and message.
    Error(u16, &'static str),
    /// The range of an object of another size.
    Larger,
    /// The range after a while. Counts the requests that are answered at once.
    Late,
    /// Nothing.
    Silence,
    /// These bytes, whatever is requested.
    Raw(&'static str),
    /// The first text, and then the second one every 50 ms, until the other side gives up.
    Endless(&'static str, &'static str),
}

/// A program in the place of rclone, and a server in this process that it announces.
struct FalseRclone {
    dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// The time in answers to `operations/stat`.
    stat: Arc<Mutex<&'static str>>,
    late: Arc<LateAnswers>,
}

/// The late answers that are being sent, and the most of them at once.
#[derive(Default)]
struct LateAnswers {
    running: AtomicUsize,
    most: AtomicUsize,
}

impl FalseRclone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = version ]; then echo 'rclone v1.60.1'; exit; fi\n\
             env >{0}/environment.new; printf '%s\\n' \"$@\" >{0}/arguments; mv {0}/environment.new {0}/environment\n\
             echo \"NOTICE: Serving remote control on http://{address}/\" >&2\nexec sleep 1000\n",
            dir.path().display()
        );
        let program = dir.path().join("rclone");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let (requests, answers, late) = (Arc::default(), Arc::default(), Arc::default());
        let rclone = Self { dir, requests, answers, stat: Arc::new(Mutex::new(TIME)), late };
        let (requests, answers, stat) = (rclone.requests.clone(), rclone.answers.clone(), rclone.stat.clone());
        let late = rclone.late.clone();
        let environment = rclone.dir.path().join("environment");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, answers, stat) = (requests.clone(), answers.clone(), stat.clone());
                let (environment, late) = (environment.clone(), late.clone());
                std::thread::spawn(move || {
                    let _ = serve(&stream.unwrap(), &requests, &answers, &stat, &environment, &late);
                });
            }
        });
        rclone
    }

    fn options(&self) -> StoreOptions {
        let timeout = Duration::from_secs(3);
        StoreOptions { rclone: Some(self.dir.path().join("rclone")), timeout, ..StoreOptions::default() }
    }

    fn store(&self) -> (RcloneStore, ObjectInfo) {
        self.store_of("ftp")
    }

    fn store_of(&self, scheme: &str) -> (RcloneStore, ObjectInfo) {
        let url = format!("{scheme}://joe:geheim@127.0.0.1:1/dir");
        let Ok(Location::Remote(location)) = parse_url(&url) else { panic!() };
        let store = RcloneStore::open(&location, &self.options()).unwrap();
        let object = store.list(&RequestContext::unlimited()).unwrap().remove(0);
        (store, object)
    }

    fn answer(&self, answers: &[Answer]) {
        self.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// The ranges of the requests for objects.
    fn ranges(&self) -> Vec<String> {
        let requests = self.requests();
        let requests = requests.iter().filter(|line| line.starts_with("GET"));
        requests.map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect()
    }
}

fn serve(
    stream: &TcpStream,
    requests: &Mutex<Vec<String>>,
    answers: &Mutex<VecDeque<Answer>>,
    stat: &Mutex<&'static str>,
    environment: &PathBuf,
    late: &LateAnswers,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let mut body = vec![0; header("Content-Length: ").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body)?;
    let range = header("Range: bytes=").unwrap_or_default();
    requests.lock().unwrap().push(format!("{} {range}", head[0]).trim().to_owned());
    let mut out = stream;
    // The password is the one of the environment.
    let environment = fs::read_to_string(environment).unwrap();
    let password = environment.lines().find_map(|line| line.strip_prefix("RCLONE_RC_PASS=")).unwrap();
    assert_eq!(password.len(), 64);
    let login = crate::rclone::base64(format!("dupfs:{password}").as_bytes());
    if header("Authorization: Basic ") != Some(login) {
        return write!(out, "HTTP/1.0 401 Unauthorized\r\n\r\n");
    }
    let item = |time: &str| {
        format!("{{\"Name\": \"o\", \"Size\": {}, \"ModTime\": \"{time}\", \"IsDir\": false}}", CONTENT.len())
    };
    if head[0].starts_with("POST /operations/list ") {
        return write!(out, "HTTP/1.0 200 OK\r\n\r\n{{\"list\": [{}]}}", item(TIME));
    }
    if head[0].starts_with("POST /operations/stat ") {
        let time = *stat.lock().unwrap();
        return write!(out, "HTTP/1.0 200 OK\r\n\r\n{{\"item\": {}}}", item(time));
    }
    let (start, last) = range.split_once('-').unwrap();
    let (start, end) = (start.parse::<usize>().unwrap(), last.parse::<usize>().unwrap() + 1);
    let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Right(Some(HEADER_TIME)));
    let head_of = |total: usize, time: Option<&str>| {
        let time = time.map(|time| format!("Last-Modified: {time}\r\n")).unwrap_or_default();
        let (last, length) = (end - 1, end - start);
        format!(
            "HTTP/1.0 206 Partial Content\r\nContent-Range: bytes {start}-{last}/{total}\r\nContent-Length: {length}\r\n{time}\r\n"
        )
    };
    match answer {
        Answer::Right(time) => {
            write!(out, "{}", head_of(CONTENT.len(), time))?;
            out.write_all(&CONTENT[start..end])
        }
        Answer::Late => {
            let running = late.running.fetch_add(1, Ordering::SeqCst) + 1;
            late.most.fetch_max(running, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            late.running.fetch_sub(1, Ordering::SeqCst);
            write!(out, "{}", head_of(CONTENT.len(), Some(HEADER_TIME)))?;
            out.write_all(&CONTENT[start..end])
        }
        Answer::Cut(bytes) => {
            write!(out, "{}", head_of(CONTENT.len(), Some(HEADER_TIME)))?;
            out.write_all(&CONTENT[start..start + bytes])
        }
        Answer::Larger => write!(out, "{}", head_of(CONTENT.len() + 1, Some(HEADER_TIME))),
        Answer::Error(status, message) => {
            write!(out, "HTTP/1.0 {status} Error\r\n\r\n{{\"error\": \"{message}\", \"status\": {status}}}")
        }
        Answer::Silence => {
            // Until the other side gives up.
            let _ = out.read(&mut [0]);
            Ok(())
        }
        Answer::Raw(text) => out.write_all(text.as_bytes()),
        Answer::Endless(head, text) => {
            out.write_all(head.as_bytes())?;
            loop {
                std::thread::sleep(Duration::from_millis(50));
                out.write_all(text.as_bytes())?;
            }
        }
    }
}

fn read(
    store: &RcloneStore,
    object: &ObjectInfo,
    start: u64,
    context: &RequestContext,
) -> Result<Vec<u8>, StorageError> {
    let mut out = Vec::new();
    let mut stream = store.open(object, ByteRange { start, end: u64::MAX }, context)?;
    stream.read_to_end(&mut out).map_err(|e| StorageError::recover(&object.name, &e))?;
    Ok(out)
}

fn read_all(store: &RcloneStore, object: &ObjectInfo) -> Result<Vec<u8>, StorageError> {
    read(store, object, 0, &RequestContext::unlimited())
}

#[test]
fn only_listings_and_reads_are_sent_with_the_password_of_the_environment() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    assert_eq!(read(&store, &object, 2, &RequestContext::unlimited()).unwrap(), b"23456789");
    rclone.answer(&[Answer::Right(None)]);
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT);
    let listing = store.list_directory("", &RequestContext::unlimited()).unwrap();
    assert_eq!(listing.objects, [object]);
    assert_eq!(
        rclone.requests(),
        [
            "POST /operations/list HTTP/1.0",
            "GET /%5Bdupfs%3A%5D/dir/o HTTP/1.0 2-9",
            "GET /%5Bdupfs%3A%5D/dir/o HTTP/1.0 0-9",
            // No time came with the answer.
            "POST /operations/stat HTTP/1.0",
            "POST /operations/list HTTP/1.0",
        ]
    );
    let arguments = fs::read_to_string(rclone.dir.path().join("arguments")).unwrap();
    assert_eq!(arguments, "rcd\n--rc-serve\n--rc-addr\n127.0.0.1:0\n");
    let environment = fs::read_to_string(rclone.dir.path().join("environment")).unwrap();
    assert!(environment.contains("RCLONE_CONFIG=/dev/null\n") && environment.contains("RCLONE_RC_USER=dupfs\n"));
    assert!(!environment.contains("geheim") && !environment.contains("NO_AUTH"), "{environment}");
    let traffic = store.traffic();
    assert_eq!((traffic.list_requests, traffic.get_requests, traffic.retries, traffic.bytes), (3, 2, 0, 18));
}

#[test]
fn a_body_that_is_cut_short_is_continued_where_it_ended() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    rclone.requests();
    rclone.answer(&[
        Answer::Error(503, "try again"),
        Answer::Cut(4),
        Answer::Error(429, "too many requests"),
        Answer::Cut(0),
    ]);
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT);
    let ranges: Vec<_> = rclone.requests().iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(ranges, ["0-9", "0-9", "4-9", "4-9", "4-9"]);
    assert_eq!(store.traffic().retries, 4);
}

#[test]
fn an_object_that_changed_is_an_error_at_every_answer() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    for answer in [Answer::Larger, Answer::Right(Some("Fri, 27 Nov 2026 13:57:55 GMT"))] {
        rclone.answer(&[Answer::Cut(4), answer]);
        let error = read_all(&store, &object).unwrap_err();
        assert!(error.to_string().contains("was replaced or changed"), "{error}");
    }
    *rclone.stat.lock().unwrap() = "2026-11-27T13:57:54.6Z";
    rclone.answer(&[Answer::Right(None)]);
    assert!(read_all(&store, &object).unwrap_err().to_string().contains("was replaced or changed"));
    rclone.answer(&[Answer::Error(404, "object not found")]);
    assert_eq!(read_all(&store, &object).unwrap_err().kind, ErrorKind::Missing);
    rclone.answer(&[Answer::Error(500, "403 Forbidden")]);
    assert_eq!(read_all(&store, &object).unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT, "the store still works");
}

#[test]
fn a_silent_rclone_ends_with_the_request() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    rclone.answer(&[Answer::Silence]);
    let error = read(&store, &object, 0, &RequestContext::with_timeout(Duration::from_millis(200))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    rclone.answer(&[Answer::Silence]);
    let token = CancelToken::new();
    let context = RequestContext::new(None, token.clone());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&store, &object, 0, &context).unwrap_err());
        while rclone.requests.lock().unwrap().iter().filter(|line| line.starts_with("GET")).count() < 2 {
            std::thread::yield_now();
        }
        token.cancel();
        assert_eq!(reader.join().unwrap().kind, ErrorKind::Cancelled);
    });
    let error = read(&store, &object, 0, &RequestContext::cached_only()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::WouldBlock);
    // Without a deadline of the request, the one of the store counts.
    rclone.answer(&[Answer::Silence]);
    let error = read_all(&store, &object).unwrap_err();
    assert!(error.kind == ErrorKind::Timeout && error.to_string().contains("no answer within 3 s"), "{error}");
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT, "the store still works");
}

/// The object in an answer of HTTP with these headers.
macro_rules! answer {
    ($status:expr, $headers:expr, $body:expr) => {
        Answer::Raw(concat!(
            "HTTP/1.0 ",
            $status,
            "\r\nLast-Modified: Fri, 27 Nov 2026 13:57:54 GMT\r\n",
            $headers,
            "\r\n",
            $body
        ))
    };
}

#[test]
fn an_answer_that_is_not_the_requested_part_is_never_content() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    let wrong = [
        // A body in chunks, and one whose length is that of the chunks.
        answer!("206 OK", "Content-Range: bytes 0-9/10\r\nTransfer-Encoding: chunked\r\n", "5\r\nwrong\r\n0\r\n\r\n"),
        answer!("200 OK", "Transfer-Encoding: chunked\r\nContent-Length: 10\r\n", "5\r\nwrong\r\n"),
        // Two lengths, and two ranges.
        answer!("206 OK", "Content-Range: bytes 0-9/10\r\nContent-Length: 10\r\nContent-Length: 5\r\n", "wrong wrong"),
        answer!("206 OK", "Content-Range: bytes 0-9/10\r\nContent-Range: bytes 5-9/10\r\n", "wrong wrong"),
        // Another range, and lengths that do not fit it.
        answer!("206 OK", "Content-Range: bytes 1-9/10\r\nContent-Length: 10\r\n", "wrong wrong"),
        answer!("206 OK", "Content-Range: bytes 0-9/10\r\nContent-Length: 11\r\n", "wrong wrong"),
        answer!("206 OK", "Content-Length: 10\r\n", "wrong wrong"),
        answer!("200 OK", "", "wrong wrong"),
        // Another status.
        answer!("204 No Content", "Content-Range: bytes 0-9/10\r\nContent-Length: 10\r\n", "wrong wrong"),
        answer!("302 Found", "Content-Range: bytes 0-9/10\r\nLocation: http://127.0.0.1:1/\r\n", "wrong wrong"),
        // Not of HTTP, and with another answer in a header.
        Answer::Raw("wrong wrong"),
        Answer::Raw("ICY 200 OK\r\nContent-Length: 10\r\n\r\nwrong wrong"),
        answer!("200 OK", "X: \r\n HTTP/1.0 200 OK\r\nContent-Length: 10\r\n", "wrong wrong"),
    ];
    for answer in wrong {
        rclone.answer(std::slice::from_ref(&answer));
        assert_eq!(read_all(&store, &object).unwrap(), CONTENT, "{answer:?}");
    }
    // Without another answer it ends in an error, which shows no character of control.
    rclone.answer(&vec![answer!("206 OK", "Content-Range: bytes 0-9/10\u{9b}31m\r\n", "wrong wrong"); 100]);
    let error = read_all(&store, &object).unwrap_err().to_string();
    assert!(
        error.contains("still failing after 3 s of retries: the answer broke off: its Content-Range is invalid"),
        "{error}"
    );
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn a_part_of_an_object_is_never_taken_from_a_whole_one() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    // The range was ignored, once with a length that fits and once with one that is larger.
    rclone.answer(&[Answer::Cut(4), answer!("200 OK", "Content-Length: 10\r\n", "0123456789")]);
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT);
    rclone.answer(&[Answer::Cut(4), answer!("200 OK", "Content-Length: 11\r\n", "0123456789x")]);
    assert!(read_all(&store, &object).unwrap_err().to_string().contains("was replaced or changed"));
    // Bytes after the part are not read.
    rclone.answer(&[answer!("200 OK", "Content-Length: 10\r\n", "0123456789HTTP/1.0 200 OK\r\n\r\nx")]);
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT);
    // An object that has become smaller.
    rclone.answer(&[Answer::Error(416, "range not satisfiable")]);
    assert!(read_all(&store, &object).unwrap_err().to_string().contains("was replaced or changed"));
}

#[test]
fn a_part_that_does_not_arrive_is_no_proof_that_ranges_are_ignored() {
    let rclone = FalseRclone::new();
    let part_of = |(store, object): &(RcloneStore, ObjectInfo), start: u64, end: u64| {
        let mut part = Vec::new();
        let mut stream = store.open(object, ByteRange { start, end }, &RequestContext::unlimited()).unwrap();
        stream.read_to_end(&mut part).unwrap();
        assert_eq!(part, CONTENT[start as usize..end as usize]);
        rclone.ranges()
    };
    let broken = [Answer::Right(Some(HEADER_TIME)), Answer::Cut(0), Answer::Cut(0)];
    let store = rclone.store_of("webdav");
    rclone.answer(&broken);
    assert_eq!(part_of(&store, 2, 4), ["0-9", "5-9", "5-9", "0-9"]);
    // The missing part did not arrive with the whole object either.
    assert_eq!(part_of(&store, 2, 4), ["0-9", "5-9", "2-3"]);
    assert_eq!(part_of(&store, 2, 4), ["2-3"]);
    let store = rclone.store_of("webdav");
    rclone.answer(&broken);
    assert_eq!(part_of(&store, 2, 10), ["0-9", "5-9", "5-9", "0-9"]);
    // It did.
    assert_eq!(part_of(&store, 2, 4), ["0-9"]);
}

#[test]
fn an_endless_answer_ends_in_an_error() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    let body = "HTTP/1.0 206 OK\r\nContent-Range: bytes 0-9/10\r\nLast-Modified: Fri, 27 Nov 2026 13:57:54 GMT\r\n\r\n";
    // Headers, the message of an error, and a body, each of a byte now and then.
    for (head, text, words) in [
        ("HTTP/1.0 200 OK\r\n", "A: b\r\n", "less than 16 KiB in 3 s"),
        ("HTTP/1.0 200 OK\r\nA: ", "x", "less than 16 KiB in 3 s"),
        (body, "", "no data in"),
        ("HTTP/1.0 500 Error\r\n\r\n", "x", "xxx"),
    ] {
        let begun = std::time::Instant::now();
        rclone.answer(&vec![Answer::Endless(head, text); 5]);
        let error = read_all(&store, &object).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        // Of two attempts at most.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        rclone.answers.lock().unwrap().clear();
    }
    // More bytes than a head may have, at once.
    let headers: &'static str = Box::leak("A: b\r\n".repeat(100_000).into_boxed_str());
    let long: &'static str = Box::leak(format!("HTTP/1.0 200 OK\r\n{headers}").into_boxed_str());
    rclone.answer(&[Answer::Raw(long), answer!("200 OK", "Content-Length: 10\r\n", "0123456789")]);
    assert_eq!(read_all(&store, &object).unwrap(), CONTENT);
    rclone.answer(&[Answer::Endless(body, "01")]);
    assert_eq!(read_all(&store, &object).unwrap().len(), CONTENT.len(), "a slow body that ends is read");
}

#[test]
fn no_more_than_eight_objects_are_read_at_once() {
    let rclone = FalseRclone::new();
    let (store, object) = rclone.store();
    rclone.answer(&vec![Answer::Late; 32]);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(read_all(&store, &object).unwrap(), CONTENT));
        }
    });
    let most = rclone.late.most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most}");
}
