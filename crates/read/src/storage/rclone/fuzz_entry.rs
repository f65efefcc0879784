//! The bodies of the fuzz target `rclone_answers`: each function takes any bytes and asserts invariants that are true for all
//! of them. The bytes are those that a process in the place of rclone sends, or a service behind it.

use std::io::{self, Read};

use super::encoding::{parse_http_date, parse_rfc3339};
use super::failure::RcloneFailure;
use super::http_head::{HeadBuffer, HttpHead};
use super::listing::{parse_list, parse_stat, seconds_of};
use super::remote::RcloneRemote;

/// The size of the object in [`fuzz_head`], and the ranges that are requested of it.
const SIZE: u64 = 100;
const RANGES: [(u64, u64); 4] = [(0, 100), (0, 1), (40, 60), (99, 100)];

/// Heads of answers. The pieces in which the bytes arrive have no effect, and what an accepted answer states about a requested
/// part is true.
pub fn fuzz_head(data: &[u8]) {
    let whole = HeadBuffer::default().take(data);
    let mut buffer = HeadBuffer::default();
    let mut taken = 0;
    let mut head = Ok(None);
    for byte in data {
        head = buffer.take(std::slice::from_ref(byte)).map(|(some, head)| {
            taken += some;
            head
        });
        if !matches!(head, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, head.map(|head| (taken, head)), "the pieces have an effect");
    let Ok((taken, Some(head))) = whole else { return };
    let text = data.get(..taken).unwrap_or_default().to_ascii_lowercase();
    let mut lines = text.split(|&byte| byte == b'\n');
    assert!(!lines.any(|line| line.starts_with(b"transfer-encoding:")), "an encoded body is accepted");
    assert!((0..1000).contains(&head.status));
    for (start, end) in RANGES {
        if head.check_range(start, end, SIZE).is_ok() {
            assert!(head.length.is_none_or(|length| length == end - start), "a body of another length is accepted");
            let is_whole = (start, end) == (0, SIZE);
            let range = head.range.map(|range| (range.first, range.last + 1, range.total));
            assert!(range == Some((start, end, SIZE)) || (range.is_none() && is_whole), "another range is accepted");
        }
    }
    // Its strict form is read as the same.
    assert_eq!(HeadBuffer::default().take(&encoded(&head)), Ok((encoded(&head).len(), Some(head))));
}

fn encoded(head: &HttpHead) -> Vec<u8> {
    let mut out = format!("HTTP/1.0 {:03} \r\n", head.status);
    if let Some(length) = head.length {
        out += &format!("Content-Length: {length}\r\n");
    }
    if let Some(range) = head.range {
        out += &format!("Content-Range: bytes {}-{}/{}\r\n", range.first, range.last, range.total);
    }
    if let Some(modified) = &head.modified {
        out += &format!("Last-Modified: {modified}\r\n");
    }
    (out + "\r\n").into_bytes()
}

/// Listings and states of objects. The pieces in which the bytes arrive have no effect, and a version has the size and a time.
pub fn fuzz_listing(data: &[u8]) {
    let (whole, pieces) = (parse_list(data, "p/"), parse_list(BytewiseReader(data), "p/"));
    assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok(), "the pieces have an effect");
    let stat = parse_stat(data).ok().flatten();
    for object in whole.iter().flat_map(|listing| &listing.objects).chain(&stat) {
        let size = object.version.split('-').next().and_then(|size| u64::from_str_radix(size, 16).ok());
        assert_eq!(size, Some(object.size), "{}", object.version);
        assert_eq!(seconds_of(&object.version).is_some(), object.version.contains('-'), "{}", object.version);
    }
    assert!(whole.iter().flat_map(|listing| &listing.objects).all(|object| object.name.starts_with("p/")));
}

/// A reader that returns one byte at a time.
struct BytewiseReader<'a>(&'a [u8]);

impl Read for BytewiseReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = buf.get_mut(..1).unwrap_or_default();
        self.0.read(part)
    }
}

/// Messages and times. A message is shown as one short line without control characters; a time is one of the years 1 to 9999.
pub fn fuzz_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let remote = RcloneRemote::configured("ftp", "ftp://h", "");
    for status in [404, 416, 500] {
        let shown = RcloneFailure::of_answer("o", status, &text, &remote).error.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.chars().count() < 600, "{shown}");
    }
    let (rfc, http) = (parse_rfc3339(&text), parse_http_date(&text));
    assert!(rfc.is_none_or(|(_, nanos)| nanos < 1_000_000_000), "{rfc:?}");
    assert!(http.is_none_or(|seconds| (-62_135_596_800..253_402_400_000).contains(&seconds)), "{http:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` on `seed` cut at each length, with each bit flipped, and with pieces repeated.
    fn mutations(seed: &[u8], body: fn(&[u8])) {
        body(seed);
        for at in 0..seed.len() {
            body(&seed[..at]);
            for bit in 0..8 {
                let mut flipped = seed.to_vec();
                flipped[at] ^= 1 << bit;
                body(&flipped);
            }
            body(&[&seed[..at], &seed[at / 2..]].concat());
        }
    }

    #[test]
    fn mutated_answers_keep_the_invariants() {
        for headers in [
            "Content-Range: bytes 40-59/100\r\nContent-Length: 20\r\nLast-Modified: Fri, 27 Nov 2026 13:57:54 GMT\r\n",
            "Content-Range: bytes 0-99/100\nContent-Range: bytes 0-99/100\r\n",
            "Content-Length: 100\r\ncontent-length:100\r\nAccept-Ranges: bytes\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            for status in ["200 OK", "206 Partial Content", "500"] {
                mutations(format!("HTTP/1.0 {status}\r\n{headers}\r\nbody").as_bytes(), fuzz_head);
            }
        }
        let item = r#"{"Path":"a","Name":"a\u00fc","Size":30,"MimeType":"","ModTime":"2026-11-27T13:57:54.2Z","IsDir":false,"Tier":"x"}"#;
        for list in
            [format!("{{\"list\":[{item},{item}]}}"), format!("{{\"item\":{item}}}"), "{\"list\":null}".to_owned()]
        {
            mutations(list.as_bytes(), fuzz_listing);
        }
        for text in [
            "2026-11-27T19:27:54.242976772+05:30",
            "1969-12-31T23:59:59-23:59",
            "Fri, 27 Nov 2026 13:57:54 GMT",
            r#"{"error":"error in ListJSON: NewFs: ssh: \u001b[31mhandshake failed: 401\n","status":500}"#,
        ] {
            mutations(text.as_bytes(), fuzz_text);
        }
    }
}
