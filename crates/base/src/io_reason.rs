//! The reason of a failure of the operating system, for messages.

use std::io;

/// Returns the text of `error` in lower case at the start and without the number of the error, which is of no use to users:
/// `no such file or directory`.
pub fn io_reason(error: &io::Error) -> String {
    let text = without_errno(&error.to_string());
    let mut chars = text.chars();
    // A name or an abbreviation keeps its letters.
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text,
    }
}

/// Returns `text` without the numbers that the standard library adds to the messages of the operating system.
pub fn without_errno(text: &str) -> String {
    const START: &str = " (os error ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(START) {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, end) = after.split_at(digits);
        out.push_str(before);
        match end.strip_prefix(')') {
            Some(end) if !number.is_empty() => rest = end,
            _ => {
                out.push_str(START);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_left_out() {
        assert_eq!(io_reason(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(io_reason(&io::Error::other("IMDS is off")), "IMDS is off");
        assert_eq!(without_errno("a: Is a directory (os error 21); b (os error 2)."), "a: Is a directory; b.");
        for kept in ["a (os error x)", "a (os error )", "a (os error 2", ""] {
            assert_eq!(without_errno(kept), kept);
        }
    }
}
