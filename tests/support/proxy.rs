//! A fault proxy between a store and its server: HTTP/1.1, a thread for each connection, faults by plan.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A fault of a request or of its answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is reset after so many bytes of the body; at 0 before anything is answered.
    Reset(u64),
    /// The connection is closed in order after so many bytes of the body.
    Close(u64),
    /// The connection stalls after so many bytes of the body; at 0 before the head.
    Stall(u64),
    /// The body is this much shorter, with a length header to match.
    CutBody(u64),
    /// An error of this status and code instead of the answer.
    Status(u16, &'static str),
    /// As `Status`, with this header line and this XML inside the error.
    StatusWith(u16, &'static str, &'static str, &'static str),
    /// The range header of the answer begins so many bytes later.
    ShiftRange(u64),
    /// The answer has no range header, as from a service that ignores ranges.
    IgnoreRange,
    /// Replaces the first text by the second in the head of the answer.
    Head(&'static str, &'static str),
    /// Replaces the first text by the second in the body of the answer.
    Body(&'static str, &'static str),
    /// In a listing, the objects whose key contains this are in that storage class.
    Class(&'static str, &'static str),
}

/// A request as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Counted from 0 over all requests.
    pub number: u64,
    /// Path and query.
    pub target: String,
    /// First and last byte of the requested range.
    pub range: Option<(u64, u64)>,
    /// The id of the access key that signed it.
    pub key: Option<String>,
    /// The party that pays for it, if the request states that.
    pub payer: Option<String>,
}

/// A piece of a body on its way over the link.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Time at which it was sent completely.
    pub at: Instant,
    /// Its length.
    pub bytes: u64,
}

type Plan = Box<dyn Fn(&Request) -> Option<Fault> + Send>;

/// The proxy; it ends when it is dropped.
pub struct Proxy {
    /// `127.0.0.1:port`.
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    plan: Mutex<Plan>,
    log: Mutex<Vec<Request>>,
    pieces: Mutex<Vec<Piece>>,
    faults: AtomicU64,
    open: AtomicU64,
    stalled: AtomicU64,
    ended: AtomicBool,
    /// Number of times that stalled connections were ended.
    end_stalled: AtomicU64,
    latency: Mutex<Duration>,
    link: Mutex<Link>,
}

/// A link of so many bytes a second, shared by all connections.
struct Link {
    bytes_per_second: Option<f64>,
    free_at: Instant,
}

impl Proxy {
    /// In front of `upstream` (`host:port`), without faults.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            plan: Mutex::new(Box::new(|_| None)),
            log: Mutex::default(),
            pieces: Mutex::default(),
            faults: AtomicU64::new(0),
            open: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            end_stalled: AtomicU64::new(0),
            latency: Mutex::new(Duration::ZERO),
            link: Mutex::new(Link { bytes_per_second: None, free_at: Instant::now() }),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    let _ = shared.serve(stream);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared }
    }

    /// Sets the plan of faults for later requests.
    pub fn set_plan(&self, plan: impl Fn(&Request) -> Option<Fault> + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
    }

    /// Ends all connections that are stalled.
    pub fn end_stalled(&self) {
        self.shared.end_stalled.fetch_add(1, Ordering::SeqCst);
    }

    /// Delays each later answer by `latency`, and limits all of them together to so many bytes a second.
    pub fn set_link(&self, latency: Duration, bytes_per_second: Option<f64>) {
        *self.shared.latency.lock().unwrap() = latency;
        self.shared.link.lock().unwrap().bytes_per_second = bytes_per_second;
    }

    /// Returns the requests so far.
    pub fn log(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Returns the pieces of bodies sent over a link of limited speed, in the order of time.
    pub fn pieces(&self) -> Vec<Piece> {
        self.shared.pieces.lock().unwrap().clone()
    }

    /// Forgets the requests and pieces so far.
    pub fn clear_log(&self) {
        self.shared.pieces.lock().unwrap().clear();
        self.shared.log.lock().unwrap().clear();
    }

    /// Number of faults so far.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// Number of connections that are open and silent.
    pub fn stalled(&self) -> u64 {
        self.shared.stalled.load(Ordering::SeqCst)
    }

    /// Number of connections that are open.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

/// A plan that injects faults of every kind into `percent` of the fetches. It depends on the seed only.
pub fn seeded(seed: u64, percent: u64) -> impl Fn(&Request) -> Option<Fault> + Send {
    move |request| {
        let random = mix(seed ^ mix(request.number));
        if random % 100 >= percent {
            return None;
        }
        let at = mix(random) % 3_000_000;
        Some(match (random >> 32) % 10 {
            0 => Fault::Reset(at),
            1 => Fault::Reset(0),
            2 => Fault::Close(at),
            3 => Fault::Stall(at),
            4 => Fault::CutBody(1 + at % 1000),
            5 => Fault::Status(503, "SlowDown"),
            6 => Fault::Status(500, "InternalError"),
            7 => Fault::ShiftRange(1 + at % 1000),
            8 => Fault::Status(502, ""),
            _ => Fault::IgnoreRange,
        })
    }
}

pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(Duration::from_secs(120)))?;
        while let Some(head) = read_head(&mut client)? {
            let request = self.note(&head);
            // Before the plan is asked: a test that changes it and then ends what is stalled also ends this one.
            let ends = self.end_stalled.load(Ordering::SeqCst);
            let fault = (self.plan.lock().unwrap())(&request);
            self.faults.fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
            let latency = *self.latency.lock().unwrap();
            std::thread::sleep(latency);
            match fault {
                Some(Fault::Reset(0)) => return reset(client),
                Some(Fault::Close(0)) => return Ok(()),
                Some(Fault::Stall(0)) => return self.hold(client, ends),
                Some(Fault::Status(status, code)) => client.write_all(error(status, code, "X-A: b", "").as_bytes())?,
                Some(Fault::StatusWith(status, code, header, xml)) => {
                    client.write_all(error(status, code, header, xml).as_bytes())?;
                }
                fault => {
                    if !self.forward(&mut client, &head, &request, fault.as_ref())? {
                        return if matches!(fault, Some(Fault::Reset(_))) {
                            reset(client)
                        } else {
                            self.end(client, fault, ends)
                        };
                    }
                }
            }
        }
        Ok(())
    }

    fn end(&self, client: TcpStream, fault: Option<Fault>, ends: u64) -> io::Result<()> {
        if matches!(fault, Some(Fault::Stall(_))) { self.hold(client, ends) } else { Ok(()) }
    }

    /// Keeps the connection open and silent, until the other end closes it or the proxy ends. `ends` is the number of
    /// times that stalled connections had been ended before its request was planned.
    fn hold(&self, client: TcpStream, ends: u64) -> io::Result<()> {
        self.stalled.fetch_add(1, Ordering::SeqCst);
        let held = self.hold_open(client, ends);
        self.stalled.fetch_sub(1, Ordering::SeqCst);
        held
    }

    fn hold_open(&self, mut client: TcpStream, ends: u64) -> io::Result<()> {
        client.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut byte = [0];
        while !self.ended.load(Ordering::SeqCst) && self.end_stalled.load(Ordering::SeqCst) == ends {
            match client.read(&mut byte) {
                Ok(0) => return Ok(()),
                Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, head: &str) -> Request {
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let range = header(head, "range").and_then(|value| {
            let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        let key = header(head, "authorization").and_then(|value| {
            let (_, credential) = value.split_once("Credential=")?;
            credential.split('/').next().map(str::to_owned)
        });
        let mut log = self.log.lock().unwrap();
        let payer = header(head, "x-amz-request-payer").map(str::to_owned);
        let request = Request { number: log.len() as u64, target, range, key, payer };
        log.push(request.clone());
        request
    }

    /// Forwards the request, and returns the answer to the client. Returns false if the connection is to end.
    fn forward(
        &self,
        client: &mut TcpStream,
        head: &str,
        request: &Request,
        fault: Option<&Fault>,
    ) -> io::Result<bool> {
        let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.is_empty() && !line.to_lowercase().starts_with("connection:"));
        let mut server = TcpStream::connect(&self.upstream)?;
        server.write_all(format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n")).as_bytes())?;
        let Some(answer) = read_head(&mut server)? else { return Ok(false) };
        let mut answer: String = answer
            .lines()
            .filter(|l| !l.eq_ignore_ascii_case("connection: close"))
            .fold(String::new(), |all, line| if line.is_empty() { all } else { all + line + "\r\n" });
        let length: Option<u64> = header(&answer, "content-length").and_then(|l| l.parse().ok());
        match fault {
            Some(Fault::CutBody(by)) if length.is_some_and(|length| length > *by) => {
                let (old, new) = (length.unwrap(), length.unwrap() - by);
                answer = answer.replace(&format!("Content-Length: {old}"), &format!("Content-Length: {new}"));
                client.write_all(format!("{answer}\r\n").as_bytes())?;
                self.pump(&mut server, client, new)?;
                return Ok(true);
            }
            Some(Fault::Head(from, to)) => answer = answer.replace(from, to),
            Some(Fault::IgnoreRange) => answer = replace_line(&answer, "content-range", None),
            Some(Fault::ShiftRange(by)) => {
                if let (Some((first, last)), Some(old)) = (request.range, header(&answer, "content-range")) {
                    let total = old.rsplit('/').next().unwrap_or_default();
                    let new = format!("Content-Range: bytes {}-{}/{total}", first + by, last + by);
                    answer = replace_line(&answer, "content-range", Some(&new));
                }
            }
            Some(Fault::Body(..) | Fault::Class(..)) => {
                let mut body = Vec::new();
                server.read_to_end(&mut body)?;
                let body = String::from_utf8(dechunk(&answer, body)).unwrap();
                let body = match fault {
                    Some(Fault::Body(from, to)) => body.replace(from, to),
                    Some(Fault::Class(key, kind)) => with_class(&body, key, kind),
                    _ => body,
                };
                let kept = answer.lines().filter(|l| {
                    !l.to_lowercase().starts_with("content-length")
                        && !l.to_lowercase().starts_with("transfer-encoding")
                });
                let head: String = kept.map(|l| format!("{l}\r\n")).collect();
                client.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
                return Ok(true);
            }
            _ => {}
        }
        client.write_all(format!("{answer}\r\n").as_bytes())?;
        let max = match fault {
            Some(Fault::Reset(at) | Fault::Close(at) | Fault::Stall(at)) => *at,
            _ => u64::MAX,
        };
        let sent = self.pump(&mut server, client, max)?;
        // A fault after the end of the body has no effect.
        Ok(sent < max)
    }

    /// Copies at most `max` bytes at the speed of the link.
    fn pump(&self, from: &mut TcpStream, to: &mut TcpStream, max: u64) -> io::Result<u64> {
        let mut buf = vec![0; 64 * 1024];
        let mut sent = 0;
        while sent < max {
            let piece = self.piece_len().min(buf.len());
            let want = usize::try_from(max - sent).unwrap_or(usize::MAX).min(piece);
            let got = from.read(&mut buf[..want])?;
            if got == 0 {
                break;
            }
            self.wait_for_link(got);
            to.write_all(&buf[..got])?;
            sent += got as u64;
        }
        Ok(sent)
    }

    /// Bytes that the link sends in 50 ms, at most 64 KiB: on a slow one the answers of several connections come in turn.
    fn piece_len(&self) -> usize {
        let speed = self.link.lock().unwrap().bytes_per_second;
        let is_sent = |kib: &u16| speed.is_none_or(|speed| f64::from(*kib) * 1024.0 <= speed / 20.0);
        usize::from((1..=64).rev().find(is_sent).unwrap_or(1)) * 1024
    }

    fn wait_for_link(&self, bytes: usize) {
        let until = {
            let mut link = self.link.lock().unwrap();
            let Some(speed) = link.bytes_per_second else { return };
            link.free_at = link.free_at.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / speed);
            self.pieces.lock().unwrap().push(Piece { at: link.free_at, bytes: bytes as u64 });
            link.free_at
        };
        // Sleeping is coarse, so pieces that are due soon are sent at once.
        let wait = until.saturating_duration_since(Instant::now());
        if wait > Duration::from_millis(2) {
            std::thread::sleep(wait);
        }
    }
}

/// Closes so that the other end sees a reset, not an end.
fn reset(client: TcpStream) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    client.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(client)?.set_zero_linger()
}

fn error(status: u16, code: &str, header: &str, xml: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>planned</Message>{xml}</Error>");
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Planned\r\nContent-Type: application/xml\r\n{header}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let found = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    found.map(|(n, v)| (n, v.trim())).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// A request's or an answer's head up to its empty line; `None` at the end of the connection.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// The head with the line of the header `name` replaced, or taken out.
fn replace_line(head: &str, name: &str, new: Option<&str>) -> String {
    let is_it = |line: &str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    let lines = head.lines().filter_map(|line| if is_it(line) { new } else { Some(line) });
    lines.map(|line| format!("{line}\r\n")).collect()
}

/// A listing in which the objects whose key contains `key` are in the storage class `kind`.
fn with_class(listing: &str, key: &str, kind: &str) -> String {
    let objects = listing.split_inclusive("</Contents>").map(|object| {
        if object.contains(key) { object.replace(">STANDARD<", &format!(">{kind}<")) } else { object.to_owned() }
    });
    objects.collect()
}

fn dechunk(head: &str, body: Vec<u8>) -> Vec<u8> {
    if header(head, "transfer-encoding") != Some("chunked") {
        return body;
    }
    let (mut out, mut rest) = (Vec::new(), &body[..]);
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return out;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}
