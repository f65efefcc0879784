//! The files of a crate do not depend on each other in a circle.
//!
//! A file depends on another if a path in its code ends at an item that the other file defines. Declaring a module and
//! exporting the names of another file are no dependencies. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{CrateModules, Target};
use crate::tree::{self, SourceFile};

/// Dependencies that close a circle, as (from, to): to be removed. An entry that is no longer part of a circle fails the test.
const KNOWN: &[(&str, &str)] = &[];

/// For each file the files that it depends on, with the names by which it does.
type Dependencies = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn dependencies(dir: &str, files: &[SourceFile]) -> Dependencies {
    let crate_modules = CrateModules::parse(dir, files);
    let mut out = Dependencies::new();
    for (path, module) in &crate_modules.modules {
        let mut depend = |target: Option<Target>, name: &str| {
            let Some(Target::Item(file)) = target else { return };
            if file != module.file {
                out.entry(module.file.clone()).or_default().entry(file).or_default().insert(name.to_owned());
            }
        };
        for import in &module.imports {
            let target = match (crate_modules.resolve(path, &import.path), &*import.name) {
                (Some(Target::Module(at)), "*") => crate_modules.modules.get(&at).map(|m| Target::Item(m.file.clone())),
                (target, _) => target,
            };
            if !import.exported || module.words.contains(&import.name) {
                depend(target, &import.name);
            }
        }
        for code_path in &module.paths {
            depend(crate_modules.resolve(path, &code_path.names), &code_path.names.join("::"));
        }
    }
    out
}

/// The files that can be reached from `start` over one dependency or more.
fn reachable<'a>(dependencies: &'a Dependencies, start: &str) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(file) = open.pop() {
        for next in dependencies.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    found
}

/// The circles: each a set of files that all depend on each other, directly or not.
fn circles(dependencies: &Dependencies) -> Vec<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        dependencies.keys().map(|file| (file.as_str(), reachable(dependencies, file))).collect();
    let mut out: Vec<BTreeSet<&str>> = Vec::new();
    for (file, others) in &reached {
        if others.contains(file) && !out.iter().any(|circle| circle.contains(file)) {
            out.push(
                others.iter().filter(|other| reached.get(*other).is_some_and(|r| r.contains(file))).copied().collect(),
            );
        }
    }
    out
}

/// Describes the circles, with the names that close each.
fn describe(dependencies: &Dependencies, circles: &[BTreeSet<&str>]) -> String {
    let mut out = String::new();
    for circle in circles {
        out += &format!("a circle of {} files:\n", circle.len());
        for from in circle {
            for (to, names) in
                dependencies.get(*from).into_iter().flatten().filter(|(to, _)| circle.contains(to.as_str()))
            {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                out += &format!("  {from} -> {to}: {}\n", names.join(", "));
            }
        }
    }
    out
}

/// Returns all faults of `all`, except for the dependencies in `known`.
fn faults(mut all: Dependencies, known: &[(&str, &str)]) -> String {
    let whole = circles(&all);
    let closes = |(from, to): &&(&str, &str)| {
        let both = whole.iter().any(|circle| circle.contains(from) && circle.contains(to));
        both && all.get(*from).is_some_and(|names| names.contains_key(*to))
    };
    let (needed, stale): (Vec<_>, Vec<_>) = known.iter().partition(closes);
    let mut out: String =
        stale.iter().map(|(from, to)| format!("{from} -> {to} closes no circle: remove it from KNOWN\n")).collect();
    for (from, to) in needed {
        all.get_mut(from).unwrap().remove(to);
    }
    out += &describe(&all, &circles(&all));
    out
}

#[test]
fn no_circles_of_files_within_a_crate() {
    let mut all = Dependencies::new();
    for dir in tree::crate_dirs() {
        all.extend(dependencies(&dir, &tree::production_files(&dir)));
    }
    assert!(all.len() > 100, "no dependencies found");
    let found = faults(all, KNOWN);
    assert!(found.is_empty(), "\n{found}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Dependencies {
        let file = |(path, code): &(&str, &str)| SourceFile { path: format!("src/{path}"), code: (*code).to_owned() };
        dependencies("src", &files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_is_found_however_it_is_closed() {
        let closed = |code: &str| {
            let dependencies = graph(&[
                ("lib.rs", "mod a; mod b; pub use a::A;"),
                ("a.rs", "use crate::b::B;\npub struct A;"),
                ("b.rs", code),
            ]);
            !circles(&dependencies).is_empty()
        };
        for code in [
            "use crate::a::A; pub struct B;",
            "use crate::A; pub struct B;",
            "use super::{a::{self, A as X}}; pub struct B;",
            "use crate::a; pub struct B(a::A);",
            "pub struct B(crate::a::A);",
            "pub struct B; fn f() { super::A::new() }",
            "pub struct B; mod inner { use super::super::a::A; }",
            "pub use crate::a::A; pub struct B(A);",
            "use crate::a::*; pub struct B;",
        ] {
            assert!(closed(code), "{code}");
        }
        for code in [
            "pub struct B;",
            "pub use crate::a::A; pub struct B;",
            "use std::a::A; pub struct B;",
            "use crate::a; pub struct B;",
            "pub(in crate::a) struct B;",
        ] {
            assert!(!closed(code), "{code}");
        }
    }

    #[test]
    fn a_circle_over_several_files_is_described() {
        let dependencies = graph(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "pub struct A(crate::b::B, crate::d::D);"),
            ("b.rs", "pub struct B(crate::c::C);"),
            ("c.rs", "use crate::a::A; pub struct C;"),
            ("d.rs", "pub struct D;"),
        ]);
        let expected = "a circle of 3 files:\n  src/a.rs -> src/b.rs: crate::b::B\n  \
            src/b.rs -> src/c.rs: crate::c::C\n  src/c.rs -> src/a.rs: A\n";
        assert_eq!(faults(dependencies, &[]), expected);
    }

    #[test]
    fn a_module_and_the_file_that_declares_it_can_be_a_circle() {
        let child = ("a/b.rs", "use super::A; pub struct B;");
        let uses = graph(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod b; pub struct A(b::B);"), child]);
        assert_eq!(circles(&uses).len(), 1);
        let exports = graph(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod b; pub use b::B; pub struct A;"), child]);
        assert_eq!(circles(&exports).len(), 0);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        let graph = || {
            graph(&[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "pub struct A(crate::b::B);"),
                ("b.rs", "pub struct B(crate::a::A);"),
            ])
        };
        assert_eq!(faults(graph(), &[("src/a.rs", "src/b.rs")]), "");
        let stale = "src/a.rs -> src/c.rs closes no circle: remove it from KNOWN\n";
        assert_eq!(faults(graph(), &[("src/a.rs", "src/b.rs"), ("src/a.rs", "src/c.rs")]), stale);
    }
}
