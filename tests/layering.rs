//! The rules of the source tree that the compiler does not know: layers by rank, fenced crates, no large files.

// Failing by panic is what a test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;

/// Modules of `src` and their ranks (docs of src/lib.rs): a module imports only from lower ranks.
const RANKS: &[(&str, u8)] = &[
    ("types", 0),
    ("format", 1),
    ("storage", 1),
    ("codec", 2),
    ("cache", 2),
    ("collection", 2),
    ("index", 2),
    ("volume", 3),
    ("tree", 4),
    ("content", 5),
    ("unpack", 5),
    ("vfs", 6),
    ("fuse", 7),
    ("cli", 8),
];

/// Crates that only one module may know.
const FENCED: &[(&str, &str)] = &[
    ("fuser", "fuse"),
    ("tokio", "storage"),
    ("aws_config", "storage"),
    ("aws_credential_types", "storage"),
    ("aws_sdk_s3", "storage"),
    ("aws_smithy_http_client", "storage"),
    ("aws-", "storage"),
];

/// The files that may hold `unsafe`; there is none.
const UNSAFE_ALLOWED: &[&str] = &[];

/// Lines a file may have.
const MOST_LINES: usize = 450;

/// The source with comments, strings and character literals blanked out, so that only code is left. Line breaks stay.
fn code_only(source: &str) -> String {
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

/// The code without items under `#[cfg(test)]` in the same file: tests may reach for whatever they need.
fn without_tests(code: &str) -> String {
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

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code` as a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// First names below `crate` in a path that starts at `rest` (behind `crate`): `::a::b`, `::{a, b::{c}}`.
fn heads(rest: &str) -> Vec<String> {
    let Some(path) = rest.trim_start().strip_prefix("::") else { return vec![] };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        let name: String = path.chars().take_while(|c| is_word(*c) || *c == '*').collect();
        return vec![name];
    };
    let (mut names, mut depth, mut name) = (Vec::new(), 0, String::new());
    let mut reading = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                reading = true;
            }
            _ if depth > 0 => {}
            c if is_word(c) && reading => name.push(c),
            c if c.is_whitespace() => {}
            _ => reading = false,
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// Modules of the crate that `code` of top-level module `own` names, with the line: by `crate::`, or by a path of the
/// crate's own name in the binary.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate", "dupfs"] {
        for at in words(code, root) {
            let before = code[..at].trim_end();
            // `pub(crate)`, `in crate::x` of a visibility, and paths that merely end so
            if before.ends_with("pub(") || before.ends_with("::") {
                continue;
            }
            let line = line_of(code, at);
            found.extend(heads(&code[at + root.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// How many `super` a path may climb before it leaves the file's top-level module.
fn climbs_out(file: &str, code: &str) -> Vec<usize> {
    let parts: Vec<&str> = file.split('/').collect();
    let stem = parts.last().unwrap().trim_end_matches(".rs");
    let depth = parts.len() - usize::from(stem == "mod");
    let climb = vec!["super"; depth].join("::");
    words(code, &climb)
        .filter(|at| !code[..*at].ends_with("::") && code[at + climb.len()..].starts_with("::"))
        .map(|at| line_of(code, at))
        .collect()
}

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// Everything wrong with one file of `src`, `file` being its path below it.
fn faults(file: &str, source: &str) -> Vec<String> {
    let mut out = Vec::new();
    let lines = source.lines().count();
    if lines > MOST_LINES {
        out.push(format!("{file}: {lines} lines, {MOST_LINES} are allowed"));
    }
    let code = code_only(source);
    let own = file.split('/').next().unwrap().trim_end_matches(".rs");
    for (fenced, home) in FENCED {
        for (at, _) in code.match_indices(fenced) {
            let starts_word = !code[..at].chars().next_back().is_some_and(is_word);
            let whole = fenced.ends_with(['_', '-']) || !code[at + fenced.len()..].chars().next().is_some_and(is_word);
            if starts_word && whole && own != *home {
                out.push(format!("{file}:{}: {fenced} belongs in src/{home} alone", line_of(&code, at)));
            }
        }
    }
    if !UNSAFE_ALLOWED.contains(&file) {
        out.extend(words(&code, "unsafe").map(|at| format!("{file}:{}: unsafe", line_of(&code, at))));
    }
    // the crate's roots may name every module; test files may reach for whatever they need
    if matches!(file, "lib.rs" | "main.rs") || file.ends_with("/tests.rs") || file.contains("/tests/") {
        return out;
    }
    let Some(own_rank) = rank(own) else {
        out.push(format!("{file}: module {own} has no rank"));
        return out;
    };
    let code = without_tests(&code);
    for (line, name) in imports(&code) {
        match rank(&name) {
            _ if name == own => {}
            None => out.push(format!("{file}:{line}: {name} has no rank")),
            Some(rank) if rank >= own_rank => {
                out.push(format!("{file}:{line}: {own} (rank {own_rank}) imports {name} (rank {rank})"));
            }
            Some(_) => {}
        }
    }
    out.extend(climbs_out(file, &code).into_iter().map(|line| format!("{file}:{line}: super climbs out of {own}")));
    out
}

fn sources(dir: &Path, below: &str, out: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            sources(&entry.path(), &format!("{name}/"), out);
        } else if name.ends_with(".rs") {
            out.push((name, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

#[test]
fn the_source_tree_keeps_its_rules() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.len() > 10, "no sources found");
    let mut found: Vec<String> = files.iter().flat_map(|(file, source)| faults(file, source)).collect();
    found.sort();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_module_of_the_library_has_a_rank_and_stands_in_its_table() {
    let root = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared = root.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in declared {
        let rank = rank(module).unwrap_or_else(|| panic!("module {module} has no rank"));
        // `format` has to be told from the macro of that name.
        let in_table = ["", "mod@"].iter().any(|kind| root.contains(&format!("| {rank} | [`{kind}{module}`] |")));
        assert!(in_table, "{module} is not in the table as rank {rank}");
    }
}

#[test]
fn an_import_from_an_equal_or_higher_rank_is_found() {
    let found = |file: &str, source: &str| faults(file, source).join("; ");
    assert_eq!(found("volume/mod.rs", "use crate::codec::x;\nuse crate::types::{A, B};\n"), "");
    assert_eq!(found("volume/a.rs", "use crate::volume::x;\nuse crate::{format::F, types};\n"), "");
    assert!(
        found("volume/a.rs", "\nuse crate::tree::x;\n")
            .contains("volume/a.rs:2: volume (rank 3) imports tree (rank 4)")
    );
    assert!(found("format/a.rs", "use crate::storage::x;").contains("imports storage (rank 1)"));
    assert!(found("codec/a.rs", "use crate::{\n  types::{self, vfs},\n  vfs::Attr as A,\n};").contains("imports vfs"));
    assert!(found("codec/a.rs", "fn f() -> crate :: cli :: Config { }").contains("imports cli"));
    assert!(found("codec/a.rs", "use crate::nothing::x;").contains("nothing has no rank"));
    assert!(found("codec/a.rs", "use crate::*;").contains("* has no rank"));
    assert!(found("codec/gzip/a.rs", "use super::super::super::vfs::x;").contains("super climbs out of codec"));
    assert!(found("codec/a.rs", "use super::super::vfs::x;").contains("super climbs out of codec"));
    assert!(found("codec/mod.rs", "use super::vfs::x;").contains("super climbs out of codec"));
    assert_eq!(found("codec/gzip/a.rs", "use super::super::x;"), "");
    assert_eq!(
        found(
            "codec/a.rs",
            "pub(crate) fn f() {} // use crate::vfs;\n/* crate::vfs */ const S: &str = \"crate::vfs\";"
        ),
        ""
    );
    assert_eq!(found("codec/a.rs", "#[cfg(test)]\nmod tests {\n use crate::vfs::x; { } }\nuse crate::types::A;"), "");
    assert!(found("codec/a.rs", "#[cfg(test)]\nmod tests { }\nuse crate::vfs::A;").contains("codec/a.rs:3"));
    assert_eq!(found("codec/tests.rs", "use crate::vfs::A;"), "");
    assert!(found("novel/a.rs", "").contains("module novel has no rank"));
    assert!(found("novel.rs", "").contains("module novel has no rank"));
    assert_eq!(found("lib.rs", "pub mod vfs; pub use crate::vfs::A;"), "");
}

#[test]
fn fenced_crates_unsafe_code_and_large_files_are_found() {
    let found = |file: &str, source: &str| faults(file, source).join("; ");
    assert!(found("vfs/a.rs", "use fuser::X;").contains("fuser belongs in src/fuse alone"));
    assert_eq!(found("fuse/a.rs", "use fuser::X; struct Refuser;"), "");
    assert!(found("main.rs", "fn main() { tokio::spawn(x) }").contains("tokio belongs in src/storage"));
    assert!(found("cli/a.rs", "use aws_sdk_s3::Client;").contains("belongs in src/storage"));
    assert_eq!(found("storage/s3.rs", "use aws_sdk_s3::Client; use tokio::x;"), "");
    assert!(found("types/a.rs", "fn f() { unsafe { g() } }").contains("types/a.rs:1: unsafe"));
    assert_eq!(
        found(
            "types/a.rs",
            "// unsafe\n#![deny(unsafe_code)]\nlet s = r#\"unsafe \" \"#; let c = '\"'; let l: &'a str;"
        ),
        ""
    );
    assert!(found("types/a.rs", "let c = '\"'; unsafe {}").contains("unsafe"));
    assert!(found("types/a.rs", &"\n".repeat(MOST_LINES + 1)).contains("451 lines"));
    assert_eq!(found("types/a.rs", &"\n".repeat(MOST_LINES)), "");
}
