//! Percent-decoding.

/// `text` with `%HH` replaced by bytes. Other `%` stay, as in Python.
pub(super) fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = match tail {
            [high, low, after @ ..] if first == b'%' => hex(*high).zip(hex(*low)).map(|(h, l)| (h << 4 | l, after)),
            _ => None,
        };
        let (byte, next) = escape.unwrap_or((first, tail));
        out.push(byte);
        rest = next;
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}
