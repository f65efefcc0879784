//! Patterns for paths of a snapshot: globs as a shell has them, and regular expressions.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use regex::bytes::{Regex, RegexBuilder};

use super::error::CliError;
use dupfs_base::{escape_bytes, hex};
use dupfs_format::ArchivePath;

/// Upper bound of the bytes of a pattern.
const MAX_LEN: usize = 64 << 10;

/// The form of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatternForm {
    /// A glob. One without `/` is compared with the name of an object, another one with its path.
    Glob,
    /// A regular expression that matches a part of the path.
    Regex,
}

/// A pattern for paths.
#[derive(Clone, Debug)]
pub(super) struct PathPattern {
    regex: Regex,
    /// Only the name is compared, not the path.
    names_only: bool,
    /// The pattern of a glob without special characters.
    is_literal: bool,
}

impl PathPattern {
    /// Parses `typed`. `source` is the source directory: an absolute path below it is read as a path of the snapshot too.
    ///
    /// # Errors
    /// [`CliError::Usage`] for an invalid pattern.
    pub(super) fn parse(
        typed: &OsStr,
        form: PatternForm,
        ignore_case: bool,
        source: Option<&[u8]>,
    ) -> Result<Self, CliError> {
        let bytes = typed.as_bytes();
        let shown = escape_bytes(bytes);
        let usage = |fault: &str| CliError::Usage(format!("the pattern {shown}: {fault}"));
        if bytes.is_empty() {
            return Err(usage("is empty; '*' matches every name"));
        }
        if bytes.len() > MAX_LEN {
            return Err(CliError::Usage(format!("the pattern has more than {MAX_LEN} bytes")));
        }
        let (text, names_only, is_literal) = match form {
            PatternForm::Regex => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| usage("is not valid UTF-8; in a regular expression write bytes as (?-u:\\xE9)"))?;
                (text.to_owned(), false, false)
            }
            PatternForm::Glob => {
                let names_only = !bytes.contains(&b'/');
                let readings = [Some(bytes), source.and_then(|source| below_source(bytes, source))];
                let mut parts = Vec::new();
                let mut is_literal = true;
                for reading in readings.into_iter().flatten() {
                    let glob = Glob::translate(trim_path(reading)).map_err(usage)?;
                    is_literal &= glob.is_literal;
                    parts.push(glob.regex);
                }
                (format!("^(?:{})$", parts.join("|")), names_only, is_literal)
            }
        };
        let regex = RegexBuilder::new(&text)
            .case_insensitive(ignore_case)
            .dot_matches_new_line(true)
            .build()
            .map_err(|error| usage(&one_line_fault(&error)))?;
        Ok(Self { regex, names_only, is_literal })
    }

    /// Returns true if the pattern matches `path`.
    pub(super) fn matches(&self, path: &ArchivePath) -> bool {
        self.regex.is_match(if self.names_only { path.name() } else { path.as_bytes() })
    }

    /// Returns true for a glob without special characters.
    pub(super) fn is_literal(&self) -> bool {
        self.is_literal
    }
}

/// The line of a regular expression's error that names the fault.
fn one_line_fault(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "needs too much memory; give a shorter one".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            let fault = last.strip_prefix("error: ").unwrap_or(last);
            format!("{fault}; put a backslash before a character to match it literally")
        }
    }
}

/// A glob without the slashes around it, and without `.` components at its start.
fn trim_path(glob: &[u8]) -> &[u8] {
    let mut rest = glob;
    while let Some(shorter) = rest.strip_prefix(b"/").or_else(|| rest.strip_prefix(b"./")) {
        rest = shorter;
    }
    match rest.strip_suffix(b"/") {
        Some(shorter) if !shorter.is_empty() => shorter,
        _ => rest,
    }
}

/// The part of an absolute glob below the source directory.
fn below_source<'g>(glob: &'g [u8], source: &[u8]) -> Option<&'g [u8]> {
    let source = source.strip_suffix(b"/").unwrap_or(source);
    let rest = glob.strip_prefix(source).filter(|_| !source.is_empty())?;
    rest.strip_prefix(b"/").filter(|rest| !trim_path(rest).is_empty())
}

/// A glob as a regular expression.
struct Glob {
    regex: String,
    is_literal: bool,
}

impl Glob {
    /// Translates `*`, `**`, `?`, `[...]`, `{a,b}` and `\`; `\xHH` is a byte, as `ls` shows it on a terminal.
    fn translate(glob: &[u8]) -> Result<Self, &'static str> {
        // A character; of a name that is not UTF-8, a byte that is part of none.
        const ANY: &str = r"(?:[^/]|(?-u:[\x80-\xff]))";
        let mut out = Self { regex: String::new(), is_literal: true };
        let mut alternatives = 0_usize;
        let mut rest = glob;
        while let Some((&byte, after)) = rest.split_first() {
            let start = rest;
            rest = after;
            let is_special = match byte {
                b'*' if after.first() == Some(&b'*') => {
                    let end = after.get(1..).unwrap_or_default();
                    let starts_component = out.regex.is_empty() || out.regex.ends_with('/');
                    match end.strip_prefix(b"/") {
                        // `**/` also matches no directory at all.
                        Some(end) if starts_component => {
                            out.regex.push_str(r"(?:(?-u:[^/])+/)*");
                            rest = end;
                        }
                        _ => {
                            out.regex.push_str(r"(?s-u:.)*");
                            rest = end;
                        }
                    }
                    true
                }
                b'*' => {
                    out.regex.push_str(r"(?-u:[^/])*");
                    true
                }
                b'?' => {
                    out.regex.push_str(ANY);
                    true
                }
                b'[' => {
                    rest = out.class(after)?;
                    true
                }
                b'{' => {
                    alternatives += 1;
                    out.regex.push_str("(?:");
                    true
                }
                b',' if alternatives > 0 => {
                    out.regex.push('|');
                    true
                }
                b'}' if alternatives > 0 => {
                    alternatives -= 1;
                    out.regex.push(')');
                    true
                }
                b'\\' => {
                    let code = after.strip_prefix(b"x").and_then(|rest| rest.get(..2));
                    let code = code.and_then(|code| std::str::from_utf8(code).ok());
                    match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
                        Some(code) => {
                            out.literal(&[code]);
                            rest = after.get(3..).unwrap_or_default();
                        }
                        None => {
                            let (literal, end) = first_char(after).ok_or("ends in a backslash; write it twice")?;
                            out.literal(literal);
                            rest = end;
                        }
                    }
                    false
                }
                _ => {
                    let (literal, end) = first_char(start).unwrap_or((&[], after));
                    out.literal(literal);
                    rest = end;
                    false
                }
            };
            out.is_literal &= !is_special;
        }
        if alternatives > 0 {
            return Err("a { is not closed; write it as \\{ if it is part of a name");
        }
        Ok(out)
    }

    /// Appends literal characters.
    fn literal(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.regex.push_str(&regex::escape(text)),
            Err(_) => {
                for byte in bytes {
                    self.regex.push_str(&format!(r"(?-u:\x{})", hex(&[*byte])));
                }
            }
        }
    }

    /// Appends the class that begins after `[`; returns the rest of the pattern.
    fn class<'g>(&mut self, after: &'g [u8]) -> Result<&'g [u8], &'static str> {
        const OPEN: &str = "a [ is not closed; write it as \\[ if it is part of a name";
        let negated = after.strip_prefix(b"!").or_else(|| after.strip_prefix(b"^"));
        let mut rest = negated.unwrap_or(after);
        let mut members = String::new();
        let mut is_first = true;
        loop {
            let (mut member, end) = first_char(rest).ok_or(OPEN)?;
            rest = end;
            if member == b"]" && !is_first {
                break;
            }
            if member == b"[" && rest.starts_with(b":") {
                return Err("classes such as [:alpha:] are not supported; write [a-zA-Z], or use --regex");
            }
            is_first = false;
            if member == b"-" && !members.is_empty() && !members.ends_with('-') && !rest.starts_with(b"]") {
                members.push('-');
                continue;
            }
            if member == b"\\" {
                (member, rest) = first_char(rest).ok_or(OPEN)?;
            }
            let text = std::str::from_utf8(member).map_err(|_| "a byte in [...] is not valid UTF-8; use ? for it")?;
            members.extend(text.chars().map(|c| format!(r"\u{{{:x}}}", u32::from(c))));
        }
        let class = if negated.is_some() {
            format!(r"(?:[^/{members}]|(?-u:[\x80-\xff]))")
        } else {
            // A class does not match the separator, as in a shell.
            format!("[{members}&&[^/]]")
        };
        self.regex.push_str(&class);
        Ok(rest)
    }
}

/// The first character, or byte that is part of none, and the rest.
fn first_char(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = match bytes.first()? {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => 1,
    };
    let whole = bytes.split_at_checked(len).filter(|(char, _)| std::str::from_utf8(char).is_ok());
    whole.or_else(|| bytes.split_at_checked(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(typed: &[u8]) -> PathPattern {
        PathPattern::parse(OsStr::from_bytes(typed), PatternForm::Glob, false, Some(b"/srv/www/")).unwrap()
    }

    fn matches(typed: &[u8], path: &[u8]) -> bool {
        pattern(typed).matches(&ArchivePath::parse(path).unwrap())
    }

    fn fault(typed: &[u8], form: PatternForm) -> String {
        PathPattern::parse(OsStr::from_bytes(typed), form, false, None).unwrap_err().to_string()
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        let cases: &[(&[u8], &[u8], bool)] = &[
            (b"*.sql", b"var/db/a.sql", true),
            (b"*.sql", b"var/a.sql/x", false),
            (b"a.sql", b"var/aXsql", false),
            (b"hosts", b"etc/hosts", true),
            (b"hosts", b"etc/hosts.bak", false),
            (b"*", b".hidden", true),
            (b"etc/*", b"etc/hosts", true),
            (b"etc/*", b"etc/a/b", false),
            (b"etc/*", b"var/etc/a", false),
            (b"/etc/hosts", b"etc/hosts", true),
            (b"./etc/hosts/", b"etc/hosts", true),
            (b"/srv/www/*.php", b"index.php", true),
            (b"/srv/www/*.php", b"srv/www/index.php", true),
            (b"/srv/www/*.php", b"a/index.php", false),
            (b"etc/**", b"etc/a/b", true),
            (b"**/b", b"b", true),
            (b"**/b", b"a/c/b", true),
            (b"**/b", b"ab", false),
            (b"a/**/b", b"a/b", true),
            (b"a/**/b", b"a/x/y/b", true),
            (b"a?c", b"abc", true),
            (b"a?c", b"ac", false),
            ("caf?".as_bytes(), "caf\u{e9}".as_bytes(), true),
            (b"caf?", b"caf\xe9", true),
            (b"caf\xe9", b"caf\xe9", true),
            (b"caf\\xe9", b"caf\xe9", true),
            (b"caf\xe9", "caf\u{e9}".as_bytes(), false),
            (b"*", b"new\nline", true),
            (b"new*line", b"new\nline", true),
            (b"[a-c]x", b"bx", true),
            (b"[a-c]x", b"-x", false),
            (b"[!a-c]x", b"bx", false),
            (b"[^a-c]x", b"dx", true),
            (b"[]a]", b"]", true),
            (b"[a-]", b"-", true),
            (b"[a\\]]", b"]", true),
            ("[\u{e0}-\u{ef}]".as_bytes(), "\u{e9}".as_bytes(), true),
            (b"a[/]b/c", b"a/b/c", false),
            (b"*.{sql,gz}", b"x.gz", true),
            (b"*.{sql,gz}", b"x.bz2", false),
            (b"a,b", b"a,b", true),
            (b"a\\*", b"a*", true),
            (b"a\\*", b"ab", false),
            (b"a\\{b", b"a{b", true),
            (b"(a|b)+.$^", b"(a|b)+.$^", true),
            ("\u{65e5}*".as_bytes(), "\u{65e5}\u{672c}".as_bytes(), true),
        ];
        for (typed, path, expected) in cases {
            let shown = format!("{} on {}", escape_bytes(typed), escape_bytes(path));
            assert_eq!(matches(typed, path), *expected, "{shown}");
        }
    }

    #[test]
    fn a_pattern_without_special_characters_is_literal() {
        assert!(pattern(b"hosts").is_literal() && pattern(b"a\\*b").is_literal());
        for typed in [&b"*"[..], b"a?", b"[a]", b"{a,b}"] {
            assert!(!pattern(typed).is_literal());
        }
    }

    #[test]
    fn letter_case_counts_unless_it_is_ignored() {
        let path = ArchivePath::parse("etc/H\u{d6}STS".as_bytes()).unwrap();
        for (ignore_case, expected) in [(false, false), (true, true)] {
            let typed = OsStr::new("h\u{f6}*");
            let pattern = PathPattern::parse(typed, PatternForm::Glob, ignore_case, None).unwrap();
            assert_eq!(pattern.matches(&path), expected);
        }
    }

    #[test]
    fn a_regular_expression_matches_a_part_of_the_path() {
        let of = |typed: &str, path: &[u8]| {
            let pattern = PathPattern::parse(OsStr::new(typed), PatternForm::Regex, false, None).unwrap();
            pattern.matches(&ArchivePath::parse(path).unwrap())
        };
        assert!(of("^var/.*\\.sql$", b"var/db/a.sql") && of("b/a", b"var/db/a.sql") && of("(?-u:\\xE9)", b"a\xe9"));
        assert!(!of("^db", b"var/db/a.sql"));
    }

    #[test]
    fn faults_of_a_pattern_are_one_line() {
        for (typed, form, part) in [
            (&b"[a"[..], PatternForm::Glob, "a [ is not closed"),
            (b"a[", PatternForm::Glob, "a [ is not closed"),
            (b"{a", PatternForm::Glob, "a { is not closed"),
            (b"a\\", PatternForm::Glob, "ends in a backslash"),
            (b"[[:alpha:]]", PatternForm::Glob, "--regex"),
            (b"[z-a]", PatternForm::Glob, "range"),
            (b"", PatternForm::Glob, "is empty"),
            (b"(", PatternForm::Regex, "unclosed group"),
            (b"\xe9", PatternForm::Regex, "not valid UTF-8"),
            (b"a{1000}{1000}{1000}", PatternForm::Regex, "too much memory"),
        ] {
            let fault = fault(typed, form);
            assert!(fault.contains(part) && !fault.contains('\n'), "{fault}");
        }
    }
}
