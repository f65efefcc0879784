//! `dupfs man`: the manual pages, made from the definition of the commands.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use jiff::Timestamp;

use dupfs_base::{ErrorKind, io_reason};

use super::args::{Cli, ManArgs};
use super::error::CliError;
use super::exit::CommandExit;
use super::long_option::LongOption;

/// The section of all pages.
const SECTION: &str = "1";

/// A manual page.
struct ManPage {
    /// The name of its file.
    file: String,
    roff: Vec<u8>,
}

/// Writes one page for the program and one for each command into a directory, which is created if it is missing.
///
/// # Errors
/// When a page cannot be written.
pub(super) fn write(args: &ManArgs) -> Result<(), CliError> {
    let failed = |path: &Path, error: &io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        CliError::failed(
            kind,
            format!(
                "{} cannot be written: {}; give a directory that this user may write",
                path.display(),
                io_reason(error)
            ),
        )
    };
    fs::create_dir_all(&args.dir).map_err(|error| failed(&args.dir, &error))?;
    for page in pages(&date()).map_err(|error| failed(&args.dir, &error))? {
        let path = args.dir.join(&page.file);
        let written = File::create(&path).and_then(|mut file| file.write_all(&page.roff));
        written.map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// The date of the pages: that of `SOURCE_DATE_EPOCH`, by which packages are built reproducibly, else today.
fn date() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let time = given.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    time.strftime("%Y-%m-%d").to_string()
}

fn pages(date: &str) -> io::Result<Vec<ManPage>> {
    let mut program = Cli::command().disable_help_subcommand(true).subcommand_help_heading("COMMANDS");
    program.build();
    let mut pages = Vec::new();
    add_pages(&program, None, date, &mut pages)?;
    Ok(pages)
}

/// Adds the page of `command` and those of the commands below it. `parent` is the name of the page above.
fn add_pages(command: &Command, parent: Option<&str>, date: &str, pages: &mut Vec<ManPage>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let below: Vec<&Command> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    let related: Vec<String> = match parent {
        Some(parent) => vec![parent.to_owned()],
        None => below.iter().map(|below| format!("{name}-{}", below.get_name())).collect(),
    };
    pages.push(ManPage { file: format!("{name}.{SECTION}"), roff: page(command, &name, &related, date)? });
    for below in below {
        add_pages(below, Some(&name), date, pages)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str, related: &[String], date: &str) -> io::Result<Vec<u8>> {
    // The usage line of `--help`: a list of all options, which clap_mangen makes, hides the operands.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let has_commands = command.has_subcommands();
    let man = Man::new(command.clone().mut_args(with_values).override_usage(usage))
        .title(name.to_uppercase())
        .section(SECTION)
        .date(date)
        .source(format!("dupfs {}", env!("CARGO_PKG_VERSION")))
        .manual("dupfs");
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    man.render_synopsis_section(&mut roff)?;
    man.render_description_section(&mut roff)?;
    if has_commands {
        man.render_subcommands_section(&mut roff)?;
    }
    man.render_options_section(&mut roff)?;
    environment(command).to_writer(&mut roff)?;
    files().to_writer(&mut roff)?;
    exit_status().to_writer(&mut roff)?;
    see_also(related).to_writer(&mut roff)?;
    Ok(roff)
}

/// `arg` with its possible values in its help text. clap_mangen writes a list of them with line breaks that `mandoc -Tlint`
/// reports.
fn with_values(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    let names: Vec<&str> = values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name()).collect();
    if names.is_empty() {
        return arg;
    }
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = format!("{help}. One of: {}", names.join(", "));
    arg.help(help.clone()).long_help(help).hide_possible_values(true)
}

fn exit_status() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for exit in CommandExit::ALL {
        roff.control("TP", []);
        roff.text([bold(exit.code().to_string())]);
        roff.text([roman(exit.meaning())]);
    }
    roff
}

fn environment(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    let variables: Vec<String> = LongOption::of(command).iter().map(LongOption::variable).collect();
    roff.text([roman(format!(
        "Each long option has a variable, which the option on the command line overrides: {}. A flag takes true or false, and \
         a repeatable option one value a line. PASSPHRASE is tried first of all passphrases.",
        variables.join(", ")
    ))]);
    roff
}

fn files() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    for (file, meaning) in [
        (
            "~/.config/dupfs/config.toml",
            "Repositories by name, and defaults of options. Its keys are the long options.",
        ),
        ("/etc/dupfs/config.toml", "The same for all users of the machine."),
        ("~/.cache/dupfs", "The index and the spill file."),
    ] {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(meaning)]);
    }
    roff
}

fn see_also(related: &[String]) -> Roff {
    let names = related.iter().map(|name| (name.as_str(), SECTION)).chain([("duplicity", "1")]);
    let mut text: Vec<Inline> = Vec::new();
    for (name, section) in names {
        if !text.is_empty() {
            text.push(roman(", "));
        }
        text.extend([bold(name), roman(format!("({section})"))]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text(text);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a page without escapes.
    fn plain(page: &ManPage) -> String {
        let text = String::from_utf8(page.roff.clone()).unwrap();
        ["\\fB", "\\fI", "\\fR"].iter().fold(text, |text, font| text.replace(font, "")).replace("\\-", "-")
    }

    #[test]
    fn the_program_and_each_command_have_a_page() {
        let files: Vec<String> = pages("2026-01-02").unwrap().into_iter().map(|page| page.file).collect();
        let commands =
            Cli::command().get_subcommands().map(|c| format!("dupfs-{}.1", c.get_name())).collect::<Vec<_>>();
        assert!(commands.len() > 5 && commands.iter().all(|file| files.contains(file)), "{files:?}");
        assert_eq!(files.first().map(String::as_str), Some("dupfs.1"));
    }

    /// The definition of the command of each page.
    fn definitions(command: &Command, into: &mut Vec<Command>) {
        into.push(command.clone());
        for below in command.get_subcommands() {
            definitions(below, into);
        }
    }

    #[test]
    fn every_long_option_is_in_the_page_of_its_command_with_a_help_text() {
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        let mut commands = Vec::new();
        definitions(&program, &mut commands);
        let pages = pages("2026-01-02").unwrap();
        assert_eq!(commands.len(), pages.len());
        for (command, page) in commands.iter().zip(&pages) {
            let text = plain(page);
            for option in command.get_arguments() {
                let Some(long) = option.get_long() else { continue };
                let help = option.get_help().map(ToString::to_string).unwrap_or_default();
                if option.is_hide_set() {
                    continue;
                }
                let item = text.split(".TP\n").find(|item| {
                    let head = item.lines().next().unwrap_or_default();
                    head.split([',', ' ', '[']).any(|word| word == format!("--{long}"))
                });
                let item = item.unwrap_or_else(|| panic!("{}: no --{long}", page.file));
                assert!(help.len() > 3 && item.lines().nth(1).is_some_and(|line| line.len() > 3), "--{long}: {item}");
            }
        }
    }

    #[test]
    fn a_page_has_the_sections_of_a_manual() {
        let pages = pages("2026-01-02").unwrap();
        let ls = plain(pages.iter().find(|page| page.file == "dupfs-ls.1").unwrap());
        assert!(ls.contains(".TH DUPFS-LS 1 2026-01-02 \"dupfs "), "{ls}");
        assert!(ls.contains("dupfs ls [OPTIONS] <URL> [PATH]"), "{ls}");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "KEYS",
            "ENVIRONMENT",
            "FILES",
            "\"EXIT STATUS\"",
            "\"SEE ALSO\"",
        ] {
            assert!(ls.contains(&format!(".SH {section}\n")), "{section}: {ls}");
        }
        assert!(ls.contains("6\ndamage"), "{ls}");
        assert!(ls.contains("One of: auto, old, new"), "{ls}");
        assert!(ls.contains("DUPFS_CACHE_DIR") && !ls.contains("DUPFS_FOREGROUND"), "{ls}");
    }
}
