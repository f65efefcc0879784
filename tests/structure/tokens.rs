//! Rust code as tokens, as far as definitions and paths need them.

use crate::source::is_word;

/// A word, `::`, or another single character.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

impl Token<'_> {
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(is_word) && !self.text.starts_with(|c: char| c.is_ascii_digit())
    }
}

/// The tokens of `code`, from which comments and literals were removed. Attributes and lifetimes are left out.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let (mut out, mut line, mut rest) = (Vec::new(), 1, code);
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '\'' => 1 + rest[1..].chars().take_while(|c| is_word(*c)).map(char::len_utf8).sum::<usize>(),
            '#' if rest[1..].trim_start_matches('!').starts_with('[') => attribute_len(rest),
            c if is_word(c) => rest.chars().take_while(|c| is_word(*c)).map(char::len_utf8).sum(),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        let (text, rest_after) = rest.split_at(len);
        // r#type is the word type.
        if text == "r" && rest_after.starts_with('#') {
            rest = &rest_after[1..];
            continue;
        }
        if !first.is_whitespace() && first != '\'' && !(first == '#' && len > 1) {
            out.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = rest_after;
    }
    out
}

/// The length of the attribute at the beginning of `code`.
fn attribute_len(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        if c == ']' && depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn attributes_and_lifetimes_are_no_tokens() {
    let code = "#![allow(x)]\n#[derive(A)] pub struct r#B<'static>(a::C);";
    let found: Vec<(&str, usize)> = tokens(code).iter().map(|t| (t.text, t.line)).collect();
    let texts: Vec<&str> = found.iter().map(|(text, _)| *text).collect();
    assert_eq!(texts, ["pub", "struct", "B", "<", ">", "(", "a", "::", "C", ")", ";"]);
    assert!(found.iter().all(|(_, line)| *line == 2));
}
