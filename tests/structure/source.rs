//! Source text with everything but code blanked out.

/// The source with comments, strings and character literals blanked out, so that only code is left. Line breaks stay.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let (mut out, mut i) = (String::with_capacity(source.len()), 0);
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    // skips to `end` (exclusive), keeping line breaks
    let blank = |out: &mut String, from: usize, to: usize| {
        out.extend(chars[from..to.min(chars.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    while i < chars.len() {
        let start = i;
        let raw_hashes = (at(i) == 'r').then(|| (i + 1..).take_while(|j| at(*j) == '#').count());
        let in_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_') && at(i - 1) != 'b';
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= chars.len() {
                    break;
                }
            }
        } else if let (Some(hashes), false) = (raw_hashes.filter(|n| at(i + 1 + n) == '"'), in_word) {
            i += hashes + 2;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|j| at(i + j) == '#')) {
                i += 1;
            }
            i += hashes + 1;
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            // a character, not a lifetime
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(at(i));
            i += 1;
            continue;
        }
        blank(&mut out, start, i);
    }
    out
}

/// The code without items under `#[cfg(test)]` in the same file, as tests may use everything.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = match (item.find('{'), item.find(';')) {
            (Some(open), semicolon) if semicolon.is_none_or(|s| open < s) => {
                let mut depth = 0;
                let close = item[open..].char_indices().find(|(_, c)| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    depth == 0
                });
                close.map_or(item.len(), |(i, _)| open + i + 1)
            }
            (_, Some(semicolon)) => semicolon + 1,
            _ => item.len(),
        };
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the offsets of `word` in `code` as a whole word.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
    })
}

pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The modules that `code` declares under `#[cfg(test)]` and that are separate files.
pub(crate) fn test_modules(code: &str) -> Vec<String> {
    let declared = code.match_indices("#[cfg(test)]").filter_map(|(at, attribute)| {
        let item = code[at + attribute.len()..].split(['{', ';']).next()?;
        let name = item.split_whitespace().skip_while(|word| *word != "mod").nth(1)?;
        let after = &code[at + attribute.len() + item.len()..];
        after.starts_with(';').then(|| name.to_owned())
    });
    declared.collect()
}

#[test]
fn comments_literals_and_tests_are_blanked() {
    let code = code_only("a; // b\n/* c /* d */ e\n*/ \"f\\\"g\" r#\"h\"\"# '\"' '\\'' &'i str");
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a;", "&'i", "str"]);
    assert_eq!(code.matches('\n').count(), 2);
    let code = without_tests("a;\n#[cfg(test)]\nmod tests { {} }\nb; #[cfg(test)] use c; d");
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a;", "b;", "d"]);
    assert_eq!(code.matches('\n').count(), 3);
    assert_eq!(
        test_modules("#[cfg(test)] mod a;#[cfg(test)]\npub(crate) mod b;#[cfg(test)] mod c {} mod d;"),
        ["a", "b"]
    );
}
