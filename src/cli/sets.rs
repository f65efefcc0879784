//! `dupfs sets`: chains, sets and snapshots of a repository, and every problem that names and manifests tell.

mod manifests;
mod report;
mod text;

#[cfg(test)]
mod tests;

use super::failure::{Exit, Failure};
use super::printer::Printer;
use crate::volume::Repository;

/// Reports on `repository`, as text or as JSON (docs/CLI.md). Reads every manifest and nothing else; one that cannot be
/// read is a problem in the report, so that the rest is told without a key too.
///
/// # Errors
/// [`Failure`] when the output takes no more.
pub fn run(repository: &Repository, json: bool, printer: &mut Printer<'_>) -> Result<Exit, Failure> {
    let report = report::Report::of(repository.url(), repository.collection(), &manifests::read_all(repository));
    if json {
        printer.json(&report, true)?;
        printer.text("\n")?;
    } else {
        text::print(&report, printer)?;
    }
    printer.finish()
}
