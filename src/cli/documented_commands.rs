//! The commands in the documents are commands of the program: their options and operands are accepted by its parser.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;

use super::args::Cli;
use super::argv;

/// Returns the words of a line of a shell before a comment, a pipe, a redirection, the next command, or a column with an
/// explanation. `None` if the line has a form that only a shell can expand, or a placeholder for a command.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let line = line.split("  ").next().unwrap_or_default();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None) => word.get_or_insert_default().extend(chars.next()),
            ('|' | '>' | '<' | '&' | ';', None) => break,
            ('#', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            ('$' | '[' | '(' | '`', None) => return None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() || line.contains("...") || line.contains("COMMAND") { None } else { Some(words) }
}

/// Returns the commands of dupfs in a document: lines of code, with a prompt or variables in front of them, and code in a line.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut is_fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        is_fenced ^= line.trim_start().starts_with("```");
        let code: Vec<&str> = if is_fenced || line.starts_with("    ") {
            vec![line.trim_start().trim_start_matches(['$', '#']).trim_start()]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for command in code {
            let is_assignment = |word: &str| {
                word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
                })
            };
            let mut rest = command.strip_prefix("sudo ").unwrap_or(command);
            while let Some((_, after)) = rest.split_once(' ').filter(|(first, _)| is_assignment(first)) {
                rest = after;
            }
            if rest.starts_with("dupfs ") || rest.starts_with("mount.dupfs ") {
                out.push((number, rest.to_owned()));
            }
        }
    }
    out
}

/// Returns the reason why the program refuses a command. A command without its operands, as prose names it, is complete.
fn refusal(words: &[String]) -> Option<String> {
    let arguments = match argv::normalise(words.iter().map(OsString::from).collect()) {
        Ok(arguments) => arguments,
        Err(error) => return Some(error.to_string()),
    };
    let error = Cli::try_parse_from(arguments.args).err()?;
    let is_accepted = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    (!is_accepted).then(|| error.to_string())
}

#[test]
fn the_program_accepts_each_command_in_the_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let is_document = |path: &std::path::PathBuf| path.extension().is_some_and(|own| own == "md");
    let (mut checked, mut refused) = (0, Vec::new());
    for path in docs.filter(is_document).chain([root.join("README.md"), root.join("samples/README.md")]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, command) in commands(&text) {
            let Some(words) = words(&command) else { continue };
            checked += 1;
            if let Some(reason) = refusal(&words) {
                refused.push(format!("{}:{number}: {command}\n{reason}", path.display()));
            }
        }
    }
    assert!(checked > 100, "{checked}");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn a_wrong_command_in_a_document_is_found() {
    let text = "Run `dupfs ls -R URL` or `dupfs lst URL`.\n\n    # A=b dupfs mount -o speed=9 URL /mnt  # comment\n    ls\n\n\
                ```\n$ dupfs cat URL 'a b' | head\ndupfs cat $URL\n```\n";
    let found = commands(text);
    let refused: Vec<bool> =
        found.iter().filter_map(|(_, command)| words(command)).map(|words| refusal(&words).is_some()).collect();
    assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 1, 3, 7, 8]);
    assert_eq!(refused, [false, true, true, false]);
    assert_eq!(words("dupfs cat URL 'a b' | head").unwrap(), ["dupfs", "cat", "URL", "a b"]);
}
