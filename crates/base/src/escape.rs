//! Bytes as text.

/// Returns `bytes` as text for a terminal or a log line. Valid UTF-8 stays; control characters, backslashes and invalid
/// bytes become `\xHH`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
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
    }

    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(hex(b"\x00\x0a\xff"), "000aff");
        assert_eq!(hex(b""), "");
    }
}
