//! The source files of all crates, without their tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::source;

/// A source file, with its tests, comments and string literals blanked out.
pub(crate) struct SourceFile {
    /// Its path below the root of the repository.
    pub(crate) path: String,
    /// Its code; line breaks are those of the file.
    pub(crate) code: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of a foreign crate with few changes, so that a diff against the original shows these only.
const COPIES: &[&str] = &["fuser"];

/// The directories of the crates' sources, below the root of the repository.
pub(crate) fn crate_dirs() -> Vec<String> {
    let members = std::fs::read_dir(root().join("crates")).unwrap();
    let names = members.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut dirs: Vec<String> =
        names.filter(|name| !COPIES.contains(&name.as_str())).map(|name| format!("crates/{name}/src")).collect();
    dirs.push("src".to_owned());
    dirs.sort();
    dirs
}

/// Returns all source files below `dir` with their unmodified text, by path.
pub(crate) fn files(dir: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    collect(&root().join(dir), dir, &mut out);
    out
}

fn collect(dir: &Path, below: &str, out: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &path, out);
        } else if path.ends_with(".rs") {
            out.insert(path, std::fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// Directories with documents that are not the project's own, or that are not part of it.
const WITHOUT_DOCUMENTS: &[&str] = &[".git", "target", "fuser", ".dupfs-test", ".dupfs-bench"];

/// Returns the documents of the repository with their text, by path.
pub(crate) fn documents() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(below) = open.pop() {
        for entry in std::fs::read_dir(root().join(&below)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            if entry.file_type().unwrap().is_dir() {
                open.extend((!WITHOUT_DOCUMENTS.contains(&name.as_str())).then_some(path));
            } else if name.ends_with(".md") {
                out.insert(path, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    out
}

/// Returns the scripts of the repository with their text, by path.
pub(crate) fn scripts() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for dir in ["scripts", "scripts/bench.d", "scripts/bench-link.d", ".ci"] {
        for entry in std::fs::read_dir(root().join(dir)).unwrap() {
            let entry = entry.unwrap();
            if let (true, Ok(text)) = (entry.file_type().unwrap().is_file(), std::fs::read_to_string(entry.path())) {
                out.insert(format!("{dir}/{}", entry.file_name().into_string().unwrap()), text);
            }
        }
    }
    out
}

/// The source files below `dir` that are compiled outside of tests.
pub(crate) fn production_files(dir: &str) -> Vec<SourceFile> {
    without_test_files(files(dir))
}

/// Removes the files that are declared under `#[cfg(test)]`, and those below them; blanks the tests of the others.
pub(crate) fn without_test_files(files: BTreeMap<String, String>) -> Vec<SourceFile> {
    let mut test_modules: Vec<String> = Vec::new();
    for (path, text) in &files {
        let children = children_dir(path);
        test_modules.extend(source::test_modules(&source::code_only(text)).iter().map(|m| format!("{children}/{m}")));
    }
    let is_test = |path: &str| {
        test_modules
            .iter()
            .any(|module| path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    let production = files.iter().filter(|(path, _)| !is_test(path));
    let blanked = |text| source::without_tests(&source::code_only(text));
    production.map(|(path, text)| SourceFile { path: path.clone(), code: blanked(text) }).collect()
}

/// The directory of the modules that the file `path` declares.
pub(crate) fn children_dir(path: &str) -> &str {
    let stem = path.trim_end_matches(".rs");
    match stem.rsplit_once('/') {
        Some((dir, "mod" | "lib" | "main")) => dir,
        _ => stem,
    }
}

#[test]
fn files_that_only_tests_use_are_left_out() {
    let files = [
        ("src/lib.rs", "mod a;\n#[cfg(test)]\nmod fake;\n#[cfg(test)] pub(crate) mod b;"),
        ("src/a.rs", "#[cfg(test)]\nmod tests;\nstruct A; // unsafe"),
        ("src/a/tests.rs", "struct T;"),
        ("src/b/mod.rs", "struct B;"),
        ("src/b/c.rs", "struct C;"),
        ("src/fake.rs", "struct F;"),
        ("src/fakes.rs", "struct G;"),
    ];
    let kept = without_test_files(files.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
    let paths: Vec<&str> = kept.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["src/a.rs", "src/fakes.rs", "src/lib.rs"]);
    assert_eq!(kept[0].code.trim(), "struct A;");
}
