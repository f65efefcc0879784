//! Plain words: doc comments begin with their subject, and retired words are not used. CONTRIBUTING.md has the reasons.

use crate::source::code_only;
use crate::tokens::tokens;
use crate::tree;

/// Words that no doc comment begins with.
const QUESTION_WORDS: &[&str] =
    &["How", "Nobody", "Somebody", "What", "When", "Where", "Whether", "Which", "Who", "Whoever", "Whose"];

/// Words that no name contains.
const RETIRED_IN_NAMES: &[&str] = &["learnt", "patience", "said", "says", "tell", "tells", "told", "upto", "whoever"];

/// Names of libraries with such words.
const FOREIGN_NAMES: &[&str] = &["TELL_UNSUPPORTED_CHECK"];

/// Words that no name begins with.
const RETIRED_IN_FRONT: &[&str] = &["what", "whether", "who", "whose"];

/// Phrases that no comment or document contains.
const RETIRED_PHRASES: &[&str] = &[
    "anew",
    "anybody",
    "at hand",
    "cannot tell",
    "ends well",
    "everybody",
    "for ever",
    "for want of",
    "hardly ever",
    "in place of those",
    "in vain",
    "learnt",
    "looked at",
    "looked into",
    "of their own",
    "somebody",
    "takes note",
    "tell apart",
    "tell which",
    "told",
    "vouches",
    "whoever",
    "without a word",
];

/// Documents that quote retired words.
const QUOTING: &[&str] = &["CONTRIBUTING.md"];

/// Returns the words of the name `name`, in lower case: `a_b` and `ALongName` have several.
fn words_of(name: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for part in name.split('_') {
        let mut word = String::new();
        for c in part.chars() {
            if c.is_uppercase() && word.ends_with(char::is_lowercase) {
                out.push(std::mem::take(&mut word));
            }
            word.push(c);
        }
        out.push(word);
    }
    out.retain(|word| !word.is_empty());
    out.iter().map(|word| word.to_lowercase()).collect()
}

/// Returns true if `text` contains `phrase`, in any case and between ends of words.
fn contains_phrase(text: &str, phrase: &str) -> bool {
    let text = text.to_lowercase();
    text.match_indices(phrase).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + phrase.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Returns the text of the comment in `line`, if the line is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text).trim())
}

/// Returns the retired phrases in `lines`, each a line number and a text.
fn phrases<'a>(path: &str, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<String> {
    let found = |(number, text): (usize, &str)| {
        let phrases = RETIRED_PHRASES.iter().filter(|phrase| contains_phrase(text, phrase));
        phrases.map(|phrase| format!("{path}:{number}: \"{phrase}\"")).collect::<Vec<_>>()
    };
    lines.flat_map(found).collect()
}

/// Returns the faults in the names that `source` contains.
fn name_faults(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let mut out = Vec::new();
    for token in tokens(&code).into_iter().filter(|t| t.is_word() && !FOREIGN_NAMES.contains(&t.text)) {
        let words = words_of(token.text);
        let is_retired = words.iter().any(|word| RETIRED_IN_NAMES.contains(&word.as_str()))
            || words.len() > 1 && RETIRED_IN_FRONT.contains(&words[0].as_str());
        if is_retired {
            out.push(format!("{path}:{}: the name {}", token.line, token.text));
        }
    }
    out
}

/// Returns the doc comments of `source` that begin with a question word.
fn doc_faults(path: &str, source: &str) -> Vec<String> {
    let is_doc = |line: &str| line.trim_start().starts_with("///") || line.trim_start().starts_with("//!");
    let mut out = Vec::new();
    let mut in_doc = false;
    for (number, line) in (1..).zip(source.lines()) {
        let first = is_doc(line) && !in_doc;
        in_doc = is_doc(line);
        let word = comment(line).and_then(|text| text.split(|c: char| !c.is_alphanumeric()).next());
        if first && word.is_some_and(|word| QUESTION_WORDS.contains(&word)) {
            out.push(format!("{path}:{number}: {}", line.trim()));
        }
    }
    out
}

/// Returns the faults of one source file.
fn faults(path: &str, source: &str) -> Vec<String> {
    let mut out = name_faults(path, source);
    out.extend(doc_faults(path, source));
    let comments = (1..).zip(source.lines()).filter_map(|(number, line)| Some((number, comment(line)?)));
    out.extend(phrases(path, comments));
    out
}

#[test]
fn sources_use_plain_words() {
    let mut dirs = tree::crate_dirs();
    dirs.extend(["tests", "benches", "fuzz/fuzz_targets"].map(str::to_owned));
    dirs.extend(["base", "cache", "format"].map(|name| format!("crates/{name}/tests")));
    let own = format!("tests/structure/{}", file!().rsplit('/').next().unwrap());
    let files = dirs.iter().flat_map(|dir| tree::files(dir)).filter(|(path, _)| *path != own);
    let found: Vec<String> = files.flat_map(|(path, source)| faults(&path, &source)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn documents_use_plain_words() {
    let documents = tree::documents();
    assert!(documents.len() > 10, "no documents found");
    let checked = documents.iter().filter(|(path, _)| !QUOTING.contains(&path.as_str()));
    let found: Vec<String> = checked.flat_map(|(path, text)| phrases(path, (1..).zip(text.lines()))).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn scripts_use_plain_words() {
    let scripts = tree::scripts();
    assert!(scripts.len() > 10, "no scripts found");
    let found: Vec<String> = scripts.iter().flat_map(|(path, text)| phrases(path, (1..).zip(text.lines()))).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn retired_words_are_found() {
    let names = |code: &str| name_faults("a.rs", code).len();
    assert_eq!(names("let told = 1; fn what_is_lost() {} struct PatienceOfAll; // let said"), 3);
    assert_eq!(names("let untold = what; fn somewhat() {} \"told\""), 0);
    let docs = |code: &str| doc_faults("a.rs", code).len();
    assert_eq!(docs("//! What this is.\n\n/// Whether it is.\nfn a() {}\n"), 2);
    assert_eq!(docs("/// Returns\n/// What.\n///\n/// When it fails.\nfn a() {}\n// What\n"), 0);
    assert_eq!(faults("a.rs", "// Nobody is told.\nlet a = \"told\";").len(), 1);
}
