//! Documents refer to documents and files of the repository only, and their lines have at most 100 characters.

use std::collections::BTreeSet;

use crate::tree;

/// Upper bound of the length of a line, other than of a table, a code block or a line without a blank.
const MAX_WIDTH: usize = 100;

/// Directories at the top of the repository. A word in backquotes that begins with one of them is a path.
const TOP: &[&str] = &["benches/", "crates/", "docs/", "fuzz/", "packaging/", "samples/", "scripts/", "src/", "tests/"];

/// Returns the lines of `text` outside of code blocks, with their numbers from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut out = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().starts_with("```");
        if !fence && !in_code && !line.starts_with("    ") {
            out.push((number, line));
        }
        in_code ^= fence;
    }
    out
}

/// Returns the parts of `line` between `open` and `close`.
fn between<'a>(line: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    line.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// Returns the anchors of the headings in `text`, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter_map(|(_, line)| line.trim_start_matches('#').strip_prefix(' '));
    let slug = |heading: &str| {
        let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        heading.to_lowercase().chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    headings.map(|heading| slug(heading.trim())).collect()
}

/// Returns `path`, relative to the directory of `document`, below the root of the repository.
fn resolve(document: &str, path: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns the fault of the link `target` in `document`, if it has one.
fn link_fault(document: &str, text: &str, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { document.to_owned() } else { resolve(document, path) };
    if !tree::root().join(&path).exists() {
        return Some(format!("{target} does not exist"));
    }
    let other =
        if path == document { text.to_owned() } else { std::fs::read_to_string(tree::root().join(&path)).ok()? };
    let is_missing = !anchor.is_empty() && !anchors(&other).contains(anchor);
    is_missing.then(|| format!("{target}: no such heading"))
}

/// Returns the faults of one document.
fn faults(document: &str, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (number, line) in prose(text) {
        let mut report = |fault: &str| out.push(format!("{document}:{number}: {fault}"));
        for target in between(line, "](", ')') {
            if let Some(fault) = link_fault(document, text, target) {
                report(&fault);
            }
        }
        for path in line.split('`').skip(1).step_by(2).filter(|code| TOP.iter().any(|top| code.starts_with(top))) {
            let path = path.split([' ', '{', '*']).next().unwrap_or_default();
            if !tree::root().join(path).exists() {
                report(&format!("`{path}` does not exist"));
            }
        }
        if line.chars().count() > MAX_WIDTH && !line.starts_with('|') && line.trim().contains(' ') {
            report("more than 100 characters");
        }
    }
    out
}

#[test]
fn links_and_paths_in_documents_exist() {
    let found: Vec<String> = tree::documents().iter().flat_map(|(path, text)| faults(path, text)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn broken_links_paths_and_long_lines_are_found() {
    let found = |text: &str| faults("docs/CLI.md", text).len();
    assert_eq!(found("# A `b` (--c)\n[a](#a-b---c) [b](../README.md) [c](S3.md#urls) [d](https://x.org) `src/cli`"), 0);
    assert_eq!(found("[a](#b)\n[b](README2.md)\n[c](S3.md#none)\n`src/none.rs`\n"), 4);
    assert_eq!(found(&format!("{}\n```\n[a](none)\n```\n    `src/none`\n", "a ".repeat(51))), 1);
}
