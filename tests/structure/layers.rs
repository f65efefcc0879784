//! The layers: a module imports only from modules of a lower rank, some crates are used by one module only, and no
//! code is unsafe.

use crate::source::{code_only, is_word, line_of, without_tests, words};
use crate::tree;

/// The crates whose modules are layers themselves, by their directories, and the ranks of those modules: a module
/// imports only from lower ranks. Between crates the compiler enforces the order.
const RANKS: &[(&str, &[(&str, u8)])] = &[
    ("src", &[("vfs", 0), ("fuse", 1), ("cli", 2)]),
    (
        "crates/read/src",
        &[("meta_encoding", 0), ("storage", 0), ("codec", 1), ("volume", 2), ("tree", 3), ("content", 4)],
    ),
];

/// Crates that only one module may use.
const FENCED: &[(&str, &str)] = &[
    ("fuser", "src/fuse/"),
    ("tokio", "crates/read/src/storage/"),
    ("aws_config", "crates/read/src/storage/"),
    ("aws_credential_types", "crates/read/src/storage/"),
    ("aws_sdk_s3", "crates/read/src/storage/"),
    ("aws_smithy_http_client", "crates/read/src/storage/"),
    ("aws-", "crates/read/src/storage/"),
];

/// The only files with unsafe code, with the reason in each.
const UNSAFE: &[&str] = &["crates/base/src/locked_bytes.rs", "crates/base/src/wiping_allocator.rs"];

/// Returns the first names below `crate` in a path whose text after `crate` is `rest`: `::a::b`, `::{a, b::{c}}`.
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
            // `pub(crate)`, `in crate::x` of a visibility, and paths with the word at their end
            if before.ends_with("pub(") || before.ends_with("::") {
                continue;
            }
            let line = line_of(code, at);
            found.extend(heads(&code[at + root.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// Returns the lines with a path that leaves the file's top-level module by `super`.
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

/// The only attribute with the word: it marks a function that the loader calls before `main`, in the root of the
/// program.
const LOADER_HOOK: &str = "unsafe(link_section";

/// The file's path below its crate's sources, and the ranks of the modules there, if they have any.
fn in_ranked_crate(file: &str) -> Option<(&str, &'static [(&'static str, u8)])> {
    RANKS.iter().find_map(|(dir, ranks)| Some((file.strip_prefix(dir)?.strip_prefix('/')?, *ranks)))
}

fn rank(ranks: &[(&str, u8)], module: &str) -> Option<u8> {
    ranks.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// Returns all faults of one source file. `file` is its path below the root of the repository.
fn faults(file: &str, source: &str) -> Vec<String> {
    let mut out = Vec::new();
    let code = code_only(source);
    for (fenced, home) in FENCED {
        for (at, _) in code.match_indices(fenced) {
            let starts_word = !code[..at].chars().next_back().is_some_and(is_word);
            let whole = fenced.ends_with(['_', '-']) || !code[at + fenced.len()..].chars().next().is_some_and(is_word);
            if starts_word && whole && !file.starts_with(home) {
                out.push(format!("{file}:{}: {fenced} belongs in {home} alone", line_of(&code, at)));
            }
        }
    }
    let is_loader_hook =
        |at: usize| file == "src/main.rs" && code[..at].ends_with("#[") && code[at..].starts_with(LOADER_HOOK);
    if !UNSAFE.contains(&file) {
        let not_safe = words(&code, "unsafe").filter(|at| !is_loader_hook(*at));
        out.extend(not_safe.map(|at| format!("{file}:{}: unsafe", line_of(&code, at))));
    }
    let Some((below, ranks)) = in_ranked_crate(file) else { return out };
    // the roots of the crate may name every module, and test files may use everything
    if matches!(below, "lib.rs" | "main.rs") || below.ends_with("/tests.rs") || below.contains("/tests/") {
        return out;
    }
    let own = below.split('/').next().unwrap().trim_end_matches(".rs");
    let Some(own_rank) = rank(ranks, own) else {
        out.push(format!("{file}: module {own} has no rank"));
        return out;
    };
    let code = without_tests(&code);
    for (line, name) in imports(&code) {
        match rank(ranks, &name) {
            _ if name == own => {}
            None => out.push(format!("{file}:{line}: {name} has no rank")),
            Some(rank) if rank >= own_rank => {
                out.push(format!("{file}:{line}: {own} (rank {own_rank}) imports {name} (rank {rank})"));
            }
            Some(_) => {}
        }
    }
    out.extend(climbs_out(below, &code).into_iter().map(|line| format!("{file}:{line}: super climbs out of {own}")));
    out
}

#[test]
fn the_source_tree_keeps_its_rules() {
    let files: Vec<(String, String)> = tree::crate_dirs().iter().flat_map(|dir| tree::files(dir)).collect();
    assert!(files.len() > 100, "no sources found");
    let mut found: Vec<String> = files.iter().flat_map(|(file, source)| faults(file, source)).collect();
    found.sort();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn an_import_from_an_equal_or_higher_rank_is_found() {
    let found = |file: &str, source: &str| faults(&format!("crates/read/src/{file}"), source).join("; ");
    assert_eq!(found("volume/mod.rs", "use crate::codec::x;\nuse crate::storage::{A, B};\n"), "");
    assert_eq!(found("volume/a.rs", "use crate::volume::x;\nuse crate::{codec::F, storage};\n"), "");
    assert!(
        found("volume/a.rs", "\nuse crate::tree::x;\n")
            .contains("volume/a.rs:2: volume (rank 2) imports tree (rank 3)")
    );
    assert!(
        found("codec/a.rs", "use crate::{\n  storage::{self, tree},\n  tree::Attr as A,\n};").contains("imports tree")
    );
    assert!(found("codec/a.rs", "fn f() -> crate :: content :: Config { }").contains("imports content"));
    assert!(found("codec/a.rs", "use crate::nothing::x;").contains("nothing has no rank"));
    assert!(found("codec/a.rs", "use crate::*;").contains("* has no rank"));
    assert!(found("codec/gzip/a.rs", "use super::super::super::tree::x;").contains("super climbs out of codec"));
    assert!(found("codec/a.rs", "use super::super::tree::x;").contains("super climbs out of codec"));
    assert!(found("codec/mod.rs", "use super::tree::x;").contains("super climbs out of codec"));
    assert_eq!(found("codec/gzip/a.rs", "use super::super::x;"), "");
    assert_eq!(
        found(
            "codec/a.rs",
            "pub(crate) fn f() {} // use crate::tree;\n/* crate::tree */ const S: &str = \"crate::tree\";"
        ),
        ""
    );
    assert_eq!(
        found("codec/a.rs", "#[cfg(test)]\nmod tests {\n use crate::tree::x; { } }\nuse crate::storage::A;"),
        ""
    );
    assert!(found("codec/a.rs", "#[cfg(test)]\nmod tests { }\nuse crate::tree::A;").contains("codec/a.rs:3"));
    assert_eq!(found("codec/tests.rs", "use crate::tree::A;"), "");
    assert!(found("novel/a.rs", "").contains("module novel has no rank"));
    assert!(found("novel.rs", "").contains("module novel has no rank"));
    assert_eq!(found("lib.rs", "pub mod tree; pub use crate::tree::A;"), "");
    assert!(faults("src/vfs/a.rs", "use crate::fuse::x;").join("").contains("vfs (rank 0) imports fuse (rank 1)"));
    assert_eq!(faults("crates/format/src/a.rs", "use crate::novel::x;").join(""), "");
}

#[test]
fn fenced_crates_and_unsafe_code_are_found() {
    let found = |file: &str, source: &str| faults(file, source).join("; ");
    assert!(found("src/vfs/a.rs", "use fuser::X;").contains("fuser belongs in src/fuse/ alone"));
    assert_eq!(found("src/fuse/a.rs", "use fuser::X; struct Refuser;"), "");
    assert!(
        found("src/main.rs", "fn main() { tokio::spawn(x) }").contains("tokio belongs in crates/read/src/storage/")
    );
    assert!(found("src/cli/a.rs", "use aws_sdk_s3::Client;").contains("belongs in crates/read/src/storage/"));
    assert_eq!(found("crates/read/src/storage/s3.rs", "use aws_sdk_s3::Client; use tokio::x;"), "");
    assert!(found("crates/base/src/a.rs", "fn f() { unsafe { g() } }").contains("crates/base/src/a.rs:1: unsafe"));
    assert_eq!(
        found(
            "crates/base/src/a.rs",
            "// unsafe\n#![deny(unsafe_code)]\nlet s = r#\"unsafe \" \"#; let c = '\"'; let l: &'a str;"
        ),
        ""
    );
    assert!(found("crates/base/src/a.rs", "let c = '\"'; unsafe {}").contains("unsafe"));
    assert_eq!(found("crates/base/src/locked_bytes.rs", "fn f() { unsafe { g() } }"), "");
    let hook = "#[unsafe(link_section = \".init_array\")] static A: extern \"C\" fn() = f;";
    assert_eq!(found("src/main.rs", hook), "");
    assert!(found("src/cli/a.rs", hook).contains("unsafe"));
    assert!(found("src/main.rs", "fn f() { unsafe { g() } }").contains("unsafe"));
}
