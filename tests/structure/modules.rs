//! The modules of a crate, what each defines and imports, and the file in which a path ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::{Token, tokens};
use crate::tree::{SourceFile, children_dir};

/// A module's path below the crate's root, which is the empty path.
pub(crate) type ModulePath = Vec<String>;

/// A name in a `use` item.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// The name in the importing module, or `*`.
    pub(crate) name: String,
    /// Visible to other modules.
    pub(crate) exported: bool,
}

/// A path in code outside of `use` items, of two or more names.
#[derive(Debug)]
pub(crate) struct CodePath {
    pub(crate) names: Vec<String>,
}

/// A module of a crate: a file, or a `mod name { ... }` inside of a file.
#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) file: String,
    /// Declared modules.
    children: BTreeSet<String>,
    /// Defined items.
    items: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    pub(crate) paths: Vec<CodePath>,
    /// Words that may name an imported item.
    pub(crate) words: BTreeSet<String>,
}

/// The end of a path.
#[derive(Debug, PartialEq)]
pub(crate) enum Target {
    Module(ModulePath),
    /// An item, by the file that defines it.
    Item(String),
}

/// The modules of one crate.
#[derive(Debug)]
pub(crate) struct CrateModules {
    pub(crate) modules: BTreeMap<ModulePath, Module>,
}

impl CrateModules {
    /// Parses the files of the crate whose sources are in `dir`.
    pub(crate) fn parse(dir: &str, files: &[SourceFile]) -> Self {
        let mut modules = BTreeMap::new();
        for file in files {
            // The binary names the library's modules as another crate does.
            if file.path == format!("{dir}/main.rs") {
                continue;
            }
            let below = children_dir(&file.path).strip_prefix(dir).unwrap();
            let path = below.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Parser { file: &file.path, tokens: &tokens(&file.code), modules: &mut modules }.run(path);
        }
        Self { modules }
    }

    /// Returns the end of the path `names`, used in `module`, or `None` if it leaves the crate.
    pub(crate) fn resolve(&self, module: &ModulePath, names: &[String]) -> Option<Target> {
        self.resolve_within(module, names, 16)
    }

    fn resolve_within(&self, module: &ModulePath, names: &[String], depth: u8) -> Option<Target> {
        let (first, mut rest) = names.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(ModulePath::new()),
            "self" => Target::Module(module.clone()),
            "super" => Target::Module(parent(module)?),
            _ => self.find(module, first, rest.is_empty(), depth)?,
        };
        while let (Target::Module(at), Some((name, behind))) = (&target, rest.split_first()) {
            let next = match name.as_str() {
                "super" => parent(at).map(Target::Module),
                "self" => Some(Target::Module(at.clone())),
                _ => self.find(at, name, behind.is_empty(), depth),
            };
            // A name that a macro made.
            let Some(next) = next else { return Some(Target::Item(self.modules.get(at)?.file.clone())) };
            target = next;
            rest = behind;
        }
        Some(target)
    }

    /// Finds `name` in `module`. As the last name of a path, an item takes precedence over a module of the same name.
    fn find(&self, module: &ModulePath, name: &str, last: bool, depth: u8) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let in_module = self.modules.get(module)?;
        let mut child = module.clone();
        child.push(name.to_owned());
        let child = in_module.children.contains(name).then_some(Target::Module(child));
        let item = || {
            if in_module.items.contains(name) {
                return Some(Target::Item(in_module.file.clone()));
            }
            let named = in_module.imports.iter().filter(|i| i.name == name);
            let found = named.filter_map(|i| self.resolve_within(module, &i.path, depth)).next();
            found.or_else(|| {
                let globs = in_module.imports.iter().filter(|i| i.name == "*");
                globs.filter_map(|i| self.find_in_glob(module, i, name, last, depth)).next()
            })
        };
        if last { item().or(child) } else { child.or_else(item) }
    }

    fn find_in_glob(&self, module: &ModulePath, glob: &Import, name: &str, last: bool, depth: u8) -> Option<Target> {
        match self.resolve_within(module, &glob.path, depth)? {
            Target::Module(at) => self.find(&at, name, last, depth),
            Target::Item(_) => None,
        }
    }
}

fn parent(module: &ModulePath) -> Option<ModulePath> {
    module.split_last().map(|(_, above)| above.to_vec())
}

struct Parser<'a> {
    file: &'a str,
    tokens: &'a [Token<'a>],
    modules: &'a mut BTreeMap<ModulePath, Module>,
}

impl Parser<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| t.text)
    }

    fn is_word(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(Token::is_word)
    }

    fn module(&mut self, path: &ModulePath) -> &mut Module {
        let file = self.file;
        self.modules.entry(path.clone()).or_insert_with(|| Module { file: file.to_owned(), ..Module::default() })
    }

    fn run(&mut self, mut path: ModulePath) {
        self.module(&path);
        // The depth of braces, and for each module that is open its depth.
        let (mut depth, mut opened, mut at) = (0, vec![0], 0);
        while at < self.tokens.len() {
            let text = self.text(at).to_owned();
            match text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    if opened.len() > 1 && opened.last() == Some(&depth) {
                        opened.pop();
                        path.pop();
                    }
                    depth -= 1;
                }
                "use" if self.text(at + 1) != "<" => {
                    at = self.import(&path, at);
                    continue;
                }
                "mod" if self.is_word(at + 1) => {
                    let name = self.text(at + 1).to_owned();
                    self.module(&path).children.insert(name.clone());
                    if self.text(at + 2) == "{" {
                        depth += 1;
                        opened.push(depth);
                        path.push(name);
                        self.module(&path);
                    }
                    at += 3;
                    continue;
                }
                _ => {}
            }
            if let Some(name) = self.definition(at, depth == *opened.last().unwrap()) {
                self.module(&path).items.insert(name);
            }
            at = self.mention(&path, at);
        }
    }

    /// Returns the name that the token `at` and the following ones define in the module.
    fn definition(&self, at: usize, in_module: bool) -> Option<String> {
        let name = match self.text(at) {
            // Also inside of a macro's braces.
            "struct" | "enum" | "trait" => at + 1,
            "union" if self.text(at + 2) == "{" => at + 1,
            "fn" | "const" | "type" if in_module => at + 1,
            "static" if in_module && self.text(at + 1) == "mut" => at + 2,
            "static" if in_module => at + 1,
            "macro_rules" => at + 2,
            _ => return None,
        };
        (self.is_word(name) && !["fn", "unsafe", "extern", "_"].contains(&self.text(name)))
            .then(|| self.text(name).to_owned())
    }

    /// Records the path or the word at `at`. Returns the index of the next token.
    fn mention(&mut self, module: &ModulePath, at: usize) -> usize {
        let before = if at == 0 { "" } else { self.text(at - 1) };
        // `(in crate::x)` is a visibility.
        let visibility = before == "in" && at > 1 && self.text(at - 2) == "(";
        if !self.is_word(at) || matches!(before, "." | "::" | "fn") || visibility {
            return at + 1;
        }
        let mut names = vec![self.text(at).to_owned()];
        let mut end = at + 1;
        while self.text(end) == "::" && self.is_word(end + 1) {
            names.push(self.text(end + 1).to_owned());
            end += 2;
        }
        let module = self.module(module);
        module.words.insert(names[0].clone());
        if names.len() > 1 {
            module.paths.push(CodePath { names });
        }
        end
    }

    /// Parses the `use` item at `at`. Returns the index of the token after it.
    fn import(&mut self, module: &ModulePath, at: usize) -> usize {
        let exported = at > 0 && matches!(self.text(at - 1), "pub" | ")");
        let (mut found, mut end) = (Vec::new(), at + 1);
        self.import_tree(&mut end, &[], &mut found);
        for (path, name) in found {
            self.module(module).imports.push(Import { path, name, exported });
        }
        end
    }

    fn import_tree(&self, at: &mut usize, above: &[String], out: &mut Vec<(Vec<String>, String)>) {
        let mut path = above.to_vec();
        loop {
            match self.text(*at) {
                "::" => *at += 1,
                "{" => {
                    *at += 1;
                    while !matches!(self.text(*at), "}" | "") {
                        self.import_tree(at, &path, out);
                        *at += usize::from(self.text(*at) == ",");
                    }
                    *at += 1;
                    return;
                }
                "*" => {
                    *at += 1;
                    out.push((path, "*".to_owned()));
                    return;
                }
                "as" => {
                    let name = self.text(*at + 1).to_owned();
                    *at += 2;
                    out.push((without_self(path), name));
                    return;
                }
                _ if self.is_word(*at) => {
                    path.push(self.text(*at).to_owned());
                    *at += 1;
                }
                _ => {
                    let path = without_self(path);
                    out.extend(path.last().cloned().map(|name| (path, name)));
                    return;
                }
            }
        }
    }
}

/// `a::{self}` imports `a`.
fn without_self(mut path: Vec<String>) -> Vec<String> {
    if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
        path.pop();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(files: &[(&str, &str)]) -> CrateModules {
        let files: Vec<_> = files
            .iter()
            .map(|(path, code)| SourceFile { path: (*path).to_owned(), code: (*code).to_owned() })
            .collect();
        CrateModules::parse("src", &files)
    }

    fn names(path: &str) -> Vec<String> {
        path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn ends(modules: &CrateModules, module: &str, path: &str) -> String {
        match modules.resolve(&names(module), &names(path)) {
            Some(Target::Item(file)) => file,
            Some(Target::Module(path)) => format!("mod {}", path.join("::")),
            None => "elsewhere".to_owned(),
        }
    }

    #[test]
    fn a_path_ends_in_the_file_that_defines_its_item() {
        let modules = parse(&[
            ("src/lib.rs", "pub mod a;\nmod b;\npub use a::{A, deep::Deep as D};\nuse b::*;"),
            (
                "src/a/mod.rs",
                "mod deep;\npub use deep::Deep;\npub struct A;\nmod inner { pub struct I; pub mod more {} }",
            ),
            ("src/a/deep.rs", "use super::super::b;\npub(crate) struct Deep;\nmade! { pub struct Made; }"),
            ("src/b.rs", "use crate::a::{self, Deep, inner::{I}};\npub fn open() {}\npub const MAX: u8 = 1;"),
        ]);
        assert_eq!(ends(&modules, "b", "crate::a::Deep"), "src/a/deep.rs");
        assert_eq!(ends(&modules, "b", "Deep::new"), "src/a/deep.rs");
        assert_eq!(ends(&modules, "b", "crate::D"), "src/a/deep.rs");
        assert_eq!(ends(&modules, "b", "a::A"), "src/a/mod.rs");
        assert_eq!(ends(&modules, "b", "I"), "src/a/mod.rs");
        assert_eq!(ends(&modules, "b", "a::deep::Made"), "src/a/deep.rs");
        assert_eq!(ends(&modules, "b", "a::inner::more"), "mod a::inner::more");
        assert_eq!(ends(&modules, "a::deep", "b::open"), "src/b.rs");
        assert_eq!(ends(&modules, "a::deep", "super::A"), "src/a/mod.rs");
        assert_eq!(ends(&modules, "a::deep", "crate::MAX"), "src/b.rs");
        assert_eq!(ends(&modules, "a::deep", "crate::b::made_by_a_macro"), "src/b.rs");
        assert_eq!(ends(&modules, "a", "std::fmt::Debug"), "elsewhere");
        assert_eq!(ends(&modules, "a", "Self::x"), "elsewhere");
    }

    #[test]
    fn an_import_that_names_itself_ends() {
        let modules = parse(&[("src/lib.rs", "mod a;"), ("src/a.rs", "use a::x; use x::a; use super::a::*;")]);
        assert_eq!(ends(&modules, "a", "x"), "elsewhere");
    }

    #[test]
    fn words_and_paths_are_those_outside_of_imports_and_visibilities() {
        let modules =
            parse(&[("src/lib.rs", "pub use a::X;\npub(in crate::b) fn f() { g.h(); crate::c::D::<E>::new() }")]);
        let module = &modules.modules[&Vec::new()];
        assert!(module.imports[0].exported && module.imports.len() == 1);
        let paths: Vec<String> = module.paths.iter().map(|p| p.names.join("::")).collect();
        assert_eq!(paths, ["crate::c::D"]);
        assert!(module.words.contains("g") && !module.words.contains("h") && !module.words.contains("X"));
    }
}
