//! The head of an answer: its status, and what it states about the body. Does no I/O. Everything that an answer of rclone does
//! not have is refused: what is ambiguous could make other bytes count as those of the object.

/// Upper bound of the bytes of a head.
const MAX_HEAD: usize = 64 * 1024;
/// Upper bound of the headers.
const MAX_HEADERS: usize = 200;

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HttpHead {
    pub(super) status: u16,
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// `Content-Range`.
    pub(super) range: Option<ContentRange>,
    /// `Last-Modified`, as it is written.
    pub(super) modified: Option<String>,
}

/// The part of an object that an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The first and the last byte.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The size of the object.
    pub(super) total: u64,
}

/// Collects the bytes of a head as they arrive.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer {
    bytes: Vec<u8>,
    /// The start of the last line.
    line: usize,
}

impl HeadBuffer {
    /// Takes bytes from the beginning of `arrived`, to the end of the head at most. Returns their number, and the head if it is
    /// complete.
    ///
    /// # Errors
    /// The reason why it is none.
    pub(super) fn take(&mut self, arrived: &[u8]) -> Result<(usize, Option<HttpHead>), &'static str> {
        let mut taken = 0;
        for line in arrived.split_inclusive(|&byte| byte == b'\n') {
            if self.bytes.len().saturating_add(line.len()) > MAX_HEAD {
                return Err("its head is longer than 64 KiB");
            }
            self.bytes.extend_from_slice(line);
            taken += line.len();
            if line.ends_with(b"\n") {
                let whole = self.bytes.get(self.line..).unwrap_or_default();
                if matches!(whole, b"\n" | b"\r\n") {
                    return HttpHead::parse(&self.bytes).map(|head| (taken, Some(head)));
                }
                self.line = self.bytes.len();
            }
        }
        Ok((taken, None))
    }

    /// Returns true if nothing has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl HttpHead {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut lines = bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut head = Self { status: status(lines.next().unwrap_or_default())?, ..Self::default() };
        for (number, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
            if number == MAX_HEADERS {
                return Err("it has more than 200 headers");
            }
            if line.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
                return Err("a header has a control character");
            }
            let at = line.iter().position(|&byte| byte == b':').ok_or("a header has no name")?;
            let (name, value) = line.split_at(at);
            if name.is_empty() || !name.iter().all(|byte| is_of_token(*byte)) {
                return Err("the name of a header is invalid");
            }
            let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
            head.set(&name.to_ascii_lowercase(), value)?;
        }
        Ok(head)
    }

    fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // Values of headers that are not of use may have any characters.
        let text = || std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
        match name {
            b"content-length" => {
                once(&mut self.length, text().and_then(number).ok_or("its Content-Length is invalid")?)
            }
            // That of an error has no part.
            b"content-range" if self.status < 300 => {
                once(&mut self.range, text().and_then(content_range).ok_or("its Content-Range is invalid")?)
            }
            b"last-modified" => once(&mut self.modified, text().ok_or("its Last-Modified is invalid")?.to_owned()),
            // The answer to a request of HTTP/1.0 has none.
            b"transfer-encoding" => Err("its body has a Transfer-Encoding"),
            _ => Ok(()),
        }
    }
}

/// Stores the value of a header that may only be repeated with the same value.
fn once<T: PartialEq>(to: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match to {
        Some(known) if *known != value => Err("a header has two values"),
        _ => {
            *to = Some(value);
            Ok(())
        }
    }
}

/// The status in a line such as `HTTP/1.0 206 Partial Content`.
fn status(line: &[u8]) -> Result<u16, &'static str> {
    let invalid = "it is not one of HTTP";
    let line = std::str::from_utf8(line).map_err(|_| invalid)?;
    let mut words = line.splitn(3, ' ');
    let is_http = matches!(words.next(), Some("HTTP/1.0" | "HTTP/1.1"));
    let digits = words.next().filter(|digits| is_http && digits.len() == 3).ok_or(invalid)?;
    number(digits).and_then(|status| u16::try_from(status).ok()).ok_or(invalid)
}

/// A number in decimal digits only.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Parses `bytes 0-9/10`.
fn content_range(text: &str) -> Option<ContentRange> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(ContentRange { first: number(first)?, last: number(last)?, total: number(total)? })
}

/// Returns true for a character of the names of headers.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The reason why an answer is not the requested part of the listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RangeMismatch {
    /// The object has another size.
    Size,
    /// The answer has another part, for this reason.
    Part(&'static str),
}

impl HttpHead {
    /// Checks that the body is the part from `start` to `end`, which is not empty, of an object of `size` bytes.
    ///
    /// # Errors
    /// [`RangeMismatch`].
    pub(super) fn check_range(&self, start: u64, end: u64, size: u64) -> Result<(), RangeMismatch> {
        let wanted = ContentRange { first: start, last: end.saturating_sub(1), total: size };
        match self.range {
            Some(range) if range.total != size => return Err(RangeMismatch::Size),
            Some(range) if range != wanted => return Err(RangeMismatch::Part("it has another part of the object")),
            Some(_) => {}
            None if self.status == 206 => return Err(RangeMismatch::Part("it does not name its part of the object")),
            None if self.length.is_some_and(|length| length != size) => return Err(RangeMismatch::Size),
            // All of the object was requested.
            None if start == 0 && end == size && self.length.is_some() => {}
            None => return Err(RangeMismatch::Part("the requested range was ignored")),
        }
        match self.length {
            Some(length) if length != end.saturating_sub(start) => {
                Err(RangeMismatch::Part("its length is not that of its part"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<HttpHead, &'static str> {
        let (taken, head) = HeadBuffer::default().take(text.as_bytes())?;
        assert_eq!(
            head.is_some(),
            text.get(..taken).is_some_and(|head| head.ends_with("\n\r\n") || head.ends_with("\n\n"))
        );
        head.ok_or("incomplete")
    }

    fn with(headers: &str) -> Result<HttpHead, &'static str> {
        parsed(&format!("HTTP/1.0 206 Partial Content\r\n{headers}\r\nbody"))
    }

    #[test]
    fn a_head_has_what_it_states_about_the_body() {
        let head = with(
            "Content-Length: 5\r\ncontent-RANGE: bytes 2-6/10\r\nLast-Modified: Fri, 27 Nov 2026 13:57:54 GMT\r\n\
                         Accept-Ranges:\r\nX: ü\r\nContent-Length:5\t\r\n",
        );
        let wanted = HttpHead {
            status: 206,
            length: Some(5),
            range: Some(ContentRange { first: 2, last: 6, total: 10 }),
            modified: Some("Fri, 27 Nov 2026 13:57:54 GMT".to_owned()),
        };
        assert_eq!(head.unwrap(), wanted);
        assert_eq!(parsed("HTTP/1.1 404 \n\n").unwrap().status, 404);
        assert_eq!(parsed("HTTP/1.1 500\n\n").unwrap().status, 500);
    }

    #[test]
    fn an_ambiguous_head_is_refused() {
        for wrong in [
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length : 5\r\n",
            "Content-Range: bytes 0-4\r\n",
            "Content-Range: bytes */10\r\n",
            "Content-Range: bytes 0-4/*\r\n",
            "Content-Range: bytes 0-4/10\r\nContent-Range: bytes 0-4/11\r\n",
            "Last-Modified: a\r\nLast-Modified: b\r\n",
            "Last-Modified: \u{9b}31m\r\n",
            "A: b\r\n folded: c\r\n",
            "no colon\r\n",
            ": no name\r\n",
            "A: b\u{1b}[31m\r\n",
            "A: b\rContent-Length: 5\r\n",
            "A\0: b\r\n",
        ] {
            assert!(with(wrong).is_err_and(|reason| reason != "incomplete"), "{wrong:?}");
        }
        for wrong in [
            "",
            "\n",
            "HTTP/2 200 OK",
            "HTTP/1.1 +20 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "ICY 200 OK",
            "HTTP/1.1  200",
        ] {
            assert!(parsed(&format!("{wrong}\r\n\r\n")).is_err_and(|reason| reason != "incomplete"), "{wrong:?}");
        }
        let unsatisfiable = parsed("HTTP/1.0 416 Error\r\nContent-Range: bytes */10\r\n\r\n").unwrap();
        assert_eq!((unsatisfiable.status, unsatisfiable.range), (416, None));
    }

    #[test]
    fn a_head_is_bounded() {
        assert!(with(&"A: b\r\n".repeat(MAX_HEADERS)).is_ok());
        assert!(with(&"A: b\r\n".repeat(MAX_HEADERS + 1)).is_err_and(|reason| reason.contains("headers")));
        let mut buffer = HeadBuffer::default();
        let mut taken = 0;
        // Without an end of the line, and without an end of the head.
        for part in [&b"xxxxxxxxxx"[..], b"A: bbbbbb\n"].iter().cycle() {
            match buffer.take(part) {
                Ok((some, None)) => taken += some,
                other => {
                    assert_eq!(other, Err("its head is longer than 64 KiB"));
                    break;
                }
            }
        }
        assert_eq!(taken, MAX_HEAD / 10 * 10);
    }

    #[test]
    fn only_the_requested_part_of_the_listed_object_is_accepted() {
        let part = |status: u16, range: Option<(u64, u64, u64)>, length: Option<u64>| {
            let range = range.map(|(first, last, total)| ContentRange { first, last, total });
            HttpHead { status, length, range, modified: None }
        };
        use RangeMismatch::{Part, Size};
        let reason = |mismatch| match mismatch {
            Ok(()) => "right",
            Err(Size) => "size",
            Err(Part(_)) => "part",
        };
        for (head, whole, middle) in [
            (part(206, Some((0, 9, 10)), Some(10)), "right", "part"),
            (part(206, Some((0, 9, 10)), None), "right", "part"),
            (part(206, Some((2, 5, 10)), Some(4)), "part", "right"),
            (part(206, Some((2, 5, 11)), Some(4)), "size", "size"),
            (part(206, Some((2, 5, 10)), Some(5)), "part", "part"),
            (part(206, Some((2, 6, 10)), Some(4)), "part", "part"),
            (part(206, None, Some(4)), "part", "part"),
            (part(206, None, Some(10)), "part", "part"),
            (part(200, None, Some(10)), "right", "part"),
            (part(200, None, Some(11)), "size", "size"),
            (part(200, None, None), "part", "part"),
        ] {
            assert_eq!(
                (reason(head.check_range(0, 10, 10)), reason(head.check_range(2, 6, 10))),
                (whole, middle),
                "{head:?}"
            );
        }
    }
}
