//! The name of a type is unique among all crates, outside of tests.

use std::collections::BTreeMap;

use crate::tokens::{Token, tokens};
use crate::tree;

/// Names that more than one type has: to be changed. An entry that is no longer needed fails the test.
const KNOWN: &[&str] = &[];

/// The types and traits that `code` defines. Associated types are left out.
fn types(code: &str) -> Vec<String> {
    let (mut out, mut blocks, mut after_impl) = (Vec::new(), Vec::new(), false);
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |t: &Token<'_>| t.text);
    for at in 0..tokens.len() {
        let defines = match text(at) {
            "impl" | "trait" if blocks.last() != Some(&true) => {
                after_impl = true;
                text(at) == "trait"
            }
            ";" => {
                after_impl = false;
                false
            }
            "{" => {
                blocks.push(std::mem::take(&mut after_impl));
                false
            }
            "}" => {
                blocks.pop();
                false
            }
            "struct" | "enum" => true,
            "union" => text(at + 2) == "{",
            "type" => !blocks.contains(&true),
            _ => false,
        };
        if defines && tokens.get(at + 1).is_some_and(Token::is_word) {
            out.push(text(at + 1).to_owned());
        }
    }
    out
}

/// Returns the names with more than one type, except for those in `known`, and the needless entries of `known`.
fn faults(files: &[(String, String)], known: &[&str]) -> String {
    let mut by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (path, code) in files {
        for name in types(code) {
            by_name.entry(name).or_default().push(path);
        }
    }
    by_name.retain(|_, paths| paths.len() > 1);
    let stale = known.iter().filter(|name| !by_name.contains_key(**name));
    let mut out: String = stale.map(|name| format!("{name} is unique: remove it from KNOWN\n")).collect();
    for (name, paths) in by_name.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        out += &format!("{name}: {}\n", paths.join(", "));
    }
    out
}

#[test]
fn the_name_of_a_type_is_unique() {
    let files: Vec<(String, String)> = tree::crate_dirs()
        .iter()
        .flat_map(|dir| tree::production_files(dir))
        .map(|file| (file.path, file.code))
        .collect();
    assert!(files.len() > 100, "no sources found");
    let found = faults(&files, KNOWN);
    assert!(found.is_empty(), "\n{found}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_and_associated_types_are_not() {
        let code = "pub struct A<T>(T); enum B { } mod m { pub(crate) type C = u8; }
            impl Iterator for A<u8> { type Item = u8; fn f() -> impl Fn() { struct D; } }
            trait E: Sized { type Out; fn g(x: impl Fn()); } union F { a: u8 } type G = fn(); fn union() {}
            fn h() -> impl Copy { enum I {} }";
        assert_eq!(types(code), ["A", "B", "C", "D", "E", "F", "G", "I"]);
    }

    #[test]
    fn a_second_type_of_the_same_name_is_found() {
        let file = |path: &str, code: &str| (path.to_owned(), code.to_owned());
        let files = [file("a.rs", "struct A; struct B;"), file("b.rs", "enum A {}"), file("c.rs", "struct C;")];
        assert_eq!(faults(&files, &[]), "A: a.rs, b.rs\n");
        assert_eq!(faults(&files, &["A"]), "");
        assert_eq!(faults(&files, &["A", "C"]), "C is unique: remove it from KNOWN\n");
    }
}
