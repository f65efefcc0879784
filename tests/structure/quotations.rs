//! The error texts that docs/TROUBLESHOOTING.md quotes exist in the source, so that a search by the text of an error finds them.

use crate::tree;

const DOCUMENT: &str = "docs/TROUBLESHOOTING.md";

/// Returns `source` without the breaks within its string literals, with the escaped quotes of a literal as they are printed.
fn joined(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("\\\n") {
        out.push_str(before);
        rest = after.trim_start();
    }
    out.push_str(rest);
    out.replace("\\\"", "\"")
}

/// Returns the texts of the source files below `dir`, without their tests.
fn production_texts(dir: &str) -> Vec<String> {
    let texts = tree::files(dir);
    let files = tree::production_files(dir);
    let production = files.iter().filter_map(|file| texts.get(&file.path));
    production.map(|text| joined(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default())).collect()
}

/// Returns the quotations of a document, with the numbers of their lines.
fn quotations(text: &str) -> Vec<(usize, &str)> {
    (1..).zip(text.lines()).filter_map(|(number, line)| Some((number, line.strip_prefix("> ")?))).collect()
}

/// Returns the quotations of `text` that none of `sources` has.
fn missing<'a>(text: &'a str, sources: &[String]) -> Vec<(usize, &'a str)> {
    let is_missing = |(_, quotation): &(usize, &str)| !sources.iter().any(|source| source.contains(quotation));
    quotations(text).into_iter().filter(is_missing).collect()
}

#[test]
fn the_errors_in_the_document_on_troubles_are_those_of_the_source() {
    let documents = tree::documents();
    let text = documents.get(DOCUMENT).unwrap();
    let sources: Vec<String> = tree::crate_dirs().iter().flat_map(|dir| production_texts(dir)).collect();
    assert!(quotations(text).len() >= 20, "{}", quotations(text).len());
    let missing = missing(text, &sources);
    assert!(missing.is_empty(), "{DOCUMENT}: not in the source: {missing:#?}");
}

#[test]
fn a_changed_error_is_found() {
    let source = joined("format!(\"the {what} \\\n             is \\\"lost\\\": {}\")");
    let found = missing("> the {what} is \"lost\": {}\n\nthe text\n> is lost\n", &[source]);
    assert_eq!(found, [(4, "is lost")]);
}
