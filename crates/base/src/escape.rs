//! Bytes as text.

/// Returns true for a character that changes how a terminal shows the text around it: control characters, line separators of
/// Unicode, and those that reverse the direction of writing, by which a name can look like another one.
pub fn is_display_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text` with blanks in place of the characters that [`is_display_control`] names.
pub fn blank_display_controls(text: &str) -> String {
    text.chars().map(|c| if is_display_control(c) { ' ' } else { c }).collect()
}

/// Returns `bytes` as text for a terminal or a log line. Valid UTF-8 stays; control characters ([`is_display_control`]),
/// backslashes and invalid bytes become `\xHH`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_display_control(c) || c == '\\' {
                let mut utf8 = [0; 4];
                for b in c.encode_utf8(&mut utf8).bytes() {
                    let _ = write!(out, "\\x{b:02x}");
                }
            } else {
                out.push(c);
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

/// Upper bound of the bytes of a path that a message shows whole.
const MAX_SHOWN_PATH: usize = 1024;
/// Bytes at the beginning and at the end of a longer path that a message shows.
const SHOWN_PART: usize = 400;

/// Returns the path `bytes` as text for a message: as [`escape_bytes`], and a path of more than a kilobyte without its middle.
pub fn escape_path(bytes: &[u8]) -> String {
    if bytes.len() <= MAX_SHOWN_PATH {
        return escape_bytes(bytes);
    }
    let is_inside = |at: &usize| bytes.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // Characters of UTF-8 have at most four bytes; other bytes are cut anywhere.
    let cut = |at: usize| (at..at + 4).find(|at| !is_inside(at)).unwrap_or(at);
    let (head, tail) = (cut(SHOWN_PART), cut(bytes.len() - SHOWN_PART));
    let [head_text, tail_text] = [bytes.get(..head), bytes.get(tail..)].map(|part| escape_bytes(part.unwrap_or(&[])));
    format!("{head_text}[{} more bytes]{tail_text}", tail - head)
}

/// Returns `bytes` as hexadecimal digits in lower case.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_preserves_text_and_replaces_all_other_bytes() {
        assert_eq!(escape_bytes("ü\n\\".as_bytes()), "ü\\x0a\\x5c");
        assert_eq!(escape_bytes(b"lat-\xe9"), "lat-\\xe9");
        // Shown as "exe.txt" by a terminal that reverses the direction.
        assert_eq!(escape_bytes("\u{202e}txt.exe".as_bytes()), "\\xe2\\x80\\xaetxt.exe");
        assert_eq!(escape_bytes("\u{5d0}\u{200d}".as_bytes()), "\u{5d0}\u{200d}", "text");
    }

    #[test]
    fn long_paths_are_shown_without_their_middle() {
        let path = |len: usize| "ü/".repeat(len / 3).into_bytes();
        assert_eq!(escape_path(&path(1023)), "ü/".repeat(341));
        let shown = escape_path(&path(4095));
        assert_eq!(shown.len(), 401 + "[3294 more bytes]".len() + 400, "{shown}");
        assert!(shown.starts_with("ü/ü/") && shown.ends_with("ü/ü/") && !shown.contains('\\'), "{shown}");
        let [head, tail] = [shown.split('[').next(), shown.split(']').nth(1)].map(|part| part.unwrap().len());
        assert_eq!(head + 3294 + tail, 4095);
        assert!(escape_path(&[0xbf; 2000]).contains("[1200 more bytes]"));
    }

    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(hex(b"\x00\x0a\xff"), "000aff");
        assert_eq!(hex(b""), "");
    }
}
