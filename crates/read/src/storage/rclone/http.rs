//! Requests to the child process over loopback: HTTP/1.0, one connection each. A request ends when its context does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::encoding::base64;
use super::http_head::{HeadBuffer, HttpHead};
use dupfs_base::{ByteRange, RequestContext, Secret, Stopped, Subscription, Wake, clamp_len};

/// The user of the child process.
pub(super) const USER: &str = "dupfs";
/// Upper bound of the time to connect over loopback.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that have to arrive within the timeout, unless all have arrived.
pub(super) const PROGRESS_BYTES: u64 = 16 * 1024;

/// The address of a running child process, and its password.
#[derive(Clone, Debug)]
pub(super) struct RcloneEndpoint {
    /// The number of the process.
    pub(super) process: u32,
    pub(super) address: SocketAddr,
    pub(super) password: Secret,
}

/// The reason why a request has no answer, or no complete one.
#[derive(Debug)]
pub(super) enum HttpFailure {
    /// The request ended.
    Stopped(Stopped),
    /// The child process does not answer any more.
    Gone,
    /// The answer is invalid or was cut short.
    Broken(String),
    /// Nothing arrived for this time.
    Silent(Duration),
    /// Less than [`PROGRESS_BYTES`] arrived in this time.
    Slow(Duration),
}

/// An answer, whose body is not read yet.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) head: HttpHead,
    pub(super) body: HttpBody,
}

/// A connection whose reads end when the request is cancelled.
#[derive(Debug)]
struct CancellableSocket(TcpStream);

impl Wake for CancellableSocket {
    fn wake(&self) {
        // A thread that reads gets the end of the stream. A socket that is closed already needs nothing.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct HttpBody {
    reader: BufReader<LimitedSocket>,
    /// The bytes up to the length that the head states; without one the body ends with the connection.
    left: Option<u64>,
}

/// Reads within the limits of a request.
#[derive(Debug)]
struct LimitedSocket {
    socket: Arc<CancellableSocket>,
    /// Upper bound of the time without a byte.
    stall: Duration,
    /// Upper bound of the time in which less than [`PROGRESS_BYTES`] arrive.
    timeout: Duration,
    /// The time that reads took since the last progress, and the bytes since then. A reader that pauses loses none of it.
    waited: Duration,
    received: u64,
    context: RequestContext,
    failure: Option<HttpFailure>,
    _subscription: Subscription,
}

impl Read for LimitedSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.context.time_left().unwrap_or(self.stall).min(self.stall);
        // Zero means no timeout.
        self.socket.0.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let begun = Instant::now();
        let result = loop {
            match (&self.socket.0).read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.waited = self.waited.saturating_add(begun.elapsed());
        if let Err(stopped) = self.context.check() {
            self.failure = Some(HttpFailure::Stopped(stopped));
            return Err(io::Error::other(stopped));
        }
        match &result {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.failure = Some(HttpFailure::Silent(self.stall));
            }
            Ok(got) => {
                self.received = self.received.saturating_add(*got as u64);
                if self.received >= PROGRESS_BYTES {
                    (self.received, self.waited) = (0, Duration::ZERO);
                } else if *got > 0 && self.waited >= self.timeout {
                    // Or an answer of a byte now and then would never end.
                    self.failure = Some(HttpFailure::Slow(self.timeout));
                    return Err(io::Error::from(io::ErrorKind::TimedOut));
                }
            }
            Err(_) => {}
        }
        result
    }
}

impl Read for HttpBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(left) = &mut self.left else { return self.reader.read(buf) };
        let max = clamp_len(*left, buf.len());
        let got = self.reader.read(buf.get_mut(..max).unwrap_or_default())?;
        *left = left.saturating_sub(got as u64);
        Ok(got)
    }
}

impl HttpBody {
    /// Changes the upper bound of the time without a byte.
    pub(super) fn set_stall(&mut self, stall: Duration) {
        self.reader.get_mut().stall = stall;
    }

    /// The reason of the failed read `error`.
    pub(super) fn failure(&mut self, error: &io::Error) -> HttpFailure {
        self.reader.get_mut().failure.take().unwrap_or_else(|| HttpFailure::Broken(dupfs_base::io_reason(error)))
    }

    /// Reads the rest of the body, at most `max` bytes of it, as text. For messages of errors.
    pub(super) fn text(&mut self, max: u64) -> String {
        let mut bytes = Vec::new();
        // A part of a message is better than none.
        let _ = self.take(max).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Lists a directory, examines an object, or reads a part of one. Nothing else is ever sent.
#[derive(Debug)]
pub(super) enum RcloneRequest<'a> {
    /// `operations/list` with these parameters in JSON.
    List(&'a str),
    /// `operations/stat` with these parameters in JSON.
    Stat(&'a str),
    /// The bytes of an object, by its encoded path.
    Get(&'a str, ByteRange),
}

impl RcloneRequest<'_> {
    fn text(&self, password: &Secret) -> Zeroizing<Vec<u8>> {
        let login = Zeroizing::new([USER.as_bytes(), b":", password.expose()].concat());
        let login = Zeroizing::new(base64(&login));
        let common = format!("Host: localhost\r\nAuthorization: Basic {}\r\n", *login);
        let post = |command: &str, json: &str| {
            format!(
                "POST /{command} HTTP/1.0\r\n{common}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
                json.len()
            )
        };
        let text = match self {
            Self::List(json) => post("operations/list", json),
            Self::Stat(json) => post("operations/stat", json),
            Self::Get(path, range) => {
                let last = range.end.saturating_sub(1);
                format!("GET /{path} HTTP/1.0\r\n{common}Range: bytes={}-{last}\r\n\r\n", range.start)
            }
        };
        Zeroizing::new(text.into_bytes())
    }
}

/// Sends `request` and reads the head of its answer. Nothing may arrive for `timeout` at most.
///
/// # Errors
/// [`HttpFailure`].
pub(super) fn send(
    endpoint: &RcloneEndpoint,
    request: &RcloneRequest<'_>,
    timeout: Duration,
    context: &RequestContext,
) -> Result<HttpAnswer, HttpFailure> {
    context.check_may_block().map_err(HttpFailure::Stopped)?;
    let socket = TcpStream::connect_timeout(&endpoint.address, CONNECT_TIMEOUT).map_err(|_| HttpFailure::Gone)?;
    let socket = Arc::new(CancellableSocket(socket));
    let waiter: Weak<CancellableSocket> = Arc::downgrade(&socket);
    let subscription = context.cancel_token().subscribe(waiter);
    context.check().map_err(HttpFailure::Stopped)?;
    let sent = socket.0.set_write_timeout(Some(CONNECT_TIMEOUT));
    let sent = sent.and_then(|()| (&socket.0).write_all(&request.text(&endpoint.password)));
    sent.map_err(|_| context.check().map_or_else(HttpFailure::Stopped, |()| HttpFailure::Gone))?;
    let (context, failure) = (context.clone(), None);
    let limited = LimitedSocket {
        socket,
        stall: timeout,
        timeout,
        waited: Duration::ZERO,
        received: 0,
        context,
        failure,
        _subscription: subscription,
    };
    read_head(BufReader::with_capacity(256 * 1024, limited))
}

fn read_head(mut reader: BufReader<LimitedSocket>) -> Result<HttpAnswer, HttpFailure> {
    let begun = Instant::now();
    let mut buffer = HeadBuffer::default();
    let head = loop {
        let arrived = match reader.fill_buf() {
            Ok([]) if buffer.is_empty() => return Err(HttpFailure::Gone),
            Ok([]) => return Err(HttpFailure::Broken("it ends within its head".to_owned())),
            Ok(arrived) => arrived,
            Err(error) => {
                return Err(match reader.get_mut().failure.take() {
                    Some(failure) => failure,
                    None if error.kind() == io::ErrorKind::ConnectionReset => HttpFailure::Gone,
                    None => HttpFailure::Broken(dupfs_base::io_reason(&error)),
                });
            }
        };
        let (taken, head) = buffer.take(arrived).map_err(|reason| HttpFailure::Broken(reason.to_owned()))?;
        reader.consume(taken);
        if let Some(head) = head {
            break head;
        }
    };
    log::trace!("rclone answered within {} ms", begun.elapsed().as_millis());
    // The body has the timeout for itself.
    let socket = reader.get_mut();
    (socket.received, socket.waited) = (0, Duration::ZERO);
    let left = head.length;
    Ok(HttpAnswer { head, body: HttpBody { reader, left } })
}
