//! Requests to the child process over loopback: HTTP/1.0, one connection each. A request ends when its context does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::encoding::base64;
use dupfs_base::{ByteRange, RequestContext, Secret, Stopped, Subscription, Wake};

/// The user of the child process.
pub(super) const USER: &str = "dupfs";
/// Upper bound of the bytes of an answer before its body.
const MAX_HEAD: u64 = 64 * 1024;
/// Upper bound of the time to connect over loopback.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of a running child process, and its password.
#[derive(Clone, Debug)]
pub(super) struct RcloneEndpoint {
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
}

/// An answer, whose body is not read yet.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: HttpBody,
}

impl HttpAnswer {
    /// The value of the header `name`, which is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// `Content-Length`.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }
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
}

/// Reads within the limits of a request.
#[derive(Debug)]
struct LimitedSocket {
    socket: Arc<CancellableSocket>,
    /// Upper bound of the time without a byte.
    stall: Duration,
    context: RequestContext,
    failure: Option<HttpFailure>,
    _subscription: Subscription,
}

impl Read for LimitedSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.context.time_left().unwrap_or(self.stall).min(self.stall);
        // Zero means no timeout.
        self.socket.0.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let result = loop {
            match (&self.socket.0).read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if let Err(stopped) = self.context.check() {
            self.failure = Some(HttpFailure::Stopped(stopped));
            return Err(io::Error::other(stopped));
        }
        match &result {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.failure = Some(HttpFailure::Silent(self.stall));
            }
            _ => {}
        }
        result
    }
}

impl Read for HttpBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
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

/// Sends `request` and reads the head of its answer. Nothing may arrive for `stall` at most.
///
/// # Errors
/// [`HttpFailure`].
pub(super) fn send(
    endpoint: &RcloneEndpoint,
    request: &RcloneRequest<'_>,
    stall: Duration,
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
    let limited = LimitedSocket { socket, stall, context, failure, _subscription: subscription };
    read_head(BufReader::with_capacity(256 * 1024, limited))
}

fn read_head(mut reader: BufReader<LimitedSocket>) -> Result<HttpAnswer, HttpFailure> {
    let begun = Instant::now();
    let mut lines = Vec::new();
    let mut head = (&mut reader).take(MAX_HEAD);
    loop {
        let mut line = Vec::new();
        let read = head.read_until(b'\n', &mut line);
        let failed = match read {
            Ok(_) if line.ends_with(b"\n") => None,
            Ok(0) if lines.is_empty() => Some(io::Error::from(io::ErrorKind::ConnectionReset)),
            Ok(_) => Some(io::Error::other("the head of the answer was cut short")),
            Err(e) => Some(e),
        };
        if let Some(error) = failed {
            return Err(match reader.get_mut().failure.take() {
                Some(failure) => failure,
                None if error.kind() == io::ErrorKind::ConnectionReset => HttpFailure::Gone,
                None => HttpFailure::Broken(dupfs_base::io_reason(&error)),
            });
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if text.is_empty() {
            break;
        }
        lines.push(text);
    }
    log::trace!("rclone answered within {} ms", begun.elapsed().as_millis());
    let broken = || HttpFailure::Broken("the answer is not one of HTTP".to_owned());
    let (first, rest) = lines.split_first().ok_or_else(broken)?;
    let mut words = first.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse().ok()).filter(|_| is_http).ok_or_else(broken)?;
    let headers = rest.iter().filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok(HttpAnswer { status, headers, body: HttpBody { reader } })
}
